package statsd

import (
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/sockets"
)

// still returns a receiver that does not run, and of which all senders are
// unknown.
func still(t *testing.T, port agent.LinePort) *receiver {
	t.Helper()
	table := new(atomic.Pointer[table])
	table.Store(tableOf(t, new(agent.Snapshot)))
	r, err := newReceiver(testConfig(t), table, new(meters), port)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// open opens a socket on a free port of an address.
func open(t *testing.T, addr string) *socket {
	t.Helper()
	o := opener{ownSockets{}, 8 << 20}
	s, err := o.udp(t.Context(), netip.AddrPortFrom(netip.MustParseAddr(addr), 0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return s
}

func (s *socket) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// What is there when a receiver is stopped is read, all of it, even if it was told
// of the socket but a moment ago; and nothing is left open.
func TestStopReadsAllThatIsThere(t *testing.T) {
	sink := new(memory)
	r := still(t, sink)
	s := open(t, "127.0.0.1")
	from := sender(t, "127.0.1.1", s.at)
	const many = batchSize + 200
	for range many {
		send(t, from, "a:1|c")
	}
	r.read([]*socket{s})
	r.stop()
	if err := r.run(); err != nil {
		t.Fatal(err)
	}
	if n := len(sink.lines()); n != many || r.meters.lines.Load() != many {
		t.Errorf("%d lines were handed on and %d counted, want %d", n, r.meters.lines.Load(), many)
	}
	if !s.isClosed() {
		t.Error("the socket is open")
	}
	late := open(t, "127.0.0.1")
	if r.watch(late.fd) == nil {
		t.Error("the epoll descriptor is open")
	}
	r.read([]*socket{late})
	if !late.isClosed() {
		t.Error("a socket that came too late is open")
	}
}

// A descriptor that a receiver had may be another file's by now.
func TestStopAfterTheEnd(t *testing.T) {
	r := still(t, new(memory))
	r.close()
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	r.wake = pipe[1] // as if the number were used again
	r.stop()
	var text [8]byte
	if n, err := unix.Read(pipe[0], text[:]); err != unix.EAGAIN {
		t.Errorf("%d bytes were written to another file, %v", n, err)
	}
}

// Sockets that are wanted no longer are closed and told of no more, although their
// duplicates still receive; and so are those that nobody got to see.
func TestSocketsAreChanged(t *testing.T) {
	r := still(t, new(memory))
	defer r.close()
	first, second, third := open(t, "127.0.0.1"), open(t, "127.0.0.1"), open(t, "127.0.0.1")
	kept, err := unix.FcntlInt(uintptr(first.fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(kept)
	r.read([]*socket{first})
	if err := r.change(); err != nil {
		t.Fatal(err)
	}
	send(t, sender(t, "127.0.1.1", first.at), "a:1|c")
	if n, err := unix.EpollWait(r.epoll, r.events[:], 0); n != 1 || r.events[0].Fd != int32(first.fd) {
		t.Errorf("got %d events, %v, want that of the first socket", n, err)
	}
	r.ready = append(r.ready, first)
	r.read([]*socket{first, second})
	r.read([]*socket{third})
	if err := r.change(); err != nil {
		t.Fatal(err)
	}
	if !first.isClosed() || !second.isClosed() || third.isClosed() {
		t.Errorf("the first is closed: %v, the second: %v, the third: %v", first.isClosed(), second.isClosed(), third.isClosed())
	}
	if len(r.sockets) != 1 || r.sockets[int32(third.fd)] != third || len(r.ready) != 0 {
		t.Errorf("%d sockets are read, %d of them at once", len(r.sockets), len(r.ready))
	}
	if n, err := unix.EpollWait(r.epoll, r.events[:], 0); n != 0 {
		t.Errorf("got %d events, %v, of sockets that are wanted no longer", n, err)
	}
}

// A socket that always has more keeps the others waiting for no more than some
// batches.
func TestRounds(t *testing.T) {
	r := still(t, new(discard))
	defer r.close()
	s := open(t, "127.0.0.1")
	from := sender(t, "127.0.1.1", s.at)
	const most = passesMost * batchSize
	for range most + 100 {
		send(t, from, "a:1|c")
	}
	r.ready = append(r.ready, s)
	if r.round() || r.rewrite.tally.datagrams != most || len(r.ready) != 0 {
		t.Errorf("read %d datagrams, want %d; %d sockets are to be read without a look at the others", r.rewrite.tally.datagrams, most, len(r.ready))
	}
	r.ready = append(r.ready, s)
	if !r.round() || r.rewrite.tally.datagrams != most+100 {
		t.Errorf("read %d datagrams, want all %d", r.rewrite.tally.datagrams, most+100)
	}
}

// Lines are held back while more arrive, but not for long.
func TestLinesAreHandedOn(t *testing.T) {
	sink := new(memory)
	r := still(t, sink)
	defer r.close()
	for _, step := range []struct {
		now  time.Duration
		all  bool
		want int
	}{
		{holdMost, false, 0},
		{holdMost + 1, false, 2},
		{2*holdMost + 1, false, 2},
		{2*holdMost + 1, true, 4},
		{3*holdMost + 1, false, 4},
		{3*holdMost + 2, false, 6},
	} {
		r.now = step.now
		r.rewrite.datagram([]byte("a:1|c"), false, theOrigin(), r.now)
		r.handOn(step.all)
		if n := len(sink.lines()); n != step.want {
			t.Errorf("at %v: %d lines are handed on, want %d", step.now, n, step.want)
		}
	}
}

// How long to wait is bounded by what there is to send again.
func TestWaits(t *testing.T) {
	r := still(t, new(memory))
	defer r.close()
	for _, tc := range []struct {
		linger, enough, again, pause time.Duration
		timeout                      int
	}{
		{3 * time.Millisecond, time.Second, 0, 3 * time.Millisecond, -1},
		{3 * time.Millisecond, time.Millisecond, 0, time.Millisecond, -1},
		{3 * time.Millisecond, time.Second, 100 * time.Microsecond, 100 * time.Microsecond, 1},
		{3 * time.Millisecond, time.Second, 100 * time.Millisecond, 3 * time.Millisecond, 100},
		{0, time.Second, 100 * time.Millisecond, 0, 100},
	} {
		r.linger, r.enough, r.rewrite.out.again = tc.linger, tc.enough, tc.again
		if got := r.pause(); got != tc.pause {
			t.Errorf("%+v: got a pause of %v", tc, got)
		}
		if got := r.timeout(); got != tc.timeout {
			t.Errorf("%+v: got a timeout of %d ms", tc, got)
		}
	}
}

// The senders of a Unix socket whose queue is half full are not to wait; and what
// the kernel says of UDP alone is not asked of it.
func TestUnixSocketInAHurry(t *testing.T) {
	r := still(t, new(discard))
	defer r.close()
	o := opener{ownSockets{}, 1 << 20}
	s, err := o.unixgram(t.Context(), filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	s.queue = 4
	conn, err := net.Dial("unixgram", s.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r.table.Store(&table{indexed: true, unknown: theOrigin(), shared: theOrigin()})
	for n, want := range []bool{1: false, 2: false, 3: true} {
		for range n {
			send(t, conn, "a:1|c")
		}
		r.hurry = false
		if got := r.readOnce(s); got != n || r.hurry != want {
			t.Errorf("%d of %d datagrams were read: in a hurry: %v", got, n, r.hurry)
		}
	}
	if n := s.errors.Load(); n != 0 {
		t.Errorf("got %d errors", n)
	}
}

// As many datagrams as are told fit into a Unix socket's queue, or one more.
func TestUnixSocketQueue(t *testing.T) {
	o := opener{ownSockets{}, 1 << 20}
	s, err := o.unixgram(t.Context(), filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	// Enough for what is in the queue, which is charged to the sender.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 8<<20); err != nil {
		t.Fatalf("%v: these tests need root, with CAP_NET_ADMIN", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: s.address}); err != nil {
		t.Fatal(err)
	}
	fit := 0
	for ; err == nil; fit++ {
		_, err = unix.Write(fd, []byte("a:1|c"))
	}
	if fit--; fit < s.queue || fit > s.queue+1 {
		t.Errorf("%d datagrams fit, and then %v; want %d", fit, err, s.queue)
	}
}

// A datagram without credentials is nobody's, not the last one's.
func TestPID(t *testing.T) {
	o := opener{ownSockets{}, 1 << 20}
	s, err := o.unixgram(t.Context(), filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	conn, err := net.Dial("unixgram", s.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	b := newBatch()
	for _, tc := range []struct{ pass, pid int }{{1, os.Getpid()}, {0, 0}, {1, os.Getpid()}} {
		if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_PASSCRED, tc.pass); err != nil {
			t.Fatal(err)
		}
		send(t, conn, "a:1|c")
		if n, errno := b.receive(s.fd); n != 1 || b.pid(0) != int32(tc.pid) {
			t.Errorf("got %d datagrams of process %d, %v, want one of %d", n, b.pid(0), errno, tc.pid)
		}
	}
}

// Each error of a socket is counted, and ends nothing.
func TestErrorsOfSockets(t *testing.T) {
	r := still(t, new(memory))
	defer r.close()
	s := &socket{fd: -1}
	for i, indexed := range []bool{false, true} {
		s.indexed = indexed // which it is not to be
		if n := r.readOnce(s); n != 0 || s.errors.Load() != uint64(1+2*i) {
			t.Errorf("read %d datagrams, with %d errors so far, want %d", n, s.errors.Load(), 1+2*i)
		}
	}
}

// The kernel is asked for interfaces as long as the table needs them, and by a
// socket of an earlier life not at all.
func TestInterfacesAreAskedFor(t *testing.T) {
	r := still(t, new(memory))
	defer r.close()
	registry := sockets.New(slog.New(slog.DiscardHandler))
	defer registry.Close()
	o := opener{registry.Scope(Name), 1 << 20}
	at := netip.MustParseAddrPort("127.0.0.1:0")
	s, err := o.udp(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, s *socket, want int) {
		t.Helper()
		if got, err := unix.GetsockoptInt(s.fd, unix.SOL_IP, unix.IP_PKTINFO); err != nil || got != want {
			t.Errorf("%s: got %d, %v, want %d", what, got, err, want)
		}
	}
	for _, indexed := range []bool{false, true, false, true} {
		r.table.Store(&table{indexed: indexed})
		r.readOnce(s)
		check("while it runs", s, map[bool]int{true: 1}[indexed])
	}
	s.close()
	again, err := o.udp(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	defer again.close()
	check("in its next life", again, 0)
}

// Over IPv6, too, it is known where a datagram came from.
func TestPlaceOverIPv6(t *testing.T) {
	s := open(t, "::1")
	b := newBatch()
	for _, index := range []uint32{1, 0} {
		if err := s.index(index != 0); err != nil {
			t.Fatal(err)
		}
		send(t, sender(t, "::1", s.at), "a:1|c")
		if n, errno := b.receive(s.fd); n != 1 || b.place(0) != at(index, "::1") {
			t.Errorf("got %d datagrams, %v, from %v over %d", n, errno, b.place(0), b.place(0).index)
		}
	}
	open(t, "fd00:be47::1") // no interface has it
}

// An address is bound before its bridge is up, and no child process gets the
// socket.
func TestSocketOptions(t *testing.T) {
	s := open(t, "10.255.254.253") // no interface has it
	if flags, err := unix.FcntlInt(uintptr(s.fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("got the flags %x, %v", flags, err)
	}
}

// After it is closed a socket leaves alone whatever has its descriptor's number.
func TestClosedSocketIsLeftAlone(t *testing.T) {
	o := opener{ownSockets{}, 4 << 10}
	other, err := o.udp(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.close()
	from := sender(t, "127.0.1.1", other.at)
	for range 100 {
		send(t, from, "a:1|c")
	}
	if other.drops() == 0 {
		t.Fatal("a buffer of 4 KiB holds 100 datagrams")
	}
	s := open(t, "127.0.0.1")
	s.close()
	if err := unix.Dup3(other.fd, s.fd, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s.fd)
	if n := s.drops(); n != 0 {
		t.Errorf("got %d drops, which are another socket's", n)
	}
	s.close()
	if _, err := unix.FcntlInt(uintptr(s.fd), unix.F_GETFD, 0); err != nil {
		t.Errorf("it was closed twice: %v", err)
	}
}
