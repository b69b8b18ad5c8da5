// Package dogstatsd sends metrics to a Datadog agent, or to anything else that
// speaks DogStatsD over UDP or a Unix datagram socket.
//
// # Samples
//
// [Sink] sends batches of samples: a gauge as a gauge ("g"), a counter as the
// growth since the batch before ("c"), labels as tags. [Config.Prefix] takes the
// place of "berth_", and is all that the names differ in from those on the page
// of metrics. A sample's Time is not sent: the receiver's clock counts.
//
// A batch holds all samples that there are at the moment. Of the counters in the
// first one nothing is sent, as it is not known when they grew; a counter that
// appears later has grown from 0, and so has one that is smaller than before. As
// DogStatsD counts in whole numbers, a fraction waits until it is a whole.
//
// # Losses
//
// Nothing waits for a receiver that does not listen: packets that cannot be sent
// are gone, counted by berth_dogstatsd_lost_packets_total, and the condition
// "send" says why. UDP tells of a receiver that is not there only now and then,
// and of one that is too slow never.
//
// The client of Datadog adds what it finds in berth's own environment as tags:
// DD_ENV, DD_SERVICE, DD_VERSION and DD_ENTITY_ID.
package dogstatsd

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/DataDog/datadog-go/v5/statsd"

	"github.com/berthd/berth/agent"
)

// Name is the component's name in logs, health conditions and metrics.
const Name = "dogstatsd"

// condSend is the name of the health condition.
const condSend = "send"

const (
	// ioTimeout bounds each attempt to connect to a Unix socket and to send a
	// packet to one.
	ioTimeout = 100 * time.Millisecond
	// calm is how many batches in a row must be without a loss before the
	// condition passes. With UDP the refusal of one packet is reported instead
	// of sending the next, so that of small batches every other one succeeds.
	calm = 2
)

// Sink sends samples. Make it with New. Write and Close are called from one
// goroutine; the other methods are safe for concurrent use.
type Sink struct {
	cfg    Config
	target string
	health *agent.Scope

	// The following belong to the goroutine that calls Write.
	client *statsd.Client // nil until the first Write, and after Close
	totals totals
	quiet  int // batches without a loss since the last one

	mu      sync.Mutex
	lastErr error   // of the client since the batch began
	events  []Event // that wait for the next Write

	samples  atomic.Uint64
	rejected atomic.Uint64
	unsent   atomic.Uint64 // packets that the kernel or the receiver refused
	overflow atomic.Uint64 // packets for which the client's queue had no room

	lostEvents atomic.Uint64
}

var (
	_ agent.MetricSink = (*Sink)(nil)
	_ agent.Metered    = (*Sink)(nil)
)

// New returns a sink, which opens nothing until the first Write.
func New(cfg Config, env agent.Env) (*Sink, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure %s: %w", Name, err)
	}
	target, err := cfg.target()
	if err != nil {
		return nil, fmt.Errorf("configure %s: %w", Name, err)
	}
	s := &Sink{cfg: cfg, target: target, health: env.Health.Scope(Name)}
	s.health.Declare(condSend, agent.SeverityWarning, 0)
	return s, nil
}

// Name returns "dogstatsd".
func (s *Sink) Name() string { return Name }

// Summary returns the key figures in one line, for people.
func (s *Sink) Summary() string {
	return fmt.Sprintf("%d samples sent to %s, %d packets lost", s.samples.Load(), s.cfg.Address, s.unsent.Load()+s.overflow.Load())
}

// Metrics yields the sink's own figures.
func (s *Sink) Metrics(yield func(agent.Sample) bool) {
	const lost = "Packets of metrics that could not be sent, by reason."
	counter := func(name, help string, v *atomic.Uint64, labels ...agent.Label) bool {
		return yield(agent.Sample{Name: name, Help: help, Kind: agent.Counter, Value: float64(v.Load()), Labels: labels})
	}
	_ = counter("berth_dogstatsd_samples_total", "Samples handed to the client.", &s.samples) &&
		counter("berth_dogstatsd_rejected_samples_total", "Samples that the protocol has no form for: too long, or no number.", &s.rejected) &&
		counter("berth_dogstatsd_lost_packets_total", lost, &s.overflow, agent.Label{Name: "reason", Value: "queue"}) &&
		counter("berth_dogstatsd_lost_packets_total", lost, &s.unsent, agent.Label{Name: "reason", Value: "send"}) &&
		counter("berth_dogstatsd_lost_events_total", "Events that were too many, or that the client refused.", &s.lostEvents)
}

// Write sends one batch and waits until the kernel has it. It returns the last
// error of those that lost something, after which the next batch may go well. If
// ctx ends, the rest of the batch is dropped; a packet that is being sent to a
// Unix socket may take a tenth of a second longer.
func (s *Sink) Write(ctx context.Context, samples []agent.Sample) error {
	err := s.write(ctx, samples)
	switch {
	case err != nil && ctx.Err() == nil:
		s.quiet = 0
		s.health.Set(condSend, err, "see whether the Datadog agent runs and receives there, or set dogstatsd.address")
	case err == nil:
		if s.quiet++; s.quiet >= calm {
			s.health.Set(condSend, nil, "")
		}
	}
	return err
}

// Close ends the client. A later Write opens another one, and takes counters up
// where they were.
func (s *Sink) Close() error {
	s.health.Set(condSend, nil, "")
	if s.client == nil {
		return nil
	}
	err := s.client.Close()
	s.client = nil
	if err != nil {
		return fmt.Errorf("close %s: %w", Name, err)
	}
	return nil
}

func (s *Sink) write(ctx context.Context, samples []agent.Sample) error {
	s.took() // errors of the last batch, of which we have told
	if err := s.open(); err != nil {
		return err
	}
	growth := s.totals.growth(samples)
	for i, sample := range samples {
		if err := ctx.Err(); err != nil {
			return err
		}
		s.send(sample, growth[i])
	}
	s.sendEvents()
	if err := s.client.Flush(); err != nil {
		return fmt.Errorf("flush %s: %w", Name, err)
	}
	return s.took()
}

// open makes the client, if there is none.
func (s *Sink) open() error {
	if s.client != nil {
		return nil
	}
	client, err := statsd.New(
		s.target,
		statsd.WithTags(s.cfg.Tags),
		statsd.WithoutTelemetry(),             // of the client itself: ours is in Metrics
		statsd.WithoutOriginDetection(),       // berth is not a container to be tagged
		statsd.WithoutClientSideAggregation(), // a batch has each series once
		statsd.WithWorkersCount(1),            // each has a packet of its own to fill
		statsd.WithBufferFlushInterval(time.Hour),
		statsd.WithConnectTimeout(ioTimeout),
		statsd.WithWriteTimeout(ioTimeout),
		statsd.WithErrorHandler(s.lostPacket),
	)
	if err != nil {
		return fmt.Errorf("open %s: %w", s.cfg.Address, err)
	}
	s.client = client
	return nil
}

// send hands one sample to the client; growth is that of a counter.
func (s *Sink) send(sample agent.Sample, growth int64) {
	name := sample.Name
	if rest, ok := strings.CutPrefix(name, "berth_"); ok && s.cfg.Prefix != "" {
		name = s.cfg.Prefix + rest
	}
	tags := make([]string, 0, len(sample.Labels))
	for _, l := range sample.Labels {
		if l.Value != "" { // as good as no label, as in Prometheus
			tags = append(tags, clean(l.Name+":"+l.Value))
		}
	}
	var err error
	switch {
	case math.IsNaN(sample.Value) || math.IsInf(sample.Value, 0):
		err = errNoNumber
	case sample.Kind == agent.Counter && growth == 0:
		return
	case sample.Kind == agent.Counter:
		err = s.client.Count(name, growth, tags, 1)
	default:
		err = s.client.Gauge(name, sample.Value, tags, 1)
	}
	if err != nil {
		s.rejected.Add(1) // also of what is too long for a packet
		return
	}
	s.samples.Add(1)
}

var errNoNumber = errors.New("the protocol has no form for it")

// lostPacket is called by the client for each packet that it gives up, from any
// goroutine.
func (s *Sink) lostPacket(err error) {
	if _, full := errors.AsType[*statsd.ErrorSenderChannelFull](err); full {
		s.overflow.Add(1)
	} else {
		s.unsent.Add(1)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastErr = err
}

// took returns the last error and forgets it.
func (s *Sink) took() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.lastErr
	s.lastErr = nil
	return err
}
