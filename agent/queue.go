package agent

// queue decides which containers are inspected next: at most so many at once,
// first come first served, and those whose last inspect failed never take more
// than a quarter of the places. So one hung inspect holds up nothing else.
type queue struct {
	fresh, suspect []*entry
	inflight       map[uint64]bool // mark → whether it is a suspect's
	suspects       int             // in flight
}

// enqueue puts e in line, unless it is in line or being inspected already: two
// inspects of one container at once could answer in the wrong order.
func (s *state) enqueue(e *entry) {
	if e.queued || e.inflight != 0 {
		return
	}
	e.queued = true
	if e.fails > 0 {
		s.queue.suspect = append(s.queue.suspect, e)
	} else {
		s.queue.fresh = append(s.queue.fresh, e)
	}
}

// pump starts as many inspects as there are places for, while there is an
// engine to ask.
func (s *state) pump() []effect {
	var out []effect
	for s.session.up && len(s.queue.inflight) < s.cfg.Workers {
		e, suspect := s.queue.pop(max(1, s.cfg.Workers/4))
		if e == nil {
			break
		}
		if !e.queued || s.entries[e.id] != e {
			continue // forgotten while it waited
		}
		e.queued = false
		e.inflight = e.dirty
		s.queue.start(e.inflight, suspect)
		s.stats.Inspects++
		out = append(out, doInspect{id: e.id, mark: e.inflight})
	}
	return out
}

// pop takes the next in line, or nil. Suspects go first, as long as fewer than
// maxSuspects are in flight: there are few of them, and they waited already.
func (q *queue) pop(maxSuspects int) (e *entry, suspect bool) {
	if len(q.suspect) > 0 && q.suspects < maxSuspects {
		e, q.suspect = q.suspect[0], q.suspect[1:]
		return e, true
	}
	if len(q.fresh) > 0 {
		e, q.fresh = q.fresh[0], q.fresh[1:]
		return e, false
	}
	return nil, false
}

func (q *queue) start(mark uint64, suspect bool) {
	if q.inflight == nil {
		q.inflight = make(map[uint64]bool)
	}
	q.inflight[mark] = suspect
	if suspect {
		q.suspects++
	}
}

// done frees the place of the inspect that was started with mark.
func (q *queue) done(mark uint64) {
	if q.inflight[mark] {
		q.suspects--
	}
	delete(q.inflight, mark)
}

// clear forgets who waits. Those in flight keep their places until they return.
func (q *queue) clear() { q.fresh, q.suspect = nil, nil }
