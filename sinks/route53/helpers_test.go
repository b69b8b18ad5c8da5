package route53

import (
	"context"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/test/fakeaws"
)

func TestMain(m *testing.M) {
	for k, v := range map[string]string{
		"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "", "AWS_PROFILE": "",
		"AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull, "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_CA_BUNDLE": "", "AWS_REGION": "",
	} {
		os.Setenv(k, v)
	}
	if os.Getenv(childVariable) != "" {
		crashingChild()
	}
	goleak.VerifyTestMain(m)
}

const domain = "svc.test."

// host is a NodeSource that a test can change.
type host struct {
	mu      sync.Mutex
	node    agent.Node
	state   string
	changed chan struct{}
}

func newHost(id string) *host {
	return &host{node: nodeOf(id), state: id, changed: make(chan struct{})}
}

func nodeOf(id string) agent.Node {
	return agent.Node{ID: id, Settled: true, Account: "123456789012", Region: "eu-central-1", IPv4: netip.MustParseAddr("192.0.2.1")}
}

func (h *host) Node() agent.Node {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.node
}

func (h *host) StateHost() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.state
}

func (h *host) Changed() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.changed
}

func (h *host) setState(s string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.state = s
	close(h.changed)
	h.changed = make(chan struct{})
}

// fast is a timing for tests. Leftovers are not looked for by themselves.
func fast() timing {
	t := defaultTiming()
	t.coalesce, t.firstRetry, t.lastRetry, t.recovery = 2*time.Millisecond, 4*time.Millisecond, 50*time.Millisecond, 50*time.Millisecond
	t.firstHold, t.lastHold, t.firstDenied, t.lastDenied = 30*time.Millisecond, 60*time.Millisecond, 30*time.Millisecond, 60*time.Millisecond
	t.adoptWithin = 1000 * time.Hour
	return t
}

// rig is a sink on a zone of a fake Route 53.
type rig struct {
	t       *testing.T
	fake    *fakeaws.Route53
	zone    string
	cfg     Config
	timing  timing
	host    *host
	dir     string
	health  *agent.Health
	sink    *Sink
	records *agent.Records
	stop    func()
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, fake: fakeaws.ServeRoute53(t), host: newHost("host1"), dir: t.TempDir(), timing: fast(), stop: func() {}}
	r.zone = r.fake.AddZone(fakeaws.Zone{Name: domain})
	r.cfg = DefaultConfig()
	r.cfg.Enabled, r.cfg.ZoneID, r.cfg.Endpoint = true, r.zone, r.fake.URL()
	r.cfg.CallsPerSecond, r.cfg.ChangesPerSecond = 1e4, 1e6
	t.Cleanup(func() { r.stop() })
	return r
}

// open makes a sink that does not run.
func (r *rig) open() *Sink {
	r.t.Helper()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	r.health = agent.NewHealth(log)
	s, err := New(r.cfg, agent.Env{Log: log, Health: r.health, Node: r.host, StateDir: r.dir})
	if err != nil {
		r.t.Fatal(err)
	}
	s.timing = r.timing
	r.sink = s
	return s
}

// start runs a new sink, with nothing wanted yet.
func (r *rig) start() *rig {
	r.t.Helper()
	r.stop()
	s := r.open()
	r.records = new(agent.Records)
	ctx, cancel := context.WithCancel(context.Background())
	feed := r.records.Subscribe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer feed.Close()
		_ = s.Run(ctx, feed)
	}()
	r.stop = sync.OnceFunc(func() { cancel(); <-done })
	return r
}

func (r *rig) set(records ...agent.Record) agent.RecordSet {
	return agent.NewRecordSet(domain, r.host.Node(), records, false)
}

// want publishes a set and returns its number.
func (r *rig) want(records ...agent.Record) uint64 {
	r.records.Publish(r.set(records...))
	_, seq := r.records.Load()
	return seq
}

// apply publishes a set and waits until it is applied.
func (r *rig) apply(records ...agent.Record) {
	r.t.Helper()
	seq := r.want(records...)
	r.await("the set to be applied", func() bool { return r.sink.Applied() >= seq })
}

func (r *rig) await(what string, condition func() bool) {
	r.t.Helper()
	for end := time.Now().Add(10 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("waited in vain for %s; conditions: %+v; zone:\n%s", what, r.health.Conditions(), strings.Join(r.lines(), "\n"))
		}
	}
}

// awaitCondition waits for a condition whose text has this part; "" waits until
// it has passed.
func (r *rig) awaitCondition(name, part string) {
	r.t.Helper()
	r.await("condition "+name+": "+part, func() bool {
		why := r.condition(name)
		return part == "" && why == "" || part != "" && strings.Contains(why, part)
	})
}

func (r *rig) condition(name string) string {
	for _, c := range r.health.Conditions() {
		if c.Name == name {
			return c.Why
		}
	}
	return ""
}

func (r *rig) lines() []string { return linesOf(r.fake.Sets(r.zone)) }

func linesOf(sets []fakeaws.RRSet) []string {
	var out []string
	for _, s := range sets {
		policy := "simple"
		switch {
		case s.MultiValue:
			policy = "multivalue"
		case s.Weighted:
			policy = "weighted " + strconv.FormatInt(s.Weight, 10)
		}
		id := strings.TrimPrefix(s.SetIdentifier, "berth/v1/123456789012/eu-central-1/default/")
		out = append(out, strings.Join([]string{s.Name, s.Type, id, policy, strconv.FormatInt(s.TTL, 10), strings.Join(s.Values, ",")}, "|"))
	}
	return out
}

// holds checks what the zone holds, one line for each set.
func (r *rig) holds(want ...string) {
	r.t.Helper()
	if got := r.lines(); !slices.Equal(got, want) {
		r.t.Errorf("zone holds:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func srv(name string, port uint16) agent.Record {
	return agent.Record{Name: name + "." + domain, Type: agent.TypeSRV, TTL: 10, Priority: 1, Weight: 1, Port: port, Target: "host1." + domain}
}

func addr(name, a string) agent.Record {
	r := agent.Record{Name: name + "." + domain, Type: agent.TypeA, TTL: 10, Addr: netip.MustParseAddr(a)}
	if r.Addr.Is6() {
		r.Type = agent.TypeAAAA
	}
	return r
}

// foreign puts the sets of others into the zone: of hosts whose names look like
// this one's, of other fleets, and of nobody that parses.
func (r *rig) foreign(name string) []fakeaws.RRSet {
	var sets []fakeaws.RRSet
	for _, id := range []string{
		"berth/v1/123456789012/eu-central-1/default/host10", "berth/v1/123456789012/eu-central-1/default/host",
		"berth/v1/123456789012/eu-central-1/other/host1", "berth/v1/999999999999/eu-central-1/default/host1",
		"berth/v1/123456789012/eu-central-1/default/host1/x", "host1", "berth/v2/123456789012/eu-central-1/default/host1", "x:berth",
	} {
		s := fakeaws.RRSet{Name: name + "." + domain, Type: "SRV", SetIdentifier: id, MultiValue: true, TTL: 10, Values: []string{"1 1 1 elsewhere.test."}}
		r.fake.Put(r.zone, s)
		sets = append(sets, s)
	}
	return sets
}

// checkForeign checks that nobody wrote the sets of others.
func (r *rig) checkForeign(sets []fakeaws.RRSet) {
	r.t.Helper()
	held := linesOf(r.fake.Sets(r.zone))
	for _, s := range sets {
		if n := r.fake.Writes(r.zone)[s.SetIdentifier]; n != 0 {
			r.t.Errorf("%d changes of a set of %s", n, s.SetIdentifier)
		}
		if line := linesOf([]fakeaws.RRSet{s})[0]; !slices.Contains(held, line) {
			r.t.Errorf("gone: %s", line)
		}
	}
}
