package dnsserver

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/berthd/berth/agent"
)

func TestAnswers(t *testing.T) {
	s := serving(t, sample())
	const soa = "svc.test. 5 SOA"
	tests := []struct {
		name   string
		qtype  uint16
		rcode  int
		answer []string // without SOA's numbers
		ns     bool     // SOA in authority
		extra  []string
	}{
		{name: "calc.svc.test.", qtype: dns.TypeA, answer: []string{"calc.svc.test. 10 A 192.0.2.1"}},
		{name: "h1.svc.test.", qtype: dns.TypeAAAA, answer: []string{"h1.svc.test. 10 AAAA 2001:db8::1"}},
		{name: "_time._udp.svc.test.", qtype: dns.TypeSRV, answer: []string{"_time._udp.svc.test. 10 SRV 1 1 32771 elsewhere.test."}},
		{name: "svc.test.", qtype: dns.TypeSOA, answer: []string{soa}},
		{
			name: "svc.test.", qtype: dns.TypeNS, answer: []string{"svc.test. 5 NS h1.svc.test."},
			extra: []string{"h1.svc.test. 10 A 192.0.2.1", "h1.svc.test. 10 AAAA 2001:db8::1"},
		},
		// The name exists, but not with this type.
		{name: "calc.svc.test.", qtype: dns.TypeAAAA, ns: true},
		{name: "calc.svc.test.", qtype: dns.TypeMX, ns: true},
		{name: "svc.test.", qtype: dns.TypeA, ns: true},
		// Names that only have others below them exist, too.
		{name: "_tcp.svc.test.", qtype: dns.TypeSRV, ns: true},
		{name: "c.svc.test.", qtype: dns.TypeA, ns: true},
		{name: "b.c.svc.test.", qtype: dns.TypeANY, ns: true},
		// These do not.
		{name: "nobody.svc.test.", qtype: dns.TypeA, rcode: dns.RcodeNameError, ns: true},
		{name: "x.calc.svc.test.", qtype: dns.TypeA, rcode: dns.RcodeNameError, ns: true},
		{name: "b.svc.test.", qtype: dns.TypeA, rcode: dns.RcodeNameError, ns: true},
		{name: "hostmaster.svc.test.", qtype: dns.TypeA, rcode: dns.RcodeNameError, ns: true},
		// Any one set is enough for ANY.
		{name: "calc.svc.test.", qtype: dns.TypeANY, answer: []string{"calc.svc.test. 10 A 192.0.2.1"}},
		{name: "svc.test.", qtype: dns.TypeANY, answer: []string{soa}},
		// None of ours.
		{name: "test.", qtype: dns.TypeA, rcode: dns.RcodeRefused},
		{name: ".", qtype: dns.TypeNS, rcode: dns.RcodeRefused},
		{name: "example.com.", qtype: dns.TypeA, rcode: dns.RcodeRefused},
		{name: "xsvc.test.", qtype: dns.TypeA, rcode: dns.RcodeRefused},
		{name: "svc.test.example.", qtype: dns.TypeA, rcode: dns.RcodeRefused},
		{name: "svc.test.", qtype: dns.TypeAXFR, rcode: dns.RcodeRefused},
		{name: "svc.test.", qtype: dns.TypeIXFR, rcode: dns.RcodeRefused},
	}
	for _, tt := range tests {
		for tr := range transports {
			t.Run(fmt.Sprintf("%s/%s/%s", tt.name, dns.TypeToString[tt.qtype], tr), func(t *testing.T) {
				reply := ask(t, s, question(tt.name, tt.qtype), tr)
				if reply.Rcode != tt.rcode {
					t.Errorf("rcode %s, want %s", dns.RcodeToString[reply.Rcode], dns.RcodeToString[tt.rcode])
				}
				answer := texts(reply.Answer)
				for i, a := range answer {
					if strings.HasPrefix(a, soa) {
						answer[i] = soa
					}
				}
				if !slices.Equal(answer, tt.answer) {
					t.Errorf("answer %q, want %q", answer, tt.answer)
				}
				if got := len(reply.Ns) == 1 && reply.Ns[0].Header().Rrtype == dns.TypeSOA; got != tt.ns || !got && len(reply.Ns) > 0 {
					t.Errorf("authority %v, want SOA: %v", reply.Ns, tt.ns)
				}
				if got := texts(reply.Extra); !slices.Equal(got, tt.extra) {
					t.Errorf("additional %q, want %q", got, tt.extra)
				}
				if want := tt.rcode != dns.RcodeRefused; reply.Authoritative != want {
					t.Errorf("AA %v, want %v", reply.Authoritative, want)
				}
				if reply.RecursionAvailable || reply.Truncated || !reply.Response {
					t.Errorf("flags %+v", reply.MsgHdr)
				}
			})
		}
	}
}

func TestSOA(t *testing.T) {
	reply := ask(t, serving(t, sample()), question("nobody.svc.test.", dns.TypeA), overUDP)
	soa := reply.Ns[0].(*dns.SOA)
	if soa.Hdr.Name != "svc.test." || soa.Ns != "h1.svc.test." || soa.Mbox != "hostmaster.svc.test." || soa.Minttl > 5 || soa.Hdr.Ttl > 5 {
		t.Errorf("got %v", soa)
	}
}

func TestSerialGrows(t *testing.T) {
	s := newServer(t, Config{})
	last := uint32(0)
	for i := range 20 {
		s.publish(sample(), uint64(i+1))
		if serial := s.table.Load().serial; serial <= last {
			t.Fatalf("serial %d after %d", serial, last)
		} else {
			last = serial
		}
	}
}

// TestBeforeFirstSet: nothing is known yet, and nobody must remember that.
func TestBeforeFirstSet(t *testing.T) {
	s := newServer(t, Config{})
	for _, name := range []string{"calc.svc.test.", "example.com."} {
		if reply := ask(t, s, question(name, dns.TypeA), overUDP); reply.Rcode != dns.RcodeServerFailure {
			t.Errorf("%s: %v, want SERVFAIL", name, reply)
		}
	}
	s.publish(agent.RecordSet{}, 0)
	if s.Applied() != 0 || s.Lookup("calc.svc.test.") != nil {
		t.Error("the absence of a set was published")
	}
}

// TestBeforeFirstWholeSet: after a start, a missing name may be that of a
// container which is not known yet. Once all has been known, it is not.
func TestBeforeFirstWholeSet(t *testing.T) {
	s := newServer(t, Config{})
	partial := sample()
	partial.Partial = true
	rcode := func(name string) int { return ask(t, s, question(name, dns.TypeA), overUDP).Rcode }
	s.publish(partial, 1)
	if got := rcode("calc.svc.test."); got != dns.RcodeSuccess {
		t.Errorf("a known name: rcode %d", got)
	}
	if got := rcode("missing.svc.test."); got != dns.RcodeServerFailure {
		t.Errorf("a missing name before the first whole set: rcode %d, want SERVFAIL", got)
	}
	if got := rcode("example.com."); got != dns.RcodeRefused {
		t.Errorf("another zone: rcode %d, want REFUSED", got)
	}
	s.publish(sample(), 2)
	s.publish(partial, 3) // the engine went away
	if got := rcode("missing.svc.test."); got != dns.RcodeNameError {
		t.Errorf("a missing name after the first whole set: rcode %d, want NXDOMAIN", got)
	}
}

// TestCaseIsKept: resolvers compare the case of the name with what they asked,
// to make forged answers harder.
func TestCaseIsKept(t *testing.T) {
	s := serving(t, sample())
	for _, name := range []string{"_CaLc._tCP.sVc.TEST.", "NoBody.SVC.test.", "SvC.tEsT."} {
		reply := ask(t, s, question(name, dns.TypeSRV), overUDP)
		if got := reply.Question[0].Name; got != name {
			t.Errorf("question %s, want %s", got, name)
		}
		for _, rr := range reply.Answer {
			if rr.Header().Name != name {
				t.Errorf("answer about %s, want %s", rr.Header().Name, name)
			}
		}
		for _, rr := range slices.Concat(reply.Ns, reply.Extra) {
			if !strings.HasSuffix(name, rr.Header().Name[strings.IndexByte(rr.Header().Name, '.')+1:]) {
				t.Errorf("%s: %v does not end as asked", name, rr)
			}
		}
	}
}

// TestMessages: what is no plain question.
func TestMessages(t *testing.T) {
	s := serving(t, sample())
	good, err := question("calc.svc.test.", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	end := len(good)
	changed := func(f func(b []byte) []byte) []byte { return f(slices.Clone(good)) }
	set := func(i int, v ...byte) []byte {
		return changed(func(b []byte) []byte { copy(b[i:], v); return b })
	}
	opt := func(b ...byte) []byte {
		return changed(func(m []byte) []byte { m[11]++; return append(m, b...) })
	}
	tests := []struct {
		name  string
		msg   []byte
		rcode int // -1: dropped
	}{
		{"good", good, dns.RcodeSuccess},
		{"empty", nil, -1},
		{"one byte", []byte{1}, -1},
		{"half a header", good[:11], -1},
		{"response", set(2, 0x80), -1},
		{"header only", good[:12], dns.RcodeFormatError},
		{"no question", set(4, 0, 0)[:12], dns.RcodeFormatError},
		{"two questions", changed(func(b []byte) []byte { b[5] = 2; return append(b, b[12:end]...) }), dns.RcodeFormatError},
		{"cut name", good[:15], dns.RcodeFormatError},
		{"cut type", good[:end-3], dns.RcodeFormatError},
		{"trailing bytes", append(slices.Clone(good), 1, 2, 3), dns.RcodeFormatError},
		{"compressed question", set(12, 0xC0, 12), dns.RcodeFormatError},
		{"reserved label type", set(12, 0x40), dns.RcodeFormatError},
		{"name too long", append(append(slices.Clone(good[:12]), []byte(strings.Repeat("\x3f"+strings.Repeat("a", 63), 5))...), 0, 0, 1, 0, 1), dns.RcodeFormatError},
		{"iquery", set(2, 1<<3), dns.RcodeNotImplemented},
		{"status", set(2, 2<<3), dns.RcodeNotImplemented},
		{"notify", set(2, 4<<3), dns.RcodeNotImplemented},
		{"update", set(2, 5<<3), dns.RcodeNotImplemented},
		{"opcode 15", set(2, 15<<3), dns.RcodeNotImplemented},
		{"class CH", set(end-2, 0, 3), dns.RcodeRefused},
		{"class ANY", set(end-2, 0, 255), dns.RcodeRefused},
		{"announced record is missing", set(11, 1), dns.RcodeFormatError},
		{"OPT", opt(0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0), dns.RcodeSuccess},
		{"OPT with an unknown option", opt(0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 5, 0xff, 0xf0, 0, 1, 7), dns.RcodeSuccess},
		{"OPT version 1", opt(0, 0, 41, 4, 208, 0, 1, 0, 0, 0, 0), dns.RcodeBadVers},
		{"OPT longer than the message", opt(0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 9), dns.RcodeFormatError},
		{"OPT of a name", opt(1, 'a', 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0), dns.RcodeFormatError},
		{"two OPT", changed(func(b []byte) []byte {
			b[11] = 2
			return append(b, 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0, 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0)
		}), dns.RcodeFormatError},
		{"OPT as answer", changed(func(b []byte) []byte {
			b[7] = 1
			return append(b, 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0)
		}), dns.RcodeFormatError},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			reply := askWire(t, s, tt.msg, overUDP)
			if reply == nil {
				if tt.rcode != -1 {
					t.Fatalf("dropped, want %s", dns.RcodeToString[tt.rcode])
				}
				return
			}
			if tt.rcode == -1 {
				t.Fatalf("answered with %v, want nothing", reply)
			}
			// miekg/dns joins the two halves of the code by itself.
			if reply.Rcode != tt.rcode {
				t.Errorf("rcode %s, want %s", dns.RcodeToString[reply.Rcode], dns.RcodeToString[tt.rcode])
			}
			if want := uint16(tt.msg[0])<<8 | uint16(tt.msg[1]); reply.Id != want {
				t.Errorf("ID %d, want %d", reply.Id, want)
			}
		})
	}
}

func TestEDNS(t *testing.T) {
	s := serving(t, sample())
	if reply := ask(t, s, question("calc.svc.test.", dns.TypeA), overUDP); reply.IsEdns0() != nil {
		t.Error("OPT in the reply to a question without")
	}
	for _, do := range []bool{false, true} {
		reply := ask(t, s, question("calc.svc.test.", dns.TypeA).SetEdns0(4096, do), overUDP)
		opt := reply.IsEdns0()
		if opt == nil || opt.Version() != 0 || opt.UDPSize() != maxUDP || opt.Do() != do {
			t.Errorf("OPT is %v, want version 0, size %d, DO %v", opt, maxUDP, do)
		}
	}
}

// TestSizes: whatever the size that a client takes, and whatever the set, the
// reply has whole records, is never larger, and says when answers are missing.
func TestSizes(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 300 {
		n := 1 + rng.IntN(40)
		var records []agent.Record
		for i := range n {
			target := strings.Repeat("x", 1+rng.IntN(40)) + "." + zone
			records = append(records, srv("_x._tcp.svc.test.", uint16(i), target), addr(target, "192.0.2.1"))
			if rng.IntN(2) == 0 {
				records = append(records, addr(target, "2001:db8::1"))
			}
		}
		s := serving(t, recordSet(records...))
		m := question("_x._tcp.svc.test.", dns.TypeSRV)
		all := ask(t, s, m, overTCP)
		if len(all.Answer) != n || all.Truncated {
			t.Fatalf("seed %d: %d of %d answers over TCP", seed, len(all.Answer), n)
		}
		limit := minUDP
		if rng.IntN(4) > 0 {
			size := uint16(rng.IntN(2000))
			m.SetEdns0(size, false)
			limit = min(max(int(size), minUDP), maxUDP)
		}
		wire, _ := m.Pack()
		out := make([]byte, maxUDP)
		length, _ := newResponder(rng.Uint32()).respond(terms{table: s.table.Load()}, wire, out)
		reply := new(dns.Msg)
		if err := reply.Unpack(out[:length]); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if length > limit {
			t.Errorf("seed %d: %d bytes, the client takes %d", seed, length, limit)
		}
		if got := len(reply.Answer) < n; got != reply.Truncated {
			t.Errorf("seed %d: %d of %d answers, TC %v", seed, len(reply.Answer), n, reply.Truncated)
		}
		if reply.Truncated && len(texts(reply.Extra)) > 0 {
			t.Errorf("seed %d: additional records, while answers are missing", seed)
		}
		if !subset(texts(reply.Answer), texts(all.Answer)) || !subset(texts(reply.Extra), texts(all.Extra)) {
			t.Errorf("seed %d: records that are in no full answer", seed)
		}
		checkWholeSets(t, seed, reply.Extra, all.Extra)
	}
}

// checkWholeSets checks that the sets of additional records are there as a whole
// or not at all.
func checkWholeSets(t *testing.T, seed uint64, got, all []dns.RR) {
	t.Helper()
	count := func(rrs []dns.RR) map[string]int {
		m := make(map[string]int)
		for _, rr := range rrs {
			if h := rr.Header(); h.Rrtype != dns.TypeOPT {
				m[fmt.Sprint(h.Name, h.Rrtype)]++
			}
		}
		return m
	}
	whole := count(all)
	for set, n := range count(got) {
		if n != whole[set] {
			t.Errorf("seed %d: %d of %d records of additional set %s", seed, n, whole[set], set)
		}
	}
}

func subset(part, whole []string) bool {
	for _, s := range part {
		if !slices.Contains(whole, s) {
			return false
		}
	}
	return true
}

// TestAdditionalDroppedWithoutTC: addresses that do not fit can be asked for, and
// are no reason to come back over TCP.
func TestAdditionalDroppedWithoutTC(t *testing.T) {
	var records []agent.Record
	for i := range 10 {
		target := fmt.Sprintf("h%d.svc.test.", i)
		records = append(records, srv("_x._tcp.svc.test.", uint16(i), target), addr(target, "2001:db8::1"))
	}
	reply := ask(t, serving(t, recordSet(records...)), question("_x._tcp.svc.test.", dns.TypeSRV), overUDP)
	if reply.Truncated || len(reply.Answer) != 10 || len(reply.Extra) == 0 || len(reply.Extra) == 10 {
		t.Errorf("TC %v, %d answers, %d additional; want all answers and some additional",
			reply.Truncated, len(reply.Answer), len(reply.Extra))
	}
}

// TestShuffles: every record is first about equally often, and is not always
// followed by the same one.
func TestShuffles(t *testing.T) {
	const n, rounds = 10, 20000
	var records []agent.Record
	for i := range n {
		records = append(records, srv("_x._tcp.svc.test.", uint16(i), "h1.svc.test."))
	}
	s := serving(t, recordSet(records...))
	wire, _ := question("_x._tcp.svc.test.", dns.TypeSRV).Pack()
	r := newResponder(12345)
	first := make(map[uint16]int)
	after := make(map[uint16]map[uint16]bool)
	out := make([]byte, maxTCP)
	for range rounds {
		length, _ := r.respond(terms{table: s.table.Load(), transport: overTCP}, wire, out)
		reply := new(dns.Msg)
		if err := reply.Unpack(out[:length]); err != nil {
			t.Fatal(err)
		}
		a, b := reply.Answer[0].(*dns.SRV).Port, reply.Answer[1].(*dns.SRV).Port
		first[a]++
		if after[a] == nil {
			after[a] = make(map[uint16]bool)
		}
		after[a][b] = true
	}
	followers := 0
	for i := range uint16(n) {
		if got, fair := first[i], rounds/n; got < fair*8/10 || got > fair*12/10 {
			t.Errorf("record %d is first %d times, want about %d", i, got, fair)
		}
		followers += len(after[i])
	}
	if followers < 2*n {
		t.Errorf("%d pairs of first and second record, want at least %d", followers, 2*n)
	}
}

// TestTargetIsTheNameItself: a service whose name is its own address.
func TestTargetIsTheNameItself(t *testing.T) {
	s := serving(t, recordSet(srv("a.b.svc.test.", 80, "a.b.svc.test."), addr("a.b.svc.test.", "192.0.2.1")))
	reply := ask(t, s, question("A.b.svc.test.", dns.TypeSRV), overUDP)
	if got, want := texts(reply.Extra), []string{"A.b.svc.test. 10 A 192.0.2.1"}; !slices.Equal(got, want) {
		t.Errorf("additional %q, want %q", got, want)
	}
}

func TestSummary(t *testing.T) {
	if err := summary(nil); err != nil {
		t.Errorf("of nothing: %v", err)
	}
	var errs []error
	for i := range 10 {
		errs = append(errs, fmt.Errorf("e%d", i))
	}
	if got, want := summary(errs).Error(), "e0; e1; e2; e3; e4; e5; e6; e7; and 2 more"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestBadRecordsAreIsolated: what cannot be served is named, and spoils nothing
// else, not even its own name.
func TestBadRecordsAreIsolated(t *testing.T) {
	env := testEnv()
	s, err := New(Config{}, env, agent.NewStore())
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("a", 64)
	s.publish(recordSet(
		srv("_calc._tcp.svc.test.", 1, "h1.svc.test."),
		srv("_calc._tcp.svc.test.", 2, "bad..svc.test."),
		srv("_calc._tcp.svc.test.", 3, "h1.svc.test."),
		addr(long+".svc.test.", "192.0.2.1"),
		addr("outside.test.", "192.0.2.1"),
		agent.Record{Name: "text.svc.test.", Type: "TXT"},
		agent.Record{Name: "h1.svc.test.", Type: agent.TypeA},
		agent.Record{Name: "h1.svc.test.", Type: agent.TypeAAAA, Addr: netip.MustParseAddr("192.0.2.1")},
	), 1)
	reply := ask(t, s, question("_calc._tcp.svc.test.", dns.TypeSRV), overUDP)
	if len(reply.Answer) != 2 {
		t.Errorf("%d good answers, want 2", len(reply.Answer))
	}
	why := env.Health.Err(Name)
	for _, want := range []string{"bad..svc.test.", long, "outside.test.", "text.svc.test.", "h1.svc.test."} {
		if why == nil || !strings.Contains(why.Error(), want) {
			t.Errorf("condition %v does not name %s", why, want)
		}
	}
	s.publish(sample(), 2)
	if err := env.Health.Err(Name); err != nil {
		t.Errorf("condition stays: %v", err)
	}
	s.publish(agent.NewRecordSet("bad..zone.", thisHost(), nil, false), 3)
	if s.Applied() != 2 || env.Health.Err(Name) == nil {
		t.Errorf("a set without a usable zone: applied is %d, condition %v; want 2 and one", s.Applied(), env.Health.Err(Name))
	}
}

// TestOneTTL: the records of one set have one TTL on the wire (RFC 2181 §5.2).
func TestOneTTL(t *testing.T) {
	a, b := srv("_x._tcp.svc.test.", 1, "h1.svc.test."), srv("_x._tcp.svc.test.", 2, "h1.svc.test.")
	a.TTL, b.TTL = 30, 7
	reply := ask(t, serving(t, recordSet(a, b)), question("_x._tcp.svc.test.", dns.TypeSRV), overUDP)
	for _, rr := range reply.Answer {
		if rr.Header().Ttl != 7 {
			t.Errorf("TTL %d, want 7", rr.Header().Ttl)
		}
	}
}

func TestLookup(t *testing.T) {
	s := serving(t, sample())
	if got := s.Lookup("H1.svc.test"); len(got) != 2 || got[0] != addr("h1.svc.test.", "192.0.2.1") {
		t.Errorf("h1: %v", got)
	}
	for _, name := range []string{"nobody.svc.test.", "_tcp.svc.test.", "bad..name", ""} {
		if got := s.Lookup(name); len(got) != 0 {
			t.Errorf("%q: %v, want nothing", name, got)
		}
	}
}

// TestAnswersDoNotAllocate is what keeps a busy server from being a burden.
func TestAnswersDoNotAllocate(t *testing.T) {
	s := serving(t, sample())
	for _, name := range []string{"_CALC._tcp.svc.test.", "calc.svc.test.", "nobody.svc.test.", "svc.test.", "example.com."} {
		for _, qtype := range []uint16{dns.TypeSRV, dns.TypeA, dns.TypeSOA} {
			wire, _ := question(name, qtype).SetEdns0(1232, false).Pack()
			r, out := newResponder(1), make([]byte, maxUDP)
			c := terms{table: s.table.Load()}
			if n := testing.AllocsPerRun(100, func() { r.respond(c, wire, out) }); n != 0 {
				t.Errorf("%s %s: %v allocations", name, dns.TypeToString[qtype], n)
			}
		}
	}
}

// FuzzRespond: whatever comes, there is no panic, and whatever is answered is a
// message about the same question.
func FuzzRespond(f *testing.F) {
	for _, m := range []*dns.Msg{
		question("_calc._tcp.svc.test.", dns.TypeSRV),
		question("nobody.svc.test.", dns.TypeA),
		question("svc.test.", dns.TypeANY).SetEdns0(600, true),
		question("example.com.", dns.TypeA),
		question(".", dns.TypeNS),
	} {
		wire, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire)
	}
	s := serving(f, sample())
	f.Fuzz(func(t *testing.T, msg []byte) {
		for tr := range transports {
			for _, c := range []terms{
				{transport: tr},
				{transport: tr, table: s.table.Load()},
				{transport: tr, table: s.table.Load(), forward: true, forwardMisses: true},
			} {
				r, out := newResponder(1), make([]byte, maxTCP)
				if tr == overUDP {
					out = out[:maxUDP]
				}
				n, act := r.respond(c, msg, out)
				if act != actReply {
					continue
				}
				reply := new(dns.Msg)
				if err := reply.Unpack(out[:n]); err != nil {
					t.Fatalf("reply %x: %v", out[:n], err)
				}
				if string(out[:2]) != string(msg[:2]) || !reply.Response {
					t.Fatalf("reply %x has another ID or is none", out[:n])
				}
				if len(reply.Question) == 1 && string(out[12:r.query.end]) != string(msg[12:r.query.end]) {
					t.Fatalf("reply %x is about another question", out[:n])
				}
				asked := new(dns.Msg)
				if asked.Unpack(msg) == nil && len(asked.Question) == 1 && asked.Opcode == dns.OpcodeQuery &&
					len(reply.Question) == 1 && asked.Question[0] != reply.Question[0] {
					t.Fatalf("asked %v, answered %v", asked.Question[0], reply.Question[0])
				}
			}
		}
	})
}

// FuzzNames: names in text and on the wire are what miekg/dns makes of them.
func FuzzNames(f *testing.F) {
	for _, name := range []string{"_calc._tcp.svc.test.", "A.b", ".", "", "a..b", strings.Repeat("a.", 127), strings.Repeat("a", 64)} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		wire, err := appendName(nil, name)
		if err != nil {
			if len(wire) != 0 {
				t.Fatalf("%q: error %v, and bytes %x", name, err, wire)
			}
			return
		}
		got, end, err := dns.UnpackDomainName(wire, 0)
		if err != nil || end != len(wire) {
			t.Fatalf("%q: %x: %v", name, wire, err)
		}
		plain := strings.NewReplacer(`\`, "").Replace(got)
		if want := strings.ToLower(dns.Fqdn(name)); plain != want && plain != strings.ToLower(name) {
			t.Fatalf("%q became %q", name, got)
		}
		if lower := new(lowerName).set(wire); string(lower) != string(wire) {
			t.Fatalf("%q: %x is not in lower case", name, wire)
		}
	})
}

func TestLowerName(t *testing.T) {
	for length := 0; length <= maxName; length++ {
		name := make([]byte, length)
		for i := range name {
			name[i] = byte(i*7 + length)
		}
		want := slices.Clone(name)
		for i, c := range want {
			if 'A' <= c && c <= 'Z' {
				want[i] = c + 'a' - 'A'
			}
		}
		if got := new(lowerName).set(name); string(got) != string(want) {
			t.Fatalf("length %d: got %x, want %x", length, got, want)
		}
	}
}

func BenchmarkRespond(b *testing.B) {
	s := serving(b, sample())
	for _, name := range []string{"_calc._tcp.svc.test.", "calc.svc.test.", "nobody.svc.test."} {
		b.Run(name, func(b *testing.B) {
			wire, _ := question(name, dns.TypeSRV).Pack()
			r, out := newResponder(1), make([]byte, maxUDP)
			c := terms{table: s.table.Load()}
			b.ReportAllocs()
			for b.Loop() {
				r.respond(c, wire, out)
			}
		})
	}
}

// thousand returns 1,000 records of 100 services.
func thousand() agent.RecordSet {
	var records []agent.Record
	for i := range 100 {
		name := fmt.Sprintf("_service%d._tcp.svc.test.", i)
		for j := range 8 {
			records = append(records, srv(name, uint16(32768+j), "h1.svc.test."))
		}
		records = append(records, addr(fmt.Sprintf("service%d.svc.test.", i), "192.0.2.1"),
			addr(fmt.Sprintf("service%d.svc.test.", i), "2001:db8::1"))
	}
	return recordSet(records...)
}

// BenchmarkPublish is to take at most 2 ms.
func BenchmarkPublish(b *testing.B) {
	s := newServer(b, Config{})
	set, seq := thousand(), uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		seq++
		s.publish(set, seq)
	}
}
