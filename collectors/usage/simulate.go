package usage

import (
	"math"
	"slices"
	"time"
)

// Recommender is an algorithm that says how many cores to reserve for one
// container, from what the container used. Replay calls it from one goroutine.
type Recommender interface {
	// Observe tells of one minute that ends at the given moment: the mean of the
	// cores that were used, and the share of it in which the container was
	// throttled at its limit, which is what it reserved.
	Observe(end time.Time, used, throttled, reserved float64)
	// Recommend returns the cores to reserve from now on, or 0 while it cannot
	// tell. It is called after each hour, with what is reserved.
	Recommend(now time.Time, reserved float64) float64
}

// Policy says which recommendations are followed: small ones are not worth a
// change, and most changes restart a container.
type Policy struct {
	Up, Down  float64       // by which share it must differ from what is reserved
	DownEvery time.Duration // since the last change
}

// CarefulPolicy follows recommendations for reservations that stay for days.
var CarefulPolicy = Policy{Up: 0.05, Down: 0.10, DownEvery: 24 * time.Hour}

// HourlyPolicy follows recommendations where a reservation is changed without a
// restart, as docker update does.
var HourlyPolicy = Policy{Up: 0.05, Down: 0.10}

// wanted reports whether to follow a recommendation.
func (p Policy) wanted(reserved, to float64, since time.Duration) bool {
	if to > reserved {
		return to >= reserved*(1+p.Up)
	}
	return to <= reserved*(1-p.Down) && since >= p.DownEvery
}

// Method is a Recommender and how it is followed.
type Method struct {
	Name   string
	New    func() Recommender
	Policy Policy
}

// Score says how good the reservations were. Lower is better for all of it.
type Score struct {
	Slack   float64 `json:"slack_ratio"`             // Σ(reserved − min(used, reserved)) / Σ reserved
	Time    float64 `json:"overrun_time_ratio"`      // share of the minutes in which more was wanted than reserved
	Volume  float64 `json:"overrun_volume_ratio"`    // share of the CPU that was wanted above what was reserved
	Changes float64 `json:"changes_per_week"`        // of the reservation
	Longest float64 `json:"longest_overrun_minutes"` // for how long more was wanted than reserved at a stretch
}

// Mean returns the mean of scores: each container counts alike, however large.
func Mean(scores []Score) Score {
	var m Score
	for _, s := range scores {
		n := float64(len(scores))
		m.Slack += s.Slack / n
		m.Time += s.Time / n
		m.Volume += s.Volume / n
		m.Changes += s.Changes / n
		m.Longest += s.Longest / n
	}
	return m
}

// Replay settings.
const (
	// WarmUp is how much of a trace is seen before reservations are scored.
	WarmUp = 8 * 24 * time.Hour
	// firstAdvice is when a recommendation is followed for the first time.
	firstAdvice = 24 * time.Hour
)

// Replay lets a method reserve for a trace, and scores what it reserves after
// WarmUp, or after the first third of a shorter trace. With limited, the
// container cannot use more than is reserved: what it wanted beyond is lost, the
// method does not see it, and only throttling tells. Until a method is followed,
// one day after the beginning, the container has all it wants.
func Replay(t Trace, m Method, limited bool) Score {
	const hour = 60
	rec := m.New()
	warm := min(int(WarmUp/Minute), len(t.Cores)/3)
	reserved := float64(slices.Max(append([]float32{coreFloor}, t.Cores[:min(len(t.Cores), int(firstAdvice/Minute))]...)))
	var changed time.Time
	var s Score
	var sumReserved, sumServed, sumWanted, over, above, run float64
	for i, c := range t.Cores {
		wanted := float64(c)
		served := min(wanted, reserved)
		end := t.Start.Add(time.Duration(i+1) * Minute)
		if limited && i >= int(firstAdvice/Minute) {
			rec.Observe(end, served, throttledAt(wanted, reserved), reserved)
		} else {
			rec.Observe(end, wanted, 0, reserved)
		}
		if i >= warm {
			sumReserved += reserved
			sumServed += served
			sumWanted += wanted
			if wanted > reserved {
				over++
				run++
				above += wanted - reserved
			} else {
				run = 0
			}
			s.Longest = max(s.Longest, run)
		}
		if (i+1)%hour != 0 || i+1 < int(firstAdvice/Minute) {
			continue
		}
		to := rec.Recommend(end, reserved)
		if to <= 0 || !m.Policy.wanted(reserved, to, end.Sub(changed)) {
			continue
		}
		if i >= warm && to != reserved {
			s.Changes++
		}
		reserved, changed = to, end
	}
	minutes := float64(len(t.Cores) - warm)
	if minutes <= 0 || sumReserved == 0 {
		return Score{}
	}
	s.Slack = 1 - sumServed/sumReserved
	s.Time = over / minutes
	if sumWanted > 0 {
		s.Volume = above / sumWanted
	}
	s.Changes *= (7 * 24 * time.Hour).Minutes() / minutes
	return s
}

// throttledAt returns the share of throttled periods of a minute in which so many
// cores are wanted on average: some from a little below the limit, because the
// periods of a minute differ, and all of them above.
func throttledAt(wanted, limit float64) float64 {
	return math.Max(0, math.Min(1, (wanted/limit-0.9)/0.2))
}

// recorder is what berth's own methods have in common: the history that the
// agent keeps.
type recorder struct {
	history *history
}

// Observe implements Recommender.
func (r recorder) Observe(end time.Time, used, throttled, reserved float64) {
	begin := end.Add(-Minute)
	r.history.turn(hourOf(begin))
	l := &r.history.current
	l.cores.add(used, 60)
	l.peak = max(l.peak, used)
	l.used += used * 60
	l.seconds += 60
	l.periods += 600 // of 100 ms
	l.throttled += 600 * throttled
	if throttled > 0 {
		l.limit = max(l.limit, reserved)
	}
}

// byPeaks reserves what berth's advice says.
type byPeaks struct {
	recorder
	critical bool
}

// Recommend implements Recommender.
func (r byPeaks) Recommend(now time.Time, _ float64) float64 {
	r.history.turn(hourOf(now))
	cores, _ := r.history.peak(r.critical)
	return roundCores(cores)
}

// byHour reserves by the hour of the day.
type byHour struct{ recorder }

// Recommend implements Recommender.
func (r byHour) Recommend(now time.Time, _ float64) float64 {
	r.history.turn(hourOf(now))
	return roundCores(max(r.history.profile(r.history.now), r.history.latest()))
}

// byPlan reserves by a plan.
type byPlan struct {
	recorder
	plan *planner
}

// Recommend implements Recommender.
func (r byPlan) Recommend(now time.Time, reserved float64) float64 {
	r.history.turn(hourOf(now))
	r.plan.expect(r.history)
	return roundCores(r.plan.next(reserved))
}

// The names of berth's own methods.
const (
	MethodPeaks    = "peaks"          // what the advice says
	MethodCritical = "peaks-critical" // what it says of critical services
	MethodHourly   = "hour-of-day"    // a reservation for each hour of the day
	MethodPlan     = "plan"           // some changes a week, planned two days ahead
)

// Methods returns berth's own.
func Methods() []Method {
	return []Method{
		{MethodPeaks, func() Recommender { return byPeaks{recorder{newHistory()}, false} }, CarefulPolicy},
		{MethodCritical, func() Recommender { return byPeaks{recorder{newHistory()}, true} }, CarefulPolicy},
		{MethodHourly, func() Recommender { return byHour{recorder{newHistory()}} }, HourlyPolicy},
		{MethodPlan, func() Recommender { return byPlan{recorder{newHistory()}, new(planner)} }, Policy{}},
	}
}
