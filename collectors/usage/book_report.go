package usage

import (
	"cmp"
	"log/slog"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/berthd/berth/agent"
)

// Report implements reporter.
func (b *Book) Report(_ time.Time, hours bool) Report {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := Report{
		At: b.totals.At, LearningHours: b.cfg.History.Std().Hours(),
		Band:     Band{Low: b.cfg.LowCores, High: b.cfg.HighCores, HighShare: b.cfg.HighShare.Ratio()},
		Services: []Row{}, Containers: []Row{}, Host: hostUsage(&b.totals),
	}
	if b.node != nil {
		r.Node = b.node.Node().ID
	}
	for _, s := range b.services {
		row := s.row()
		if hours {
			row.Hours = s.series()
		}
		if at, ok := s.history.oldest(); ok && (r.Since == nil || at.Before(*r.Since)) {
			r.Since = &at
		}
		r.Services = append(r.Services, row)
	}
	for _, t := range b.containers {
		if t.reservation.CPUSource != "" {
			r.Containers = append(r.Containers, t.row())
		}
	}
	slices.SortFunc(r.Services, func(a, b Row) int {
		return cmp.Or(strings.Compare(a.Service, b.Service), strings.Compare(a.Environment, b.Environment), strings.Compare(a.InstanceType, b.InstanceType))
	})
	slices.SortFunc(r.Containers, func(a, b Row) int {
		return cmp.Or(strings.Compare(a.Container, b.Container), strings.Compare(a.ContainerID, b.ContainerID))
	})
	return r
}

func hostUsage(t *Totals) HostUsage {
	h := HostUsage{
		Containers: t.Containers, Unreserved: t.Unreserved, Cores: t.Cores, ReservedCores: t.ReservedCores,
		Memory: t.Memory, ReservedMemory: t.ReservedMemory, UsedMemory: t.UsedMemory,
	}
	if t.Valid {
		used, containers := t.UsedCores, t.Used
		h.UsedCores, h.ContainerUsed = &used, &containers
	}
	return h
}

// oldest returns the beginning of the oldest hour that is remembered.
func (s *history) oldest() (time.Time, bool) {
	for h := s.now - hours; h < s.now; h++ {
		if _, ok := s.at(h); ok {
			return time.Unix(3600*h, 0).UTC(), true
		}
	}
	return time.Unix(3600*s.now, 0).UTC(), s.current.seconds > 0
}

// row returns what a report says of a service.
func (s *service) row() Row {
	r := &s.reservation
	w := Row{
		Service: s.key.service, Environment: s.key.environment, InstanceType: s.key.instanceType,
		Critical: s.critical, Containers: len(s.tenants), HistoryHours: math.Round(s.size.seconds/36) / 100,
		CPU: CPU{
			Reserved: r.Cores, Source: orNone(r.CPUSource), Limit: r.CPULimit,
			// Within the lowest bucket a percentile is a guess.
			P50: min(s.cores.percentile(0.5), s.size.max), P95: min(s.cores.percentile(0.95), s.size.max), Max: s.size.max,
			Verdict: cmp.Or(s.cpuNow.verdict, StillLearning), Reasons: slices.Clone(s.cpuNow.reasons),
		},
		Memory: Memory{
			Reserved: r.Memory, Source: orNone(r.MemorySource), Limit: r.MemoryLimit,
			P50: uint64(min(s.memory.percentile(0.5), s.size.peak)), P95: uint64(min(s.memory.percentile(0.95), s.size.peak)), Max: uint64(s.size.peak),
			OOMKills: uint64(math.Round(s.size.kills)),
			Verdict:  cmp.Or(s.memNow.verdict, StillLearning), Reasons: slices.Clone(s.memNow.reasons),
		},
	}
	if a := s.cpuNow.advice; a > 0 {
		w.CPU.Advice = &a
		decided := time.Unix(3600*s.size.decided, 0).UTC()
		w.CPU.Decided = &decided
	}
	if a := uint64(s.memNow.advice); a > 0 {
		w.Memory.Advice = &a
	}
	if a := s.hourly; a > 0 {
		w.CPU.AdviceNow = &a
	}
	n := 0.0
	var reserved, memory, reservedMemory float64
	for _, t := range s.tenants {
		if t.reservation.CPUSource == "" {
			continue
		}
		n++
		reserved += t.reservation.Cores
		reservedMemory += float64(t.reservation.Memory)
		w.CPU.Used += t.short.value
		w.CPU.Hourly += t.long.value
		memory += t.memory
		if t.hasThrottle {
			v := t.throttled.value
			if w.CPU.Throttled == nil || v > *w.CPU.Throttled {
				w.CPU.Throttled = &v
			}
		}
	}
	if n == 0 {
		return w
	}
	w.CPU.Reserved = reserved / n
	w.CPU.Used /= n
	w.CPU.Hourly /= n
	w.Memory.Reserved = uint64(reservedMemory / n)
	w.Memory.Used = uint64(memory / n)
	w.lie()
	return w
}

// row returns what a report says of a container.
func (t *tenant) row() Row {
	s, r := t.service, &t.reservation
	w := s.row()
	w.Container, w.ContainerID, w.Containers = t.subject.Name, t.run.ID, 1
	w.CPU.Reserved, w.CPU.Source, w.CPU.Limit = r.Cores, orNone(r.CPUSource), r.CPULimit
	w.CPU.Used, w.CPU.Hourly = t.short.value, t.long.value
	w.CPU.Throttled = nil
	if t.hasThrottle {
		v := t.throttled.value
		w.CPU.Throttled = &v
	}
	w.Memory.Reserved, w.Memory.Source, w.Memory.Limit = r.Memory, orNone(r.MemorySource), r.MemoryLimit
	w.Memory.Used = uint64(t.memory)
	w.CPU.LyingFactor, w.Memory.LyingFactor = nil, nil
	w.lie()
	if v, why := verdictOf(w.CPU.Verdict, w.CPU.Source, w.CPU.Reserved, s.cpuNow.advice); why.Code != "" {
		w.CPU.Verdict, w.CPU.Reasons = v, append(w.CPU.Reasons, why)
	}
	if v, why := verdictOf(w.Memory.Verdict, w.Memory.Source, float64(w.Memory.Reserved), s.memNow.advice); why.Code != "" {
		w.Memory.Verdict, w.Memory.Reasons = v, append(w.Memory.Reasons, why)
	}
	return w
}

// verdictOf returns the verdict on a container where it is not that on its service, and
// why: while a new version is rolled out, some reserve what is advised already,
// and what the service reserves is what the latest ones do.
func verdictOf(verdict, source string, reserved, advice float64) (string, Reason) {
	switch {
	case source == SourceNone:
		if verdict != NotReserved {
			return NotReserved, Reason{CodeNone, "unlike others of its service, it reserves nothing"}
		}
	case verdict == NotReserved:
		return StillLearning, Reason{CodeShort, "others of its service reserve nothing, and have no verdict"}
	case verdict == Undersized && reserved >= advice, verdict == Oversized && reserved <= advice:
		return InBand, Reason{CodeWithin, "it reserves already what is advised for its service"}
	}
	return verdict, Reason{}
}

// lie fills in the lying factors.
func (w *Row) lie() {
	if w.CPU.Source != SourceNone {
		v := w.CPU.Reserved - w.CPU.Hourly
		w.CPU.LyingFactor = &v
	}
	if w.Memory.Source != SourceNone {
		v := float64(w.Memory.Reserved) - float64(w.Memory.Used)
		w.Memory.LyingFactor = &v
	}
}

func orNone(source string) string { return cmp.Or(source, SourceNone) }

// series returns all hours that are remembered, and the current one.
func (s *service) series() *Series {
	h := s.history
	out := &Series{}
	from := h.now - hours
	for ; from < h.now; from++ {
		if _, ok := h.at(from); ok {
			break
		}
	}
	out.Start = time.Unix(3600*from, 0).UTC()
	current := h.current.hour()
	columns := []*Values{
		&out.Containers, &out.Reserved, &out.Used, &out.P90, &out.P95, &out.Max, &out.Throttled, &out.Memory, &out.OOMKills,
	}
	for i := from; i <= h.now; i++ {
		slot, ok := h.at(i)
		length := 3600.0
		if i == h.now {
			slot, ok = &current, h.current.seconds > 0
			length = max(1, s.last.Sub(later(time.Unix(3600*i, 0), s.first)).Seconds())
		}
		for _, c := range columns {
			*c = append(*c, math.NaN())
		}
		last := len(out.Containers) - 1
		if !ok {
			out.Containers[last] = 0
			continue
		}
		seconds := slot.seconds.value()
		for c, v := range []float64{
			seconds / length, slot.reserved.value() / seconds, slot.used.value() / seconds, slot.p90.value(), slot.p95.value(), slot.peak.value(),
			slot.throttled.value(), slot.memory.value(), slot.kills.value(),
		} {
			(*columns[c])[last] = v
		}
	}
	return out
}

// Metrics implements agent.Metered: the figures of services, of those that run
// and use most if there are many, and the Book's own.
func (b *Book) Metrics(yield func(agent.Sample) bool) {
	for _, s := range b.figures() {
		if !yield(s) {
			return
		}
	}
}

func (b *Book) figures() []agent.Sample {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []agent.Sample
	add := func(kind agent.SampleKind, name, help string, value float64, labels ...agent.Label) {
		out = append(out, agent.Sample{Name: name, Help: help, Kind: kind, Value: value, Labels: labels})
	}
	st := &b.stats
	add(agent.Gauge, "berth_usage_services", "Services that statistics are kept of.", float64(len(b.services)))
	add(agent.Counter, "berth_usage_observed_total", "Measurements that statistics were made of.", float64(st.observed))
	const unused = "Measurements that no statistics were made of: nonsense, or too many containers."
	add(agent.Counter, "berth_usage_unused_total", unused, float64(st.refused), agent.Label{Name: "reason", Value: "nonsense"})
	add(agent.Counter, "berth_usage_unused_total", unused, float64(st.unkept), agent.Label{Name: "reason", Value: "too_many"})
	add(agent.Counter, "berth_usage_services_evicted_total", "Services whose statistics were forgotten for others, because there are too many.", float64(st.evicted))
	add(agent.Counter, "berth_usage_clock_steps_total", "Times that the clock went back and the statistics with it.", float64(st.clockSteps))
	add(agent.Counter, "berth_usage_saves_total", "Times that the statistics were written to disk.", float64(st.saves))
	add(agent.Counter, "berth_usage_failed_saves_total", "Times that the statistics could not be written to disk.", float64(st.failed))
	add(agent.Gauge, "berth_usage_saved_bytes", "Size of the statistics on disk.", float64(st.bytes))
	for _, kind := range []string{Oversized, Undersized, InBand} {
		add(agent.Counter, "berth_usage_events_total", "Changes of a verdict on a reservation, or of its advice.", float64(st.events[kind]), agent.Label{Name: "state", Value: kind})
	}
	var list []*service
	for _, s := range b.services {
		if len(s.tenants) > 0 {
			list = append(list, s)
		}
	}
	total := func(s *service) float64 {
		sum := 0.0
		for _, t := range s.tenants {
			sum += t.long.value
		}
		return sum
	}
	slices.SortFunc(list, func(a, b *service) int {
		return cmp.Or(cmp.Compare(total(b), total(a)), strings.Compare(a.key.service, b.key.service), strings.Compare(a.key.environment, b.key.environment))
	})
	omitted := max(0, len(list)-mostListed)
	add(agent.Gauge, "berth_usage_services_omitted", "Services without series of their own, because there are too many.", float64(omitted))
	for _, s := range list[:len(list)-omitted] {
		s.figures(add)
	}
	return out
}

func (s *service) figures(add adder) {
	labels := []agent.Label{
		{Name: "environment", Value: s.key.environment},
		{Name: "instance_type", Value: s.key.instanceType},
		{Name: "service", Value: s.key.service},
	}
	gauge := func(name, help string, v float64) { add(agent.Gauge, "berth_service_"+name, help, v, labels...) }
	gauge("containers", "Containers of the service that run.", float64(len(s.tenants)))
	gauge("cpu_p50_cores", "Cores that a container used at most in half of the time; what was a day ago counts half.", min(s.cores.percentile(0.5), s.size.max))
	gauge("cpu_p95_cores", "Cores that a container used at most in 95 % of the time; what was a day ago counts half.", min(s.cores.percentile(0.95), s.size.max))
	gauge("cpu_max_cores", "Cores that a container used at most in eight days.", s.size.max)
	gauge("memory_max_bytes", "Memory that a container used at most in eight days.", s.size.peak)
	if a := s.cpuNow.advice; a > 0 {
		gauge("recommend_cpu_cores", "Cores that a container should reserve.", a)
	}
	if s.hourly > 0 {
		gauge("recommend_cpu_now_cores", "Cores that a container should reserve just now, by the hours of the day.", s.hourly)
	}
	if a := s.memNow.advice; a > 0 {
		gauge("recommend_memory_bytes", "Memory that a container should reserve.", a)
	}
	for _, v := range []string{Undersized, InBand, Oversized, NotReserved, StillLearning} {
		value := 0.0
		if s.cpuNow.verdict == v {
			value = 1
		}
		add(agent.Gauge, "berth_service_cpu_state", "Whether this is the verdict on what the service reserves: 1, or 0.", value, append(slices.Clone(labels), agent.Label{Name: "state", Value: v})...)
	}
}

// exampleBook returns a book with every figure that there is.
func exampleBook(subject *Subject, r *Reservation) *Book {
	log := slog.New(slog.DiscardHandler)
	cfg := DefaultAdviceConfig()
	cfg.History = 0 // so that there is advice at once
	b := NewBook(cfg, agent.Env{Log: log, Health: agent.NewHealth(log)})
	at := time.Unix(0, 0).Add(time.Hour)
	b.Observe(subject, r, &Measurement{
		Run: agent.RunKey{ID: subject.ID}, At: at, Window: time.Minute, Parts: HasMemory,
		Used: Counters{CPU: time.Minute}, Memory: 1 << 30,
	})
	b.Tick(Totals{At: at})
	b.services[keyOf(subject)].hourly = 1
	return b
}
