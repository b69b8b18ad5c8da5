package usage

import "math"

// The grain of a recommendation: it is rounded up, to what people and schedulers
// can write down, and never less than the floor.
const (
	coreGrain   = 1.0 / 128
	fineGrain   = 1.0 / 1024 // one CPU share; below fineBelow, where 1/128 would be much
	fineBelow   = 0.25       // cores
	coreFloor   = 0.01
	memoryGrain = 8 << 20
	memoryFloor = 16 << 20
)

// roundCores returns what to write for a demand in cores.
func roundCores(v float64) float64 {
	grain := coreGrain
	if v < fineBelow {
		grain = fineGrain
	}
	return math.Ceil(max(v, coreFloor)/grain-1e-9) * grain
}

// roundMemory returns what to write for a demand in bytes.
func roundMemory(v float64) float64 {
	return math.Ceil(max(v, memoryFloor)/memoryGrain-1e-9) * memoryGrain
}

// partialHour is how many seconds of the current hour say something of it, unless
// there is nothing else.
const partialHour = 600

// peak returns the cores that would have been enough for one container in all
// hours that are remembered, and the hour that decided: the largest of the
// hourly 90th percentiles, or the 95th where critical. No margin is added, and
// none is needed: the highest of 192 hours is far above the usual one. An average
// or a percentile of all time, however long, never sees a job that runs for one
// hour a night.
func (s *history) peak(critical bool) (cores float64, at int64) {
	for i := s.now - hours; i < s.now; i++ {
		if h, ok := s.at(i); ok {
			if d := h.demand(h.percentile(critical)); d >= cores {
				cores, at = d, i
			}
		}
	}
	if s.current.seconds >= partialHour || s.known == 0 {
		h := s.current.hour()
		if d := h.demand(h.percentile(critical)); d >= cores {
			cores, at = d, s.now
		}
	}
	return cores, at
}

func (h *hour) percentile(critical bool) compact {
	if critical {
		return h.p95
	}
	return h.p90
}

// sameHour returns the most that hour h needed on any of the last eight days, and
// on how many of them anything is known.
func (s *history) sameHour(h int64) (cores float64, days int) {
	for back := s.lastSame(h); back >= s.now-hours; back -= 24 {
		if slot, ok := s.at(back); ok {
			cores = max(cores, slot.demand(slot.p95))
			days++
		}
	}
	return cores, days
}

// lastSame returns the latest hour that is over and is the same of its day as h.
func (s *history) lastSame(h int64) int64 { return h - 24*(floorDiv(h-s.now, 24)+1) }

// ahead is how many further hours the hour-of-day profile looks ahead: jobs start
// late and early, and a reservation must be there before they do.
const ahead = 2

// profile returns what to reserve in hour h, by the hours of the day: the most
// that this hour and the next ones needed on any of the last eight days.
func (s *history) profile(h int64) float64 {
	var cores float64
	for i := range int64(ahead + 1) {
		c, _ := s.sameHour(h + i)
		cores = max(cores, c)
	}
	return cores
}

// hourly returns what to reserve in the present hour, by the profile, and by the
// hour before where that needed more; 0 where one of the hours that the profile
// looks at has never been seen: it may be the one that matters.
func (s *history) hourly() float64 {
	for i := range int64(ahead + 1) {
		if _, days := s.sameHour(s.now + i); days == 0 {
			return 0
		}
	}
	return roundCores(max(s.profile(s.now), s.latest()))
}

// latest returns what the hour needed that is just over, or 0.
func (s *history) latest() float64 {
	if h, ok := s.at(s.now - 1); ok {
		return h.demand(h.p95)
	}
	return 0
}
