package dnsserver

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/sinks/sinktest"
)

// TestConformance asks over TCP while the server runs; afterwards there is no
// one to ask, and what it would answer is looked at.
func TestConformance(t *testing.T) {
	sinktest.RecordSink(t, func(t *testing.T) sinktest.Fixture {
		s := newServer(t, loopback())
		return sinktest.Fixture{Sink: s, Held: func(ctx context.Context) ([]agent.Record, error) {
			return held(ctx, t, s)
		}}
	})
}

// held asks for every name and type of the suite.
func held(ctx context.Context, t *testing.T, s *Server) ([]agent.Record, error) {
	var conn *dns.Conn
	if at := s.Listening(); len(at) > 0 {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", at[0].String())
		if err != nil {
			return nil, err
		}
		defer c.Close()
		conn = &dns.Conn{Conn: c}
	}
	var records []agent.Record
	for _, name := range sinktest.Names() {
		for _, qtype := range []uint16{dns.TypeSRV, dns.TypeA, dns.TypeAAAA} {
			m := question(name, qtype)
			var reply *dns.Msg
			if conn != nil {
				if err := conn.WriteMsg(m); err != nil {
					return nil, err
				}
				var err error
				if reply, err = conn.ReadMsg(); err != nil {
					return nil, err
				}
			} else {
				reply = ask(t, s, m, overTCP)
			}
			for _, rr := range reply.Answer {
				records = append(records, toRecord(rr))
			}
		}
	}
	return records, nil
}

// TestServesBothTransports is the whole way: sockets, batches, framing.
func TestServesBothTransports(t *testing.T) {
	s := run(t, loopback(), sample())
	for _, network := range []string{"udp", "tcp"} {
		reply := exchangeWith(t, s.Server, network, question("_calc._tcp.svc.test.", dns.TypeSRV))
		want := []string{
			"_calc._tcp.svc.test. 10 SRV 1 1 32768 h1.svc.test.",
			"_calc._tcp.svc.test. 10 SRV 1 1 32769 h1.svc.test.",
			"_calc._tcp.svc.test. 10 SRV 1 1 32770 h2.svc.test.",
		}
		if got := texts(reply.Answer); !slices.Equal(got, want) {
			t.Errorf("%s: answer %q, want %q", network, got, want)
		}
		wantExtra := []string{
			"h1.svc.test. 10 A 192.0.2.1",
			"h1.svc.test. 10 AAAA 2001:db8::1",
			"h2.svc.test. 10 A 192.0.2.2",
		}
		if got := texts(reply.Extra); !slices.Equal(got, wantExtra) {
			t.Errorf("%s: additional %q, want %q", network, got, wantExtra)
		}
		if !reply.Authoritative || reply.RecursionAvailable || reply.Truncated || !reply.RecursionDesired {
			t.Errorf("%s: wrong flags: %+v", network, reply.MsgHdr)
		}
	}
}

// TestGoResolver resolves as a Go program does.
func TestGoResolver(t *testing.T) {
	s := run(t, loopback(), sample())
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, s.Listening()[0].String())
	}}
	_, srvs, err := r.LookupSRV(t.Context(), "calc", "tcp", "svc.test.")
	if err != nil || len(srvs) != 3 {
		t.Errorf("LookupSRV: %d records, error %v, want 3", len(srvs), err)
	}
	addrs, err := r.LookupHost(t.Context(), "h1.svc.test.")
	slices.Sort(addrs)
	if want := []string{"192.0.2.1", "2001:db8::1"}; err != nil || !slices.Equal(addrs, want) {
		t.Errorf("LookupHost: %v, error %v, want %v", addrs, err, want)
	}
	_, err = r.LookupHost(t.Context(), "nobody.svc.test.")
	if e, ok := err.(*net.DNSError); !ok || !e.IsNotFound {
		t.Errorf("LookupHost of a name that does not exist: %v, want not found", err)
	}
}

// TestPitfall_discovery23_NegativeCaching: a name that was asked for too early is
// remembered as missing for five seconds at most, and served at once when it
// comes.
func TestPitfall_discovery23_NegativeCaching(t *testing.T) {
	s := run(t, loopback(), recordSet())
	m := question("_calc._tcp.svc.test.", dns.TypeSRV)
	reply := exchangeWith(t, s.Server, "udp", m)
	if reply.Rcode != dns.RcodeNameError || len(reply.Ns) != 1 {
		t.Fatalf("before: %v, want NXDOMAIN with SOA", reply)
	}
	soa := reply.Ns[0].(*dns.SOA)
	if ttl := min(soa.Hdr.Ttl, soa.Minttl); ttl > 5 {
		t.Errorf("a missing name is remembered for %d s, want at most 5", ttl)
	}
	s.apply(t, sample())
	if reply = exchangeWith(t, s.Server, "udp", m); len(reply.Answer) != 3 {
		t.Errorf("after: %v, want three answers", reply)
	}
	later := exchangeWith(t, s.Server, "udp", question("svc.test.", dns.TypeSOA)).Answer[0].(*dns.SOA)
	if later.Serial <= soa.Serial {
		t.Errorf("serial is %d after %d, want a greater one", later.Serial, soa.Serial)
	}
}

// TestPitfall_discovery24_LargeSets: more targets than fit into a datagram are cut
// with TC, and come whole over TCP or with EDNS; addresses of both families are
// additional.
func TestPitfall_discovery24_LargeSets(t *testing.T) {
	var records []agent.Record
	for i := range 60 {
		target := fmt.Sprintf("host%02d.svc.test.", i%12)
		records = append(records,
			srv("_big._tcp.svc.test.", uint16(1000+i), target),
			addr(target, fmt.Sprintf("192.0.2.%d", i%12)),
			addr(target, fmt.Sprintf("2001:db8::%d", i%12)),
		)
	}
	s := run(t, loopback(), recordSet(records...))
	m := question("_big._tcp.svc.test.", dns.TypeSRV)
	udp := exchangeWith(t, s.Server, "udp", m)
	if !udp.Truncated || len(udp.Answer) == 0 || len(udp.Answer) >= 60 || len(udp.Extra) != 0 {
		t.Errorf("udp: TC %v, %d answers, %d additional; want TC with some answers", udp.Truncated, len(udp.Answer), len(udp.Extra))
	}
	edns := exchangeWith(t, s.Server, "udp", m.Copy().SetEdns0(4096, false))
	if !edns.Truncated || len(edns.Answer) <= len(udp.Answer) {
		t.Errorf("edns: TC %v, %d answers; want TC with more than %d", edns.Truncated, len(edns.Answer), len(udp.Answer))
	}
	tcp := exchangeWith(t, s.Server, "tcp", m)
	if tcp.Truncated || len(tcp.Answer) != 60 || len(tcp.Extra) != 24 {
		t.Errorf("tcp: TC %v, %d answers, %d additional; want 60 and 24", tcp.Truncated, len(tcp.Answer), len(tcp.Extra))
	}
}

// TestPitfall_discovery26_HostChanges: a host that gets another name or address
// is served under the new one at once, and no more under the old one.
func TestPitfall_discovery26_HostChanges(t *testing.T) {
	s := run(t, loopback(), sample())
	other := agent.NewRecordSet(zone, agent.Node{ID: "h9"}, []agent.Record{
		srv("_calc._tcp.svc.test.", 32768, "h9.svc.test."),
		addr("h9.svc.test.", "192.0.2.9"),
	}, false)
	s.apply(t, other)
	reply := exchangeWith(t, s.Server, "udp", question("_calc._tcp.svc.test.", dns.TypeSRV))
	if got := strings.Join(append(texts(reply.Answer), texts(reply.Extra)...), "\n"); got !=
		"_calc._tcp.svc.test. 10 SRV 1 1 32768 h9.svc.test.\nh9.svc.test. 10 A 192.0.2.9" {
		t.Errorf("got %s", got)
	}
	if reply := exchangeWith(t, s.Server, "udp", question("h1.svc.test.", dns.TypeA)); reply.Rcode != dns.RcodeNameError {
		t.Errorf("the old name: %v, want NXDOMAIN", reply)
	}
	soa := exchangeWith(t, s.Server, "udp", question("svc.test.", dns.TypeSOA)).Answer[0].(*dns.SOA)
	if soa.Ns != "h9.svc.test." {
		t.Errorf("the name server is %s, want h9.svc.test.", soa.Ns)
	}
}

// TestManyPublications: the set that Applied tells of is the one that is served.
func TestManyPublications(t *testing.T) {
	s := run(t, loopback(), recordSet())
	client := &dns.Client{Timeout: 10 * time.Second}
	conn, err := client.Dial(s.Listening()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for i := range 100 {
		s.apply(t, recordSet(srv("_calc._tcp.svc.test.", uint16(i), "h1.svc.test.")))
		reply, _, err := client.ExchangeWithConn(question("_calc._tcp.svc.test.", dns.TypeSRV), conn)
		if err != nil {
			t.Fatal(err)
		}
		if got := reply.Answer[0].(*dns.SRV).Port; got != uint16(i) {
			t.Fatalf("publication %d: port %d is served", i, got)
		}
	}
}
