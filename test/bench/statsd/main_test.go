package main

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// programs builds the relays of our own.
func programs(t *testing.T) map[string]string {
	t.Helper()
	bin := make(map[string]string)
	for _, name := range []string{"baseline", "relay"} {
		bin[name] = filepath.Join(t.TempDir(), name)
		cmd := exec.Command("go", "build", "-o", bin[name], "./"+name)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build: %v\n%s", err, out)
		}
	}
	return bin
}

// startRelay starts one, as the bench does.
func startRelay(t *testing.T, c contender) *relay {
	t.Helper()
	dir, err := os.MkdirTemp("", "bs") // a short path: it is a socket's
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r, err := start(t.Context(), c, loopback{}, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// TestRelays runs what the bench runs, slowly: all lines come through, and all
// that are looked at are right.
func TestRelays(t *testing.T) {
	for _, c := range contenders(programs(t)) {
		if c.name == nameExporter {
			continue // it is not of our own making
		}
		t.Run(c.name+" to "+c.upstream, func(t *testing.T) {
			r := startRelay(t, c)
			for _, perDatagram := range []int{1, many} {
				m, err := r.run(perDatagram, 4000, 200*time.Millisecond)
				if err != nil {
					t.Fatal(err)
				}
				got := m.received
				if got.lines != m.sent.lines || m.sent.lines != m.sent.datagrams*perDatagram || !c.ours && got.datagrams != m.sent.datagrams {
					t.Errorf("sent %+v, received %d lines in %d datagrams", m.sent, got.lines, got.datagrams)
				}
				if got.checked == 0 || got.bad > 0 || len(got.latencies) != got.checked {
					t.Errorf("%d lines looked at, %d wrong (%q), %d latencies", got.checked, got.bad, got.examples, len(got.latencies))
				}
				if m.cpu <= 0 || m.cpu > 10*time.Second {
					t.Errorf("CPU time %v", m.cpu)
				}
			}
			if !c.ours {
				return
			}
			if n, err := r.counts(); err != nil || n.Mallocs == 0 {
				t.Errorf("it tells %+v, %v", n, err)
			}
		})
	}
}

// TestLossIsSeen: what does not come through is a loss, and no error.
func TestLossIsSeen(t *testing.T) {
	r := startRelay(t, contender{name: nameBaseline, upstream: upUDP, args: []string{programs(t)["baseline"], "-listen", "{listen}", "-upstream", "{upstream}"}})
	if err := r.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	m, err := r.run(1, 4000, 100*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if m.loss() != 1 || m.received.lines != 0 {
		t.Errorf("loss %v, %d lines of %d", m.loss(), m.received.lines, m.sent.lines)
	}
	if err := r.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	// They were in its receive buffer, and have come late.
	r.sink.await(m.sent.lines, settle)
	if got := r.sink.take(); got.lines != m.sent.lines || got.percentile(0) < 100*time.Millisecond {
		t.Errorf("%d lines came later, of %d; the youngest %v old", got.lines, m.sent.lines, got.percentile(0))
	}
}

// TestMissingTagsAreSeen: a relay which is to add tags, and does not, does not
// get as far as being measured.
func TestMissingTagsAreSeen(t *testing.T) {
	s, err := newSink("", [][]string{{"service:a", "env:b"}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	line := lineOf(0, 7)
	for _, c := range []struct {
		line  string
		wrong bool
	}{
		{string(line) + ",service:a,env:b", false},
		{strings.Replace(string(line), "|#", "|#env:b,service:a,", 1), false},
		{string(line), true},
		{string(line) + ",service:a", true},
		{string(line) + ",service:a,env:c", true},
		{string(line) + ",service:a,env:b,env:b", true},
		{string(line) + ",service:a|#env:b", true},
		{string(line[1:]) + ",service:a,env:b", true},
		{string(line[:len(line)-1]) + ",service:a,env:b", true},
		{string(lineOf(1, 7)) + ",service:a,env:b", true},
		{"", true},
	} {
		s.look([]byte(c.line+"\n\n\n"), 8)
		got := s.take()
		if got.checked != 1 && c.line != "" || (got.bad == 1) != c.wrong {
			t.Errorf("%q: %d looked at, %d wrong (%q), want wrong %v", c.line, got.checked, got.bad, got.examples, c.wrong)
		}
		if !c.wrong && (len(got.latencies) != 1 || got.latencies[0] != 1) {
			t.Errorf("%q: latencies %v, want 1ns", c.line, got.latencies)
		}
	}
}

func TestCountLines(t *testing.T) {
	for text, want := range map[string]int{"": 0, "\n": 0, "a": 1, "a\n": 1, "a\nb": 2, "a\nb\n\n\n\n": 2} {
		if got := countLines([]byte(text)); got != want {
			t.Errorf("%q: %d lines, want %d", text, got, want)
		}
	}
}

func TestLineOf(t *testing.T) {
	line := lineOf(3, 123456789)
	if want := "bench.checkout.s03.latency:000000123456789|g|#path:/v1/items,code:200,shard:"; len(line) != lineSize || !strings.HasPrefix(string(line), want) {
		t.Errorf("got %d bytes, %q", len(line), line)
	}
	if stamp, ok := stampOf(line); !ok || stamp != 123456789 {
		t.Errorf("stamp %d, %v", stamp, ok)
	}
}

// TestClimb searches for known limits.
func TestClimb(t *testing.T) {
	at := func(rate, limit, most float64) measurement {
		s := min(rate, most)
		m := measurement{asked: rate, sent: sent{lines: int(s), took: time.Second}}
		m.received.lines = int(min(s, limit))
		return m
	}
	for _, c := range []struct {
		limit, most float64 // of the relay, of the generator
		bound       bool
	}{
		{150_000, 1e9, false}, {12_345, 1e9, false}, {900_000, 1e9, false}, {1e9, 700_000, true}, {500_000, 700_000, false},
	} {
		best, err := climb(func(rate float64) (measurement, error) { return at(rate, c.limit, c.most), nil })
		if err != nil {
			t.Fatal(err)
		}
		want := min(c.limit, c.most)
		if got := best.sent.rate(); got > want*1.001 || got < want/searchFine/1.001 || best.bound != c.bound || best.loss() >= maxLoss {
			t.Errorf("limits %v, %v: got %.0f, bound %v, loss %v", c.limit, c.most, got, best.bound, best.loss())
		}
	}
	// A relay that keeps up one time in five at a rate has not shown it.
	n := 0
	best, err := climb(func(rate float64) (measurement, error) {
		if n++; n%5 != 0 {
			return at(rate, 50_000, 1e9), nil
		}
		return at(rate, 200_000, 1e9), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := best.sent.rate(); got > 52_000 || got < 30_000 {
		t.Errorf("an unsteady relay: got %.0f, want what it always does, 50000", got)
	}
}

// TestSinkDrops: what the sink loses is not held against the relay.
func TestSinkDrops(t *testing.T) {
	best, err := climb(func(rate float64) (measurement, error) {
		m := measurement{asked: rate, sent: sent{lines: int(rate), took: time.Second}}
		m.received.lines = int(min(rate, 150_000))
		m.sinkDrops = m.sent.lines - m.received.lines
		return m, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !best.bound {
		t.Errorf("at %.0f lines/s the sink lost lines, and that is taken for the relay's limit", best.sent.rate())
	}
	s, err := newSink("", nil)
	if err != nil {
		t.Fatal(err)
	}
	s.closing.Store(true) // it receives one more, and then nobody does
	defer s.close()
	at := netip.MustParseAddrPort(s.address)
	g, err := newGenerator(addresses(at.Addr(), 1), at, many, func(_ int, f func() error) error { return f() })
	if err != nil {
		t.Fatal(err)
	}
	defer g.close()
	for range 3000 { // 39 MB
		if err := g.burst(burst, 1); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := s.drops(); err != nil || n == 0 || n >= 3000*burst {
		t.Errorf("%d dropped of %d, %v", n, 3000*burst, err)
	}
}

// TestBridge sends through namespaces: each source has its own address.
func TestBridge(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("network namespaces need root: run this as root")
	}
	b, err := newBridge(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := b.close(); err != nil {
			t.Error(err)
		}
		if _, err := net.InterfaceByName(b.device()); err == nil {
			t.Errorf("%s is left", b.device())
		}
	}()
	in, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(b.relay(), 0)))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	g, err := b.generator(in.LocalAddr().(*net.UDPAddr).AddrPort(), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer g.close()
	for _, from := range b.sources() {
		if err := g.burst(burst, 1); err != nil {
			t.Fatal(err)
		}
		for range burst {
			var room [4096]byte
			if err := in.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			n, at, err := in.ReadFromUDPAddrPort(room[:])
			if err != nil || at.Addr() != from || n != lineSize {
				t.Fatalf("%d bytes from %v, %v; want a line from %v", n, at, err, from)
			}
		}
	}
}

func TestParsePeer(t *testing.T) {
	c, err := parsePeer("uber=/opt/statsrelay -b {listen} {upstream}")
	if err != nil || c.name != "uber" || len(c.args) != 4 || c.tagged {
		t.Errorf("got %+v, %v", c, err)
	}
	for _, bad := range []string{"", "x", "x=", "=/bin/x {listen} {upstream}", "x=/bin/x {listen}"} {
		if _, err := parsePeer(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestReplace(t *testing.T) {
	got, err := replace("a"+beginMark+"old"+endMark+"b", "new\n")
	if want := "a" + beginMark + "\nnew\n" + endMark + "b"; err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	if _, err := replace("no marks", "new"); err == nil {
		t.Error("a text without marks is accepted")
	}
}

func TestThousands(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := thousands(v); got != want {
			t.Errorf("%v: got %q, want %q", v, got, want)
		}
	}
}
