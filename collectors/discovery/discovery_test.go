package discovery

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/berthd/berth/agent"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// epoch is when the tests' containers started, a minute before testNow.
var (
	epoch   = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	testNow = epoch.Add(time.Minute)
)

// snapshot returns a complete snapshot of a host with both address families and
// the usual networks.
func snapshot(containers ...*agent.Container) *agent.Snapshot {
	slices.SortFunc(containers, func(a, b *agent.Container) int { return strings.Compare(a.ID, b.ID) })
	return &agent.Snapshot{
		Seq: 1, At: testNow, Connected: true, Complete: true, EngineID: "E",
		Node: agent.Node{
			ID: "n1", Settled: true, Source: "config", Hostname: "host",
			IPv4: netip.MustParseAddr("10.0.0.5"), IPv6: netip.MustParseAddr("2001:db8::5"),
		},
		Containers: containers,
		Networks: []agent.Network{
			{ID: "net-bridge", Name: "bridge", Driver: "bridge", Bridge: "docker0", Gateways: addrs("172.17.0.1")},
			{ID: "net-host", Name: "host", Driver: "host"},
			{ID: "net-inner", Name: "inner", Driver: "bridge", Internal: true, Gateways: addrs("172.20.0.1")},
			{ID: "net-lan", Name: "lan", Driver: "macvlan"},
			{ID: "net-mesh", Name: "mesh", Driver: "overlay"},
			{ID: "net-none", Name: "none", Driver: "null"},
			{ID: "net-user", Name: "user", Driver: "bridge", Gateways: addrs("172.18.0.1")},
		},
	}
}

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// container returns a running container on the default bridge. The ID's first
// digit is the number.
func container(number string, labels map[string]string, ports ...agent.Port) *agent.Container {
	return &agent.Container{
		ID: strings.Repeat(number, 64)[:64], Name: "c" + number, Image: "image:1", Labels: labels,
		State: agent.StateRunning, CreatedAt: epoch, StartedAt: epoch, PID: 1, NetworkMode: "bridge",
		Endpoints: []agent.Endpoint{{Network: "bridge", NetworkID: "net-bridge", IPv4: netip.MustParseAddr("172.17.0.2")}},
		Ports:     ports,
	}
}

// with returns a changed copy of a container.
func with(c *agent.Container, change func(*agent.Container)) *agent.Container {
	copied := *c
	change(&copied)
	return &copied
}

// port reads "80/tcp" (exposed) and "80/tcp=0.0.0.0:8080" (published).
func port(s string) agent.Port {
	spec, host, published := strings.Cut(s, "=")
	number, proto, _ := strings.Cut(spec, "/")
	p := agent.Port{Container: netip.MustParseAddrPort("0.0.0.0:" + number).Port(), Proto: proto}
	if published {
		p.Host = netip.MustParseAddrPort(host)
	}
	return p
}

func ports(list ...string) []agent.Port {
	var out []agent.Port
	for _, s := range list {
		out = append(out, port(s))
	}
	return out
}

func named(pairs ...string) map[string]string {
	m := make(map[string]string)
	for _, p := range pairs {
		k, v, _ := strings.Cut(p, "=")
		m[k] = v
	}
	return m
}

func mustRules(t testing.TB, change func(*Config)) *rules {
	t.Helper()
	cfg := DefaultConfig()
	if change != nil {
		change(&cfg)
	}
	r, err := newRules(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// lines evaluates a snapshot with the defaults and returns its records but for
// the node's own, one a line.
func lines(t testing.TB, snap *agent.Snapshot) []string {
	t.Helper()
	return linesOf(mustRules(t, nil).evaluate(snap, testNow, new(memo)).set)
}

func linesOf(set agent.RecordSet) []string {
	var out []string
	for _, r := range set.Records {
		if r.Type == agent.TypeSRV || !strings.HasPrefix(r.Name, set.Node.Label()+".") {
			out = append(out, r.String())
		}
	}
	return out
}

func checkLines(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("records:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func testEnv() agent.Env {
	log := slog.New(slog.DiscardHandler)
	return agent.Env{Log: log, Health: agent.NewHealth(log)}
}

func mustNew(t testing.TB, cfg Config, env agent.Env) *Discovery {
	t.Helper()
	d, err := New(cfg, env)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestPublishedPort(t *testing.T) {
	snap := snapshot(container("a", named("SERVICE_80_NAME=calc"), ports("80/tcp=0.0.0.0:32768", "80/tcp=[::]:32768")...))
	got := mustRules(t, nil).evaluate(snap, testNow, new(memo)).set
	var all []string
	for _, r := range got.Records {
		all = append(all, r.String())
	}
	checkLines(t, all,
		"_calc._tcp.berth.internal. 5 IN SRV 1 1 32768 n1.berth.internal.",
		"calc.berth.internal. 5 IN A 10.0.0.5",
		"calc.berth.internal. 5 IN AAAA 2001:db8::5",
		"calc.berth.internal. 5 IN SRV 1 1 32768 n1.berth.internal.",
		"n1.berth.internal. 5 IN A 10.0.0.5",
		"n1.berth.internal. 5 IN AAAA 2001:db8::5",
	)
	if got.Zone != "berth.internal." || got.Partial || got.Node != snap.Node {
		t.Errorf("set: zone %q, partial %v, node %v", got.Zone, got.Partial, got.Node)
	}
}

func TestRunPublishesWhatChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := agent.NewStore()
		feed := store.Subscribe()
		defer feed.Close()
		d := mustNew(t, DefaultConfig(), testEnv())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- d.Run(ctx, feed) }()

		synctest.Wait()
		if _, seq := d.Records().Load(); seq != 0 {
			t.Errorf("published set %d before the first snapshot", seq)
		}
		c := container("a", named("SERVICE_80_NAME=_calc._tcp"), ports("80/tcp=0.0.0.0:32768", "80/tcp=[::]:32768")...)
		first := snapshot(c)
		store.Publish(first)
		synctest.Wait()
		set, seq := d.Records().Load()
		if seq != 1 {
			t.Fatalf("sequence %d after the first snapshot, want 1", seq)
		}
		checkLines(t, linesOf(set), "_calc._tcp.berth.internal. 5 IN SRV 1 1 32768 n1.berth.internal.")

		same := snapshot(c)
		same.Seq = 2
		store.Publish(same)
		synctest.Wait()
		if _, seq := d.Records().Load(); seq != 1 {
			t.Errorf("sequence %d after a snapshot that changes nothing, want 1", seq)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if set, _ := d.Records().Load(); len(linesOf(set)) != 1 {
			t.Errorf("records after Run ended: %v, want them kept", linesOf(set))
		}
	})
}
