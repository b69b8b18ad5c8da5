package dogstatsd

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berthd/berth/agent"
)

// alone returns a port that nobody looks after, and a keeper that does so when it
// is told. Its conditions are visible at once.
func alone(t *testing.T, cfg LineConfig) (*Port, *keeper, *agent.Health) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	health := agent.NewHealth(log)
	cfg.Buffer = 64 << 20
	l, err := NewLines(cfg, agent.Env{Log: log, Health: health})
	if err != nil {
		t.Fatal(err)
	}
	l.health.Declare(condUpstream, agent.SeverityWarning, 0)
	r, err := newRing(cfg.Buffer)
	if err != nil {
		t.Fatal(err)
	}
	p := &Port{sink: l, ring: r, broken: make(chan struct{}, 1), segment: cfg.Segment, cancel: func() {}}
	p.prepare()
	return p, &keeper{port: p, pause: minRedial}, health
}

// closeNow closes a port without waiting for anything.
func closeNow(t *testing.T, p *Port) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = p.Close(ctx) // which tells what was lost
}

// connection returns an upstream, and whether its socket is still open.
func connection(t *testing.T) (u *upstream, open func() bool) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[1]) })
	return &upstream{fd: fds[0]}, func() bool {
		_, err := unix.Write(fds[1], nil)
		return err == nil
	}
}

// Each connection that a port has is closed once it is of no use, and so is one
// that comes while the port is being closed. Its buffer goes, too.
func TestConnectionsAreClosed(t *testing.T) {
	up := listenUDP(t)
	p, k, _ := alone(t, LineConfig{Address: up.address})
	late, lateOpen := connection(t)
	p.next.Store(late)
	k.dial(t.Context())
	if lateOpen() {
		t.Error("a connection that was never taken over is open after another one took its place")
	}
	p.Send(nil)
	first, firstOpen := connection(t)
	p.next.Store(first)
	p.Send(nil)
	second, secondOpen := connection(t)
	p.next.Store(second)
	p.Send(nil)
	if firstOpen() || !secondOpen() {
		t.Errorf("after another one took its place: the first is open: %v, the second: %v", firstOpen(), secondOpen())
	}
	p.abandon()
	if secondOpen() {
		t.Error("an abandoned connection is open")
	}
	if len(p.broken) != 1 {
		t.Error("the keeper is not told of it")
	}
	third, thirdOpen := connection(t)
	p.next.Store(third)
	fourth, fourthOpen := connection(t)
	p.cancel = func() { p.next.Store(fourth) }
	mem := p.ring.mem
	closeNow(t, p)
	if err := unix.Madvise(mem, unix.MADV_NORMAL); err != unix.ENOMEM {
		t.Errorf("the buffer is mapped: got %v", err)
	}
	if thirdOpen() || fourthOpen() {
		t.Errorf("after Close: the third is open: %v, the fourth: %v", thirdOpen(), fourthOpen())
	}
}

// What waits goes before what comes, and not all at once.
func TestBacklogGoesFirst(t *testing.T) {
	up := listenUDP(t)
	p, k, _ := alone(t, LineConfig{Address: up.address})
	defer closeNow(t, p)
	k.dial(t.Context())
	const waiting = 3 * backlog
	for range waiting - 1 {
		p.ring.push(packet("old:1|c\n"))
	}
	p.Send([]agent.Packet{packet("new:1|c\n")})
	for sent := backlog; ; sent += backlog {
		st := p.Stats()
		if st.Packets != uint64(sent) || st.Waiting != uint64(waiting-sent) {
			t.Fatalf("got %+v, want %d of %d packets to be sent", st, sent, waiting)
		}
		got := up.read(t, backlog)
		last := slices.Index(got, "new:1|c\n")
		if sent == waiting {
			if last != backlog-1 {
				t.Errorf("the new packet came as number %d of the last %d", last+1, backlog)
			}
			return
		}
		if last >= 0 {
			t.Fatalf("the new packet came among the first %d", sent)
		}
		p.Send(nil)
	}
}

// An upstream that is full is tried again soon, and ever more seldom; as soon as
// it takes something, soon again.
func TestPauses(t *testing.T) {
	up := listenUnix(t, filepath.Join(t.TempDir(), "s"))
	p, k, _ := alone(t, LineConfig{Address: up.address})
	defer closeNow(t, p)
	list, _ := packets(1000)
	if again := p.Send(list); again != tryLater {
		t.Errorf("without an upstream: got a pause of %v, want %v", again, tryLater)
	}
	k.dial(t.Context())
	for sent := ^uint64(0); sent != p.Stats().Packets; {
		sent = p.Stats().Packets
		p.Send(nil)
	}
	for want := 2 * tryFirst; want < tryMost; { // the last one took nothing
		want = min(2*want, tryMost)
		if again := p.Send(nil); again != want {
			t.Errorf("got a pause of %v, want %v", again, want)
		}
	}
	if again := p.Send(nil); again != tryMost {
		t.Errorf("got a pause of %v, want %v at most", again, tryMost)
	}
	up.read(t, 1)
	if again := p.Send(nil); again != tryFirst {
		t.Errorf("after it took something: got a pause of %v, want %v", again, tryFirst)
	}
}

// A datagram that UDP refuses twice is lost, and the next one gets its two tries,
// over the same socket.
func TestEachDatagramIsTriedTwice(t *testing.T) {
	up := listenUDP(t)
	p, k, _ := alone(t, LineConfig{Address: up.address})
	defer closeNow(t, p)
	k.dial(t.Context())
	p.Send(nil)
	if err := unix.Shutdown(p.current.fd, unix.SHUT_WR); err != nil { // EPIPE from now on
		t.Fatal(err)
	}
	const many = 3
	list, _ := packets(many)
	p.Send(list)
	if n := p.troubles.Load(); n != 2*many || p.Stats().Failed != uint64(count(list)) || p.current == nil {
		t.Errorf("got %d errors and %+v, want %d and the same socket", n, p.Stats(), 2*many)
	}
}

// However many packets there are and however large, each send has no more of them
// than the kernel can cut; and only what must be is padded.
func TestManyPacketsAtOnce(t *testing.T) {
	for _, segment := range []bool{false, true} {
		for _, size := range []int{10, 7000} {
			t.Run(fmt.Sprintf("segment=%v/%d", segment, size), func(t *testing.T) {
				up := listenUDP(t)
				p, k, _ := alone(t, LineConfig{Address: up.address, Segment: segment, Payload: MaxPayload})
				defer closeNow(t, p)
				k.dial(t.Context())
				// The first is short, and the last one that a system call takes, too.
				text := strings.Repeat("x", size)
				list := []agent.Packet{packet("short\n")}
				for len(list) < 12 || size < 1000 && len(list) < 3*batchSize {
					list = append(list, packet(text+strings.Repeat("y", len(list)%7)+"\n"))
				}
				list = append(list, packet("last\n"))
				if again := p.Send(list); again != 0 || p.Stats().Packets != uint64(len(list)) {
					t.Fatalf("got %+v, want %d packets", p.Stats(), len(list))
				}
				if p.segment != segment {
					t.Error("the kernel was asked for more than it can")
				}
				got := up.read(t, len(list))
				for i, want := range list {
					if strings.TrimRight(got[i], "\n")+"\n" != string(want.Data) {
						t.Errorf("datagram %d: got %.20q", i, got[i])
					}
				}
				if got[len(got)-1] != "last\n" {
					t.Errorf("the last one was padded: %.20q", got[len(got)-1])
				}
			})
		}
	}
}

// Each try to connect waits twice as long as the one before, until one goes well.
func TestRedialBacksOff(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	p, k, health := alone(t, LineConfig{Address: path})
	defer closeNow(t, p)
	for want := minRedial; want < maxRedial; {
		want = min(2*want, maxRedial)
		if k.look(t.Context()); k.pause != want || health.Err(Name) == nil {
			t.Errorf("got a pause of %v and the condition %v, want %v", k.pause, health.Err(Name), want)
		}
	}
	if k.look(t.Context()); k.pause != maxRedial {
		t.Errorf("got a pause of %v, want %v at most", k.pause, maxRedial)
	}
	listenUnix(t, path)
	if k.look(t.Context()); k.have == nil || k.pause != minRedial || health.Err(Name) != nil {
		t.Errorf("connected: got a pause of %v and the condition %v", k.pause, health.Err(Name))
	}
	// A path that leads nowhere is no reason to leave a socket that takes lines.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if k.look(t.Context()); k.have == nil || k.pause != minRedial || health.Err(Name) != nil {
		t.Errorf("the path is gone: got a pause of %v and the condition %v", k.pause, health.Err(Name))
	}
}

// A try to connect that fails leaves nothing open.
func TestFailedConnectionsAreClosed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p, k, health := alone(t, LineConfig{Address: path})
	defer closeNow(t, p)
	descriptors := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	before := descriptors()
	const tries = 100
	for range tries {
		k.dial(t.Context())
	}
	if err := health.Err(Name); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("got the condition %v", err)
	}
	if more := descriptors() - before; more > tries/2 {
		t.Errorf("after %d tries %d descriptors more are open", tries, more)
	}
}

// A Unix socket may have more on its way than the host's default.
func TestSendBuffer(t *testing.T) {
	u, _ := connection(t)
	defer unix.Close(u.fd)
	usual, err := unix.GetsockoptInt(u.fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
	if err != nil {
		t.Fatal(err)
	}
	up := listenUnix(t, filepath.Join(t.TempDir(), "s"))
	p, k, _ := alone(t, LineConfig{Address: up.address})
	defer closeNow(t, p)
	k.dial(t.Context())
	p.Send(nil)
	if got, err := unix.GetsockoptInt(p.current.fd, unix.SOL_SOCKET, unix.SO_SNDBUF); err != nil || got <= usual {
		t.Errorf("got a buffer of %d bytes, %v, want more than %d", got, err, usual)
	}
}

// All conditions end with the keeper.
func TestConditionsEnd(t *testing.T) {
	p, k, health := alone(t, LineConfig{Address: filepath.Join(t.TempDir(), "s")})
	defer closeNow(t, p)
	for _, name := range []string{condUpstream, condSlow} {
		p.sink.health.Set(name, os.ErrNotExist, "")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	k.run(ctx)
	if err := health.Err(Name); err != nil {
		t.Errorf("got the condition %v", err)
	}
}

// A name is looked up now and then, and what it leads to is followed.
func TestAnotherAddressOfTheNameIsFollowed(t *testing.T) {
	p, k, _ := alone(t, LineConfig{Address: "localhost:8125"})
	defer closeNow(t, p)
	at, err := p.sink.resolve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name    string
		same    bool
		since   time.Duration
		dialled bool
	}{
		{"just looked up", false, 0, false},
		{"the same", true, 2 * resolveAfter, false},
		{"another one", false, 2 * resolveAfter, true},
	} {
		k.have = new(upstream)
		if tc.same {
			k.have.addr = at.Addr()
		}
		before := time.Now()
		k.resolved = before.Add(-tc.since)
		k.look(t.Context())
		if dialled := p.next.Load() != nil; dialled != tc.dialled {
			t.Errorf("%s: connected anew: %v", tc.name, dialled)
		}
		if k.resolved.Before(before) {
			t.Errorf("%s: it will be looked up again at once", tc.name)
		}
	}
}

// What is wrong is told by what has happened since the last look, and an upstream
// that refuses is well again after some looks without an error.
func TestJudging(t *testing.T) {
	up := listenUDP(t)
	p, k, health := alone(t, LineConfig{Address: up.address})
	defer closeNow(t, p)
	step := func(what, want string) {
		t.Helper()
		k.judge()
		err := health.Err(Name)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got the condition %v, want %q", what, err, want)
		}
	}
	fail := func() {
		p.troubles.Add(1)
		p.errno.Store(uint32(unix.ECONNREFUSED))
	}
	fail()
	p.dropped.Add(5)
	step("without a connection another condition tells", "")
	k.dial(t.Context())
	step("connected", "")
	for range 2 {
		fail()
		step("refused", "connection refused")
		step("nothing was sent", "connection refused")
		for range calm - 1 {
			p.packets.Add(1)
			step("something was sent", "connection refused")
		}
	}
	p.packets.Add(1)
	step("all is well", "")
	p.dropped.Add(7)
	step("too slow", "7 lines were dropped")
	step("no longer", "")
}
