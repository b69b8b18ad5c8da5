package agent

import (
	"errors"
	"time"
)

// The loop's backoffs. Each doubles from its first to its last value. Dialling
// a Unix socket costs next to nothing, so that a returning engine is found
// within two seconds, however long it was away.
const (
	reconnectFirst, reconnectLast = 100 * time.Millisecond, 2 * time.Second
	relistFirst, relistLast       = time.Second, 30 * time.Second
	reinspectFirst, reinspectLast = time.Second, 30 * time.Second

	// stableSession is how long a stream must live for the next reconnect to
	// start from reconnectFirst again.
	stableSession = 10 * time.Second
	// listsBeforeReconnect is how many lists in a row may fail before the whole
	// session is given up: the stream of a frozen engine stays open for ever.
	listsBeforeReconnect = 3
	// attachmentDelay is how long the inspect of a container that does not run
	// waits after its networks have changed; a start takes a second at most.
	attachmentDelay = 2 * time.Second
	// sinceMargin is by how much a new stream overlaps with the last event
	// seen. The engine replays what it still has; a repeated event costs at
	// most an inspect, a missed one costs correctness.
	sinceMargin = 2 * time.Second
)

// input is something that happened. The loop's goroutine hands them to step
// one by one, each with the time at which it is handled.
type input interface{ isInput() }

type (
	inStart  struct{}
	inTick   struct{} // the time that next asked for has come
	inStream struct { // the engine of session gen has said who it is
		gen  uint64
		info EngineInfo
	}
	inStreamLost struct {
		gen uint64
		err error
	}
	inEvent struct {
		gen uint64
		ev  Event
	}
	inListed struct {
		token   uint64
		listing Listing
		err     error
	}
	inNetworks struct {
		token    uint64
		networks []Network
		err      error
	}
	inInspected struct {
		id   string
		mark uint64
		c    *Container
		err  error
	}
	inNode struct{ node Node }
)

func (inStart) isInput()      {}
func (inTick) isInput()       {}
func (inStream) isInput()     {}
func (inStreamLost) isInput() {}
func (inEvent) isInput()      {}
func (inListed) isInput()     {}
func (inNetworks) isInput()   {}
func (inInspected) isInput()  {}
func (inNode) isInput()       {}

// effect is something that step wants done. Workers do it, bounded in time,
// and report back with an input that repeats the token.
type effect interface{ isEffect() }

type (
	doConnect struct { // end the session before, open a stream, identify the engine
		gen   uint64
		since time.Time
	}
	doList     struct{ token uint64 }
	doNetworks struct{ token uint64 }
	doInspect  struct {
		id   string
		mark uint64
	}
)

func (doConnect) isEffect()  {}
func (doList) isEffect()     {}
func (doNetworks) isEffect() {}
func (doInspect) isEffect()  {}

// step takes one input, at the given time, and returns what to do about it.
func (s *state) step(in input, now time.Time) []effect {
	var out []effect
	switch in := in.(type) {
	case inStart:
		// With no event seen yet, it reaches back by the stop hold, and so finds
		// the containers that were told to stop just before berth was started.
		out = s.reconnect(now)
	case inTick:
	case inStream:
		out = s.onStream(in, now)
	case inStreamLost:
		s.onStreamLost(in, now)
	case inEvent:
		if in.gen == s.session.gen && s.session.up {
			out = s.onEvent(in.ev, now)
		}
	case inListed:
		out = s.onListed(in, now)
	case inNetworks:
		out = s.onNetworks(in, now)
	case inInspected:
		s.onInspected(in, now)
	case inNode:
		if s.node != in.node {
			s.node, s.changed = in.node, true
		}
	}
	out = append(out, s.onTime(now)...)
	out = append(out, s.pump()...)
	s.settle()
	return out
}

// next returns when step wants an inTick at the latest; the zero time means
// never.
func (s *state) next() time.Time {
	var at time.Time
	sooner := func(t time.Time) {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	sooner(s.session.reconnectAt)
	if s.session.up {
		sooner(s.containers.due)
		sooner(s.networks.due)
	}
	for _, e := range s.timed {
		sooner(e.retryAt)
		sooner(e.holdEnds(s.cfg))
	}
	sooner(s.dead.next())
	return at
}

// onTime does what has become due.
func (s *state) onTime(now time.Time) []effect {
	var out []effect
	due := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	if due(s.session.reconnectAt) {
		out = append(out, s.reconnect(now)...)
	}
	if s.session.up && due(s.containers.due) {
		out = append(out, s.listContainers(now))
	}
	if s.session.up && due(s.networks.due) {
		out = append(out, s.listNetworks(now))
	}
	for _, id := range sortedKeys(s.timed) {
		e := s.timed[id]
		if due(e.retryAt) {
			e.retryAt = time.Time{}
			s.enqueue(e)
		}
		if due(e.holdEnds(s.cfg)) {
			s.setStopping(e, now)
		}
		s.track(e)
	}
	if s.dead.expire(now) {
		s.changed = true
	}
	return out
}

// connect starts a new session. Answers to questions of the one before still
// count for each container, as its marks have it, but its lists do not.
func (s *state) connect(since time.Time) []effect {
	s.session.gen++
	s.session.up = false
	s.session.reconnectAt = time.Time{}
	s.containers.reset()
	s.networks.reset()
	s.stats.Connects++
	return []effect{doConnect{gen: s.session.gen, since: since}}
}

// reconnect starts a new session that asks for the events missed since the
// last one seen.
func (s *state) reconnect(now time.Time) []effect {
	since := s.session.lastEvent.Add(-sinceMargin)
	if s.session.lastEvent.IsZero() {
		since = now.Add(-s.cfg.StopHold)
	}
	return s.connect(since)
}

func (l *list) reset() { *l = list{backoff: l.backoff} }

func (s *state) onStream(in inStream, now time.Time) []effect {
	if in.gen != s.session.gen {
		return nil
	}
	if s.session.info.ID != "" && s.session.info.ID != in.info.ID {
		// Another engine answers at this address. What was known of the one
		// before says nothing of it, and nothing of this one may be called dead
		// because the other knows nothing of it.
		s.entries = make(map[string]*entry)
		s.timed = make(map[string]*entry)
		s.queue.clear()
		s.dead = newDeadRuns(s.cfg)
	}
	s.mark++
	s.session.up, s.session.complete, s.session.err = true, false, nil
	s.session.mark, s.session.since, s.session.info = s.mark, now, in.info
	s.changed = true
	// A gap in the stream may hide anything, even a restart that looks the same
	// in a list: inspect all.
	for _, id := range sortedKeys(s.entries) {
		s.markDirty(s.entries[id])
	}
	return []effect{s.listContainers(now), s.listNetworks(now)}
}

func (s *state) onStreamLost(in inStreamLost, now time.Time) {
	if in.gen != s.session.gen {
		return
	}
	s.loseSession(in.err, now)
}

// loseSession keeps everything that is known: an engine that does not answer
// says nothing about its containers.
func (s *state) loseSession(err error, now time.Time) {
	wasStable := s.session.up && now.Sub(s.session.since) >= stableSession
	if wasStable || s.session.backoff == 0 {
		s.session.backoff = reconnectFirst
	}
	s.session.up, s.session.complete, s.session.err = false, false, err
	s.session.reconnectAt = now.Add(s.session.backoff)
	s.session.backoff = min(2*s.session.backoff, reconnectLast)
	s.containers.reset()
	s.networks.reset()
	s.changed = true
}

// settle notices when all that the present session had to find out is known.
// From then on the session is complete until it ends: a container that is born
// later was not forgotten, it is new.
func (s *state) settle() {
	if s.session.complete || !s.session.up || !s.containers.done || !s.networks.done {
		return
	}
	for _, e := range s.entries {
		if e.checked < s.session.mark {
			return
		}
	}
	s.session.complete, s.changed = true, true
}

func (s *state) onEvent(ev Event, now time.Time) []effect {
	s.stats.Events++
	if ev.Time.After(s.session.lastEvent) {
		s.session.lastEvent = ev.Time
	}
	if ev.Type == "network" {
		if ev.Container != "" {
			s.onAttachment(s.entry(ev.Container), now)
			return nil
		}
		return s.refreshNetworks(now)
	}
	switch ev.Action {
	case "destroy":
		// The one event that needs no second opinion: IDs never come back.
		if e := s.entries[ev.ID]; e != nil {
			s.remove(e, ev.Time)
		}
	case "die":
		e := s.entry(ev.ID)
		s.onDie(e, ev)
		s.markDirty(e)
	case "kill":
		e := s.entry(ev.ID)
		if e.c == nil {
			s.markDirty(e)
		}
		s.onKill(e, ev, now)
	default:
		s.markDirty(s.entry(ev.ID))
	}
	return nil
}

// onAttachment marks a container whose networks have changed. One that does not
// run is about to be started, or has just ended: the engine holds its lock, and
// would answer only after the event that matters, too late to be believed. So
// there is no hurry; that event will ask at once.
func (s *state) onAttachment(e *entry, now time.Time) {
	if e.c == nil || e.c.Alive() || e.inflight != 0 || e.queued {
		s.markDirty(e)
		return
	}
	s.mark++
	e.dirty = s.mark
	e.retryAt = now.Add(attachmentDelay)
	s.track(e)
}

// onDie believes a death at once, without waiting for the inspect that will
// confirm it: an answer that leads nowhere is worse than one that comes a few
// milliseconds late. The death of an earlier run is no news.
func (s *state) onDie(e *entry, ev Event) {
	if e.c == nil || !e.c.Alive() || !ev.Time.After(e.c.StartedAt) {
		return
	}
	c := *e.c
	c.State, c.FinishedAt, c.ExitCode = StateExited, ev.Time, ev.ExitCode
	c.PID, c.StoppingSince = 0, time.Time{}
	e.c = &c
	s.dead.add(DeadRun{Container: e.c, FinishedAt: ev.Time})
	s.changed = true
	s.track(e)
}

// onKill remembers a signal that may mean that the container is to stop. It
// needs no inspect: a signal changes nothing by itself.
func (s *state) onKill(e *entry, ev Event, now time.Time) {
	stops := e.c == nil || ev.Signal == sigKill || ev.Signal == e.c.StopSignal
	if !stops || !ev.Time.After(e.killed) {
		return
	}
	e.killed, e.killSignal = ev.Time, ev.Signal
	s.setStopping(e, now)
	s.track(e)
}

const sigKill = 9

func (s *state) onInspected(in inInspected, now time.Time) {
	s.queue.done(in.mark)
	e := s.entries[in.id]
	if e == nil || e.inflight != in.mark {
		s.stats.Stale++
		return // it was removed meanwhile, or belongs to an engine before
	}
	e.inflight = 0
	if !s.session.up {
		// Who answered is not known: it may have been another engine, on its
		// way in. The next session asks again.
		s.stats.Stale++
		return
	}
	if e.dirty > in.mark {
		s.stats.Stale++
		s.enqueue(e)
		return
	}
	e.checked = in.mark
	switch {
	case in.err == nil:
		e.err, e.fails, e.backoff = nil, 0, 0
		s.apply(e, in.c, now)
	case errors.Is(in.err, ErrNotFound):
		s.remove(e, now)
		return
	default:
		if e.err == nil || e.c == nil {
			s.changed = true // it is unread now
		}
		e.err, e.fails = in.err, e.fails+1
		e.backoff = min(max(2*e.backoff, reinspectFirst), reinspectLast)
		e.retryAt = now.Add(e.backoff)
	}
	s.track(e)
}

// apply makes c, which an inspect has just returned, the truth.
func (s *state) apply(e *entry, c *Container, now time.Time) {
	old := e.c
	fresh := *c
	fresh.StoppingSince = e.stopping(&fresh, s.cfg, now)
	if old != nil && old.Alive() && old.StartedAt.Before(fresh.StartedAt) {
		// It was restarted, and we saw neither end nor start.
		end := fresh.StartedAt
		if fresh.Alive() && fresh.FinishedAt.After(old.StartedAt) {
			end = fresh.FinishedAt
		}
		s.dead.add(DeadRun{Container: old, FinishedAt: end})
		s.changed = true
	}
	if !fresh.Alive() && !fresh.StartedAt.IsZero() && fresh.FinishedAt.After(now.Add(-s.cfg.DeadRetention)) {
		if s.dead.add(DeadRun{Container: &fresh, FinishedAt: fresh.FinishedAt}) {
			s.changed = true
		}
	}
	if old != nil && old.equal(&fresh) {
		if e.byRow {
			e.futile = min(e.futile+1, maxFutile)
			e.skip = 1 << e.futile
		}
		e.byRow = false
		return
	}
	e.c, e.byRow, e.futile, e.skip = &fresh, false, 0, 0
	s.changed = true
}

const maxFutile = 6 // one inspect in 64 minutes

// remove forgets a container that is gone for good, and ends its run.
func (s *state) remove(e *entry, at time.Time) {
	if e.c != nil {
		s.dead.remove(e.c, at)
		s.changed = true
	}
	delete(s.entries, e.id)
	delete(s.timed, e.id)
}
