package main

import (
	"math"
	"time"

	"github.com/berthd/berth/collectors/usage"
)

// vpa is the CPU recommender of the Kubernetes Vertical Pod Autoscaler, written
// from its published description, to compare with: a histogram of minutes whose
// buckets grow by 5 % from 0.01 cores, in which a sample's weight halves every 24
// hours; the target is a percentile of it, as the upper end of its bucket, and
// 15 % more.
// https://github.com/kubernetes/autoscaler/blob/master/vertical-pod-autoscaler/docs/components.md
type vpa struct {
	percentile float64
	weights    []float64
	total      float64
	start      time.Time
}

const (
	vpaFirst  = 0.01
	vpaRatio  = 1.05
	vpaMax    = 1000 // cores
	vpaHalf   = 24 * time.Hour
	vpaMargin = 1.15
	vpaFloor  = 0.025 // cores; pod-recommendation-min-cpu-millicores
)

// newVPA returns the recommender for one percentile.
func newVPA(percentile float64) usage.Recommender {
	n := int(math.Log(vpaMax*(vpaRatio-1)/vpaFirst+1)/math.Log(vpaRatio)) + 2
	return &vpa{percentile: percentile, weights: make([]float64, n)}
}

// edge returns the lower end of bucket i: buckets are first, first·r, first·r² …
// wide.
func (v *vpa) edge(i int) float64 {
	return vpaFirst * (math.Pow(vpaRatio, float64(i)) - 1) / (vpaRatio - 1)
}

func (v *vpa) bucket(cores float64) int {
	i := int(math.Log(cores*(vpaRatio-1)/vpaFirst+1) / math.Log(vpaRatio))
	return min(i, len(v.weights)-1)
}

// Observe implements usage.Recommender. It knows nothing of throttling.
func (v *vpa) Observe(end time.Time, used, _, _ float64) {
	if v.start.IsZero() {
		v.start = end
	}
	// Growing weights of new samples are as good as shrinking ones of old ones.
	w := math.Exp2(float64(end.Sub(v.start)) / float64(vpaHalf))
	v.weights[v.bucket(used)] += w
	v.total += w
}

// Recommend implements usage.Recommender.
func (v *vpa) Recommend(time.Time, float64) float64 {
	threshold, sum := v.percentile*v.total, 0.0
	for i, w := range v.weights {
		if sum += w; w > 0 && sum >= threshold {
			return max(v.edge(i+1)*vpaMargin, vpaFloor)
		}
	}
	return 0
}
