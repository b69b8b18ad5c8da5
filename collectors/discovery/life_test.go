package discovery

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/berthd/berth/agent"
)

func TestHold(t *testing.T) {
	for n, want := range map[int]time.Duration{
		0: 0, 2: 0, 3: time.Second, 4: 2 * time.Second, 8: 32 * time.Second, 9: time.Minute, 1000: time.Minute,
	} {
		if got := hold(n); got != want {
			t.Errorf("hold(%d) = %v, want %v", n, got, want)
		}
	}
}

// crashed returns n runs of c that lasted a second each, the last of which
// ended a second before end.
func crashed(c *agent.Container, n int, end time.Time) []agent.DeadRun {
	var dead []agent.DeadRun
	for i := n; i > 0; i-- {
		start := end.Add(-time.Duration(i) * 2 * time.Second)
		dead = append(dead, agent.DeadRun{
			Container:  with(c, func(c *agent.Container) { c.StartedAt, c.State, c.Ports = start, agent.StateExited, nil }),
			FinishedAt: start.Add(time.Second),
		})
	}
	return dead
}

func TestHoldDown(t *testing.T) {
	c := container("a", named(web), both("80/tcp=80")...)
	another := with(c, func(c *agent.Container) { c.ID = strings.Repeat("b", 64) })
	tests := map[string]struct {
		dead []agent.DeadRun
		want time.Duration
	}{
		"no crash":                   {nil, 0},
		"two crashes":                {crashed(c, 2, epoch), 0},
		"three crashes":              {crashed(c, 3, epoch), time.Second},
		"five crashes":               {crashed(c, 5, epoch), 4 * time.Second},
		"a hundred crashes":          {crashed(c, 100, epoch), time.Minute},
		"new IDs by docker run --rm": {crashed(another, 5, epoch), 4 * time.Second},
		"of another image":           {crashed(with(another, func(c *agent.Container) { c.Image = "other" }), 5, epoch), 0},
		"of another name":            {crashed(with(another, func(c *agent.Container) { c.Labels = named("SERVICE_80_NAME=x") }), 5, epoch), 0},
		"longer ago than the window": {crashed(c, 5, epoch.Add(-crashWindow)), 0},
		"after this run has started": {crashed(another, 5, epoch.Add(20*time.Second)), 0},
		"runs that lasted": {func() []agent.DeadRun {
			dead := crashed(c, 5, epoch)
			for i := range dead {
				dead[i].Container.StartedAt = dead[i].FinishedAt.Add(-shortRun)
			}
			return dead
		}(), 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			snap := snapshot(c)
			snap.Dead = test.dead
			at := func(age time.Duration) *view {
				return mustRules(t, nil).evaluate(snap, epoch.Add(age), new(memo))
			}
			if test.want > 0 {
				v := at(test.want - time.Millisecond)
				if v.held != 1 || len(linesOf(v.set)) != 0 || !v.next.Equal(epoch.Add(test.want)) {
					t.Errorf("before the end: held %d until %v, records %v", v.held, v.next, linesOf(v.set))
				}
				if why := v.explain(c).Reasons[0].Rule; !strings.Contains(why, "held down until 2026-03-01T12:0") {
					t.Errorf("reason %q", why)
				}
			}
			for _, age := range []time.Duration{test.want, test.want + time.Hour} {
				if v := at(age); v.held != 0 || len(linesOf(v.set)) != 1 || !v.next.IsZero() {
					t.Errorf("at %v: held %d, records %v, next %v", age, v.held, linesOf(v.set), v.next)
				}
			}
		})
	}
}

func TestHoldDownSurvivesAWrongClock(t *testing.T) {
	c := container("a", named(web), both("80/tcp=80")...)
	snap := snapshot(c)
	snap.Dead = crashed(c, 50, epoch)
	if v := mustRules(t, nil).evaluate(snap, epoch.Add(-time.Hour), new(memo)); v.held != 0 {
		t.Errorf("held down until %v, an hour from now", v.next)
	}
}

func TestRunReleasesHoldDownByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := agent.NewStore()
		feed := store.Subscribe()
		defer feed.Close()
		d := mustNew(t, DefaultConfig(), testEnv())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- d.Run(ctx, feed) }()

		c := with(container("a", named(web), both("80/tcp=80")...), func(c *agent.Container) { c.StartedAt = time.Now() })
		snap := snapshot(c)
		snap.Dead = crashed(c, 5, c.StartedAt)
		store.Publish(snap)
		synctest.Wait()
		if set, seq := d.Records().Load(); seq != 1 || len(linesOf(set)) != 0 {
			t.Errorf("at the start: set %d with %v, want the first without the service", seq, linesOf(set))
		}
		time.Sleep(4*time.Second - time.Millisecond) // of the bubble's clock
		synctest.Wait()
		if _, seq := d.Records().Load(); seq != 1 {
			t.Errorf("released too early")
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if set, seq := d.Records().Load(); seq != 2 || len(linesOf(set)) != 1 {
			t.Errorf("after 4 s: set %d with %v, want the service", seq, linesOf(set))
		}
		evaluations := d.stats.evaluations.Load()
		time.Sleep(time.Hour)
		if n := d.stats.evaluations.Load() - evaluations; n != 0 {
			t.Errorf("%d evaluations in an hour of nothing, want 0", n)
		}
		cancel()
		<-done
	})
}

func TestDrainWantsNothing(t *testing.T) {
	c := container("a", named(web), both("80/tcp=80")...)
	snap := snapshot(c)
	snap.Drain = &agent.Drain{Reason: "spot interruption"}
	snap.Complete = false
	v := mustRules(t, nil).evaluate(snap, testNow, new(memo))
	if len(v.set.Records) != 0 || v.set.Partial {
		t.Errorf("draining: records %v, partial %v; want none, false", v.set.Records, v.set.Partial)
	}
	if e := v.explain(c); e.Registered != 0 || !strings.Contains(e.Reasons[0].Rule, "drained: spot interruption") {
		t.Errorf("explanation %+v", e)
	}
}

func TestIncompleteSnapshotIsPartial(t *testing.T) {
	snap := snapshot(container("a", named(web), both("80/tcp=80")...))
	snap.Complete = false
	set := mustRules(t, nil).evaluate(snap, testNow, new(memo)).set
	if !set.Partial || len(linesOf(set)) != 1 {
		t.Errorf("partial %v with %v, want true with the known container", set.Partial, linesOf(set))
	}
}

func TestConditions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := testEnv()
		d := mustNew(t, DefaultConfig(), env)
		conditions := func(snap *agent.Snapshot) []string {
			var list []string
			d.update(snap, new(memo))
			time.Sleep(2 * addressGrace)
			synctest.Wait()
			for _, c := range env.Health.Conditions() {
				list = append(list, string(c.Severity)+" "+c.Name+": "+c.Why)
			}
			return list
		}
		c := container("a", named("SERVICE_80_NAME=a..b", "SERVICE_81_NAME=*"), append(both("80/tcp=80"), both("81/tcp=81")...)...)
		want := `warning claims: 2 refused, such as "a..b" on 80 of container ca: label SERVICE_80_NAME: the name has an empty label (a dot too many)`
		if got := conditions(snapshot(c)); !slices.Equal(got, []string{want}) {
			t.Errorf("got %q\nwant %q", got, want)
		}
		exited := with(c, func(c *agent.Container) { c.State = agent.StateExited })
		if got := conditions(snapshot(exited)); len(got) != 0 {
			t.Errorf("bad names of a container that ended: %q, want nothing", got)
		}
		lost := snapshot(c)
		lost.Node = agent.Node{ID: "n1"}
		if got := conditions(lost); len(got) != 2 || !strings.HasPrefix(got[0], "warning address: the host's address is not known; that of a bridge") {
			t.Errorf("without an address: %q", got)
		}
		lost.Networks = nil
		if got := conditions(lost); len(got) != 2 || !strings.HasPrefix(got[0], "warning address: no address of this host is known") {
			t.Errorf("without any address: %q", got)
		}
		d.clearConditions()
		if got := env.Health.Conditions(); len(got) != 0 {
			t.Errorf("after the end: %v", got)
		}
	})
}
