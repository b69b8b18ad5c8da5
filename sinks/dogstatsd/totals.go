package dogstatsd

import (
	"math"
	"strings"

	"github.com/berthd/berth/agent"
)

// totals remembers of each counter how much of it has been sent. Its zero value
// has seen no batch.
type totals struct {
	sent map[string]float64 // by series
}

// growth returns by how much each counter of a batch has grown, in whole
// numbers, at the same index as its sample; 0 for gauges, and for everything in
// the first batch. Counters that are not in the batch are forgotten.
func (t *totals) growth(samples []agent.Sample) []int64 {
	first := t.sent == nil
	next := make(map[string]float64, len(t.sent))
	out := make([]int64, len(samples))
	for i, s := range samples {
		// What is not finite, or larger than whole numbers are exact, is no count.
		if s.Kind != agent.Counter || !(s.Value >= 0 && s.Value < 1<<53) {
			continue
		}
		key := series(s)
		if first {
			next[key] = s.Value
			continue
		}
		base := t.sent[key]
		if s.Value < base {
			base = 0 // the component has started anew
		}
		whole := math.Floor(s.Value - base)
		out[i] = int64(whole)
		next[key] = base + whole
	}
	t.sent = next
	return out
}

// series identifies a sample's series.
func series(s agent.Sample) string {
	var b strings.Builder
	b.WriteString(s.Name)
	for _, l := range s.Labels {
		b.WriteByte(0xff) // in no valid UTF-8
		b.WriteString(l.Name)
		b.WriteByte(0xff)
		b.WriteString(l.Value)
	}
	return b.String()
}
