package route53

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/test/fakeaws"
)

const actionChange = "ChangeResourceRecordSets"

// services returns one record for each of n services.
func services(n int) []agent.Record {
	var out []agent.Record
	for i := range n {
		out = append(out, srv(fmt.Sprintf("_s%03d._tcp", i), uint16(1000+i)))
	}
	return out
}

// obstacle makes every change of a name be refused.
func (r *rig) obstacle(name string, there bool) {
	s := fakeaws.RRSet{Name: name + "." + domain, Type: "CNAME", TTL: 10}
	if there {
		s.Values = []string{"elsewhere.test."}
	}
	r.fake.Put(r.zone, s)
}

func TestPitfall_discovery15_OneBadChange(t *testing.T) {
	for _, asList := range []bool{false, true} {
		r := newRig(t)
		r.fake.ListErrors(asList)
		r.obstacle("_s007._tcp", true)
		r.obstacle("_s031._tcp", true)
		r.start()
		seq := r.want(services(64)...)
		r.await("the 62 others", func() bool { return len(r.lines()) == 64 })
		r.awaitCondition(condRefused, "_s007._tcp.svc.test. SRV")
		r.awaitCondition(condRefused, "conflicts with other records")
		if why := r.condition(condRefused); strings.Count(why, " SRV (") != 2 {
			t.Errorf("condition names others than the two: %s", why)
		}
		if got := r.sink.Applied(); got >= seq {
			t.Errorf("applied is %d while records are refused", got)
		}
		before := r.fake.Calls()[actionChange]
		r.want(append(services(64), srv("_new._tcp", 1))...)
		r.await("a change beside those that are held", func() bool { return len(r.lines()) == 65 })
		if n := r.fake.Calls()[actionChange] - before; n > 3+2*20 {
			t.Errorf("%d calls for one change", n)
		}
		r.obstacle("_s007._tcp", false)
		r.obstacle("_s031._tcp", false)
		r.await("both, once nothing is in the way", func() bool { return len(r.lines()) == 65 && r.sink.Applied() == seq+1 })
		r.awaitCondition(condRefused, "")
		r.stop()
	}
}

func TestPitfall_discovery15_HeldBack(t *testing.T) {
	r := newRig(t)
	r.timing.firstHold, r.timing.lastHold = time.Hour, time.Hour
	r.obstacle("_s007._tcp", true)
	r.start()
	r.want(services(16)...)
	r.awaitCondition(condRefused, "_s007._tcp.svc.test. SRV")
	r.await("the 15 others", func() bool { return len(r.lines()) == 16 })
	r.fake.ResetCalls()
	const changes = 5
	for i := range changes {
		r.want(append(services(16), srv("_new._tcp", uint16(1+i)))...)
		r.await("a change beside the one that is held", func() bool {
			return slices.Contains(r.lines(), fmt.Sprintf("_new._tcp.svc.test.|SRV|host1|multivalue|10|1 1 %d host1.svc.test.", 1+i))
		})
	}
	r.stop()
	if n := r.fake.Calls()[actionChange]; n != changes {
		t.Errorf("%d calls for %d changes beside one that is held", n, changes)
	}
}

func TestPitfall_discovery16_DeleteOfAnEditedSet(t *testing.T) {
	r := newRig(t).start()
	id := newIdentity(r.host.Node(), "default").String()
	edit := func(name string, ttl int64, values ...string) {
		r.fake.Put(r.zone, fakeaws.RRSet{Name: name + "." + domain, Type: "SRV", SetIdentifier: id, MultiValue: true, TTL: ttl, Values: values})
	}
	r.apply(srv("_a._tcp", 1), srv("_b._tcp", 2), srv("_c._tcp", 3), addr("host1", "192.0.2.1"))
	edit("_a._tcp", 99, "1 1 1 host1.svc.test.") // another TTL
	edit("_b._tcp", 10)                          // gone
	r.fake.Put(r.zone, fakeaws.RRSet{Name: "host1." + domain, Type: "A", TTL: 10, Values: []string{"192.0.2.99"}})
	r.apply(srv("_c._tcp", 3))
	r.holds("_c._tcp.svc.test.|SRV|host1|multivalue|10|1 1 3 host1.svc.test.")
	edit("_c._tcp", 10, "1 1 77 host1.svc.test.")
	r.apply(srv("_c._tcp", 4))
	r.holds("_c._tcp.svc.test.|SRV|host1|multivalue|10|1 1 4 host1.svc.test.")
	r.awaitCondition(condIdentity, "did not write")
}

func TestPitfall_discovery17_ThrottlingLosesNothing(t *testing.T) {
	r := newRig(t)
	r.timing.firstHold, r.timing.lastHold = time.Hour, time.Hour // nothing of this is the fault of a record
	for range 10 {
		r.fake.Inject(actionChange, fakeaws.Throttled, fakeaws.PriorRequest, fakeaws.Throttled, fakeaws.Internal)
	}
	r.start()
	for i := range 20 {
		r.want(srv("_a._tcp", uint16(i+1)))
	}
	r.apply(srv("_a._tcp", 1000))
	r.apply(srv("_a._tcp", 1000), srv("_b._tcp", 1))
	r.holds("_a._tcp.svc.test.|SRV|host1|multivalue|10|1 1 1000 host1.svc.test.", "_b._tcp.svc.test.|SRV|host1|multivalue|10|1 1 1 host1.svc.test.")
	r.awaitCondition(condWrite, "")
	if n := r.fake.Calls()[actionChange]; n < 41 || n > 70 {
		t.Errorf("%d calls, want one for each failure and few more", n)
	}
}

func TestPitfall_discovery17_WindowWidens(t *testing.T) {
	timing := defaultTiming()
	now := time.Now()
	var w window
	for range 20 {
		w.failed(timing, now)
		if d := w.until.Sub(now); d < timing.coalesce || d > timing.coalesce+w.width {
			t.Fatalf("waits %v in a window of %v", d, w.width)
		}
	}
	if w.width != time.Minute {
		t.Errorf("window is %v after many failures, want 1m", w.width)
	}
	for range 6 {
		w.succeeded(timing, now)
	}
	if w.width != timing.coalesce || w.until.Sub(now) != timing.coalesce {
		t.Errorf("window is %v after six successes, want %v", w.width, timing.coalesce)
	}
}

func TestPitfall_discovery17_QuotasOfTheAccount(t *testing.T) {
	r := newRig(t)
	l := fakeaws.DefaultLimits()
	l.CallRate, l.CallBurst, l.ChangeRate, l.ChangeBurst = 50, 2, 200, 20
	r.fake.SetLimits(l)
	r.fake.SetBusy(3 * time.Millisecond)
	r.start()
	for i := range 10 {
		r.want(services(10 + i)...)
	}
	r.apply(services(30)...)
	if n := len(r.lines()); n != 30 {
		t.Errorf("%d sets, want 30", n)
	}
}

func TestPitfall_discovery18_AnswerLost(t *testing.T) {
	for _, mode := range []Mode{Multivalue, Weighted, Simple} {
		for _, fault := range []fakeaws.Fault{fakeaws.CutAfter, fakeaws.CutBefore, fakeaws.Internal} {
			r := newRig(t)
			r.cfg.Mode = mode
			r.start()
			steps := [][]agent.Record{
				{srv("_a._tcp", 1), addr("host1", "192.0.2.1")},
				{srv("_a._tcp", 2), srv("_b._tcp", 1)},
				{srv("_b._tcp", 1)},
				{},
				{srv("_a._tcp", 1)},
			}
			for i, records := range steps {
				r.fake.Inject(actionChange, fault, fault)
				r.apply(records...)
				held, err := r.held()
				if err != nil {
					t.Fatal(err)
				}
				slices.SortFunc(held, agent.Record.Compare)
				if want := r.set(records...).Records; !slices.Equal(held, want) {
					t.Errorf("%s, fault %d, step %d: holds %v, want %v", mode, fault, i, held, want)
				}
			}
			if why := r.condition(condIdentity); why != "" {
				t.Errorf("%s, fault %d: suspects another agent: %s", mode, fault, why)
			}
			r.stop()
		}
	}
}

func TestPitfall_discovery19_HundredAndFirstHost(t *testing.T) {
	r := newRig(t)
	for i := range 100 {
		r.fake.Put(r.zone, fakeaws.RRSet{Name: "_a._tcp." + domain, Type: "SRV", SetIdentifier: fmt.Sprintf("other%03d", i), MultiValue: true, TTL: 10, Values: []string{"1 1 1 other."}})
	}
	r.start()
	seq := r.want(srv("_a._tcp", 1), srv("_b._tcp", 1), addr("host1", "192.0.2.1"))
	r.awaitCondition(condLimit, "_a._tcp.svc.test. SRV")
	r.await("all else", func() bool { return len(r.lines()) == 102 })
	if why := r.condition(condRefused); why != "" {
		t.Errorf("also refused: %s", why)
	}
	r.fake.Put(r.zone, fakeaws.RRSet{Name: "_a._tcp." + domain, Type: "SRV", SetIdentifier: "other007"})
	r.await("the record, once there is room", func() bool { return r.sink.Applied() >= seq })
	r.awaitCondition(condLimit, "")
}

func TestPitfall_discovery19_TooManyValues(t *testing.T) {
	r := newRig(t).start()
	var records []agent.Record
	for i := range 401 {
		records = append(records, srv("_a._tcp", uint16(10000+i)))
	}
	r.want(append(records, srv("_b._tcp", 1))...)
	r.awaitCondition(condLimit, "401 values, of which 400 fit")
	r.await("what fits", func() bool { return len(r.lines()) == 2 && len(r.fake.Sets(r.zone)[0].Values) == 400 })
	r.apply(records[1:]...)
	r.awaitCondition(condLimit, "")
}

func TestPitfall_discovery19_BatchesWithinTheLimits(t *testing.T) {
	r := newRig(t).start()
	// 501 sets that are upserted, 1,002 elements.
	r.apply(services(501)...)
	if got := r.fake.BatchSizes(); !slices.Equal(got, []int{500, 1}) {
		t.Errorf("batches of %v changes, want 500 and 1", got)
	}
	// 24 characters each: 32,000 of them are reached before 1,000 elements.
	r.fake.ResetCalls()
	var records []agent.Record
	for i := range 30 {
		for j := range 60 {
			rec := srv(fmt.Sprintf("_long%02d._tcp", i), uint16(10000+j))
			rec.Target = strings.Repeat("a", 40) + "." + rec.Target
			records = append(records, rec)
		}
	}
	r.apply(records...)
	if n := r.fake.Failures(); n != 0 {
		t.Errorf("%d batches were refused", n)
	}
	if n := len(r.lines()); n != 30 {
		t.Errorf("%d sets, want 30", n)
	}
}

func TestPitfall_discovery19_PackKeepsTheLimits(t *testing.T) {
	for _, tc := range []struct {
		name             string
		units, n, length int // each unit has n values of this length
		upsert           bool
		want             []int // units in each batch
	}{
		{"1000 elements", 1000, 1, 1, false, []int{1000}},
		{"1001 elements", 1001, 1, 1, false, []int{1000, 1}},
		{"500 upserts", 500, 1, 1, true, []int{500}},
		{"501 upserts", 501, 1, 1, true, []int{500, 1}},
		{"32000 characters", 640, 1, 50, false, []int{640}},
		{"32050 characters", 641, 1, 50, false, []int{640, 1}},
		{"32000 characters upserted", 320, 1, 50, true, []int{320}},
		{"32100 characters upserted", 321, 1, 50, true, []int{320, 1}},
		{"large sets", 3, 400, 40, false, []int{2, 1}},
	} {
		var data []string
		for range tc.n {
			data = append(data, strings.Repeat("x", tc.length))
		}
		units := make([]unit, tc.units)
		for i := range units {
			units[i] = unit{want: &value{Data: data}, upsert: tc.upsert}
		}
		var got []int
		for _, b := range pack(units) {
			got = append(got, len(b))
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: batches of %v, want %v", tc.name, got, tc.want)
		}
	}
	if got := pack(nil); got != nil {
		t.Errorf("pack(nil) = %v", got)
	}
}

func TestPitfall_discovery20_LegacyRecordOnTheName(t *testing.T) {
	for _, mode := range []Mode{Multivalue, Weighted, Simple} {
		r := newRig(t)
		r.cfg.Mode = mode
		legacy := fakeaws.RRSet{Name: "_a._tcp." + domain, Type: "SRV", TTL: 10, Values: []string{"1 1 1 legacy.test."}}
		if mode == Simple {
			r.fake.Put(r.zone, fakeaws.RRSet{Name: "b." + domain, Type: "A", TTL: 10, Weighted: true, SetIdentifier: "x", Values: []string{"192.0.2.7"}})
		}
		r.fake.Put(r.zone, legacy)
		r.start()
		r.want(srv("_a._tcp", 1), addr("b", "192.0.2.1"), srv("_c._tcp", 1), addr("host1", "192.0.2.1"))
		r.awaitCondition(condRefused, "_a._tcp.svc.test. SRV")
		r.await("the others", func() bool {
			n := 4 // the legacy record, b, _c and the host
			return len(r.lines()) == n
		})
		if !slices.Contains(r.lines(), linesOf([]fakeaws.RRSet{legacy})[0]) {
			t.Errorf("%s: the legacy record is gone", mode)
		}
		r.stop()
		if err := r.sink.Remove(t.Context()); err != nil {
			t.Error(err)
		}
		if !slices.Contains(r.lines(), linesOf([]fakeaws.RRSet{legacy})[0]) {
			t.Errorf("%s: the legacy record is gone after Remove", mode)
		}
	}
}

func TestPitfall_discovery21_SetsOfOthers(t *testing.T) {
	r := newRig(t)
	others := slices.Concat(r.foreign("_a._tcp"), r.foreign("_b._tcp"))
	r.timing.adoptWithin = 1 // look at the names, too
	r.start()
	r.apply(srv("_a._tcp", 1), srv("_b._tcp", 1))
	r.apply(srv("_a._tcp", 2))
	r.await("the look at the names", func() bool { return r.fake.Calls()["ListResourceRecordSets"] >= 1 })
	r.start()
	r.apply(srv("_b._tcp", 2))
	r.checkForeign(others)
	r.apply()
	r.checkForeign(others)
	if n := len(r.lines()); n != len(others) {
		t.Errorf("%d sets are left, want the %d of others", n, len(others))
	}
}

func TestPitfall_discovery21_TwoAgentsWithOneIdentity(t *testing.T) {
	a := newRig(t).start()
	b := newRig(t)
	b.fake, b.zone, b.cfg = a.fake, a.zone, a.cfg
	b.start()
	a.apply(srv("_a._tcp", 1))
	b.apply(srv("_a._tcp", 2)) // a new disk: it takes over
	a.apply(srv("_a._tcp", 3))
	a.awaitCondition(condIdentity, "1 1 2 host1.svc.test., which this host did not write")
	b.apply(srv("_a._tcp", 4))
	b.awaitCondition(condIdentity, "1 1 3 host1.svc.test., which this host did not write")
	a.stop()
	b.stop()
}

func TestPitfall_discovery22_TwoZonesOfOneName(t *testing.T) {
	r := newRig(t)
	public2 := r.fake.AddZone(fakeaws.Zone{Name: "twice.test"})
	r.fake.AddZone(fakeaws.Zone{Name: "twice.test"})
	v1 := r.fake.AddZone(fakeaws.Zone{Name: domain, Private: true, VPCs: []string{"vpc-1"}})
	v2 := r.fake.AddZone(fakeaws.Zone{Name: domain, Private: true, VPCs: []string{"vpc-3", "vpc-2"}})
	r.fake.AddZone(fakeaws.Zone{Name: "x." + domain, Private: true, VPCs: []string{"vpc-2"}})
	for _, tc := range []struct {
		name string
		cfg  Config
		zone string // "" where none is meant
		why  string
	}{
		{"by ID", Config{ZoneID: public2}, "", "is not in the hosted zone twice.test."},
		{"by ID, right", Config{ZoneID: v2}, v2, ""},
		{"by long ID", Config{ZoneID: "/hostedzone/" + v1}, v1, ""},
		{"unknown ID", Config{ZoneID: "ZNONE"}, "", "NoSuchHostedZone"},
		{"public", Config{}, r.zone, ""},
		{"public by name", Config{ZoneName: "SVC.test"}, r.zone, ""},
		{"parent only", Config{ZoneName: "test"}, "", "0 public zones"},
		{"two public ones", Config{ZoneName: "twice.test"}, "", "2 public zones"},
		{"private, two", Config{Private: true}, "", "2 private zones"},
		{"private, by VPC", Config{Private: true, VPCID: "vpc-2"}, v2, ""},
		{"private, no such VPC", Config{Private: true, VPCID: "vpc-9"}, "", "0 private zones"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			run := *r
			run.t, run.dir = t, t.TempDir()
			run.cfg.ZoneID, run.cfg.ZoneName, run.cfg.Private, run.cfg.VPCID = tc.cfg.ZoneID, tc.cfg.ZoneName, tc.cfg.Private, tc.cfg.VPCID
			run.fake.ResetCalls()
			run.start()
			defer run.stop()
			if tc.zone == "" {
				run.want(srv("_a._tcp", 1))
				run.awaitCondition(condZone, tc.why)
				if n := run.fake.Calls()[actionChange]; n != 0 {
					t.Errorf("%d changes without knowing the zone", n)
				}
				return
			}
			run.zone = tc.zone
			run.apply(srv("_a._tcp", 1))
			run.holds("_a._tcp.svc.test.|SRV|host1|multivalue|10|1 1 1 host1.svc.test.")
			run.apply()
		})
	}
}

func TestRemove(t *testing.T) {
	r := newRig(t)
	others := r.foreign("_a._tcp")
	r.start()
	r.apply(append(services(40), srv("_a._tcp", 1), addr("host1", "192.0.2.1"))...)
	r.stop()
	r.fake.Inject(actionChange, fakeaws.Throttled, fakeaws.CutAfter, fakeaws.Internal)
	if err := r.open().Remove(t.Context()); err != nil {
		t.Error(err)
	}
	r.checkForeign(others)
	if n := len(r.lines()); n != len(others) {
		t.Errorf("%d sets are left, want the %d of others", n, len(others))
	}
	r.start()
	r.apply(srv("_a._tcp", 1))
	r.stop()
	r.fake.Always(actionChange, fakeaws.Internal)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := r.open().Remove(ctx); err == nil || !strings.Contains(err.Error(), "1 record sets are left") {
		t.Errorf("Remove while Route 53 fails: %v", err)
	}
}
