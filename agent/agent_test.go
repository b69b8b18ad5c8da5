package agent

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestRun_FollowsTheEngine(t *testing.T) {
	inLoop(t, DefaultLoopConfig(), func(t *testing.T, e *fakeEngine, a *Agent) {
		e.add(3)
		e.networks = []Network{{ID: "n", Name: "bridge", Driver: "bridge"}}
		if s := a.Store().Snapshot(); s == nil || s.Complete || s.Seq != 0 {
			t.Errorf("before Run: got %+v, want an empty, incomplete snapshot", s)
		}
		run(t, a)
		<-a.Ready()
		s := a.Store().Snapshot()
		if len(s.Containers) != 3 || len(s.Networks) != 1 || !s.Complete || !s.Connected || s.EngineID != "E" {
			t.Fatalf("at first: got %+v", s)
		}
		e.set(func() { delete(e.containers, fakeID(1)) })
		e.emit(t, Event{Action: "destroy", ID: fakeID(1)})
		s = a.Store().Snapshot()
		if len(s.Containers) != 2 || s.ByID(fakeID(1)) != nil || len(s.Dead) != 1 || s.Dead[0].RemovedAt.IsZero() {
			t.Errorf("after a removal: got %d containers, dead %+v", len(s.Containers), s.Dead)
		}
		e.add(2) // the third and fourth; number 3 is new
		e.emit(t, Event{Action: "create", ID: fakeID(3)})
		if s = a.Store().Snapshot(); s.ByID(fakeID(3)) == nil {
			t.Error("a new container is not known")
		}
	})
}

func TestRun_HungInspectHoldsUpNothingElse(t *testing.T) {
	cfg := DefaultLoopConfig()
	cfg.Workers = 4
	inLoop(t, cfg, func(t *testing.T, e *fakeEngine, a *Agent) {
		e.add(40)
		hung := fakeID(0) // the first in line
		e.hang[hung] = true
		run(t, a)
		s := a.Store().Snapshot()
		if len(s.Containers) != 39 || s.ByID(hung) != nil {
			t.Errorf("at once: got %d containers, want the 39 others", len(s.Containers))
		}
		if s.Complete {
			t.Error("complete although one is being inspected")
		}
		pass(cfg.InspectTimeout)
		s = a.Store().Snapshot()
		if !s.Complete || !slices.Equal(s.Unread, []string{hung}) {
			t.Errorf("after the time limit: got complete %v, unread %q, want true and the hung one", s.Complete, s.Unread)
		}
		if err := a.health.health.Err("engine"); err == nil || !strings.Contains(err.Error(), "inspect of 1 containers fails") {
			t.Errorf("condition: got %v, want one about the inspect", err)
		}
		// It is tried again while it hangs, and known when it does not.
		e.change(fakeID(7), func(c *Container) { c.Name = "renamed" })
		e.emit(t, Event{Action: "rename", ID: fakeID(7)})
		if c := a.Store().Snapshot().ByID(fakeID(7)); c == nil || c.Name != "renamed" {
			t.Errorf("got %+v, want the name that the event told of", c)
		}
		e.set(func() { e.hang[hung] = false })
		pass(time.Minute)
		s = a.Store().Snapshot()
		if s.ByID(hung) == nil || len(s.Unread) != 0 {
			t.Errorf("after it is fixed: got unread %q", s.Unread)
		}
		if err := a.health.health.Err("engine"); err != nil {
			t.Errorf("condition: got %v, want none", err)
		}
	})
}

func TestRun_MoreHangThanThereAreWorkers(t *testing.T) {
	cfg := DefaultLoopConfig()
	cfg.Workers = 4
	inLoop(t, cfg, func(t *testing.T, e *fakeEngine, a *Agent) {
		e.add(60)
		for i := range 12 {
			e.hang[fakeID(i)] = true
		}
		run(t, a)
		pass(3 * cfg.InspectTimeout) // twelve at four at a time, each once
		s := a.Store().Snapshot()
		if len(s.Containers) != 48 {
			t.Errorf("after three time limits: got %d containers, want 48", len(s.Containers))
		}
		for i := range 20 { // from now on suspects have one place at most
			id := fakeID(20 + i)
			e.change(id, func(c *Container) { c.ExitCode = 7 })
			e.emit(t, Event{Action: "update", ID: id})
			if c := a.Store().Snapshot().ByID(id); c == nil || c.ExitCode != 7 {
				t.Fatalf("change %d: not known at once: %+v", i, c)
			}
			pass(time.Second)
		}
		if e.seen().maxFlight > cfg.Workers {
			t.Errorf("inspects at once: got %d, want at most %d", e.seen().maxFlight, cfg.Workers)
		}
	})
}

func TestRun_CompleteOnlyAfterEveryInspect(t *testing.T) {
	inLoop(t, DefaultLoopConfig(), func(t *testing.T, e *fakeEngine, a *Agent) {
		e.add(5)
		e.gate = make(chan struct{})
		run(t, a)
		select {
		case <-a.Ready():
			t.Fatal("ready before an inspect was answered")
		default:
		}
		if s := a.Store().Snapshot(); s.Complete || !s.Connected {
			t.Errorf("got complete %v, connected %v, want connected only", s.Complete, s.Connected)
		}
		close(e.gate)
		synctest.Wait()
		<-a.Ready()
		if s := a.Store().Snapshot(); !s.Complete || len(s.Containers) != 5 {
			t.Errorf("got complete %v, %d containers, want all", s.Complete, len(s.Containers))
		}
	})
}

func TestRun_EmptyEngineIsComplete(t *testing.T) {
	inLoop(t, DefaultLoopConfig(), func(t *testing.T, _ *fakeEngine, a *Agent) {
		run(t, a)
		<-a.Ready()
	})
}

func TestRun_NetworksThatComeDuringAListAreListedOnceMore(t *testing.T) {
	inLoop(t, DefaultLoopConfig(), func(t *testing.T, e *fakeEngine, a *Agent) {
		e.netGate = make(chan struct{})
		run(t, a)
		for range 5 {
			e.emit(t, Event{Type: "network", Action: "create", ID: "n"})
		}
		e.set(func() {
			e.networks = []Network{{ID: "n", Name: "late"}}
			close(e.netGate)
			e.netGate = nil
		})
		synctest.Wait()
		if e.seen().netLists != 2 {
			t.Errorf("network lists: got %d, want 2", e.seen().netLists)
		}
		if s := a.Store().Snapshot(); len(s.Networks) != 1 || !s.Complete {
			t.Errorf("got networks %+v, complete %v", s.Networks, s.Complete)
		}
		e.emit(t, Event{Type: "network", Action: "destroy", ID: "n"})
		if e.seen().netLists != 3 {
			t.Errorf("network lists after another event: got %d, want 3", e.seen().netLists)
		}
	})
}

func TestRun_NetworkEventOfAContainerMarksItDirty(t *testing.T) {
	inLoop(t, DefaultLoopConfig(), func(t *testing.T, e *fakeEngine, a *Agent) {
		e.add(1)
		run(t, a)
		lists := e.seen().netLists
		e.emit(t, Event{Type: "network", Action: "connect", ID: "n", Container: fakeID(0)})
		if e.inspected(fakeID(0)) != 2 || e.seen().netLists != lists {
			t.Errorf("got %d inspects, %d network lists, want 2 and none more", e.inspected(fakeID(0)), e.seen().netLists-lists)
		}
	})
}

func TestRun_SessionIsGivenUpAfterThreeFailedLists(t *testing.T) {
	for _, what := range []string{"containers", "networks"} {
		t.Run(what, func(t *testing.T) {
			inLoop(t, DefaultLoopConfig(), func(t *testing.T, e *fakeEngine, a *Agent) {
				e.add(2)
				run(t, a)
				known := a.Store().Snapshot().Containers
				e.set(func() {
					if what == "containers" {
						e.listErr = errAway
					} else {
						e.netErr = errAway
					}
				})
				pass(DefaultLoopConfig().Resync)
				pass(relistFirst)
				if got := len(e.seen().connects); got != 1 {
					t.Errorf("connects after two failed lists: got %d, want 1", got)
				}
				pass(2 * relistFirst)
				if got := len(e.seen().connects); got != 2 {
					t.Errorf("connects after three failed lists: got %d, want 2", got)
				}
				s := a.Store().Snapshot()
				if s.Complete || !slices.Equal(s.Containers, known) {
					t.Errorf("got complete %v, %d containers, want incomplete, and the same ones", s.Complete, len(s.Containers))
				}
				e.set(func() { e.listErr, e.netErr = nil, nil })
				pass(relistLast)
				if s := a.Store().Snapshot(); !s.Complete {
					t.Error("not complete after the lists succeed again")
				}
			})
		})
	}
}

func TestRun_IdleCostsOneListOfEachKindAMinute(t *testing.T) {
	inLoop(t, DefaultLoopConfig(), func(t *testing.T, e *fakeEngine, a *Agent) {
		e.add(100)
		run(t, a)
		before := a.Stats()
		pass(10*time.Minute + time.Second)
		got := a.Stats()
		if got.Lists-before.Lists != 10 || got.NetworkLists-before.NetworkLists != 10 || got.Inspects != before.Inspects || got.Connects != 1 {
			t.Errorf("ten idle minutes: got %+v after %+v, want ten lists of each kind and nothing else", got, before)
		}
	})
}

func TestPitfall_discovery05_ReconnectsAtItsOwnPace(t *testing.T) {
	inLoop(t, DefaultLoopConfig(), func(t *testing.T, e *fakeEngine, a *Agent) {
		e.away = errAway
		run(t, a)
		pass(10 * time.Second)
		var pauses []time.Duration
		connects := e.seen().connects
		for i := range connects[1:] {
			pauses = append(pauses, connects[i+1].Sub(connects[i]))
		}
		const ms = time.Millisecond
		want := []time.Duration{100 * ms, 200 * ms, 400 * ms, 800 * ms, 1600 * ms, 2000 * ms, 2000 * ms, 2000 * ms}
		if !slices.Equal(pauses, want) {
			t.Errorf("pauses: got %v, want %v", pauses, want)
		}
		if err := a.health.health.Err("engine"); err == nil || !strings.Contains(err.Error(), errAway.Error()) {
			t.Errorf("condition: got %v, want that the engine is away", err)
		}
		e.set(func() { e.away = nil })
		pass(reconnectLast)
		<-a.Ready()
		if err := a.health.health.Err("engine"); err != nil {
			t.Errorf("condition: got %v, want none", err)
		}
	})
}

func TestRun_ShortAbsenceWakesNobody(t *testing.T) {
	inLoop(t, DefaultLoopConfig(), func(t *testing.T, e *fakeEngine, a *Agent) {
		run(t, a)
		e.set(func() { e.away = errAway })
		e.end(nil) // an end without an error is an end, too
		pass(time.Second)
		if a.Store().Snapshot().Connected {
			t.Error("connected although the stream ended")
		}
		if err := a.health.health.Err("engine"); err != nil {
			t.Errorf("condition within the first second: %v", err)
		}
		pass(time.Second)
		if err := a.health.health.Err("engine"); err == nil {
			t.Error("no condition after two seconds")
		}
	})
}

func TestRun_NewStreamOverlapsWithTheOld(t *testing.T) {
	inLoop(t, DefaultLoopConfig(), func(t *testing.T, e *fakeEngine, a *Agent) {
		e.add(1)
		started := time.Now()
		run(t, a)
		pass(time.Minute)
		last := time.Now()
		e.emit(t, Event{Action: "update", ID: fakeID(0)})
		pass(30 * time.Second)
		e.end(errAway)
		pass(time.Second)
		want := []time.Time{started.Add(-DefaultLoopConfig().StopHold), last.Add(-sinceMargin)}
		if !slices.EqualFunc(e.seen().since, want, time.Time.Equal) {
			t.Errorf("since: got %v, want %v", e.seen().since, want)
		}
	})
}

func TestRun_StopSignalIsBelievedForAWhile(t *testing.T) {
	inLoop(t, DefaultLoopConfig(), func(t *testing.T, e *fakeEngine, a *Agent) {
		e.add(1)
		run(t, a)
		c := func() *Container { return a.Store().Snapshot().ByID(fakeID(0)) }
		e.emit(t, Event{Action: "kill", ID: fakeID(0), Signal: 1})
		if !c().StoppingSince.IsZero() {
			t.Error("SIGHUP: it is called stopping")
		}
		e.emit(t, Event{Action: "kill", ID: fakeID(0), Signal: 15})
		if c().StoppingSince.IsZero() {
			t.Error("SIGTERM: it is not called stopping")
		}
		if e.inspected(fakeID(0)) != 1 {
			t.Errorf("inspects: got %d, want the first one only", e.inspected(fakeID(0)))
		}
		pass(DefaultLoopConfig().StopHold - time.Nanosecond)
		if c().StoppingSince.IsZero() {
			t.Error("it is not called stopping before the hold is over")
		}
		pass(time.Nanosecond)
		if !c().StoppingSince.IsZero() {
			t.Error("it is called stopping after the hold")
		}
		// A death is believed before an inspect confirms it.
		e.set(func() { e.gate = make(chan struct{}) })
		e.emit(t, Event{Action: "die", ID: fakeID(0), ExitCode: 137})
		if c().Alive() || c().ExitCode != 137 {
			t.Errorf("after its death: got %+v", c())
		}
		close(e.gate)
	})
}

// An answer that was asked for before the newest event is older than it, and
// another one is asked for.
func TestRun_AnswerOlderThanTheNewestEventIsThrownAway(t *testing.T) {
	inLoop(t, DefaultLoopConfig(), func(t *testing.T, e *fakeEngine, a *Agent) {
		e.add(1)
		run(t, a)
		slow := make(chan struct{})
		e.set(func() { e.gate = slow })
		e.change(fakeID(0), func(c *Container) { c.Name = "second" })
		e.emit(t, Event{Action: "rename", ID: fakeID(0)}) // the inspect has seen "second", and waits
		e.change(fakeID(0), func(c *Container) { c.Name = "third" })
		e.emit(t, Event{Action: "rename", ID: fakeID(0)})
		if e.inspected(fakeID(0)) != 2 {
			t.Errorf("inspects at once: got %d, want no two of one container at a time", e.inspected(fakeID(0))-1)
		}
		var names []string
		feed := a.Store().Subscribe()
		defer feed.Close()
		<-feed.Changed()
		e.set(func() { e.gate = nil })
		close(slow)
		synctest.Wait()
		names = append(names, feed.Snapshot().ByID(fakeID(0)).Name)
		if !slices.Equal(names, []string{"third"}) || a.Stats().Stale != 1 {
			t.Errorf("got %q, %d stale answers, want the third name and one", names, a.Stats().Stale)
		}
	})
}

func TestRun_AnotherEngine(t *testing.T) {
	inLoop(t, DefaultLoopConfig(), func(t *testing.T, e *fakeEngine, a *Agent) {
		e.add(3)
		run(t, a)
		e.set(func() {
			clear(e.containers)
			e.info.ID = "F"
		})
		e.end(errAway)
		pass(time.Second)
		if s := a.Store().Snapshot(); s.EngineID != "F" || len(s.Containers) != 0 || len(s.Dead) != 0 || !s.Complete {
			t.Errorf("got %+v, want an empty engine F", s)
		}
	})
}

func TestRun_FollowsTheNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := &fakeNode{node: Node{ID: "first"}, changed: make(chan struct{})}
		log := slog.New(slog.DiscardHandler)
		a := New(newFakeEngine(), node, DefaultLoopConfig(), Env{Log: log, Health: NewHealth(log)})
		run(t, a)
		for _, id := range []string{"first", "second", "third"} {
			if id != "first" {
				node.set(Node{ID: id})
				synctest.Wait()
			}
			if got := a.Store().Snapshot().Node.ID; got != id {
				t.Errorf("node: got %q, want %q", got, id)
			}
		}
	})
}

func TestPing(t *testing.T) {
	inLoop(t, DefaultLoopConfig(), func(t *testing.T, _ *fakeEngine, a *Agent) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := a.Ping(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("without a loop: got %v, want a deadline", err)
		}
		stop := run(t, a)
		if err := a.Ping(t.Context()); err != nil {
			t.Errorf("with a loop: got %v", err)
		}
		stop()
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := a.Ping(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after the loop: got %v, want a deadline", err)
		}
	})
}

// Run returns after all that it has started, however busy that is; the bubble
// fails when a goroutine is left.
func TestRun_EndsWhateverHangs(t *testing.T) {
	inLoop(t, DefaultLoopConfig(), func(t *testing.T, e *fakeEngine, a *Agent) {
		e.add(30)
		for i := range 30 {
			e.hang[fakeID(i)] = true
		}
		e.netGate = make(chan struct{})
		stop := run(t, a)
		began := time.Now()
		stop()
		if took := time.Since(began); took != 0 {
			t.Errorf("it took %v, want no time", took)
		}
	})
}
