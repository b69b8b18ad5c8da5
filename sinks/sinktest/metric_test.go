package sinktest

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/berthd/berth/agent"
)

// world is what a sink of metrics sends to.
type world struct {
	mu               sync.Mutex
	gauges           []agent.Sample
	growth           map[string]float64
	failing, hanging bool
}

// metricFault is how a sink of metrics can be wrong.
type metricFault string

const (
	sound           metricFault = "is right"
	dropsLabels     metricFault = "drops labels"
	dropsLast       metricFault = "drops the last sample"
	sendsTotals     metricFault = "sends totals for growth"
	diesOfNaN       metricFault = "gives a batch up for a NaN"
	keepsBatch      metricFault = "keeps the batch"
	changesBatch    metricFault = "changes the batch"
	refusesEmpty    metricFault = "refuses an empty batch"
	hidesFailures   metricFault = "hides failures"
	staysBroken     metricFault = "stays broken"
	ignoresContext  metricFault = "ignores its context"
	hidesTheEnd     metricFault = "hides that its context has ended"
	namesThemWrong  metricFault = "names its figures wrong"
	sendsFailedLate metricFault = "sends what failed later"
)

// metricSink is a sink of metrics that has one fault.
type metricSink struct {
	*world
	fault  metricFault
	last   map[string]float64
	broken bool
	late   []agent.Sample
}

func (s *metricSink) Name() string { return "memory" }

func (s *metricSink) Metrics(yield func(agent.Sample) bool) {
	name := "berth_memory_samples_total"
	if s.fault == namesThemWrong {
		name = "samples_total"
	}
	yield(agent.Sample{Name: name})
}

func (s *metricSink) Write(ctx context.Context, samples []agent.Sample) error {
	if s.fault != hidesTheEnd && s.fault != ignoresContext && ctx.Err() != nil {
		return ctx.Err()
	}
	for {
		s.mu.Lock()
		hanging := s.hanging
		s.mu.Unlock()
		if !hanging {
			break
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			if s.fault == ignoresContext {
				continue
			}
			return ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.fault == refusesEmpty && len(samples) == 0:
		return errors.New("nothing to send")
	case s.fault == staysBroken && s.broken:
		return errors.New("still broken")
	case s.failing:
		s.broken, s.late = true, slices.Clone(samples)
		if s.fault == hidesFailures {
			return nil
		}
		return errors.New("failed")
	}
	if s.fault == sendsFailedLate {
		samples = append(s.late, samples...)
		s.late = nil
	}
	s.take(samples)
	return nil
}

func (s *metricSink) take(samples []agent.Sample) {
	first := s.last == nil
	if first {
		s.last = make(map[string]float64)
	}
	if s.fault == dropsLast && len(samples) > 1 {
		samples = samples[:len(samples)-1]
	}
	for i, m := range samples {
		switch {
		case math.IsNaN(m.Value) || math.IsInf(m.Value, 0):
			if s.fault == diesOfNaN {
				return
			}
		case m.Kind == agent.Counter:
			grown := m.Value - s.last[m.Name]
			if grown < 0 || s.fault == sendsTotals {
				grown = m.Value
			}
			if !first {
				s.growth[m.Name] += grown
			}
			s.last[m.Name] = m.Value
		default:
			if s.fault != keepsBatch {
				m.Labels = slices.Clone(m.Labels)
			}
			if s.fault == dropsLabels {
				m.Labels = nil
			}
			s.gauges = append(s.gauges, m)
		}
		if s.fault == changesBatch {
			samples[i].Name = "changed"
		}
	}
}

func metricFixture(f metricFault) MetricFixture {
	w := &world{growth: make(map[string]float64)}
	set := func(b *bool) func(bool) {
		return func(on bool) {
			w.mu.Lock()
			defer w.mu.Unlock()
			*b = on
		}
	}
	return MetricFixture{
		Sink:     &metricSink{world: w, fault: f},
		Gauges:   func() ([]agent.Sample, error) { return w.gauges, nil },
		Growth:   func(name string) (float64, error) { return w.growth[name], nil },
		Fail:     set(&w.failing),
		Hang:     set(&w.hanging),
		Patience: 2 * time.Minute,
	}
}

func TestRightMetricSinkPasses(t *testing.T) {
	MetricSink(t, func(*testing.T) MetricFixture { return metricFixture(sound) })
}

// TestWrongMetricSinksFail proves that the suite sees each fault, in the check
// that is meant for it.
func TestWrongMetricSinksFail(t *testing.T) {
	for _, tt := range []struct {
		fault metricFault
		check string
	}{
		{dropsLabels, "Gauges"},
		{dropsLast, "Gauges"},
		{sendsTotals, "Counters"},
		{diesOfNaN, "BadNumbers"},
		{keepsBatch, "Borrowed"},
		{changesBatch, "Borrowed"},
		{refusesEmpty, "Empty"},
		{hidesFailures, "BackendFails"},
		{staysBroken, "BackendFails"},
		{sendsFailedLate, "BackendFails"},
		{ignoresContext, "EndsInTime"},
		{hidesTheEnd, "EndsInTime"},
		{namesThemWrong, "OwnFigures"},
	} {
		t.Run(string(tt.fault), func(t *testing.T) {
			i := slices.IndexFunc(metricChecks, func(c metricCheck) bool { return c.name == tt.check })
			f := metricFixture(tt.fault)
			if tt.fault == ignoresContext {
				f.Patience = 100 * time.Millisecond
			}
			if err := runMetricCheck(t.Context(), metricChecks[i], f); err == nil {
				t.Errorf("%s passed a sink that %s", tt.check, tt.fault)
			}
		})
	}
}
