package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// readme is where -write keeps the table, seen from the module's root, and the
// marks between which.
const (
	readme    = "test/bench/README.md"
	beginMark = "<!-- statsd -->"
	endMark   = "<!-- /statsd -->"
)

// The limits of -check. Ratios are of CPU time, to that of the baseline to UDP, which
// adds no tags: limits for berth to either upstream were drawn from measurements of
// that one relay. To a Unix socket the baseline is cheaper by a third, and the ratio
// to it is noted.
const (
	minRatioUnix   = 6.5 // at 100,000 lines a second
	minRatioUDP    = 4.5
	minRatioSlow   = 5.0 // at 20,000, to either
	minRate        = 800_000
	maxBoundCost   = 0.7 // CPU-seconds a million, where the generator is the bound
	minRateMany    = 1_500_000
	maxMemory      = 8 << 20 // bytes
	maxLatency     = 5 * time.Millisecond
	mostAllocation = 0.01 // objects a datagram: the runtime's own, and timers
)

// line is one judgement.
type line struct {
	measure, value, target, note string
	ok                           bool
}

// table is what was measured.
type table struct {
	began  time.Time
	load   string // of the machine, before
	names  []string
	places map[string][]*entry
	lines  []line
}

func (t *table) add(place string, entries []*entry) {
	if t.places == nil {
		t.places = make(map[string][]*entry)
	}
	t.names = append(t.names, place)
	t.places[place] = entries
}

// find returns an entry, or nil.
func (t *table) find(place, name, upstream string) *entry {
	for _, e := range t.places[place] {
		if e.relay.name == name && e.relay.upstream == upstream {
			return e
		}
	}
	return nil
}

// baseline is the baseline's cost at a rate: 0 if it is not measured.
func (t *table) baseline(place, upstream string, rate float64) float64 {
	e := t.find(place, nameBaseline, upstream)
	if e == nil {
		return 0
	}
	cost, _ := e.cost(rate)
	return cost
}

// judge holds the figures against the limits: those of loopback, which the limits
// are about.
func (t *table) judge() {
	for _, place := range t.names {
		for _, upstream := range []string{upUnix, upUDP} {
			t.judgeOne(place, upstream)
		}
	}
}

func (t *table) judgeOne(place, upstream string) {
	e := t.find(place, nameBerth, upstream)
	if e == nil {
		return
	}
	gate := place == loopback{}.name()
	add := func(measure string, ok bool, value, target, note string) {
		if !gate {
			target, ok = "", true
		}
		t.lines = append(t.lines, line{fmt.Sprintf("%s → %s: %s", place, upstream, measure), value, target, note, ok})
	}
	for i, rate := range fixedRates {
		want := minRatioSlow
		if i > 0 {
			want = map[string]float64{upUnix: minRatioUnix, upUDP: minRatioUDP}[upstream]
		}
		cost, loss := e.cost(rate)
		base := t.baseline(place, upUDP, rate)
		note := fmt.Sprintf("%.2f and %.2f CPU-s a million; lost %s", cost, base, percent(loss))
		if upstream != upUDP {
			note += fmt.Sprintf("; %.1f × with the baseline to unix, too", t.baseline(place, upstream, rate)/cost)
		}
		add(fmt.Sprintf("cheaper than the baseline, %s lines/s", thousands(rate)), base/cost >= want,
			fmt.Sprintf("%.1f ×", base/cost), fmt.Sprintf("≥ %.1f ×", want), note)
	}
	m := e.max[1]
	bound := m.bound && m.perMillion() <= maxBoundCost
	note := ""
	if m.bound {
		note = fmt.Sprintf("bound by the generator; %.2f CPU-s a million, ≤ %.1f then", m.perMillion(), maxBoundCost)
	}
	add("highest rate", m.sent.rate() >= minRate || bound, thousands(m.sent.rate()), "≥ "+thousands(minRate), note)
	ten := e.max[many]
	note = ""
	if ten.bound {
		note = "bound by the generator"
	}
	add("highest rate, ten in a datagram", ten.sent.rate() >= minRateMany, thousands(ten.sent.rate()), "≥ "+thousands(minRateMany), note)
	p99 := e.half.received.percentile(990)
	add("latency at half of it, p99", p99 <= maxLatency, ms(p99), "≤ "+ms(maxLatency), fmt.Sprintf("p50 %s; of %d lines", ms(e.half.received.percentile(500)), len(e.half.received.latencies)))
	add("allocations for each datagram", e.allocs < mostAllocation, fmt.Sprintf("%.4f", e.allocs), "0", fmt.Sprintf("%d in all, in %s datagrams", e.allocated, thousands(float64(e.half.sent.datagrams))))
	grown := e.high - e.before
	add("added memory", grown <= maxMemory, mib(grown), "≤ "+mib(maxMemory), "at its highest, over the first lines")
}

// missed returns the limits that do not hold.
func (t *table) missed() []string {
	var out []string
	for _, l := range t.lines {
		if !l.ok {
			out = append(out, l.measure)
		}
	}
	return out
}

// head and rows are the table of all relays.
var head = []string{
	"relay → upstream", "CPU-s / M at 20k/s", "ratio", "CPU-s / M at 100k/s", "ratio", "lost",
	"max lines/s", "CPU-s / M", "ten in a datagram: max", "CPU-s / M", "p50 / p99 at half max", "memory",
}

func (t *table) rows(place string) [][]string {
	var out [][]string
	for _, e := range t.places[place] {
		row := []string{e.name()}
		var lost float64
		for _, rate := range fixedRates {
			cost, loss := e.cost(rate)
			row = append(row, fmt.Sprintf("%.2f", cost), fmt.Sprintf("%.1f", t.baseline(place, upUDP, rate)/cost))
			lost = loss
		}
		row = append(row, percent(lost))
		for _, n := range []int{1, many} {
			m := e.max[n]
			mark := ""
			if m.bound {
				mark = "≥ "
			}
			row = append(row, mark+thousands(m.sent.rate()), fmt.Sprintf("%.2f", m.perMillion()))
		}
		lat := e.half.received
		row = append(row, ms(lat.percentile(500))+" / "+ms(lat.percentile(990)), mib(e.high))
		out = append(out, row)
	}
	return out
}

// remarks are the sentences below the tables.
func (t *table) remarks() []string {
	var u unix.Utsname
	_ = unix.Uname(&u)
	return []string{
		fmt.Sprintf("%s, in %.0f s. %d processors, Linux %s, %s. Load average before: %s.",
			t.began.UTC().Format("2006-01-02 15:04 UTC"), time.Since(t.began).Seconds(), runtime.NumCPU(),
			unix.ByteSliceToString(u.Release[:]), runtime.Version(), t.load),
		"Ratios are to the baseline to UDP, at the same rate.",
		"≥: the generator could not send more. \"lost\" is at 100,000 lines/s; the highest rates lose less than 0.1 %.",
	}
}

func (t *table) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, place := range t.names {
		fmt.Fprintf(w, "\n%s\n", strings.ToUpper(place))
		fmt.Fprintln(w, strings.Join(head, "\t"))
		for _, row := range t.rows(place) {
			fmt.Fprintln(w, strings.Join(row, "\t"))
		}
	}
	fmt.Fprintln(w, "\nmeasure\tvalue\ttarget\tok\t")
	for _, l := range t.lines {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", l.measure, l.value, l.target, l.mark(), l.note)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(out, "\n"+strings.Join(t.remarks(), "\n"))
	return err
}

// markdown returns the tables as they stand in the README.
func (t *table) markdown() string {
	var b strings.Builder
	for _, place := range t.names {
		fmt.Fprintf(&b, "**%s**\n\n| %s |\n|---|%s\n", place, strings.Join(head, " | "), strings.Repeat("--:|", len(head)-1))
		for _, row := range t.rows(place) {
			fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
		}
		fmt.Fprintln(&b)
	}
	fmt.Fprintln(&b, "| measure | value | target | ok | |\n|---|--:|--:|---|---|")
	for _, l := range t.lines {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", l.measure, l.value, l.target, l.mark(), l.note)
	}
	fmt.Fprintln(&b, "\n"+strings.Join(t.remarks(), "\n"))
	return b.String()
}

// keep replaces the table in a file.
func (t *table) keep(path string) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("keep the table: %w", err)
	}
	text, err := replace(string(old), t.markdown())
	if err != nil {
		return fmt.Errorf("keep the table in %s: %w", path, err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return fmt.Errorf("keep the table: %w", err)
	}
	return nil
}

// replace puts a table between the marks of a text.
func replace(text, table string) (string, error) {
	before, rest, found := strings.Cut(text, beginMark)
	_, after, closed := strings.Cut(rest, endMark)
	if !found || !closed {
		return "", errors.New("the marks of the table are missing")
	}
	return before + beginMark + "\n" + table + endMark + after, nil
}

func (l line) mark() string {
	switch {
	case l.target == "":
		return ""
	case l.ok:
		return "yes"
	}
	return "NO"
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d.Microseconds())/1000) }

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

func percent(f float64) string { return fmt.Sprintf("%.2f %%", 100*f) }

// thousands writes a number with its thousands apart.
func thousands(f float64) string {
	s := fmt.Sprintf("%.0f", f)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// loadAverage returns the three of /proc/loadavg.
func loadAverage() string {
	raw, err := os.ReadFile("/proc/loadavg")
	fields := strings.Fields(string(raw))
	if err != nil || len(fields) < 3 {
		return "unknown"
	}
	return strings.Join(fields[:3], " ")
}
