package discovery

import (
	"fmt"
	"time"

	"github.com/berthd/berth/agent"
)

// view is what the rules make of one snapshot at one moment. It is immutable.
type view struct {
	rules   *rules
	snap    *agent.Snapshot
	place   *place
	now     time.Time
	apps    []app // the containers that ask for something, in the snapshot's order
	set     agent.RecordSet
	next    time.Time // when the next hold-down ends; zero for none
	held    int       // containers that are held down
	refused []refusal // of live containers
}

// app is one container that asks for something.
type app struct {
	c     *agent.Container
	owner *agent.Container // whose network it uses
	plan  *plan
	out   verdict // why all of its claims are out, or nothing
	sites []site  // one for each claim of the plan

	checks []*checked // those of its ports
}

// site is what became of one claim.
type site struct {
	claim *claim
	spots []spot
	out   verdict
	check *checked // of its port, or nil
}

func (s *site) registered() bool { return s.out == verdict{} && len(s.spots) > 0 }

// refusal is one thing that a container asks for and cannot get whatever
// happens to it: somebody has to correct it.
type refusal struct {
	c    *agent.Container
	note agent.Reason
}

// memo keeps the plans of containers between evaluations. Containers are
// immutable, so that their address stands for their content; what an
// evaluation did not use is forgotten after it. It belongs to one goroutine.
type memo struct{ last, next map[*agent.Container]memoPlan }

type memoPlan struct {
	owner *agent.Container
	plan  *plan
}

func (m *memo) begin(n int) { m.next = make(map[*agent.Container]memoPlan, n) }
func (m *memo) end()        { m.last, m.next = m.next, nil }

func (m *memo) plan(r *rules, c, owner *agent.Container) *plan {
	p, ok := m.last[c]
	if !ok || p.owner != owner {
		if p, ok = m.next[c]; !ok || p.owner != owner {
			p = memoPlan{owner, r.plan(c, owner)}
		}
	}
	m.next[c] = p
	return p.plan
}

// evaluate applies the rules. It is pure but for the memo, which only makes it
// faster.
func (r *rules) evaluate(snap *agent.Snapshot, now time.Time, m *memo) *view {
	m.begin(len(snap.Containers))
	defer m.end()
	v := &view{rules: r, snap: snap, now: now, place: r.newPlace(snap)}
	crashed := recentCrashes(snap.Dead, now, func(c *agent.Container) *plan { return m.plan(r, c, c) })
	for _, c := range snap.Containers {
		owner, problem := networkOwner(snap, c)
		p := m.plan(r, c, owner)
		if p.silent {
			continue
		}
		a := app{c: c, owner: owner, plan: p, out: life(c)}
		if until, n := crashed.release(c, p, now); n > 0 && a.out == (verdict{}) {
			v.hold(&a, until, n)
		}
		if a.out == (verdict{}) {
			a.out = problem
		}
		v.locate(&a)
		v.apps = append(v.apps, a)
	}
	var records []agent.Record
	if snap.Drain == nil {
		records = v.records()
	}
	v.set = agent.NewRecordSet(r.zone, snap.Node, records, !snap.Complete && snap.Drain == nil)
	return v
}

func (v *view) hold(a *app, until time.Time, n int) {
	a.out = verdict{
		fmt.Sprintf("held down until %s: %d runs ended within %v of their start", until.UTC().Format(time.RFC3339Nano), n, shortRun),
		"see why it ends: docker logs " + a.c.Name,
	}
	v.held++
	if v.next.IsZero() || until.Before(v.next) {
		v.next = until
	}
}

// life says why a container cannot have records now, whatever it asks for.
func life(c *agent.Container) verdict {
	switch {
	case c.State == agent.StatePaused:
		return verdict{"the container is paused", "docker unpause " + c.Name}
	case !c.Running():
		return verdict{"the container is not running: " + string(c.State), "docker start " + c.Name}
	case !c.StoppingSince.IsZero():
		return verdict{"the container is being stopped", ""}
	case c.Health == agent.HealthStarting:
		return verdict{"its health check has not passed yet", ""}
	case c.Health == agent.HealthUnhealthy:
		return verdict{"its health check fails", "see why: docker inspect -f '{{json .State.Health}}' " + c.Name}
	}
	return verdict{}
}

// locate finds a place for each claim of a container.
func (v *view) locate(a *app) {
	a.sites = make([]site, len(a.plan.claims))
	for i := range a.plan.claims {
		cl := &a.plan.claims[i]
		s := &a.sites[i]
		s.claim = cl
		if cl.name.hides(v.place.label) {
			s.out = verdict{"the name is that of the host, whose addresses it would mix with the container's", "use another name"}
			if a.c.Alive() {
				v.refused = append(v.refused, refusal{a.c, agent.Reason{Subject: cl.subject(), Verdict: Refused, Rule: s.out.why, Fix: s.out.fix}})
			}
			continue
		}
		s.spots, s.out = v.place.locate(a.c, a.owner, cl)
		if a.out != (verdict{}) {
			s.out = a.out
		}
		if v.snap.Drain != nil && s.out == (verdict{}) {
			s.out = verdict{"this host is being drained: " + v.snap.Drain.Reason, ""}
		}
		v.check(a, s)
	}
	v.separate(a)
	if a.c.Alive() {
		for _, note := range a.plan.notes {
			if note.Verdict == Refused {
				v.refused = append(v.refused, refusal{a.c, note})
			}
		}
	}
}

// separate gives a container's addresses on several networks a target each: the
// first keeps the one with the container's ID.
func (v *view) separate(a *app) {
	own := v.place.containerTarget
	var first *spot
	for i := range a.sites {
		for j := range a.sites[i].spots {
			s := &a.sites[i].spots[j]
			switch {
			case s.target == v.place.target || s.target != own(a.c):
			case first == nil:
				first = s
			case s.v4 != first.v4 || s.v6 != first.v6:
				if s.v4.IsValid() {
					s.target = addrLabel(s.v4) + "." + v.place.target
				} else {
					s.target = addrLabel(s.v6) + "." + v.place.target
				}
			}
		}
	}
}
