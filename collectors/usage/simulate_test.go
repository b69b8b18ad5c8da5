package usage

import (
	"hash/fnv"
	"math"
	"testing"
	"time"
)

// fixed always recommends the same.
type fixed float64

func (fixed) Observe(time.Time, float64, float64, float64) {}
func (f fixed) Recommend(time.Time, float64) float64       { return float64(f) }

// TestReplayScores: a trace whose scores can be worked out by hand.
func TestReplayScores(t *testing.T) {
	tr := Trace{Start: time.Unix(0, 0), Cores: make([]float32, 12*minutesOfDay)}
	for i := range tr.Cores {
		tr.Cores[i] = 1
		if i%minutesOfDay < 6 { // six minutes a day
			tr.Cores[i] = 4
		}
	}
	got := Replay(tr, Method{New: func() Recommender { return fixed(2) }, Policy: CarefulPolicy}, false)
	want := Score{
		Slack:   1 - (1434+6*2)/(1440*2.0),
		Time:    6.0 / 1440,
		Volume:  6 * 2 / (1434 + 6*4.0),
		Longest: 6,
	}
	for _, f := range []struct {
		name      string
		got, want float64
	}{
		{"slack", got.Slack, want.Slack},
		{"time", got.Time, want.Time},
		{"volume", got.Volume, want.Volume},
		{"changes", got.Changes, want.Changes},
		{"longest", got.Longest, want.Longest},
	} {
		if math.Abs(f.got-f.want) > 1e-9 {
			t.Errorf("%s: got %v, want %v", f.name, f.got, f.want)
		}
	}
}

// alternating recommends 1 and 2 in turn.
type alternating struct{ n *int }

func (alternating) Observe(time.Time, float64, float64, float64) {}
func (a alternating) Recommend(time.Time, float64) float64 {
	*a.n++
	return float64(1 + *a.n%2)
}

// TestReplayPolicy: the careful policy lowers once a day at most, the hourly one
// follows each time.
func TestReplayPolicy(t *testing.T) {
	tr := Trace{Start: time.Unix(0, 0), Cores: make([]float32, 15*minutesOfDay)}
	for _, c := range []struct {
		policy   Policy
		low, top float64
	}{{HourlyPolicy, 160, 170}, {CarefulPolicy, 12, 14}} {
		got := Replay(tr, Method{New: func() Recommender { return alternating{new(int)} }, Policy: c.policy}, false)
		if got.Changes < c.low || got.Changes > c.top {
			t.Errorf("%+v: %v changes a week, want %v to %v", c.policy, got.Changes, c.low, c.top)
		}
	}
}

// TestGenerateIsFixed: seeds mean the same loads on every machine, or figures
// could not be compared.
func TestGenerateIsFixed(t *testing.T) {
	h := fnv.New64a()
	for _, k := range Kinds {
		for _, c := range Generate(k, 7, 14, 1).Cores {
			// Libraries of mathematics may differ in the last bits.
			v := uint32(math.Round(float64(c) * 1e3))
			h.Write([]byte{byte(v), byte(v >> 8), byte(v >> 16)})
		}
	}
	if got, want := h.Sum64(), uint64(0xdf1bd7c4be1a5d12); got != want {
		t.Errorf("the loads have changed: %#x, not %#x", got, want)
	}
}

// TestGenerateKinds: each kind is what its name says.
func TestGenerateKinds(t *testing.T) {
	mean := func(c []float32) float64 {
		var sum float64
		for _, v := range c {
			sum += float64(v)
		}
		return sum / float64(len(c))
	}
	day := func(tr Trace, d int) []float32 { return tr.Cores[d*minutesOfDay : (d+1)*minutesOfDay] }
	for seed := range uint64(20) {
		if tr := Generate(KindWeekly, seed, 14, 1); mean(day(tr, 5)) > 0.8*mean(day(tr, 3)) {
			t.Errorf("seed %d: no weekend", seed)
		}
		if tr := Generate(KindTrend, seed, 28, 1); mean(day(tr, 27)) < 1.2*mean(day(tr, 0)) {
			t.Errorf("seed %d: no trend", seed)
		}
		if tr := Generate(KindStep, seed, 28, 1); !near(mean(day(tr, 27))/mean(day(tr, 0)), stepFactor, 0.15) {
			t.Errorf("seed %d: no step", seed)
		}
		tr := Generate(KindBatch, seed, 14, 1)
		busy := 0
		for _, c := range tr.Cores {
			if float64(c) > 5*mean(day(tr, 1)[12*60:18*60]) {
				busy++
			}
		}
		if share := float64(busy) / float64(len(tr.Cores)); share < 0.01 || share > 0.18 {
			t.Errorf("seed %d: a job runs for %v of the time", seed, share)
		}
	}
}

func scoreOf(name string, seeds uint64, limited bool) Score {
	var all []Score
	for _, m := range Methods() {
		if m.Name != name {
			continue
		}
		for _, k := range Kinds {
			for s := range seeds {
				all = append(all, Replay(Generate(k, 100+s, 28, 1), m, limited))
			}
		}
	}
	return Mean(all)
}

// TestMethodsMeetTargets: on a few seeds; test/bench/advice has all of them, and
// what is compared with.
func TestMethodsMeetTargets(t *testing.T) {
	for _, c := range []struct {
		method                       string
		slack, time, volume, changes float64
	}{
		{MethodPeaks, 0.54, 0.006, 0.0006, 0.9},
		{MethodHourly, 0.42, 0.008, 0.001, 80},
		{MethodPlan, 0.42, 0.010, 0.005, 10},
	} {
		got := scoreOf(c.method, 2, false)
		if got.Slack > c.slack || got.Time > c.time || got.Volume > c.volume || got.Changes > c.changes {
			t.Errorf("%s: got %+v, want at most %+v", c.method, got, c)
		}
	}
}

// TestLimitedDoesNotFoolPeaks: where a container cannot show what it wants, the
// advice still ends above it.
func TestLimitedDoesNotFoolPeaks(t *testing.T) {
	if got := scoreOf(MethodPeaks, 2, true); got.Time > 0.005 || got.Volume > 0.001 {
		t.Errorf("limited to what is reserved: %+v", got)
	}
}

// TestPlanCoversNeed: whatever is expected, a plan reserves enough for the hour
// that comes, within its tolerance, and stays where a change does not pay.
func TestPlanCoversNeed(t *testing.T) {
	r := random(t)
	for range 2000 {
		var p planner
		for i := range p.need {
			p.need[i] = math.Exp(r.NormFloat64())
		}
		want, reserved := p.need[0], math.Exp(r.NormFloat64())
		if to := p.next(reserved); to*(1+planTolerance) < want {
			t.Fatalf("%v cores are needed, and %v planned", want, to)
		}
	}
	var p planner
	for i := range p.need {
		p.need[i] = 0.95
	}
	if to := p.next(1); to != 1 {
		t.Errorf("a change of 5 %% for two days: %v", to)
	}
	for i := range p.need {
		p.need[i] = 0.5
	}
	if to := p.next(1); to != 0.5 {
		t.Errorf("half for two days: %v", to)
	}
	for i := range p.need {
		p.need[i] = 1
	}
	p.need[0] = 0.5
	if to := p.next(1); to != 1 {
		t.Errorf("half for an hour: %v", to)
	}
}
