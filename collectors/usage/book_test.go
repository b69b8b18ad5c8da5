package usage

import (
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/config"
	"github.com/berthd/berth/agent/journal"
)

// books is a book and the time of those who write into it.
type books struct {
	*Book
	t      testing.TB
	now    time.Time
	events []Event
	health *agent.Health
}

func newBooks(t testing.TB) *books {
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	w := &books{t: t, now: time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC), health: agent.NewHealth(log)}
	w.Book = NewBook(DefaultAdviceConfig(), agent.Env{Log: log, Health: w.health})
	w.OnEvent(func(e Event) { w.events = append(w.events, e) })
	return w
}

// box is a container of the tests.
type box struct {
	subject     Subject
	reservation Reservation
	run         agent.RunKey
	cores       float64
	throttled   [2]uint64 // of these periods in each measurement, these
	memory      uint64
	kills       uint64
	stalled     float64 // share of the time in which something waits for a CPU
}

func newBox(service string, reserved float64) *box {
	id := fmt.Sprintf("%-64s", service)
	return &box{
		subject:     Subject{ID: id, Name: service + "-1", Service: service},
		reservation: Reservation{Cores: reserved, CPUSource: SourceShares, MemorySource: SourceNone},
		run:         agent.RunKey{ID: id, StartedAt: 1},
	}
}

// pass lets time pass, in steps, with all boxes measured in each.
func (w *books) pass(d, step time.Duration, list ...*box) {
	for end := w.now.Add(d); w.now.Before(end); {
		w.now = w.now.Add(step)
		for _, b := range list {
			m := Measurement{
				Run: b.run, At: w.now, Window: step, Parts: HasThrottling | HasMemory | HasOOM,
				Used:   Counters{CPU: time.Duration(b.cores * float64(step)), Periods: b.throttled[1], Throttled: b.throttled[0], OOMKills: b.kills},
				Memory: b.memory,
			}
			b.kills = 0
			if b.stalled > 0 {
				m.Parts |= HasPressure
				m.Used.Stalled, m.StalledIn = time.Duration(b.stalled*float64(step)), step
			}
			w.Observe(&b.subject, &b.reservation, &m)
		}
		w.Tick(Totals{At: w.now})
	}
}

func (w *books) row(service string) Row {
	w.t.Helper()
	for _, r := range w.Report(w.now, true).Services {
		if r.Service == service {
			return r
		}
	}
	w.t.Fatalf("%s is not in the report", service)
	return Row{}
}

func codes(reasons []Reason) string {
	var list []string
	for _, r := range reasons {
		list = append(list, r.Code)
	}
	return strings.Join(list, " ")
}

// TestUndersized: five minutes below the band, and not four, make an event; the
// advice is above what is used; and the verdict stays until the reservation is
// raised, not until it is only a little less wrong.
func TestUndersized(t *testing.T) {
	w := newBooks(t)
	b := newBox("hungry", 0.5)
	b.cores = 0.8
	w.pass(4*time.Minute, 10*time.Second, b)
	if len(w.events) != 0 {
		t.Fatalf("after four minutes: %+v", w.events)
	}
	w.pass(2*time.Minute, 10*time.Second, b)
	if len(w.events) != 1 || w.events[0].Kind != Undersized || w.events[0].To < 0.8 || w.events[0].To > 0.9 {
		t.Fatalf("after six minutes: %+v", w.events)
	}
	row := w.row("hungry")
	if row.CPU.Verdict != Undersized || row.CPU.Advice == nil || !strings.Contains(codes(row.CPU.Reasons), CodeBelow) {
		t.Errorf("report: %+v", row.CPU)
	}
	b.cores = 0.5 // inside the band again
	w.pass(6*time.Hour, 10*time.Second, b)
	if got := w.row("hungry").CPU.Verdict; got != Undersized {
		t.Errorf("the peak of an hour ago fits no more, and the verdict is %s", got)
	}
	b.reservation.Cores = 0.85
	w.pass(time.Minute, 10*time.Second, b)
	if got := w.events[len(w.events)-1]; got.Kind != InBand {
		t.Errorf("after the reservation was raised: %+v", got)
	}
	for _, e := range w.events {
		if e.Title() == "" || e.Text() == "" {
			t.Errorf("an event says nothing: %+v", e)
		}
	}
}

// TestOversized: only after a day above the band, and with a day of history; and
// once.
func TestOversized(t *testing.T) {
	w := newBooks(t)
	b := newBox("idle", 2)
	b.cores = 0.02
	w.pass(23*time.Hour, time.Minute, b)
	if row := w.row("idle"); len(w.events) != 0 || row.CPU.Verdict != StillLearning || row.CPU.Advice != nil {
		t.Fatalf("after 23 hours: %+v %+v", w.events, row.CPU)
	}
	w.pass(40*time.Hour, time.Minute, b)
	row := w.row("idle")
	if len(w.events) != 1 || row.CPU.Verdict != Oversized || *row.CPU.Advice > 0.03 {
		t.Fatalf("after two days: %+v %+v", w.events, row.CPU)
	}
	if sums := Sum([]Row{row}); sums.FreeCores < 1.9 {
		t.Errorf("free: %+v", sums)
	}
}

// TestNightlyJobIsNoWaste: a container that is idle but for an hour a night is
// above the band all day, and yet reserves what it needs.
func TestNightlyJobIsNoWaste(t *testing.T) {
	w := newBooks(t)
	b := newBox("batch", 2)
	for range 4 {
		b.cores = 0.05
		w.pass(23*time.Hour, time.Minute, b)
		b.cores = 1.9
		w.pass(time.Hour, time.Minute, b)
	}
	b.cores = 0.05
	w.pass(12*time.Hour, time.Minute, b)
	for _, e := range w.events {
		if e.Kind == Oversized && e.At.After(time.Date(2026, 3, 3, 1, 0, 0, 0, time.UTC)) {
			t.Errorf("%+v", e)
		}
	}
	if row := w.row("batch"); row.CPU.Verdict != InBand || *row.CPU.Advice < 1.85 {
		t.Errorf("%+v", row.CPU)
	}
}

// TestPitfall_usage05_AverageHidesThrottling: 0.10 of 0.5 cores, in the band, and
// yet stopped in 10 of 43 active periods.
func TestPitfall_usage05_AverageHidesThrottling(t *testing.T) {
	w := newBooks(t)
	b := newBox("burst", 0.5)
	b.reservation.CPUSource, b.reservation.CPULimit = SourceCPUs, 0.5
	b.cores, b.throttled = 0.1, [2]uint64{10, 43}
	w.pass(10*time.Minute, 10*time.Second, b)
	row := w.row("burst")
	if row.CPU.Verdict != Undersized || *row.CPU.Advice < 0.6 || !strings.Contains(codes(row.CPU.Reasons), CodeThrottled) {
		t.Errorf("%+v", row.CPU)
	}
	if f := *row.CPU.LyingFactor; f < 0 {
		t.Errorf("the lying factor alone would have told: %v", f)
	}
	if !near(*row.CPU.Throttled, 10.0/43, 0.01) {
		t.Errorf("throttled: %v", *row.CPU.Throttled)
	}
	// It is never advised down while that was of late, however idle it is.
	b.cores, b.throttled = 0.01, [2]uint64{0, 3}
	w.pass(20*time.Hour, time.Minute, b)
	if row := w.row("burst"); row.CPU.Verdict == Oversized {
		t.Errorf("advised down 20 hours after it was throttled: %+v", row.CPU)
	}
	// Nor where the limit is far below what is reserved, until a day has passed.
	w = newBooks(t)
	w.cfg.OversizedAfter = config.Duration(time.Hour)
	b.reservation.Cores = 4
	w.pass(30*time.Hour, time.Minute, b)
	b.throttled = [2]uint64{10, 43}
	w.pass(10*time.Minute, 10*time.Second, b)
	b.throttled = [2]uint64{0, 3}
	w.pass(20*time.Hour, time.Minute, b)
	if row := w.row("burst"); row.CPU.Verdict == Oversized {
		t.Errorf("advised down 20 hours after it was throttled: %+v", row.CPU)
	}
	w.pass(8*time.Hour, time.Minute, b)
	if row := w.row("burst"); row.CPU.Verdict != Oversized {
		t.Errorf("more than a day after it was throttled: %+v", row.CPU)
	}
	// Without a limit, the kernel's figure says nothing.
	w = newBooks(t)
	b.reservation.Cores = 0.5
	b.reservation.CPULimit, b.throttled = 0, [2]uint64{10, 43}
	w.pass(10*time.Minute, 10*time.Second, b)
	if row := w.row("burst"); row.CPU.Verdict == Undersized || row.CPU.Throttled != nil {
		t.Errorf("without a limit: %+v", row.CPU)
	}
}

// TestPitfall_usage14_OOMAdvice: a kill is advice at once, also of a container
// that was never measured; a loop of kills does not inflate it; and it is
// forgotten eight days after the last one.
func TestPitfall_usage14_OOMAdvice(t *testing.T) {
	w := newBooks(t)
	b := newBox("greedy", 1)
	b.reservation.Memory, b.reservation.MemoryLimit, b.reservation.MemorySource = 256<<20, 256<<20, SourceLimit
	want := uint64(320 << 20) // 64 MiB are more than a fifth
	for i := range 50 {
		w.now = w.now.Add(time.Minute)
		run := agent.RunKey{ID: b.run.ID, StartedAt: int64(i)}
		w.Ended(&b.subject, &b.reservation, Ending{Run: run, At: w.now, ExitCode: 137, OOMKilled: true})
		w.Tick(Totals{At: w.now})
		row := w.row("greedy")
		if row.Memory.Verdict != Undersized || row.Memory.Advice == nil || *row.Memory.Advice != want {
			t.Fatalf("after %d kills: %+v", i+1, row.Memory)
		}
	}
	if row := w.row("greedy"); !near(float64(row.Memory.OOMKills), 50, 0.001) || !strings.Contains(codes(row.Memory.Reasons), CodeOOM) {
		t.Errorf("%+v", row.Memory)
	}
	if len(w.events) != 1 {
		t.Errorf("one kill is like the other: %d events", len(w.events))
	}
	// A child that was killed counts, too, and its container goes on.
	b.reservation.Memory, b.reservation.MemoryLimit = 1<<30, 1<<30
	b.memory, b.kills = 900<<20, 1
	w.pass(time.Minute, 10*time.Second, b)
	if row := w.row("greedy"); *row.Memory.Advice < 1<<30+1<<27 {
		t.Errorf("after the kill of a child at 1 GiB: %+v", row.Memory)
	}
	b.memory = 100 << 20
	w.pass(9*24*time.Hour, 10*time.Minute, b)
	if row := w.row("greedy"); row.Memory.Verdict == Undersized || *row.Memory.Advice > 128<<20 {
		t.Errorf("nine days later: %+v", row.Memory)
	}
}

// TestMemory: too little by the highest working set, and too much.
func TestMemory(t *testing.T) {
	w := newBooks(t)
	b := newBox("cache", 1)
	b.reservation.Memory, b.reservation.MemorySource, b.memory = 512<<20, SourceSoft, 600<<20
	w.pass(10*time.Minute, 10*time.Second, b)
	if row := w.row("cache"); row.Memory.Verdict != Undersized || *row.Memory.Advice != uint64(roundMemory(600*1.15*(1<<20))) {
		t.Errorf("%+v", row.Memory)
	}
	b.memory, b.reservation.Memory = 100<<20, 2<<30
	w.pass(60*time.Hour, time.Minute, b)
	if row := w.row("cache"); row.Memory.Verdict != Oversized || *row.Memory.Advice != uint64(roundMemory(600*1.15*(1<<20))) {
		t.Errorf("%+v", row.Memory)
	}
}

// TestPitfall_usage10_ClockJumps: a clock that is wrong for a minute makes nothing
// old, one that goes back moves the history with it, and time stands still for
// small steps back.
func TestPitfall_usage10_ClockJumps(t *testing.T) {
	w := newBooks(t)
	b := newBox("steady", 1)
	b.cores = 0.9
	w.pass(30*time.Hour, time.Minute, b)
	known := w.row("steady").HistoryHours
	real := w.now
	for _, wrong := range []time.Duration{100 * 365 * 24 * time.Hour, -56 * 365 * 24 * time.Hour} {
		w.now = real.Add(wrong)
		w.pass(time.Minute, 10*time.Second, b)
		real = real.Add(time.Minute)
		w.now = real
		w.pass(time.Minute, 10*time.Second, b)
		real = real.Add(time.Minute)
		if got := w.row("steady"); got.HistoryHours < known || len(w.events) != 0 {
			t.Fatalf("a clock that was wrong by %v for a minute left %v of %v hours, and %+v", wrong, got.HistoryHours, known, w.events)
		}
	}
	w.now = w.now.Add(-5 * time.Hour)
	w.pass(30*time.Minute, time.Minute, b)
	got := w.row("steady")
	if got.HistoryHours < known-1 || w.stats.clockSteps != 1 {
		t.Errorf("five hours back: %v of %v hours, %d steps", got.HistoryHours, known, w.stats.clockSteps)
	}
	if end := got.Hours.Start.Add(time.Duration(len(got.Hours.Used)) * time.Hour); end.After(w.now.Add(time.Hour)) {
		t.Errorf("the history ends at %v, and it is %v", end, w.now)
	}
	before := w.clock.at
	w.now = w.now.Add(-30 * time.Minute)
	w.pass(10*time.Minute, time.Minute, b)
	if w.clock.at.Before(before) {
		t.Error("time went back")
	}
	// A step that stays is followed.
	w.now = w.now.Add(20 * 24 * time.Hour)
	w.pass(30*time.Minute, time.Minute, b)
	if got := w.row("steady").HistoryHours; got > 2 {
		t.Errorf("20 days later: %v hours", got)
	}
}

// TestPitfall_usage16_NegativeIsLegal: with shares alone a container may use more
// than it reserves; that is a figure, and no error.
func TestPitfall_usage16_NegativeIsLegal(t *testing.T) {
	w := newBooks(t)
	b := newBox("shares", 0.25)
	b.cores = 3
	w.pass(20*time.Minute, 10*time.Second, b)
	row := w.row("shares")
	if row.CPU.LyingFactor == nil || !near(*row.CPU.LyingFactor, -2.75, 0.01) || w.stats.refused != 0 {
		t.Errorf("%+v, %d refused", row.CPU, w.stats.refused)
	}
	if row.CPU.Verdict != Undersized || *row.CPU.Advice < 3 {
		t.Errorf("%+v", row.CPU)
	}
}

func TestUnreserved(t *testing.T) {
	w := newBooks(t)
	b := newBox("free", 0)
	b.reservation.CPUSource, b.cores = SourceNone, 1.5
	w.pass(10*time.Minute, 10*time.Second, b)
	if row := w.row("free"); row.CPU.Verdict != NotReserved || row.CPU.LyingFactor != nil || row.CPU.Advice != nil {
		t.Errorf("%+v", row.CPU)
	}
	w.pass(25*time.Hour, time.Minute, b)
	if row := w.row("free"); row.CPU.Advice == nil || !near(*row.CPU.Advice, 1.5, 0.06) || len(w.events) != 0 {
		t.Errorf("%+v %+v", row.CPU, w.events)
	}
}

// TestObserveDoesNotAllocate: not for a container that is known, or a host with
// many would spend its time collecting garbage.
func TestObserveDoesNotAllocate(t *testing.T) {
	w := newBooks(t)
	b := newBox("web", 1)
	b.cores = 0.5
	w.pass(time.Minute, 10*time.Second, b)
	m := Measurement{Run: b.run, Window: 10 * time.Second, Parts: HasMemory | HasThrottling | HasPressure | HasOOM, Used: Counters{CPU: time.Second}, Memory: 1e8}
	allocs := testing.AllocsPerRun(2000, func() {
		w.now = w.now.Add(10 * time.Second)
		m.At = w.now
		w.Observe(&b.subject, &b.reservation, &m)
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

// TestManyContainers: 5,000 containers of as many services stay within bounds,
// in memory and on disk.
func TestManyContainers(t *testing.T) {
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	w := newBooks(t)
	var list []*box
	for i := range 5000 {
		b := newBox(fmt.Sprintf("service-%d", i), 1)
		b.cores, b.memory = float64(i)/1000, uint64(i)<<20
		list = append(list, b)
	}
	before := heap()
	w.pass(5*time.Hour, time.Hour, list[:mostServices]...)
	per := float64(heap()-before) / mostServices
	t.Logf("%.0f bytes for a service and its container", per)
	if per > 9000 {
		t.Errorf("%.0f bytes for a service and its container", per)
	}
	w.pass(3*time.Minute, time.Minute, list...)
	if len(w.services) > mostServices || w.stats.evicted == 0 {
		t.Errorf("%d services, %d evicted", len(w.services), w.stats.evicted)
	}
	// The worst that a service can be, on disk.
	for _, s := range w.services {
		for i := range s.history.past {
			s.history.past[i] = hour{1, 1, 1, 1, 1, 1, 1, 1, 1, 1}
		}
		for _, h := range []*histogram{&s.cores, &s.memory, &s.history.current.cores} {
			for i := range h.weights {
				h.weights[i] = 1
			}
		}
	}
	if n := len(w.encode()); n > journal.MaxEntry {
		t.Errorf("a snapshot of %d bytes", n)
	}
	runtime.KeepAlive(list)
}

// TestRestart: what a report says is the same after a restart; baselines too, but
// for another boot.
func TestRestart(t *testing.T) {
	w := newBooks(t)
	w.path, w.boot = filepath.Join(t.TempDir(), "usage.journal"), "boot-1"
	w.Open()
	b, idle := newBox("hungry", 0.5), newBox("idle", 2)
	b.cores, b.memory, idle.cores = 0.8, 1e8, 0.01
	w.pass(60*time.Hour, time.Minute, b, idle)
	m := Measurement{Run: b.run, At: w.now, Window: time.Minute, Used: Counters{CPU: 48 * time.Second}, Total: Baseline{At: w.now, Parts: HasNet, Total: Counters{CPU: time.Hour, NetRx: 7}}}
	w.Observe(&b.subject, &b.reservation, &m)
	w.Tick(Totals{At: w.now})
	want := w.Report(w.now, true)
	w.save()
	if err := w.journal.Close(); err != nil {
		t.Fatal(err)
	}

	open := func(boot string) *books {
		n := newBooks(t)
		n.path, n.boot, n.now = w.path, boot, w.now
		n.Open()
		t.Cleanup(func() { n.journal.Close() })
		return n
	}
	n := open("boot-1")
	n.Tick(Totals{At: n.now})
	got := n.Report(n.now, true)
	near64 := func(a, b float64) bool {
		return math.Abs(a-b) <= 1e-3*math.Abs(b) || math.IsNaN(a) && math.IsNaN(b)
	}
	near := cmp.Comparer(near64)
	bytes := cmp.Comparer(func(a, b uint64) bool { return near64(float64(a), float64(b)) })
	if diff := cmp.Diff(want, got, near, bytes); diff != "" {
		t.Errorf("the report has changed (-before +after):\n%s", diff)
	}
	if len(n.events) != 0 {
		t.Errorf("a restart makes events: %+v", n.events)
	}
	base, ok := n.Baseline(b.run)
	if !ok || !cmp.Equal(base, m.Total) {
		t.Errorf("baseline: %+v %v", base, ok)
	}
	n.journal.Close()
	n = open("boot-2")
	if _, ok := n.Baseline(b.run); ok || len(n.containers) != 0 {
		t.Error("containers of another boot are there")
	}
	if len(n.services) != 2 {
		t.Errorf("%d services after another boot", len(n.services))
	}
}

// hostNode is a node whose identity is known, or not yet.
type hostNode struct{ id string }

func (h *hostNode) Node() agent.Node         { return agent.Node{ID: h.id} }
func (h *hostNode) Changed() <-chan struct{} { return nil }
func (h *hostNode) StateHost() string        { return h.id }

// TestOtherHost: the statistics of another host, in a baked image, are forgotten,
// also when who this host is becomes known late.
func TestOtherHost(t *testing.T) {
	for _, late := range []bool{false, true} {
		w := newBooks(t)
		node := &hostNode{"i-1"}
		w.path, w.node = filepath.Join(t.TempDir(), "usage.journal"), node
		w.Open()
		b := newBox("web", 1)
		w.pass(3*time.Hour, time.Minute, b)
		w.save()
		w.journal.Close()

		n := newBooks(t)
		other := &hostNode{"i-2"}
		if late {
			other.id = ""
		}
		n.path, n.node, n.now = w.path, other, w.now
		n.Open()
		if got := len(n.services); late && got != 1 || !late && got != 0 {
			t.Errorf("late %v: %d services at the start", late, got)
		}
		other.id = "i-2"
		n.save()
		if len(n.services) != 0 {
			t.Errorf("late %v: %d services of another host", late, len(n.services))
		}
		n.journal.Close()
	}
}

// TestDiskFull: a save that fails is a condition, leaves the snapshot before it,
// and is tried again.
func TestDiskFull(t *testing.T) {
	w := newBooks(t)
	dir := t.TempDir()
	w.path = filepath.Join(dir, "usage.journal")
	w.Open()
	b := newBox("web", 1)
	w.pass(time.Hour, time.Minute, b)
	w.save()
	saved, err := os.ReadFile(w.path)
	if err != nil {
		t.Fatal(err)
	}
	// A folder in the place of the temporary file fails as a full disk does.
	obstacle := filepath.Join(dir, "usage.journal.new")
	if err := os.MkdirAll(filepath.Join(obstacle, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	w.pass(time.Hour, time.Minute, b)
	w.save()
	if w.health.Err(Name) == nil || w.stats.failed != 1 {
		t.Error("a save that failed is no condition")
	}
	if now, err := os.ReadFile(w.path); err != nil || string(now) != string(saved) {
		t.Errorf("the old snapshot is not intact: %v", err)
	}
	os.RemoveAll(obstacle)
	w.save()
	if err := w.health.Err(Name); err != nil {
		t.Errorf("the condition stays: %v", err)
	}
	w.journal.Close()
}

// FuzzSnapshot: whatever a file holds, it is read or refused.
func FuzzSnapshot(f *testing.F) {
	w := newBooks(f)
	b := newBox("web", 1)
	b.cores, b.memory = 0.5, 1e8
	w.pass(3*time.Hour, time.Minute, b)
	whole := w.encode()
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add([]byte{})
	f.Add([]byte{2})
	f.Fuzz(func(t *testing.T, data []byte) {
		w := newBooks(t)
		if w.decode(data) != nil {
			w.forgetAll()
		}
		w.pass(time.Minute, 20*time.Second, newBox("web", 1))
		_ = w.Report(w.now, true)
	})
}

// TestVerdictOnAContainer: it is that on its service, but for a container that has
// a reservation of another kind, or already the one that is advised.
func TestVerdictOnAContainer(t *testing.T) {
	for _, tc := range []struct {
		verdict, source  string
		reserved, advice float64
		want, code       string
	}{
		{Undersized, SourceShares, 1, 2, Undersized, ""},
		{Undersized, SourceShares, 2, 2, InBand, CodeWithin},
		{Oversized, SourceShares, 2, 1, Oversized, ""},
		{Oversized, SourceShares, 0.5, 1, InBand, CodeWithin},
		{InBand, SourceShares, 1, 1, InBand, ""},
		{StillLearning, SourceShares, 1, 0, StillLearning, ""},
		{Oversized, SourceNone, 0, 1, NotReserved, CodeNone},
		{NotReserved, SourceNone, 0, 1, NotReserved, ""},
		{NotReserved, SourceShares, 1, 1, StillLearning, CodeShort},
	} {
		if got, why := verdictOf(tc.verdict, tc.source, tc.reserved, tc.advice); got != tc.want || why.Code != tc.code {
			t.Errorf("%+v: got %s, %+v", tc, got, why)
		}
	}

	w := newBooks(t)
	b := newBox("web", 0.1)
	b.cores = 1
	other := newBox("web", 2)
	other.run.ID, other.subject.ID, other.subject.Name, other.cores = "2", "2", "web-2", 1
	w.pass(time.Hour, 10*time.Second, other, b)
	for _, row := range w.Report(w.now, false).Containers {
		want := Undersized
		if row.Container == "web-2" {
			want = InBand
		}
		if row.CPU.Verdict != want {
			t.Errorf("%s reserves %v: got %s for %+v, want %s", row.Container, row.CPU.Reserved, row.CPU.Verdict, row.CPU.Reasons, want)
		}
	}
}

// TestHourly: what to reserve just now follows the hours of the day, and is not
// told before they are known, nor unless it is asked for.
func TestHourly(t *testing.T) {
	w := newBooks(t)
	w.cfg.Hourly = true
	b := newBox("night", 2)
	day := func() {
		for hour := range 24 {
			b.cores = 0.2
			if hour == 12 {
				b.cores = 1
			}
			w.pass(time.Hour, time.Minute, b)
		}
	}
	w.now = w.now.UTC().Truncate(24 * time.Hour)
	b.cores = 0.2
	w.pass(23*time.Hour, time.Minute, b)
	if got := w.row("night").CPU.AdviceNow; got != nil {
		t.Errorf("got %v of a day that is not over", *got)
	}
	w.pass(time.Hour, time.Minute, b)
	day()
	day()
	for hour := range 24 {
		b.cores = 0.2
		w.pass(time.Hour-time.Minute, time.Minute, b)
		want := 0.2
		if hour >= 10 && hour <= 12 { // it looks ahead
			want = 1
		}
		got := w.row("night").CPU.AdviceNow
		if got == nil || !near(*got, want, 0.06) {
			t.Errorf("%d o'clock: got %v, want %v cores", hour, got, want)
		}
		w.pass(time.Minute, time.Minute, b)
	}
	if w.cfg.Hourly = false; w.row("night").CPU.Advice == nil {
		t.Error("there is no other advice")
	}
	w.pass(2*time.Minute, time.Minute, b)
	if got := w.row("night").CPU.AdviceNow; got != nil {
		t.Errorf("got %v, and nobody asks", *got)
	}
}

// TestHourlyOfUnknownHours: an hour that has never been seen may be the one that
// matters.
func TestHourlyOfUnknownHours(t *testing.T) {
	h := newHistory()
	const first = 24 * 1000
	for i := range int64(48) {
		h.turn(first + i)
		if i%24 < 20 {
			h.current.cores.add(0.2, 3600)
			h.current.seconds = 3600
		}
	}
	h.turn(first + 48 + 10)
	if got := h.hourly(); !near(got, 0.2, 0.06) {
		t.Errorf("got %v cores for 10 to 12 o'clock, want 0.2", got)
	}
	h.turn(first + 48 + 18)
	if got := h.hourly(); got != 0 {
		t.Errorf("got %v cores for 18 to 20 o'clock, of which nothing is known", got)
	}
}
