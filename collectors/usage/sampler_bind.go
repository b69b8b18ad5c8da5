package usage

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berthd/berth/agent"
)

// apply takes over what the engine says: which containers run, as what, and which
// runs have ended.
func (s *sampler) apply(snap *agent.Snapshot) {
	s.snap = snap
	if len(s.failing) > 0 {
		maps.DeleteFunc(s.failing, func(id string, _ error) bool {
			c := snap.ByID(id)
			return c == nil || !c.Alive()
		})
	}
	if len(s.refused) > 0 {
		maps.DeleteFunc(s.refused, func(id string, _ []refusal) bool { return snap.ByID(id) == nil })
	}
	s.bury(snap)
	for _, c := range snap.Containers {
		if c.Alive() && c.PID > 0 && !c.StartedAt.IsZero() {
			s.follow(c)
		}
	}
	s.watch.scanNew(s)
	s.reportFailing()
	s.reportRefused()
}

// follow sees to it that a run is measured.
func (s *sampler) follow(c *agent.Container) {
	run := c.Run()
	if s.ended[run] {
		return // the container was not inspected again yet
	}
	if known := s.bound(run); known != nil {
		if known.c != c {
			s.name(known, c)
		}
		return
	}
	cl := s.claim(c, time.Time{})
	if cl != nil && cl.over {
		s.bind(cl, c)
		return
	}
	p, err := s.look(c.PID, c.ID)
	switch {
	case err != nil && cl != nil:
		// The process has just exited: its end is about to be told.
		s.bind(cl, c)
		return
	case errors.Is(err, unix.ESRCH), errors.Is(err, unix.ENOENT):
		s.stats.tooLate++
		return
	case err != nil:
		s.failing[c.ID] = err
		return
	}
	delete(s.failing, c.ID)
	if cl == nil {
		cl = s.newCell(c.ID)
		// Younger than the last sweep, it has used all that it has since then.
		cl.hasCPU = !s.lastAt.IsZero() && s.age(p.started) < time.Since(s.lastAt)
	}
	s.adopt(cl, p)
	cl.whole = true
	if ownNetwork(c) {
		cl.files.pid = c.PID
	}
	s.watch.learn(s, p.dirs)
	s.bind(cl, c)
	// Open what is held now, not when it is too late.
	if _, err := s.take(cl, true); err != nil {
		s.finish(cl)
	}
}

func (s *sampler) newCell(id string) *cell {
	s.stats.cells++
	c := &cell{id: id, process: process{pidfd: -1}, slow: s.stats.cells % slowEvery, pressure: nan}
	c.files = newFiles(dirs{}, 0, false)
	s.cells[id] = append(s.cells[id], c)
	return c
}

// ownNetwork reports whether the network counters of a container's processes are
// its own, and not also the host's or another container's.
func ownNetwork(c *agent.Container) bool {
	return c.NetworkMode != "host" && c.NetworkMode != "none" && !strings.HasPrefix(c.NetworkMode, "container:")
}

// bound returns the cell of a run, or nil.
func (s *sampler) bound(run agent.RunKey) *cell {
	for _, c := range s.cells[run.ID] {
		if c.c != nil && c.run == run {
			return c
		}
	}
	return nil
}

// bindLate is by how much the birth of a cgroup may seem to be after the start of
// the run that it is of: on a busy host we may be that late to see it.
const bindLate = 3 * time.Second

// claim returns the cell that a run must be of, or nil: cgroups are seen before
// the engine has said anything. A run's cgroup is made before it starts, and
// after the run before has ended.
func (s *sampler) claim(c *agent.Container, ended time.Time) *cell {
	var found, late *cell
	for _, cl := range s.cells[c.ID] {
		if cl.c != nil {
			continue
		}
		if !cl.created.After(c.StartedAt) {
			found = cl
		} else if late == nil && cl.created.Before(c.StartedAt.Add(bindLate)) && (ended.IsZero() || cl.created.Before(ended)) {
			late = cl
		}
	}
	if found == nil {
		found = late
	}
	return found
}

// bind says which run a cell is of.
func (s *sampler) bind(cl *cell, c *agent.Container) {
	cl.run = c.Run()
	s.name(cl, c)
	cl.first = true
	if b, ok := s.book.Baseline(cl.run); ok {
		// When the pressure was read is not kept.
		cl.base = reading{at: b.At, parts: b.Parts &^ HasPressure, total: b.Total}
		cl.first = false
		s.stats.resumed++
	}
	if cl.over {
		s.deliverLast(cl)
	}
}

// name notes what the engine says of a container, at first and after each
// change: docker update and docker rename are followed.
func (s *sampler) name(cl *cell, c *agent.Container) {
	cl.c = c
	var refused []refusal
	cl.subject, cl.reservation, refused = s.describe(c)
	s.noteRefused(c, refused)
}

func (s *sampler) describe(c *agent.Container) (Subject, Reservation, []refusal) {
	reservation, refused := claims(c, s.mhz)
	subject, more := identify(c, s.environment, s.snap.Node.InstanceType)
	return subject, reservation, append(refused, more...)
}

// noteRefused remembers and logs what is wrong with a container's settings, once.
func (s *sampler) noteRefused(c *agent.Container, refused []refusal) {
	if len(refused) == 0 {
		delete(s.refused, c.ID)
		return
	}
	if s.refused[c.ID] == nil {
		for _, r := range refused {
			s.stats.refused++
			s.log.Warn("a setting of a container is not understood; the next source counts",
				"container", c.Name, "setting", r.subject, "err", r.why, "hint", r.fix)
		}
	}
	s.refused[c.ID] = refused
}

// bury tells the book of the runs that have ended.
func (s *sampler) bury(snap *agent.Snapshot) {
	fresh := false
	for i := range snap.Dead {
		d := &snap.Dead[i]
		key := d.Key()
		if s.ended[key] {
			continue
		}
		s.ended[key] = true
		fresh = true
		cl := s.bound(key)
		if cl == nil {
			if cl = s.claim(d.Container, d.FinishedAt); cl != nil {
				s.bind(cl, d.Container)
			}
		}
		end := Ending{Run: key, At: d.FinishedAt, ExitCode: d.Container.ExitCode, OOMKilled: d.Container.OOMKilled}
		if cl == nil {
			subject, reservation, _ := s.describe(d.Container)
			s.noteEnded(d, &subject, &reservation, nil)
			s.book.Ended(&subject, &reservation, end)
			continue
		}
		s.finish(cl)
		s.noteEnded(d, &cl.subject, &cl.reservation, cl)
		s.book.Ended(&cl.subject, &cl.reservation, end)
	}
	if fresh && len(s.ended) > 2*len(snap.Dead)+64 {
		s.forgetEnded(snap)
	}
}

// forgetEnded keeps of the ended runs those that a snapshot may name again.
func (s *sampler) forgetEnded(snap *agent.Snapshot) {
	keep := make(map[agent.RunKey]bool, len(snap.Dead))
	for _, d := range snap.Dead {
		keep[d.Key()] = true
	}
	for _, c := range snap.Containers {
		if run := c.Run(); s.ended[run] {
			keep[run] = true
		}
	}
	s.ended = keep
}

// reportFailing makes a condition of the containers that cannot be measured.
func (s *sampler) reportFailing() {
	for id, err := range s.failing {
		name := id
		if c := s.snap.ByID(id); c != nil {
			name = c.Name
		}
		s.report("cgroups", &failingError{len(s.failing), name, err}, "see berth explain "+name+"; berth must see the host's cgroups and processes")
		return
	}
	s.report("cgroups", nil, "")
}

// reportRefused makes a condition of the settings that are not understood.
func (s *sampler) reportRefused() {
	if len(s.refused) > 0 {
		for _, c := range s.snap.Containers {
			if r := s.refused[c.ID]; r != nil {
				s.report("settings", fmt.Errorf("%d containers have settings that are not understood, such as %s: %s: %s", len(s.refused), c.Name, r[0].subject, r[0].why), r[0].fix)
				return
			}
		}
	}
	s.report("settings", nil, "")
}
