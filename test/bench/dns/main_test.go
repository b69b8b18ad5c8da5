package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func parse(t *testing.T, text string) (measurement, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "out")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return parseOutput(f)
}

const statistics = `
Statistics:

  Queries sent:         3
  Queries completed:    2 (66.67%)
  Queries lost:         1 (33.33%)

  Response codes:       NOERROR 2 (100.00%)
  Run time (s):         2.500000
  Queries per second:   1234.500000
`

func TestParseOutput(t *testing.T) {
	m, err := parse(t, "> NOERROR host00.bench.test. A 0.000300\n> NOERROR host01.bench.test. A 0.000100\n> T host02.bench.test. A\n"+statistics)
	if err != nil {
		t.Fatal(err)
	}
	if m.rate != 1234.5 || m.lost != 1 || m.wall != 2.5 || len(m.latencies) != 2 {
		t.Errorf("got %+v", m)
	}
	if got, want := m.percentile(99), 300*time.Microsecond; got != want {
		t.Errorf("p99 %v, want %v", got, want)
	}
	if got, want := m.percentile(0), 100*time.Microsecond; got != want {
		t.Errorf("p0 %v, want %v", got, want)
	}
}

func TestParseOutputRefusesOtherAnswers(t *testing.T) {
	if _, err := parse(t, "> SERVFAIL host00.bench.test. A 0.000300\n"+statistics); err == nil {
		t.Error("a failed answer is counted")
	}
	if _, err := parse(t, "[Status] Testing complete\n"); err == nil {
		t.Error("output without statistics is accepted")
	}
}

// TestZoneFile: the other servers get what berth serves, SOA and NS included.
func TestZoneFile(t *testing.T) {
	parser := dns.NewZoneParser(strings.NewReader(zoneFile()), "", "")
	count := make(map[uint16]int)
	for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
		count[rr.Header().Rrtype]++
	}
	if err := parser.Err(); err != nil {
		t.Fatal(err)
	}
	want := map[uint16]int{dns.TypeSOA: 1, dns.TypeNS: 1, dns.TypeSRV: services * targets, dns.TypeA: hosts}
	for qtype, n := range want {
		if count[qtype] != n {
			t.Errorf("%d records of type %s, want %d", count[qtype], dns.TypeToString[qtype], n)
		}
	}
	if got, want := strings.Count(questions(), "\n"), services*5; got != want {
		t.Errorf("%d questions, want %d", got, want)
	}
}
