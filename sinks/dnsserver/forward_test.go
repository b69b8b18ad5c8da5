package dnsserver

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/berthd/berth/agent"
)

// upstream runs a resolver on a loopback address, over UDP and TCP, until the
// test ends.
func upstream(t *testing.T, handle dns.HandlerFunc) netip.AddrPort {
	t.Helper()
	var at netip.AddrPort
	var l net.Listener
	var pc net.PacketConn
	await(t, "a port that is free for both", func() bool {
		var err error
		if pc, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		at = pc.LocalAddr().(*net.UDPAddr).AddrPort()
		if l, err = net.Listen("tcp", at.String()); err != nil {
			pc.Close()
		}
		return err == nil
	})
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: handle}, {Listener: l, Handler: handle}} {
		started, ended := make(chan struct{}), make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() {
			defer close(ended)
			s.ActivateAndServe()
		}()
		<-started
		t.Cleanup(func() {
			s.Shutdown()
			<-ended
		})
	}
	return at
}

// answer returns a handler that answers with these records of zone files.
func answer(records ...string) dns.HandlerFunc {
	return func(w dns.ResponseWriter, q *dns.Msg) {
		reply := new(dns.Msg).SetReply(q)
		reply.RecursionAvailable = true
		for _, r := range records {
			rr, err := dns.NewRR(r)
			if err != nil {
				panic(err)
			}
			reply.Answer = append(reply.Answer, rr)
		}
		if q.IsEdns0() != nil {
			reply.SetEdns0(1232, q.IsEdns0().Do())
		}
		w.WriteMsg(reply)
	}
}

// rcode returns a handler that answers with this code.
func rcode(code int) dns.HandlerFunc {
	return func(w dns.ResponseWriter, q *dns.Msg) { w.WriteMsg(new(dns.Msg).SetRcode(q, code)) }
}

func forwarding(ups ...netip.AddrPort) Config {
	c := loopback()
	c.Forward, c.Upstreams = true, ups
	return c
}

func TestForwards(t *testing.T) {
	var seen atomic.Pointer[dns.Msg]
	up := upstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		seen.Store(q.Copy())
		answer("example.com. 77 IN A 198.51.100.7")(w, q)
	})
	s := run(t, forwarding(up), sample())
	for _, network := range []string{"udp", "tcp"} {
		m := question("ExAmple.com.", dns.TypeA).SetEdns0(4096, true)
		m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0123456789abcdef"}}
		reply := exchangeWith(t, s.Server, network, m)
		if got := texts(reply.Answer); !slices.Equal(got, []string{"example.com. 77 A 198.51.100.7"}) {
			t.Errorf("%s: answer %q", network, got)
		}
		if !reply.RecursionAvailable || reply.Question[0].Name != "ExAmple.com." || !reply.RecursionDesired {
			t.Errorf("%s: %v", network, reply)
		}
		q := seen.Load()
		if opt := q.IsEdns0(); opt == nil || !opt.Do() || len(opt.Option) != 0 || opt.UDPSize() != maxUDP {
			t.Errorf("%s: upstream was asked with %v, want DO, no option, size %d", network, q, maxUDP)
		}
	}
	// The zone is answered here, with RA as forwarding is on.
	reply := exchangeWith(t, s.Server, "udp", question("calc.svc.test.", dns.TypeA))
	if len(reply.Answer) != 1 || !reply.RecursionAvailable || !reply.Authoritative {
		t.Errorf("own name: %v", reply)
	}
	if reply := exchangeWith(t, s.Server, "udp", question("nobody.svc.test.", dns.TypeA)); reply.Rcode != dns.RcodeNameError {
		t.Errorf("own missing name: %v", reply)
	}
	await(t, "the counter", func() bool { return s.meters.forwarded.Load() == 2 })
}

// TestStrangersAreRefused: only bridges and the host itself are served.
func TestStrangersAreRefused(t *testing.T) {
	snap := bridges("172.20.0.1")
	snap.Networks = append(snap.Networks, agent.Network{Driver: "overlay", Subnets: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	c := newClients(snap.Networks)
	own, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range own {
		if addr := netip.MustParsePrefix(a.String()).Addr(); !c.trust(addr) {
			t.Errorf("own address %s is a stranger", addr)
		}
	}
	for a, want := range map[string]bool{
		"127.0.0.1": true, "::1": true, "::ffff:127.0.0.1": true, "172.20.0.9": true, "::ffff:172.20.0.9": true,
		"172.20.1.9": false, "10.1.2.3": false, "203.0.113.9": false, "2001:db8:9::9": false,
	} {
		if got := c.trust(netip.MustParseAddr(a)); got != want {
			t.Errorf("trust(%s) is %v, want %v", a, got, want)
		}
	}
	s := serving(t, sample())
	reply := ask(t, s, question("example.com.", dns.TypeA), overUDP) // not trusted
	if reply.Rcode != dns.RcodeRefused || reply.RecursionAvailable {
		t.Errorf("stranger: %v, want REFUSED", reply)
	}
}

// TestForwardTriesTheNext: dead, failing and lying upstreams delay an answer but
// do not spoil it, and the one that answers is remembered.
func TestForwardTriesTheNext(t *testing.T) {
	silent, release := takePort(t, "udp", "127.0.0.1:0")
	defer release()
	closed, releaseNow := takePort(t, "udp", "127.0.0.1:0")
	releaseNow()
	failing := upstream(t, rcode(dns.RcodeServerFailure))
	good := upstream(t, answer("example.com. 77 IN A 198.51.100.7"))
	s := newServer(t, forwarding(silent, closed, failing, good))
	s.forwarder.timeout = 500 * time.Millisecond
	stop := start(t, s, sample())
	defer stop()
	await(t, "the server", func() bool { return s.Applied() > 0 && len(s.Listening()) == 1 })
	if reply := exchangeWith(t, s, "udp", question("example.com.", dns.TypeA)); len(reply.Answer) != 1 {
		t.Fatalf("got %v", reply)
	}
	if list, err := s.forwarder.candidates(); err != nil || list[0] != good || len(list) != 4 {
		t.Errorf("next time %v, error %v; want %s first", list, err, good)
	}
}

// TestForwardAllFail: SERVFAIL, and a condition that passes with the next answer.
func TestForwardAllFail(t *testing.T) {
	silent, release := takePort(t, "udp", "127.0.0.1:0")
	defer release()
	env := testEnv()
	s, err := New(forwarding(silent), env, agent.NewStore())
	if err != nil {
		t.Fatal(err)
	}
	s.forwarder.timeout = 200 * time.Millisecond
	var upstreams atomic.Pointer[[]netip.AddrPort]
	upstreams.Store(&[]netip.AddrPort{silent})
	s.forwarder.upstreams = func() ([]netip.AddrPort, error) { return *upstreams.Load(), nil }
	stop := start(t, s, sample())
	defer stop()
	await(t, "the server", func() bool { return s.Applied() > 0 && len(s.Listening()) == 1 })
	for _, network := range []string{"udp", "tcp"} {
		if reply := exchangeWith(t, s, network, question("example.com.", dns.TypeA)); reply.Rcode != dns.RcodeServerFailure {
			t.Errorf("%s: %v, want SERVFAIL", network, reply)
		}
	}
	if err := env.Health.Err(Name); err == nil || !strings.Contains(err.Error(), silent.String()) {
		t.Errorf("condition %v, want one about %s", err, silent)
	}
	good := upstream(t, rcode(dns.RcodeNameError))
	upstreams.Store(&[]netip.AddrPort{good})
	if reply := askUpstream(t, s, "example.com."); reply.Rcode != dns.RcodeNameError {
		t.Errorf("got %v, want NXDOMAIN", reply)
	}
	if err := env.Health.Err(Name); err != nil {
		t.Errorf("condition stays: %v", err)
	}
}

// askUpstream forwards a question without sockets of the client.
func askUpstream(t *testing.T, s *Server, name string) *dns.Msg {
	t.Helper()
	wire, _ := question(name, dns.TypeA).Pack()
	reply := new(dns.Msg)
	if err := reply.Unpack(s.forward(t.Context(), terms{table: s.table.Load(), forward: true}, wire)); err != nil {
		t.Fatal(err)
	}
	return reply
}

// TestForwardPassesOnFailures: what all upstreams say is the answer.
func TestForwardPassesOnFailures(t *testing.T) {
	s := run(t, forwarding(upstream(t, rcode(dns.RcodeRefused))), sample())
	if reply := exchangeWith(t, s.Server, "udp", question("example.com.", dns.TypeA)); reply.Rcode != dns.RcodeRefused {
		t.Errorf("got %v, want REFUSED", reply)
	}
	if err := s.health.Err(Name); err != nil {
		t.Errorf("condition %v, but the upstream answers", err)
	}
}

// TestForwardTruncated: a large answer is fetched over TCP, and cut for the
// client as its own size demands.
func TestForwardTruncated(t *testing.T) {
	var records []string
	for i := range 100 {
		records = append(records, fmt.Sprintf("example.com. 77 IN A 198.51.100.%d", i))
	}
	up := upstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
			reply := new(dns.Msg).SetReply(q)
			reply.Truncated = true
			w.WriteMsg(reply)
			return
		}
		answer(records...)(w, q)
	})
	s := run(t, forwarding(up), sample())
	m := question("example.com.", dns.TypeA)
	if reply := exchangeWith(t, s.Server, "udp", m); !reply.Truncated || len(reply.Answer) != 0 {
		t.Errorf("udp: TC %v, %d answers; want TC and none", reply.Truncated, len(reply.Answer))
	}
	if reply := exchangeWith(t, s.Server, "tcp", m); reply.Truncated || len(reply.Answer) != 100 {
		t.Errorf("tcp: TC %v, %d answers; want 100", reply.Truncated, len(reply.Answer))
	}
}

// TestForwardIgnoresForgeries: replies with another ID or to another question are
// passed over.
func TestForwardIgnoresForgeries(t *testing.T) {
	up := upstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		forged := q.Copy()
		forged.Id++
		answer("example.com. 77 IN A 203.0.113.66")(w, forged)
		other := q.Copy()
		other.Question[0].Name = "other.com."
		answer("other.com. 77 IN A 203.0.113.66")(w, other)
		q.Question[0].Name = strings.ToUpper(q.Question[0].Name)
		answer("example.com. 77 IN A 198.51.100.7")(w, q)
	})
	s := run(t, forwarding(up), sample())
	reply := exchangeWith(t, s.Server, "udp", question("example.com.", dns.TypeA))
	if got := texts(reply.Answer); len(got) != 1 || !strings.HasSuffix(got[0], "198.51.100.7") || reply.Question[0].Name != "example.com." {
		t.Errorf("got %v", reply)
	}
}

// TestForwardMisses: names of the zone that are not on this host are asked for
// elsewhere, and are not remembered as missing for longer than our own.
func TestForwardMisses(t *testing.T) {
	up := upstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		if q.Question[0].Name == "fleet.svc.test." {
			answer("fleet.svc.test. 77 IN A 198.51.100.7")(w, q)
			return
		}
		reply := new(dns.Msg).SetRcode(q, dns.RcodeNameError)
		rr, _ := dns.NewRR("svc.test. 900 IN SOA ns.test. host.test. 1 7200 900 1209600 86400")
		reply.Ns = []dns.RR{rr}
		w.WriteMsg(reply)
	})
	cfg := forwarding(up)
	cfg.ForwardMisses = true
	s := run(t, cfg, sample())
	if reply := exchangeWith(t, s.Server, "udp", question("fleet.svc.test.", dns.TypeA)); len(reply.Answer) != 1 {
		t.Errorf("fleet: %v", reply)
	}
	reply := exchangeWith(t, s.Server, "udp", question("nobody.svc.test.", dns.TypeA))
	if soa := reply.Ns[0].(*dns.SOA); reply.Rcode != dns.RcodeNameError || soa.Hdr.Ttl > 5 || soa.Minttl > 5 {
		t.Errorf("nobody: %v, want NXDOMAIN for five seconds", reply)
	}
	if reply := exchangeWith(t, s.Server, "udp", question("calc.svc.test.", dns.TypeAAAA)); len(reply.Ns) != 1 || s.meters.forwarded.Load() != 2 {
		t.Errorf("a name of this host was forwarded: %v", reply)
	}
}

// TestForwardBound: questions over the limit fail at once.
func TestForwardBound(t *testing.T) {
	silent, release := takePort(t, "udp", "127.0.0.1:0")
	defer release()
	s := newServer(t, forwarding(silent))
	s.forwarder.slots = make(chan struct{}, 1)
	s.forwarder.admit() // somebody's question that takes long
	stop := start(t, s, sample())
	defer stop()
	await(t, "the server", func() bool { return s.Applied() > 0 && len(s.Listening()) == 1 })
	for i, network := range []string{"udp", "tcp"} {
		if reply := exchangeWith(t, s, network, question("example.com.", dns.TypeA)); reply.Rcode != dns.RcodeServerFailure {
			t.Errorf("%s: %v, want SERVFAIL", network, reply)
		}
		if got := s.meters.overloaded.Load(); got != uint64(i+1) {
			t.Errorf("%d questions counted, want %d", got, i+1)
		}
	}
}

// TestForwardEndsWithRun: questions under way do not hold up the end.
func TestForwardEndsWithRun(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	s := newServer(t, forwarding(conn.LocalAddr().(*net.UDPAddr).AddrPort()))
	s.forwarder.timeout = time.Hour
	stop := start(t, s, sample())
	await(t, "the server", func() bool { return s.Applied() > 0 && len(s.Listening()) == 1 })
	client, err := net.Dial("udp", s.Listening()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	wire, _ := question("example.com.", dns.TypeA).Pack()
	client.Write(wire)
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, _, err := conn.ReadFrom(make([]byte, 512)); err != nil { // it is under way
		t.Fatal(err)
	}
	stop()
}

// TestNeverForwardsToItself: a host whose resolver is this server has no other.
func TestNeverForwardsToItself(t *testing.T) {
	s := run(t, forwarding(netip.MustParseAddrPort("127.0.0.1:1")), sample())
	self := s.Listening()[0]
	s.forwarder.upstreams = func() ([]netip.AddrPort, error) { return []netip.AddrPort{self}, nil }
	if list, err := s.forwarder.candidates(); err == nil {
		t.Errorf("would ask %v", list)
	}
	if reply := askUpstream(t, s.Server, "example.com."); reply.Rcode != dns.RcodeServerFailure {
		t.Errorf("got %v, want SERVFAIL", reply)
	}
}

func TestResolvConf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c := &resolvConf{path: path}
	if _, err := c.servers(); err == nil {
		t.Error("a missing file is no error")
	}
	write("# comment\nsearch test\nnameserver 10.0.0.2\n  nameserver\tfd00::2 \nnameserver nonsense\nnameserver\noptions ndots:1\n")
	c.checked = time.Time{}
	want := []netip.AddrPort{netip.MustParseAddrPort("10.0.0.2:53"), netip.MustParseAddrPort("[fd00::2]:53")}
	if got, err := c.servers(); err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, error %v, want %v", got, err, want)
	}
	write("nameserver 10.0.0.3\n")
	c.checked = c.checked.Add(-2 * resolvCheck) // time passes
	if got, err := c.servers(); err != nil || !slices.Equal(got, []netip.AddrPort{netip.MustParseAddrPort("10.0.0.3:53")}) {
		t.Errorf("after a change: %v, error %v", got, err)
	}
}

// FuzzRelay: whatever an upstream sends, there is no panic, and what is passed on
// carries the client's ID.
func FuzzRelay(f *testing.F) {
	wire, _ := question("example.com.", dns.TypeA).SetEdns0(1232, false).Pack()
	reply := slices.Clone(wire)
	reply[2] |= flagQR
	f.Add(reply)
	f.Add(reply[:20])
	s := serving(f, sample())
	f.Fuzz(func(t *testing.T, reply []byte) {
		if len(reply) > maxTCP {
			return
		}
		if len(reply) >= 2 {
			copy(reply, wire[:2])
		}
		if !matches(reply, wire) {
			return
		}
		client := slices.Clone(wire)
		binary.BigEndian.PutUint16(client, 4711)
		r := newResponder(1)
		r.query.parse(client)
		out := r.relay(terms{table: s.table.Load(), forward: true}, client, reply)
		if len(out) > maxUDP || binary.BigEndian.Uint16(out) != 4711 {
			t.Fatalf("passed on %x", out)
		}
	})
}

// TestExchangeTCPCutShort: a connection that ends in the middle is an error.
func TestExchangeTCPCutShort(t *testing.T) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	go func() {
		io.ReadFull(theirs, make([]byte, 2+29))
		theirs.Write([]byte{0, 40, 1, 2, 3})
		theirs.Close()
	}()
	wire, _ := question("example.com.", dns.TypeA).Pack()
	if reply, err := exchangeTCP(ours, wire); err == nil {
		t.Errorf("got %x, want an error", reply)
	}
}
