package loop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"golang.org/x/sync/errgroup"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/admin"
	"github.com/berthd/berth/test/engine/enginetest"
)

// A container that dies while berth is down has lost its name once berth has
// listed the engine's containers for the first time, whether berth was stopped
// or killed.
func TestPitfall_discovery01_DiesWhileBerthIsDown(t *testing.T) {
	e := enginetest.Outer(t)
	for _, how := range []struct {
		name string
		end  func(*berth, *testing.T)
	}{{"stopped", (*berth).stop}, {"killed", (*berth).kill9}} {
		t.Run(how.name, func(t *testing.T) {
			gone, goneLabels := service(e, how.name+"-gone")
			stays, staysLabels := service(e, how.name+"-stays")
			a, c := e.StartContainer(t, web(goneLabels)), e.StartContainer(t, web(staysLabels))
			b := startBerth(t, e.Host)
			b.awaitSRV(t, gone, at(t, a))
			b.awaitSRV(t, stays, at(t, c))

			how.end(b, t)
			a.Kill(t, "KILL")
			a.Wait(t)
			b.start(t)
			b.awaitReady(t)
			b.awaitSRV(t, stays, at(t, c))
			b.awaitSRV(t, gone)
			if got := b.status(t).Engine.Asked.Lists; got != 1 {
				t.Errorf("lists until it was gone: got %d, want 1", got)
			}
		})
	}
}

// A container that dies while dockerd is down dies silently: there is no event
// of it, ever. Only the list after the reconnect can tell.
func TestPitfall_discovery02_DiesWhileEngineIsDown(t *testing.T) {
	t.Parallel() // it waits, mostly
	e := enginetest.Private(t, "--live-restore")
	gone, goneLabels := service(e.Engine, "gone")
	stays, staysLabels := service(e.Engine, "stays")
	victim, survivor := e.StartContainer(t, web(goneLabels)), e.StartContainer(t, web(staysLabels))
	b := startBerth(t, e.Host)
	b.awaitSRV(t, gone, at(t, victim))
	b.awaitSRV(t, stays, at(t, survivor))
	stop := b.watch(t, stays)
	pid := victim.Pid(t)
	shim := parent(t, pid)
	began := time.Now()

	e.Kill9(t)
	for _, p := range []int{pid, shim} {
		if err := syscall.Kill(p, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Fatalf("kill process %d: %v", p, err)
		}
	}
	enginetest.Await(t, limit, "the end of the container's process", func(context.Context) error {
		if processState(pid) != "" {
			return errors.New("it is there")
		}
		return nil
	})
	b.awaitStatus(t, "berth sees that the engine is gone", func(st admin.Status) error {
		if st.Engine.Connected {
			return errors.New("it is connected")
		}
		return nil
	})
	// Whether it died berth cannot know: an engine that is silent says nothing.
	b.wantSRV(t, "without an engine", gone, hostPort(t, b, victim.ID))

	e.Start(t)
	b.awaitReady(t)
	b.awaitSRV(t, gone)
	b.wantSRV(t, "after the reconnect", stays, at(t, survivor))
	wantAlwaysThere(t, stays, stop)
	if got := actions(t, e.Engine, victim.ID, began); slices.Contains(got, "die") {
		t.Errorf("the engine told of the death, so this test shows nothing: %q", got)
	}
}

// parent returns the parent of a process.
func parent(t *testing.T, pid int) int {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	ppid, err := strconv.Atoi(fields[1])
	if err != nil || ppid <= 1 {
		t.Fatalf("parent of process %d: got %q", pid, fields)
	}
	return ppid
}

// processState returns the state of a process, as /proc has it, and "" for one
// that has ended, reaped or not.
func processState(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	state := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))[0]
	if state == "Z" || state == "X" {
		return ""
	}
	return state
}

// hostPort returns where berth believes that the first port is published.
func hostPort(t *testing.T, b *berth, id string) uint16 {
	t.Helper()
	known, err := b.containers(t.Context())
	if err != nil || len(known[id].Ports) == 0 {
		t.Fatalf("ports of %s: %v, %+v", id, err, known[id])
	}
	return known[id].Ports[0].Host.Port()
}

// actions returns what the engine can still tell of a container since a moment.
func actions(t *testing.T, e *enginetest.Engine, id string, since time.Time) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	msgs, errs := e.Client.Events(ctx, events.ListOptions{
		Since:   fmt.Sprintf("%d.%09d", since.Unix(), since.Nanosecond()),
		Until:   fmt.Sprintf("%d.%09d", time.Now().Unix(), time.Now().Nanosecond()),
		Filters: filters.NewArgs(filters.Arg("container", id)),
	})
	var got []string
	for {
		select {
		case m := <-msgs:
			got = append(got, string(m.Action))
		case <-errs: // the end of a stream with an end is an error, EOF
			return got
		}
	}
}

// blockedReader is an engine whose event stream can be left unread.
type blockedReader struct {
	agent.Engine
	gate sync.Mutex // held while nobody reads
}

func (b *blockedReader) Events(ctx context.Context, since time.Time) (<-chan agent.Event, <-chan error) {
	in, errs := b.Engine.Events(ctx, since)
	out := make(chan agent.Event)
	go func() {
		for {
			b.gate.Lock()
			//lint:ignore SA2001 it is passed through only
			b.gate.Unlock()
			select {
			case ev := <-in:
				select {
				case out <- ev:
				case <-ctx.Done():
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, errs
}

// The engine queues 1,024 events for a reader, and drops what comes after
// without a word. A reader that was blocked while 2,000 events happened must
// converge all the same.
func TestPitfall_discovery03_BlockedReaderConverges(t *testing.T) {
	e := enginetest.Outer(t)
	engine := &blockedReader{Engine: newEngine(t, e.Host)}
	cfg := agent.DefaultLoopConfig()
	cfg.Resync = 2 * time.Second
	a := startAgent(t, engine, cfg)
	stays := e.StartContainer(t, enginetest.Spec{Name: "stays"})
	dies := e.StartContainer(t, enginetest.Spec{Name: "dies"})
	goes := e.CreateContainer(t, enginetest.Spec{Name: "goes"})
	awaitSnapshot(t, a, "all three are known", func(s *agent.Snapshot) error {
		if s.ByID(stays.ID) == nil || s.ByID(dies.ID) == nil || s.ByID(goes.ID) == nil {
			return errors.New("one is missing")
		}
		return complete(s)
	})

	// A rename is the cheapest event: 250 of each of eight.
	renamed := make([]*enginetest.Container, 8)
	for i := range renamed {
		renamed[i] = e.CreateContainer(t, enginetest.Spec{Name: "renamed"})
	}
	names := make([]string, len(renamed))
	storm := func(from, to int) {
		t.Helper()
		g, ctx := errgroup.WithContext(t.Context())
		for i, c := range renamed {
			g.Go(func() error {
				for n := from; n < to; n++ {
					names[i] = fmt.Sprintf("%s-%d", c.Name, n)
					if err := e.Client.ContainerRename(ctx, c.ID, names[i]); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	engine.gate.Lock()
	storm(0, 125)
	newest := e.StartContainer(t, enginetest.Spec{Name: "newest"})
	stays.Kill(t, "HUP")
	dies.Kill(t, "KILL")
	dies.Wait(t)
	goes.Remove(t)
	storm(125, 250)
	engine.gate.Unlock()

	awaitSnapshot(t, a, "the truth", func(s *agent.Snapshot) error {
		c, d, n := s.ByID(stays.ID), s.ByID(dies.ID), s.ByID(newest.ID)
		switch {
		case c == nil || !c.Running() || !c.StoppingSince.IsZero():
			return fmt.Errorf("the one that stays is %+v", c)
		case d == nil || d.Alive():
			return fmt.Errorf("the one that died is %+v", d)
		case n == nil || !n.Running():
			return fmt.Errorf("the newest is %+v", n)
		case s.ByID(goes.ID) != nil:
			return errors.New("the one that was removed is there")
		}
		for i, r := range renamed {
			if k := s.ByID(r.ID); k == nil || k.Name != names[i] {
				return fmt.Errorf("the one called %s is %+v", names[i], k)
			}
		}
		return complete(s)
	})
}

// lateSubscriber is an engine that answers to a subscription before it has
// subscribed, as Docker does, and takes its time: until the first list is done
// and something has happened.
type lateSubscriber struct {
	agent.Engine
	listed     chan struct{}
	subscribed chan struct{} // closed when the subscription may be made
	once       sync.Once
}

func (l *lateSubscriber) List(ctx context.Context) (agent.Listing, error) {
	listing, err := l.Engine.List(ctx)
	if err == nil {
		l.once.Do(func() { close(l.listed) })
	}
	return listing, err
}

func (l *lateSubscriber) Events(ctx context.Context, since time.Time) (<-chan agent.Event, <-chan error) {
	out, failed := make(chan agent.Event), make(chan error, 1)
	go func() {
		select {
		case <-l.subscribed:
		case <-ctx.Done():
			return
		}
		in, errs := l.Engine.Events(ctx, since)
		for {
			select {
			case ev := <-in:
				select {
				case out <- ev:
				case <-ctx.Done():
					return
				}
			case err := <-errs:
				failed <- err
				return
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, failed
}

// What happens between the first list and the subscription, which the engine
// makes later than it says, is told by the stream: it begins earlier than now.
func TestPitfall_discovery04_NoGapBeforeSubscription(t *testing.T) {
	e := enginetest.Outer(t)
	old := e.StartContainer(t, enginetest.Spec{Name: "old"})
	engine := &lateSubscriber{Engine: newEngine(t, e.Host), listed: make(chan struct{}), subscribed: make(chan struct{})}
	a := startAgent(t, engine, noResync())
	select {
	case <-engine.listed:
	case <-time.After(limit):
		t.Fatal("there was no list")
	}
	awaitSnapshot(t, a, "a complete snapshot", complete)
	inGap := e.StartContainer(t, enginetest.Spec{Name: "in-the-gap"})
	old.Kill(t, "KILL")
	old.Wait(t)
	close(engine.subscribed)
	awaitSnapshot(t, a, "what happened in the gap", func(s *agent.Snapshot) error {
		if c := s.ByID(inGap.ID); c == nil || !c.Running() {
			return fmt.Errorf("the new one is %+v", c)
		}
		if c := s.ByID(old.ID); c == nil || c.Alive() {
			return fmt.Errorf("the old one is %+v", c)
		}
		return nil
	})
}

// noResync is a config with which only events can tell what comes after the
// first list.
func noResync() agent.LoopConfig {
	cfg := agent.DefaultLoopConfig()
	cfg.Resync = time.Hour
	return cfg
}

// Containers that come in a tight loop while the agent starts are all known,
// whatever moment they came at, and without a second list.
func TestPitfall_discovery04_NoneMissedWhileStarting(t *testing.T) {
	e := enginetest.Outer(t)
	for round := range 12 {
		t.Run(strconv.Itoa(round), func(t *testing.T) {
			var made []*enginetest.Container
			add := func(start bool) {
				c := e.CreateContainer(t, enginetest.Spec{Name: "gap", Hurry: true})
				if start {
					c.Start(t)
				}
				made = append(made, c)
			}
			for range round % 4 { // not always the same moment
				add(false)
			}
			a := startAgent(t, newEngine(t, e.Host), noResync())
			for after := 0; after < 2; {
				add(len(made)%4 == 3)
				select {
				case <-a.Ready():
					after++
				default:
				}
			}
			awaitSnapshot(t, a, "all are known", func(s *agent.Snapshot) error {
				for i, c := range made {
					known := s.ByID(c.ID)
					if known == nil || known.Running() != (i%4 == 3) {
						return fmt.Errorf("number %d of %d is %+v", i, len(made), known)
					}
				}
				return nil
			})
			if got := a.Stats().Lists; got != 1 {
				t.Errorf("lists: got %d, want 1", got)
			}
			if err := e.RemoveAll(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// The end of the stream is an error once, and then the end: berth reconnects at
// its own pace, does not spin meanwhile, and hears of what comes afterwards.
func TestPitfall_discovery05_EngineAwayDoesNotSpin(t *testing.T) {
	t.Parallel() // it waits, mostly
	e := enginetest.Private(t)
	b := startBerth(t, e.Host)
	began, cpu, connects := time.Now(), b.cpu(t), b.status(t).Engine.Asked.Connects
	e.Stop(t)
	st := b.awaitStatus(t, "berth has tried again six times", func(st admin.Status) error {
		if n := st.Engine.Asked.Connects - connects; n < 6 {
			return fmt.Errorf("%d times", n)
		}
		return nil
	})
	if got, most := st.Engine.Asked.Connects-connects, maxConnects(time.Since(began)); got > most {
		t.Errorf("connects in %v: got %d, want at most %d", time.Since(began), got, most)
	}
	// A loop that spins takes all of a core: three seconds here.
	if used := b.cpu(t) - cpu; used > time.Second {
		t.Errorf("CPU time of six connects: got %v, want less than 1s", used)
	}
	i := slices.IndexFunc(st.Conditions, func(c agent.Condition) bool { return c.Component == "engine" && c.Name == "connection" })
	if i < 0 || !strings.Contains(st.Conditions[i].Hint, "start the engine") {
		t.Errorf("conditions: got %+v, want one of the engine's connection with a hint", st.Conditions)
	}

	e.Start(t)
	b.awaitReady(t)
	name, labels := service(e.Engine, "new")
	lists := b.status(t).Engine.Asked.Lists
	c := e.StartContainer(t, web(labels))
	b.awaitSRV(t, name, at(t, c))
	c.Kill(t, "KILL")
	b.awaitSRV(t, name)
	if got := b.status(t).Engine.Asked.Lists; got > lists+1 { // one may fall due by the clock
		t.Errorf("lists: got %d more, so that the events may have told nothing", got-lists)
	}
}

// maxConnects is how often berth may have connected within this time: pauses of
// 0.1 s, then twice the last, up to 2 s.
func maxConnects(d time.Duration) uint64 {
	n := uint64(1)
	for pause := 100 * time.Millisecond; d >= pause; pause = min(2*pause, 2*time.Second) {
		d -= pause
		n++
	}
	return n
}

// cpu returns the CPU time that berth has used. The kernel counts it in
// hundredths of a second (USER_HZ, proc(5)).
func (b *berth) cpu(t *testing.T) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", b.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var ticks int64
	for _, f := range fields[11:13] { // utime, stime
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// An engine that restarts makes a new socket: berth finds it.
func TestPitfall_discovery06_SocketMadeAnew(t *testing.T) {
	t.Parallel() // it waits, mostly
	e := enginetest.Private(t)
	b := startBerth(t, e.Host)
	before := inode(t, e.Socket())
	for e.Restart(t); inode(t, e.Socket()) == before; e.Restart(t) {
		t.Log("the new socket has the old one's inode; once more")
	}
	name, labels := service(e.Engine, "new")
	c := e.StartContainer(t, web(labels))
	b.awaitSRV(t, name, at(t, c))
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fi.Sys().(*syscall.Stat_t).Ino
}

// Another engine at the same path, while the first one lives and holds the old
// connections: berth moves over, forgets the first one's containers, and calls
// none of them dead.
func TestPitfall_discovery06_AnotherEngineAtTheSamePath(t *testing.T) {
	t.Parallel() // it waits, mostly
	first, second := enginetest.Private(t), enginetest.Private(t)
	theirs := first.StartContainers(t, 2, func(int) enginetest.Spec { return enginetest.Spec{Name: "first"} })
	ours := second.StartContainer(t, enginetest.Spec{Name: "second"})
	path := filepath.Join(t.TempDir(), "docker.sock")
	place := func(from string) {
		t.Helper()
		if err := errors.Join(os.Link(from, path+".new"), os.Rename(path+".new", path)); err != nil {
			t.Fatal(err)
		}
	}
	place(first.Socket())
	a := startAgent(t, newEngine(t, "unix://"+path), noResync())
	old := awaitSnapshot(t, a, "the first engine's containers", func(s *agent.Snapshot) error {
		if len(s.Containers) != len(theirs) {
			return fmt.Errorf("%d containers", len(s.Containers))
		}
		return complete(s)
	})

	place(second.Socket())
	snap := awaitSnapshot(t, a, "the second engine's container", func(s *agent.Snapshot) error {
		if s.EngineID == old.EngineID {
			return errors.New("still the first engine")
		}
		return complete(s)
	})
	if len(snap.Containers) != 1 || snap.Containers[0].ID != ours.ID {
		t.Errorf("containers: got %d, want %s alone", len(snap.Containers), ours.ID)
	}
	if len(snap.Dead) != 0 {
		t.Errorf("dead runs: got %d, want none: %+v", len(snap.Dead), snap.Dead)
	}
	for _, c := range theirs {
		if !c.Inspect(t).State.Running {
			t.Errorf("%s does not run, so this test shows nothing", c.Name)
		}
	}
}

// docker stop is kill, die, stop.
func TestPitfall_discovery07_StopIsKillDieStop(t *testing.T) {
	e := enginetest.Outer(t)
	c := e.StartContainer(t, enginetest.Spec{Name: "stopped"})
	began := time.Now()
	c.Stop(t)
	var got []string
	enginetest.Await(t, limit, "the event stop", func(context.Context) error {
		if got = actions(t, e, c.ID, began); !slices.Contains(got, "stop") {
			return fmt.Errorf("got %q", got)
		}
		return nil
	})
	if want := []string{"kill", "die", "stop"}; !slices.Equal(got, want) {
		t.Errorf("events: got %q, want %q", got, want)
	}
}

// The name goes when the container is told to stop, not when it has stopped.
func TestPitfall_discovery07_GoneBeforeTheProcessEnds(t *testing.T) {
	e := enginetest.Outer(t)
	name, labels := service(e, "slow")
	b := startBerth(t, e.Host)
	c := e.StartContainer(t, web(labels, "-stop-delay=5m"))
	b.awaitSRV(t, name, at(t, c))
	c.Kill(t, "TERM")
	b.awaitSRV(t, name)
	if !c.Inspect(t).State.Running {
		t.Error("its process has ended, so this test shows nothing")
	}
	known, err := b.containers(t.Context())
	if err != nil || known[c.ID].State != agent.StateRunning || known[c.ID].StoppingSince.IsZero() {
		t.Errorf("berth knows of it: got %+v, %v, want running, and stopping", known[c.ID], err)
	}
}

// A signal other than the one to stop takes no name away; one to stop which the
// container ignores does, until the hold is over.
func TestPitfall_discovery07_SignalsThatDoNotStop(t *testing.T) {
	e := enginetest.Outer(t)
	b := startBerth(t, e.Host, "loop.stop_hold=3s")
	name, labels := service(e, "reloads")
	spec := web(labels, "-ignore-term")
	second := 1
	spec.Adjust = func(c *container.Config, _ *container.HostConfig) { c.StopTimeout = &second }
	c := e.StartContainer(t, spec)
	b.awaitSRV(t, name, at(t, c))

	stop := b.watch(t, name)
	for _, signal := range []string{"HUP", "USR1", "CONT"} {
		c.Kill(t, signal)
	}
	b.wantNone(t, e, "_nothing._tcp") // berth has heard of the signals then
	wantAlwaysThere(t, name, stop)

	c.Kill(t, "TERM")
	b.awaitSRV(t, name)
	b.awaitSRV(t, name, at(t, c))
	if known, err := b.containers(t.Context()); err != nil || !known[c.ID].StoppingSince.IsZero() {
		t.Errorf("after the hold: got %+v, %v, want not stopping", known[c.ID], err)
	}
}

// A restart is an end and a start, with an event of its own that says no more:
// the name leads to the new run afterwards.
func TestPitfall_discovery07_Restart(t *testing.T) {
	e := enginetest.Outer(t)
	b := startBerth(t, e.Host)
	name, labels := service(e, "again")
	c := e.StartContainer(t, web(labels))
	b.awaitSRV(t, name, at(t, c))
	began := time.Now()
	c.Restart(t)
	b.awaitSRV(t, name, at(t, c))
	if got, want := actions(t, e, c.ID, began), []string{"kill", "die", "stop", "start", "restart"}; !slices.Equal(got, want) {
		t.Errorf("events: got %q, want %q", got, want)
	}
}

// What starts and dies at once leaves nothing behind, and nothing in DNS.
func TestPitfall_discovery08_DiesAtOnce(t *testing.T) {
	e := enginetest.Outer(t)
	b := startBerth(t, e.Host)
	name, labels := service(e, "brief")
	all := e.StartContainers(t, 10, func(int) enginetest.Spec {
		s := web(labels, "-exit-after=0s", "-exit-code=1")
		s.Hurry = true
		return s
	})
	for _, c := range all {
		c.Wait(t)
	}
	b.settle(t, e)
	b.awaitSRV(t, name)
	known, err := b.containers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		if k := known[c.ID]; k.State != agent.StateExited || k.ExitCode != 1 {
			t.Errorf("%s: got %+v, want exited with status 1", c.Name, k)
		}
	}
}

// A container with --rm may be gone before it can be inspected: that is no
// error, and nothing of it stays.
func TestPitfall_discovery08_GoneBeforeInspect(t *testing.T) {
	e := enginetest.Outer(t)
	b := startBerth(t, e.Host)
	name, labels := service(e, "brief")
	all := e.StartContainers(t, 20, func(int) enginetest.Spec {
		s := web(labels, "-exit-after=0s")
		s.Hurry, s.AutoRemove = true, true
		return s
	})
	enginetest.Await(t, limit, "all are gone from berth", func(ctx context.Context) error {
		known, err := b.containers(ctx)
		if err != nil {
			return err
		}
		left := 0
		for _, c := range all {
			if known[c.ID].ID != "" {
				left++
			}
		}
		if left > 0 {
			return fmt.Errorf("%d are there", left)
		}
		return nil
	})
	b.settle(t, e)
	b.awaitSRV(t, name)
	for _, c := range b.status(t).Conditions {
		if c.Component == "engine" {
			t.Errorf("a condition: %+v", c)
		}
	}
}

// A container that crashes over and over changes DNS a few times, and then not
// at all until it has settled.
func TestPitfall_discovery08_CrashLoop(t *testing.T) {
	e := enginetest.Outer(t)
	name, labels := service(e, "crashing")
	b := newBerth(t, e.Host)
	b.start(t, "--dry-run") // it prints every change
	b.awaitReady(t)
	spec := web(labels)
	spec.Hurry = true
	c := e.CreateContainer(t, spec)
	const loops = 12
	for range loops {
		c.Start(t)
		b.awaitState(t, c.ID, agent.StateRunning)
		c.Kill(t, "KILL")
		c.Wait(t)
		b.awaitState(t, c.ID, agent.StateExited)
	}
	b.settle(t, e)
	out, err := os.ReadFile(filepath.Join(b.dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	created := 0
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, `"op":"create"`) && strings.Contains(line, `"name":"`+name+".") {
			created++
		}
	}
	if created < 1 || created > 3 {
		t.Errorf("changes of %d crashes: got %d, want 1 to 3:\n%s", loops, created, out)
	}
}

// awaitState waits until berth knows a container in this state.
func (b *berth) awaitState(t *testing.T, id string, want agent.State) {
	t.Helper()
	enginetest.Await(t, limit, "the container is "+string(want), func(ctx context.Context) error {
		known, err := b.containers(ctx)
		if err == nil && known[id].State != want {
			err = fmt.Errorf("it is %q", known[id].State)
		}
		return err
	})
}

// A restart policy runs the loop as Docker does.
func TestPitfall_discovery08_RestartPolicy(t *testing.T) {
	t.Parallel() // it waits, mostly
	e := enginetest.Outer(t)
	name, labels := service(e, "looping")
	b := newBerth(t, e.Host)
	b.start(t, "--dry-run")
	b.awaitReady(t)
	spec := web(labels, "-exit-after=0s", "-exit-code=1")
	spec.Hurry, spec.Restart = true, container.RestartPolicyAlways
	c := e.StartContainer(t, spec)
	enginetest.Await(t, limit, "six restarts", func(context.Context) error {
		in := c.Inspect(t)
		if in.RestartCount < 6 {
			return fmt.Errorf("%d, %+v", in.RestartCount, *in.State)
		}
		return nil
	})
	c.Remove(t)
	b.settle(t, e)
	out, err := os.ReadFile(filepath.Join(b.dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	if created := strings.Count(string(out), `"op":"create","record":"`+name+"."); created > 3 {
		t.Errorf("changes of six crashes: got %d, want at most 3:\n%s", created, out)
	}
}
