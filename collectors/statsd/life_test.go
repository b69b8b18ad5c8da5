package statsd

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/sockets"
)

// withGateways adds networks whose gateways these are.
func withGateways(snap *agent.Snapshot, addrs ...string) *agent.Snapshot {
	for _, a := range addrs {
		snap.Networks = append(snap.Networks, agent.Network{ID: a, Name: a, Driver: "bridge", Bridge: "lo", Gateways: []netip.Addr{netip.MustParseAddr(a)}})
	}
	return snap
}

// listening returns the addresses that are received on.
func (r *relay) listening() []string {
	var all []string
	for _, s := range r.view.Load().sockets {
		if !s.unix {
			all = append(all, s.at.Addr().String())
		}
	}
	slices.Sort(all)
	return all
}

// Sockets follow the networks; a snapshot that is not the whole truth closes
// none. What a closed socket dropped is not forgotten.
func TestFollowsNetworks(t *testing.T) {
	sink := new(memory)
	cfg := testConfig(t)
	cfg.Listen = []netip.Addr{netip.MustParseAddr("127.0.0.7")}
	r := start(t, cfg, sink, snapshotOf())
	step := func(snap *agent.Snapshot, want ...string) {
		t.Helper()
		r.publish(t, snap)
		if got := r.listening(); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	step(withGateways(snapshotOf(), "127.0.0.8", "203.0.113.1"), "127.0.0.1", "127.0.0.7", "127.0.0.8")
	send(t, sender(t, "127.0.0.1", r.udp(t, "127.0.0.8")), "a:1|c")
	await(t, "the line arrives", func() bool { return len(sink.lines()) == 1 })
	partial := snapshotOf()
	partial.Complete, partial.Networks = false, nil
	step(partial, "127.0.0.1", "127.0.0.7", "127.0.0.8")
	step(snapshotOf(), "127.0.0.1", "127.0.0.7")
	step(withGateways(snapshotOf(), "127.0.0.8"), "127.0.0.1", "127.0.0.7", "127.0.0.8")
	send(t, sender(t, "127.0.0.1", r.udp(t, "127.0.0.8")), "b:1|c")
	await(t, "the line arrives", func() bool { return len(sink.lines()) == 2 })
	r.stop()
	if err := r.health.Err(Name); err != nil {
		t.Errorf("conditions: %v", err)
	}
}

// An address that another process has: a condition says so, the others are
// received on, and it is tried again.
func TestAddressInUse(t *testing.T) {
	other, err := net.ListenPacket("udp4", "127.0.0.6:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	cfg := testConfig(t)
	cfg.Port = other.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	cfg.Listen = []netip.Addr{netip.MustParseAddr("127.0.0.6"), netip.MustParseAddr("127.0.0.7")}
	snap := snapshotOf()
	snap.Networks = nil
	r := start(t, cfg, new(memory), snap)
	if err := r.health.Err(Name); err == nil || !strings.Contains(err.Error(), "127.0.0.6") {
		t.Errorf("got the condition %v", err)
	}
	if got := r.listening(); !slices.Equal(got, []string{"127.0.0.7"}) {
		t.Errorf("received on %q", got)
	}
	other.Close()
	await(t, "the address is received on", func() bool { return len(r.listening()) == 2 })
	if err := r.health.Err(Name); err != nil {
		t.Errorf("got the condition %v although all is well", err)
	}
}

// A gateway that is the upstream is not received on: lines would go around.
func TestUpstreamIsAGateway(t *testing.T) {
	free, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t)
	cfg.Upstream = free.LocalAddr().String()
	cfg.Port = netip.MustParseAddrPort(cfg.Upstream).Port()
	free.Close()
	r := start(t, cfg, new(memory), withGateways(snapshotOf(), "127.0.0.8"))
	if got := r.listening(); !slices.Equal(got, []string{"127.0.0.8"}) {
		t.Errorf("received on %q", got)
	}
	if err := r.health.Err(Name); err == nil || !strings.Contains(err.Error(), "it is the upstream") {
		t.Errorf("got the condition %v", err)
	}
}

// Before the engine's containers are known nothing is received: what waits is
// theirs. But that does not take for ever.
func TestWaitsForTheEngine(t *testing.T) {
	snap := snapshotOf()
	snap.Complete = false
	r := start(t, testConfig(t), new(memory), snap)
	if n := len(r.view.Load().sockets); n != 0 {
		t.Errorf("%d sockets are read", n)
	}
	await(t, "it receives all the same", func() bool { return len(r.view.Load().sockets) == 2 })
}

// Between two lives of the relay lines wait in its sockets, and none is lost: not
// those that it read at its end, nor those that came while there was none.
func TestReloadLosesNothing(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	registry := sockets.New(log)
	defer registry.Close()
	cfg := testConfig(t)
	sink := new(memory)
	snap := snapshotOf(running(1, "web", "127.0.1.1"))
	var from net.Conn
	var unix net.Conn
	sent := 0
	for life := range 4 {
		r := startWith(t, cfg, sink, snap, agent.Env{Sockets: registry.Scope(Name)})
		if life == 0 {
			from = sender(t, "127.0.1.1", r.udp(t, "127.0.0.1"))
			conn, err := net.Dial("unixgram", cfg.Socket)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			unix = conn
		}
		for range 500 {
			send(t, from, "a:1|c")
		}
		send(t, unix, "b:1|c", "b:2|c")
		r.stop()
		if got, top := r.meters.lines.Load(), r.Top(); len(top.Senders) != 2 || top.Senders[0].Lines+top.Senders[1].Lines != got {
			t.Errorf("life %d: of %d lines: %+v", life, got, top.Senders) // of web and the host
		}
		for range 100 {
			send(t, from, "c:1|c")
		}
		send(t, unix, "d:1|c", "d:2|c")
		sent += 604
	}
	r := startWith(t, cfg, sink, snap, agent.Env{Sockets: registry.Scope(Name)})
	await(t, "all lines arrive", func() bool { return len(sink.lines()) == sent })
	r.stop()
	if n := len(registry.Names()); n != 2 {
		t.Errorf("%d sockets are kept: %q", n, registry.Names())
	}
}

// The folder of the Unix socket is made once; a folder that is there is left as it
// is, as containers have it mounted. All may write to the socket.
func TestUnixSocketFolder(t *testing.T) {
	before := syscall.Umask(0o077)
	defer syscall.Umask(before)
	log := slog.New(slog.DiscardHandler)
	registry := sockets.New(log)
	defer registry.Close()
	env := agent.Env{Sockets: registry.Scope(Name)}
	cfg := testConfig(t)
	dir := filepath.Join(t.TempDir(), "statsd")
	cfg.Socket = filepath.Join(dir, "statsd.sock")
	first := startWith(t, cfg, new(memory), snapshotOf(), env)
	made, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	socket, err := os.Stat(cfg.Socket)
	if err != nil {
		t.Fatal(err)
	}
	if made.Mode().Perm() != 0o755 || socket.Mode().Perm() != socketMode {
		t.Errorf("the folder has mode %o and the socket %o", made.Mode().Perm(), socket.Mode().Perm())
	}
	first.stop()
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	registry.Close() // as when berth is stopped: the file stays
	registry = sockets.New(log)
	defer registry.Close()
	env.Sockets = registry.Scope(Name)
	second := startWith(t, cfg, new(memory), snapshotOf(), env)
	again, err := os.Stat(dir)
	if err != nil || !os.SameFile(made, again) || again.Mode().Perm() != 0o711 {
		t.Errorf("the folder was made anew or changed: %v, %v", again, err)
	}
	if err := second.health.Err(Name); err != nil {
		t.Error(err)
	}

	cfg.Socket = filepath.Join(t.TempDir(), "no", "such", "statsd.sock")
	third := startWith(t, cfg, new(memory), snapshotOf(), env)
	if err := third.health.Err(Name); err == nil || !strings.Contains(err.Error(), "folder") {
		t.Errorf("got the condition %v", err)
	}
	if got := third.listening(); len(got) != 1 {
		t.Errorf("received on %q", got)
	}
}

// What the kernel drops is a condition until it has dropped nothing for a while.
func TestKernelDropsAreACondition(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	env := agent.Env{Log: log, Health: agent.NewHealth(log)}
	s, err := New(testConfig(t), env, new(memory))
	if err != nil {
		t.Fatal(err)
	}
	sock := new(socket)
	sock.closed = true
	s.view.Store(&view{sockets: []*socket{sock}})
	f := &follower{Statsd: s, ticked: time.Unix(0, 0)}
	f.measure(time.Unix(1, 0))
	if err := env.Health.Err(Name); err != nil {
		t.Error(err)
	}
	sock.last = 5
	f.measure(time.Unix(2, 0))
	if err := env.Health.Err(Name); err == nil || !strings.Contains(err.Error(), "dropped 5 datagrams") {
		t.Errorf("got the condition %v", err)
	}
	f.measure(time.Unix(2, 0).Add(calm))
	if env.Health.Err(Name) == nil {
		t.Error("the condition passed at once")
	}
	f.measure(time.Unix(3, 0).Add(calm))
	if err := env.Health.Err(Name); err != nil {
		t.Error(err)
	}
}

// A receiver that breaks is an error of Run, and not the end of the process.
func TestPanicIsAnError(t *testing.T) {
	r, err := newReceiver(testConfig(t), nil, new(meters), new(memory)) // without a table
	if err != nil {
		t.Fatal(err)
	}
	o := opener{ownSockets{}, 1 << 20}
	s, err := o.udp(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	send(t, sender(t, "127.0.1.1", s.at), "a:1|c")
	r.read([]*socket{s})
	if err := r.run(); err == nil || !strings.Contains(err.Error(), "panic") {
		t.Errorf("got %v", err)
	}
}

// Rates are those of the last seconds.
func TestRates(t *testing.T) {
	a := new(account)
	for range 60 {
		a.lines.Add(100)
		a.measure(time.Second, 0.1)
	}
	if row := senderOf(newOrigin("", "x", nil, a)); row.Rate < 99 || row.Rate > 101 {
		t.Errorf("got a rate of %v, want 100", row.Rate)
	}
	for range 120 {
		a.measure(time.Second, 0.1)
	}
	if row := senderOf(newOrigin("", "x", nil, a)); row.Rate != 0 {
		t.Errorf("got a rate of %v, want 0", row.Rate)
	}
}

func TestExplain(t *testing.T) {
	host := running(2, "host", "", serviceLabel, "h")
	host.NetworkMode = "host"
	bare := running(3, "bare", "127.0.1.3")
	guest := running(4, "guest", "", serviceLabel, "g")
	guest.NetworkMode = "container:" + idOf(3)
	dead := running(5, "dead", "127.0.1.5")
	dead.State = agent.StateExited
	cfg := testConfig(t)
	cfg.Socket = ""
	r := start(t, cfg, new(memory), snapshotOf(running(1, "web", "127.0.1.1", serviceLabel, "shop"), host, bare, guest, dead))
	for name, want := range map[string]string{
		"web":  "tagged metrics from 127.0.1.1: lines get the tags service:shop",
		"host": "untagged metrics over UDP: network mode host: it has no address of its own on a bridge network, and senders are not guessed",
		"bare": "untagged metrics from 127.0.1.3: the container has none of statsd.container_tags (bare and guest share one network: what they have in common)",
		"dead": "ignored metrics: it does not run",
		"none": "ignored metrics: find container \"none\": no container of this host matches",
	} {
		got := r.Explain(name)
		if len(got) != 1 || got[0].Verdict+" "+got[0].Subject+": "+got[0].Rule != want {
			t.Errorf("%s: got %+v, want %s", name, got, want)
		}
	}
}

func TestHTTP(t *testing.T) {
	r := start(t, testConfig(t), new(memory), snapshotOf(running(1, "web", "127.0.1.1", serviceLabel, "shop")))
	for path, want := range map[string]int{
		"/v1/statsd/top": 200, "/v1/statsd/explain?container=web": 200, "/v1/statsd/explain?container=x": 404, "/v1/statsd/": 404,
	} {
		w := httptest.NewRecorder()
		r.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != want {
			t.Errorf("%s: got %d, want %d: %s", path, w.Code, want, w.Body)
		}
	}
	w := httptest.NewRecorder()
	r.ServeHTTP(w, httptest.NewRequest("POST", "/v1/statsd/top", nil))
	if w.Code != 405 {
		t.Errorf("POST: got %d", w.Code)
	}
}

// failing is a sink that cannot be opened.
type failing struct{ memory }

func (*failing) Open() (agent.LinePort, error) { return nil, errors.New("no memory") }

func TestSinkCannotBeOpened(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	s, err := New(testConfig(t), agent.Env{Log: log, Health: agent.NewHealth(log)}, new(failing))
	if err != nil {
		t.Fatal(err)
	}
	feed := agent.NewStore().Subscribe()
	defer feed.Close()
	if err := s.Run(t.Context(), feed); err == nil || !strings.Contains(err.Error(), "no memory") {
		t.Errorf("got %v", err)
	}
}

// Metrics have a row for each container that runs and has sent something, and none
// for those that ended: their names may be as many as there were jobs.
func TestMetricsOfContainers(t *testing.T) {
	sink := new(memory)
	r := start(t, testConfig(t), sink, snapshotOf(running(1, "job", "127.0.1.1"), running(2, "web", "127.0.1.2"), running(3, "silent", "127.0.1.3")))
	to := r.udp(t, "127.0.0.1")
	send(t, sender(t, "127.0.1.1", to), "a:1|c")
	send(t, sender(t, "127.0.1.2", to), "a:1|c\nb:1|c\nbad")
	await(t, "the lines arrive", func() bool { return len(sink.lines()) == 3 })
	rows := func() string {
		var all []string
		for s := range r.Metrics {
			if strings.HasPrefix(s.Name, "berth_statsd_container_") && s.Value > 0 {
				all = append(all, fmt.Sprint(strings.TrimPrefix(s.Name, "berth_statsd_container_"), " ", s.Labels[0].Value, " ", s.Value))
			}
		}
		return strings.Join(all, "; ")
	}
	await(t, "all is counted", func() bool {
		return rows() == "lines_total job 1; lines_total web 3; bytes_total job 5; bytes_total web 15; dropped_lines_total web 1"
	})
	r.publish(t, snapshotOf(running(2, "web", "127.0.1.2")))
	if got := rows(); strings.Contains(got, "job") || !strings.Contains(got, "web 3") {
		t.Errorf("got %s", got)
	}
	if top := r.Top(); len(top.Senders) != 2 {
		t.Errorf("top has %+v, want the job, too", top.Senders)
	}
}

// The kernel is asked for interfaces while two networks have the same addresses,
// and from the moment on at which they have.
func TestSendersOfNetworksWithTheSameAddresses(t *testing.T) {
	sink := new(memory)
	web := running(1, "web", "127.0.1.1", ddLabels+"env", "prod")
	snap := snapshotOf(web)
	r := start(t, testConfig(t), sink, snap)
	to := r.udp(t, "127.0.0.1")
	send(t, sender(t, "127.0.1.1", to), "before:1|c")
	await(t, "a line arrives", func() bool { return len(sink.lines()) == 1 })
	other := running(2, "other", "127.0.1.1", ddLabels+"env", "test")
	other.Endpoints[0].NetworkID = "elsewhere"
	snap = snapshotOf(web, other)
	snap.Networks = append(snap.Networks, agent.Network{ID: "elsewhere", Driver: "bridge", Bridge: "no-such-interface"})
	r.publish(t, snap)
	// The first datagram may be in the queue before the receiver knows of it.
	send(t, sender(t, "127.0.1.1", to), "between:1|c")
	await(t, "another one does", func() bool { return len(sink.lines()) == 2 })
	send(t, sender(t, "127.0.1.1", to), "after:1|c")
	await(t, "all lines arrive", func() bool { return len(sink.lines()) == 3 })
	got := sink.lines()
	if got[0] != "before:1|c|#env:prod" || got[2] != "after:1|c|#env:prod" {
		t.Errorf("got %q", got)
	}
	if got[1] != "between:1|c" && got[1] != "between:1|c|#env:prod" {
		t.Errorf("got %q, which may be untagged, but not another one's", got[1])
	}
}
