package main

import (
	"encoding/json"
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
	beginMark = "<!-- loop -->"
	endMark   = "<!-- /loop -->"
)

// row is one line of the table.
type row struct {
	Measure string  `json:"measure"`
	Value   float64 `json:"value"`
	Unit    string  `json:"unit,omitempty"`
	Target  string  `json:"target"`
	OK      bool    `json:"ok"`
	Note    string  `json:"note,omitempty"`

	shown string // the value, for people
}

// table is what was measured.
type table struct {
	began    time.Time
	settings settings
	machine  string
	load     string // of the machine, before
	rows     []row
	notes    []string
}

func newTable(s settings) *table {
	return &table{began: time.Now(), settings: s, load: loadAverage()}
}

// duration adds a time that may be at most so long.
func (t *table) duration(measure string, got, want time.Duration, note string, args ...any) {
	t.rows = append(t.rows, row{
		Measure: measure, Value: float64(got.Microseconds()) / 1000, Unit: "ms", Target: "≤ " + want.String(),
		OK: got <= want, Note: fmt.Sprintf(note, args...), shown: ms(got),
	})
}

// most adds a figure that may be at most so high.
func (t *table) most(measure string, got, want float64, unit, note string, args ...any) {
	t.rows = append(t.rows, row{
		Measure: measure, Value: got, Unit: unit, Target: strings.TrimSpace(fmt.Sprintf("≤ %v %s", want, unit)),
		OK: got <= want, Note: fmt.Sprintf(note, args...), shown: strings.TrimSpace(fmt.Sprintf("%.3g %s", got, unit)),
	})
}

// exactly adds a count.
func (t *table) exactly(measure string, got, want int, note string, args ...any) {
	t.rows = append(t.rows, row{
		Measure: measure, Value: float64(got), Target: fmt.Sprint(want),
		OK: got == want, Note: fmt.Sprintf(note, args...), shown: fmt.Sprint(got),
	})
}

// yes adds what must be so; its value is 1 or 0.
func (t *table) yes(measure string, ok bool, note string, args ...any) {
	r := row{Measure: measure, Target: "yes", OK: ok, Note: fmt.Sprintf(note, args...), shown: "no"}
	if ok {
		r.Value, r.shown = 1, "yes"
	}
	t.rows = append(t.rows, r)
}

// note adds a sentence below the table.
func (t *table) note(format string, args ...any) {
	t.notes = append(t.notes, fmt.Sprintf(format, args...))
}

// missed returns the measures whose targets are missed.
func (t *table) missed() []string {
	var out []string
	for _, r := range t.rows {
		if !r.OK {
			out = append(out, r.Measure)
		}
	}
	return out
}

// remarks returns the sentences below the table.
func (t *table) remarks() []string {
	s := t.settings
	return append([]string{
		fmt.Sprintf("%s, in %.0f s, with %d running containers, half of them with a name. %s Load average before: %s.",
			t.began.UTC().Format("2006-01-02 15:04 UTC"), time.Since(t.began).Seconds(), s.containers, t.machine, t.load),
	}, t.notes...)
}

func (t *table) print(out io.Writer, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(out)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return e.Encode(struct {
			OK      bool     `json:"ok"`
			Rows    []row    `json:"rows"`
			Remarks []string `json:"remarks"`
		}{len(t.missed()) == 0, t.rows, t.remarks()})
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "measure\tvalue\ttarget\tok\t")
	for _, r := range t.rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.Measure, r.shown, r.Target, mark(r.OK), r.Note)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(out, "\n"+strings.Join(t.remarks(), "\n"))
	return err
}

// markdown returns the table as it stands in the README.
func (t *table) markdown() string {
	var b strings.Builder
	fmt.Fprintln(&b, "| measure | value | target | ok | |\n|---|--:|--:|---|---|")
	for _, r := range t.rows {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", r.Measure, r.shown, r.Target, mark(r.OK), r.Note)
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
	head, rest, found := strings.Cut(text, beginMark)
	_, tail, closed := strings.Cut(rest, endMark)
	if !found || !closed {
		return "", errors.New("the marks of the table are missing")
	}
	return head + beginMark + "\n" + table + endMark + tail, nil
}

func mark(ok bool) string {
	if ok {
		return "yes"
	}
	return "NO"
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d.Microseconds())/1000) }

// machine says what the figures were measured on.
func machine(engine string) string {
	var u unix.Utsname
	_ = unix.Uname(&u)
	return fmt.Sprintf("%d cores, Linux %s, %s, Docker %s.", runtime.NumCPU(), unix.ByteSliceToString(u.Release[:]), runtime.Version(), engine)
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
