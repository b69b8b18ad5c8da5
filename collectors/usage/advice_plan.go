package usage

import "math"

// What a plan is made with. The figures were chosen on generated loads, with
// other seeds than those that are reported.
const (
	// horizon is how many hours a plan looks ahead: two days, so that it knows,
	// when it lowers a reservation, when it must raise it again.
	horizon = 48
	// planRank is which of the last eight days a plan expects again: not the
	// highest, which is often an accident.
	planRank = 2
	// planChange is what a change costs: as much as the highest level that is
	// expected does in so many hours.
	planChange = 3
	// planTolerance is by which share more may be needed than is reserved before
	// the reservation is raised.
	planTolerance = 0.1
	// lately is how many hours tell whether today is like the days before.
	lately = 3
)

// planner sets a reservation about once a day up and once down, for hosts where a
// change needs no restart, but is still not for nothing. It expects of each
// coming hour what this hour of the day has needed, or more if the last hours
// needed more than was expected of them, and finds the cheapest sequence of
// reservations that covers all of it.
type planner struct {
	need [horizon]float64
	// levels are those that a cheapest sequence can be made of: what is needed in
	// some hour, and the present one.
	levels [horizon + 1]float64
	// best is what the cheapest sequence costs from some hour on that begins with
	// this level.
	best, before [horizon + 1]float64
}

// expect sets what the hours from now on need.
func (p *planner) expect(s *history) {
	for i := range p.need {
		p.need[i] = s.expected(s.now+int64(i), planRank)
	}
	factor := 1.0
	for h := s.now - lately; h < s.now; h++ {
		if was, ok := s.at(h); ok {
			if e := s.expected(h, 1); e > 0 {
				factor = max(factor, was.demand(was.p95)/e)
			}
		}
	}
	for i := range p.need[:24] {
		p.need[i] *= factor
	}
	p.need[0] = max(p.need[0], s.latest())
}

// expected returns what an hour needs, if it is like those of the days before it,
// or like the one that follows it: what comes may come a little early. Of these
// days it goes by the one of the given rank, of which 1 is the highest.
func (s *history) expected(h int64, rank int) float64 {
	return max(s.ranked(h, rank), s.ranked(h+1, rank))
}

// ranked returns what an hour of the day needed on the day of a rank, planRank at
// most, of those before h.
func (s *history) ranked(h int64, rank int) float64 {
	var top [planRank]float64
	for back := min(h-24, s.lastSame(h)); back >= s.now-hours; back -= 24 {
		if slot, ok := s.at(back); ok {
			v := slot.demand(slot.p95)
			for i := range top {
				if v > top[i] {
					v, top[i] = top[i], v
				}
			}
		}
	}
	return top[rank-1]
}

// next returns what to reserve now, given what is reserved.
func (p *planner) next(reserved float64) float64 {
	if n := p.need[0]; n > reserved && n <= reserved*(1+planTolerance) {
		for i, n := range p.need {
			if n <= reserved*(1+planTolerance) {
				p.need[i] = min(n, reserved)
			}
		}
	}
	highest := 0.0
	p.levels[horizon] = reserved
	for i, n := range p.need {
		p.levels[i] = n
		highest = max(highest, n)
	}
	change := planChange * highest
	p.best = [horizon + 1]float64{}
	for i := horizon - 1; i >= 0; i-- {
		after := math.Inf(1)
		for _, b := range p.best {
			after = min(after, b)
		}
		p.before = p.best
		for l, level := range p.levels {
			p.best[l] = math.Inf(1)
			if level >= p.need[i] {
				p.best[l] = level + min(p.before[l], after+change)
			}
		}
	}
	to, cost := reserved, p.best[horizon]
	for l, b := range p.best {
		if b+change < cost {
			to, cost = p.levels[l], b+change
		}
	}
	return to
}
