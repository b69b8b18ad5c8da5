package usage

import "time"

// hours is how much is remembered of a service: eight days, so that a weekly
// peak is never forgotten before it comes again.
const hours = 8 * 24

// hour is what is kept of one hour of a service. Cores and bytes are those of
// one container, unless it says otherwise.
type hour struct {
	p90, p95, peak compact // cores, of all seconds of all containers
	used, reserved compact // core-seconds, of all containers together
	seconds        compact // of containers
	throttled      compact // share of the periods in which anything wanted to run
	need           compact // cores: what a container should have had that was throttled
	memory         compact // bytes: the highest working set
	kills          compact // by the out-of-memory killer
}

// throttledTooMuch is the share of throttled periods from which what was used
// says nothing of what is needed: the percentiles of a container at its limit
// can never be above the limit.
const throttledTooMuch = 0.05

// stepUp is by how much more than it used or was limited to a container is given
// that is throttled in this share of its periods: 1.2, and up to 1.5 where all
// are. Small steps, because each is followed by a look at what is then used.
func stepUp(throttled float64) float64 {
	if throttled <= throttledTooMuch {
		return 1
	}
	return 1.2 + 0.3*min((throttled-throttledTooMuch)/(1-throttledTooMuch), 1)
}

// demand returns the cores that would have been enough for one container in this
// hour, by its p90 or p95.
func (h *hour) demand(p compact) float64 {
	return max(p.value()*stepUp(h.throttled.value()), h.need.value())
}

// load is what the current hour is made of until it is over.
type load struct {
	cores          histogram // of seconds
	peak           float64
	used, reserved float64
	seconds        float64
	periods        float64
	throttled      float64 // periods
	limit          float64 // the highest limit, in cores, that throttled a container
	memory, kills  float64
}

func (l *load) clear() {
	l.cores.clear()
	*l = load{cores: l.cores}
}

// throttledRatio returns the share of throttled periods.
func (l *load) throttledRatio() float64 {
	if l.periods == 0 {
		return 0
	}
	return l.throttled / l.periods
}

func (l *load) hour() hour {
	ratio := l.throttledRatio()
	h := hour{
		p90: pack(l.cores.percentile(0.90)), p95: pack(l.cores.percentile(0.95)), peak: pack(l.peak),
		used: pack(l.used), reserved: pack(l.reserved), seconds: pack(l.seconds),
		throttled: pack(ratio), memory: pack(l.memory), kills: pack(l.kills),
	}
	if ratio > throttledTooMuch {
		h.need = pack(l.limit * stepUp(ratio))
	}
	return h
}

// history is what a service used: the last eight days by hours, and the hour
// under way. Hours are counted from 1970, in UTC. Its methods do not allocate,
// but newHistory.
type history struct {
	current load
	now     int64       // the hour of current; 0 before the first
	past    [hours]hour // the hour n is in past[n % hours]
	known   int         // hours of past, with seconds
}

func newHistory() *history {
	return &history{current: load{cores: histogram{first: firstCores, weights: make([]float32, coreBuckets)}}}
}

// hourOf returns the hour of a moment.
func hourOf(at time.Time) int64 { return floorDiv(at.Unix(), 3600) }

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// turn closes the current hour if the given one is later. Hours that were missed
// are empty. An earlier hour is as good as the current one: see clock.
func (s *history) turn(to int64) {
	if s.now == 0 {
		s.now = to
	}
	if to <= s.now {
		return
	}
	// The slot of the current hour is that of 192 hours ago.
	for h := s.now; h < min(to, s.now+hours); h++ {
		slot := &s.past[index(h)]
		if slot.seconds != 0 {
			s.known--
		}
		*slot = hour{}
		if h == s.now && s.current.seconds > 0 {
			*slot = s.current.hour()
			if slot.seconds != 0 {
				s.known++
			}
		}
	}
	if to-s.now > hours {
		s.past, s.known = [hours]hour{}, 0
	}
	s.now = to
	s.current.clear()
}

func index(h int64) int { return int((h%hours + hours) % hours) }

// at returns a past hour; ok is false where nothing is known of it.
func (s *history) at(h int64) (*hour, bool) {
	if h >= s.now || h < s.now-hours {
		return nil, false
	}
	slot := &s.past[index(h)]
	return slot, slot.seconds != 0
}

// shift moves all hours by d, after the clock was found to have been wrong.
func (s *history) shift(d int64) {
	if s.now == 0 || d == 0 {
		return
	}
	old := s.past
	for i := range old {
		s.past[index(int64(i)+d)] = old[i]
	}
	s.now += d
}

// spread adds the mean of a long window that ends at now to the hours that it is
// of. It makes no peaks.
func (s *history) spread(now time.Time, seconds, cores, reserved float64) {
	for h := hourOf(now); seconds > 0 && h >= s.now-hours; h-- {
		part := min(seconds, now.Sub(time.Unix(3600*h, 0)).Seconds())
		if h == s.now {
			l := &s.current
			l.cores.add(cores, part)
			l.peak = max(l.peak, cores)
			l.used += cores * part
			l.reserved += reserved * part
			l.seconds += part
		} else {
			slot := &s.past[index(h)]
			if slot.seconds == 0 {
				s.known++
			}
			slot.p90 = max(slot.p90, pack(cores))
			slot.p95 = max(slot.p95, pack(cores))
			slot.peak = max(slot.peak, pack(cores))
			slot.used = pack(slot.used.value() + cores*part)
			slot.reserved = pack(slot.reserved.value() + reserved*part)
			slot.seconds = pack(slot.seconds.value() + part)
		}
		seconds -= part
		now = time.Unix(3600*h, 0)
	}
}
