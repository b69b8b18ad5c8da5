package statsd

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/berthd/berth/agent"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait. Nothing takes nearly as long but on a machine that
// is overloaded.
const patience = 2 * time.Minute

func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v: %s", patience, what)
		}
		time.Sleep(time.Millisecond)
	}
}

// memory is a LineSink, and its only port, that keeps what it is given.
type memory struct {
	payload int

	mu     sync.Mutex
	sent   []string // datagrams
	stats  agent.LineStats
	refuse bool // lines fail
	closed bool
}

func (m *memory) Name() string { return "memory" }

func (m *memory) Open() (agent.LinePort, error) { return m, nil }

func (m *memory) MaxPayload() int {
	if m.payload == 0 {
		return 1432
	}
	return m.payload
}

func (m *memory) Send(list []agent.Packet) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range list {
		if m.refuse {
			m.stats.Failed += uint64(p.Lines)
			continue
		}
		m.sent = append(m.sent, string(p.Data))
		m.stats.Lines += uint64(p.Lines)
		m.stats.Packets++
		m.stats.Bytes += uint64(len(p.Data))
	}
	return 0
}

func (m *memory) Close(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

func (m *memory) Stats() agent.LineStats {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stats
}

// lines returns all lines so far.
func (m *memory) lines() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return linesOf(m.sent)
}

func linesOf(datagrams []string) []string {
	var all []string
	for _, d := range datagrams {
		all = append(all, strings.Split(strings.TrimSuffix(d, "\n"), "\n")...)
	}
	return all
}

// discard is a port that keeps nothing.
type discard struct{ memory }

func (d *discard) Send(list []agent.Packet) time.Duration { return 0 }

// idOf is the ID of the n-th container.
func idOf(n int) string { return fmt.Sprintf("%064x", n) }

// running returns a live container on the network "net", which leads over lo.
func running(n int, name, addr string, labels ...string) *agent.Container {
	c := &agent.Container{
		ID: idOf(n), Name: name, State: agent.StateRunning, PID: 1, NetworkMode: "net",
		StartedAt: time.Unix(1_700_000_000, 0), Labels: make(map[string]string),
	}
	if addr != "" {
		c.Endpoints = []agent.Endpoint{{Network: "net", NetworkID: "net", IPv4: netip.MustParseAddr(addr)}}
	}
	for i := 0; i < len(labels); i += 2 {
		c.Labels[labels[i]] = labels[i+1]
	}
	return c
}

func snapshotOf(cs ...*agent.Container) *agent.Snapshot {
	return &agent.Snapshot{
		Seq: 1, Connected: true, Complete: true, Containers: cs,
		Networks: []agent.Network{{ID: "net", Name: "net", Driver: "bridge", Bridge: "lo", Gateways: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}},
	}
}

const serviceLabel = ddLabels + "service"

// testConfig receives on a free port of loopback and on a socket in a folder of
// the test.
func testConfig(t *testing.T) Config {
	cfg := DefaultConfig()
	cfg.Port = 0
	cfg.Socket = filepath.Join(t.TempDir(), "statsd.sock")
	cfg.ContainerTags = []string{"service", "env"}
	return cfg
}

// relay is a running relay.
type relay struct {
	*Statsd
	store  *agent.Store
	health *agent.Health
	stop   func()
}

// start runs a relay until the test ends, and waits until it receives.
func start(t *testing.T, cfg Config, sink agent.LineSink, snap *agent.Snapshot) *relay {
	t.Helper()
	return startWith(t, cfg, sink, snap, agent.Env{})
}

func startWith(t *testing.T, cfg Config, sink agent.LineSink, snap *agent.Snapshot, env agent.Env) *relay {
	t.Helper()
	env.Log = slog.New(slog.DiscardHandler)
	env.Health = agent.NewHealth(env.Log)
	s, err := New(cfg, env, sink)
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{Statsd: s, store: agent.NewStore(), health: env.Health}
	r.store.Publish(snap)
	ctx, cancel := context.WithCancel(t.Context())
	var ended sync.WaitGroup
	ended.Go(func() {
		feed := r.store.Subscribe()
		defer feed.Close()
		if err := s.Run(ctx, feed); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	r.stop = sync.OnceFunc(func() { cancel(); ended.Wait() })
	t.Cleanup(r.stop)
	await(t, "the relay knows the snapshot", func() bool { return s.view.Load().snapshot == snap })
	return r
}

// publish makes the relay follow a snapshot.
func (r *relay) publish(t *testing.T, snap *agent.Snapshot) {
	t.Helper()
	r.store.Publish(snap)
	await(t, "the relay knows the snapshot", func() bool { return r.view.Load().snapshot == snap })
}

// udp returns where the relay receives on an address.
func (r *relay) udp(t *testing.T, addr string) netip.AddrPort {
	t.Helper()
	for _, s := range r.view.Load().sockets {
		if s.at.Addr().String() == addr {
			return s.at
		}
	}
	t.Fatalf("the relay does not receive on %s: %v", addr, r.health.Err(Name))
	return netip.AddrPort{}
}

// sender is a socket of a container that has an address.
func sender(t *testing.T, from string, to netip.AddrPort) *net.UDPConn {
	t.Helper()
	local := net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0))
	conn, err := net.DialUDP("udp", local, net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func send(t *testing.T, conn net.Conn, datagrams ...string) {
	t.Helper()
	for _, d := range datagrams {
		if _, err := conn.Write([]byte(d)); err != nil {
			t.Fatal(err)
		}
	}
}

// balance checks the identity of all counts.
func balance(t *testing.T, top Top) {
	t.Helper()
	sum := top.Totals
	if got := sum.LinesOut + sum.Dropped.Sum() + sum.Waiting; got != sum.LinesIn {
		t.Errorf("lines in = %d, but out and dropped are %d: %+v", sum.LinesIn, got, sum)
	}
	var lines, dropped uint64
	for _, s := range top.Senders {
		lines += s.Lines
		dropped += s.Dropped()
	}
	if lines != sum.LinesIn {
		t.Errorf("lines in = %d, but those of all senders are %d", sum.LinesIn, lines)
	}
	d := sum.Dropped
	if got := d.Malformed + d.TooLong + d.RateLimited + d.Truncated; got != dropped {
		t.Errorf("dropped before sending = %d, but those of all senders are %d", got, dropped)
	}
}
