package sinktest

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/berthd/berth/agent"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// backend is a zone in memory, which outlives the sinks that write to it.
type backend struct {
	mu       sync.Mutex
	records  []agent.Record
	failing  bool
	failures int
	reads    int
}

func (b *backend) held(context.Context) ([]agent.Record, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reads++
	return slices.Clone(b.records), nil
}

func (b *backend) fail(failing bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failing = failing
}

func (b *backend) failed() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failures
}

// awaitReads returns after someone has looked twice more: the second look began
// after the call.
func (b *backend) awaitReads(ctx context.Context) {
	looks := func() int {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.reads
	}
	for end := looks() + 2; looks() < end && ctx.Err() == nil; {
		time.Sleep(100 * time.Microsecond)
	}
}

func (b *backend) apply(ch agent.Changes) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failing {
		b.failures++
		return errors.New("backend fails")
	}
	b.records = agent.Apply(b.records, ch)
	return nil
}

// fault is a way in which a sink can be wrong.
type fault string

const (
	right           fault = ""
	ignoresDeletes  fault = "ignores deletes"
	ignoresPartial  fault = "removes on the word of a partial set"
	removesAtEnd    fault = "deregisters when Run ends"
	claimsEarly     fault = "claims a set before it is held"
	givesUp         fault = "gives up on an error"
	forgetsChanges  fault = "looks at the first set only"
	claimsTheFuture fault = "claims sets that do not exist"
	flaps           fault = "removes everything before it adds"
)

// sink is a minimal record sink, right or with one fault.
type sink struct {
	*backend
	fault fault

	mu      sync.Mutex
	applied uint64
	own     map[agent.Record]bool // added since the start
}

func (s *sink) Name() string { return "memory" }

func (s *sink) Applied() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.applied
}

func (s *sink) claim(seq uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.applied = seq
}

func (s *sink) Run(ctx context.Context, want agent.Desired) error {
	retry := time.NewTicker(time.Millisecond)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			if s.fault == removesAtEnd {
				held, _ := s.held(ctx)
				return s.apply(agent.Changes{Delete: held})
			}
			return nil
		case <-want.Changed():
		case <-retry.C:
		}
		set, seq := want.Records()
		if seq == 0 || seq == s.Applied() || s.fault == forgetsChanges && s.Applied() > 0 {
			continue
		}
		if s.fault == claimsEarly {
			s.claim(seq)
			s.awaitReads(ctx)
		}
		if err := s.reconcile(ctx, set); err != nil && s.fault != givesUp {
			continue
		}
		if s.fault == claimsTheFuture {
			seq++
		}
		s.claim(seq)
	}
}

func (s *sink) reconcile(ctx context.Context, set agent.RecordSet) error {
	held, _ := s.held(ctx)
	ch := agent.Diff(held, set.Records)
	switch {
	case s.fault == ignoresDeletes:
		ch.Delete = nil
	case s.fault == flaps:
		if err := s.apply(agent.Changes{Delete: held}); err != nil {
			return err
		}
		s.awaitReads(ctx)
		ch.Create = set.Records
	case set.Partial && s.fault != ignoresPartial:
		ch.Delete = slices.DeleteFunc(ch.Delete, func(r agent.Record) bool { return !s.own[r] })
	}
	if err := s.apply(ch); err != nil {
		return err
	}
	for _, r := range ch.Create {
		s.own[r] = true
	}
	return nil
}

func fixture(f fault) Fixture {
	b := new(backend)
	open := func() *sink { return &sink{backend: b, fault: f, own: make(map[agent.Record]bool)} }
	return Fixture{
		Sink:     open(),
		Held:     b.held,
		Reopen:   func(*testing.T) agent.RecordSink { return open() },
		Fail:     b.fail,
		Failures: b.failed,
		Patience: 5 * time.Second,
	}
}

func TestRightSinkPasses(t *testing.T) {
	RecordSink(t, func(*testing.T) Fixture { return fixture(right) })
}

// TestWrongSinksFail proves that the suite sees each fault, in the check that is
// meant for it.
func TestWrongSinksFail(t *testing.T) {
	tests := []struct {
		fault fault
		check string
	}{
		{ignoresDeletes, "AddChangeDelete"},
		{ignoresDeletes, "AnyTwoSets"},
		{ignoresPartial, "PartialAfterRestart"},
		{removesAtEnd, "CancelRemovesNothing"},
		{removesAtEnd, "PartialAfterRestart"},
		{claimsEarly, "InitialSet"},
		{givesUp, "BackendFails"},
		{forgetsChanges, "AddChangeDelete"},
		{forgetsChanges, "Resume"},
		{claimsTheFuture, "InitialSet"},
		{flaps, "Burst"},
	}
	for _, tt := range tests {
		t.Run(string(tt.fault)+"/"+tt.check, func(t *testing.T) {
			i := slices.IndexFunc(recordChecks, func(c recordCheck) bool { return c.name == tt.check })
			f := fixture(tt.fault)
			f.Patience = 100 * time.Millisecond
			if err := runCheck(t, recordChecks[i], f, 1); err == nil {
				t.Errorf("%s passed a sink that %s", tt.check, tt.fault)
			}
		})
	}
}

// TestNamesCoverSets keeps Names honest for backends that can only be asked.
func TestNamesCoverSets(t *testing.T) {
	names := Names()
	rng := rand.New(rand.NewPCG(7, 0))
	for range 200 {
		for _, r := range random(rng).Records {
			if !slices.Contains(names, r.Name) {
				t.Fatalf("name %s of a random set is not in Names", r.Name)
			}
		}
	}
}
