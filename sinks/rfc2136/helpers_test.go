package rfc2136

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/config"
	"github.com/berthd/berth/sinks/sinktest"
	"github.com/berthd/berth/test/dnsservers"
)

const (
	zone     = sinktest.Zone
	patience = 2 * time.Minute
)

// servers are the kinds that everything is tested with.
var servers = []struct {
	name  string
	start func(t testing.TB) *dnsservers.Server
}{
	{"BIND", func(t testing.TB) *dnsservers.Server { return dnsservers.BIND(t, zone) }},
	{"Knot", func(t testing.TB) *dnsservers.Server {
		return dnsservers.Knot(t, zone, "svc0", "svc1", "svc2", "svc3", "svc4", "svc5")
	}},
}

// each runs f with each kind of server.
func each(t *testing.T, f func(t *testing.T, s *dnsservers.Server)) {
	for _, kind := range servers {
		t.Run(kind.name, func(t *testing.T) { f(t, kind.start(t)) })
	}
}

// identity is a NodeSource whose answer the test sets before Run.
type identity struct{ host string }

func (i identity) Node() agent.Node         { return node(i.host) }
func (i identity) Changed() <-chan struct{} { return nil }
func (i identity) StateHost() string        { return i.host }

func node(host string) agent.Node {
	n := sinktest.Node()
	n.ID = host
	return n
}

// host is berth on one host: a sink and what it needs.
type host struct {
	t       *testing.T
	name    string
	cfg     Config
	env     agent.Env
	records *agent.Records
	sink    *Sink
	prepare func(*Sink) // what each new sink gets
	twinned bool        // another host has the same identity

	cancel context.CancelFunc
	ended  chan error
}

// newHost returns a host that sends its updates to these addresses, with its key.
func newHost(t *testing.T, name string, s *dnsservers.Server, addrs ...netip.AddrPort) *host {
	t.Helper()
	if len(addrs) == 0 {
		addrs = []netip.AddrPort{s.Addr()}
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	h := &host{
		t: t, name: name, prepare: func(*Sink) {},
		cfg: configFor(t, s.Key(name), addrs...),
		env: agent.Env{
			Log: log, Health: agent.NewHealth(log), Node: identity{name}, StateDir: t.TempDir(),
		},
	}
	t.Cleanup(h.stop)
	return h
}

// configFor returns a config with this key, in a file.
func configFor(t testing.TB, key dnsservers.Key, addrs ...netip.AddrPort) Config {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Enabled = true
	for _, a := range addrs {
		cfg.Servers = append(cfg.Servers, a.String())
	}
	cfg.Key = key.Name
	cfg.Secret = secret(t, key.Secret)
	return cfg
}

func secret(t testing.TB, value string) config.Secret {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(file, []byte(value+"\n"), 0o600))
	var s config.Secret
	must(t, s.UnmarshalText([]byte("file:"+file)))
	return s
}

// open makes a new sink with the host's config and state.
func (h *host) open() *Sink {
	h.t.Helper()
	s, err := New(h.cfg, h.env)
	must(h.t, err)
	// Tests want to see at once what heals by itself elsewhere.
	s.health.Declare(condUpdate, agent.SeverityError, 0)
	s.health.Declare(condServer, agent.SeverityWarning, 0)
	s.health.Declare(condIdentity, agent.SeverityWarning, 0)
	h.t.Cleanup(func() {
		if n := s.meters.snapshot()[string(denied)]; n > 0 && !h.twinned {
			h.t.Errorf("%s is alone, but %d messages were denied", h.name, n)
		}
	})
	s.pace = 20 * time.Millisecond // most tests have many sets, one after the other
	h.prepare(s)
	return s
}

// start runs a new sink; sequence numbers begin anew, as in a new life of berth.
func (h *host) start() {
	h.t.Helper()
	h.sink, h.records = h.open(), new(agent.Records)
	ctx, cancel := context.WithCancel(context.Background())
	feed := h.records.Subscribe()
	ended := make(chan error, 1)
	h.cancel, h.ended = cancel, ended
	sink := h.sink
	go func() {
		defer feed.Close()
		ended <- sink.Run(ctx, feed)
	}()
}

// stop ends Run, if it runs.
func (h *host) stop() {
	if h.cancel == nil {
		return
	}
	h.cancel()
	h.cancel = nil
	select {
	case err := <-h.ended:
		if err != nil {
			h.t.Errorf("Run returned %v", err)
		}
	case <-time.After(patience):
		h.t.Fatal("Run does not end")
	}
}

// want publishes a complete set and returns its number.
func (h *host) want(records ...agent.Record) uint64 { return h.publish(false, records...) }

func (h *host) publish(partial bool, records ...agent.Record) uint64 {
	h.records.Publish(agent.NewRecordSet(zone, node(h.name), records, partial))
	_, seq := h.records.Load()
	return seq
}

// apply publishes a set and waits until the zone holds it.
func (h *host) apply(records ...agent.Record) {
	h.t.Helper()
	h.await(h.want(records...))
}

func (h *host) await(seq uint64) {
	h.t.Helper()
	eventually(h.t, func() error {
		if got := h.sink.Applied(); got < seq {
			return fmt.Errorf("applied is %d, want %d; %v", got, seq, h.env.Health.Err(Name))
		}
		return nil
	})
}

// condition waits until the named condition says all of the texts in its why or
// its hint.
func (h *host) condition(name string, texts ...string) {
	h.t.Helper()
	eventually(h.t, func() error {
		all := h.env.Health.Conditions()
		for _, c := range all {
			text := c.Why + " | " + c.Hint
			if c.Name == name && !slices.ContainsFunc(texts, func(want string) bool { return !strings.Contains(text, want) }) {
				return nil
			}
		}
		return fmt.Errorf("conditions are %+v, want %s with %q", all, name, texts)
	})
}

// healthy waits until there is no condition.
func (h *host) healthy() {
	h.t.Helper()
	eventually(h.t, func() error { return h.env.Health.Err(Name) })
}

// eventually waits until check returns nil.
func eventually(t testing.TB, check func() error) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); ; <-tick.C {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// held returns the zone's records, sorted.
func held(ctx context.Context, s *dnsservers.Server) ([]agent.Record, error) {
	all, err := s.Records(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]agent.Record, len(all))
	for i, rr := range all {
		r := agent.Record{Name: rr.Header().Name, Type: agent.RecordType(dns.TypeToString[rr.Header().Rrtype]), TTL: rr.Header().Ttl}
		switch rr := rr.(type) {
		case *dns.SRV:
			r.Priority, r.Weight, r.Port, r.Target = rr.Priority, rr.Weight, rr.Port, rr.Target
		case *dns.A:
			r.Addr, _ = netip.AddrFromSlice(rr.A.To4())
		case *dns.AAAA:
			r.Addr, _ = netip.AddrFromSlice(rr.AAAA)
		}
		out[i] = r
	}
	slices.SortFunc(out, agent.Record.Compare)
	return out, nil
}

// holds compares the zone with these records.
func holds(t testing.TB, s *dnsservers.Server, want ...agent.Record) {
	t.Helper()
	got, err := held(t.Context(), s)
	must(t, err)
	slices.SortFunc(want, agent.Record.Compare)
	if !slices.Equal(got, want) {
		t.Errorf("zone holds\n  %v\nwant\n  %v", got, want)
	}
}

// srv returns a record of the service calc on a host.
func srv(host string, port uint16) agent.Record {
	return agent.Record{
		Name: "_calc._tcp." + zone, Type: agent.TypeSRV, TTL: 10,
		Priority: 1, Weight: 1, Port: port, Target: host + "." + zone,
	}
}

func address(name, addr string) agent.Record {
	return agent.Record{Name: name + "." + zone, Type: agent.TypeA, TTL: 10, Addr: netip.MustParseAddr(addr)}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
