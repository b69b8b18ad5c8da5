package statsd

import (
	"bytes"
	"io"
	"os"
	"strconv"
	"time"
)

const (
	// peersMost bounds the processes that are remembered; a host that has more
	// senders than these looks up some of them again.
	peersMost = 4096
	// peerFresh is how long a process is taken to be the same without a look.
	peerFresh = time.Second
	// peerLookups is how many processes are looked up in each peerFresh at most.
	// A look takes some 30 µs, during which nothing is received.
	peerLookups = 2000
)

// peers finds the containers of processes that send over the Unix socket. It
// belongs to the receiving goroutine.
type peers struct {
	proc    string // "/proc"
	known   map[int32]peer
	window  time.Duration // when the budget was last renewed
	lookups int           // since then
}

// peer is what is known of one process.
type peer struct {
	started uint64 // field 22 of /proc/PID/stat: tells processes of one ID apart
	checked time.Duration
	table   *table // in which the origin was found
	origin  *origin
	path    string // its cgroups
}

func newPeers(proc string) *peers { return &peers{proc: proc, known: make(map[int32]peer)} }

// find returns the origin of a process: unknown if it is gone, shared if it is in
// no container.
func (ps *peers) find(pid int32, t *table, now time.Duration) *origin {
	p, ok := ps.known[pid]
	if ok && now-p.checked < peerFresh {
		if p.table != t {
			p.table, p.origin = t, t.ofCgroup(p.path)
			ps.known[pid] = p
		}
		return p.origin
	}
	if pid <= 0 || !ps.may(now) {
		return t.unknown // of another PID namespace; or one of too many
	}
	started, err := ps.startOf(pid)
	if err != nil {
		delete(ps.known, pid)
		return t.unknown
	}
	if !ok || p.started != started {
		cgroups, err := ps.read(pid, "cgroup")
		if err != nil {
			return t.unknown
		}
		p = peer{started: started, path: string(cgroups)}
		if len(ps.known) >= peersMost {
			clear(ps.known)
		}
	}
	p.checked, p.table, p.origin = now, t, t.ofCgroup(p.path)
	ps.known[pid] = p
	return p.origin
}

// may reports whether there is budget for a look.
func (ps *peers) may(now time.Duration) bool {
	if now-ps.window >= peerFresh {
		ps.window, ps.lookups = now, 0
	}
	ps.lookups++
	return ps.lookups <= peerLookups
}

// startOf returns when a process was started, in ticks since the boot.
func (ps *peers) startOf(pid int32) (uint64, error) {
	stat, err := ps.read(pid, "stat")
	if err != nil {
		return 0, err
	}
	// proc(5): the second field is a name in parentheses that may have any
	// character in it; what follows its end is field 3.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 {
		return 0, io.ErrUnexpectedEOF
	}
	return strconv.ParseUint(string(fields[22-3]), 10, 64)
}

func (ps *peers) read(pid int32, file string) ([]byte, error) {
	return os.ReadFile(ps.proc + "/" + strconv.Itoa(int(pid)) + "/" + file)
}

// ofCgroup returns the container that a process is in, by the text of its
// /proc/PID/cgroup: the innermost one that the engine knows, since a container
// may have others in it that an engine of its own runs.
func (t *table) ofCgroup(text string) *origin {
	for end := len(text); end > 0; {
		begin := end
		for begin > 0 && isHex(text[begin-1]) {
			begin--
		}
		if end-begin == idLength {
			if o := t.byID[text[begin:end]]; o != nil {
				return o
			}
		}
		end = begin - 1 // no digit is there
	}
	return t.shared
}

// idLength is how many digits a container's ID has.
const idLength = 64

func isHex(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' }
