package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"

	"golang.org/x/sys/unix"
)

// readme is where -write keeps the table, seen from the module's root, and the
// marks between which.
const (
	readme    = "test/bench/README.md"
	beginMark = "<!-- prune -->"
	endMark   = "<!-- /prune -->"
)

type row struct {
	measure, value, target string
	ok                     bool
	note                   string
}

type table struct {
	rows  []row
	notes []string
}

// median returns that of each kind.
func median(all []cost) cost {
	var walls, cpus []float64
	for _, c := range all {
		walls, cpus = append(walls, c.wall), append(cpus, c.cpu)
	}
	slices.Sort(walls)
	slices.Sort(cpus)
	return cost{walls[len(walls)/2], cpus[len(cpus)/2]}
}

func ms(seconds float64) string { return fmt.Sprintf("%.1f ms", 1000*seconds) }

// table sums up the measurements.
func (w *world) table() *table {
	t := new(table)
	// Of a process, less what its runtime takes to start and end.
	net := func(name string) cost {
		b := median(w.rows[name])
		if start := w.rows[strings.Fields(name)[0]+" start"]; len(start) > 0 {
			s := median(start)
			b = cost{b.wall - s.wall, b.cpu - s.cpu}
		}
		return b
	}
	plain := func(name string) {
		if all := w.rows[name]; len(all) > 0 {
			b := net(name)
			t.rows = append(t.rows, row{name, ms(b.wall), "", true, ms(b.cpu) + " of CPU"})
		}
	}
	ratio := func(measure, slow, fast string, least float64) {
		if len(w.rows[slow]) == 0 {
			t.rows = append(t.rows, row{measure, "not measured", fmt.Sprintf("≥ %v", least), false, "no ruby here: make setup-bench"})
			return
		}
		s, f := net(slow), net(fast)
		r := s.wall / f.wall
		t.rows = append(t.rows, row{measure, fmt.Sprintf("%.2f", r), fmt.Sprintf("≥ %v", least), r >= least, fmt.Sprintf("%.2f by CPU", s.cpu/f.cpu)})
	}
	for _, what := range []string{" scan", " delete"} {
		for _, who := range []string{"ruby", "baseline", "berth", "berth, default glob", "berth, engine that answers at once"} {
			plain(who + what)
		}
	}
	plain("floor delete")
	ratio("scan: ruby / berth", "ruby scan", "berth scan", 2)
	ratio("delete: ruby / berth", "ruby delete", "berth delete", 3)
	ratio("delete: unsafe baseline / berth", "baseline delete", "berth delete", 0.8)
	t.most("scan of 100,000 folders", w.large.Seconds, 1.5, "s", "%d found", w.large.Folders)
	t.most("resident memory of that process, at most", float64(w.large.RSS)/1e6, 30, "MB", "")
	t.most("CPU in ten idle minutes with 1,000 folders", 1000*w.idle.CPU, 5, "ms", "%.1f ms of it in wake-ups", 1000*w.idle.Seconds)
	ruby := "no ruby"
	if w.ruby != "" {
		ruby = "ruby " + w.ruby
	}
	var u unix.Utsname
	_ = unix.Uname(&u)
	t.notes = append(t.notes, fmt.Sprintf("%s, %d rounds, on %s. %d cores, Linux %s, %s, %s. Load average before: %s.",
		w.began.UTC().Format("2006-01-02 15:04 UTC"), w.s.rounds, fileSystem(w.dir), runtime.NumCPU(), unix.ByteSliceToString(u.Release[:]), runtime.Version(), ruby, w.load))
	return t
}

func (t *table) most(measure string, got, want float64, unit, note string, args ...any) {
	t.rows = append(t.rows, row{measure, fmt.Sprintf("%.3g %s", got, unit), fmt.Sprintf("≤ %v %s", want, unit), got <= want, fmt.Sprintf(note, args...)})
}

func (t *table) missed() []string {
	var out []string
	for _, r := range t.rows {
		if !r.ok {
			out = append(out, r.measure)
		}
	}
	return out
}

func mark(r row) string {
	switch {
	case r.target == "":
		return ""
	case r.ok:
		return "yes"
	}
	return "NO"
}

func (t *table) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "measure\tvalue\ttarget\tok\t")
	for _, r := range t.rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.measure, r.value, r.target, mark(r), r.note)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(out, "\n"+strings.Join(t.notes, "\n"))
	return err
}

// keep replaces the table in the README.
func (t *table) keep() error {
	old, err := os.ReadFile(readme)
	if err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintln(&b, "| measure | value | target | ok | |\n|---|--:|--:|---|---|")
	for _, r := range t.rows {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", r.measure, r.value, r.target, mark(r), r.note)
	}
	fmt.Fprintln(&b, "\n"+strings.Join(t.notes, "\n"))
	head, rest, found := strings.Cut(string(old), beginMark)
	_, tail, closed := strings.Cut(rest, endMark)
	if !found || !closed {
		return errors.New("the marks of the table are missing in " + readme)
	}
	return os.WriteFile(readme, []byte(head+beginMark+"\n"+b.String()+endMark+tail), 0o644)
}

// fileSystem names that of a folder.
func fileSystem(dir string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "an unknown file system"
	}
	if name, ok := map[int64]string{
		unix.EXT4_SUPER_MAGIC: "ext4", unix.TMPFS_MAGIC: "tmpfs", unix.XFS_SUPER_MAGIC: "xfs",
		unix.BTRFS_SUPER_MAGIC: "btrfs", unix.OVERLAYFS_SUPER_MAGIC: "overlayfs",
	}[st.Type]; ok {
		return name
	}
	return fmt.Sprintf("file system %#x", st.Type)
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
