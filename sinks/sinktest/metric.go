package sinktest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berthd/berth/agent"
)

// MetricFixture is one sink of metrics on a backend of its own. The suite makes a
// new one for every check; what there is to clean up, the factory hands to
// t.Cleanup.
type MetricFixture struct {
	// Sink is the sink under test. It must let all names through that begin with
	// berth_sinktest_, and keep the labels "component" and "state" apart.
	Sink agent.MetricSink

	// Gauges returns what the outside world has received of gauges so far: their
	// Name, Labels and Value, in any order.
	Gauges func() ([]agent.Sample, error)

	// Growth returns by how much the outside world takes a counter without labels
	// to have grown since the first batch.
	Growth func(name string) (float64, error)

	// Fail makes the backend refuse everything until it is called with false. Nil
	// for a backend that cannot fail, or not so that a sink can tell.
	Fail func(failing bool)

	// Hang makes the backend take everything and never answer until it is called
	// with false. Nil for a backend that is not asked for an answer.
	Hang func(hanging bool)

	// Patience is how long a Write may take that nothing keeps from ending; 1m
	// where it is zero.
	Patience time.Duration
}

// MetricSink runs the conformance suite of sinks of metrics as subtests of t, each
// on a new fixture from the factory.
func MetricSink(t *testing.T, factory func(t *testing.T) MetricFixture) {
	t.Helper()
	for _, c := range metricChecks {
		t.Run(c.name, func(t *testing.T) {
			if err := runMetricCheck(t.Context(), c, factory(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

// metricCheck is one thing that every sink of metrics must do.
type metricCheck struct {
	name string
	run  func(h *metricHarness) error
}

var metricChecks = []metricCheck{
	{"Gauges", checkGauges},
	{"Counters", checkCounters},
	{"BadNumbers", checkBadNumbers},
	{"Borrowed", checkBorrowed},
	{"Empty", checkEmpty},
	{"BackendFails", checkMetricFails},
	{"EndsInTime", checkEndsInTime},
	{"OwnFigures", checkOwnFigures},
}

// metricHarness drives the sink of one fixture.
type metricHarness struct {
	MetricFixture
	ctx context.Context
}

func runMetricCheck(ctx context.Context, c metricCheck, f MetricFixture) error {
	if f.Patience == 0 {
		f.Patience = time.Minute
	}
	return c.run(&metricHarness{f, ctx})
}

const (
	levelName = "berth_sinktest_level"
	totalName = "berth_sinktest_things_total"
)

func level(v float64, labels ...agent.Label) agent.Sample {
	return agent.Sample{Name: levelName, Help: "A level.", Value: v, Labels: labels}
}

func total(v float64) agent.Sample {
	return agent.Sample{Name: totalName, Help: "A total.", Kind: agent.Counter, Value: v}
}

func componentLabel(v string) agent.Label { return agent.Label{Name: "component", Value: v} }

// write sends a batch, which must succeed in time.
func (h *metricHarness) write(samples ...agent.Sample) error {
	took, err := h.try(h.ctx, samples)
	switch {
	case err != nil:
		return fmt.Errorf("write of %d samples: %w", len(samples), err)
	case took > h.Patience:
		return fmt.Errorf("write took %v", took)
	}
	return nil
}

func (h *metricHarness) try(ctx context.Context, samples []agent.Sample) (time.Duration, error) {
	start := time.Now()
	err := h.Sink.Write(ctx, samples)
	return time.Since(start), err
}

// line is a gauge as text, to be compared and sorted.
func line(s agent.Sample) string {
	labels := make([]string, len(s.Labels))
	for i, l := range s.Labels {
		labels[i] = l.Name + "=" + l.Value
	}
	slices.Sort(labels)
	return fmt.Sprintf("%s{%s} %v", s.Name, strings.Join(labels, ","), s.Value)
}

// received compares all gauges that the outside world has received with these.
func (h *metricHarness) received(want ...agent.Sample) error {
	got, err := h.Gauges()
	if err != nil {
		return err
	}
	lines := func(samples []agent.Sample) []string {
		out := make([]string, len(samples))
		for i, s := range samples {
			out[i] = line(s)
		}
		slices.Sort(out)
		return out
	}
	if g, w := lines(got), lines(want); !slices.Equal(g, w) {
		return fmt.Errorf("received:\n\t%s\nwant:\n\t%s", strings.Join(g, "\n\t"), strings.Join(w, "\n\t"))
	}
	return nil
}

// checkGauges: each series arrives with its labels and its value, with each batch.
func checkGauges(h *metricHarness) error {
	var want []agent.Sample
	for round := range 2 {
		batch := []agent.Sample{
			level(1.5 + float64(round)),
			level(0, componentLabel("a")),
			level(-2.25, componentLabel("b"), agent.Label{Name: "state", Value: "c d"}),
			level(1<<40, componentLabel("b"), agent.Label{Name: "state", Value: "e"}),
		}
		for i := range 200 {
			batch = append(batch, agent.Sample{Name: fmt.Sprint("berth_sinktest_", i, "_bytes"), Value: float64(i)})
		}
		if err := h.write(batch...); err != nil {
			return err
		}
		want = append(want, batch...)
	}
	return h.received(want...)
}

// checkCounters: what a counter grows by arrives once, over restarts too.
func checkCounters(h *metricHarness) error {
	for _, v := range []float64{10, 13, 13, 20, 2, 5} {
		if err := h.write(total(v)); err != nil {
			return err
		}
	}
	got, err := h.Growth(totalName)
	if err == nil && got != 15 {
		err = fmt.Errorf("a counter of 10, 13, 13, 20, 2, 5 has grown by %v, want 15", got)
	}
	return err
}

// checkBadNumbers: what is no number spoils no other sample.
func checkBadNumbers(h *metricHarness) error {
	_ = h.Sink.Write(h.ctx, []agent.Sample{
		level(math.NaN(), componentLabel("nan")), level(1, componentLabel("a")),
		level(math.Inf(1), componentLabel("inf")), level(2, componentLabel("b")), total(math.NaN()),
	})
	got, err := h.Gauges()
	if err != nil {
		return err
	}
	good := 0
	for _, s := range got {
		if slices.Contains(s.Labels, componentLabel("a")) && s.Value == 1 || slices.Contains(s.Labels, componentLabel("b")) && s.Value == 2 {
			good++
		}
	}
	if good != 2 {
		return fmt.Errorf("of two good samples among bad ones %d arrived", good)
	}
	return nil
}

// checkBorrowed: a batch belongs to the caller again when Write has returned.
func checkBorrowed(h *metricHarness) error {
	batch := []agent.Sample{level(1, componentLabel("a")), total(1)}
	before := line(batch[0]) + line(batch[1])
	if err := h.write(batch...); err != nil {
		return err
	}
	if line(batch[0])+line(batch[1]) != before {
		return errors.New("write has changed the samples")
	}
	for i := range batch {
		batch[i].Name, batch[i].Value = "berth_sinktest_overwritten", 99
		for j := range batch[i].Labels {
			batch[i].Labels[j] = agent.Label{Name: "overwritten", Value: "overwritten"}
		}
	}
	if err := h.write(level(2, componentLabel("a")), total(3)); err != nil {
		return err
	}
	if got, err := h.Growth(totalName); err != nil || got != 2 {
		return fmt.Errorf("a counter of 1 and 3 has grown by %v, %v, want 2", got, err)
	}
	return h.received(level(1, componentLabel("a")), level(2, componentLabel("a")))
}

// checkEmpty: a batch without samples is no error.
func checkEmpty(h *metricHarness) error {
	if err := errors.Join(h.write(), h.write(level(1)), h.write()); err != nil {
		return err
	}
	return h.received(level(1))
}

// checkMetricFails: a failure is told to the caller, and the next batch goes out
// as if nothing had been.
func checkMetricFails(h *metricHarness) error {
	if h.Fail == nil {
		return nil
	}
	if err := h.write(level(1)); err != nil {
		return err
	}
	h.Fail(true)
	took, err := h.try(h.ctx, []agent.Sample{level(2)})
	h.Fail(false)
	switch {
	case err == nil:
		return errors.New("write to a backend that fails returned nil")
	case took > h.Patience:
		return fmt.Errorf("write to a backend that fails took %v", took)
	}
	if err := h.write(level(3)); err != nil {
		return err
	}
	return h.received(level(1), level(3))
}

// checkEndsInTime: Write returns when its context ends.
func checkEndsInTime(h *metricHarness) error {
	ended, cancel := context.WithCancel(h.ctx)
	cancel()
	if took, err := h.try(ended, []agent.Sample{level(1)}); err == nil || took > h.Patience {
		return fmt.Errorf("write after the end returned %v after %v, want an error at once", err, took)
	}
	if h.Hang == nil {
		return nil
	}
	h.Hang(true)
	defer h.Hang(false)
	short, cancel := context.WithTimeout(h.ctx, 50*time.Millisecond)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- h.Sink.Write(short, []agent.Sample{level(2)}) }()
	timeout := time.NewTimer(h.Patience)
	defer timeout.Stop()
	select {
	case err := <-done:
		if err == nil {
			return errors.New("write to a backend that never answers returned nil")
		}
		return nil
	case <-timeout.C:
		h.Hang(false)
		<-done
		return fmt.Errorf("write outlived its context by %v", h.Patience)
	}
}

// checkOwnFigures: a sink's own figures can be read while it writes, and are named
// after it.
func checkOwnFigures(h *metricHarness) error {
	m, ok := h.Sink.(agent.Metered)
	if !ok {
		return nil
	}
	var reading sync.WaitGroup
	stop := make(chan struct{})
	var wrong []string
	reading.Go(func() {
		for first := true; ; first = false {
			for s := range m.Metrics {
				if first && !strings.HasPrefix(s.Name, "berth_"+h.Sink.Name()+"_") {
					wrong = append(wrong, s.Name)
				}
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	var errs []error
	for i := range 20 {
		errs = append(errs, h.write(level(float64(i))))
	}
	close(stop)
	reading.Wait()
	if len(wrong) > 0 {
		errs = append(errs, fmt.Errorf("figures of %s are called %q", h.Sink.Name(), wrong))
	}
	return errors.Join(errs...)
}
