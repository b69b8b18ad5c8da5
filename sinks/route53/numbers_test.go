package route53

import (
	"testing"
	"time"

	"github.com/berthd/berth/agent"
)

// TestNumbers_ContainersOfOneHost starts and stops a hundred containers, with the
// timing of production.
func TestNumbers_ContainersOfOneHost(t *testing.T) {
	r := newRig(t)
	r.timing = defaultTiming()
	r.timing.adoptWithin = 1000 * time.Hour
	r.start()
	for n := range 101 {
		r.want(services(n)...)
	}
	r.apply(services(100)...)
	for n := range 100 {
		r.want(services(100)[n:]...)
	}
	r.apply()
	calls := r.fake.Calls()
	if calls[actionChange] > 4 || calls["ListResourceRecordSets"]+calls["ListHostedZonesByName"] != 0 {
		t.Errorf("calls = %v, want at most 4 changes and no lists", calls)
	}
	r.holds()
}

// TestNumbers_StartedAndDead wants no call for what dies before it is written.
func TestNumbers_StartedAndDead(t *testing.T) {
	r := newRig(t)
	r.timing.coalesce = time.Hour
	r.start()
	r.apply(srv("_a._tcp", 1))
	r.fake.ResetCalls()
	for range 50 {
		r.want(srv("_a._tcp", 1), srv("_b._tcp", 1))
		r.want(srv("_a._tcp", 1))
	}
	seq := r.want(srv("_a._tcp", 1))
	r.await("the newest set, which is there already", func() bool { return r.sink.Applied() >= seq })
	if calls := r.fake.Calls(); len(calls) != 0 {
		t.Errorf("calls = %v, want none", calls)
	}
}

// TestNumbers_Idle wants a sink that has nothing to do to sleep until an event
// comes: then it makes no calls however long that takes.
func TestNumbers_Idle(t *testing.T) {
	r := newRig(t)
	s := r.open()
	s.timing.adoptWithin = 1
	s.timing.sync = []time.Duration{time.Nanosecond}
	w := newWorker(s)
	if !w.open(t.Context()) {
		t.Fatal("not opened")
	}
	defer w.close()
	records := new(agent.Records)
	feed := records.Subscribe()
	defer feed.Close()
	records.Publish(r.set(append(services(20), addr("host1", "192.0.2.1"))...))
	for turns := 0; turns == 0 || !w.wake.IsZero(); turns++ {
		if turns == 20 {
			t.Fatalf("still not idle after %d turns", turns)
		}
		time.Sleep(time.Until(w.wake))
		w.turn(t.Context(), feed)
	}
	before := r.fake.Calls()
	if before["GetChange"] != 1 {
		t.Errorf("calls = %v, want one GetChange", before)
	}
	w.turn(t.Context(), feed)
	if !w.wake.IsZero() || len(before) != len(r.fake.Calls()) || before[actionChange] != r.fake.Calls()[actionChange] {
		t.Errorf("an idle sink wakes up at %v, calls %v", w.wake, r.fake.Calls())
	}
}

// TestNumbers_Restart wants no call for a restart that changes nothing, and none
// but the change for one that does.
func TestNumbers_Restart(t *testing.T) {
	r := newRig(t)
	r.cfg.ZoneID = "" // the zone is found by its name, once
	r.start()
	records := append(services(20), addr("host1", "192.0.2.1"))
	r.apply(records...)
	r.timing.adoptWithin = 1
	r.start()
	r.apply(records...)
	r.await("the look for leftovers of the first life", func() bool { return r.fake.Calls()["ListResourceRecordSets"] == 21 })
	r.stop()
	r.fake.ResetCalls()
	r.start()
	r.apply(records...)
	if calls := r.fake.Calls(); len(calls) != 0 {
		t.Errorf("calls after a restart = %v, want none", calls)
	}
	r.start()
	r.apply(records[1:]...)
	if calls := r.fake.Calls(); len(calls) != 1 || calls[actionChange] != 1 {
		t.Errorf("calls after a restart with a change = %v, want one change", calls)
	}
}

// TestNumbers_Latency wants the first change to be sent without any window: with
// one of an hour, the change is there all the same.
func TestNumbers_Latency(t *testing.T) {
	r := newRig(t)
	r.timing.coalesce = time.Hour
	r.start()
	r.apply(srv("_a._tcp", 1))
	if n := r.fake.Calls()[actionChange]; n != 1 {
		t.Errorf("%d changes, want 1", n)
	}
}
