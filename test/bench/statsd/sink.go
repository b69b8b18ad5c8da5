package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What the sink asks of the kernel, and takes at a time.
const (
	sinkBuffer = 16 << 20 // bytes: what is lost is to be the relay's loss, not the sink's
	sinkBatch  = 64       // datagrams
	sinkSlot   = 64 << 10 // bytes of the largest datagram
	maxStamps  = 1 << 20  // latencies that are kept
	sinkSlice  = 100_000  // nanoseconds, the least
)

// sink receives what a relay forwards, counts the lines, and looks at some.
type sink struct {
	fd      int
	address string // host:port, or unix:PATH
	path    string

	lines, datagrams atomic.Int64
	closing          atomic.Bool
	stopped          chan struct{}
	// every is how many lines pass for one that is looked at. Whole datagrams
	// are, so that all places in one count alike.
	every atomic.Int64

	mu        sync.Mutex
	tags      [][]string // by source: what is added to its lines
	bad       []string   // the first lines that were not as they must be
	badCount  int
	checked   int
	latencies []time.Duration
}

// newSink opens a UDP socket on loopback, or a Unix datagram socket at a path,
// and receives from then on. tags are what is added to the lines of each source.
func newSink(path string, tags [][]string) (*sink, error) {
	s := &sink{path: path, tags: tags, stopped: make(chan struct{})}
	domain := unix.AF_INET
	var name unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	if path != "" {
		domain, name = unix.AF_UNIX, &unix.SockaddrUnix{Name: path}
	}
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the sink: %w", err)
	}
	s.fd = fd
	if err := unix.Bind(fd, name); err != nil {
		return nil, errors.Join(fmt.Errorf("open the sink: %w", err), unix.Close(fd))
	}
	// The second is what those who are not root get.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, sinkBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, sinkBuffer)
	}
	s.address = "unix:" + path
	if path == "" {
		at, err := boundTo(fd)
		if err != nil {
			return nil, errors.Join(err, unix.Close(fd))
		}
		s.address = at.String()
	}
	s.every.Store(1)
	go s.receive()
	return s, nil
}

// receive counts until close.
func (s *sink) receive() {
	runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
	defer close(s.stopped)
	// An upstream has its own time and need not wait until the generator rests. A
	// short slice lets it come first, yet takes no more than its share of the
	// processor from the generator, as a real-time priority would (sched(7); before
	// Linux 6.12 it does nothing).
	_ = unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Nice: nice, Runtime: sinkSlice}, 0)
	msgs := make([]mmsghdr, sinkBatch)
	iovs := make([]unix.Iovec, sinkBatch)
	slots := make([]byte, sinkBatch*sinkSlot)
	for i := range msgs {
		iovs[i].Base = &slots[i*sinkSlot]
		iovs[i].SetLen(sinkSlot)
		msgs[i].hdr.Iov = &iovs[i]
		msgs[i].hdr.SetIovlen(1)
	}
	toLook := 0 // lines until the next look
	for {
		n, err := receiveMany(s.fd, msgs)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || s.closing.Load() {
			return
		}
		now := clock()
		lines := 0
		for i := range n {
			data := slots[i*sinkSlot:][:msgs[i].n]
			count := countLines(data)
			lines += count
			if toLook -= count; toLook <= 0 {
				s.look(data, now)
				toLook = count * int(s.every.Load())
			}
		}
		s.lines.Add(int64(lines))
		s.datagrams.Add(int64(n))
	}
}

// countLines returns how many lines a datagram has. Newlines at its end may be
// many: a relay that sends several datagrams at once makes them one size so.
func countLines(data []byte) int {
	for len(data) > 0 && data[len(data)-1] == '\n' {
		data = data[:len(data)-1]
	}
	if len(data) == 0 {
		return 0
	}
	return bytes.Count(data, []byte{'\n'}) + 1
}

// look checks every line of a datagram, and notes how old each is.
func (s *sink) look(data []byte, now int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for line := range bytes.SplitSeq(bytes.TrimRight(data, "\n"), []byte{'\n'}) {
		s.checked++
		stamp, ok := stampOf(line)
		if why := s.wrong(line, stamp); !ok || why != "" {
			if s.badCount++; len(s.bad) < 3 {
				s.bad = append(s.bad, fmt.Sprintf("%q: %s", line, cmp.Or(why, "no stamp")))
			}
			continue
		}
		if len(s.latencies) < maxStamps {
			s.latencies = append(s.latencies, time.Duration(now-stamp))
		}
	}
}

// wrong returns what is wrong with a line: it must be what was sent, with the tags
// of its source, at the line's end, in any order.
func (s *sink) wrong(line []byte, stamp int64) string {
	var source int
	if _, err := fmt.Sscanf(string(line), "bench.checkout.s%02d.", &source); err != nil || source >= len(s.tags) {
		return "of no source"
	}
	metric, tags, _ := strings.Cut(string(line), "|#")
	sentMetric, sentTags, _ := strings.Cut(string(lineOf(source, stamp)), "|#")
	if metric != sentMetric {
		return "not what was sent"
	}
	got, want := strings.Split(tags, ","), append(strings.Split(sentTags, ","), s.tags[source]...)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		return fmt.Sprintf("tags %q, want %q", got, want)
	}
	return ""
}

// received is what a sink got.
type received struct {
	lines, datagrams int
	checked, bad     int
	examples         []string
	latencies        []time.Duration // sorted
}

// percentile returns the latency that q in a thousand of the lines had at most.
func (r received) percentile(q int) time.Duration {
	if len(r.latencies) == 0 {
		return 0
	}
	return r.latencies[min(len(r.latencies)*q/1000, len(r.latencies)-1)]
}

// take returns what came since the last take.
func (s *sink) take() received {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := received{
		lines: int(s.lines.Swap(0)), datagrams: int(s.datagrams.Swap(0)),
		checked: s.checked, bad: s.badCount, examples: s.bad, latencies: s.latencies,
	}
	s.checked, s.badCount, s.bad, s.latencies = 0, 0, nil, nil
	slices.Sort(r.latencies)
	return r
}

// await waits until so many lines are there, or none has come for a while.
func (s *sink) await(lines int, quiet time.Duration) {
	last, since := int64(-1), time.Now()
	for {
		now := s.lines.Load()
		if now >= int64(lines) {
			return
		}
		if now != last {
			last, since = now, time.Now()
		} else if time.Since(since) > quiet {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// drops returns how many datagrams the kernel had no room for. A Unix socket has
// none: the sender is told.
func (s *sink) drops() (int, error) {
	if s.path != "" {
		return 0, nil
	}
	const dropsAt = 8 // SK_MEMINFO_DROPS of linux/sock_diag.h: the ninth of 32-bit numbers
	var info [dropsAt + 1]uint32
	size := uint32(unsafe.Sizeof(info))
	if _, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(s.fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0); errno != 0 {
		return 0, fmt.Errorf("read the sink's drops: %w", errno)
	}
	return int(info[dropsAt]), nil
}

// close ends the receiving.
func (s *sink) close() error {
	// Of a datagram socket, shutdown wakes the reader but says that it is not
	// connected, where it is not.
	s.closing.Store(true)
	if err := unix.Shutdown(s.fd, unix.SHUT_RD); err != nil && !errors.Is(err, unix.ENOTCONN) {
		return fmt.Errorf("close the sink: %w", err)
	}
	<-s.stopped
	if s.path != "" {
		_ = os.Remove(s.path)
	}
	return unix.Close(s.fd)
}
