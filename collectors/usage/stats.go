package usage

import (
	"math"
	"time"
)

// average is a moving average that forgets with the time constant tau (after
// which 63 % of its weight is newer). It knows about time, so that uneven
// windows weigh what they last: a = 1 − exp(−dt/tau). Until it has seen tau, it is
// the plain mean of all it has seen, because an average that starts at 0, or at
// the first value, tells for hours of its start.
type average struct {
	value float64
	seen  float64 // seconds, up to tau
}

func (a *average) add(value, seconds, tau float64) {
	if seconds <= 0 {
		return
	}
	weight := seconds / (a.seen + seconds)
	if a.seen >= tau {
		weight = -math.Expm1(-seconds / tau)
	}
	a.value += (value - a.value) * weight
	a.seen = min(a.seen+seconds, tau)
}

// The shape of the histograms: buckets that are 5 % wide, from 0.01 cores to 244
// cores, and from 1 MB to 1 TB. The figures are those of the Kubernetes Vertical
// Pod Autoscaler, whose buckets are known to serve for sizing.
const (
	bucketRatio   = 1.05
	firstCores    = 0.01
	firstMemory   = 1e6
	coreBuckets   = 208
	memoryBuckets = 284
	// histogramHalfLife is how long it takes until what was seen counts half.
	histogramHalfLife = 24 * time.Hour
	// renormalize is after how many half-lives weights are scaled down.
	renormalize = 8
	// negligible is the weight in seconds below which a bucket is empty.
	negligible = 1e-3
)

var logRatio = math.Log(bucketRatio)

// histogram counts seconds by what was used in them. Its buckets grow
// exponentially: bucket 0 is [0, first), bucket i [first·r^(i−1), first·r^i), and
// the last one has no end. What is in one place of two histograms may be added.
// Its methods do not allocate.
type histogram struct {
	first   float64
	weights []float32
	total   float64
	// ref is the moment, in unix seconds, at which a second weighs 1 in weights.
	// 0 means that nothing decays.
	ref float64
}

func (h *histogram) bucket(v float64) int {
	if !(v >= h.first) {
		return 0
	}
	return int(min(math.Log(v/h.first)/logRatio+1, float64(len(h.weights)-1)))
}

// edge returns the upper end of bucket i.
func (h *histogram) edge(i int) float64 { return h.first * math.Exp(float64(i)*logRatio) }

// add counts seconds in which v was used.
func (h *histogram) add(v, seconds float64) {
	h.weights[h.bucket(v)] += float32(seconds)
	h.total += seconds
}

// addAt counts seconds that ended at now, which weigh more than earlier ones.
func (h *histogram) addAt(v, seconds, now float64) {
	if h.ref == 0 {
		h.ref = now
	}
	half := histogramHalfLife.Seconds()
	age := (now - h.ref) / half
	if age > renormalize || age < -renormalize {
		h.scale(math.Exp2(-age))
		h.ref, age = now, 0
	}
	h.add(v, seconds*math.Exp2(age))
}

// scale multiplies all weights by f.
func (h *histogram) scale(f float64) {
	h.total = 0
	for i, w := range h.weights {
		w = float32(float64(w) * f)
		if w < negligible {
			w = 0
		}
		h.weights[i] = w
		h.total += float64(w)
	}
}

func (h *histogram) clear() {
	clear(h.weights)
	h.total = 0
}

// percentile returns the value below which the share q of all seconds was spent,
// or 0 if there are none. Within a bucket, the seconds are taken to be spread
// evenly: the error is less than the bucket's width.
func (h *histogram) percentile(q float64) float64 {
	if h.total <= 0 {
		return 0
	}
	rest := q * h.total
	last := 0
	for i, w := range h.weights {
		if w == 0 {
			continue
		}
		last = i
		if f := float64(w); rest <= f {
			low := 0.0
			if i > 0 {
				low = h.edge(i - 1)
			}
			return low + (h.edge(i)-low)*max(rest, 0)/f
		}
		rest -= float64(w)
	}
	return h.edge(last) // of rounding
}

// compact is a value of 0 or 1e-4 and more in 16 bits, by its logarithm: it is
// right to 0.04 %, and reaches 9e14.
type compact uint16

const (
	compactFirst = 1e-4
	compactSteps = 1500 // in each power of e
)

func pack(v float64) compact {
	if !(v >= compactFirst) {
		return 0
	}
	return compact(min(math.Round(math.Log(v/compactFirst)*compactSteps), math.MaxUint16-1)) + 1
}

func (c compact) value() float64 {
	if c == 0 {
		return 0
	}
	return compactFirst * math.Exp(float64(c-1)/compactSteps)
}
