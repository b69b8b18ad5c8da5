package main

import (
	"testing"
	"time"

	"github.com/berthd/berth/collectors/usage"
)

// TestVPA: the target is the end of the percentile's bucket and 15 % more, and
// what was seen a day ago counts half.
func TestVPA(t *testing.T) {
	v := newVPA(0.9)
	now := time.Unix(1e9, 0)
	feed := func(minutes int, cores float64) {
		for range minutes {
			now = now.Add(time.Minute)
			v.Observe(now, cores, 0, 0)
		}
	}
	if got := v.Recommend(now, 1); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
	feed(95, 0.5)
	feed(5, 4)
	if got := v.Recommend(now, 1); got < 0.5*1.15 || got > 0.5*1.15*1.06 {
		t.Errorf("p90 of 0.5 cores: got %v", got)
	}
	feed(10, 4)
	if got := v.Recommend(now, 1); got < 4*1.15 || got > 4*1.15*1.06 {
		t.Errorf("p90 where more than a tenth is 4 cores: got %v", got)
	}
	// 110 minutes ago are nothing after ten days.
	now = now.Add(10 * 24 * time.Hour)
	feed(10, 1)
	if got := v.Recommend(now, 1); got < 1.15 || got > 1.15*1.06 {
		t.Errorf("after ten days: got %v", got)
	}
}

// TestBatchIsMissed: the known weakness of one percentile for all of the day, and
// what the comparison is about.
func TestBatchIsMissed(t *testing.T) {
	var vpa, peaks []usage.Score
	for seed := range uint64(4) {
		tr := usage.Generate(usage.KindBatch, seed, 28, 1)
		for _, m := range methods() {
			switch m.Name {
			case vpa90:
				vpa = append(vpa, usage.Replay(tr, m, false))
			case usage.MethodPeaks:
				peaks = append(peaks, usage.Replay(tr, m, false))
			}
		}
	}
	if a, b := usage.Mean(vpa), usage.Mean(peaks); a.Volume < 20*b.Volume {
		t.Errorf("overrun volume of nightly jobs: VPA %v, peaks %v", a.Volume, b.Volume)
	}
}
