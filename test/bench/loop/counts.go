package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"golang.org/x/sync/errgroup"

	"github.com/berthd/berth/test/bench/rig"
)

const (
	lives = 6   // containers that go through every state, one after the other
	execs = 200 // processes that are run in containers

	// healthInterval is how often the container with a HEALTHCHECK is checked.
	healthInterval = time.Second

	maxCPU = 0.1        // percent of a core, idle
	maxRSS = 25_000_000 // bytes

	resync     = time.Minute      // the default
	fastResync = 10 * time.Second // of the berth beside it
)

// measureInspects takes containers through every state and holds the inspects
// against the events.
func (w *world) measureInspects(ctx context.Context, t *rig.Table) error {
	var err error
	if w.proxy, err = newProxy(filepath.Join(w.Dir, "p"), w.Socket); err != nil {
		return err
	}
	if w.watched, err = w.StartBerth(ctx, rig.Options{Host: w.proxy.host}); err != nil {
		return err
	}
	if err := w.settle(ctx); err != nil {
		return err
	}
	var ids []string
	for i := range lives {
		id, err := w.live(ctx, fmt.Sprintf("life%02d", i))
		if err != nil {
			return err
		}
		ids = append(ids, id)
	}
	if err := w.settle(ctx); err != nil {
		return err
	}
	total, worst := 0, 0.0
	for _, id := range ids {
		n := w.Seen.ChangesOf(id)
		if n == 0 {
			return fmt.Errorf("no event of %.12s was seen", id)
		}
		total += n
		worst = max(worst, float64(w.proxy.inspectsOf(id))/float64(n))
	}
	inspects := w.proxy.inspectsOf(ids...)
	t.Most("inspects per state-changing event", float64(inspects)/float64(total), 1, "", "%d inspects, %d events", inspects, total)
	t.Most("the same, of the worst container", worst, 1, "", "of %d", lives)
	return w.weigh(w.watched)
}

// live takes a container through every state, and returns its ID.
func (w *world) live(ctx context.Context, name string) (string, error) {
	id, err := w.Create(ctx, rig.Spec{Name: name, Claims: name})
	if err != nil {
		return "", err
	}
	second := 1
	for _, do := range []func() error{
		func() error { return w.Engine.ContainerStart(ctx, id, container.StartOptions{}) },
		func() error { return w.Engine.ContainerPause(ctx, id) },
		func() error { return w.Engine.ContainerUnpause(ctx, id) },
		func() error {
			return w.Engine.ContainerRename(ctx, id, w.Name(name+"-new"))
		},
		func() error { return w.Engine.ContainerKill(ctx, id, "SIGHUP") },
		func() error { return w.Engine.ContainerRestart(ctx, id, container.StopOptions{Timeout: &second}) },
		func() error { return w.Engine.ContainerStop(ctx, id, container.StopOptions{Timeout: &second}) },
	} {
		if err := do(); err != nil {
			return "", fmt.Errorf("take %s through its life: %w", name, err)
		}
		time.Sleep(calm) // so that each event could have an inspect of its own
	}
	gone := w.Seen.Expect(id, events.ActionDestroy)
	if err := w.Remove(ctx, id); err != nil {
		return "", err
	}
	select {
	case <-gone:
		return id, nil
	case <-time.After(patience):
		return "", fmt.Errorf("the end of %s was not seen", name)
	}
}

// measureExecs runs processes in containers, beside a HEALTHCHECK.
func (w *world) measureExecs(ctx context.Context, t *rig.Table) error {
	id, err := w.Start(ctx, rig.Spec{Name: "health", Claims: "health", Args: []string{"-healthy"}, Health: &container.HealthConfig{
		Test: []string{"CMD", "/app", "health"}, Interval: healthInterval, Timeout: 10 * time.Second, Retries: 3,
	}})
	if err != nil {
		return err
	}
	err = rig.Until(ctx, "the container with a HEALTHCHECK is healthy", func() error {
		c, err := w.Engine.ContainerInspect(ctx, id)
		if err == nil && c.State.Health.Status != container.Healthy {
			err = errors.New(c.State.Health.Status)
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := w.settle(ctx); err != nil {
		return err
	}
	checked := append(slices.Clone(w.ids), id)
	inspects, changed := w.proxy.inspectsOf(checked...), w.Seen.Total()
	before, _, _ := w.Seen.Counts()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(rig.AtOnce)
	for i := range execs {
		g.Go(func() error { return w.exec(gctx, w.ids[i%len(w.ids)]) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	var seen int
	err = rig.Until(ctx, "every exec has ended", func() (err error) {
		if seen, _, err = w.Seen.Counts(); err == nil && seen-before < execs {
			err = fmt.Errorf("%d of %d", seen-before, execs)
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := w.settle(ctx); err != nil {
		return err
	}
	t.Exactly(fmt.Sprintf("inspects during %d execs and health checks", execs), w.proxy.inspectsOf(checked...)-inspects, 0,
		"%d exec_die events, %d events that change a state", seen-before, w.Seen.Total()-changed)
	if err := w.Remove(ctx, id); err != nil {
		return err
	}
	return w.weigh(w.watched)
}

// exec runs a short process in a container.
func (w *world) exec(ctx context.Context, id string) error {
	made, err := w.Engine.ContainerExecCreate(ctx, id, container.ExecOptions{Cmd: []string{"/app", "health", "-set=healthy"}})
	if err == nil {
		err = w.Engine.ContainerExecStart(ctx, made.ID, container.ExecStartOptions{Detach: true})
	}
	if err != nil {
		return fmt.Errorf("run a process in a container: %w", err)
	}
	return nil
}

// measureIdle waits one or two minutes, and counts.
func (w *world) measureIdle(ctx context.Context, t *rig.Table) error {
	fastProxy, err := newProxy(filepath.Join(w.Dir, "f"), w.Socket)
	if err != nil {
		return err
	}
	defer fastProxy.close()
	fast, err := w.StartBerth(ctx, rig.Options{Host: fastProxy.host, Set: []string{"loop.resync=" + fastResync.String()}})
	if err != nil {
		return err
	}
	defer fast.Stop()
	window := resync
	if w.long {
		window *= 2
	}
	const tries = 2
	var got idle
	for try := 1; ; try++ {
		if got, err = w.idle(ctx, window, w.proxy, fastProxy); err != nil {
			return err
		}
		if got.foreign == 0 {
			break
		}
		say("others made %d events meanwhile", got.foreign)
		if try == tries {
			t.Note("Others on the same engine made %d events during the idle time, for which berth asks.", got.foreign)
			break
		}
	}
	for i, every := range []time.Duration{resync, fastResync} {
		n := int(window / every)
		calls := got.calls[i]
		what := fmt.Sprintf("idle, %d × %v: ", n, every)
		t.Exactly(what+"container lists", calls[kindList], n, "")
		t.Exactly(what+"network lists", calls[kindNetworks], n, "")
		delete(calls, kindList)
		delete(calls, kindNetworks)
		others := 0
		for _, n := range calls {
			others += n
		}
		t.Exactly(what+"other calls", others, 0, "%s", describe(calls))
	}
	cpu := 100 * got.cpu.Seconds() / got.wall.Seconds()
	t.Most("idle CPU with "+fmt.Sprint(w.containers)+" containers", cpu, maxCPU, "% of a core", "%.1f ms in %.0f s", got.cpu.Seconds()*1000, got.wall.Seconds())
	if err := w.weigh(w.watched); err != nil {
		return err
	}
	return w.agree(ctx, t)
}

// idle is what happened while nothing did.
type idle struct {
	calls     [2]map[string]int
	cpu, wall time.Duration
	foreign   int // events of others
}

// idle waits for a while and returns what was asked of two proxies meanwhile, and
// the CPU time of the first one's berth.
func (w *world) idle(ctx context.Context, window time.Duration, proxies ...*proxy) (idle, error) {
	// Lists come at their interval after the last one: from a moment that is not
	// close to one, a window of n intervals has n of them.
	err := rig.Until(ctx, "the last list is some time ago", func() error {
		for _, p := range proxies {
			if since := time.Since(p.listed()); since < 2*time.Second {
				return fmt.Errorf("%v", since)
			}
		}
		return nil
	})
	if err != nil {
		return idle{}, err
	}
	var before [2]map[string]int
	for i, p := range proxies {
		before[i] = w.ownCalls(p)
	}
	_, foreign, _ := w.Seen.Counts()
	cpu, err := w.watched.CPU()
	if err != nil {
		return idle{}, err
	}
	began := time.Now()
	select {
	case <-time.After(window):
	case <-ctx.Done():
		return idle{}, ctx.Err()
	}
	got := idle{wall: time.Since(began)}
	if got.cpu, err = w.watched.CPU(); err != nil {
		return idle{}, err
	}
	got.cpu -= cpu
	for i, p := range proxies {
		got.calls[i] = minus(w.ownCalls(p), before[i])
	}
	_, got.foreign, err = w.Seen.Counts()
	got.foreign -= foreign
	return got, err
}

// ownCalls returns how many calls a proxy has counted, without inspects of other
// people's containers.
func (w *world) ownCalls(p *proxy) map[string]int {
	calls := p.counted()
	calls[kindInspect] = p.inspectsOf(w.Seen.Ours()...)
	return calls
}

// minus returns the counts that have grown, by how much.
func minus(after, before map[string]int) map[string]int {
	out := make(map[string]int)
	for k, n := range after {
		if n != before[k] {
			out[k] = n - before[k]
		}
	}
	return out
}

func describe(calls map[string]int) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(calls)) {
		parts = append(parts, fmt.Sprintf("%d %s", calls[k], k))
	}
	return strings.Join(parts, ", ")
}

// settle waits until berth has nothing more to ask, and its counters are those of
// the proxy.
func (w *world) settle(ctx context.Context) error {
	const quiet = 500 * time.Millisecond
	var last string
	since := time.Now()
	return rig.Until(ctx, "berth is quiet and its counters are the proxy's", func() error {
		own, counted, err := w.counters(ctx)
		if err != nil {
			return err
		}
		if own != counted || own != last {
			last, since = own, time.Now()
			return fmt.Errorf("%w: %s and %s", errDisagree, own, counted)
		}
		if time.Since(since) < quiet {
			return errors.New("it is not quiet yet")
		}
		return nil
	})
}

// counters returns what berth and the proxy have counted, in the same words.
func (w *world) counters(ctx context.Context) (own, counted string, err error) {
	s, err := w.watched.Asked(ctx)
	if err != nil {
		return "", "", err
	}
	const format = "%d container lists, %d network lists, %d inspects, %d event streams"
	calls := w.proxy.counted()
	return fmt.Sprintf(format, s.Lists, s.NetworkLists, s.Inspects, s.Connects),
		fmt.Sprintf(format, calls[kindList], calls[kindNetworks], calls[kindInspect], calls[kindEvents]), nil
}

// agree holds berth's own counters against the proxy's, over the whole life of
// that berth.
func (w *world) agree(ctx context.Context, t *rig.Table) error {
	err := w.settle(ctx)
	if err != nil && !errors.Is(err, errDisagree) {
		return err
	}
	own, counted, cerr := w.counters(ctx)
	if cerr != nil {
		return cerr
	}
	t.Yes("berth's own counters are the proxy's", err == nil, "berth: %s; proxy: %s", own, counted)
	return nil
}

// weigh notes how much memory a berth has.
func (w *world) weigh(b *rig.Berth) error {
	n, err := b.RSS()
	w.rss = append(w.rss, n)
	return err
}

func (w *world) measureMemory(t *rig.Table) {
	var all []string
	for _, n := range w.rss {
		all = append(all, fmt.Sprintf("%.1f", float64(n)/1e6))
	}
	t.Most(fmt.Sprintf("resident memory with %d containers", w.containers), float64(slices.Max(w.rss))/1e6, maxRSS/1e6, "MB",
		"after each part: %s", strings.Join(all, ", "))
}
