// Package cloudwatch sends metrics to Amazon CloudWatch, and sums up how full an
// ECS cluster is for its autoscaling.
//
// # Which metrics
//
// CloudWatch charges for each metric, and takes each combination of dimensions
// for a metric of its own. So only those that [Config.Metrics] names are sent, and
// only the labels in [Config.Dimensions] become dimensions. By default a fleet
// has some ten metrics in all, however many hosts it has: without the dimension
// "host", what all hosts send is one metric. The SampleCount of
// berth_engine_connected, say, is then the number of hosts that report (each
// minute, with the default interval), and its Minimum tells whether one of them
// is unwell.
//
// [Config.MaxSeries] bounds what this host sends, whatever the labels hold: that
// many combinations an hour are sent, those that were there first.
//
// # Samples
//
// A metric keeps its name. Its unit follows from the end of the name: Seconds,
// Bytes, Percent, Count for counters, else None. Samples that differ only in
// labels which are no dimensions are one data point: of gauges a set of
// statistics, of counters the sum. Of a counter its growth since it was last
// accepted is sent; nothing the first time, as it is not known when it grew.
// Characters of labels that are not printable ASCII become question marks, which
// is all that CloudWatch takes. A label without value is no dimension.
//
// # Requests and losses
//
// A batch goes out in requests of up to 1,000 data points and 900 kB, compressed.
// The SDK tries each three times in its standard mode, 10 s at most each time, and
// all of a batch takes 30 s at most. What then is not accepted is lost, counted
// by berth_cloudwatch_lost_samples_total, and the condition "write" says why and
// what to do. The growth of counters is not lost with it: where it is certain that
// a request was not accepted it is sent with the next batch. Where it is not (there
// was no answer) it is not sent again, but the SDK's own retries may make
// CloudWatch count it twice.
//
// CloudWatch refuses a request whole for one bad data point. All that it documents
// is checked beforehand; should one be refused all the same, the request is
// divided until that one is alone, which then is left out for an hour, and the
// condition "refused" names it. If more than eight are, the rest is not tried.
//
// # What it needs
//
// The permission cloudwatch:PutMetricData, which can be limited to the namespace
// (packaging/examples/cloudwatch-policy.json). Credentials come by the SDK's own
// chain, from an instance profile by IMDSv2 alone; AWS_CA_BUNDLE and the
// variables of proxies count. Where a dimension or the region is that of this
// host, nothing is sent before it is certain which host this is.
//
// # The scaling of ECS clusters
//
// See [Scale], which is behind the command berth cluster-scale and has nothing to
// do with the sink.
package cloudwatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"

	"github.com/berthd/berth/agent"
)

// Name is the component's name in logs, health conditions and metrics.
const Name = "cloudwatch"

// The names of the health conditions.
const (
	condWrite   = "write"   // nothing can be sent
	condRefused = "refused" // some data points are refused
	condLimit   = "limit"   // there are more series than may be sent
)

const (
	// writeTime bounds Write, so that each batch is over before the next is due.
	writeTime = 30 * time.Second
	// The most data points and bytes of a request. The limits are 1,000 and 1 MB
	// (API reference, "PutMetricData"); the estimate of a size is from above.
	maxBatch = 1000
	maxBytes = 900_000
	// holdTime is how long what was refused by itself is left out, and how long a
	// series that is no longer sent keeps its place: metrics are charged by the hour.
	holdTime = time.Hour
	// maxRefused is how many data points of a batch may be refused before all of
	// them are taken to be: to find each takes some twenty requests.
	maxRefused = 8

	policyFile = "cloudwatch-policy.json"
)

// api is what the sink asks of CloudWatch.
type api interface {
	PutMetricData(context.Context, *cloudwatch.PutMetricDataInput, ...func(*cloudwatch.Options)) (*cloudwatch.PutMetricDataOutput, error)
}

// Sink sends samples. Make it with New. Write and Close are called from one
// goroutine; the other methods are safe for concurrent use.
type Sink struct {
	cfg    Config
	aws    aws.Config
	log    *slog.Logger
	health *agent.Scope
	node   agent.NodeSource
	limit  time.Duration // of a Write

	// The following belong to the goroutine that calls Write.
	client  api // nil until the region is known
	totals  totals
	present map[string]time.Time // series by when they were last sent
	held    map[string]time.Time // refused ones, by until when
	// tolerance is how many more data points of a batch may be refused alone.
	tolerance int

	sent, series atomic.Uint64
	place        atomic.Pointer[string] // the region

	mu       sync.Mutex
	lost     map[string]uint64
	requests map[outcome]uint64
}

var (
	_ agent.MetricSink = (*Sink)(nil)
	_ agent.Metered    = (*Sink)(nil)
)

// New returns a sink, which calls nobody until the first Write. It reads the AWS
// SDK's configuration from its usual places.
func New(cfg Config, env agent.Env) (*Sink, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure %s: %w", Name, err)
	}
	loaded, err := loadConfig(cfg.Region)
	if err != nil {
		return nil, fmt.Errorf("configure %s: %w", Name, err)
	}
	s := &Sink{
		cfg: cfg, aws: loaded, log: env.Log.With("component", Name), health: env.Health.Scope(Name), node: env.Node, limit: writeTime,
		present: make(map[string]time.Time), held: make(map[string]time.Time),
		lost: make(map[string]uint64), requests: make(map[outcome]uint64),
	}
	s.health.Declare(condWrite, agent.SeverityWarning, 0)
	s.health.Declare(condRefused, agent.SeverityWarning, 0)
	s.health.Declare(condLimit, agent.SeverityWarning, 0)
	return s, nil
}

// Name returns "cloudwatch".
func (s *Sink) Name() string { return Name }

// Write sends one batch. It returns after 30 s at most, or when ctx ends; the
// error says why some of the batch was lost, after which the next may go well.
func (s *Sink) Write(ctx context.Context, samples []agent.Sample) error {
	now := time.Now()
	node, ready := s.host()
	if !ready {
		for _, sample := range samples {
			if allowed(sample.Name, s.cfg.Metrics) {
				s.lose("waiting", 1)
			}
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.limit)
	defer cancel()
	batch := s.totals.assemble(samples, s.shape(node), now)
	for why, n := range batch.lost {
		s.lose(why, n)
	}
	groups := s.admit(batch.groups, now)
	if len(groups) == 0 {
		return nil
	}
	s.tolerance = maxRefused
	err := s.send(ctx, groups, node.Region)
	switch {
	case err == nil:
		s.health.Set(condWrite, nil, "")
	case !errors.Is(context.Cause(ctx), context.Canceled): // else berth stops
		s.health.Set(condWrite, errors.New(say(err)), hint(err, policyFile))
	}
	return err
}

// Close ends the sink's conditions. A later Write goes on where it was.
func (s *Sink) Close() error {
	for _, c := range []string{condWrite, condRefused, condLimit} {
		s.health.Set(c, nil, "")
	}
	return nil
}

// host returns what is known of this host, and whether that is enough.
func (s *Sink) host() (agent.Node, bool) {
	if s.node == nil {
		return agent.Node{}, true
	}
	node := s.node.Node()
	needed := s.aws.Region == "" || slices.ContainsFunc(s.cfg.Dimensions, func(d string) bool {
		return d == "host" || d == "instance_type" || d == "zone"
	})
	return node, node.Settled || !needed
}

func (s *Sink) shape(node agent.Node) shape {
	sh := shape{
		metrics: s.cfg.Metrics, dimensions: s.cfg.Dimensions,
		fixed: map[string]string{"host": node.ID, "instance_type": node.InstanceType, "zone": node.Zone},
	}
	for _, tag := range s.cfg.Tags {
		name, value, _ := strings.Cut(tag, ":")
		sh.tags = append(sh.tags, dimension{name, value})
	}
	return sh
}

// admit returns the groups that may be sent: as many series an hour as are
// allowed, without those that were refused lately.
func (s *Sink) admit(groups []*group, now time.Time) []*group {
	for key, last := range s.present {
		if now.Sub(last) >= holdTime {
			delete(s.present, key)
		}
	}
	for key, until := range s.held {
		if !now.Before(until) {
			delete(s.held, key)
		}
	}
	if len(s.held) == 0 {
		s.health.Set(condRefused, nil, "")
	}
	out := make([]*group, 0, len(groups))
	excess := 0
	for _, g := range groups {
		if _, held := s.held[g.key]; held {
			s.lose(refused.String(), g.samples)
			continue
		}
		if _, there := s.present[g.key]; !there && len(s.present) >= s.cfg.MaxSeries {
			s.lose("series", g.samples)
			excess++
			continue
		}
		s.present[g.key] = now
		out = append(out, g)
	}
	s.series.Store(uint64(len(s.present)))
	if excess == 0 {
		s.health.Set(condLimit, nil, "")
		return out
	}
	s.health.Set(condLimit, fmt.Errorf("%d series are not sent: there are %d within the hour", excess, s.cfg.MaxSeries),
		"take names from cloudwatch.metrics or labels from cloudwatch.dimensions, or raise cloudwatch.max_series, which costs money")
	return out
}

// send sends groups in as few requests as there can be. After the first that
// cannot be made to go, the rest is lost, too.
func (s *Sink) send(ctx context.Context, groups []*group, region string) error {
	err := s.connect(ctx, region)
	for len(groups) > 0 && err == nil {
		n := fits(groups)
		err = s.put(ctx, groups[:n])
		groups = groups[n:]
	}
	if err != nil {
		s.loseAll(classify(err), groups)
	}
	return err
}

// fits returns how many of the groups one request can hold.
func fits(groups []*group) int {
	bytes := 0
	for i, g := range groups {
		if bytes += g.size(); i == maxBatch || i > 0 && bytes > maxBytes {
			return i
		}
	}
	return len(groups)
}

// connect makes the client, if there is none, and sees that there are
// credentials.
func (s *Sink) connect(ctx context.Context, region string) error {
	if s.client == nil {
		if s.aws.Region == "" {
			s.aws.Region = region
		}
		if s.aws.Region == "" {
			return errRegion
		}
		s.client = newClient(s.aws, s.cfg.Endpoint)
		s.place.Store(&s.aws.Region)
	}
	return signer(ctx, s.aws)
}

// put makes one request. What is refused in it is found and held back; an error
// means that nothing can be sent now, and that these groups are lost.
func (s *Sink) put(ctx context.Context, groups []*group) error {
	in := &cloudwatch.PutMetricDataInput{Namespace: aws.String(s.cfg.Namespace), MetricData: make([]types.MetricDatum, len(groups))}
	for i, g := range groups {
		in.MetricData[i] = g.datum()
	}
	_, err := s.client.PutMetricData(ctx, in)
	result := classify(err)
	s.count(result)
	switch {
	case result == accepted:
		for _, g := range groups {
			s.totals.commit(g)
			s.sent.Add(uint64(g.samples))
		}
		return nil
	case result != refused:
		if result == unknown {
			for _, g := range groups {
				s.totals.commit(g) // it may have been accepted
			}
		}
		s.loseAll(result, groups)
		return err
	case len(groups) > 1:
		half := len(groups) / 2
		if err := s.put(ctx, groups[:half]); err != nil {
			s.loseAll(classify(err), groups[half:])
			return err
		}
		return s.put(ctx, groups[half:])
	}
	g := groups[0]
	s.totals.commit(g)
	s.loseAll(refused, groups)
	if s.tolerance--; s.tolerance < 0 {
		return err
	}
	s.held[g.key] = time.Now().Add(holdTime)
	why := fmt.Errorf("%s: %s", strings.ReplaceAll(g.key, "\x00", " "), say(err))
	s.log.Warn("a metric is refused and left out", "metric", g.name, "for", holdTime, "err", why)
	s.health.Set(condRefused, why, hint(err, policyFile))
	return nil
}

func (s *Sink) loseAll(why outcome, groups []*group) {
	for _, g := range groups {
		s.lose(why.String(), g.samples)
	}
}

func (s *Sink) lose(why string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost[why] += uint64(n)
}

func (s *Sink) count(o outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests[o]++
}
