package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/aws"
	"github.com/berthd/berth/collectors/discovery"
	"github.com/berthd/berth/collectors/usage"
	"github.com/berthd/berth/sinks/cloudwatch"
	"github.com/berthd/berth/sinks/dnsserver"
	"github.com/berthd/berth/sinks/dogstatsd"
	"github.com/berthd/berth/sinks/openmetrics"
	"github.com/berthd/berth/sinks/stdout"
)

// build makes the components of a configuration, in the order in which they are
// started. This is the one place where collectors meet sinks: what one wants
// travels to the other through the daemon's records, which outlive both. In a
// dry run, standard output takes the place of every sink.
func (d *daemon) build(cfg Config) ([]*component, error) {
	var out []*component
	if cfg.Discovery.Enabled {
		c, err := d.discovery(cfg.Discovery)
		if err != nil {
			return nil, fmt.Errorf("discovery: %w", err)
		}
		out = append(out, c)
	} else {
		out = append(out, d.noDiscovery(cfg.Discovery))
	}
	dry := stdout.New(os.Stdout, d.env)
	switch {
	case d.dryRun:
		out = append(out, d.recordSink(dry, nil))
	case cfg.DNS.Enabled:
		sink, err := dnsserver.New(cfg.DNS, d.envFor(dnsserver.Name), d.agent.Store())
		if err != nil {
			return nil, fmt.Errorf("dns: %w", err)
		}
		out = append(out, d.recordSink(sink, cfg.DNS))
	}
	if !d.dryRun {
		fleet, err := d.fleet(cfg)
		if err != nil {
			return nil, err
		}
		out = append(out, fleet...)
	}
	if cfg.Usage.Enabled {
		c, err := d.usage(cfg.Usage)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	if cfg.StatsD.Enabled && !d.dryRun { // to receive is to take lines from others
		c, err := d.statsd(cfg.StatsD)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	prune, err := d.prune(cfg.Prune)
	if err != nil {
		return nil, fmt.Errorf("prune: %w", err)
	}
	out = append(out, prune)
	if cfg.OpenMetrics.Enabled && !d.dryRun {
		page, err := openmetrics.New(cfg.OpenMetrics, d.envFor(openmetrics.Name), d.sources)
		if err != nil {
			return nil, err
		}
		out = append(out, &component{
			name: page.Name(), section: cfg.OpenMetrics, part: page, summary: page.Summary, run: page.Run,
		})
	}
	if cfg.DogStatsD.Enabled {
		sink, err := dogstatsd.New(cfg.DogStatsD, d.env)
		if err != nil {
			return nil, err
		}
		out = append(out, d.metricComponent(sink, cfg.DogStatsD, cfg.DogStatsD.Interval.Std(), dry))
	}
	if cfg.CloudWatch.Enabled {
		sink, err := cloudwatch.New(cfg.CloudWatch, d.env)
		if err != nil {
			return nil, err
		}
		out = append(out, d.metricComponent(sink, cfg.CloudWatch, cfg.CloudWatch.Interval.Std(), dry))
	}
	return out, nil
}

// discovery wires the collector to the agent's snapshots and to the records.
func (d *daemon) discovery(cfg discovery.Config) (*component, error) {
	col, err := discovery.New(cfg, d.env)
	if err != nil {
		return nil, err
	}
	col.PublishTo(d.records)
	ecs := aws.NewIntrospection(cfg.ECSIntrospection, d.env)
	col.UseAddresses(ecs.Address)
	return &component{
		name: col.Name(), section: cfg, part: col, summary: col.Summary,
		run: func(ctx context.Context) error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			feed := d.agent.Store().Subscribe()
			defer feed.Close()
			var asking sync.WaitGroup
			defer asking.Wait()
			asking.Go(func() {
				feed := d.agent.Store().Subscribe()
				defer feed.Close()
				_ = ecs.Run(ctx, feed, col.Recheck)
			})
			defer cancel()
			return col.Run(ctx, feed)
		},
	}, nil
}

// noDiscovery takes the collector's place where discovery is disabled: this host
// then wants no names, and whatever sinks hold of it goes.
func (d *daemon) noDiscovery(cfg discovery.Config) *component {
	return &component{
		name: "discovery", section: cfg, summary: func() string { return "disabled: this host wants no names" },
		run: func(ctx context.Context) error {
			for {
				changed := d.node.Changed()
				d.records.Publish(agent.NewRecordSet(cfg.Zone(), d.node.Node(), nil, false))
				select {
				case <-changed:
				case <-ctx.Done():
					return nil
				}
			}
		},
	}
}

// usage wires the collector to the agent's snapshots.
func (d *daemon) usage(cfg usage.Config) (*component, error) {
	col, err := usage.New(cfg, d.envFor(usage.Name))
	if err != nil {
		return nil, err
	}
	col.OnEvent(d.tell)
	return &component{
		name: col.Name(), section: cfg, part: col, summary: col.Summary,
		run: func(ctx context.Context) error {
			feed := d.agent.Store().Subscribe()
			defer feed.Close()
			return col.Run(ctx, feed)
		},
	}, nil
}

// tell passes an event on to the sinks that have a stream of events.
func (d *daemon) tell(e usage.Event) {
	tags := []string{"service:" + e.Service, "kind:" + e.Kind, "resource:" + e.Resource}
	for _, t := range [][2]string{{"environment", e.Environment}, {"instance_type", e.InstanceType}} {
		if t[1] != "" {
			tags = append(tags, t[0]+":"+t[1])
		}
	}
	for _, part := range d.sources() {
		if s, ok := part.Metered.(interface{ Tell(dogstatsd.Event) }); ok {
			s.Tell(dogstatsd.Event{Title: e.Title(), Text: e.Text(), Warning: e.Kind == usage.Undersized, Tags: tags, At: e.At})
		}
	}
}

// recordSink wires a sink to the records.
func (d *daemon) recordSink(sink agent.RecordSink, section any) *component {
	c := &component{
		name: sink.Name(), section: section, part: sink,
		run: func(ctx context.Context) error {
			want := d.records.Subscribe()
			defer want.Close()
			return sink.Run(ctx, want)
		},
	}
	if s, ok := sink.(interface{ Summary() string }); ok {
		c.summary = s.Summary
	}
	return c
}

// metricComponent wires a sink to all figures; in a dry run, standard output
// takes its place.
func (d *daemon) metricComponent(sink agent.MetricSink, section any, interval time.Duration, dry agent.MetricSink) *component {
	c := &component{name: sink.Name(), section: section}
	if d.dryRun {
		c.run = d.metricSink(dry, interval)
		return c
	}
	c.part, c.run = sink, d.metricSink(sink, interval)
	if s, ok := sink.(interface{ Summary() string }); ok {
		c.summary = s.Summary
	}
	return c
}

// firstLook bounds how long figures wait for a first look at the engine.
const firstLook = 10 * time.Second

// looked waits until all of the engine's containers are known, or for as long as
// is bearable: figures of a berth that has only just started would tell of an
// engine that is away, at each restart.
func (d *daemon) looked(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, firstLook)
	defer cancel()
	feed := d.agent.Store().Subscribe()
	defer feed.Close()
	for !feed.Snapshot().Complete {
		select {
		case <-feed.Changed():
		case <-ctx.Done():
			return
		}
	}
}

// metricSink returns what sends all figures to a sink, after a first look at the
// engine and then at each interval.
func (d *daemon) metricSink(sink agent.MetricSink, interval time.Duration) func(context.Context) error {
	return func(ctx context.Context) error {
		if c, ok := sink.(io.Closer); ok {
			defer func() { _ = c.Close() }()
		}
		d.looked(ctx)
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			// What goes wrong is a condition of the sink, and may go well next time.
			_ = sink.Write(ctx, d.samples())
			select {
			case <-tick.C:
			case <-ctx.Done():
				return nil
			}
		}
	}
}
