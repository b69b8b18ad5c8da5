package usage

import (
	"strings"
	"testing"
	"time"
)

// TestMixedReservations: while a new version is rolled out, the containers of a
// service reserve different amounts. What one of them lacks is told, and made good,
// with its own reservation and not with that of another.
func TestMixedReservations(t *testing.T) {
	w := newBooks(t)
	small, large := newBox("mixed", 0.1), newBox("mixed", 1)
	large.run.ID = strings.Repeat("b", 64)
	large.subject.ID, large.subject.Name = large.run.ID, "mixed-2"
	small.cores, small.stalled = 0.28, 0.5
	large.cores = 0.05
	small.reservation.MemorySource, small.reservation.Memory = SourceSoft, 64<<20
	large.reservation.MemorySource, large.reservation.Memory = SourceSoft, 192<<20
	w.pass(10*time.Minute, 10*time.Second, small, large) // the large one is the newest
	row := w.row("mixed")
	if row.CPU.Verdict != Undersized || row.CPU.Advice == nil || *row.CPU.Advice < 0.28 || *row.CPU.Advice > 0.4 {
		t.Errorf("a container that uses 0.28 cores of 0.1: %s, advice %v; want %s, and 0.28 to 0.4", row.CPU.Verdict, row.CPU.Advice, Undersized)
	}
	if why := row.CPU.Reasons[0].Why; !strings.Contains(why, "0.10 cores that it reserves") {
		t.Errorf("the reason is %q, want the reservation of the container that it is about", why)
	}
	if got, want := row.Memory.Reserved, uint64(128<<20); got != want {
		t.Errorf("got %d bytes reserved by each, want the mean %d", got, want)
	}

	// One that reserves nothing has no lying factor to spoil that of the others.
	w = newBooks(t)
	free := newBox("mixed", 0)
	free.reservation.CPUSource, free.cores = SourceNone, 3
	large.cores = 0.9
	w.pass(10*time.Minute, 10*time.Second, free, large)
	if got := w.row("mixed").CPU; strings.Contains(codes(got.Reasons), CodeBelow) {
		t.Errorf("beside a container that reserves nothing: %+v", got.Reasons)
	}
}
