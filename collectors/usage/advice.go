package usage

import "time"

// How advice is kept steady. The moving average of what is used only says that
// something is wrong; what to reserve instead comes from the hourly peaks, and
// the verdict stays until these agree with the reservation.
const (
	// inside is how far inside the band, in cores, a verdict ends.
	inside = 0.05
	// worthwhile is the share by which advice must differ from what is reserved.
	worthwhile = 0.1
	// upAgain and downAgain are how long advice stays before it is raised, or
	// lowered.
	upAgain   = 15 * time.Minute
	downAgain = 24 * time.Hour
	// pressured is the share of the time in which something waited for a CPU
	// from which that matters.
	pressured = 0.1
)

// machine is the state of a verdict on one reservation. It is pure: time and
// figures come from outside.
type machine struct {
	verdict   string // Undersized, Oversized or InBand; "" is InBand
	since     int64  // unix seconds
	low, high int64  // since when it is low, or high; 0 when it is not
	set       int64  // when to was set
	to        float64
}

// signal is what a machine decides by.
type signal struct {
	now    int64 // unix seconds
	low    bool  // below the band
	urgent bool  // and there is no need to wait whether it lasts
	fine   bool  // far enough above its lower end, and the peaks fit
	high   bool  // above the band, and the peaks agree, and nothing speaks against it
	modest bool  // far enough below its upper end, or the peaks do not agree any more
	to     float64
}

// step takes the next signal, and reports whether the verdict or its advice has
// changed.
func (m *machine) step(cfg *AdviceConfig, s signal) bool {
	if m.verdict == "" {
		m.verdict, m.since = InBand, s.now
	}
	// After the clock went back nothing has begun in the future.
	m.since, m.low, m.high, m.set = min(m.since, s.now), min(m.low, s.now), min(m.high, s.now), min(m.set, s.now)
	m.low = begin(m.low, s.low, s.now)
	m.high = begin(m.high, s.high, s.now)
	lasted := func(since int64, d time.Duration) bool { return since != 0 && s.now-since >= int64(d/time.Second) }

	verdict := m.verdict
	switch {
	case s.low && (s.urgent || lasted(m.low, cfg.UndersizedAfter.Std())):
		verdict = Undersized
	case m.verdict == Undersized && s.fine, m.verdict == Oversized && s.modest:
		verdict = InBand
	}
	if verdict == InBand && lasted(m.high, cfg.OversizedAfter.Std()) &&
		(m.set == 0 || lasted(m.set, min(downAgain, cfg.OversizedAfter.Std()))) {
		verdict = Oversized
	}
	changed := verdict != m.verdict
	if changed {
		m.verdict, m.since = verdict, s.now
		if verdict == InBand {
			// What was advised was done, or is not needed any more.
			m.to, m.set = 0, s.now
			return true
		}
		m.to, m.set = s.to, s.now
		return true
	}
	if verdict == InBand {
		return false
	}
	up := s.to >= m.to*(1+worthwhile/2) && lasted(m.set, upAgain)
	down := s.to <= m.to*(1-worthwhile) && lasted(m.set, downAgain)
	if up || down {
		m.to, m.set = s.to, s.now
		return true
	}
	return false
}

// begin returns since when something holds.
func begin(since int64, holds bool, now int64) int64 {
	switch {
	case !holds:
		return 0
	case since == 0:
		return now
	}
	return since
}

// size is what the history of a service says to reserve. It changes with the
// hours, and is worked out once a minute.
type size struct {
	cores     float64 // for the CPU; 0 while nothing is known
	decided   int64   // the hour that decided
	throttled int64   // the last hour that was throttled too much; 0 for none
	memory    float64 // bytes, by the peak alone; 0 while nothing is known
	peak      float64 // bytes: the highest working set
	max       float64 // cores: the highest use
	kills     float64
	seconds   float64 // of history that are covered
}

// memoryMargin is what is added to the highest working set: what a container needs
// beyond it when it grows is not there to be borrowed, as CPU is.
const memoryMargin = 1.15

// sizeOf works out a size at a moment.
func (s *history) sizeOf(critical bool, now time.Time, since time.Time) size {
	var z size
	z.cores, z.decided = s.peak(critical)
	current := s.current.hour()
	for i := s.now - hours; i <= s.now; i++ {
		h, ok := s.at(i)
		if i == s.now {
			h, ok = &current, s.current.seconds > 0 || s.current.kills > 0
		}
		if !ok {
			continue
		}
		z.peak = max(z.peak, h.memory.value())
		z.max = max(z.max, h.peak.value())
		z.kills += h.kills.value()
		if h.throttled.value() > throttledTooMuch {
			z.throttled = i
		}
	}
	z.memory = z.peak * memoryMargin
	z.seconds = 3600 * float64(s.known)
	if s.current.seconds > 0 {
		z.seconds += now.Sub(later(time.Unix(3600*s.now, 0), since)).Seconds()
	}
	return z
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// shortage remembers that the out-of-memory killer came.
type shortage struct {
	at    int64   // unix seconds, the last time; 0 for never
	floor float64 // bytes: what would have been more than enough then
}

// oomMargin and oomExtra are what is added to what was not enough, whichever is
// more.
const (
	oomMargin = 1.2
	oomExtra  = 64 << 20
)

// oomMemory is how long an out-of-memory kill counts.
const oomMemory = hours * time.Hour

// killed notes a kill of a container that was limited to limit bytes (0 for none)
// and had used peak. The floor is made of these, and never of earlier advice:
// were it, a container that is killed over and over because nobody follows the
// advice would be advised to have ever more. Neither is it lowered by a container
// that was killed at less.
func (o *shortage) killed(now int64, limit, peak float64) {
	if o.expired(now) {
		o.floor = 0
	}
	enough := max(limit, peak)
	if enough > 0 {
		o.floor = max(o.floor, enough*oomMargin, enough+oomExtra)
	}
	o.at = max(o.at, now)
}

func (o *shortage) expired(now int64) bool {
	return o.at == 0 || now-o.at > int64(oomMemory/time.Second)
}
