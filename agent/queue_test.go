package agent

import (
	"fmt"
	"testing"
)

// fill makes a state with n containers in line, of which the first have failed
// before.
func fill(workers, suspects, n int) *state {
	s := newState(LoopConfig{Workers: workers})
	s.session.up = true
	for i := range n {
		e := s.entry(fmt.Sprint(i))
		if i < suspects {
			e.fails = 1
		}
		s.markDirty(e)
	}
	return s
}

func TestQueue_Bounds(t *testing.T) {
	for _, tt := range []struct{ workers, suspects, n, want, wantSuspects int }{
		{16, 0, 100, 16, 0},
		{16, 100, 100, 4, 4}, // a quarter, and the rest stays free
		{16, 50, 100, 16, 4},
		{16, 2, 100, 16, 2},
		{1, 1, 2, 1, 1}, // one worker serves both
		{3, 3, 3, 1, 1},
		{16, 0, 3, 3, 0},
	} {
		s := fill(tt.workers, tt.suspects, tt.n)
		if got := len(s.pump()); got != tt.want || s.queue.suspects != tt.wantSuspects {
			t.Errorf("%+v: got %d, %d of them suspects", tt, got, s.queue.suspects)
		}
		if got := s.pump(); len(got) != 0 {
			t.Errorf("%+v: %d more without a free place", tt, len(got))
		}
	}
}

func TestQueue_FirstComeFirstServedAndEachOnce(t *testing.T) {
	s := fill(2, 0, 5)
	for range 3 { // in line already
		s.markDirty(s.entries["4"])
	}
	var order []string
	for {
		effects := s.pump()
		if len(effects) == 0 {
			break
		}
		for _, eff := range effects {
			in := eff.(doInspect)
			order = append(order, in.id)
			s.queue.done(in.mark)
		}
	}
	if got, want := fmt.Sprint(order), "[0 1 2 3 4]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if len(s.queue.inflight) != 0 || s.queue.suspects != 0 {
		t.Errorf("places are still taken: %+v", s.queue)
	}
}

func TestQueue_NothingWithoutAnEngine(t *testing.T) {
	s := fill(4, 0, 10)
	s.session.up = false
	if got := s.pump(); len(got) != 0 {
		t.Errorf("got %d inspects of an engine that is away", len(got))
	}
	s.session.up = true
	delete(s.entries, "0") // removed while it waited
	for _, eff := range s.pump() {
		if in := eff.(doInspect); in.id == "0" {
			t.Error("a removed container is inspected")
		}
	}
}
