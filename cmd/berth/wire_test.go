package main

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/collectors/usage"
	"github.com/berthd/berth/sinks/dogstatsd"
)

// writes counts batches.
type writes struct{ atomic.Int64 }

func (w *writes) Name() string { return "counting" }

func (w *writes) Write(context.Context, []agent.Sample) error {
	w.Add(1)
	return nil
}

// A berth that has only just started knows nothing of the engine, and says so to
// nobody: each restart would look like an engine that is away. An engine that is
// away is told of all the same.
func TestMetricsWaitForTheFirstLook(t *testing.T) {
	for _, comes := range []bool{true, false} {
		d := idleDaemon(t)
		synctest.Test(t, func(t *testing.T) {
			d.agent.Store().Publish(&agent.Snapshot{Seq: 1})
			ctx, cancel := context.WithCancel(t.Context())
			var sent writes
			done := make(chan error, 1)
			go func() { done <- d.metricSink(&sent, time.Minute)(ctx) }()
			want := func(when string, n int64) {
				t.Helper()
				if synctest.Wait(); sent.Load() != n {
					t.Errorf("%s: %d batches were sent, want %d", when, sent.Load(), n)
				}
			}
			want("before the first look", 0)
			if comes {
				d.agent.Store().Publish(&agent.Snapshot{Seq: 2, Complete: true})
			} else {
				time.Sleep(firstLook)
			}
			want("afterwards", 1)
			time.Sleep(time.Minute)
			want("a minute later", 2)
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// listener is a part with a stream of events.
type listener struct{ events []dogstatsd.Event }

func (*listener) Metrics(func(agent.Sample) bool) {}
func (l *listener) Tell(e dogstatsd.Event)        { l.events = append(l.events, e) }

// An event about a reservation reaches the sinks that have a stream of events.
func TestUsageEventsReachSinks(t *testing.T) {
	d := idleDaemon(t)
	sink := new(listener)
	d.running = map[string]*component{"dogstatsd": {name: "dogstatsd", part: sink}}
	d.meter()
	at := time.Unix(1000, 0)
	d.tell(usage.Event{
		At: at, Kind: usage.Undersized, Resource: usage.ResourceCPU, Service: "calc", Environment: "prod",
		From: 0.5, To: 0.75, Reasons: []usage.Reason{{Code: usage.CodeBelow, Why: "it uses more"}},
	})
	want := []dogstatsd.Event{{
		Title: "calc (prod) needs more CPU: it reserves 0.50 cores, and should reserve 0.75 cores",
		Text:  "it uses more", Warning: true, At: at,
		Tags: []string{"service:calc", "kind:undersized", "resource:cpu", "environment:prod"},
	}}
	if diff := cmp.Diff(want, sink.events); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
