package usage

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"time"
)

// Event says that the verdict on a reservation of a service has changed, or what
// is advised.
type Event struct {
	At           time.Time `json:"at"`
	Kind         string    `json:"kind"`     // Oversized, Undersized or InBand
	Resource     string    `json:"resource"` // "cpu" or "memory"
	Service      string    `json:"service"`
	Environment  string    `json:"environment,omitempty"`
	InstanceType string    `json:"instance_type,omitempty"`
	// From is what a container reserves, and To what it should, in cores or
	// bytes. To is 0 where there is nothing to change.
	From    float64  `json:"from"`
	To      float64  `json:"to,omitempty"`
	Reasons []Reason `json:"reasons"`
	// Confidence is the share of the eight days that is known, from 0 to 1.
	Confidence float64 `json:"confidence"`
}

// The resources of an Event.
const (
	ResourceCPU    = "cpu"
	ResourceMemory = "memory"
)

// Title says in a line what has happened.
func (e *Event) Title() string {
	name := e.Service
	if e.Environment != "" {
		name += " (" + e.Environment + ")"
	}
	what := e.amount(e.From)
	switch e.Kind {
	case Undersized:
		return fmt.Sprintf("%s needs more %s: it reserves %s, and should reserve %s", name, e.noun(), what, e.amount(e.To))
	case Oversized:
		return fmt.Sprintf("%s needs less %s: it reserves %s, and %s is enough", name, e.noun(), what, e.amount(e.To))
	}
	return fmt.Sprintf("%s reserves the right amount of %s again: %s", name, e.noun(), what)
}

// Text gives the reasons, one in a line.
func (e *Event) Text() string {
	var lines []string
	for _, r := range e.Reasons {
		lines = append(lines, r.Why)
	}
	return strings.Join(lines, "\n")
}

func (e *Event) noun() string {
	if e.Resource == ResourceCPU {
		return "CPU"
	}
	return "memory"
}

func (e *Event) amount(v float64) string {
	if e.Resource == ResourceCPU {
		return coresText(v)
	}
	return bytesText(v)
}

func (e *Event) log(log *slog.Logger) {
	level := slog.LevelInfo
	if e.Kind == Undersized {
		level = slog.LevelWarn
	}
	codes := make([]string, 0, len(e.Reasons))
	for _, r := range e.Reasons {
		codes = append(codes, r.Code)
	}
	log.Log(context.Background(), level, "usage: "+e.Title(), "kind", e.Kind, "resource", e.Resource, "service", e.Service,
		"environment", e.Environment, "reasons", strings.Join(codes, ","))
}

// coresText writes cores as people do: two digits behind the point, three where
// there are few.
func coresText(v float64) string {
	digits := 2
	if math.Abs(v) < 0.1 && v != 0 {
		digits = 3
	}
	word := " cores"
	if math.Abs(v-1) < 0.005 {
		word = " core"
	}
	return fmt.Sprintf("%.*f%s", digits, v, word)
}

func bytesText(v float64) string {
	if v >= 1<<30 {
		return fmt.Sprintf("%.2f GiB", v/(1<<30))
	}
	return fmt.Sprintf("%.0f MiB", v/(1<<20))
}

// present is the present use of a service's containers. They need not all reserve
// the same, as while a new version is rolled out: what is said of one is said with
// its own reservation.
type present struct {
	worst, worstShort float64 // lying factors: the lowest one
	reserved          float64 // cores, by the container with the lowest
	most              float64 // cores: the highest average of an hour
	throttled         float64 // the highest share
	limit             float64 // cores, of the container that is throttled most
	pressure          float64 // the highest, of containers that reserve CPU
	used              float64 // share of what is reserved, by the container with most pressure
	waiting           float64 // cores that it reserves
	memory            float64 // the highest working set
}

func (s *service) present() present {
	u := present{worst: math.Inf(1), worstShort: math.Inf(1), reserved: s.reservation.Cores, limit: s.reservation.CPULimit}
	for _, t := range s.tenants {
		if t.reservation.CPUSource == "" {
			continue
		}
		u.most = max(u.most, t.long.value)
		u.memory = max(u.memory, t.memory)
		if t.hasThrottle && t.throttled.value > u.throttled {
			u.throttled, u.limit = t.throttled.value, t.reservation.CPULimit
		}
		if t.reservation.CPUSource == SourceNone {
			continue // it has no lying factor
		}
		if lf := t.reservation.Cores - t.long.value; lf < u.worst {
			u.worst, u.reserved = lf, t.reservation.Cores
		}
		u.worstShort = min(u.worstShort, t.reservation.Cores-t.short.value)
		if t.pressure.value > u.pressure {
			u.pressure, u.used, u.waiting = t.pressure.value, t.short.value/max(t.reservation.Cores, coreFloor), t.reservation.Cores
		}
	}
	return u
}

// judge works out the verdicts at a moment, and appends what has changed.
func (s *service) judge(cfg *AdviceConfig, now time.Time, told []Event) []Event {
	if s.sized.IsZero() || now.Sub(s.sized) >= resize || s.size.seconds < partialHour {
		s.size = s.history.sizeOf(s.critical, now, s.first)
		s.sized = now
		s.hourly = 0
		if cfg.Hourly && !s.learning(cfg) {
			s.hourly = s.history.hourly()
		}
	}
	u := s.present()
	event := func(resource, kind string, from float64, n *verdictNow, to float64) Event {
		return Event{
			At: now, Kind: kind, Resource: resource, From: from, To: to, Reasons: n.reasons,
			Service: s.key.service, Environment: s.key.environment, InstanceType: s.key.instanceType,
			Confidence: min(1, s.size.seconds/(3600*hours)),
		}
	}
	if s.judgeCPU(cfg, now, &u) {
		told = append(told, event(ResourceCPU, s.cpu.verdict, s.reservation.Cores, &s.cpuNow, s.cpu.to))
	}
	if s.judgeMemory(cfg, now, &u) {
		told = append(told, event(ResourceMemory, s.mem.verdict, float64(s.reservation.Memory), &s.memNow, s.mem.to))
	}
	return told
}

func (s *service) learning(cfg *AdviceConfig) bool {
	// A gap of a minute does not matter.
	return s.size.seconds < cfg.History.Std().Seconds()*0.99
}

// targetCPU returns what a container should reserve by its peaks and by what
// stops it, and whether the highest hour was stopped.
func (s *service) targetCPU(u *present) float64 {
	to := max(s.size.cores, u.most)
	if u.throttled > throttledTooMuch {
		to = max(to, u.limit*stepUp(u.throttled))
	}
	if u.pressed() {
		to = max(to, u.waiting*stepUp(throttledTooMuch+0.001))
	}
	return roundCores(to)
}

// nearlyAll is the share of its reservation from which a container that waits for
// CPUs may do so because it reserves too little.
const nearlyAll = 0.8

// pressed reports whether a container waits for CPUs because it reserves too
// little: one that uses little of what it reserves waits for other reasons.
func (u *present) pressed() bool {
	return u.pressure > pressured && u.used > nearlyAll
}

func (s *service) judgeCPU(cfg *AdviceConfig, now time.Time, u *present) bool {
	n := &s.cpuNow
	n.advice, n.reasons = 0, n.reasons[:0:0]
	r := &s.reservation
	known := s.size.cores > 0
	to := s.targetCPU(u)
	if r.CPUSource == SourceNone || r.CPUSource == "" {
		n.verdict = NotReserved
		s.cpu = machine{}
		n.because(CodeNone, "it reserves no CPU, so that there is no lying factor")
		if s.learning(cfg) {
			n.because(CodeShort, "%s are known, and advice takes %s", hoursText(s.size.seconds), hoursText(cfg.History.Std().Seconds()))
		} else if known {
			n.advice = to
			n.because(CodePeak, "%s", s.peakText())
		}
		return false
	}
	alive := !math.IsInf(u.worst, 1)
	throttled := alive && u.throttled > throttledTooMuch
	recent := s.history.now-s.size.throttled < 24 && s.size.throttled != 0
	pressed := alive && u.pressed()
	below := alive && u.worst < cfg.LowCores && u.worstShort < cfg.LowCores
	high := cfg.high(r.Cores)
	above := alive && u.worst > high
	less := known && to <= r.Cores*(1-worthwhile)
	sig := signal{
		now:    now.Unix(),
		low:    below && to > u.reserved || throttled && to > r.Cores || pressed && to > u.waiting,
		fine:   (!alive || u.worst > cfg.LowCores+inside) && !throttled && !pressed && to <= r.Cores*(1+worthwhile),
		high:   above && less && !throttled && !recent && !pressed && !s.learning(cfg),
		modest: alive && u.worst < high-inside || to > r.Cores*(1-worthwhile/2) || throttled || recent,
		to:     to,
	}
	changed := s.cpu.step(cfg, sig)
	n.verdict = s.cpu.verdict
	switch {
	case below:
		n.because(CodeBelow, "it uses %s more than the %s that it reserves, on average of an hour", coresText(-u.worst), coresText(u.reserved))
	case above && n.verdict == Oversized:
		n.because(CodeAbove, "it leaves %s of the %s unused that it reserves, on average of an hour", coresText(u.worst), coresText(u.reserved))
	case alive && n.verdict == InBand && !above:
		n.because(CodeWithin, "reserved less used is %s, between %.2f and %.2f", coresText(u.worst), cfg.LowCores, high)
	}
	if throttled {
		n.because(CodeThrottled, "its limit of %s stops it in %.0f %% of the periods in which it works, so that what it uses says less than it needs", coresText(u.limit), 100*u.throttled)
	} else if recent {
		n.because(CodeThrottled, "its limit stopped it in more than %.0f %% of the periods at %s", 100*throttledTooMuch, hourText(s.size.throttled))
	}
	if pressed {
		n.because(CodePressure, "something in it waits for a CPU in %.0f %% of the time", 100*u.pressure)
	}
	switch {
	case n.verdict == Undersized || n.verdict == Oversized:
		n.advice = s.cpu.to
		n.because(CodePeak, "%s", s.peakText())
	case s.learning(cfg):
		n.verdict = StillLearning
		n.because(CodeShort, "%s are known, and advice to reserve less takes %s", hoursText(s.size.seconds), hoursText(cfg.History.Std().Seconds()))
	case known:
		n.advice = to
		n.because(CodePeak, "%s", s.peakText())
		if above && !less {
			n.because(CodeSmall, "%s would not be %.0f %% less than it reserves", coresText(to), 100*worthwhile)
		} else if above && s.cpu.set != 0 && now.Unix()-s.cpu.set < int64(downAgain/time.Second) {
			n.because(CodeCooldown, "the verdict has changed in the last day")
		} else if above && !recent && s.cpu.high != 0 {
			n.because(CodeAbove, "it has left %s unused since %s; that counts when it lasts for %v", coresText(u.worst), time.Unix(s.cpu.high, 0).UTC().Format("15:04 MST"), cfg.OversizedAfter)
		}
	}
	if n.advice > 0 && n.advice <= coreFloor+fineGrain {
		n.because(CodeFloor, "less than that is never advised")
	}
	return changed
}

func (n *verdictNow) because(code, format string, args ...any) {
	n.reasons = append(n.reasons, Reason{code, fmt.Sprintf(format, args...)})
}

// peakText says which hour decided.
func (s *service) peakText() string {
	share := 90
	if s.critical {
		share = 95
	}
	if s.size.seconds < 2*3600 {
		return fmt.Sprintf("in the %s that are known, %s were enough for %d %% of the time", hoursText(s.size.seconds), coresText(s.size.cores), share)
	}
	return fmt.Sprintf("in its highest hour of %s, that of %s, %s were enough for %d %% of the time",
		hoursText(s.size.seconds), hourText(s.size.decided), coresText(s.size.cores), share)
}

func hourText(h int64) string { return time.Unix(3600*h, 0).UTC().Format("Mon 15:04 MST") }

func hoursText(seconds float64) string {
	switch {
	case seconds < 120:
		return fmt.Sprintf("%.0f seconds", seconds)
	case seconds < 2*3600:
		return fmt.Sprintf("%.0f minutes", seconds/60)
	}
	if seconds < 48*3600 {
		return fmt.Sprintf("%.0f hours", seconds/3600)
	}
	return fmt.Sprintf("%.1f days", seconds/86400)
}

// The bounds within which a reservation of memory is left alone: memory has no
// lying factor to speak of, because what is reserved and unused is not lost to
// the cache.
const (
	muchMemory = 0.75     // of what is reserved: less than this is enough
	someMemory = 64 << 20 // bytes that must be gained
)

func (s *service) judgeMemory(cfg *AdviceConfig, now time.Time, u *present) bool {
	n := &s.memNow
	n.advice, n.reasons = 0, n.reasons[:0:0]
	r := &s.reservation
	reserved := float64(r.Memory)
	killed := !s.oom.expired(now.Unix())
	to := s.size.memory
	if killed {
		to = max(to, s.oom.floor)
	}
	known := to > 0
	to = roundMemory(to)
	none := r.MemorySource == SourceNone || r.MemorySource == ""
	if none && !killed {
		n.verdict = NotReserved
		s.mem = machine{}
		n.because(CodeNone, "it reserves no memory")
		if known && !s.learning(cfg) {
			n.advice = to
			n.because(CodePeak, "%s", s.memoryText())
		}
		return false
	}
	short := killed && s.oom.floor > 0 && max(reserved, float64(r.MemoryLimit)) < s.oom.floor*(1-worthwhile/2)
	over := u.memory > reserved
	sig := signal{
		now: now.Unix(), low: (short || over) && to > reserved, urgent: short,
		fine:   !short && s.size.peak <= reserved,
		high:   known && !killed && to <= reserved*muchMemory && reserved-to >= someMemory && !s.learning(cfg),
		modest: killed || to > reserved*(muchMemory+inside),
		to:     to,
	}
	changed := s.mem.step(cfg, sig)
	n.verdict = s.mem.verdict
	if killed {
		n.because(CodeOOM, "the out-of-memory killer came last at %s; %s would have been enough then", time.Unix(s.oom.at, 0).UTC().Format("Mon 15:04 MST"), bytesText(s.oom.floor))
	}
	if over {
		n.because(CodeBelow, "it uses %s, and reserves %s", bytesText(u.memory), bytesText(reserved))
	}
	switch {
	case n.verdict == Undersized || n.verdict == Oversized:
		n.advice = s.mem.to
		if s.size.peak > 0 {
			n.because(CodePeak, "%s", s.memoryText())
		}
	case s.learning(cfg):
		n.verdict = StillLearning
		n.because(CodeShort, "%s are known, and advice to reserve less takes %s", hoursText(s.size.seconds), hoursText(cfg.History.Std().Seconds()))
	case known:
		n.advice = to
		n.because(CodePeak, "%s", s.memoryText())
	}
	return changed
}

func (s *service) memoryText() string {
	return fmt.Sprintf("it used %s at most in %s; advice is %.0f %% more", bytesText(s.size.peak), hoursText(s.size.seconds), 100*(memoryMargin-1))
}
