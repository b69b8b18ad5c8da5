package dnsserver

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/berthd/berth/agent"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const zone = "svc.test."

func testEnv() agent.Env {
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	return agent.Env{Log: log, Health: agent.NewHealth(log)}
}

func thisHost() agent.Node {
	return agent.Node{ID: "h1", Settled: true, IPv4: netip.MustParseAddr("192.0.2.1")}
}

func addr(name, a string) agent.Record {
	r := agent.Record{Name: name, Type: agent.TypeA, TTL: 10, Addr: netip.MustParseAddr(a)}
	if r.Addr.Is6() {
		r.Type = agent.TypeAAAA
	}
	return r
}

func srv(name string, port uint16, target string) agent.Record {
	return agent.Record{Name: name, Type: agent.TypeSRV, TTL: 10, Priority: 1, Weight: 1, Port: port, Target: target}
}

func recordSet(records ...agent.Record) agent.RecordSet {
	return agent.NewRecordSet(zone, thisHost(), records, false)
}

// sample is a set with something of everything.
func sample() agent.RecordSet {
	return recordSet(
		srv("_calc._tcp.svc.test.", 32768, "h1.svc.test."),
		srv("_calc._tcp.svc.test.", 32769, "h1.svc.test."),
		srv("_calc._tcp.svc.test.", 32770, "h2.svc.test."),
		srv("_time._udp.svc.test.", 32771, "elsewhere.test."),
		addr("calc.svc.test.", "192.0.2.1"),
		addr("h1.svc.test.", "192.0.2.1"),
		addr("h1.svc.test.", "2001:db8::1"),
		addr("h2.svc.test.", "192.0.2.2"),
		addr("a.b.c.svc.test.", "192.0.2.3"),
	)
}

// newServer returns a server that does not run.
func newServer(t testing.TB, cfg Config) *Server {
	t.Helper()
	s, err := New(cfg, testEnv(), agent.NewStore())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// serving returns a server that does not run, with a set to answer from.
func serving(t testing.TB, set agent.RecordSet) *Server {
	t.Helper()
	s := newServer(t, Config{})
	s.publish(set, 1)
	if s.table.Load() == nil {
		t.Fatal("the set was not published")
	}
	return s
}

// running is a server on ephemeral ports of loopback addresses.
type running struct {
	*Server
	health  *agent.Health
	store   *agent.Store
	records *agent.Records
	stop    func() // ends Run, and may be called again
}

// run runs a server with this set until the test ends.
func run(t testing.TB, cfg Config, set agent.RecordSet) *running {
	t.Helper()
	env := testEnv()
	r := &running{health: env.Health, store: agent.NewStore(), records: new(agent.Records)}
	var err error
	if r.Server, err = New(cfg, env, r.store); err != nil {
		t.Fatal(err)
	}
	r.records.Publish(set)
	feed := r.records.Subscribe()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := r.Run(ctx, feed); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	r.stop = func() {
		cancel()
		<-ended
		feed.Close()
	}
	t.Cleanup(r.stop)
	await(t, "the first set to be served", func() bool {
		return r.Applied() > 0 && len(r.Listening()) == len(cfg.Listen)
	})
	return r
}

// publish makes set the desired one and waits until it is served.
func (r *running) apply(t testing.TB, set agent.RecordSet) {
	t.Helper()
	r.records.Publish(set)
	_, seq := r.records.Load()
	await(t, "a set to be served", func() bool { return r.Applied() >= seq })
}

// loopback is a configuration for tests: any port of one loopback address.
func loopback() Config { return Config{Listen: []netip.Addr{netip.MustParseAddr("127.0.0.1")}} }

// await waits until the condition holds.
func await(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// question returns a message that asks one question.
func question(name string, qtype uint16) *dns.Msg {
	return new(dns.Msg).SetQuestion(name, qtype)
}

// ask returns the server's reply to a message, nil when it drops it, without
// sockets.
func ask(t testing.TB, s *Server, m *dns.Msg, tr transport) *dns.Msg {
	t.Helper()
	wire, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return askWire(t, s, wire, tr)
}

func askWire(t testing.TB, s *Server, wire []byte, tr transport) *dns.Msg {
	t.Helper()
	out := make([]byte, maxTCP)
	if tr == overUDP {
		out = out[:maxUDP]
	}
	n, act := newResponder(1).respond(terms{table: s.table.Load(), transport: tr}, wire, out)
	if act == actDrop {
		return nil
	}
	if act == actForward {
		t.Fatal("forwards without being told to")
	}
	reply := new(dns.Msg)
	if err := reply.Unpack(out[:n]); err != nil {
		t.Fatalf("unpack %x: %v", out[:n], err)
	}
	return reply
}

// exchangeWith asks a running server.
func exchangeWith(t testing.TB, s *Server, network string, m *dns.Msg) *dns.Msg {
	t.Helper()
	c := &dns.Client{Net: network, Timeout: 10 * time.Second, UDPSize: 4096}
	reply, _, err := c.Exchange(m, s.Listening()[0].String())
	if err != nil {
		t.Fatalf("ask over %s: %v", network, err)
	}
	return reply
}

// texts returns records in the form of zone files, sorted, with single spaces.
func texts(rrs []dns.RR) []string {
	var out []string
	for _, rr := range rrs {
		if rr.Header().Rrtype == dns.TypeOPT {
			continue
		}
		h := rr.Header()
		data := rr.String()[len(h.String()):]
		out = append(out, fmt.Sprintf("%s %d %s %s", h.Name, h.Ttl, dns.TypeToString[h.Rrtype], data))
	}
	slices.Sort(out)
	return out
}

// toRecord turns an answer back into the record that it was made from.
func toRecord(rr dns.RR) agent.Record {
	h := rr.Header()
	r := agent.Record{Name: h.Name, TTL: h.Ttl}
	switch rr := rr.(type) {
	case *dns.A:
		r.Type = agent.TypeA
		r.Addr, _ = netip.AddrFromSlice(rr.A.To4())
	case *dns.AAAA:
		r.Type = agent.TypeAAAA
		r.Addr, _ = netip.AddrFromSlice(rr.AAAA)
	case *dns.SRV:
		r.Type = agent.TypeSRV
		r.Priority, r.Weight, r.Port, r.Target = rr.Priority, rr.Weight, rr.Port, rr.Target
	}
	return r
}

// newContext returns a context that a test ends itself, before it checks that
// nothing is left.
func newContext() (context.Context, context.CancelFunc) {
	return context.WithCancel(context.Background())
}
