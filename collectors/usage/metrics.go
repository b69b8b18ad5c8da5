package usage

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/berthd/berth/agent"
)

// stats are the sampler's counters.
type stats struct {
	cells        uint64 // cgroups seen
	births       uint64 // of them, those seen before the engine told of them
	readings     uint64
	measurements uint64
	finals       uint64 // measurements that were taken at an exit
	missedFinals uint64 // exits at which nothing could be read any more
	tooLate      uint64 // containers whose process was gone before it was looked at
	unclaimed    uint64 // cgroups that the engine never told a run of
	unclaimedCPU time.Duration
	backwards    uint64 // counters that had gone backwards
	resumed      uint64 // runs that an earlier berth had measured
	errors       uint64
	refused      uint64
	overflows    uint64 // of inotify
	unheld       uint64 // containers whose files are opened each time
	held         int    // pidfds
	sweeps       uint64
	sweepTime    time.Duration
	lastSweep    time.Duration
}

// mostListed bounds how many containers have series of their own: those that
// use most.
const mostListed = 500

// Summary returns the key figures in one line, for people.
func (u *Usage) Summary() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.sampler == nil {
		return errOff.Error()
	}
	t, st := u.sampler.totals, u.sampler.stats
	line := "the first measurement is to come"
	if st.sweeps > 0 {
		line = fmt.Sprintf("%d containers reserve %.2f of %g cores", t.Containers, t.ReservedCores, t.Cores)
	}
	if t.Valid {
		line += fmt.Sprintf(" and use %.2f", t.Used)
	}
	if st.finals+st.missedFinals > 0 {
		line += fmt.Sprintf(", %d of %d exits measured", st.finals, st.finals+st.missedFinals+st.tooLate)
	}
	if !u.sampler.pidfds {
		line += ", exits are polled for"
	}
	if u.sampler.watch.fd < 0 {
		line += ", births are not seen"
	}
	if st.unheld > 0 {
		line += ", files are opened for each reading"
	}
	return line
}

// Metrics yields the component's figures, those of the host and of its
// containers, and what the book has to say.
func (u *Usage) Metrics(yield func(agent.Sample) bool) {
	batch := u.figures()
	for _, s := range batch {
		if !yield(s) {
			return
		}
	}
	if m, ok := u.book.(agent.Metered); ok {
		m.Metrics(yield)
	}
}

func (u *Usage) figures() []agent.Sample {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := u.sampler
	if s == nil {
		s = new(sampler)
	}
	var out []agent.Sample
	add := func(kind agent.SampleKind, name, help string, value float64, labels ...agent.Label) {
		out = append(out, agent.Sample{Name: name, Help: help, Kind: kind, Value: value, Labels: labels})
	}
	st := &s.stats
	add(agent.Counter, "berth_usage_sweeps_total", "Times that all containers were measured.", float64(st.sweeps))
	add(agent.Counter, "berth_usage_sweep_seconds_total", "Time that measuring all containers took.", st.sweepTime.Seconds())
	add(agent.Counter, "berth_usage_readings_total", "Readings of a container's kernel files.", float64(st.readings))
	add(agent.Counter, "berth_usage_measurements_total", "Measurements of containers.", float64(st.measurements))
	const exits = "Exits of containers, by whether their last figures were measured: yes, lost (the cgroup was gone), late (it was never seen)."
	result := func(word string) agent.Label { return agent.Label{Name: "measured", Value: word} }
	add(agent.Counter, "berth_usage_exits_total", exits, float64(st.finals), result("yes"))
	add(agent.Counter, "berth_usage_exits_total", exits, float64(st.missedFinals), result("lost"))
	add(agent.Counter, "berth_usage_exits_total", exits, float64(st.tooLate), result("late"))
	add(agent.Counter, "berth_usage_unclaimed_total", "Cgroups of containers that the engine told no run of.", float64(st.unclaimed))
	add(agent.Counter, "berth_usage_unclaimed_cpu_seconds_total", "CPU time of cgroups that the engine told no run of.", st.unclaimedCPU.Seconds())
	add(agent.Counter, "berth_usage_resets_total", "Counters of the kernel that had gone backwards.", float64(st.backwards))
	add(agent.Counter, "berth_usage_errors_total", "Readings that failed though the container runs.", float64(st.errors))
	add(agent.Counter, "berth_usage_refused_total", "Settings of containers that are not understood.", float64(st.refused))
	add(agent.Counter, "berth_usage_watch_overflows_total", "Times that cgroups were made faster than they were looked at.", float64(st.overflows))
	add(agent.Gauge, "berth_usage_open_files", "Descriptors that are held to measure containers.", float64(s.read.opened+st.held))
	if st.sweeps > 0 {
		s.nodeFigures(add)
		s.containerFigures(add)
	}
	return out
}

type adder = func(kind agent.SampleKind, name, help string, value float64, labels ...agent.Label)

// nodeFigures are those of the host.
func (s *sampler) nodeFigures(add adder) {
	t := &s.totals
	add(agent.Gauge, "berth_node_cpu_cores", "Cores of the host that are online.", t.Cores)
	add(agent.Gauge, "berth_node_cpu_reserved_cores", "Cores that running containers reserve.", t.ReservedCores)
	add(agent.Gauge, "berth_node_memory_bytes", "Memory of the host.", float64(t.Memory))
	add(agent.Gauge, "berth_node_memory_reserved_bytes", "Memory that running containers reserve.", float64(t.ReservedMemory))
	add(agent.Gauge, "berth_node_memory_used_bytes", "Memory of the host that is not available.", float64(t.UsedMemory))
	add(agent.Gauge, "berth_node_containers_unreserved", "Running containers that reserve no CPU.", float64(t.Unreserved))
	add(agent.Gauge, "berth_node_reservation_state", "What schedulers see, and no ground to scale by: 2 if 90 % of the host's cores or memory are reserved, 0 if less than half of both are, else 1.", float64(reservationState(t)))
	if !t.Valid {
		return
	}
	add(agent.Gauge, "berth_node_cpu_used_cores", "Cores that the host used in the last interval.", t.UsedCores)
	add(agent.Gauge, "berth_node_cpu_container_cores", "Cores that containers used in the last interval.", t.Used)
	add(agent.Gauge, "berth_node_cpu_other_cores", "Cores that all but containers used in the last interval.", t.Other)
	if !math.IsNaN(t.Unattributed) {
		add(agent.Gauge, "berth_node_cpu_unattributed_cores", "Cores that the parents of containers' cgroups used beyond the containers.", t.Unattributed)
	}
}

// The bounds of the reservation state.
const reservedMuch, reservedLittle = 0.9, 0.5

func reservationState(t *Totals) int {
	cpu, memory := t.ReservedCores/max(t.Cores, 1), float64(t.ReservedMemory)/max(float64(t.Memory), 1)
	switch {
	case cpu >= reservedMuch || memory >= reservedMuch:
		return 2
	case cpu < reservedLittle && memory < reservedLittle:
		return 0
	}
	return 1
}

// containerFigures are those of the containers that run, of the last interval.
func (s *sampler) containerFigures(add adder) {
	var cells []*cell
	for _, list := range s.cells {
		for _, c := range list {
			if !c.over && c.c != nil && c.measured {
				cells = append(cells, c)
			}
		}
	}
	slices.SortFunc(cells, func(a, b *cell) int {
		return cmp.Or(cmp.Compare(b.m.Cores(), a.m.Cores()), cmp.Compare(a.id, b.id))
	})
	omitted := max(0, len(cells)-mostListed)
	add(agent.Gauge, "berth_usage_containers_omitted", "Containers without series of their own, because there are too many.", float64(omitted))
	for _, c := range cells[:len(cells)-omitted] {
		c.figures(add)
	}
}

func (c *cell) figures(add adder) {
	labels := []agent.Label{
		{Name: "container", Value: c.subject.Name},
		{Name: "container_id", Value: agent.ShortID(c.id)},
		{Name: "environment", Value: c.subject.Environment},
		{Name: "instance_type", Value: c.subject.InstanceType},
		{Name: "reserved_source", Value: c.reservation.CPUSource},
		{Name: "service", Value: c.subject.Service},
	}
	gauge := func(name, help string, v float64) { add(agent.Gauge, "berth_container_"+name, help, v, labels...) }
	counter := func(name, help string, v float64) { add(agent.Counter, "berth_container_"+name, help, v, labels...) }
	m, r, total := &c.m, &c.reservation, &c.base.total
	gauge("cpu_used_cores", "Cores that the container used in the last interval.", m.Cores())
	counter("cpu_seconds_total", "CPU time that the present run has used.", total.CPU.Seconds())
	if r.CPUSource != SourceNone {
		gauge("cpu_reserved_cores", "Cores that the container reserves.", r.Cores)
		gauge("cpu_lying_factor_cores", "Reserved less used cores: below zero it takes what others have reserved, far above it is waste.", r.Cores-m.Cores())
	}
	if r.CPULimit > 0 {
		gauge("cpu_limit_cores", "Cores that the container cannot exceed.", r.CPULimit)
	}
	if m.Parts.Has(HasThrottling) && r.CPULimit > 0 {
		ratio := 0.0
		if m.Used.Periods > 0 {
			ratio = float64(m.Used.Throttled) / float64(m.Used.Periods)
		}
		gauge("cpu_throttled_ratio", "Share of the active periods of the last interval in which the container was stopped for its quota.", ratio)
	}
	if !math.IsNaN(c.pressure) {
		gauge("cpu_pressure_some_ratio", "Share of the time in which a task waited for a CPU, of six intervals.", c.pressure)
	}
	if m.Parts.Has(HasMemory) {
		gauge("memory_working_set_bytes", "Memory in use, without page cache that is easily given back.", float64(m.Memory))
	}
	if r.MemorySource != SourceNone {
		gauge("memory_reserved_bytes", "Memory that the container reserves.", float64(r.Memory))
	}
	if r.MemoryLimit > 0 {
		gauge("memory_limit_bytes", "Memory that the container cannot exceed.", float64(r.MemoryLimit))
	}
	have := c.base.parts
	if have.Has(HasOOM) {
		counter("memory_oom_kills_total", "Processes of the present run that the out-of-memory killer took.", float64(total.OOMKills))
	}
	if have.Has(HasNet) {
		counter("network_receive_bytes_total", "Bytes that the present run received.", float64(total.NetRx))
		counter("network_transmit_bytes_total", "Bytes that the present run sent.", float64(total.NetTx))
	}
	if have.Has(HasIO) {
		counter("io_read_bytes_total", "Bytes that the present run read from block devices.", float64(total.IORead))
		counter("io_written_bytes_total", "Bytes that the present run wrote to block devices.", float64(total.IOWrite))
	}
}

// Example returns a collector that has measured one container and does not run:
// it shows every figure that there is, for the reference of metrics.
func Example() agent.Metered {
	every := HasThrottling | HasPressure | HasMemory | HasOOM | HasNet | HasIO
	c := &cell{
		id: "0123456789ab", c: new(agent.Container), measured: true,
		subject: Subject{
			ID: "0123456789ab", Name: "calc-1", Service: "calc", Environment: "prod", InstanceType: "m5.large",
		},
		reservation: Reservation{Cores: 1, CPUSource: SourceOwn, Memory: 1 << 30, MemorySource: SourceOwn, CPULimit: 2, MemoryLimit: 1 << 31},
		m:           Measurement{Window: 10 * time.Second, Parts: every},
		base:        reading{parts: every},
	}
	s := &sampler{cells: map[string][]*cell{c.id: {c}}, totals: Totals{Valid: true}}
	s.stats.sweeps = 1
	return &Usage{sampler: s, book: exampleBook(&c.subject, &c.reservation)}
}
