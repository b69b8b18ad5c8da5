package node

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/journal"
	"github.com/berthd/berth/test/fakeaws"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	dmi     = "sys/class/dmi/id/"
	id1     = "0123456789abcdef0123456789abcdef"
	id2     = "fedcba9876543210fedcba9876543210"
	uuid1   = "11111111-2222-3333-4444-555555555555"
	uuid2   = "99999999-2222-3333-4444-555555555555"
	mac1    = "02:00:00:00:00:01"
	mac2    = "02:00:00:00:00:02"
	patient = 10 * time.Second // bounds a wait that normally ends at once
)

// machine is a host to test on.
type machine struct {
	t      *testing.T
	root   string
	state  string
	routes addresses
	health *agent.Health
}

func newMachine(t *testing.T) *machine {
	t.Setenv("AWS_EC2_METADATA_DISABLED", "")
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "")
	m := &machine{
		t: t, root: t.TempDir(), state: t.TempDir(),
		routes: addresses{v4: netip.MustParseAddr("10.1.2.3")},
		health: agent.NewHealth(slog.New(slog.DiscardHandler)),
	}
	m.write("etc/machine-id", id1+"\n")
	m.write("proc/sys/kernel/hostname", "Web_1.example.com\n")
	m.write(dmi+"product_uuid", uuid1+"\n")
	m.write(dmi+"sys_vendor", "QEMU\n")
	m.card(mac1)
	return m
}

// clone is another host with the same disk.
func (m *machine) clone() *machine {
	m.t.Helper()
	c := *m
	c.root, c.state = m.t.TempDir(), m.t.TempDir()
	must(m.t, os.CopyFS(c.root, os.DirFS(m.root)))
	must(m.t, os.CopyFS(c.state, os.DirFS(m.state)))
	return &c
}

func (m *machine) write(path, text string) {
	m.t.Helper()
	path = filepath.Join(m.root, path)
	must(m.t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(m.t, os.WriteFile(path, []byte(text), 0o600))
}

func (m *machine) remove(path string) {
	m.t.Helper()
	must(m.t, os.RemoveAll(filepath.Join(m.root, path)))
}

func (m *machine) card(mac string) {
	m.t.Helper()
	m.write("sys/class/net/eth0/device/vendor", "x")
	m.write("sys/class/net/eth0/address", mac+"\n")
}

func (m *machine) ec2() *machine {
	m.t.Helper()
	m.write(dmi+"sys_vendor", "Amazon EC2\n")
	return m
}

func (m *machine) env() agent.Env {
	return agent.Env{Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Health: m.health, StateDir: m.state}
}

func (m *machine) start(cfg Config, opts ...Option) (*Source, error) {
	opts = append([]Option{WithRoot(m.root), func(s *Source) {
		s.host.routes = func() addresses { return m.routes }
	}}, opts...)
	return New(cfg, m.env(), opts...)
}

// boot returns the node that a fresh start knows at once.
func (m *machine) boot(cfg Config) agent.Node {
	m.t.Helper()
	s, err := m.start(cfg)
	must(m.t, err)
	defer s.Close()
	return s.Node()
}

// run starts a source and returns it with a function that stops it.
func (m *machine) run(cfg Config, opts ...Option) (*Source, func()) {
	m.t.Helper()
	s, err := m.start(cfg, opts...)
	must(m.t, err)
	ctx, cancel := context.WithCancel(m.t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop := func() {
		cancel()
		if err := <-done; err != nil {
			m.t.Errorf("Run = %v", err)
		}
		s.Close()
	}
	return s, stop
}

// settle waits until the node satisfies ok.
func settle(t *testing.T, s *Source, ok func(agent.Node) bool) agent.Node {
	t.Helper()
	deadline := time.After(patient)
	for {
		changed := s.Changed()
		n := s.Node()
		if ok(n) {
			return n
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("the node stays %+v", n)
		}
	}
}

func settled(n agent.Node) bool { return n.Settled }

// impatient pauses a millisecond where a second would do. Whoever receives from
// paused knows that one more question has been in vain.
func impatient(paused chan<- struct{}) Option {
	return func(s *Source) {
		s.pause = func(ctx context.Context, _ time.Duration) bool {
			select {
			case paused <- struct{}{}:
			case <-time.After(time.Millisecond):
			case <-ctx.Done():
			}
			return ctx.Err() == nil
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestElsewhereIsSettledAtOnce(t *testing.T) {
	m := newMachine(t)
	n := m.boot(DefaultConfig())
	if !strings.HasPrefix(n.ID, "web-1-") || !labelForm.MatchString(n.ID) || !n.Settled || n.Source != "machine-id" {
		t.Errorf("node = %+v", n)
	}
	if n.Hostname != "Web_1.example.com" || n.IPv4 != m.routes.v4 || n.InstanceID != "" {
		t.Errorf("node = %+v", n)
	}
	raw, err := os.ReadFile(filepath.Join(m.state, "node.journal"))
	must(t, err)
	for _, secret := range []string{id1, uuid1} {
		if strings.Contains(string(raw)+n.ID, secret) {
			t.Errorf("the journal shows %s", secret)
		}
	}
}

func TestPitfall_discovery26_ClonesRenamesAndReaddressing(t *testing.T) {
	m := newMachine(t)
	first := m.boot(DefaultConfig()).ID
	same := func(what string, m *machine) {
		t.Helper()
		if got := m.boot(DefaultConfig()).ID; got != first {
			t.Errorf("%s: ID = %s, want %s as before", what, got, first)
		}
	}
	differ := func(what string, m *machine) {
		t.Helper()
		got := m.boot(DefaultConfig())
		if got.ID == first || !got.Settled {
			t.Errorf("%s: %+v, want another ID than %s", what, got, first)
		}
	}
	same("restarted", m)
	m.write("proc/sys/kernel/hostname", "renamed")
	same("renamed", m)
	m.routes.v4 = netip.MustParseAddr("10.9.9.9")
	same("re-addressed", m)
	m.card(mac2)
	same("new network card", m)
	m.remove("etc/machine-id")
	m.remove(dmi + "product_uuid")
	same("nothing but a name is known", m)
	late := m.clone()
	late.write("etc/machine-id", id2)
	differ("clone of a host that did not know its machine ID when last started", late)
	m.write("etc/machine-id", id1)
	m.write(dmi+"product_uuid", uuid1)
	same("all is known again", m)

	clone := m.clone()
	clone.write(dmi+"product_uuid", uuid2)
	differ("clone with all of the disk", clone)
	clone = m.clone()
	clone.write("etc/machine-id", id2)
	differ("image with a new machine ID", clone)

	fresh := newMachine(t) // the disk was cloned before berth first ran
	fresh.write(dmi+"product_uuid", uuid2)
	differ("clone with the same machine ID and name", fresh)

	// Without a product UUID, as in a container or on a small board.
	bare := newMachine(t)
	bare.remove(dmi + "product_uuid")
	bare.remove("etc/machine-id")
	first = bare.boot(DefaultConfig()).ID
	clone = bare.clone()
	clone.card(mac2)
	same("new network card", clone)
	clone = bare.clone()
	clone.card(mac2)
	clone.write("proc/sys/kernel/hostname", "other")
	differ("clone with another name and network card", clone)
	fresh = newMachine(t)
	fresh.remove(dmi + "product_uuid")
	fresh.remove("etc/machine-id")
	fresh.card(mac2)
	differ("clone that differs in its network card alone", fresh)
}

func TestFallbackOrder(t *testing.T) {
	m := newMachine(t)
	m.write("etc/machine-id", "uninitialized\n")
	if n := m.boot(DefaultConfig()); n.Source != "hostname" || !strings.HasPrefix(n.ID, "web-1-") {
		t.Errorf("without machine ID: %+v", n)
	}
	m = newMachine(t)
	m.remove("etc/machine-id")
	m.write("proc/sys/kernel/hostname", "localhost.localdomain")
	if n := m.boot(DefaultConfig()); n.Source != "address" || !strings.HasPrefix(n.ID, "ip-10-1-2-3-") {
		t.Errorf("without name: %+v", n)
	}
	m = newMachine(t)
	m.remove("etc/machine-id")
	m.remove("proc/sys/kernel/hostname")
	var route atomic.Pointer[addresses]
	route.Store(&addresses{})
	s, stop := m.run(DefaultConfig(), func(s *Source) { s.host.routes = func() addresses { return *route.Load() } })
	defer stop()
	if n := s.Node(); n.ID != "" || n.Settled || n.Label() != "node" {
		t.Errorf("without anything: %+v", n)
	}
	route.Store(&m.routes)
	s.Refresh()
	if n := settle(t, s, settled); n.Source != "address" {
		t.Errorf("once there is an address: %+v", n)
	}
}

func TestAddressesFollowAndDoNotVanish(t *testing.T) {
	m := newMachine(t)
	var route atomic.Pointer[addresses]
	route.Store(&m.routes)
	s, stop := m.run(DefaultConfig(), func(s *Source) { s.host.routes = func() addresses { return *route.Load() } })
	defer stop()
	id := s.Node().ID
	next := addresses{v6: netip.MustParseAddr("2001:db8::7")} // and the IPv4 route is lost
	route.Store(&next)
	s.Refresh()
	n := settle(t, s, func(n agent.Node) bool { return n.IPv6 == next.v6 })
	if n.IPv4 != m.routes.v4 || n.ID != id {
		t.Errorf("node = %+v", n)
	}
	next2 := addresses{v4: netip.MustParseAddr("10.7.7.7")}
	route.Store(&next2)
	s.Refresh()
	n = settle(t, s, func(n agent.Node) bool { return n.IPv4 == next2.v4 })
	if n.IPv6 != next.v6 || n.ID != id {
		t.Errorf("node = %+v", n)
	}
}

func TestConfigOverrides(t *testing.T) {
	m := newMachine(t).ec2()
	cfg := Config{
		ID: "mine", Hostname: "h", IPv4: netip.MustParseAddr("10.0.0.1"), IPv6: netip.MustParseAddr("2001:db8::1"),
		EC2: EC2Auto, Account: "a", Region: "r", Zone: "z",
	}
	want := agent.Node{
		ID: "mine", Settled: true, Source: "config", Hostname: "h", IPv4: cfg.IPv4, IPv6: cfg.IPv6,
		Account: "a", Region: "r", Zone: "z",
	}
	if got := m.boot(cfg); got != want {
		t.Errorf("node = %+v, want %+v", got, want)
	}
	cfg = DefaultConfig()
	cfg.EC2 = EC2Off
	if n := m.boot(cfg); !n.Settled || n.Source != "machine-id" {
		t.Errorf("with ec2: off: %+v", n)
	}
}

func TestEC2(t *testing.T) {
	aws := fakeaws.ServeIMDS(t, fakeaws.Instance{ID: "i-0000000000000000a", IPv6: "2001:db8::a"})
	aws.SetMode(fakeaws.Disabled)
	m := newMachine(t).ec2()
	cfg := DefaultConfig()
	cfg.IMDSEndpoint = aws.URL()

	paused := make(chan struct{})
	s, stop := m.run(cfg, impatient(paused))
	if n := s.Node(); n.ID != "" || n.Settled || n.Source != "" || s.StateHost() != "" {
		t.Errorf("first start, before the service answers: %+v, state of %q", n, s.StateHost())
	}
	for _, mode := range []fakeaws.Mode{fakeaws.Failing, fakeaws.Refusing, fakeaws.Disabled} {
		aws.SetMode(mode)
		<-paused
		<-paused // one whole question in this mode
		if n := s.Node(); n.Settled || n.ID != "" {
			t.Errorf("mode %d: %+v", mode, n)
		}
	}
	aws.SetMode(fakeaws.Normal)
	n := settle(t, s, settled)
	want := agent.Node{
		ID: "i-0000000000000000a", Settled: true, Source: "imds", Hostname: "Web_1.example.com",
		IPv4: netip.MustParseAddr("10.20.30.40"), IPv6: netip.MustParseAddr("2001:db8::a"),
		InstanceID: "i-0000000000000000a", Account: "123456789012", Region: "eu-central-1", Zone: "eu-central-1a",
		InstanceType: "m7g.large",
	}
	if n != want || s.StateHost() != want.ID {
		t.Errorf("node = %+v, want %+v (state of %q)", n, want, s.StateHost())
	}
	stop()

	// A restart while the service is down: the ID for this host's own view.
	aws.SetMode(fakeaws.Refusing)
	s, stop = m.run(cfg, impatient(paused))
	n = s.Node()
	if n.ID != want.ID || n.Settled || n.Source != "journal" || n.Region != want.Region || s.StateHost() != "" {
		t.Errorf("restart without the service: %+v, state of %q", n, s.StateHost())
	}
	aws.SetMode(fakeaws.Normal)
	if n = settle(t, s, settled); n != want {
		t.Errorf("node = %+v, want %+v", n, want)
	}
	stop()

	// The disk wakes up in another instance.
	aws.Switch(fakeaws.Instance{ID: "i-0000000000000000b"})
	s, stop = m.run(cfg, impatient(paused))
	if n = settle(t, s, settled); n.ID != "i-0000000000000000b" || s.StateHost() != n.ID {
		t.Errorf("node = %+v, state of %q", n, s.StateHost())
	}
	stop()
	aws.SetMode(fakeaws.Refusing)
	if n = m.boot(cfg); n.ID != "i-0000000000000000b" || n.Settled {
		t.Errorf("remembered: %+v", n)
	}

	// As before, but the firmware tells at once.
	clone := m.clone()
	clone.write(dmi+"product_uuid", uuid2)
	if n = clone.boot(cfg); n.ID != "" || n.Settled {
		t.Errorf("clone: %+v", n)
	}
}

func TestConditionIMDS(t *testing.T) {
	aws := fakeaws.ServeIMDS(t, fakeaws.Instance{})
	m := newMachine(t).ec2()
	cfg := DefaultConfig()
	cfg.IMDSEndpoint = aws.URL()
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	s, err := m.start(cfg)
	must(t, err)
	defer s.Close()
	s.health.Declare("imds", agent.SeverityError, 0)
	asked := make(chan struct{})
	s.pause = func(context.Context, time.Duration) bool { close(asked); return false }
	s.ask(t.Context(), nil)
	<-asked
	cond := m.health.Conditions()
	if len(cond) != 1 || cond[0].Name != "imds" || !strings.Contains(cond[0].Why, "AWS_EC2_METADATA_DISABLED") ||
		!strings.Contains(cond[0].Hint, "hop limit") {
		t.Errorf("conditions = %+v", cond)
	}
	t.Setenv("AWS_EC2_METADATA_DISABLED", "")
	s.imds = metadata{NewIMDS(cfg)}
	answer := make(chan instance, 1)
	s.ask(t.Context(), answer)
	if got := (<-answer).ID; got == "" || len(m.health.Conditions()) != 0 {
		t.Errorf("answer = %q, conditions = %+v", got, m.health.Conditions())
	}
}

func TestSilentServiceIsBounded(t *testing.T) {
	aws := fakeaws.ServeIMDS(t, fakeaws.Instance{})
	aws.SetMode(fakeaws.Silent)
	m := newMachine(t)
	cfg := DefaultConfig()
	cfg.IMDSEndpoint = aws.URL()
	ctx, cancel := context.WithTimeout(m.t.Context(), patient)
	defer cancel()
	if _, err := (metadata{NewIMDS(cfg)}).fetch(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("fetch = %v, context: %v, want an error by itself", err, ctx.Err())
	}
}

// Go exempts loopback addresses from HTTP_PROXY, so that a fake service cannot
// tell: look at the transport.
func TestNoProxyForMetadata(t *testing.T) {
	if metadataHTTP().GetTransport().Proxy != nil {
		t.Error("the metadata service is asked through a proxy")
	}
}

func TestSecondProcess(t *testing.T) {
	m := newMachine(t)
	s, err := m.start(DefaultConfig())
	must(t, err)
	defer s.Close()
	if _, err := m.start(DefaultConfig()); !errors.Is(err, journal.ErrLocked) {
		t.Errorf("second start = %v, want ErrLocked", err)
	}
}

func TestStateDirectoryMissing(t *testing.T) {
	m := newMachine(t)
	dir := filepath.Join(m.state, "later")
	m.state = dir
	s, stop := m.run(DefaultConfig())
	defer stop()
	id := s.Node()
	if !id.Settled || len(m.health.Conditions()) != 1 || m.health.Conditions()[0].Name != "state" {
		t.Errorf("node = %+v, conditions = %+v", id, m.health.Conditions())
	}
	must(t, os.Mkdir(dir, 0o700))
	m.write("proc/sys/kernel/hostname", "renamed") // meanwhile
	s.Refresh()
	n := settle(t, s, func(n agent.Node) bool { return n.Hostname == "renamed" })
	if n.ID != id.ID || len(m.health.Conditions()) != 0 {
		t.Errorf("node = %+v, want ID %s, conditions = %+v", n, id.ID, m.health.Conditions())
	}
}

func TestUnreadableStateIsNotSettled(t *testing.T) {
	m := newMachine(t)
	id := m.boot(DefaultConfig()).ID
	m.write("proc/sys/kernel/hostname", "renamed")
	lock := filepath.Join(m.state, "node.journal.lock")
	must(t, os.Remove(lock))
	must(t, os.Mkdir(lock, 0o700)) // the journal is there, but cannot be opened
	s, stop := m.run(DefaultConfig())
	defer stop()
	if n := s.Node(); n.Settled || s.StateHost() != "" {
		t.Errorf("node = %+v, want an unsettled one", n)
	}
	must(t, os.Remove(lock))
	s.Refresh()
	if n := settle(t, s, settled); n.ID != id {
		t.Errorf("ID = %s, want the remembered %s", n.ID, id)
	}
}

func TestDamagedState(t *testing.T) {
	m := newMachine(t)
	want := m.boot(DefaultConfig())
	must(t, os.WriteFile(filepath.Join(m.state, "node.journal"), []byte("?"), 0o600))
	if got := m.boot(DefaultConfig()); got != want {
		t.Errorf("node = %+v, want %+v", got, want)
	}
	j, _, err := journal.Open(filepath.Join(m.state, "node.journal"), journal.Options{Owner: "node"})
	must(t, err)
	must(t, j.Checkpoint([]byte(`{"identity":{"id":"No Label"}}`)))
	must(t, j.Close())
	if got := m.boot(DefaultConfig()); got != want {
		t.Errorf("node = %+v, want %+v", got, want)
	}
}
