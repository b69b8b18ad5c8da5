package agent

import (
	"cmp"
	"container/heap"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

// TestSimulation drives step with a model engine that loses, duplicates, delays
// and reorders its events, answers late, fails, hangs, lies with empty and cut
// lists, restarts, and is replaced by another one. Everything follows from a
// seed and virtual time, so that a failure replays:
//
//	make sim SEED=7 STEPS=1000000
//
// What must hold, at every step:
//
//   - a container that exists, once known, stays in the snapshot;
//   - a run called dead is over, and one called stopping was told to stop;
//   - no more inspects in flight than workers, never two of one container;
//   - while the engine is only as bad as a busy one is (events may still be lost,
//     calls may fail twice), nothing eligible is out and nothing dead is in for
//     longer than one reconcile;
//
// and after each quiescence the snapshot equals the truth.
func TestSimulation(t *testing.T) {
	seed, steps := simSetting(t, "BERTH_SIM_SEED", 1), simSetting(t, "BERTH_SIM_STEPS", 50_000)
	t.Logf("seed %d, %d steps: replay with make sim SEED=%d STEPS=%d", seed, steps, seed, steps)
	m := newModel(uint64(seed))
	for m.steps < int(steps) {
		m.epoch()
		if m.failure != "" {
			t.Fatalf("seed %d, step %d, epoch %d (%s), at %v: %s", seed, m.steps, m.epochs, m.faults.name, m.now.Sub(simStart), m.failure)
		}
	}
	t.Logf("%d epochs, %v of virtual time, %d containers, %+v", m.epochs, m.now.Sub(simStart).Round(time.Second), m.born, m.s.stats)
	// A simulation in which nothing went wrong would prove nothing.
	for what, n := range m.count {
		t.Logf("%8d %s", n, what)
	}
	for _, what := range []string{"event lost", "event repeated", "event late", "call failed", "call hung", "list empty", "list cut", "engine restarted", "engine replaced", "quiescence"} {
		if steps >= 50_000 && m.count[what] == 0 {
			t.Errorf("the simulation never had: %s", what)
		}
	}
	if m.s.stats.Stale == 0 || m.s.stats.Contradictions == 0 {
		t.Errorf("no stale answer or no contradiction: %+v", m.s.stats)
	}
}

func simSetting(t *testing.T, key string, def int64) int64 {
	v := os.Getenv(key)
	if v == "" {
		return def
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", key, err)
	}
	return n
}

var simStart = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// reconcileBound is how long the snapshot may be wrong about one container: a
// list a minute, two failed or hung inspects of ten seconds and their backoff,
// and the queue in front of them.
const reconcileBound = 2 * time.Minute

// faults is how bad the engine is during one epoch; each value is a
// probability.
type faults struct {
	name                     string
	lose, repeat, late       float64 // of an event
	fail, hang, slow         float64 // of a call
	empty, cut               float64 // of a list
	restart, replace, freeze float64 // per mutation
	honest                   bool    // only as bad as a busy engine
}

var faultKinds = []faults{
	{name: "calm", honest: true},
	{name: "busy", lose: .05, repeat: .1, late: .3, fail: .03, hang: .005, slow: .1, honest: true},
	{name: "deaf", lose: 1, slow: .05, honest: true},
	{name: "storm", lose: .3, repeat: .3, late: .7, fail: .1, hang: .02, slow: .3, honest: true},
	{name: "lying", lose: .2, repeat: .1, late: .2, fail: .2, slow: .2, empty: .3, cut: .4},
	{name: "restarting", lose: .1, late: .2, fail: .1, slow: .2, restart: .05},
	{name: "replaced", lose: .1, late: .2, fail: .1, slow: .2, restart: .02, replace: .01},
	{name: "freezing", lose: .1, late: .2, fail: .1, hang: .1, slow: .2, freeze: .03},
}

// model is the engine, the network between it and the loop, and the clock.
type model struct {
	rng     *rand.Rand
	now     time.Time
	s       *state
	pending deliveries
	seq     int
	steps   int
	epochs  int
	born    int
	failure string
	count   map[string]int

	faults      faults
	quiet       bool // no faults, no mutations
	honestSince time.Time

	engineID string
	up       bool
	frozen   bool
	truth    map[string]*simContainer
	past     map[string]*simContainer // removed ones
	nets     []Network
	buffer   []Event // what a new stream can still be told

	netsChanged time.Time

	gen      uint64 // of the session that the engine serves
	inflight map[string]int
	failed   map[string]int // calls that failed in a row, by what was asked
}

// simContainer is the truth about one container.
type simContainer struct {
	Container
	eligibleSince, deadSince time.Time // zero when it is not
	removedAt                time.Time
	engine                   string
	lastAddr                 []Endpoint
	lastPort                 []Port
	ended                    map[int64]bool
	killed                   map[int64][]time.Time
}

type delivery struct {
	at  time.Time
	seq int
	do  func()
}

type deliveries []delivery

func (d deliveries) Len() int { return len(d) }
func (d deliveries) Less(i, j int) bool {
	return cmp.Or(d[i].at.Compare(d[j].at), cmp.Compare(d[i].seq, d[j].seq)) < 0
}
func (d deliveries) Swap(i, j int) { d[i], d[j] = d[j], d[i] }
func (d *deliveries) Push(x any)   { *d = append(*d, x.(delivery)) }
func (d *deliveries) Pop() any {
	last := (*d)[len(*d)-1]
	*d = (*d)[:len(*d)-1]
	return last
}

func newModel(seed uint64) *model {
	cfg := DefaultLoopConfig()
	m := &model{
		rng: rand.New(rand.NewPCG(seed, 0)), now: simStart, s: newState(cfg),
		engineID: "engine-0", up: true,
		truth: map[string]*simContainer{}, past: map[string]*simContainer{},
		inflight: map[string]int{}, failed: map[string]int{}, count: map[string]int{},
		nets: []Network{{ID: "n0", Name: "bridge", Driver: "bridge"}},
	}
	m.step(inStart{})
	return m
}

func (m *model) chance(p float64) bool { return p > 0 && !m.quiet && m.rng.Float64() < p }

func (m *model) happens(what string, p float64) bool {
	if !m.chance(p) {
		return false
	}
	m.count[what]++
	return true
}

func (m *model) after(d time.Duration, do func()) {
	m.seq++
	heap.Push(&m.pending, delivery{m.now.Add(d), m.seq, do})
}

// latency is how long the engine takes to answer.
func (m *model) latency() time.Duration {
	if m.chance(m.faults.slow) {
		return time.Duration(m.rng.Int64N(int64(2 * time.Second)))
	}
	return time.Duration(500+m.rng.IntN(5000)) * time.Microsecond
}

func (m *model) fail(format string, args ...any) {
	if m.failure == "" {
		m.failure = fmt.Sprintf(format, args...)
	}
}

// step hands one input to the loop and does what it asks for.
func (m *model) step(in input) {
	m.steps++
	for _, eff := range m.s.step(in, m.now) {
		switch eff := eff.(type) {
		case doConnect:
			m.connect(eff)
		case doList:
			m.list(eff)
		case doNetworks:
			m.listNetworks(eff)
		case doInspect:
			m.inspect(eff)
		}
	}
	m.checkStep()
}

func (m *model) connect(eff doConnect) {
	m.gen = 0
	if !m.up {
		m.after(m.latency(), func() { m.step(inStreamLost{eff.gen, errors.New("connection refused")}) })
		return
	}
	if m.frozen {
		m.after(m.s.cfg.InspectTimeout, func() { m.step(inStreamLost{eff.gen, errors.New("timeout")}) })
		return
	}
	m.gen = eff.gen
	info := EngineInfo{ID: m.engineID, Version: "1"}
	for _, ev := range m.buffer {
		if !ev.Time.Before(eff.since) {
			m.deliver(ev)
		}
	}
	m.after(m.latency(), func() {
		if m.gen == eff.gen { // otherwise the stream ended first, and nobody waits for the answer
			m.step(inStream{eff.gen, info})
		}
	})
}

// emit makes an event, for the buffer and for the stream.
func (m *model) emit(ev Event) {
	m.now = m.now.Add(time.Microsecond) // no two events at one moment
	ev.Time = m.now
	m.buffer = append(m.buffer, ev)
	if len(m.buffer) > 256 {
		m.buffer = m.buffer[1:]
	}
	m.deliver(ev)
}

func (m *model) deliver(ev Event) {
	if m.gen == 0 || m.frozen || m.happens("event lost", m.faults.lose) {
		return
	}
	n := 1
	if m.happens("event repeated", m.faults.repeat) {
		n = 2
	}
	for range n {
		d := time.Duration(100+m.rng.IntN(900)) * time.Microsecond
		if m.happens("event late", m.faults.late) {
			d = time.Duration(m.rng.Int64N(int64(2 * time.Second)))
		}
		gen := m.gen
		m.after(d, func() { m.step(inEvent{gen, ev}) })
	}
}

// answer delivers the outcome of a call: what is true at some moment between
// the question and the answer, or an error. In an honest epoch, one question
// fails no more than twice in a row.
func (m *model) answer(about string, capture func() any, deliver func(any, error), limit time.Duration) {
	mayFail := !m.faults.honest || m.failed[about] < 2
	switch {
	case !m.up:
		m.after(m.latency(), func() { deliver(nil, errors.New("connection refused")) })
	case m.frozen || mayFail && m.happens("call hung", m.faults.hang):
		m.failed[about]++
		m.after(limit, func() { deliver(nil, errors.New("timeout")) })
	case mayFail && m.happens("call failed", m.faults.fail):
		m.failed[about]++
		m.after(m.latency(), func() { deliver(nil, errors.New("500 internal server error")) })
	default:
		delete(m.failed, about)
		before, engine := m.latency(), m.engineID
		m.after(before, func() {
			if m.engineID != engine || !m.up {
				m.after(time.Millisecond, func() { deliver(nil, errors.New("connection reset")) })
				return
			}
			got := capture()
			m.after(m.latency(), func() { deliver(got, nil) })
		})
	}
}

func (m *model) inspect(eff doInspect) {
	if m.inflight[eff.id]++; m.inflight[eff.id] > 1 && m.truth[eff.id] != nil && m.engineID == "engine-0" {
		m.fail("two inspects of %s at once", eff.id)
	}
	m.answer(eff.id, func() any {
		if c := m.truth[eff.id]; c != nil {
			snap := c.Container
			return &snap
		}
		return nil
	}, func(got any, err error) {
		m.inflight[eff.id]--
		c, _ := got.(*Container)
		if err == nil && c == nil {
			err = fmt.Errorf("inspect: %w", ErrNotFound)
		}
		m.step(inInspected{eff.id, eff.mark, c, err})
	}, m.s.cfg.InspectTimeout)
}

func (m *model) list(eff doList) {
	m.answer("list", func() any {
		if m.happens("list empty", m.faults.empty) {
			return Listing{}
		}
		var l Listing
		for _, id := range sortedKeys(m.truth) {
			if m.faults.cut > 0 && m.chance(m.faults.cut/4) {
				m.count["list cut"]++
				break
			}
			l.Rows = append(l.Rows, m.truth[id].row(m.now))
		}
		return l
	}, func(got any, err error) {
		l, _ := got.(Listing)
		m.step(inListed{eff.token, l, err})
	}, m.s.cfg.ListTimeout)
}

func (m *model) listNetworks(eff doNetworks) {
	m.answer("networks", func() any { return slices.Clone(m.nets) }, func(got any, err error) {
		nets, _ := got.([]Network)
		m.step(inNetworks{eff.token, nets, err})
	}, m.s.cfg.ListTimeout)
}

// row says of a container what an engine's list says.
func (c *simContainer) row(now time.Time) Row {
	r := Row{ID: c.ID, Name: c.Name, State: c.State, Health: HealthUnknown}
	since := c.FinishedAt
	if c.Alive() {
		r.Endpoints, r.Ports, since = c.Endpoints, c.Ports, c.StartedAt
	}
	if c.State == StateRunning {
		r.Health = c.Health
	}
	if c.State == StateCreated {
		return r
	}
	unit := time.Second
	switch age := now.Sub(since); {
	case age >= time.Hour:
		unit = time.Hour
	case age >= time.Minute:
		unit = time.Minute
	}
	r.AgeMin = now.Sub(since).Truncate(unit)
	r.AgeMax = r.AgeMin + unit
	return r
}

// epoch is a time of one kind of faults, then a quiescence.
func (m *model) epoch() {
	m.epochs++
	m.faults = faultKinds[m.rng.IntN(len(faultKinds))]
	if m.faults.honest {
		m.honestSince = m.now
	} else {
		m.honestSince = time.Time{}
	}
	for range 50 + m.rng.IntN(400) {
		if m.failure != "" {
			return
		}
		m.mutate()
		// Mostly bursts, sometimes minutes in which nothing happens.
		d := time.Duration(m.rng.Int64N(int64(200 * time.Millisecond)))
		if m.rng.IntN(20) == 0 {
			d = time.Duration(m.rng.Int64N(int64(90 * time.Second)))
		}
		m.advance(m.now.Add(d))
	}
	m.quiesce()
}

// advance lets time pass until the given moment, with all that is due.
func (m *model) advance(until time.Time) {
	for m.failure == "" {
		next := m.s.next()
		if len(m.pending) > 0 && (next.IsZero() || !m.pending[0].at.After(next)) {
			if m.pending[0].at.After(until) {
				break
			}
			d := heap.Pop(&m.pending).(delivery)
			m.moveTo(d.at)
			d.do()
			continue
		}
		if next.IsZero() || next.After(until) {
			break
		}
		m.moveTo(next)
		m.step(inTick{})
	}
	m.moveTo(until)
}

func (m *model) moveTo(t time.Time) {
	if t.After(m.now) {
		m.now = t
	}
}

// quiesce ends all faults, waits for one reconcile, and compares.
func (m *model) quiesce() {
	m.count["quiescence"]++
	m.quiet = true
	if !m.up || m.frozen {
		m.thaw()
	}
	m.advance(m.now.Add(reconcileBound))
	m.quiet = false
	m.compare()
}

func (m *model) compare() {
	snap := m.s.snapshot(1, m.now)
	if !snap.Connected || !snap.Complete || snap.EngineID != m.engineID || len(snap.Unread) > 0 {
		m.fail("after quiescence: connected %v, complete %v, engine %s (is %s), unread %v",
			snap.Connected, snap.Complete, snap.EngineID, m.engineID, snap.Unread)
	}
	var want []Container
	for _, id := range sortedKeys(m.truth) {
		want = append(want, m.truth[id].Container)
	}
	for i := range max(len(want), len(snap.Containers)) {
		if i >= len(want) || i >= len(snap.Containers) || want[i].ID != snap.Containers[i].ID {
			m.fail("after quiescence: %d containers known, %d exist; the first difference is at %d", len(snap.Containers), len(want), i)
			return
		}
		got, want := *snap.Containers[i], want[i]
		want.StoppingSince = m.truth[want.ID].stopping(m.s.cfg, m.now)
		if !got.StoppingSince.IsZero() && want.StoppingSince.IsZero() || m.deafTo(want.ID) {
			want.StoppingSince = got.StoppingSince // nothing but the lost event tells it
		}
		// A run that began within the rounding of an earlier one cannot be told
		// from it by a row.
		if d := got.StartedAt.Sub(want.StartedAt).Abs(); d > 0 && d < 4*time.Second {
			m.count["restart within the rounding of a row"]++
			got.StartedAt, got.FinishedAt, got.ExitCode, got.PID = want.StartedAt, want.FinishedAt, want.ExitCode, want.PID
		}
		if d := got.FinishedAt.Sub(want.FinishedAt).Abs(); !got.Alive() && d > 0 && d < 4*time.Second {
			m.count["restart within the rounding of a row"]++
			got.StartedAt, got.FinishedAt, got.ExitCode = want.StartedAt, want.FinishedAt, want.ExitCode
		}
		if !got.equal(&want) {
			m.fail("after quiescence:\n got  %+v\n want %+v", got, want)
			return
		}
	}
	if !slices.EqualFunc(snap.Networks, m.nets, Network.equal) {
		m.fail("after quiescence: networks %v, want %v", snap.Networks, m.nets)
	}
}

// deafTo reports whether the loop may have missed the newest stop signal.
func (m *model) deafTo(id string) bool {
	e := m.s.entries[id]
	c := m.truth[id]
	kills := c.killed[c.StartedAt.UnixNano()]
	return len(kills) > 0 && (e == nil || !e.killed.Equal(kills[len(kills)-1]))
}

func (c *simContainer) stopping(cfg LoopConfig, now time.Time) time.Time {
	kills := c.killed[c.StartedAt.UnixNano()]
	if !c.Alive() || len(kills) == 0 {
		return time.Time{}
	}
	last := kills[len(kills)-1]
	if !now.Before(last.Add(hold(&c.Container, cfg))) {
		return time.Time{}
	}
	return last
}

// checkStep asserts what must hold at every step.
func (m *model) checkStep() {
	if n := len(m.s.queue.inflight); n > m.s.cfg.Workers {
		m.fail("%d inspects in flight", n)
	}
	if m.s.session.info.ID == m.engineID {
		for id, c := range m.truth {
			if e := m.s.entries[id]; (e == nil || e.c == nil) && m.knew(c) {
				m.fail("%s exists and was known, and is so no longer", id)
			} else if e != nil && e.c != nil {
				c.ended[knownMark] = true
			}
		}
	}
	for _, e := range m.s.entries {
		if e.c == nil || e.c.StoppingSince.IsZero() {
			continue
		}
		if c := m.find(e.id); c == nil || !slices.ContainsFunc(c.killed[e.c.StartedAt.UnixNano()], e.c.StoppingSince.Equal) {
			// A restart that was missed makes the signal to the later run look
			// like one to the earlier, which is over anyway.
			if c == nil || !c.ended[e.c.StartedAt.UnixNano()] {
				m.fail("%s is called stopping since %v, but was never told to", e.id, e.c.StoppingSince)
			}
		}
	}
	if m.steps%16 == 0 {
		m.checkDead()
	}
	m.checkBound()
	m.checkCalm()
}

// checkCalm asserts that with an engine that loses nothing and answers soon,
// stop signals and networks are known at once.
func (m *model) checkCalm() {
	if m.faults.name != "calm" || m.honestSince.IsZero() || m.now.Sub(m.honestSince) < reconcileBound || m.quiet {
		return
	}
	const soon = 50 * time.Millisecond
	for id, c := range m.truth {
		kills := c.killed[c.StartedAt.UnixNano()]
		if !c.Alive() || len(kills) == 0 || m.now.Sub(kills[len(kills)-1]) < soon {
			continue
		}
		want, e := c.stopping(m.s.cfg, m.now), m.s.entries[id]
		if !e.c.StoppingSince.Equal(want) && !want.IsZero() {
			m.fail("%s was told to stop at %v, and is known to stop since %v", id, want, e.c.StoppingSince)
		}
	}
	if m.now.Sub(m.netsChanged) > soon && !slices.EqualFunc(m.s.knownNets, m.nets, Network.equal) {
		m.fail("networks are %v, known are %v", m.nets, m.s.knownNets)
	}
}

// knownMark is a key in ended that no run has.
const knownMark = -1

func (m *model) knew(c *simContainer) bool { return c.ended[knownMark] }

func (m *model) find(id string) *simContainer {
	if c := m.truth[id]; c != nil {
		return c
	}
	return m.past[id]
}

func (m *model) checkDead() {
	for _, run := range m.s.dead.runs {
		c := m.find(run.Container.ID)
		if c != nil && c.engine != m.s.session.info.ID {
			m.fail("run %v of %s is called dead on the word of %s", run.Key(), c.engine, m.s.session.info.ID)
		}
		if c == nil || !c.StartedAt.IsZero() && !run.Container.StartedAt.IsZero() && !c.ended[run.Container.StartedAt.UnixNano()] {
			m.fail("run %v is called dead and is not", run.Key())
		}
		if !run.RemovedAt.IsZero() && m.truth[run.Container.ID] != nil {
			m.fail("%s is called removed and is not", run.Container.ID)
		}
	}
}

// checkBound asserts that in honest times the snapshot is never wrong for long.
func (m *model) checkBound() {
	if m.honestSince.IsZero() || m.now.Sub(m.honestSince) < reconcileBound {
		return
	}
	long := func(since time.Time) bool { return !since.IsZero() && m.now.Sub(since) > reconcileBound }
	for id, c := range m.truth {
		e := m.s.entries[id]
		in := e != nil && e.c != nil && e.c.Running() && (e.c.Health == HealthNone || e.c.Health == HealthHealthy) && e.c.StoppingSince.IsZero()
		if long(c.eligibleSince) && !in {
			m.fail("%s has been eligible for %v and is out: truth %+v, known %+v", id, m.now.Sub(c.eligibleSince), c.Container, e)
		}
		if long(c.deadSince) && in {
			m.fail("%s has been dead for %v and is in", id, m.now.Sub(c.deadSince))
		}
	}
	for id, e := range m.s.entries {
		if c := m.past[id]; c != nil && long(c.removedAt) && e.c != nil {
			m.fail("%s was removed %v ago and is in", id, m.now.Sub(c.removedAt))
		}
	}
}

// update notes since when a container has been eligible, or dead.
func (m *model) update(c *simContainer) {
	stopping := false
	if k := c.killed[c.StartedAt.UnixNano()]; len(k) > 0 {
		stopping = m.now.Before(k[len(k)-1].Add(hold(&c.Container, m.s.cfg)))
	}
	eligible := c.Running() && (c.Health == HealthNone || c.Health == HealthHealthy)
	switch {
	case !eligible || stopping:
		c.eligibleSince = time.Time{}
		if stopping && eligible {
			// It is eligible again when the hold ends.
			k := c.killed[c.StartedAt.UnixNano()]
			c.eligibleSince = k[len(k)-1].Add(hold(&c.Container, m.s.cfg))
		}
	case c.eligibleSince.IsZero():
		c.eligibleSince = m.now
	}
	if c.Alive() {
		c.deadSince = time.Time{}
	} else if c.deadSince.IsZero() {
		c.deadSince = m.now
	}
}

func (m *model) thaw() {
	if !m.up {
		m.up = true
	}
	m.frozen = false
}

// mutate lets one thing happen to the engine.
func (m *model) mutate() {
	switch {
	case !m.up || m.frozen:
		if m.rng.IntN(4) == 0 {
			m.thaw()
		}
		return
	case m.happens("engine restarted", m.faults.restart):
		m.restartEngine(false)
		return
	case m.happens("engine replaced", m.faults.replace):
		m.restartEngine(true)
		return
	case m.happens("engine froze", m.faults.freeze):
		m.frozen = true
		return
	}
	if len(m.truth) == 0 || len(m.truth) < 40 && m.rng.IntN(12) == 0 {
		m.create()
		return
	}
	ids := sortedKeys(m.truth)
	c := m.truth[ids[m.rng.IntN(len(ids))]]
	ev := func(action string) Event { return Event{Type: "container", Action: action, ID: c.ID} }
	switch m.rng.IntN(11) {
	case 0, 1:
		if !c.Alive() {
			m.start(c)
		}
	case 2:
		if c.Alive() {
			m.die(c, m.rng.IntN(3))
			if m.rng.IntN(2) == 0 {
				m.start(c) // a restart
			}
		}
	case 3: // docker stop; some survive it
		if c.Alive() {
			m.kill(c, c.StopSignal)
			if m.rng.IntN(4) > 0 {
				m.die(c, 143)
			}
		}
	case 4: // docker kill, with a signal that may mean nothing
		if c.Alive() {
			if sig := []int{1, 9, 10}[m.rng.IntN(3)]; sig == 9 {
				m.kill(c, sig)
				m.die(c, 137)
			} else {
				m.emit(Event{Type: "container", Action: "kill", ID: c.ID, Signal: sig})
			}
		}
	case 5:
		if c.Running() {
			c.State = StatePaused
			m.emit(ev("pause"))
		} else if c.State == StatePaused {
			c.State = StateRunning
			m.emit(ev("unpause"))
		}
	case 6:
		if c.Running() && c.Health != HealthNone {
			c.Health = []HealthStatus{HealthStarting, HealthHealthy, HealthUnhealthy}[m.rng.IntN(3)]
			m.emit(ev("health_status: " + string(c.Health)))
		}
	case 7:
		c.Name = fmt.Sprintf("c%d-%d", m.born, m.rng.IntN(1000))
		m.emit(ev("rename"))
	case 8:
		if c.Alive() {
			c.Endpoints = []Endpoint{{Network: "bridge", NetworkID: "n0", IPv4: m.addr()}}
			m.emit(Event{Type: "network", Action: "connect", ID: "n0", Container: c.ID})
		}
	case 9:
		if n := len(m.nets); n > 4 {
			m.nets = slices.Clone(m.nets[:1])
		} else {
			m.nets = append(slices.Clone(m.nets), Network{ID: fmt.Sprint("n", m.seq), Name: fmt.Sprint("net", m.seq), Driver: "bridge"})
		}
		m.emit(Event{Type: "network", Action: "create", ID: "n"})
		m.netsChanged = m.now
	case 10:
		if c.Alive() {
			m.die(c, 0)
		}
		if m.rng.IntN(2) == 0 {
			m.destroy(c)
		}
	}
	if m.truth[c.ID] != nil {
		m.update(c)
	}
}

func (m *model) addr() netip.Addr {
	return netip.AddrFrom4([4]byte{172, 17, byte(m.rng.IntN(256)), byte(m.rng.IntN(256))})
}

func (m *model) create() {
	m.born++
	c := &simContainer{
		Container: Container{
			ID: fmt.Sprintf("%064x", m.rng.Uint64()), Name: fmt.Sprint("c", m.born), State: StateCreated, CreatedAt: m.now,
			StopSignal: 15, StopTimeout: 10 * time.Second,
			Labels: map[string]string{"n": strconv.Itoa(m.born)},
		},
		engine: m.engineID,
		ended:  map[int64]bool{}, killed: map[int64][]time.Time{},
	}
	if m.rng.IntN(5) == 0 {
		c.StopSignal, c.StopTimeout = 2, 90*time.Second
	}
	if m.rng.IntN(3) == 0 {
		c.Labels["health"] = "yes"
	}
	m.truth[c.ID] = c
	m.emit(Event{Type: "container", Action: "create", ID: c.ID})
	if m.rng.IntN(4) > 0 {
		m.start(c)
	}
	m.update(c)
}

func (m *model) start(c *simContainer) {
	m.now = m.now.Add(time.Microsecond)
	c.State, c.StartedAt, c.ExitCode = StateRunning, m.now, 0
	c.PID = 2 + m.rng.IntN(1<<20)
	if c.lastAddr == nil || m.rng.IntN(2) == 0 { // a restarted container often gets the same ones
		c.lastAddr = []Endpoint{{Network: "bridge", NetworkID: "n0", IPv4: m.addr()}}
		c.lastPort = []Port{{Container: 80, Proto: "tcp", Host: netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(32768+m.rng.IntN(20000)))}}
	}
	c.Endpoints, c.Ports = c.lastAddr, c.lastPort
	c.Health = HealthNone
	if c.Labels["health"] != "" {
		c.Health = HealthStarting
	}
	m.emit(Event{Type: "network", Action: "connect", ID: "n0", Container: c.ID})
	m.emit(Event{Type: "container", Action: "start", ID: c.ID})
	m.update(c)
}

func (m *model) end(c *simContainer, code int) {
	m.now = m.now.Add(time.Microsecond)
	c.ended[c.StartedAt.UnixNano()] = true
	c.State, c.FinishedAt, c.ExitCode, c.PID, c.Health = StateExited, m.now, code, 0, HealthNone
	c.Endpoints, c.Ports = nil, nil
	m.update(c)
}

func (m *model) die(c *simContainer, code int) {
	m.end(c, code)
	m.emit(Event{Type: "network", Action: "disconnect", ID: "n0", Container: c.ID})
	m.emit(Event{Type: "container", Action: "die", ID: c.ID, ExitCode: code})
}

func (m *model) kill(c *simContainer, sig int) {
	m.emit(Event{Type: "container", Action: "kill", ID: c.ID, Signal: sig})
	run := c.StartedAt.UnixNano()
	c.killed[run] = append(c.killed[run], m.now)
	m.update(c)
}

func (m *model) destroy(c *simContainer) {
	if c.Alive() {
		m.end(c, 137)
	}
	c.removedAt = m.now
	delete(m.truth, c.ID)
	m.past[c.ID] = c
	m.emit(Event{Type: "container", Action: "destroy", ID: c.ID})
}

// restartEngine ends every container without a word (but some survive, as with
// live-restore) and forgets the event buffer. With another engine, the
// containers are others, too.
func (m *model) restartEngine(another bool) {
	gen := m.gen
	m.gen, m.buffer, m.up = 0, nil, false
	m.after(m.latency(), func() { m.step(inStreamLost{gen, errors.New("EOF")}) })
	for _, id := range sortedKeys(m.truth) {
		c := m.truth[id]
		if c.Alive() && (another || m.rng.IntN(3) > 0) {
			m.end(c, 255)
		}
	}
	if another {
		m.engineID = fmt.Sprint("engine-", m.seq)
		for _, c := range m.truth {
			c.removedAt = m.now
		}
		maps.Copy(m.past, m.truth)
		m.truth = map[string]*simContainer{}
		m.inflight = map[string]int{}
	}
}
