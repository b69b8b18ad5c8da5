package resolvers

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/berthd/berth/test/engine/enginetest"
)

// dug is what dig printed of an answer.
type dug struct {
	status  string
	flags   []string
	counts  string   // of the sections, but for the question
	answers []string // with single spaces
	all     string
}

var (
	digStatus = regexp.MustCompile(`status: (\w+),`)
	digFlags  = regexp.MustCompile(`;; flags: ([a-z ]*); QUERY: 1, ANSWER: (\d+), AUTHORITY: (\d+), ADDITIONAL: (\d+)`)
)

// dig asks berth, by default with a cookie and EDNS as people do who look for a
// mistake, and fails the test when dig itself complains of the reply.
func (w *world) dig(t *testing.T, args ...string) dug {
	t.Helper()
	d := dug{all: w.run(t, "dig", append([]string{"@" + docker0, "+tries=1", "+norecurse"}, args...)...)}
	if m := digStatus.FindStringSubmatch(d.all); m != nil {
		d.status = m[1]
	}
	if m := digFlags.FindStringSubmatch(d.all); m != nil {
		d.flags, d.counts = strings.Fields(m[1]), strings.Join(m[2:], " ")
	}
	_, rest, _ := strings.Cut(d.all, ";; ANSWER SECTION:\n")
	section, _, _ := strings.Cut(rest, "\n\n")
	for line := range strings.Lines(section) {
		if !strings.HasPrefix(line, ";") {
			d.answers = append(d.answers, strings.Join(strings.Fields(line), " "))
		}
	}
	if strings.Contains(d.all, "WARNING") || strings.Contains(d.all, "Got bad packet") {
		t.Errorf("dig %q complains:\n%s", args, d.all)
	}
	return d
}

func TestDig(t *testing.T) {
	const targets = 12
	w := newWorld(t, nil)
	w.startBerth(t)
	srv := w.startWeb(t)
	target, port, _ := strings.Cut(srv, ":")
	ports := make(map[string]string)
	for i := range targets {
		ports[fmt.Sprintf("SERVICE_%d_NAME", 8080+i)] = "many"
		ports[fmt.Sprintf("SERVICE_%d_NETWORK", 8080+i)] = "bridge"
	}
	many := w.StartContainer(t, enginetest.Spec{Name: "many", Labels: ports})
	w.awaitCount(t, "_many._tcp."+domain, dns.TypeSRV, targets)

	web := []string{"_web._tcp." + domain + ". 5 IN SRV 1 1 " + port + " " + target + "."}
	for _, test := range []struct {
		ask     string
		status  string
		flags   string
		counts  string // of answers, authority and additional (with OPT)
		answers []string
	}{
		{"_web._tcp.test.internal SRV", "NOERROR", "qr aa", "1 0 3", web},
		{"+edns=0 _web._tcp.test.internal SRV", "NOERROR", "qr aa", "1 0 3", web},
		{"+noedns _web._tcp.test.internal SRV", "NOERROR", "qr aa", "1 0 2", web},
		{"+nocookie _web._tcp.test.internal SRV", "NOERROR", "qr aa", "1 0 3", web},
		{"+tcp _web._tcp.test.internal SRV", "NOERROR", "qr aa", "1 0 3", web},
		{"+dnssec _web._tcp.test.internal SRV", "NOERROR", "qr aa", "1 0 3", web},
		{"+edns=1 +noednsneg web.test.internal A", "BADVERS", "qr", "0 0 1", nil},
		{"web.test.internal A", "NOERROR", "qr aa", "1 0 1", []string{"web.test.internal. 5 IN A " + hostIPv4}},
		{"web.test.internal AAAA", "NOERROR", "qr aa", "1 0 1", []string{"web.test.internal. 5 IN AAAA " + hostIPv6}},
		{"wEb.TesT.inTERnal A", "NOERROR", "qr aa", "1 0 1", []string{"wEb.TesT.inTERnal. 5 IN A " + hostIPv4}},
		{"here.test.internal A", "NOERROR", "qr aa", "1 0 1", []string{"here.test.internal. 5 IN A " + hostIPv4}},
		{"web.test.internal TXT", "NOERROR", "qr aa", "0 1 1", nil},
		{"_tcp.test.internal A", "NOERROR", "qr aa", "0 1 1", nil},
		{"missing.test.internal A", "NXDOMAIN", "qr aa", "0 1 1", nil},
		{"www.outside.test A", "REFUSED", "qr", "0 0 1", nil},
		{"web.test.internal CH A", "REFUSED", "qr", "0 0 1", nil},
	} {
		t.Run(test.ask, func(t *testing.T) {
			got := w.dig(t, strings.Fields(test.ask)...)
			if got.status != test.status || strings.Join(got.flags, " ") != test.flags || got.counts != test.counts ||
				!slices.Equal(got.answers, test.answers) {
				t.Errorf("got %s, flags %q, counts %s, answers %q, want %s, %s, %s, %q; all:\n%s",
					got.status, got.flags, got.counts, got.answers, test.status, test.flags, test.counts, test.answers, got.all)
			}
		})
	}
	t.Run("transfer", func(t *testing.T) {
		if got := w.dig(t, "+tcp", domain, "AXFR"); !strings.Contains(got.all, "; Transfer failed.") {
			t.Errorf("got:\n%s\nwant a failed transfer", got.all)
		}
	})
	t.Run("ANY", func(t *testing.T) {
		got := w.dig(t, "+notcp", "web."+domain, "ANY")
		if got.status != "NOERROR" || len(got.answers) != 1 {
			t.Errorf("got:\n%s\nwant one set of records", got.all)
		}
	})
	t.Run("cut short", func(t *testing.T) {
		got := w.dig(t, "+noedns", "+ignore", "_many._tcp."+domain, "SRV")
		if n := len(got.answers); !slices.Contains(got.flags, "tc") || n == 0 || n >= targets {
			t.Errorf("got:\n%s\nwant some answers, and TC", got.all)
		}
		// dig asks again over TCP by itself, and has all.
		got = w.dig(t, "+noedns", "_many._tcp."+domain, "SRV")
		if len(got.answers) != targets || slices.Contains(got.flags, "tc") || !strings.Contains(got.all, "(TCP)") {
			t.Errorf("got:\n%s\nwant all %d answers over TCP", got.all, targets)
		}
	})
	t.Run("shuffled", func(t *testing.T) {
		orders := make(map[string]bool)
		var sorted string
		for range 20 {
			got := w.dig(t, "_many._tcp."+domain, "SRV").answers
			orders[strings.Join(got, "\n")] = true
			slices.Sort(got)
			if s := strings.Join(got, "\n"); sorted == "" {
				sorted = s
			} else if s != sorted {
				t.Fatalf("the answers differ in more than their order:\n%s\nand\n%s", sorted, s)
			}
		}
		// There are at least 12 orders, one for each first record. That 20
		// answers have fewer than 3 of them happens once in 10^13.
		if len(orders) < 3 {
			t.Errorf("20 answers came in %d orders, want 3 or more", len(orders))
		}
		for i := range targets {
			want := fmt.Sprintf("SRV 1 1 %s %s.here.%s.", strconv.Itoa(8080+i), many.ID[:12], domain)
			if !strings.Contains(sorted, want) {
				t.Errorf("no %q in:\n%s", want, sorted)
			}
		}
	})
}
