package rig

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// README is where Table.Keep keeps a table, seen from the module's root.
const README = "test/bench/README.md"

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

// Table is what was measured.
type Table struct {
	// About is what was measured on, in a sentence or two, for below the table.
	About string

	name  string
	began time.Time
	load  string // of the machine, before
	rows  []row
	notes []string
}

// NewTable returns an empty table. Its name is that of the marks between which
// the README has it.
func NewTable(name string) *Table {
	return &Table{name: name, began: time.Now(), load: loadAverage()}
}

// Duration adds a time that may be at most so long.
func (t *Table) Duration(measure string, got, want time.Duration, note string, args ...any) {
	t.rows = append(t.rows, row{
		Measure: measure, Value: float64(got.Microseconds()) / 1000, Unit: "ms", Target: "≤ " + want.String(),
		OK: got <= want, Note: fmt.Sprintf(note, args...), shown: MS(got),
	})
}

// Most adds a figure that may be at most so high.
func (t *Table) Most(measure string, got, want float64, unit, note string, args ...any) {
	t.rows = append(t.rows, row{
		Measure: measure, Value: got, Unit: unit, Target: strings.TrimSpace(fmt.Sprintf("≤ %v %s", want, unit)),
		OK: got <= want, Note: fmt.Sprintf(note, args...), shown: strings.TrimSpace(fmt.Sprintf("%.3g %s", got, unit)),
	})
}

// Exactly adds a count.
func (t *Table) Exactly(measure string, got, want int, note string, args ...any) {
	t.rows = append(t.rows, row{
		Measure: measure, Value: float64(got), Target: fmt.Sprint(want),
		OK: got == want, Note: fmt.Sprintf(note, args...), shown: fmt.Sprint(got),
	})
}

// Yes adds what must be so; its value is 1 or 0.
func (t *Table) Yes(measure string, ok bool, note string, args ...any) {
	r := row{Measure: measure, Target: "yes", OK: ok, Note: fmt.Sprintf(note, args...), shown: "no"}
	if ok {
		r.Value, r.shown = 1, "yes"
	}
	t.rows = append(t.rows, r)
}

// Note adds a sentence below the table.
func (t *Table) Note(format string, args ...any) {
	t.notes = append(t.notes, fmt.Sprintf(format, args...))
}

// Missed returns the measures whose targets are missed.
func (t *Table) Missed() []string {
	var out []string
	for _, r := range t.rows {
		if !r.OK {
			out = append(out, r.Measure)
		}
	}
	return out
}

// remarks returns the sentences below the table.
func (t *Table) remarks() []string {
	return append([]string{
		fmt.Sprintf("%s, in %.0f s, %s Load average before: %s.",
			t.began.UTC().Format("2006-01-02 15:04 UTC"), time.Since(t.began).Seconds(), t.About, t.load),
	}, t.notes...)
}

// Finish prints the table, keeps it in the README if write is set, and returns an
// error if check is set and numbers are missed.
func (t *Table) Finish(asJSON, write, check bool) error {
	if err := t.Print(os.Stdout, asJSON); err != nil {
		return err
	}
	if write {
		if err := t.Keep(); err != nil {
			return err
		}
	}
	if missed := t.Missed(); check && len(missed) > 0 {
		return fmt.Errorf("%d numbers are missed: %q", len(missed), missed)
	}
	return nil
}

// Print writes the table for people, or as JSON.
func (t *Table) Print(out io.Writer, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(out)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return e.Encode(struct {
			OK      bool     `json:"ok"`
			Rows    []row    `json:"rows"`
			Remarks []string `json:"remarks"`
		}{len(t.Missed()) == 0, t.rows, t.remarks()})
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
func (t *Table) markdown() string {
	var b strings.Builder
	fmt.Fprintln(&b, "| measure | value | target | ok | |\n|---|--:|--:|---|---|")
	for _, r := range t.rows {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", r.Measure, r.shown, r.Target, mark(r.OK), r.Note)
	}
	fmt.Fprintln(&b, "\n"+strings.Join(t.remarks(), "\n"))
	return b.String()
}

// Keep replaces the table of this name in the README.
func (t *Table) Keep() error {
	const path = README
	old, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("keep the table: %w", err)
	}
	text, err := replace(string(old), t.name, t.markdown())
	if err != nil {
		return fmt.Errorf("keep the table in %s: %w", path, err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return fmt.Errorf("keep the table: %w", err)
	}
	return nil
}

// replace puts a table between the marks of its name in a text.
func replace(text, name, table string) (string, error) {
	beginMark, endMark := "<!-- "+name+" -->", "<!-- /"+name+" -->"
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

// MS prints a time in milliseconds.
func MS(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d.Microseconds())/1000) }

// Machine says what figures were measured on; engine is the Docker engine's version.
func Machine(engine string) string {
	var u unix.Utsname
	_ = unix.Uname(&u)
	return fmt.Sprintf("%d cores, Linux %s, %s, Docker %s.", runtime.NumCPU(), unix.ByteSliceToString(u.Release[:]), runtime.Version(), engine)
}

// Percentile returns the value that q percent of the sorted values do not exceed,
// by the nearest rank.
func Percentile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(q / 100 * float64(len(sorted))))
	return sorted[max(0, rank-1)]
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
