package usage

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// Trace is what one container would use if nothing stopped it: the mean cores of
// each of its minutes.
type Trace struct {
	Name  string
	Start time.Time
	Cores []float32
}

// Minute is the step of a Trace.
const Minute = time.Minute

// The kinds of load that Generate makes.
const (
	KindSteady = "steady" // noise alone
	KindDaily  = "daily"  // a peak each day
	KindWeekly = "weekly" // a peak each day, less at weekends
	KindTrend  = "trend"  // a peak each day, 1 to 3 % higher than that of the day before
	KindBursty = "bursty" // bursts of some minutes, some times a day
	KindBatch  = "batch"  // idle but for a job in the night
	KindStep   = "step"   // a peak each day, and one day all of it is 1.8 times as much
)

// Kinds are all kinds of load, in the order in which they are shown.
var Kinds = []string{KindSteady, KindDaily, KindWeekly, KindTrend, KindBursty, KindBatch, KindStep}

// stepFactor is how much higher a load of KindStep is after its step.
const stepFactor = 1.8

const minutesOfDay = 24 * 60

// Generate returns a load of some kind that lasts for days. The same arguments
// give the same load on every machine. It panics on an unknown kind.
//
// What all kinds share: a container's scale is between 0.1 and 4 cores, evenly by
// its logarithm. Its minutes are noisy, each like the one before: an AR(1) process
// with a correlation of 0.9 and a standard deviation of 3 to 10 % of the level. The
// day's peak is a raised cosine, 1.5 to 4 times the night's level, sharper or
// broader. The first day is a Monday. Where rough is not 1, noise and bursts are
// so many times as large: how a method fares depends on both.
func Generate(kind string, seed uint64, days int, rough float64) Trace {
	var salt uint64
	for _, b := range []byte(kind) {
		salt = salt*31 + uint64(b)
	}
	r := rand.New(rand.NewPCG(mix(seed), mix(salt)))
	uniform := func(low, high float64) float64 { return low + (high-low)*r.Float64() }
	t := Trace{
		Name:  fmt.Sprintf("%s-%d", kind, seed),
		Start: time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC),
		Cores: make([]float32, days*minutesOfDay),
	}
	scale := math.Exp(uniform(math.Log(0.1), math.Log(4)))
	noise := newNoise(r, rough*uniform(0.03, 0.10))
	day := dayShape{
		amplitude: uniform(0.5, 3),
		peak:      uniform(9, 21) * 60,
		sharp:     uniform(1, 3),
	}
	level := func(int) float64 { return 1 }
	switch kind {
	case KindSteady:
	case KindDaily:
		level = day.at
	case KindWeekly:
		weekend := uniform(0.3, 0.7)
		level = func(m int) float64 {
			if d := m / minutesOfDay % 7; d >= 5 {
				return weekend * day.at(m)
			}
			return day.at(m)
		}
	case KindTrend:
		growth := uniform(0.01, 0.03)
		level = func(m int) float64 { return day.at(m) * math.Pow(1+growth, float64(m)/minutesOfDay) }
	case KindBursty:
		day.amplitude = uniform(0.2, 1)
		bursts := burstsOf(r, days, rough)
		level = func(m int) float64 { return day.at(m) + bursts[m] }
	case KindBatch:
		jobs := jobsOf(r, days)
		level = func(m int) float64 { return 0.05 + jobs[m] }
	case KindStep:
		at := int(uniform(9, max(10, float64(days-4))) * minutesOfDay)
		level = func(m int) float64 {
			if m >= at {
				return stepFactor * day.at(m)
			}
			return day.at(m)
		}
	default:
		panic("usage: no such kind of load: " + kind)
	}
	for m := range t.Cores {
		t.Cores[m] = float32(max(0.001, scale*level(m)*noise.next()))
	}
	return t
}

// mix spreads a seed over all bits (SplitMix64), so that neighbours are unlike.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// noise is a factor around 1 that differs little from one minute to the next.
type noise struct {
	r        *rand.Rand
	sd, last float64
}

func newNoise(r *rand.Rand, sd float64) *noise { return &noise{r: r, sd: sd} }

func (n *noise) next() float64 {
	const correlation = 0.9
	n.last = correlation*n.last + math.Sqrt(1-correlation*correlation)*n.r.NormFloat64()
	return max(0.05, 1+n.sd*n.last)
}

// dayShape is a level of 1 at night, and of 1 + amplitude at the peak.
type dayShape struct {
	amplitude float64
	peak      float64 // minute of the day
	sharp     float64 // the exponent of the cosine
}

func (d dayShape) at(m int) float64 {
	phase := 2 * math.Pi * (float64(m%minutesOfDay) - d.peak) / minutesOfDay
	return 1 + d.amplitude*math.Pow((1+math.Cos(phase))/2, d.sharp)
}

// burstsOf returns what bursts add in each minute: two to eight a day, each 2 to
// 20 minutes long and, where rough is 1, half to twice the night's level high.
func burstsOf(r *rand.Rand, days int, rough float64) []float64 {
	out := make([]float64, days*minutesOfDay)
	perMinute := (2 + 6*r.Float64()) / minutesOfDay
	for m := 0; m < len(out); m++ {
		if r.Float64() >= perMinute {
			continue
		}
		height := rough * (0.5 + 1.5*r.Float64())
		for end := min(len(out), m+2+r.IntN(19)); m < end; m++ {
			out[m] += height
		}
	}
	return out
}

// jobsOf returns what a nightly job adds in each minute: it begins between 0 and
// 5 o'clock, up to a quarter of an hour late, and lasts for 30 minutes to 3 hours,
// give or take 20 %.
func jobsOf(r *rand.Rand, days int) []float64 {
	out := make([]float64, days*minutesOfDay)
	start := r.Float64() * 5 * 60
	length := 30 + 150*r.Float64()
	for d := range days {
		from := d*minutesOfDay + int(start+15*r.Float64())
		to := from + int(length*(0.8+0.4*r.Float64()))
		for m := from; m < min(to, len(out)); m++ {
			out[m] = 1
		}
	}
	return out
}
