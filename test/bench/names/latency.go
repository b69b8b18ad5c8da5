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
	maxMedian = 50 * time.Millisecond  // event to call
	maxP99    = 300 * time.Millisecond // likewise
	maxBIND   = 100 * time.Millisecond // event to answer, p99

	// pause is between an answer that is not right yet and the next question.
	pause = 200 * time.Microsecond
	// calm is between an arrival and the next event: longer than berth's window, so
	// that nothing waits for it.
	calm = 350 * time.Millisecond
)

// awaiter begins to wait for a service to come or go, and returns what returns when it
// has, once its event was seen.
type awaiter func(ctx context.Context, service string, comes bool) func() (time.Time, error)

// measureRoute53 measures from events to calls.
func (w *world) measureRoute53(ctx context.Context, t *rig.Table) error {
	if err := w.run(ctx, w.toRoute53(w.state)); err != nil {
		return err
	}
	up, down, err := w.lives(ctx, "aws", func(ctx context.Context, service string, comes bool) func() (time.Time, error) {
		action := "DELETE"
		if comes {
			action = "CREATE"
		}
		arrival := w.arrivals.expect(action, service)
		return func() (time.Time, error) {
			select {
			case at := <-arrival:
				return at, nil
			case <-time.After(rig.Patience):
				return time.Time{}, fmt.Errorf("no %s of %s has arrived", action, service)
			case <-ctx.Done():
				return time.Time{}, ctx.Err()
			}
		}
	})
	if err != nil {
		return err
	}
	for _, l := range []struct {
		what string
		took []time.Duration
	}{{"start event → change call", up}, {"kill event → change call", down}} {
		t.Duration(l.what+", p50", rig.Percentile(l.took, 50), maxMedian, "of %d", len(l.took))
		t.Duration(l.what+", p99", rig.Percentile(l.took, 99), maxP99, "at most %s", rig.MS(l.took[len(l.took)-1]))
	}
	return nil
}

// measureBIND measures from events to BIND's answers.
func (w *world) measureBIND(ctx context.Context, t *rig.Table) error {
	o, err := w.toBIND()
	if err != nil {
		return err
	}
	if err := w.run(ctx, o); err != nil {
		return err
	}
	up, down, err := w.lives(ctx, "bind", func(ctx context.Context, service string, comes bool) func() (time.Time, error) {
		return func() (time.Time, error) {
			for began := time.Now(); ; time.Sleep(pause) {
				port, err := rig.LookUp(w.asked, srvName(service))
				now := time.Now()
				switch {
				case err != nil:
					return now, err
				case comes == (port != 0):
					return now, nil
				case now.Sub(began) > rig.Patience:
					return now, fmt.Errorf("BIND's answer for %s is not right", service)
				case ctx.Err() != nil:
					return now, ctx.Err()
				}
			}
		}
	})
	if err != nil {
		return err
	}
	t.Duration("start event → BIND answers, p99", rig.Percentile(up, 99), maxBIND,
		"p50 %s, at most %s, of %d", rig.MS(rig.Percentile(up, 50)), rig.MS(up[len(up)-1]), len(up))
	t.Duration("kill event → BIND denies, p99", rig.Percentile(down, 99), maxBIND,
		"p50 %s, at most %s, of %d", rig.MS(rig.Percentile(down, 50)), rig.MS(down[len(down)-1]), len(down))
	return w.berth.Stop()
}

// lives starts and kills containers one after the other, and returns how long
// after the engine's time of each event a name had come or gone, sorted.
func (w *world) lives(ctx context.Context, prefix string, await awaiter) (up, down []time.Duration, err error) {
	for i := range w.rounds {
		service := fmt.Sprintf("%s%03d", prefix, i)
		id, err := w.Create(ctx, rig.Spec{Name: service, Claims: service})
		if err != nil {
			return nil, nil, err
		}
		for _, half := range []struct {
			action events.Action
			do     func() error
			took   *[]time.Duration
		}{
			{events.ActionStart, func() error { return w.Engine.ContainerStart(ctx, id, container.StartOptions{}) }, &up},
			{events.ActionKill, func() error { return w.Engine.ContainerKill(ctx, id, "SIGTERM") }, &down},
		} {
			time.Sleep(calm)
			took, err := w.after(ctx, id, half.action, half.do, await(ctx, service, half.action == events.ActionStart))
			if err != nil {
				return nil, nil, fmt.Errorf("round %d, %s: %w", i, half.action, err)
			}
			*half.took = append(*half.took, took)
		}
		if err := w.Remove(ctx, id); err != nil {
			return nil, nil, err
		}
	}
	slices.Sort(up)
	slices.Sort(down)
	return up, down, nil
}

// after does something, and returns how long after its event's own time done says
// that it had its effect.
func (w *world) after(ctx context.Context, id string, action events.Action, do func() error, done func() (time.Time, error)) (time.Duration, error) {
	event := w.Seen.Expect(id, action)
	did := make(chan error, 1)
	go func() { did <- do() }()
	var m rig.Moment
	select {
	case m = <-event:
	case <-time.After(rig.Patience):
		return 0, errors.New("no event was seen")
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	at, err := done()
	if err = errors.Join(err, <-did); err != nil {
		return 0, err
	}
	return at.Sub(m.Happened), nil
}
