package statsd

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/sockets"
)

// following returns a follower that follows when it is told, and whose sockets
// nobody reads.
func following(t *testing.T, cfg Config, kept agent.Sockets) (*follower, *agent.Health) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	env := agent.Env{Log: log, Health: agent.NewHealth(log), Sockets: kept}
	s, err := New(cfg, env, new(memory))
	if err != nil {
		t.Fatal(err)
	}
	r, err := newReceiver(cfg, &s.table, &s.meters, new(memory))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.close)
	return newFollower(s, r, new(memory)), env.Health
}

// An address that cannot be listened on is tried again, ever more seldom, and
// forgotten with what it was wanted for.
func TestListeningBacksOff(t *testing.T) {
	other, err := net.ListenPacket("udp4", "127.0.0.6:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	cfg := testConfig(t)
	cfg.Socket = ""
	at := other.LocalAddr().(*net.UDPAddr).AddrPort()
	cfg.Port, cfg.Listen = at.Port(), []netip.Addr{at.Addr()}
	f, health := following(t, cfg, nil)
	snap := snapshotOf()
	snap.Networks = nil
	for want := minRetry; ; want = min(2*want, maxRetry) {
		next := f.follow(t.Context(), snap)
		fail := f.failed[at.String()]
		if fail == nil || health.Err(Name) == nil {
			t.Fatalf("the address is taken, but the condition is %v", health.Err(Name))
		}
		if fail.pause != want || next > want {
			t.Fatalf("got a pause of %v, and a look in %v, want %v", fail.pause, next, want)
		}
		fail.next = time.Now().Add(time.Hour)
		f.follow(t.Context(), snap)
		if fail.pause != want {
			t.Fatal("it was tried again too soon")
		}
		fail.next = time.Now()
		if fail.pause == maxRetry {
			break
		}
	}
	f.follow(t.Context(), snap)
	if got := f.failed[at.String()].pause; got != maxRetry {
		t.Errorf("got a pause of %v, want %v at most", got, maxRetry)
	}
	f.cfg.Listen = nil
	f.follow(t.Context(), snap)
	if len(f.failed) != 0 || health.Err(Name) != nil {
		t.Errorf("it is wanted no longer, but the condition is %v", health.Err(Name))
	}
}

// The hint is about what is wrong: all of it, or the folder alone.
func TestListenHints(t *testing.T) {
	f, health := following(t, testConfig(t), nil)
	hint := func() string {
		f.report()
		conds := health.Conditions()
		if len(conds) != 1 {
			t.Fatalf("got %d conditions, want 1", len(conds))
		}
		return conds[0].Hint
	}
	f.failed[f.cfg.Socket] = &failure{err: errors.New("permission denied")}
	if got := hint(); !strings.Contains(got, "the folder must be there") {
		t.Errorf("the socket alone: got %q", got)
	}
	f.failed["127.0.0.6:8125"] = &failure{err: errors.New("in use")}
	if got := hint(); !strings.Contains(got, "another program has the port") {
		t.Errorf("an address, too: got %q", got)
	}
	f.loops = []string{"127.0.0.7:8125"}
	if got := hint(); !strings.Contains(got, "another statsd.upstream") {
		t.Errorf("the upstream, too: got %q", got)
	}
}

// Once the containers were known, an engine that is away is no reason to wait; and
// the table is made anew in time for what ended.
func TestFollowing(t *testing.T) {
	f, _ := following(t, testConfig(t), nil)
	if next := f.follow(t.Context(), snapshotOf(running(1, "web", "127.0.1.1"))); next != maxRetry {
		t.Errorf("got a look in %v, want %v", next, maxRetry)
	}
	snap := withGateways(snapshotOf(), "127.0.0.8")
	snap.Complete = false
	if next := f.follow(t.Context(), snap); next > lateFor {
		t.Errorf("got a look in %v, want one in %v, when the lines of a container are no longer its own", next, lateFor)
	}
	if f.open["127.0.0.8:0"] == nil {
		t.Error("a new network is not received on")
	}
}

// What a closed socket dropped is not forgotten; what was listened on before is.
func TestWhatIsWantedNoLonger(t *testing.T) {
	registry := sockets.New(slog.New(slog.DiscardHandler))
	defer registry.Close()
	scope := registry.Scope(Name)
	conn, err := scope.ListenPacket(t.Context(), "udp4", "127.0.0.9:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	f, _ := following(t, testConfig(t), scope)
	f.open["127.0.0.8:0"] = &socket{closed: true, last: 5}
	for range 2 {
		f.follow(t.Context(), snapshotOf())
		if n := f.view.Load().drops(); n != 5 {
			t.Errorf("%d datagrams were dropped, want 5", n)
		}
	}
	if names := registry.Names(); len(names) != 2 || slices.ContainsFunc(names, func(name string) bool { return strings.Contains(name, "127.0.0.9") }) {
		t.Errorf("these are kept: %q", names)
	}
}

// The smallest of the buffers over UDP is told of if it is less than is wanted.
// All conditions end with the relay.
func TestBufferCondition(t *testing.T) {
	f, health := following(t, testConfig(t), nil)
	want := int(f.cfg.ReceiveBuffer.Bytes())
	small := &socket{buffer: 4 << 10}
	f.open = map[string]*socket{"large": {buffer: want}, "small": small, "middle": {buffer: 8 << 10}, "unix": {buffer: 1 << 10, unix: true}}
	f.report()
	if err := health.Err(Name); err == nil || !strings.Contains(err.Error(), "holds 4KiB") {
		t.Errorf("got the condition %v", err)
	}
	small.buffer, f.open["middle"].buffer = want, want
	f.report()
	if err := health.Err(Name); err != nil {
		t.Errorf("got the condition %v although all are as large as wanted", err)
	}
	for _, name := range []string{condListen, condBuffer, condReceive} {
		f.health.Set(name, errors.New("still wrong"), "")
	}
	f.clear()
	if err := health.Err(Name); err != nil {
		t.Errorf("at the end: got the condition %v", err)
	}
}
