package usage

import (
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

// random returns a source that BERTH_USAGE_SEED replays.
func random(t testing.TB) *rand.Rand {
	seed := rand.Uint64()
	if s := os.Getenv("BERTH_USAGE_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("replay with BERTH_USAGE_SEED=%d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 1))
}

func near(got, want, tolerance float64) bool { return math.Abs(got-want) <= tolerance*math.Abs(want) }

// TestAverageStartsAsMean: before it has seen tau, an average is the plain mean,
// whatever the windows.
func TestAverageStartsAsMean(t *testing.T) {
	var a average
	a.add(1, 10, 3600)
	a.add(4, 20, 3600)
	a.add(0, 30, 3600)
	if want := (1*10 + 4*20) / 60.0; !near(a.value, want, 1e-12) {
		t.Errorf("got %v, want %v", a.value, want)
	}
	a.add(1000, 0, 3600)
	a.add(1000, -5, 3600)
	if a.seen != 60 {
		t.Errorf("an empty window counts: seen %v", a.seen)
	}
}

// TestAverageForgets: after a step, 63 % of it is there after tau, in windows of
// any length.
func TestAverageForgets(t *testing.T) {
	for _, window := range []float64{1, 10, 60, 300} {
		a := average{value: 0, seen: 300}
		for s := 0.0; s < 300; s += window {
			a.add(1, window, 300)
		}
		if want := 1 - math.Exp(-1); !near(a.value, want, 1e-9) {
			t.Errorf("windows of %v s: got %v, want %v", window, a.value, want)
		}
	}
}

// TestPercentiles: a histogram's percentiles are within a bucket's width of the
// true ones.
func TestPercentiles(t *testing.T) {
	r := random(t)
	for range 200 {
		h := histogram{first: firstCores, weights: make([]float32, coreBuckets)}
		values := make([]float64, 1+r.IntN(500))
		scale := math.Exp(r.Float64()*6 - 3)
		for i := range values {
			values[i] = scale * math.Exp(r.NormFloat64()/2)
			h.add(values[i], 10)
		}
		slices.Sort(values)
		for _, q := range []float64{0.5, 0.9, 0.95} {
			i := min(int(math.Ceil(q*float64(len(values))))-1, len(values)-1)
			want, got := values[max(i, 0)], h.percentile(q)
			if math.Abs(got-want) > max(firstCores, want*(bucketRatio-1)*1.001) {
				t.Fatalf("p%v of %d values: got %v, want %v", 100*q, len(values), got, want)
			}
		}
	}
	var none histogram
	if none.percentile(0.9) != 0 {
		t.Error("nothing has a percentile")
	}
}

func TestHistogramEnds(t *testing.T) {
	h := histogram{first: firstCores, weights: make([]float32, coreBuckets)}
	for _, v := range []float64{0, -1, math.NaN(), 0.0099} {
		if b := h.bucket(v); b != 0 {
			t.Errorf("%v is in bucket %d", v, b)
		}
	}
	for _, v := range []float64{1e9, math.Inf(1)} {
		if b := h.bucket(v); b != coreBuckets-1 {
			t.Errorf("%v is in bucket %d", v, b)
		}
	}
	if top := h.edge(coreBuckets - 2); top < 224 {
		t.Errorf("buckets end at %v cores", top)
	}
	m := histogram{first: firstMemory}
	if top := m.edge(memoryBuckets - 2); top < 9e11 {
		t.Errorf("buckets end at %v bytes", top)
	}
}

// TestHistogramDecays: after a half-life, what was counts half of what is, also
// when weights have been scaled in between.
func TestHistogramDecays(t *testing.T) {
	for _, days := range []float64{1, 3, 8.5, 30} {
		h := histogram{first: firstCores, weights: make([]float32, coreBuckets)}
		now := 1.7e9
		h.addAt(1, 3600, now)
		now += days * 86400
		h.addAt(4, 3600, now)
		old, fresh := float64(h.weights[h.bucket(1)]), float64(h.weights[h.bucket(4)])
		want := math.Exp2(-days)
		if got := old / fresh; math.Abs(got-want) > 1e-5 {
			t.Errorf("after %v days: got %v, want %v", days, got, want)
		}
	}
}

func TestCompact(t *testing.T) {
	r := random(t)
	if pack(0) != 0 || pack(-1) != 0 || pack(math.NaN()) != 0 || compact(0).value() != 0 {
		t.Error("nothing is not 0")
	}
	for range 10000 {
		v := compactFirst * math.Exp(r.Float64()*43)
		if got := pack(v).value(); !near(got, v, 4e-4) {
			t.Fatalf("%v became %v", v, got)
		}
	}
	if got := pack(math.Inf(1)).value(); got < 9e14 {
		t.Errorf("the end is at %v", got)
	}
	for c := range math.MaxUint16 {
		if got := pack(compact(c).value()); got != compact(c) {
			t.Fatalf("%d became %d", c, got)
		}
	}
}

// fill gives a history so many hours of a constant use.
func fill(s *history, from int64, n int, cores float64) {
	for i := range int64(n) {
		s.turn(from + i)
		s.current.cores.add(cores, 3600)
		s.current.peak = cores
		s.current.used += cores * 3600
		s.current.seconds += 3600
	}
	s.turn(from + int64(n))
}

// TestHistoryRemembersEightDays: 192 hours, and not one more.
func TestHistoryRemembersEightDays(t *testing.T) {
	s := newHistory()
	fill(s, 1000, 1, 5)
	fill(s, 1001, hours-1, 1)
	if cores, at := s.peak(false); at != 1000 || !near(cores, 5, bucketRatio-1) {
		t.Errorf("after 192 hours: %v cores at %d", cores, at)
	}
	if s.known != hours {
		t.Errorf("known: %d", s.known)
	}
	fill(s, s.now, 1, 1)
	if cores, _ := s.peak(false); !near(cores, 1, bucketRatio-1) {
		t.Errorf("after 193 hours: %v cores", cores)
	}
	if _, ok := s.at(1000); ok {
		t.Error("hour 1000 is still there")
	}
}

// TestHistoryGaps: hours without any measurement are unknown, not 0, and a long
// gap ends everything.
func TestHistoryGaps(t *testing.T) {
	s := newHistory()
	fill(s, 1000, 10, 2)
	s.turn(1100)
	if s.known != 10 {
		t.Errorf("known after a gap: %d", s.known)
	}
	if _, ok := s.at(1050); ok {
		t.Error("an hour of the gap is known")
	}
	if h, ok := s.at(1005); !ok || !near(h.p90.value(), 2, bucketRatio-1) {
		t.Error("an hour before the gap is not known")
	}
	s.turn(1009 + hours)
	if s.known != 1 {
		t.Errorf("of the last hour at the edge: %d", s.known)
	}
	s.turn(5000)
	if cores, _ := s.peak(false); cores != 0 || s.known != 0 {
		t.Errorf("after a long gap: %v cores, %d known", cores, s.known)
	}
	s.turn(10)
	if s.now != 5000 {
		t.Error("an hour went back")
	}
}

// TestHistoryShift: moving all hours keeps each.
func TestHistoryShift(t *testing.T) {
	s := newHistory()
	for i := range int64(150) {
		fill(s, 1000+i, 1, 1+float64(i))
	}
	for _, d := range []int64{-700, 33, 192, -1} {
		before := s.now
		s.shift(d)
		if s.now != before+d {
			t.Fatalf("now: %d", s.now)
		}
		for i := range int64(150) {
			h, ok := s.at(s.now - 150 + i)
			if !ok || !near(h.peak.value(), 1+float64(i), 1e-3) {
				t.Fatalf("shift by %d: hour %d: %v %v", d, i, h, ok)
			}
		}
	}
}

// TestSameHour: of a daily job, the hours of the day say when it comes.
func TestSameHour(t *testing.T) {
	s := newHistory()
	for i := range int64(240) {
		cores := 0.1
		if i%24 == 3 {
			cores = 4
		}
		fill(s, 24000+i, 1, cores)
	}
	for i := range int64(48) {
		cores, days := s.sameHour(s.now + i)
		want := 0.1
		if i%24 == 3 {
			want = 4
		}
		if days != 8 || !near(cores, want, bucketRatio-1) {
			t.Errorf("hour %d: %v cores of %d days", i, cores, days)
		}
		wantAhead := 0.1
		if j := i % 24; j >= 1 && j <= 3 {
			wantAhead = 4
		}
		if got := s.profile(s.now + i); !near(got, wantAhead, bucketRatio-1) {
			t.Errorf("profile of hour %d: %v", i, got)
		}
	}
}

// TestPitfall_usage06_LimitHidesNeed: what is used under a limit is never above
// it. Hours that were throttled ask for more than their percentile, those that
// were not for exactly it.
func TestPitfall_usage06_LimitHidesNeed(t *testing.T) {
	for _, c := range []struct{ throttled, want float64 }{
		{0, 1}, {0.049, 1}, {0.06, 1.2}, {0.5, 1.34}, {1, 1.5},
	} {
		s := newHistory()
		s.turn(1000)
		l := &s.current
		l.cores.add(1, 3600)
		l.peak, l.used, l.seconds = 1, 3600, 3600
		l.periods, l.throttled, l.limit = 36000, 36000*c.throttled, 1
		s.turn(1001)
		if got, _ := s.peak(false); !near(got, c.want, 0.05) {
			t.Errorf("%v of the periods throttled: got %v cores, want %v", c.throttled, got, c.want)
		}
	}
	// Short bursts into the limit, at a low average: the limit is too low all the
	// same.
	s := newHistory()
	s.turn(1000)
	l := &s.current
	l.cores.add(0.1, 3600)
	l.peak, l.used, l.seconds = 0.1, 360, 3600
	l.periods, l.throttled, l.limit = 430, 100, 0.5
	s.turn(1001)
	if got, _ := s.peak(false); got < 0.5*1.2 {
		t.Errorf("throttled at 0.5 cores by bursts: %v cores are advised", got)
	}
}

func TestRounding(t *testing.T) {
	for _, c := range []struct{ in, want float64 }{
		{0, 11.0 / 1024}, {0.01, 11.0 / 1024}, {0.1, 103.0 / 1024}, {0.25, 0.25}, {0.251, 33.0 / 128}, {1, 1}, {1.001, 1 + 1.0/128},
	} {
		if got := roundCores(c.in); got != c.want {
			t.Errorf("roundCores(%v): got %v, want %v", c.in, got, c.want)
		}
	}
	for _, c := range []struct{ in, want float64 }{
		{0, 16 << 20}, {16 << 20, 16 << 20}, {16<<20 + 1, 24 << 20}, {1e9, 120 * (8 << 20)},
	} {
		if got := roundMemory(c.in); got != c.want {
			t.Errorf("roundMemory(%v): got %v, want %v", c.in, got, c.want)
		}
	}
}

func TestHourOf(t *testing.T) {
	for _, c := range []struct {
		at   time.Time
		want int64
	}{
		{time.Unix(0, 0), 0}, {time.Unix(3599, 0), 0}, {time.Unix(3600, 0), 1}, {time.Unix(-1, 0), -1}, {time.Unix(-3600, 0), -1}, {time.Unix(-3601, 0), -2},
	} {
		if got := hourOf(c.at); got != c.want {
			t.Errorf("%v: got %d, want %d", c.at, got, c.want)
		}
	}
}
