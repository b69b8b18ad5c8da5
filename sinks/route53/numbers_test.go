package route53

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/route53"
	"github.com/aws/aws-sdk-go-v2/service/route53/types"

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

// counting is Route 53's API with nothing behind it.
type counting struct {
	changes, lists, gets, zones int
}

func (c *counting) GetHostedZone(context.Context, *route53.GetHostedZoneInput, ...func(*route53.Options)) (*route53.GetHostedZoneOutput, error) {
	c.zones++
	return &route53.GetHostedZoneOutput{HostedZone: &types.HostedZone{Id: aws.String("/hostedzone/ZIDLE"), Name: aws.String(domain), Config: new(types.HostedZoneConfig)}}, nil
}

func (c *counting) ListHostedZonesByName(context.Context, *route53.ListHostedZonesByNameInput, ...func(*route53.Options)) (*route53.ListHostedZonesByNameOutput, error) {
	c.lists++
	return nil, errors.New("not with the zone's ID")
}

func (c *counting) ChangeResourceRecordSets(context.Context, *route53.ChangeResourceRecordSetsInput, ...func(*route53.Options)) (*route53.ChangeResourceRecordSetsOutput, error) {
	c.changes++
	return &route53.ChangeResourceRecordSetsOutput{ChangeInfo: &types.ChangeInfo{Id: aws.String("C1"), Status: types.ChangeStatusPending}}, nil
}

func (c *counting) ListResourceRecordSets(context.Context, *route53.ListResourceRecordSetsInput, ...func(*route53.Options)) (*route53.ListResourceRecordSetsOutput, error) {
	c.lists++
	return &route53.ListResourceRecordSetsOutput{}, nil
}

func (c *counting) GetChange(context.Context, *route53.GetChangeInput, ...func(*route53.Options)) (*route53.GetChangeOutput, error) {
	c.gets++
	return &route53.GetChangeOutput{ChangeInfo: &types.ChangeInfo{Status: types.ChangeStatusPending}}, nil
}

// TestNumbers_IdleHour runs a sink, with the timing of production, for an hour in
// which nothing happens. The first minutes are left out: there it looks for
// leftovers, and follows its change to the name servers as long as it ever does.
func TestNumbers_IdleHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, host: newHost("host1"), dir: t.TempDir(), timing: defaultTiming(), cfg: DefaultConfig()}
		r.cfg.Enabled, r.cfg.ZoneID, r.cfg.Endpoint = true, "ZIDLE", "http://127.0.0.1:1"
		s := r.open()
		api := new(counting)
		s.api, s.zones = api, api
		records := new(agent.Records)
		feed := records.Subscribe()
		defer feed.Close()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx, feed) }()
		records.Publish(r.set(append(services(20), addr("host1", "192.0.2.1"))...))
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if api.changes != 1 || api.lists == 0 || api.gets != len(s.timing.sync) || s.Applied() == 0 {
			t.Errorf("in the first minutes: %+v, applied %d, want one change, lists, and %d questions for it", *api, s.Applied(), len(s.timing.sync))
		}
		before := *api
		time.Sleep(time.Hour)
		synctest.Wait()
		if *api != before {
			t.Errorf("calls after an idle hour: %+v, want %+v as before it", *api, before)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
