package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"golang.org/x/sync/errgroup"

	"github.com/berthd/berth/test/bench/rig"
)

const (
	change = "ChangeResourceRecordSets"
	lists  = "List" // how the names of all listing calls begin

	maxChanges = 4                      // of a burst of starts and one of stops
	window     = 250 * time.Millisecond // berth's, between two changes
	// settled is how long nothing must be called before the calls are counted:
	// longer than a window.
	settled = time.Second
	// followed is the same when a change may still be followed to the name servers:
	// the first question comes 5 s after it.
	followed = 6 * time.Second
)

// measureRestart gives a berth a journal, and starts it again.
func (w *world) measureRestart(ctx context.Context, t *rig.Table) error {
	if _, err := w.Start(ctx, rig.Spec{Name: "keeper", Claims: "keeper"}); err != nil {
		return err
	}
	if err := w.run(ctx, w.toRoute53(w.state)); err != nil {
		return err
	}
	// The first life looks for leftovers within a minute.
	for end := time.Now().Add(2 * time.Minute); w.counted(lists) == 0; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) || ctx.Err() != nil {
			return errors.New("the first berth has not looked for leftovers")
		}
	}
	calls, err := w.quiet(ctx, followed)
	if err != nil {
		return err
	}
	if err := w.awaitSets(ctx, 1); err != nil {
		return err
	}
	t.Note("The first life of berth, without a journal, made these calls with one named container: %s.", describe(calls))
	w.fake.ResetCalls()
	if err := w.run(ctx, w.toRoute53(w.state)); err != nil {
		return err
	}
	calls, err = w.quiet(ctx, followed)
	if err != nil {
		return err
	}
	t.Exactly("restart with journal: list calls", w.counted(lists), 0, "")
	t.Exactly("restart with journal: other calls", total(calls)-w.counted(lists), 0, "%s", describe(calls))
	return nil
}

// measureCalls starts and stops many containers together.
func (w *world) measureCalls(ctx context.Context, t *rig.Table) error {
	w.ids = make([]string, w.containers)
	for i := range w.ids {
		var err error
		name := fmt.Sprintf("many%03d", i)
		if w.ids[i], err = w.Create(ctx, rig.Spec{Name: name, Claims: name}); err != nil {
			return err
		}
	}
	if _, err := w.quiet(ctx, followed); err != nil {
		return err
	}
	burst, err := w.both(ctx, true)
	if err != nil {
		return err
	}
	what := fmt.Sprintf("%d containers started, then stopped, ", w.containers)
	t.Most(what+"each in a burst: change calls", float64(burst.changes), maxChanges, "", "%d record sets written; %s", burst.written, burst.spans())
	t.Exactly(what+"each in a burst: list calls", burst.lists, 0, "")
	own, err := w.both(ctx, false)
	if err != nil {
		return err
	}
	t.Most(what+"at the engine's pace: change calls", float64(own.changes), float64(own.bound()), "", "one at once and one in each 250 ms; %s", own.spans())
	t.Exactly(what+"at the engine's pace: list calls", own.lists, 0, "")
	return w.RemoveAll(ctx, w.ids)
}

// counts is what starting and stopping all containers took.
type counts struct {
	changes, lists, written int
	starts, stops           time.Duration // from the first event to the last
}

func (c counts) spans() string {
	return fmt.Sprintf("the starts took %.1f s, the stops %.1f s", c.starts.Seconds(), c.stops.Seconds())
}

// bound returns how many change calls may come of events over these times: each
// span has one at once, and then at most one for each window that it touches.
func (c counts) bound() int {
	return 2 + windows(c.starts) + windows(c.stops)
}

// windows returns how many windows a span touches.
func windows(span time.Duration) int { return int((span + window - 1) / window) }

// both starts all containers, and stops them, and counts the calls. In a burst,
// berth is stopped meanwhile.
func (w *world) both(ctx context.Context, burst bool) (c counts, err error) {
	w.fake.ResetCalls()
	before := w.sets()
	c.starts, err = w.all(ctx, burst, events.ActionStart, events.ActionStart, func(ctx context.Context, id string) error {
		return w.Engine.ContainerStart(ctx, id, container.StartOptions{})
	})
	if err != nil {
		return c, err
	}
	if err := w.awaitSets(ctx, before+len(w.ids)); err != nil {
		return c, err
	}
	if _, err := w.quiet(ctx, settled); err != nil {
		return c, err
	}
	c.stops, err = w.all(ctx, burst, events.ActionKill, events.ActionDie, func(ctx context.Context, id string) error {
		return w.Engine.ContainerKill(ctx, id, "SIGTERM")
	})
	if err != nil {
		return c, err
	}
	if err := w.awaitSets(ctx, before); err != nil {
		return c, err
	}
	if _, err := w.quiet(ctx, settled); err != nil {
		return c, err
	}
	c.changes, c.lists = w.counted(change), w.counted(lists)
	for _, n := range w.fake.BatchSizes() {
		c.written += n
	}
	return c, nil
}

// all does something to all containers, as fast as the engine can, and returns
// the time from the first of one kind of event to the last of another.
func (w *world) all(ctx context.Context, burst bool, first, last events.Action, do func(context.Context, string) error) (span time.Duration, err error) {
	if burst {
		if err := w.berth.Signal(syscall.SIGSTOP); err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, w.berth.Signal(syscall.SIGCONT)) }()
	}
	var begins, ends []<-chan rig.Moment
	for _, id := range w.ids {
		ends = append(ends, w.Seen.Expect(id, last))
		if first != last {
			begins = append(begins, w.Seen.Expect(id, first))
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(rig.AtOnce)
	for _, id := range w.ids {
		g.Go(func() error { return do(gctx, id) })
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	var at []time.Time
	late := time.After(rig.Patience)
	for _, ch := range slices.Concat(begins, ends) {
		select {
		case m := <-ch:
			at = append(at, m.Happened)
		case <-late:
			return 0, errors.New("not all events were seen")
		}
	}
	return slices.MaxFunc(at, time.Time.Compare).Sub(slices.MinFunc(at, time.Time.Compare)), nil
}

// measureIdle counts the calls while nothing happens.
func (w *world) measureIdle(ctx context.Context, t *rig.Table) error {
	if _, err := w.quiet(ctx, 2*followed); err != nil {
		return err
	}
	w.fake.ResetCalls()
	select {
	case <-time.After(w.idle):
	case <-ctx.Done():
		return ctx.Err()
	}
	calls := w.fake.Calls()
	t.Exactly(fmt.Sprintf("idle for %v: calls", w.idle), total(calls), 0, "%s", describe(calls))
	return w.berth.Stop()
}

// counted returns how many calls there were of actions whose names begin so.
func (w *world) counted(prefix string) int {
	n := 0
	for action, c := range w.fake.Calls() {
		if strings.HasPrefix(action, prefix) {
			n += c
		}
	}
	return n
}

func total(calls map[string]int) int {
	n := 0
	for _, c := range calls {
		n += c
	}
	return n
}

func describe(calls map[string]int) string {
	var parts []string
	for _, action := range slices.Sorted(maps.Keys(calls)) {
		parts = append(parts, fmt.Sprintf("%d %s", calls[action], action))
	}
	return strings.Join(parts, ", ")
}
