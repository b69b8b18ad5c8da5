package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"

	"github.com/berthd/berth/test/bench/rig"
)

const (
	starts    = 5                      // of berth
	maxReady  = 200 * time.Millisecond // start to READY
	maxMedian = 5 * time.Millisecond   // event to answer
	maxP99    = 25 * time.Millisecond  // likewise

	// pause is between an answer that is not right yet and the next question: short
	// beside what is measured, and long enough to leave the cores to others.
	pause = 200 * time.Microsecond
	// calm is between a start and the kill: the engine is done with the one, and
	// the container's first process handles signals, before the other begins.
	calm = 150 * time.Millisecond
)

// measureReady starts berth some times and leaves the last one running.
func (w *world) measureReady(ctx context.Context, t *rig.Table) error {
	var took []time.Duration
	for range starts {
		if err := w.direct.Stop(); err != nil {
			return err
		}
		b, err := w.StartBerth(ctx, rig.Options{})
		if err != nil {
			return err
		}
		w.direct = b
		took = append(took, b.Ready)
	}
	slices.Sort(took)
	t.Duration(fmt.Sprintf("start to READY, median of %d", starts), rig.Percentile(took, 50), maxReady,
		"from %s to %s", rig.MS(took[0]), rig.MS(took[len(took)-1]))
	return w.weigh(w.direct)
}

// measureLatency starts and kills containers, one after the other.
func (w *world) measureLatency(ctx context.Context, t *rig.Table) error {
	defer func() { w.direct = nil }()
	var up, down, floor []time.Duration
	events, inspects := w.Seen.Total(), uint64(0)
	before, err := w.direct.Asked(ctx)
	if err != nil {
		return err
	}
	for i := range w.rounds {
		u, d, f, err := w.round(ctx, fmt.Sprintf("round%03d", i))
		if err != nil {
			return fmt.Errorf("round %d: %w", i, err)
		}
		up, down, floor = append(up, u), append(down, d), append(floor, f)
	}
	if err := w.weigh(w.direct); err != nil {
		return err
	}
	after, err := w.direct.Asked(ctx)
	if err != nil {
		return err
	}
	events, inspects = w.Seen.Total()-events, after.Inspects-before.Inspects
	for _, l := range [][]time.Duration{up, down, floor} {
		slices.Sort(l)
	}
	t.Note("An inspect by the bench itself, of a container that had just started, took %s (median; p99 %s): no answer after a start can be faster.",
		rig.MS(rig.Percentile(floor, 50)), rig.MS(rig.Percentile(floor, 99)))
	t.Note("During the starts and kills, berth counted %d inspects for %d events that change a state.", inspects, events)
	for _, l := range []struct {
		what string
		took []time.Duration
	}{{"start event → new answer", up}, {"kill event → record gone", down}} {
		t.Duration(l.what+", p50", rig.Percentile(l.took, 50), maxMedian, "of %d", len(l.took))
		t.Duration(l.what+", p99", rig.Percentile(l.took, 99), maxP99, "at most %s", rig.MS(l.took[len(l.took)-1]))
	}
	return w.direct.Stop()
}

// round starts, kills and removes one container, and returns how long after each
// event DNS was right, and how long an inspect takes.
func (w *world) round(ctx context.Context, name string) (up, down, inspect time.Duration, err error) {
	id, err := w.Create(ctx, rig.Spec{Name: name, Claims: name})
	if err != nil {
		return 0, 0, 0, err
	}
	query := "_" + name + "._tcp.berth.internal."
	var served uint16
	up, err = w.after(ctx, id, events.ActionStart, func() error {
		return w.Engine.ContainerStart(ctx, id, container.StartOptions{})
	}, func() (right bool, err error) {
		served, err = rig.LookUp(w.direct.DNS, query)
		return served != 0, err
	})
	if err != nil {
		return 0, 0, 0, err
	}
	began := time.Now()
	c, err := w.Engine.ContainerInspect(ctx, id)
	if err != nil {
		return 0, 0, 0, err
	}
	inspect = time.Since(began)
	if b := c.NetworkSettings.Ports[rig.Port]; len(b) == 0 || b[0].HostPort != fmt.Sprint(served) {
		return 0, 0, 0, fmt.Errorf("%s has port %d in DNS, and %v in the engine", query, served, b)
	}
	time.Sleep(calm)
	down, err = w.after(ctx, id, events.ActionKill, func() error {
		return w.Engine.ContainerKill(ctx, id, "SIGTERM")
	}, func() (bool, error) {
		served, err := rig.LookUp(w.direct.DNS, query)
		return served == 0, err
	})
	return up, down, inspect, errors.Join(err, w.Remove(ctx, id))
}

// after does something and returns how long after its event the answer was
// right.
func (w *world) after(ctx context.Context, id string, action events.Action, do func() error, right func() (bool, error)) (time.Duration, error) {
	event := w.Seen.Expect(id, action)
	done := make(chan error, 1)
	go func() { done <- do() }()
	var at time.Time
	select {
	case m := <-event:
		at = m.Seen
	case <-time.After(patience):
		return 0, fmt.Errorf("no event %s was seen", action)
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	for {
		ok, err := right()
		took := time.Since(at)
		switch {
		case err != nil:
			return 0, err
		case ok:
			return took, <-done
		case took > patience:
			return 0, fmt.Errorf("DNS is not right %v after %s", took, action)
		}
		time.Sleep(pause)
	}
}
