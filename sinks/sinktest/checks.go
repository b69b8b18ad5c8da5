package sinktest

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/berthd/berth/agent"
)

// recordCheck is one thing that every record sink must do.
type recordCheck struct {
	name string
	run  func(h *harness) error
}

var recordChecks = []recordCheck{
	{"InitialSet", checkInitialSet},
	{"AddChangeDelete", checkAddChangeDelete},
	{"Partial", checkPartial},
	{"PartialAfterRestart", checkPartialAfterRestart},
	{"Burst", checkBurst},
	{"CancelRemovesNothing", checkCancel},
	{"Resume", checkResume},
	{"BackendFails", checkBackendFails},
	{"AnyTwoSets", checkAnyTwoSets},
}

// holds compares what the outside world holds with these records.
func (h *harness) holds(want []agent.Record) error {
	got, err := h.held()
	if err != nil {
		return err
	}
	if d := difference(got, want); d != "" {
		return errors.New("wrong records:" + d)
	}
	return nil
}

// held returns what the outside world holds, sorted.
func (h *harness) held() ([]agent.Record, error) {
	got, err := h.Held(h.ctx)
	if err != nil {
		return nil, fmt.Errorf("read what is held: %w", err)
	}
	slices.SortFunc(got, agent.Record.Compare)
	for i := 1; i < len(got); i++ {
		if got[i] == got[i-1] {
			return nil, fmt.Errorf("held twice: %s", got[i])
		}
	}
	return got, nil
}

// reaches applies set and compares what is held with it.
func (h *harness) reaches(set agent.RecordSet) error {
	if err := h.apply(set); err != nil {
		return err
	}
	return h.holds(set.Records)
}

// checkInitialSet: the set that is there when Run starts is applied, and none
// is claimed before.
func checkInitialSet(h *harness) error {
	if got := h.Sink.Applied(); got != 0 {
		return fmt.Errorf("applied is %d before Run, want 0", got)
	}
	want := set(srv(0, 32768), srv(0, 32769), srv(1, 32770), address(target(), "192.0.2.1"))
	seq := h.publish(want)
	h.start()
	if err := h.await(seq); err != nil {
		return err
	}
	return h.holds(want.Records)
}

// checkAddChangeDelete: every kind of change arrives, down to the empty set and
// up from it; the first set comes after Run has started.
func checkAddChangeDelete(h *harness) error {
	h.start()
	reweighted := srv(0, 32768)
	reweighted.Weight = 7
	slower := srv(1, 32769)
	slower.TTL = 60
	steps := []struct {
		name string
		set  agent.RecordSet
	}{
		{"one record", set(srv(0, 32768))},
		{"a second in the same name", set(srv(0, 32768), srv(0, 32770))},
		{"another name", set(srv(0, 32768), srv(0, 32770), srv(1, 32769))},
		{"both families", set(srv(0, 32768), srv(1, 32769), address(target(), "192.0.2.1"), address(target(), "2001:db8::1"))},
		{"a new weight", set(reweighted, srv(1, 32769), address(target(), "192.0.2.1"))},
		{"a new TTL", set(reweighted, slower, address(target(), "192.0.2.1"))},
		{"a new address", set(reweighted, slower, address(target(), "192.0.2.2"))},
		{"a name gone", set(slower, address(target(), "192.0.2.2"))},
		{"everything gone", set()},
		{"everything back", set(srv(0, 32768), address(target(), "192.0.2.1"))},
	}
	for _, s := range steps {
		if err := h.reaches(s.set); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// checkPartial: a partial set adds and changes; what the sink added itself it
// may or may not remove, until a complete set settles it.
func checkPartial(h *harness) error {
	h.start()
	if err := h.reaches(partial(srv(0, 32768))); err != nil {
		return fmt.Errorf("first partial set: %w", err)
	}
	if err := h.apply(partial(srv(1, 32769))); err != nil {
		return err
	}
	got, err := h.held()
	if err != nil {
		return err
	}
	if !slices.Contains(got, srv(1, 32769)) {
		return fmt.Errorf("second partial set: not added: %s", srv(1, 32769))
	}
	if err := h.reaches(set(srv(1, 32769))); err != nil {
		return fmt.Errorf("complete set: %w", err)
	}
	return nil
}

// checkPartialAfterRestart: after a restart, a partial set removes nothing that
// was there before; the complete one does.
func checkPartialAfterRestart(h *harness) error {
	if h.Reopen == nil {
		return nil // there is no "before"
	}
	h.start()
	if err := h.reaches(set(srv(0, 32768), srv(1, 32769))); err != nil {
		return err
	}
	if err := h.restart(); err != nil {
		return err
	}
	seq := h.publish(partial(srv(1, 32769), srv(2, 32770)))
	h.start()
	if err := h.await(seq); err != nil {
		return err
	}
	if err := h.holds(set(srv(0, 32768), srv(1, 32769), srv(2, 32770)).Records); err != nil {
		return fmt.Errorf("partial set after a restart: %w", err)
	}
	if err := h.reaches(set(srv(1, 32769), srv(2, 32770))); err != nil {
		return fmt.Errorf("complete set after a partial one: %w", err)
	}
	return nil
}

// burst is how many sets checkBurst publishes, each different from the last.
const burst = 500

// checkBurst: of many sets in a row the last one wins, and at no moment is
// Applied ahead of what is held.
func checkBurst(h *harness) error {
	h.start()
	sets := make([][]agent.Record, burst)
	for i := range sets {
		churning := srv(i%services, uint16(1000+i))
		sets[i] = set(srv(0, 32768), churning, address(target(), "192.0.2.1")).Records
	}
	var publisher sync.WaitGroup
	defer publisher.Wait()
	publisher.Go(func() {
		for i, records := range sets {
			seq := h.publish(set(records...))
			if i%(burst/5) == 0 {
				h.settle(seq) // so that the sink does something meanwhile
			}
		}
	})
	for {
		applied := h.Sink.Applied()
		got, err := h.held()
		if err != nil {
			return err
		}
		if applied > 0 {
			_, newest := h.records.Load()
			if err := between(got, sets[applied-1:newest]); err != nil {
				return fmt.Errorf("between sets %d (applied) and %d (newest): %w", applied, newest, err)
			}
		}
		if _, newest := h.records.Load(); newest == burst {
			break
		}
	}
	publisher.Wait()
	if err := h.await(burst); err != nil {
		return err
	}
	return h.holds(sets[burst-1])
}

// between checks that got can occur on the way from the first set to the last:
// it has all that every set has, and nothing that no set has.
func between(got []agent.Record, sets [][]agent.Record) error {
	count := make(map[agent.Record]int)
	for _, s := range sets {
		for _, r := range s {
			count[r]++
		}
	}
	for _, r := range got {
		if count[r] == 0 {
			return fmt.Errorf("held, but in no set: %s", r)
		}
	}
	for r, n := range count {
		if n == len(sets) && !slices.Contains(got, r) {
			return fmt.Errorf("in every set, but not held: %s", r)
		}
	}
	return nil
}

// checkCancel: the end of Run leaves everything as it is.
func checkCancel(h *harness) error {
	h.start()
	want := set(srv(0, 32768), srv(1, 32769), address(target(), "192.0.2.1"))
	if err := h.reaches(want); err != nil {
		return err
	}
	if err := h.stop(); err != nil {
		return err
	}
	return h.holds(want.Records)
}

// checkResume: a second life goes on with the same state, notices what changed
// while there was none, and follows what changes then.
func checkResume(h *harness) error {
	if h.Reopen == nil {
		return nil
	}
	first := set(srv(0, 32768), srv(1, 32769))
	h.start()
	if err := h.reaches(first); err != nil {
		return err
	}
	if err := h.restart(); err != nil {
		return err
	}
	h.publish(first)
	h.start()
	if err := h.await(1); err != nil {
		return err
	}
	if err := h.holds(first.Records); err != nil {
		return fmt.Errorf("same set after a restart: %w", err)
	}
	if err := h.restart(); err != nil {
		return err
	}
	h.publish(set(srv(1, 32769), srv(2, 32770)))
	h.start()
	if err := h.await(1); err != nil {
		return err
	}
	if err := h.holds(set(srv(1, 32769), srv(2, 32770)).Records); err != nil {
		return fmt.Errorf("other set after a restart: %w", err)
	}
	return h.reaches(set(srv(2, 32770)))
}

// checkBackendFails: while the backend fails nothing is claimed, and afterwards
// the newest set arrives by itself.
func checkBackendFails(h *harness) error {
	if h.Fail == nil {
		return nil
	}
	h.start()
	first := set(srv(0, 32768))
	if err := h.reaches(first); err != nil {
		return err
	}
	h.Fail(true)
	failing := h.publish(set(srv(1, 32769)))
	if err := h.awaitFailure(); err != nil {
		return err
	}
	if h.Sink.Applied() >= failing {
		return fmt.Errorf("applied is %d while the backend fails, want less than %d", h.Sink.Applied(), failing)
	}
	last := set(srv(2, 32770), srv(0, 32768))
	seq := h.publish(last)
	if h.Sink.Applied() >= failing {
		return fmt.Errorf("applied is %d while the backend fails, want less than %d", h.Sink.Applied(), failing)
	}
	h.Fail(false)
	if err := h.await(seq); err != nil {
		return fmt.Errorf("after the backend healed: %w", err)
	}
	return h.holds(last.Records)
}

// pairs is how many pairs of random sets checkAnyTwoSets applies.
const pairs = 25

// checkAnyTwoSets: whichever set follows whichever, the second one is held.
func checkAnyTwoSets(h *harness) error {
	h.start()
	for i := range pairs {
		for _, s := range []agent.RecordSet{random(h.rng), random(h.rng)} {
			if err := h.reaches(s); err != nil {
				return fmt.Errorf("pair %d: %w", i, err)
			}
		}
	}
	return nil
}
