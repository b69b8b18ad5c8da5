package statsd

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/berthd/berth/agent"
)

const (
	// batchSize is how many datagrams one system call reads at most.
	batchSize = 256
	// slotSize is how many bytes of a datagram are read: what Datadog's clients
	// send at most, and its agent reads. A longer one is cut short and counted.
	slotSize = 8192
	// slotStride sets the slots apart by a little more, so that the beginnings of
	// all of them do not compete for the same sets of the CPU's first cache.
	slotStride = slotSize + 3*64
	// controlSize has room for the control message of any of the sockets: that of
	// IPv6 has a header of 16 bytes and 20 bytes of data.
	controlSize = 64
	// passesMost is how many batches are read in a row before the kernel is asked
	// anew which sockets have something.
	passesMost = 8
	// holdMost is how long a line may be held back while more arrive.
	holdMost = 10 * time.Millisecond
	// busyRate is how many datagrams a second make lingering worth it, and
	// busyWindow over how long that is measured.
	busyRate   = 500
	busyWindow = 100 * time.Millisecond
	// busyCount is how many datagrams end that measure at once: while it lasts, each
	// is a wake-up.
	busyCount = 50
	// enough datagrams are worth a look: two batches. Waiting for more would save
	// next to nothing, and hand the upstream larger bursts.
	enough = 2 * batchSize
	// yieldAfter is less than the 10 ms after which the runtime preempts.
	yieldAfter = 5 * time.Millisecond
	// drainMost bounds the last reading of all sockets.
	drainMost = 100 * time.Millisecond
)

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// batch is the memory of one round of reading. It is the same for all sockets.
type batch struct {
	msgs     [batchSize]mmsghdr
	iovs     [batchSize]unix.Iovec
	names    [batchSize]unix.RawSockaddrInet6 // has room for both families
	controls [batchSize][controlSize]byte
	data     []byte
	used     int // headers that the kernel has changed
}

func newBatch() *batch {
	b := &batch{data: make([]byte, batchSize*slotStride), used: batchSize}
	for i := range b.msgs {
		b.iovs[i].Base = &b.data[i*slotStride]
		b.iovs[i].SetLen(slotSize)
		b.msgs[i].hdr.Iov = &b.iovs[i]
		b.msgs[i].hdr.SetIovlen(1)
		b.msgs[i].hdr.Name = (*byte)(unsafe.Pointer(&b.names[i]))
		b.msgs[i].hdr.Control = &b.controls[i][0]
	}
	return b
}

// receive reads what is there, without waiting.
func (b *batch) receive(fd int) (int, unix.Errno) {
	for i := range b.msgs[:b.used] {
		b.msgs[i].hdr.Namelen = unix.SizeofSockaddrInet6
		b.msgs[i].hdr.SetControllen(controlSize)
	}
	// Raw: the call does not block, so the runtime need not be told of it.
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.msgs[0])), batchSize, unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		b.used = 0
		return 0, errno
	}
	b.used = int(n)
	return int(n), 0
}

// cut reports whether the i-th datagram was longer than its slot.
func (b *batch) cut(i int) bool { return b.msgs[i].hdr.Flags&unix.MSG_TRUNC != 0 }

// bytes returns the i-th datagram.
func (b *batch) bytes(i int) []byte {
	at := i * slotStride
	return b.data[at : at+int(b.msgs[i].len)]
}

// place returns where the i-th datagram came from over UDP.
func (b *batch) place(i int) (p place) {
	name := &b.names[i]
	if name.Family == unix.AF_INET {
		p.addr = netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(name)).Addr).As16()
	} else {
		p.addr = name.Addr
	}
	head := (*unix.Cmsghdr)(unsafe.Pointer(&b.controls[i][0]))
	if b.msgs[i].hdr.Controllen < unix.SizeofCmsghdr {
		return p
	}
	data := unsafe.Pointer(&b.controls[i][unix.SizeofCmsghdr])
	switch {
	case head.Level == unix.SOL_IP && head.Type == unix.IP_PKTINFO:
		p.index = uint32((*unix.Inet4Pktinfo)(data).Ifindex)
	case head.Level == unix.SOL_IPV6 && head.Type == unix.IPV6_PKTINFO:
		p.index = (*unix.Inet6Pktinfo)(data).Ifindex
	}
	return p
}

// pid returns the process that sent the i-th datagram over a Unix socket.
func (b *batch) pid(i int) int32 {
	head := (*unix.Cmsghdr)(unsafe.Pointer(&b.controls[i][0]))
	if b.msgs[i].hdr.Controllen < unix.SizeofCmsghdr+unix.SizeofUcred || head.Level != unix.SOL_SOCKET || head.Type != unix.SCM_CREDENTIALS {
		return 0
	}
	return (*unix.Ucred)(unsafe.Pointer(&b.controls[i][unix.SizeofCmsghdr])).Pid
}

// receiver reads all sockets on one goroutine, which never parks but in the kernel,
// and hands what it reads to the rewriter. The sockets may be changed while it runs.
type receiver struct {
	linger  time.Duration
	table   *atomic.Pointer[table]
	meters  *meters
	rewrite *rewriter
	peers   *peers
	batch   *batch
	began   time.Time

	epoll, wake int // descriptors; wake is an eventfd
	stopping    atomic.Bool

	mu       sync.Mutex
	wanted   []*socket // to be read from now on
	unwanted []*socket // to be closed
	stale    bool      // they have changed
	ended    bool      // there is nobody to change them for

	// What follows belongs to the goroutine.
	sockets map[int32]*socket // by their descriptors
	ready   []*socket
	last    struct { // the sender before
		table  *table
		place  place
		origin *origin
	}
	events               [64]unix.EpollEvent
	enough               time.Duration // in which so many arrive
	now, flushed, window time.Duration
	yielded              time.Duration
	counted              int // datagrams in the window
	busy, hurry          bool
}

func newReceiver(cfg Config, t *atomic.Pointer[table], m *meters, port agent.LinePort) (*receiver, error) {
	r := &receiver{
		linger: cfg.Linger.Std(), table: t, meters: m, peers: newPeers("/proc"), batch: newBatch(), began: time.Now(),
		sockets: make(map[int32]*socket),
		rewrite: &rewriter{
			mode: cfg.Mode, strip: cfg.Strip, pass: cfg.Malformed == MalformedPass,
			limit: float64(cfg.RateLimit), out: newPacker(port),
		},
	}
	var err error
	if r.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("epoll_create", err)
	}
	if r.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		unix.Close(r.epoll)
		return nil, os.NewSyscallError("eventfd", err)
	}
	if err := r.watch(r.wake); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

// close closes all that there is, also what the goroutine has not taken over.
func (r *receiver) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	for _, s := range append(r.unwanted, r.wanted...) {
		s.close()
	}
	unix.Close(r.epoll)
	unix.Close(r.wake)
}

func (r *receiver) watch(fd int) error {
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, fd, &ev))
}

// read makes the sockets those that are read; others are closed. It returns at
// once.
func (r *receiver) read(sockets []*socket) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		for _, s := range sockets {
			s.close()
		}
		return
	}
	for _, s := range r.wanted {
		if !slices.Contains(sockets, s) {
			r.unwanted = append(r.unwanted, s)
		}
	}
	r.wanted, r.stale = sockets, true
	r.nudge()
}

// stop makes run read what is there, hand it on and return.
func (r *receiver) stop() {
	r.stopping.Store(true)
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.ended { // otherwise the descriptor may be another file's by now
		r.nudge()
	}
}

func (r *receiver) nudge() {
	one := [8]byte{1}
	_, _ = unix.Write(r.wake, one[:])
}

// run reads until stop is called. A panic is an error: lines come from
// strangers, and what is wrong with them must not end the whole of berth.
func (r *receiver) run() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
		r.close()
	}()
	for !r.stopping.Load() {
		n, err := r.poll()
		if err != nil && !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("epoll_wait", err)
		}
		r.now = time.Since(r.began)
		for _, ev := range r.events[:max(n, 0)] {
			if s := r.sockets[ev.Fd]; s != nil {
				r.ready = append(r.ready, s)
			} else if err := r.change(); err != nil {
				return err
			}
		}
		r.hurry = false
		drained := r.round()
		r.handOn(drained)
		r.meters.add(&r.rewrite.tally)
		if r.measure() && drained && !r.hurry && !r.stopping.Load() {
			r.wait()
		}
	}
	if err := r.change(); err != nil { // the last ones may have been wanted just now
		return err
	}
	r.drain()
	return nil
}

// handOn sends what has been read: if that is all, and otherwise every holdMost.
func (r *receiver) handOn(all bool) {
	if all || r.now-r.flushed > holdMost {
		r.rewrite.out.flush()
		r.flushed = r.now
	}
}

// wait waits for more lines, or for the upstream to take those that it had no room
// for.
//
// It does not tell the runtime that the thread sleeps, which would give its
// processor (runtime.GOMAXPROCS) to other goroutines and get another one at the
// end, five hundred times a second: that is a third of all CPU time at 20,000 lines
// a second. Run adds a processor for this. A signal, by which the runtime asks the
// thread to stop for the garbage collector, ends the sleep.
func (r *receiver) wait() {
	if r.now-r.yielded > yieldAfter {
		// Before the runtime takes it for a goroutine that hogs its processor, and
		// sends it a signal.
		r.yielded = r.now
		runtime.Gosched()
	}
	if pause := r.pause(); pause > 0 {
		ts := unix.NsecToTimespec(int64(pause))
		_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0)
	}
}

// pause is how long to wait for more lines.
func (r *receiver) pause() time.Duration {
	pause := min(r.linger, r.enough)
	if again := r.rewrite.out.again; again > 0 {
		pause = min(pause, again)
	}
	return pause
}

// poll waits until a socket has something to read. While there is much to receive
// it does not wait, and the call is one that the runtime need not be told of.
func (r *receiver) poll() (int, error) {
	if r.busy {
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(r.epoll), uintptr(unsafe.Pointer(&r.events)), uintptr(len(r.events)), 0, 0, 0)
		if errno != 0 {
			return 0, errno
		}
		return int(n), nil
	}
	return unix.EpollWait(r.epoll, r.events[:], r.timeout())
}

// timeout is how long to wait for something to read, in milliseconds: as long as
// it takes, but for what waits to be sent.
func (r *receiver) timeout() int {
	if again := r.rewrite.out.again; again > 0 {
		return int(max(again/time.Millisecond, 1))
	}
	return -1
}

// change takes over what read has left.
func (r *receiver) change() error {
	var count [8]byte
	_, _ = unix.Read(r.wake, count[:])
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.stale {
		return nil
	}
	r.stale = false
	for _, s := range r.unwanted {
		// The registry has a duplicate, so that closing this one is not enough.
		_ = unix.EpollCtl(r.epoll, unix.EPOLL_CTL_DEL, s.fd, nil)
		s.close()
		delete(r.sockets, int32(s.fd))
	}
	r.unwanted = nil
	for _, s := range r.wanted {
		if r.sockets[int32(s.fd)] == s {
			continue
		}
		if err := r.watch(s.fd); err != nil {
			return err
		}
		r.sockets[int32(s.fd)] = s
	}
	r.ready = r.ready[:0] // those with something to read are told again
	return nil
}

// round reads the sockets that have something, in turns, and reports whether
// they are drained.
func (r *receiver) round() bool {
	for range passesMost {
		left := r.ready[:0]
		for _, s := range r.ready {
			if r.readOnce(s) == batchSize {
				left = append(left, s)
			}
		}
		if r.ready = left; len(left) == 0 {
			return true
		}
	}
	r.ready = r.ready[:0] // ask again, also for the others
	return false
}

// readOnce reads one batch from a socket, and rewrites it.
func (r *receiver) readOnce(s *socket) int {
	t := r.table.Load()
	if s.indexed != t.indexed && !s.unix && s.index(t.indexed) != nil {
		s.errors.Add(1) // senders that cannot be told remain unknown
	}
	n, errno := r.batch.receive(s.fd)
	switch errno {
	case 0:
	case unix.EINTR:
		return batchSize // there may be more
	case unix.EAGAIN:
		return 0
	default: // an error of the network that is reported once, as ENETDOWN
		s.errors.Add(1)
		return 0
	}
	for i := range n {
		var o *origin
		if s.unix {
			o = r.peers.find(r.batch.pid(i), t, r.now)
		} else {
			o = r.sender(r.batch.place(i), t)
		}
		r.rewrite.datagram(r.batch.bytes(i), r.batch.cut(i), o, r.now)
	}
	r.counted += n
	r.rewrite.tally.reads++
	if s.unix && n > s.queue/2 {
		r.hurry = true // its senders will be held up
	}
	return n
}

// sender is the table's lookup with a memory: datagrams come in bursts.
func (r *receiver) sender(p place, t *table) *origin {
	if r.last.place == p && r.last.table == t {
		return r.last.origin
	}
	r.last.table, r.last.place, r.last.origin = t, p, t.lookup(p)
	return r.last.origin
}

// measure reports whether there is so much to receive that it is cheaper to wait
// for more of it than to be woken up by each datagram.
func (r *receiver) measure() bool {
	passed := r.now - r.window
	if passed >= busyWindow || !r.busy && r.counted >= busyCount {
		r.busy = float64(r.counted) >= busyRate*passed.Seconds()
		r.enough = enough * passed / time.Duration(max(r.counted, 1))
		r.counted, r.window = 0, r.now
	}
	return r.busy
}

// drain reads what is there for the last time. Where the sockets are kept, what
// arrives later waits for who reads them next.
func (r *receiver) drain() {
	for end := time.Now().Add(drainMost); time.Now().Before(end); {
		more := false
		for _, s := range r.sockets {
			more = r.readOnce(s) == batchSize || more
		}
		if !more {
			break
		}
	}
	r.rewrite.out.flush()
	r.meters.add(&r.rewrite.tally)
}
