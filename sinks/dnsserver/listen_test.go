package dnsserver

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/sockets"
)

// bridges returns a complete snapshot with one bridge network for each address.
func bridges(addrs ...string) *agent.Snapshot {
	snap := &agent.Snapshot{Complete: true}
	for _, a := range addrs {
		addr := netip.MustParseAddr(a)
		prefix, _ := addr.Prefix(addr.BitLen() - 8)
		snap.Networks = append(snap.Networks, agent.Network{
			Name: "net-" + a, Driver: "bridge",
			Gateways: []netip.Addr{addr}, Subnets: []netip.Prefix{prefix},
		})
	}
	return snap
}

// listens reports whether the server listens on exactly these addresses.
func listens(s *Server, want ...string) bool {
	var got []string
	for _, at := range s.Listening() {
		got = append(got, at.Addr().String())
	}
	slices.Sort(want)
	slices.Sort(got)
	return slices.Equal(got, want)
}

// TestFollowsBridges: networks that come are served and those that go are not;
// what an incomplete snapshot lacks is kept; other drivers and public addresses
// are left alone.
func TestFollowsBridges(t *testing.T) {
	s := run(t, loopback(), sample())
	kept := s.Listening()[0]
	s.store.Publish(bridges("127.0.0.2", "127.0.0.3"))
	await(t, "both bridges", func() bool { return listens(s.Server, "127.0.0.1", "127.0.0.2", "127.0.0.3") })

	snap := bridges("127.0.0.4", "203.0.113.1")
	snap.Complete = false
	snap.Networks = append(snap.Networks, agent.Network{Driver: "overlay", Gateways: []netip.Addr{netip.MustParseAddr("127.0.0.5")}})
	s.store.Publish(snap)
	await(t, "one more", func() bool {
		return listens(s.Server, "127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4")
	})
	s.store.Publish(bridges("127.0.0.3"))
	await(t, "the last one alone", func() bool { return listens(s.Server, "127.0.0.1", "127.0.0.3") })
	if !slices.Contains(s.Listening(), kept) {
		t.Errorf("%s was closed, or its port changed", kept)
	}
	if !slices.Equal(s.Addrs(), s.Listening()) {
		t.Errorf("Addrs is %v, Listening %v", s.Addrs(), s.Listening())
	}
	s.stop()
	if got := s.Listening(); len(got) != 0 {
		t.Errorf("listens on %v after the end", got)
	}
}

// TestListensBeforeBridgeIsUp: an address that no interface has can be bound.
func TestListensBeforeBridgeIsUp(t *testing.T) {
	s := run(t, loopback(), sample())
	s.store.Publish(bridges("10.255.254.1", "fd00:255::1"))
	await(t, "addresses that do not exist", func() bool { return listens(s.Server, "127.0.0.1", "10.255.254.1", "fd00:255::1") })
}

// TestServesIPv6 needs the loopback address of IPv6 alone.
func TestServesIPv6(t *testing.T) {
	s := run(t, Config{Listen: []netip.Addr{netip.IPv6Loopback()}}, sample())
	for _, network := range []string{"udp", "tcp"} {
		if reply := exchangeWith(t, s.Server, network, question("calc.svc.test.", dns.TypeA)); len(reply.Answer) != 1 {
			t.Errorf("%s: %v", network, reply)
		}
	}
}

// TestPortTaken: an address that another process has is a condition that names
// it, the others are served meanwhile, and it is served when it becomes free.
func TestPortTaken(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			taken, release := takePort(t, network, "127.0.0.77:0")
			cfg := Config{Port: taken.Port(), Listen: []netip.Addr{netip.MustParseAddr("127.0.0.77"), netip.MustParseAddr("127.0.0.78")}}
			env := testEnv()
			s, err := New(cfg, env, agent.NewStore())
			if err != nil {
				t.Fatal(err)
			}
			stop := start(t, s, sample())
			defer stop()
			await(t, "the other address", func() bool { return listens(s, "127.0.0.78") })
			await(t, "the condition", func() bool { return env.Health.Err(Name) != nil })
			why := env.Health.Err(Name).Error()
			for _, want := range []string{"listen", taken.String(), network, fmt.Sprintf("(pid %d)", os.Getpid())} {
				if !strings.Contains(why, want) {
					t.Errorf("condition %q does not say %q", why, want)
				}
			}
			if got := len(s.Addrs()); got != 2 {
				t.Errorf("%d addresses are wanted, want 2", got)
			}
			release()
			await(t, "the address to be served", func() bool { return listens(s, "127.0.0.77", "127.0.0.78") })
			await(t, "the condition to pass", func() bool { return env.Health.Err(Name) == nil })
		})
	}
}

// takePort binds a port until release is called.
func takePort(t *testing.T, network, at string) (taken netip.AddrPort, release func()) {
	t.Helper()
	if network == "tcp" {
		l, err := net.Listen(network, at)
		if err != nil {
			t.Fatal(err)
		}
		return l.Addr().(*net.TCPAddr).AddrPort(), func() { l.Close() }
	}
	c, err := net.ListenPacket(network, at)
	if err != nil {
		t.Fatal(err)
	}
	return c.LocalAddr().(*net.UDPAddr).AddrPort(), func() { c.Close() }
}

// start runs a server until stop is called.
func start(t *testing.T, s *Server, set agent.RecordSet) (stop func()) {
	t.Helper()
	records := new(agent.Records)
	records.Publish(set)
	feed := records.Subscribe()
	ended := make(chan struct{})
	ctx, cancel := newContext()
	go func() {
		defer close(ended)
		s.Run(ctx, feed)
	}()
	return func() {
		cancel()
		<-ended
		feed.Close()
	}
}

// TestBrokenSocketIsReplaced: a socket that fails is opened anew.
func TestBrokenSocketIsReplaced(t *testing.T) {
	env := testEnv()
	s, err := New(loopback(), env, agent.NewStore())
	if err != nil {
		t.Fatal(err)
	}
	s.publish(sample(), 1)
	ctx, cancel := newContext()
	defer cancel()
	l := &listeners{server: s, open: map[netip.Addr]*endpoint{}, failed: map[netip.Addr]*failure{}, ended: make(chan *endpoint)}
	defer l.closeAll()
	l.follow(ctx, s.cfg.Listen)
	l.open[s.cfg.Listen[0]].udp.Close()
	e := <-l.ended
	l.fail(e.addr, e.close())
	l.report(s.cfg.Listen)
	if err := env.Health.Err(Name); err == nil || !strings.Contains(err.Error(), "serve 127.0.0.1") {
		t.Errorf("condition %v, want one about the address", err)
	}
	await(t, "a new socket", func() bool { l.follow(ctx, s.cfg.Listen); return len(s.Listening()) == 1 })
	if reply := exchangeWith(t, s, "udp", question("calc.svc.test.", dns.TypeA)); len(reply.Answer) != 1 {
		t.Errorf("got %v", reply)
	}
}

func TestHolderUnknown(t *testing.T) {
	at := netip.MustParseAddrPort("127.0.0.1:1")
	if got := holder(t.TempDir(), "udp", at); got != "another process" {
		t.Errorf("without a /proc: %q", got)
	}
}

func TestParseProcAddr(t *testing.T) {
	tests := []struct{ in, want string }{
		{"0100007F:0035", "127.0.0.1:53"},
		{"00000000:14E9", "0.0.0.0:5353"},
		{"00000000000000000000000001000000:0035", "[::1]:53"},
	}
	for _, tt := range tests {
		if got, ok := parseProcAddr(tt.in); !ok || got.String() != tt.want {
			t.Errorf("%s: %v, want %s", tt.in, got, tt.want)
		}
	}
	for _, bad := range []string{"", "local_address", "0100007F", "0100:0035", "zz00007F:0035", "0100007F:zz"} {
		if got, ok := parseProcAddr(bad); ok {
			t.Errorf("%q: %v, want none", bad, got)
		}
	}
}

// TestBatch: questions that come faster than they are read are all answered,
// each to its sender.
func TestBatch(t *testing.T) {
	s := run(t, loopback(), sample())
	const clients, each = 4, 100
	at := net.UDPAddrFromAddrPort(s.Listening()[0])
	for c := range clients {
		conn, err := net.DialUDP("udp", nil, at)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		for i := range each {
			m := question(fmt.Sprintf("n%d-%d.svc.test.", c, i), dns.TypeA)
			m.Id = uint16(c*each + i)
			wire, _ := m.Pack()
			if _, err := conn.Write(wire); err != nil {
				t.Fatal(err)
			}
		}
		seen := make(map[uint16]bool)
		buf := make([]byte, maxUDP)
		for range each {
			n, err := conn.Read(buf)
			if err != nil {
				t.Fatalf("client %d: %d of %d answers: %v", c, len(seen), each, err)
			}
			reply := new(dns.Msg)
			if err := reply.Unpack(buf[:n]); err != nil {
				t.Fatal(err)
			}
			if want := fmt.Sprintf("n%d-%d.svc.test.", c, int(reply.Id)-c*each); reply.Question[0].Name != want {
				t.Fatalf("client %d: ID %d is about %s, want %s", c, reply.Id, reply.Question[0].Name, want)
			}
			seen[reply.Id] = true
		}
		if len(seen) != each {
			t.Errorf("client %d: %d different answers, want %d", c, len(seen), each)
		}
	}
}

// TestBatchOfSeveralSenders: one batch with questions of several senders, and
// one that is dropped between them, gives each its own answer.
func TestBatchOfSeveralSenders(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		s := serving(t, sample())
		server, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(at)))
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		const n = 5
		var conns [n]*net.UDPConn
		for i := range conns {
			if conns[i], err = net.DialUDP("udp", nil, server.LocalAddr().(*net.UDPAddr)); err != nil {
				t.Fatal(err)
			}
			defer conns[i].Close()
			m := question("calc.svc.test.", dns.TypeA)
			m.Id, m.Response = uint16(1000+i), i == 2
			wire, _ := m.Pack()
			if _, err := conns[i].Write(wire); err != nil {
				t.Fatal(err)
			}
		}
		raw, err := server.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		size := uint32(unix.SizeofSockaddrInet4)
		if strings.HasPrefix(at, "[") {
			size = unix.SizeofSockaddrInet6
		}
		b, r := newBatch(size), newResponder(1)
		raw.Read(b.receive)
		if b.received != n || b.err != nil { // loopback delivers before Write returns
			t.Fatalf("%s: %d received, error %v", at, b.received, b.err)
		}
		for i := range n {
			if got, want := b.sender(i), conns[i].LocalAddr().(*net.UDPAddr).AddrPort(); got != want {
				t.Errorf("%s: question %d is from %s, want %s", at, i, got, want)
			}
		}
		s.answerBatch(t.Context(), server, r, b)
		raw.Write(b.send)
		if b.ready != n-1 || b.sent != n-1 || b.err != nil {
			t.Fatalf("%s: %d of %d answers sent, error %v", at, b.sent, b.ready, b.err)
		}
		for i, conn := range conns {
			if i == 2 {
				continue
			}
			conn.SetReadDeadline(time.Now().Add(20 * time.Second))
			reply, err := (&dns.Conn{Conn: conn}).ReadMsg()
			if err != nil || reply.Id != uint16(1000+i) || len(reply.Answer) != 1 {
				t.Errorf("%s: sender %d: %v, error %v", at, i, reply, err)
			}
		}
		if got := s.meters.malformed.Load(); got != 1 {
			t.Errorf("%s: %d dropped, want 1", at, got)
		}
	}
}

// TestUnsentAnswers: an answer that the kernel refuses is counted, and those
// behind it are sent.
func TestUnsentAnswers(t *testing.T) {
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	client, err := net.DialUDP("udp4", nil, server.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	raw, err := server.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	b := newBatch(unix.SizeofSockaddrInet4)
	for range 2 {
		if _, err := client.Write([]byte("question")); err != nil {
			t.Fatal(err)
		}
	}
	raw.Read(b.receive)
	b.names[0].Port = 0 // nobody can be reached there
	copy(b.answers[1][:], "answer")
	b.reply(0, 6)
	b.reply(1, 6)
	raw.Write(b.send)
	if b.err == nil || b.sent != 2 {
		t.Errorf("%d done with, error %v; want 2 and one", b.sent, b.err)
	}
	client.SetReadDeadline(time.Now().Add(20 * time.Second))
	buf := make([]byte, 10)
	if n, err := client.Read(buf); err != nil || string(buf[:n]) != "answer" {
		t.Errorf("got %q, error %v", buf[:n], err)
	}
}

// TestIdleConnectionIsClosed: one that says nothing, or half a message.
func TestIdleConnectionIsClosed(t *testing.T) {
	s := newServer(t, loopback())
	s.idle = 30 * time.Millisecond
	stop := start(t, s, sample())
	defer stop()
	await(t, "the server", func() bool { return len(s.Listening()) == 1 })
	for _, said := range []string{"", "\x00", "\x00\x20half"} {
		conn, err := net.Dial("tcp", s.Listening()[0].String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.Write([]byte(said))
		conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := conn.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
			t.Errorf("after %q: error %v, want the connection to be closed", said, err)
		}
	}
}

// TestPipelining: many questions on one connection, in pieces that do not end
// where they do.
func TestPipelining(t *testing.T) {
	s := run(t, loopback(), sample())
	conn, err := net.Dial("tcp", s.Listening()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	var stream []byte
	const n = 300
	for i := range n {
		m := question("_calc._tcp.svc.test.", dns.TypeSRV)
		m.Id = uint16(i)
		wire, _ := m.Pack()
		stream = binary.BigEndian.AppendUint16(stream, uint16(len(wire)))
		stream = append(stream, wire...)
	}
	go func() {
		for piece := range slices.Chunk(stream, 71) {
			conn.Write(piece)
		}
	}()
	in := bufio.NewReader(conn)
	for i := range n {
		reply, err := readMessage(in)
		if err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
		if reply.Id != uint16(i) || len(reply.Answer) != 3 {
			t.Fatalf("answer %d: %v", i, reply)
		}
	}
}

func readMessage(r io.Reader) (*dns.Msg, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	buf := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(r, buf); err != nil {
		return nil, err
	}
	m := new(dns.Msg)
	return m, m.Unpack(buf)
}

// TestConnectionLimit: connections over the limit are closed at once and
// counted, and there is room again when others end.
func TestConnectionLimit(t *testing.T) {
	s := run(t, loopback(), sample())
	at := s.Listening()[0].String()
	for range maxConns {
		conn, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	await(t, "all places to be taken", func() bool { return len(s.slots) == maxConns })
	extra, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer extra.Close()
	extra.SetDeadline(time.Now().Add(20 * time.Second))
	if n, err := extra.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Errorf("read %d bytes, error %v; want the connection to be closed", n, err)
	}
	if got := s.meters.busy.Load(); got != 1 {
		t.Errorf("%d connections counted, want 1", got)
	}
}

// TestResponseOverTCP: who sends a response is not spoken to.
func TestResponseOverTCP(t *testing.T) {
	s := run(t, loopback(), sample())
	conn, err := net.Dial("tcp", s.Listening()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	m := question("calc.svc.test.", dns.TypeA)
	m.Response = true
	if err := (&dns.Conn{Conn: conn}).WriteMsg(m); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Errorf("error %v, want the connection to be closed", err)
	}
}

func TestMetrics(t *testing.T) {
	s := run(t, loopback(), sample())
	exchangeWith(t, s.Server, "udp", question("calc.svc.test.", dns.TypeA))
	exchangeWith(t, s.Server, "tcp", question("nobody.svc.test.", dns.TypeA))
	exchangeWith(t, s.Server, "udp", question("example.com.", dns.TypeA))
	got := make(map[string]float64)
	await(t, "the counters", func() bool {
		s.Metrics(func(m agent.Sample) bool {
			key := m.Name
			for _, l := range m.Labels {
				key += " " + l.Value
			}
			got[key] = m.Value
			return true
		})
		return got["berth_dnsserver_queries_total REFUSED udp"] == 1 && got["berth_dnsserver_queries_total NXDOMAIN tcp"] == 1
	})
	for key, want := range map[string]float64{
		"berth_dnsserver_queries_total NOERROR udp": 1,
		"berth_dnsserver_dropped_total malformed":   0,
		"berth_dnsserver_truncated_total":           0,
		"berth_dnsserver_records":                   9,
		"berth_dnsserver_zone_serial":               float64(s.table.Load().serial),
	} {
		if v, ok := got[key]; !ok || v != want {
			t.Errorf("%s is %v, want %v", key, v, want)
		}
	}
	if v := got["berth_dnsserver_publish_seconds"]; v <= 0 || v > 10 {
		t.Errorf("publish_seconds is %v", v)
	}
	calls := 0
	s.Metrics(func(agent.Sample) bool { calls++; return calls < 3 })
	if calls != 3 {
		t.Errorf("%d samples after the consumer had enough at 3", calls)
	}
}

// TestSocketsOutliveTheServer: what is asked between the end of one server and
// the start of the next waits in the socket, and is answered.
func TestSocketsOutliveTheServer(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	reg := sockets.New(log)
	defer reg.Close()
	env := agent.Env{Log: log, Health: agent.NewHealth(log), Sockets: reg.Scope(Name)}
	cfg := Config{Listen: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}
	run := func() (*Server, func()) {
		s, err := New(cfg, env, agent.NewStore())
		if err != nil {
			t.Fatal(err)
		}
		stop := start(t, s, sample())
		await(t, "the server", func() bool { return len(s.Listening()) == 1 })
		return s, stop
	}
	first, stop := run()
	at := first.Listening()[0]
	stop()

	conn, err := net.Dial("udp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	packed, err := question("calc.svc.test.", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(packed); err != nil {
		t.Fatal(err)
	}

	second, stop := run()
	defer stop()
	if got := second.Listening()[0]; got != at {
		t.Fatalf("the second server listens on %v, the first did on %v", got, at)
	}
	buf := make([]byte, 1500)
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatalf("the question between the two servers was lost: %v", err)
	}
	var reply dns.Msg
	if err := reply.Unpack(buf[:n]); err != nil || len(reply.Answer) == 0 {
		t.Errorf("reply %v, %v", &reply, err)
	}
}
