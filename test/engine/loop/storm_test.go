package loop

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/docker/docker/api/types/container"
	"golang.org/x/sync/errgroup"

	"github.com/berthd/berth/test/engine/enginetest"
)

// A hundred containers, half of them started in one burst, have a hundred SRV
// records; when they are removed, nothing is left. No event costs more than one
// inspect.
func TestStorm_HundredContainers(t *testing.T) {
	e := enginetest.Outer(t)
	b := startBerth(t, e.Host)
	name, labels := service(e, "many")
	spec := func(int) enginetest.Spec { return web(labels) }
	all := e.StartContainers(t, 50, spec)

	burst := make([]*enginetest.Container, 50)
	for i := range burst {
		s := spec(i)
		s.Hurry = true
		burst[i] = e.CreateContainer(t, s)
	}
	b.settle(t, e)
	before := b.status(t).Engine.Asked
	g, ctx := errgroup.WithContext(t.Context())
	for _, c := range burst {
		g.Go(func() error { return e.Client.ContainerStart(ctx, c.ID, container.StartOptions{}) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	all = append(all, burst...)
	var want []uint16
	for _, c := range all {
		want = append(want, at(t, c))
	}
	b.awaitSRV(t, name, want...)
	b.settle(t, e)
	after := b.status(t).Engine.Asked
	// What else is on the engine has events too, and a list that is due by the
	// clock may find what an event has not told yet.
	events, inspects := after.Events-before.Events, after.Inspects-before.Inspects
	if rows := after.Contradictions - before.Contradictions; inspects > events+rows {
		t.Errorf("inspects of a burst: got %d, want at most one for each of %d events and %d rows", inspects, events, rows)
	}

	if err := e.RemoveAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	enginetest.Await(t, limit, "all are gone from berth", func(ctx context.Context) error {
		known, err := b.containers(ctx)
		if err != nil {
			return err
		}
		if i := slices.IndexFunc(all, func(c *enginetest.Container) bool { return known[c.ID].ID != "" }); i >= 0 {
			return fmt.Errorf("%s is there", all[i].Name)
		}
		return nil
	})
	b.awaitSRV(t, name)
	for _, c := range b.status(t).Conditions {
		if c.Component == "engine" {
			t.Errorf("a condition: %+v", c)
		}
	}
}

// Health checks are execs, of which each has three events: none of them reaches
// berth, and none costs an inspect.
func TestStorm_HealthChecksCostNothing(t *testing.T) {
	e := enginetest.Private(t) // where nothing else happens
	b := startBerth(t, e.Host)
	name, labels := service(e.Engine, "checked")
	spec := web(labels, "-healthy")
	spec.Health = enginetest.HealthFile(checkInterval)
	c := e.StartContainer(t, spec)
	b.awaitSRV(t, name, at(t, c))
	b.settle(t, e.Engine)
	before := b.status(t).Engine.Asked
	first := c.Inspect(t).State.Health.Log
	enginetest.Await(t, limit, "ten more checks", func(context.Context) error {
		// The engine keeps the last five.
		log := c.Inspect(t).State.Health.Log
		if len(log) < 5 || log[0].Start.Sub(first[0].Start) < 10*checkInterval {
			return errors.New("not yet")
		}
		return nil
	})
	after := b.status(t).Engine.Asked
	if after.Events != before.Events {
		t.Errorf("events: got %d more, want none", after.Events-before.Events)
	}
	if rows := after.Contradictions - before.Contradictions; after.Inspects-before.Inspects > rows {
		t.Errorf("inspects: got %d more, want none", after.Inspects-before.Inspects)
	}
}
