package usage

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/berthd/berth/agent"
)

// TestRunKeeps: the book is on disk after a minute, and what came since is when
// it ends.
func TestRunKeeps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "usage.journal")
	synctest.Test(t, func(t *testing.T) {
		w := newBooks(t)
		w.path, w.boot, w.now = path, "boot", time.Now()
		w.Open()
		b := newBox("web", 1)
		b.cores = 0.5
		w.pass(time.Minute, 10*time.Second, b)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		time.Sleep(61 * time.Second)
		synctest.Wait()
		if w.stats.saves != 1 {
			t.Errorf("after a minute: %d saves", w.stats.saves)
		}
		w.pass(time.Minute, 10*time.Second, b)
		want := w.Report(w.now, false)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}

		n := newBooks(t)
		n.path, n.boot = path, "boot"
		n.Open() // it is unlocked
		n.Tick(Totals{At: w.now})
		got := n.Report(w.now, false)
		if len(got.Containers) != 1 || !near(got.Containers[0].CPU.Hourly, want.Containers[0].CPU.Hourly, 1e-6) {
			t.Errorf("got %+v, want %+v", got.Containers, want.Containers)
		}
		n.journal.Close()
	})
}

// TestRestartInTheMiddle: a gap is one measurement; it adds to what was used, and
// makes no peak.
func TestRestartInTheMiddle(t *testing.T) {
	w := newBooks(t)
	b := newBox("web", 1)
	b.cores = 0.5
	w.pass(3*time.Hour, time.Minute, b)
	w.now = w.now.Add(5 * time.Hour)
	m := Measurement{Run: b.run, At: w.now, Window: 5 * time.Hour, Gap: true, Used: Counters{CPU: time.Hour}}
	// The clock was not looked at for five hours: it is believed after a while.
	w.clock.started = false
	w.Observe(&b.subject, &b.reservation, &m)
	w.pass(time.Minute, 10*time.Second, b)
	row := w.row("web")
	var used float64
	for i, u := range row.Hours.Used {
		used += u * row.Hours.Containers[i]
	}
	if !near(used, 3*0.5+1+0.5, 0.01) {
		t.Errorf("%v core-hours, of %v", used, row.Hours.Used)
	}
	if row.CPU.Max > 0.51 || row.HistoryHours < 8 {
		t.Errorf("%+v", row)
	}
}

// BenchmarkSweep is what a sweep of 100 containers costs beyond its readings.
func BenchmarkSweep(b *testing.B) {
	w := newBooks(b)
	var list []*box
	for i := range 100 {
		x := newBox(fmt.Sprintf("service-%d", i), 1)
		x.cores, x.memory = float64(i)/100, 1e8
		list = append(list, x)
	}
	w.pass(30*time.Hour, time.Hour, list...)
	m := Measurement{Window: 10 * time.Second, Parts: HasMemory | HasThrottling, Used: Counters{CPU: time.Second}, Memory: 1e8}
	b.ReportAllocs()
	for b.Loop() {
		w.now = w.now.Add(10 * time.Second)
		m.At = w.now
		for _, x := range list {
			m.Run = x.run
			w.Observe(&x.subject, &x.reservation, &m)
		}
		w.Tick(Totals{At: w.now})
	}
}

var _ keeper = (*Book)(nil)

var (
	_ book          = (*Book)(nil)
	_ reporter      = (*Book)(nil)
	_ agent.Metered = (*Book)(nil)
)
