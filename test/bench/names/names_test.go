package main

import (
	"testing"
	"time"

	"github.com/berthd/berth/test/fakeaws"
)

// TestBound: what a span of events may cost is one call at once and one for each
// window that it touches.
func TestBound(t *testing.T) {
	for span, want := range map[time.Duration]int{0: 0, 1: 1, window: 1, window + 1: 2, 10 * time.Second: 40} {
		if got := windows(span); got != want {
			t.Errorf("%v touches %d windows, want %d", span, got, want)
		}
	}
	if got := (counts{starts: window, stops: 2 * window}).bound(); got != 5 {
		t.Errorf("bound: got %d, want 5", got)
	}
}

// TestArrivals: the first change of a name, of either kind, and of no other name.
func TestArrivals(t *testing.T) {
	var a arrivals
	at := time.Now()
	made, gone, other := a.expect("CREATE", "a"), a.expect("DELETE", "a"), a.expect("CREATE", "b")
	a.note(fakeaws.Arrival{At: at, Changes: []string{"UPSERT _a._tcp.berth.example. SRV", "CREATE b.berth.example. SRV"}})
	a.note(fakeaws.Arrival{At: at.Add(1), Changes: []string{"CREATE _a._tcp.berth.example. SRV", "DELETE _a._tcp.berth.example. SRV"}})
	if got := <-made; !got.Equal(at) {
		t.Errorf("made at %v, want %v", got, at)
	}
	if got := <-gone; !got.Equal(at.Add(1)) {
		t.Errorf("gone at %v, want %v", got, at.Add(1))
	}
	select {
	case <-other:
		t.Error("a change of a's plain name is told as one of b")
	default:
	}
}

func TestDescribe(t *testing.T) {
	calls := map[string]int{"ListHostedZonesByName": 1, "GetChange": 2}
	if got, want := describe(calls), "2 GetChange, 1 ListHostedZonesByName"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := total(calls); got != 3 {
		t.Errorf("total: got %d, want 3", got)
	}
	if got := median([]float64{3, 1, 2}); got != 2 {
		t.Errorf("median: got %v, want 2", got)
	}
}
