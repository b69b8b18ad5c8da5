package usage

import (
	"time"

	"github.com/berthd/berth/agent"
)

// Parts says which figures of a Counters or Measurement are there: a kernel
// without PSI, a container in the host's network, or a file that could not be
// read leaves some of them out. What is not there is 0.
type Parts uint8

// The parts that a container's kernel files may or may not tell.
const (
	HasThrottling Parts = 1 << iota // Periods, Throttled, ThrottledTime
	HasPressure                     // Stalled, Measurement.StalledIn
	HasMemory                       // Measurement.Memory
	HasOOM                          // OOMKills
	HasNet                          // NetRx, NetTx; never in the host's network
	HasIO                           // IORead, IOWrite
)

// Has reports whether all of the given parts are there.
func (p Parts) Has(want Parts) bool { return p&want == want }

// Counters are what the kernel adds up for one run of one container. CPU is
// always there; for the others see Parts.
type Counters struct {
	CPU time.Duration // CPU time, of all CPUs together

	// Periods are enforcement periods of the CPU quota (100 ms as a rule) in
	// which the container wanted to run, Throttled those in which it was stopped
	// for having used up its quota, and ThrottledTime how long its CPUs stood
	// still. There are none without a quota.
	Periods, Throttled uint64
	ThrottledTime      time.Duration

	// Stalled is how long at least one task waited for a CPU: "some" of
	// cpu.pressure (PSI).
	Stalled time.Duration

	OOMKills        uint64 // processes that the out-of-memory killer took, children too
	NetRx, NetTx    uint64 // bytes, of all interfaces but the loopback
	IORead, IOWrite uint64 // bytes, of all block devices
}

// Baseline is the state of a run's counters at one moment. What a run used in a
// window is the difference of two.
type Baseline struct {
	At    time.Time
	Parts Parts
	Total Counters
}

// Measurement is what one run of one container used between two reads of its
// cgroup.
type Measurement struct {
	Run    agent.RunKey
	At     time.Time     // end of the window, by the wall clock
	Window time.Duration // its length, by the monotonic clock of the two reads; > 0

	Parts Parts // what of Used is there
	// Used is what was used in the window. Stalled, OOMKills and the figures of
	// network and I/O are read once in six windows and at the exit: they are there
	// only then, and of all the time since the last ones.
	Used Counters
	// StalledIn is the time that Stalled is of; > 0 where there is one.
	StalledIn time.Duration

	// Memory is the working set at At, in bytes: usage less inactive_file, as
	// the kernel would need to take it back from somebody else.
	Memory uint64

	// Total is what a later berth continues from; see the consumer's Baseline.
	Total Baseline

	// Gap says that the window is longer than three intervals, because berth did
	// not run or stood still: what was used counts, but a mean over so long says
	// nothing of peaks.
	Gap bool

	// First says that the window begins at the start of the run, Final that it
	// ends at its exit: a short run has one measurement which is both.
	First, Final bool
}

// Cores returns the mean of the cores that were used.
func (m *Measurement) Cores() float64 { return m.Used.CPU.Seconds() / m.Window.Seconds() }

// Pressure returns the share of the time in which a task waited for a CPU; 0
// where Parts lacks HasPressure.
func (m *Measurement) Pressure() float64 {
	if m.StalledIn <= 0 {
		return 0
	}
	return min(1, m.Used.Stalled.Seconds()/m.StalledIn.Seconds())
}

// Where a reservation comes from, in the order in which they are asked.
const (
	SourceOwn      = "berth"    // berth's own label or variable
	SourceMarathon = "marathon" // MARATHON_APP_RESOURCE_…
	SourceNomad    = "nomad"    // NOMAD_CPU_CORES, NOMAD_CPU_LIMIT, NOMAD_MEMORY_LIMIT
	SourceECS      = "ecs"      // the shares that the ECS agent sets
	SourceCPUs     = "cpus"     // docker run --cpus
	SourceQuota    = "quota"    // docker run --cpu-quota
	SourceShares   = "shares"   // docker run --cpu-shares
	SourceSoft     = "soft"     // docker run --memory-reservation
	SourceLimit    = "limit"    // docker run --memory
	SourceNone     = "none"     // nothing is reserved
)

// Reservation is what a container asked for, and apart from that what it is
// limited to.
type Reservation struct {
	Cores        float64 // 0 with SourceNone
	CPUSource    string
	Memory       uint64 // bytes; 0 with SourceNone
	MemorySource string

	CPULimit    float64 // cores: the least of quota and cpuset; 0 for none
	MemoryLimit uint64  // bytes; 0 for none
}

// Subject is who is measured: a container, and the service that it is one of.
// Service, Environment and InstanceType are never made of what containers can
// vary without bound, but how many there are is up to who names them.
type Subject struct {
	ID, Name     string // of the container; the full ID
	Service      string // never empty: the image's name, where nobody says
	Environment  string // may be empty
	InstanceType string // of the host; empty off EC2
	Critical     bool   // its owner wants it sized with more room
}

// Ending is the end of a run.
type Ending struct {
	Run       agent.RunKey
	At        time.Time // by the engine's clock
	ExitCode  int
	OOMKilled bool // as the engine has it
}

// Totals are those of the host after a sweep of all containers.
type Totals struct {
	At         time.Time
	Containers int // running ones

	Cores      float64 // of the host, that are online
	Memory     uint64  // of the host, bytes
	UsedMemory uint64  // MemTotal less MemAvailable of /proc/meminfo

	ReservedCores  float64 // of all running containers that reserve any
	ReservedMemory uint64
	Unreserved     int // running containers without a reservation of CPU

	// The following are means of the time since the last sweep, and not there
	// after the first one.
	Valid     bool
	UsedCores float64 // by the whole host
	Used      float64 // by its containers
	// Other is UsedCores less Used: what is no container. Unattributed is what
	// the cgroups in which all containers are have used beyond their containers,
	// where there is nothing else in these; otherwise NaN.
	Other, Unattributed float64
}

// book is who keeps the measurements. Its methods are called from one goroutine.
// What the pointers lead to is borrowed until the method returns.
type book interface {
	// Baseline returns what is known of a run from before a restart of berth,
	// of the same boot of the host. It is called once for each run, before its
	// first Observe.
	Baseline(agent.RunKey) (Baseline, bool)
	// Observe takes one measurement: for each container once in an interval,
	// and at its exit. It does not allocate for a container that it knows.
	Observe(*Subject, *Reservation, *Measurement)
	// Ended says that a run is over: after its final measurement if there was
	// one, and also of runs that were never measured. A run that ended before
	// berth started is told of at each start.
	Ended(*Subject, *Reservation, Ending)
	// Tick follows each sweep of all containers.
	Tick(Totals)
}
