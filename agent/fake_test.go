package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fakeEngine is an engine that does what the test says. It has no sockets, so
// that it works in a bubble of synctest: make it inside.
type fakeEngine struct {
	mu         sync.Mutex
	info       EngineInfo
	containers map[string]*Container
	networks   []Network
	away       error            // every call fails with it
	listErr    error            // lists of containers fail with it
	netErr     error            // lists of networks fail with it
	hang       map[string]bool  // inspects of these wait for the end of their context
	inspectErr map[string]error // inspects of these fail
	gate       chan struct{}    // if set, inspects wait until it is closed, after they looked
	netGate    chan struct{}    // if set, network lists wait until it is closed

	events   chan Event // of the newest stream
	ended    chan error
	asked    asked
	inspects map[string]int
	inflight int
}

// asked is what the engine was asked for so far.
type asked struct {
	since     []time.Time // of each stream
	connects  []time.Time // when each stream was opened
	netLists  int
	maxFlight int // inspects at once
}

func (f *fakeEngine) seen() asked {
	f.mu.Lock()
	defer f.mu.Unlock()
	a := f.asked
	a.since, a.connects = slices.Clone(a.since), slices.Clone(a.connects)
	return a
}

// inspected returns how often a container was inspected.
func (f *fakeEngine) inspected(id string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.inspects[id]
}

// end ends the newest stream.
func (f *fakeEngine) end(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended <- err
}

func newFakeEngine() *fakeEngine {
	return &fakeEngine{
		info:       EngineInfo{ID: "E", Version: "20.10.24"},
		containers: make(map[string]*Container),
		hang:       make(map[string]bool),
		inspectErr: make(map[string]error),
		inspects:   make(map[string]int),
	}
}

// add makes n running containers, which started a minute ago.
func (f *fakeEngine) add(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := len(f.containers); n > 0; i, n = i+1, n-1 {
		id := fakeID(i)
		f.containers[id] = &Container{
			ID: id, Name: fmt.Sprint("c", i), State: StateRunning, PID: 100 + i,
			CreatedAt: time.Now().Add(-time.Minute), StartedAt: time.Now().Add(-time.Minute),
			StopSignal: 15, StopTimeout: 10 * time.Second, NetworkMode: "bridge",
			Endpoints: []Endpoint{{Network: "bridge", IPv4: netip.AddrFrom4([4]byte{172, 17, byte(i >> 8), byte(i)})}},
		}
	}
}

func fakeID(i int) string { return fmt.Sprintf("%064x", i+1) }

// change changes one container.
func (f *fakeEngine) change(id string, do func(c *Container)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := *f.containers[id]
	do(&c)
	f.containers[id] = &c
}

// set changes the engine.
func (f *fakeEngine) set(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

// emit sends an event on the newest stream.
func (f *fakeEngine) emit(t *testing.T, ev Event) {
	t.Helper()
	f.mu.Lock()
	events := f.events
	f.mu.Unlock()
	if ev.Time.IsZero() {
		ev.Time = time.Now()
	}
	ev.Type = cmp.Or(ev.Type, "container")
	select {
	case events <- ev:
	case <-time.After(time.Minute): // of the bubble
		t.Fatalf("nobody reads %+v", ev)
	}
	synctest.Wait()
}

func (f *fakeEngine) Events(_ context.Context, since time.Time) (<-chan Event, <-chan error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events, f.ended = make(chan Event), make(chan error, 1)
	f.asked.since, f.asked.connects = append(f.asked.since, since), append(f.asked.connects, time.Now())
	return f.events, f.ended
}

func (f *fakeEngine) Identify(context.Context) (EngineInfo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.info, f.away
}

func (f *fakeEngine) List(context.Context) (Listing, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := cmp.Or(f.away, f.listErr); err != nil {
		return Listing{}, err
	}
	var l Listing
	for _, id := range slices.Sorted(maps.Keys(f.containers)) {
		c := f.containers[id]
		l.Rows = append(l.Rows, Row{ID: id, Name: c.Name, State: c.State, Health: c.Health, Endpoints: c.Endpoints})
	}
	return l, nil
}

func (f *fakeEngine) Networks(ctx context.Context) ([]Network, error) {
	f.mu.Lock()
	f.asked.netLists++
	networks, err, gate := f.networks, cmp.Or(f.away, f.netErr), f.netGate
	f.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return networks, err
}

func (f *fakeEngine) Inspect(ctx context.Context, id string) (*Container, error) {
	f.mu.Lock()
	f.inspects[id]++
	f.inflight++
	f.asked.maxFlight = max(f.asked.maxFlight, f.inflight)
	c, err, hang, gate := f.containers[id], cmp.Or(f.away, f.inspectErr[id]), f.hang[id], f.gate
	f.mu.Unlock()
	defer f.set(func() { f.inflight-- })
	switch {
	case hang:
		<-ctx.Done()
		return nil, ctx.Err()
	case gate != nil:
		select {
		case <-gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	switch {
	case err != nil:
		return nil, err
	case c == nil:
		return nil, fmt.Errorf("inspect %s: %w", ShortID(id), ErrNotFound)
	}
	return c, nil
}

// inLoop runs f in a bubble, beside an agent that follows engine, and ends the
// agent after it. Nothing but f's own waiting makes time pass.
func inLoop(t *testing.T, cfg LoopConfig, f func(t *testing.T, e *fakeEngine, a *Agent)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		e := newFakeEngine()
		log := slog.New(slog.DiscardHandler)
		a := New(e, nil, cfg, Env{Log: log, Health: NewHealth(log)})
		f(t, e, a)
	})
}

// run runs an agent, and returns what ends it and waits for that.
func run(t *testing.T, a *Agent) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	synctest.Wait()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run: got %v, want nil", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

// pass lets time pass, and then everything happen that is due.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// fakeNode is a NodeSource that the test steers.
type fakeNode struct {
	mu      sync.Mutex
	node    Node
	changed chan struct{}
}

func (n *fakeNode) Node() Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.node
}

func (n *fakeNode) Changed() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.changed
}

func (n *fakeNode) set(node Node) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.node = node
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *fakeNode) StateHost() string { return n.Node().ID }

var errAway = errors.New("the engine is away")
