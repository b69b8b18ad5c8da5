package logprune

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// holder is a process that has something open.
type holder struct {
	pid  int
	name string
}

func (h holder) String() string { return fmt.Sprintf("%s (pid %d)", h.name, h.pid) }

// lost is a file that was deleted and is still open: its space is not free.
type lost struct {
	holder
	node  node
	bytes int64
}

// holding is what a look through /proc has found.
type holding struct {
	at     time.Time
	open   map[node]int // the process that has a file open
	mounts []mounted    // that are not there for this process, by dev and root
	own    []mount      // those of this process
	unsure error        // why some process could not be looked at
	lost   []lost       // largest first
	dir    string       // /proc
}

// mounted is a mount in the mount namespace of a process.
type mounted struct {
	mount
	pid int
}

// holder returns who has a file of a tree open, or the folder of it, or has something of
// it mounted. The tree has this name in a root, or in its trash.
func (h *holding) holder(s *survey, root *rootDir, name string, inBin bool) (who holder, held bool) {
	if len(h.open) > 0 {
		for _, ino := range s.inodes {
			if pid, ok := h.open[node{s.node.dev, ino}]; ok {
				return h.process(pid), true
			}
		}
	}
	if len(h.mounts) == 0 {
		return who, false
	}
	folder := within(h.own, root.below(name, inBin))
	if folder == "" {
		return who, false
	}
	for _, from := range []string{folder, folder + "/"} {
		i, _ := slices.BinarySearchFunc(h.mounts, mounted{mount: mount{dev: s.node.dev, root: from}}, byRoot)
		if i < len(h.mounts) && h.mounts[i].dev == s.node.dev && inside(h.mounts[i].root, folder) {
			return h.process(h.mounts[i].pid), true
		}
	}
	return who, false
}

func byRoot(a, b mounted) int { return cmp.Or(cmp.Compare(a.dev, b.dev), cmp.Compare(a.root, b.root)) }

func (h *holding) process(pid int) holder {
	return holder{pid, processName(filepath.Join(h.dir, strconv.Itoa(pid)))}
}

// errUnsure is why it cannot be told whether a file is open.
var errUnsure = errors.New("it cannot be told which files are open")

// proc looks through the processes of this machine.
type proc struct {
	dir string // /proc
	k   kernel
}

// look finds what processes have open on some devices, or as their folder, or mounted
// in a mount namespace of their own. It looks at inodes, because the path of an open
// file of a container is one inside of it. pids are those of live containers, which
// must be visible: otherwise /proc is that of another PID namespace.
func (p proc) look(devs map[uint64]bool, pids []int, wantLost bool) *holding {
	l := &procLook{
		proc: p, devs: devs, wantLost: wantLost, buf: make([]byte, 32<<10), spaces: make(map[string]bool),
		out: &holding{open: make(map[node]int), dir: p.dir},
	}
	out := l.out
	names, err := readNames(p.dir)
	if err == nil {
		out.own, err = readMounts(p.dir + "/self/mountinfo")
	}
	if err != nil {
		out.unsure = fmt.Errorf("%w: %w", errUnsure, err)
		return out
	}
	self := strconv.Itoa(os.Getpid())
	if own, err := os.Readlink(filepath.Join(p.dir, self, "ns/mnt")); err == nil {
		l.spaces[own] = true // what is mounted here, the survey sees
	}
	visible := make(map[int]bool)
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		visible[pid] = true
		if name == self {
			continue // the handles that deleting needs
		}
		if err := l.process(pid); err != nil && out.unsure == nil {
			out.unsure = fmt.Errorf("%w: process %d: %w", errUnsure, pid, err)
		}
	}
	// One that has just ended may be missing; all of them cannot be.
	if len(pids) > 0 && !slices.ContainsFunc(pids, func(pid int) bool { return visible[pid] }) {
		out.unsure = fmt.Errorf("%w: no process of a container is in %s: berth runs in a PID namespace of its own", errUnsure, p.dir)
	}
	slices.SortFunc(out.mounts, byRoot)
	slices.SortFunc(out.lost, func(a, b lost) int { return cmp.Compare(b.bytes, a.bytes) })
	out.lost = slices.CompactFunc(out.lost, func(a, b lost) bool { return a.node == b.node })
	return out
}

// procLook is one look on its way.
type procLook struct {
	proc
	devs     map[uint64]bool
	wantLost bool
	buf      []byte
	spaces   map[string]bool // mount namespaces that were looked at
	out      *holding
}

// ended reports whether an error means that a process is no more.
func ended(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL)
}

// process looks at one process, through handles of its folders: the path of each of
// thousands of open files would be followed from / on.
func (l *procLook) process(pid int) error {
	dir := filepath.Join(l.dir, strconv.Itoa(pid))
	fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		defer l.k.close(fd)
		err = l.opened(fd, pid)
	}
	if err == nil {
		err = l.mounts(pid, dir)
	}
	if ended(err) {
		return nil
	}
	return err
}

// opened looks at what a process has open.
func (l *procLook) opened(process, pid int) error {
	fds, err := unix.Openat(process, "fd", unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer l.k.close(fds)
	some := false
	err = readAll(l.k, fds, l.buf, func(e entry) error {
		some = true
		return l.file(fds, string(e.name), pid)
	})
	if err != nil || !some { // a kernel thread has none open, and nothing else either
		return err
	}
	return errors.Join(l.file(process, "cwd", pid), l.file(process, "root", pid))
}

// file looks at one thing that a process has open.
func (l *procLook) file(at int, name string, pid int) error {
	// A network file system that hangs must not hang this: what the kernel
	// remembers will do.
	st, err := l.k.statx(at, name, unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT)
	if ended(err) { // it was closed
		return nil
	}
	if err != nil {
		return err
	}
	n := nodeOf(&st)
	if l.devs[n.dev] {
		l.out.open[n] = pid
	}
	if l.wantLost && st.Nlink == 0 && st.Blocks > 0 && st.Mode&unix.S_IFMT == unix.S_IFREG {
		l.out.lost = append(l.out.lost, lost{l.out.process(pid), n, int64(st.Blocks) * 512})
	}
	return nil
}

// mounts looks at the mounts of a process's mount namespace, each namespace once: a
// container that the engine forgot may have its folder mounted and no file of it open.
func (l *procLook) mounts(pid int, dir string) error {
	space, err := os.Readlink(dir + "/ns/mnt")
	if err != nil {
		return err
	}
	if l.spaces[space] {
		return nil
	}
	l.spaces[space] = true
	list, err := readMounts(dir + "/mountinfo")
	if err != nil {
		return err
	}
	for _, m := range list {
		if l.devs[m.dev] && m.root != "/" {
			l.out.mounts = append(l.out.mounts, mounted{m, pid})
		}
	}
	return nil
}

// inside reports whether a path is a folder or below it.
func inside(path, folder string) bool {
	rest, ok := strings.CutPrefix(path, folder)
	return ok && (rest == "" || rest[0] == '/' || strings.HasSuffix(folder, "/"))
}

// mount is a line of /proc/PID/mountinfo (proc(5)).
type mount struct {
	dev   uint64
	root  string // within its file system
	point string
}

// unescape undoes what mountinfo does to spaces and their like.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

func readMounts(file string) ([]mount, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var list []mount
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		major, minor, _ := strings.Cut(fields[2], ":")
		ma, err1 := strconv.ParseUint(major, 10, 32)
		mi, err2 := strconv.ParseUint(minor, 10, 32)
		if err1 != nil || err2 != nil {
			continue
		}
		list = append(list, mount{unix.Mkdev(uint32(ma), uint32(mi)), unescape.Replace(fields[3]), unescape.Replace(fields[4])})
	}
	return list, lines.Err()
}

// within returns the path that a folder has within its file system, given the
// mounts of this process; "" if that cannot be told.
func within(mounts []mount, dir string) string {
	best := -1
	for i, m := range mounts {
		// The last of several at one place covers the others.
		if inside(dir, m.point) && (best < 0 || len(m.point) >= len(mounts[best].point)) {
			best = i
		}
	}
	if best < 0 {
		return ""
	}
	m := mounts[best]
	return filepath.Join(m.root, strings.TrimPrefix(dir, m.point))
}

func processName(dir string) string {
	comm, err := os.ReadFile(filepath.Join(dir, "comm"))
	if err != nil {
		return "a process"
	}
	return strings.TrimSpace(string(comm))
}

func readNames(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}
