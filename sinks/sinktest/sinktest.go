// Package sinktest is the conformance suite of sinks: what every
// implementation of a kind must do, whatever its backend is.
//
// A sink's own test calls [RecordSink] with a factory of fixtures. A fixture is
// a sink on a backend of its own (a server on an ephemeral port, a fake of an
// API, a buffer) with a way to read what that backend holds:
//
//	func TestConformance(t *testing.T) {
//		sinktest.RecordSink(t, func(t *testing.T) sinktest.Fixture {
//			backend := newBackend(t)
//			return sinktest.Fixture{
//				Sink:   New(Config{Server: backend.Addr()}),
//				Held:   backend.Records,
//				Reopen: func(t *testing.T) agent.RecordSink { return New(…) },
//				Fail:   backend.Fail, Failures: backend.Failures,
//			}
//		})
//	}
//
// All records that the suite wants are those of one host, [Node], in [Zone]:
// SRV records that point to the host, the host's own addresses, and addresses
// under plain names of services. [Names] lists every name that it ever uses,
// for backends which cannot be listed but only asked.
//
// [MetricSink] does the same for sinks of metrics, with a [MetricFixture].
//
// The random sets come from a seed, which a failure prints; set the environment
// variable SINKTEST_SEED to it to see the same sets again.
package sinktest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/berthd/berth/agent"
)

// SeedVariable is the environment variable that replays a run of random sets.
const SeedVariable = "SINKTEST_SEED"

// Fixture is one sink on a backend of its own. The suite makes a new one for
// every check and ends its Run; what else there is to clean up, the factory
// hands to t.Cleanup.
type Fixture struct {
	// Sink is the sink under test. Its Run has not been called.
	Sink agent.RecordSink

	// Held returns the records that the outside world holds for this host, in
	// any order. It is called from one goroutine at a time, while Run runs and
	// after it has returned.
	Held func(ctx context.Context) ([]agent.Record, error)

	// Reopen returns a new sink on the same backend and state directory, as
	// after a restart of berth. It is called after the Run of the sink before
	// has returned. Nil means that the backend is part of the sink and ends
	// with it, so that nothing can be found after a restart.
	Reopen func(t *testing.T) agent.RecordSink

	// Fail makes the backend fail every write until it is called with false,
	// and Failures returns how many writes have failed so. Both are nil for a
	// backend that cannot fail.
	Fail     func(failing bool)
	Failures func() int

	// Patience is how long the suite waits for a set to be applied; 10 s where
	// it is zero. A sink with backoff needs more than its longest one here.
	Patience time.Duration
}

// RecordSink runs the conformance suite of record sinks as subtests of t, each
// on a new fixture from the factory.
func RecordSink(t *testing.T, factory func(t *testing.T) Fixture) {
	t.Helper()
	seed := rand.Uint64()
	if s := os.Getenv(SeedVariable); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("parse %s: %v", SeedVariable, err)
		}
		seed = n
	}
	for _, c := range recordChecks {
		t.Run(c.name, func(t *testing.T) {
			if err := runCheck(t, c, factory(t), seed); err != nil {
				t.Errorf("%v\nreplay: %s=%d go test -run '%s'", err, SeedVariable, seed, t.Name())
			}
		})
	}
}

// runCheck runs one check to its end, the sink's Run included.
func runCheck(t *testing.T, c recordCheck, f Fixture, seed uint64) error {
	if f.Patience == 0 {
		f.Patience = 10 * time.Second
	}
	h := &harness{
		Fixture: f,
		ctx:     t.Context(),
		rng:     rand.New(rand.NewPCG(seed, 0)),
		records: new(agent.Records),
		reopen:  func() agent.RecordSink { return f.Reopen(t) },
	}
	err := c.run(h)
	if stopErr := h.stop(); err == nil {
		err = stopErr
	}
	return err
}

// harness drives the sink of one fixture. Its methods return errors, not
// failures of a test, so that the suite can be tested with sinks that are
// wrong.
type harness struct {
	Fixture
	ctx     context.Context
	rng     *rand.Rand
	records *agent.Records
	reopen  func() agent.RecordSink

	cancel context.CancelFunc // of the present Run; nil when there is none
	ended  chan error
}

// start calls the sink's Run.
func (h *harness) start() {
	ctx, cancel := context.WithCancel(h.ctx)
	feed := h.records.Subscribe()
	ended := make(chan error, 1)
	h.cancel, h.ended = cancel, ended
	sink := h.Sink
	go func() {
		defer feed.Close()
		ended <- sink.Run(ctx, feed)
	}()
}

// stop cancels Run and waits for its end. It does nothing when none runs.
func (h *harness) stop() error {
	if h.cancel == nil {
		return nil
	}
	h.cancel()
	h.cancel = nil
	select {
	case err := <-h.ended:
		if err != nil && err != context.Canceled {
			return fmt.Errorf("run returned %w after it was cancelled, want nil or context.Canceled", err)
		}
		return nil
	case <-time.After(h.Patience):
		return fmt.Errorf("run still runs %v after it was cancelled", h.Patience)
	}
}

// restart ends Run and runs a new sink on the same backend.
func (h *harness) restart() error {
	if err := h.stop(); err != nil {
		return err
	}
	h.Sink = h.reopen()
	// Sequence numbers belong to a life of berth: a new one starts anew.
	h.records = new(agent.Records)
	return nil
}

// publish makes set the desired one, and returns its sequence number.
func (h *harness) publish(set agent.RecordSet) uint64 {
	h.records.Publish(set)
	_, seq := h.records.Load()
	return seq
}

// apply publishes set and waits until the sink says that it is applied.
func (h *harness) apply(set agent.RecordSet) error { return h.await(h.publish(set)) }

// await waits until the sink says that the set with this number is applied.
func (h *harness) await(seq uint64) error {
	if !h.settle(seq) {
		select {
		case err := <-h.ended:
			h.cancel = nil
			return fmt.Errorf("run ended by itself: %v", err)
		default:
			return fmt.Errorf("applied is %d after %v, want %d", h.Sink.Applied(), h.Patience, seq)
		}
	}
	if _, newest := h.records.Load(); h.Sink.Applied() > newest {
		return fmt.Errorf("applied is %d, but the newest set is %d", h.Sink.Applied(), newest)
	}
	return nil
}

// settle waits until the sink says that the set with this number is applied,
// and reports whether that happened in time.
func (h *harness) settle(seq uint64) bool {
	return h.poll(func() bool { return h.Sink.Applied() >= seq })
}

// awaitFailure waits until the backend has refused a write.
func (h *harness) awaitFailure() error {
	if !h.poll(func() bool { return h.Failures() > 0 }) {
		return fmt.Errorf("no write was tried in %v while the backend fails", h.Patience)
	}
	return nil
}

// poll waits until the condition holds, and reports whether it did in time.
func (h *harness) poll(condition func() bool) bool {
	deadline := time.Now().Add(h.Patience)
	for !condition() {
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(time.Millisecond)
	}
	return true
}
