package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/sinks/dnsserver"
)

// maxPublish is the limit for publishing 1,000 records.
const maxPublish = 2 * time.Millisecond

// publishTime returns the median time that berth's server takes from a new set
// of 1,000 records to serving it, by its own account.
func publishTime(ctx context.Context) (time.Duration, error) {
	const publications = 101
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	s, err := dnsserver.New(dnsserver.Config{}, agent.Env{Log: log, Health: agent.NewHealth(log)}, agent.NewStore())
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var desired agent.Records
	feed := desired.Subscribe()
	defer feed.Close()
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, feed) }()
	defer func() {
		cancel()
		<-ended
	}()
	all := records()
	var times []time.Duration
	for i := range publications {
		rs := slices.Clone(all.Records[:1000])
		rs[0].TTL = uint32(i + 1) // so that it is another set
		desired.Publish(agent.NewRecordSet(zone, all.Node, rs, false))
		_, seq := desired.Load()
		for s.Applied() < seq {
			if ctx.Err() != nil {
				return 0, fmt.Errorf("publish: %w", ctx.Err())
			}
			time.Sleep(100 * time.Microsecond)
		}
		for m := range s.Metrics {
			if m.Name == "berth_dnsserver_publish_seconds" {
				times = append(times, time.Duration(m.Value*float64(time.Second)))
			}
		}
	}
	slices.Sort(times)
	return times[len(times)/2], nil
}
