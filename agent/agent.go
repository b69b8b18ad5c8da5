// Package agent is berth's core: it follows one container engine and publishes
// what is there as immutable snapshots, and it holds the contracts between the
// parts of berth. It imports none of them.
//
// # The loop
//
// One goroutine owns the state and does no I/O. Everything that happens reaches
// it as an input; step, which is deterministic, changes the state and says what
// to do; workers do that with a time limit and report back:
//
//	engine ── events ──▶ ┌──────┐ ── connect, list, inspect ──▶ workers ──▶ engine
//	workers ─ answers ─▶ │ step │
//	clock ─── ticks ───▶ └──────┘ ── Snapshot ──▶ Store ──▶ a Feed for each collector
//
// Three rules make it right where a loop that follows events is not:
//
//   - Events are hints. They mark a container dirty, and an inspect tells the
//     truth. Only two are believed at once, because waiting is worse: a death,
//     and a stop signal. A removal is final, since IDs never come back.
//   - Knowledge has an age. Each dirty mark is a number that grows; an answer
//     that was asked for before the newest mark is thrown away.
//   - Absence is proved, never inferred. A list that fails, is empty or lacks a
//     container removes nothing; an inspect that says "no such container" does.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Agent follows one engine.
type Agent struct {
	engine Engine
	node   NodeSource
	cfg    LoopConfig
	log    *slog.Logger
	health *Scope
	store  *Store

	inbox chan input
	ready chan struct{} // closed with the first complete snapshot
	work  sync.WaitGroup

	mu    sync.Mutex
	stats LoopStats
}

// New returns an agent that follows engine. node may be nil.
func New(engine Engine, node NodeSource, cfg LoopConfig, env Env) *Agent {
	a := &Agent{
		engine: engine,
		node:   node,
		cfg:    cfg,
		log:    env.Log.With("component", "agent"),
		health: env.Health.Scope("engine"),
		store:  NewStore(),
		inbox:  make(chan input, 256),
		ready:  make(chan struct{}),
	}
	// An engine that restarts is back within seconds, and a container that
	// vanishes during its inspect is no trouble at all.
	a.health.Declare("connection", SeverityError, 2*time.Second)
	a.health.Declare("list", SeverityError, 0)
	a.health.Declare("inspect", SeverityWarning, 0)
	return a
}

// Store returns where the agent publishes its snapshots.
func (a *Agent) Store() *Store { return a.store }

// Ready is closed once the first complete snapshot has been published.
func (a *Agent) Ready() <-chan struct{} { return a.ready }

// Stats returns what the loop has asked of the engine so far.
func (a *Agent) Stats() LoopStats {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stats
}

// Ping returns nil if the loop turns, or ctx's error: what a watchdog asks.
func (a *Agent) Ping(ctx context.Context) error {
	done := make(inPing)
	select {
	case a.inbox <- done:
	case <-ctx.Done():
		return fmt.Errorf("ask the loop: %w", ctx.Err())
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the loop: %w", ctx.Err())
	}
}

// inPing is closed by the loop; step never sees it.
type inPing chan struct{}

func (inPing) isInput() {}

// Run follows the engine until ctx ends, however long the engine is away. It
// returns after all of its goroutines have ended.
func (a *Agent) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer a.work.Wait()
	defer cancel()
	a.work.Go(func() { a.followNode(ctx) })

	l := &loop{Agent: a, state: newState(a.cfg), timer: time.NewTimer(0)}
	defer l.timer.Stop()
	defer l.endSession()
	<-l.timer.C
	if a.node != nil {
		l.state.node = a.node.Node()
	}
	l.handle(ctx, inStart{})
	l.publish()
	for {
		select {
		case in := <-a.inbox:
			l.handle(ctx, in)
			l.drain(ctx)
		case <-l.timer.C:
			l.handle(ctx, inTick{})
		case <-ctx.Done():
			return nil
		}
		l.publish()
	}
}

// loop is the goroutine around step.
type loop struct {
	*Agent
	state      *state
	timer      *time.Timer
	seq        uint64
	endCurrent context.CancelFunc // ends the session
}

func (l *loop) handle(ctx context.Context, in input) {
	if ping, ok := in.(inPing); ok {
		close(ping)
		return
	}
	for _, eff := range l.state.step(in, time.Now()) {
		l.do(ctx, eff)
	}
}

// drain handles what else has arrived, so that a storm of events costs one
// snapshot and not one each. It is bounded: the snapshot must not wait for the
// storm to end.
func (l *loop) drain(ctx context.Context) {
	for range cap(l.inbox) {
		select {
		case in := <-l.inbox:
			l.handle(ctx, in)
		default:
			return
		}
	}
}

// publish sends out a snapshot if anything changed, and sets the timer.
func (l *loop) publish() {
	now := time.Now()
	if l.state.changed {
		l.seq++
		snap := l.state.snapshot(l.seq, now)
		l.store.Publish(snap)
	}
	l.report()
	l.mu.Lock()
	l.stats = l.state.stats
	l.mu.Unlock()
	if at := l.state.next(); at.IsZero() {
		l.timer.Stop()
	} else {
		l.timer.Reset(max(0, at.Sub(now)))
	}
}

// do starts the work that step asked for.
func (l *loop) do(ctx context.Context, eff effect) {
	switch eff := eff.(type) {
	case doConnect:
		l.endSession()
		sctx, cancel := context.WithCancel(ctx)
		l.endCurrent = cancel
		l.work.Go(func() { l.session(sctx, eff) })
	case doList:
		l.work.Go(func() {
			lctx, cancel := context.WithTimeout(ctx, l.cfg.ListTimeout)
			defer cancel()
			listing, err := l.engine.List(lctx)
			l.send(ctx, inListed{eff.token, listing, err})
		})
	case doNetworks:
		l.work.Go(func() {
			lctx, cancel := context.WithTimeout(ctx, l.cfg.ListTimeout)
			defer cancel()
			networks, err := l.engine.Networks(lctx)
			l.send(ctx, inNetworks{eff.token, networks, err})
		})
	case doInspect:
		l.work.Go(func() {
			ictx, cancel := context.WithTimeout(ctx, l.cfg.InspectTimeout)
			defer cancel()
			c, err := l.engine.Inspect(ictx, eff.id)
			l.send(ctx, inInspected{eff.id, eff.mark, c, err})
		})
	}
}

func (l *loop) endSession() {
	if l.endCurrent != nil {
		l.endCurrent()
	}
}

func (a *Agent) send(ctx context.Context, in input) {
	select {
	case a.inbox <- in:
	case <-ctx.Done():
	}
}

// session is one connection: it opens the stream before it asks who answers,
// so that the list which follows misses nothing.
func (a *Agent) session(ctx context.Context, eff doConnect) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, errs := a.engine.Events(ctx, eff.since)
	ictx, icancel := context.WithTimeout(ctx, a.cfg.InspectTimeout)
	info, err := a.engine.Identify(ictx)
	icancel()
	if err != nil {
		a.send(ctx, inStreamLost{eff.gen, err})
		return
	}
	a.send(ctx, inStream{eff.gen, info})
	for {
		select {
		case ev := <-events:
			a.send(ctx, inEvent{eff.gen, ev})
		case err := <-errs:
			if err == nil {
				err = errors.New("the event stream ended")
			}
			a.send(ctx, inStreamLost{eff.gen, err})
			return
		case <-ctx.Done():
			return
		}
	}
}

// followNode tells the loop who this host is, each time that this changes.
func (a *Agent) followNode(ctx context.Context) {
	if a.node == nil {
		return
	}
	for {
		changed := a.node.Changed()
		a.send(ctx, inNode{a.node.Node()})
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// report turns what the state says of the engine into health conditions.
func (l *loop) report() {
	if l.state.session.complete {
		select {
		case <-l.ready:
		default:
			close(l.ready)
			info := l.state.session.info
			l.log.Info("engine is complete", "engine", info.ID, "version", info.Version,
				"containers", len(l.state.entries), "networks", len(l.state.knownNets))
		}
	}
	err := l.state.session.err
	l.health.Set("connection", err, hint(err))
	l.health.Set("list", errors.Join(l.state.containers.err, l.state.networks.err),
		"the engine answers, but cannot list; berth keeps what it knows and asks again")
	l.health.Set("inspect", l.state.inspectError(),
		"the engine cannot look at them; other containers are not affected")
}

// hint returns what an error says about its remedy, by a method Hint.
func hint(err error) string {
	if h, ok := errors.AsType[interface {
		error
		Hint() string
	}](err); ok {
		return h.Hint()
	}
	return "start the engine; berth keeps what it knows and reconnects by itself"
}

// inspectError sums up the containers whose inspects fail.
func (s *state) inspectError() error {
	n := 0
	var first *entry
	for _, e := range s.timed {
		if e.err == nil {
			continue
		}
		n++
		if first == nil || e.id < first.id {
			first = e
		}
	}
	if n == 0 {
		return nil
	}
	return fmt.Errorf("inspect of %d containers fails, among them %s: %w", n, ShortID(first.id), first.err)
}
