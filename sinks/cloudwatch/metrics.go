package cloudwatch

import (
	"fmt"

	"github.com/berthd/berth/agent"
)

// reasons are why samples are lost, in the order in which they are shown.
var reasons = []string{
	"number", "name", "time", "series", "waiting",
	throttled.String(), denied.String(), unsigned.String(), refused.String(), failed.String(), unreachable.String(), unknown.String(),
}

// Summary returns the key figures in one line, for people.
func (s *Sink) Summary() string {
	region := "no region yet"
	if p := s.place.Load(); p != nil {
		region = *p
	}
	text := fmt.Sprintf("%d samples sent to %s in %s, %d series", s.sent.Load(), s.cfg.Namespace, region, s.series.Load())
	if n := s.lostSamples(); n > 0 {
		text += fmt.Sprintf("; %d lost", n)
	}
	return text
}

func (s *Sink) lostSamples() (n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.lost {
		n += v
	}
	return n
}

// Metrics yields the sink's own figures.
func (s *Sink) Metrics(yield func(agent.Sample) bool) {
	for _, sample := range s.figures() {
		if !yield(sample) {
			return
		}
	}
}

func (s *Sink) figures() []agent.Sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []agent.Sample{
		{Name: "berth_cloudwatch_samples_total", Help: "Samples that CloudWatch has accepted.", Kind: agent.Counter, Value: float64(s.sent.Load())},
		{Name: "berth_cloudwatch_series", Help: "Combinations of name and dimensions that were sent within the hour.", Value: float64(s.series.Load())},
	}
	for _, why := range reasons {
		out = append(out, agent.Sample{
			Name: "berth_cloudwatch_lost_samples_total", Help: "Samples that CloudWatch has not accepted, by reason.", Kind: agent.Counter,
			Value: float64(s.lost[why]), Labels: []agent.Label{{Name: "reason", Value: why}},
		})
	}
	for o := accepted; o <= unknown; o++ {
		out = append(out, agent.Sample{
			Name: "berth_cloudwatch_requests_total", Help: "Requests to CloudWatch, by result; retries of the same are not counted.", Kind: agent.Counter,
			Value: float64(s.requests[o]), Labels: []agent.Label{{Name: "result", Value: o.String()}},
		})
	}
	return out
}
