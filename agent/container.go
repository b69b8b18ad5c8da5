package agent

import (
	"net/netip"
	"time"
)

// State is the life-cycle state of a container, in the words of the Docker API
// (`State.Status` of `GET /containers/{id}/json`).
type State string

// The states that an engine reports. Running and Paused have processes; the
// others do not.
const (
	StateCreated    State = "created"
	StateRunning    State = "running"
	StatePaused     State = "paused"
	StateRestarting State = "restarting"
	StateRemoving   State = "removing"
	StateExited     State = "exited"
	StateDead       State = "dead"
)

// HealthStatus is the verdict of a container's own HEALTHCHECK.
type HealthStatus string

// HealthNone is the verdict of a container without a HEALTHCHECK; the others
// are those of the Docker API (`State.Health.Status`).
const (
	HealthNone      HealthStatus = ""
	HealthStarting  HealthStatus = "starting"
	HealthHealthy   HealthStatus = "healthy"
	HealthUnhealthy HealthStatus = "unhealthy"
)

// Container is what berth knows of one container: the part of an inspect that
// some collector needs. A Container reachable from a Snapshot is immutable and
// safe for concurrent use; copy it before changing it.
type Container struct {
	ID         string // 64 hexadecimal digits
	Name       string // without the leading slash
	Image      string // the reference that the container was created from
	ImageID    string // "sha256:…"
	Labels     map[string]string
	Env        map[string]string // only keys on the engine's allow-list, never logged
	State      State
	Health     HealthStatus
	CreatedAt  time.Time
	StartedAt  time.Time // start of the current or last run; zero before the first
	FinishedAt time.Time // end of the last run; zero while the first one lasts
	ExitCode   int       // of the last run
	PID        int       // of the container's first process; 0 unless running or paused

	// StopSignal is the number of the signal that `docker stop` sends, and
	// StopTimeout how long it waits before it kills.
	StopSignal  int
	StopTimeout time.Duration

	// NetworkMode is "bridge", "host", "none", "container:<id>" or the name of
	// a user-defined network, as `HostConfig.NetworkMode` has it.
	NetworkMode string
	Endpoints   []Endpoint // sorted by Network
	Ports       []Port     // sorted; exposed and published ones

	Resources Resources // what it reserves and is limited to
	Mounts    []string  // folders and files of the host that are mounted into it; sorted
	OOMKilled bool      // the kernel's out-of-memory killer ended the last run

	// StoppingSince is when the engine sent the stop signal (or 9) to the
	// present run, and zero when it did not. It is cleared by a new start, or
	// when the container still runs after max(StopTimeout, the loop's stop
	// hold): then it took the signal for something else.
	StoppingSince time.Time
}

// Running reports whether the container has live, unpaused processes.
func (c *Container) Running() bool { return c.State == StateRunning }

// Alive reports whether the container has processes at all: running or paused.
func (c *Container) Alive() bool { return c.State == StateRunning || c.State == StatePaused }

// ShortID returns the first twelve digits of the ID, as docker prints it.
func (c *Container) ShortID() string { return ShortID(c.ID) }

// Run returns the key of the container's current or last run.
func (c *Container) Run() RunKey {
	if c.StartedAt.IsZero() {
		return RunKey{ID: c.ID}
	}
	return RunKey{ID: c.ID, StartedAt: c.StartedAt.UnixNano()}
}

// ShortID returns the first twelve characters of id, or all of a shorter one.
func ShortID(id string) string {
	if len(id) > 12 {
		return id[:12]
	}
	return id
}

// Resources is what a container was given by those who started it, as
// `HostConfig` of an inspect has it. 0 and "" mean that it was not said. What
// shares mean depends on who set them: see each scheduler.
type Resources struct {
	NanoCPUs     int64  // docker run --cpus, in 1e-9 cores: a limit
	CPUQuota     int64  // µs of CPU time in each period: a limit; -1 for none
	CPUPeriod    int64  // µs; the kernel's default is 100,000
	CPUShares    int64  // relative weight; the kernel's default is 1024
	Cpuset       string // the CPUs that it may use, as "0-2,7"
	Memory       int64  // bytes: a limit
	MemoryLow    int64  // bytes: a reservation (MemoryReservation)
	CgroupParent string // the cgroup that its own one is made in
}

// Endpoint is a container's attachment to one network.
type Endpoint struct {
	Network   string // the network's name
	NetworkID string
	IPv4      netip.Addr // invalid when the container has none (yet)
	IPv6      netip.Addr // global address; invalid when none
}

// Port is one container port, with one address of the host that is mapped to
// it. A port published on several addresses appears once for each.
type Port struct {
	Container uint16 // the port inside the container
	Proto     string // "tcp", "udp" or "sctp"

	// Host is the address and port on the host. Its Port is 0 when the
	// container port is exposed but not published; its Addr is the unspecified
	// address of a family when published on all of the host's addresses.
	Host netip.AddrPort
}

// Published reports whether a port of the host is mapped to this one.
func (p Port) Published() bool { return p.Host.Port() != 0 }

// Network is one network of the engine.
type Network struct {
	ID       string
	Name     string
	Driver   string // "bridge", "host", "overlay", …
	Internal bool   // no way out: published ports do not work
	Bridge   string // the interface of a bridge network ("docker0"), or ""
	Gateways []netip.Addr
	Subnets  []netip.Prefix
}

// RunKey identifies one run of one container: a container that is restarted
// keeps its ID, but nothing measured of its earlier run holds any longer.
type RunKey struct {
	ID        string
	StartedAt int64 // nanoseconds since 1970, the engine's clock; 0 if it never ran
}

// DeadRun is one run that ended.
type DeadRun struct {
	Container  *Container // as it was last known, with the run's StartedAt
	FinishedAt time.Time
	RemovedAt  time.Time // when the container itself went; zero while it is there
}

// Key returns the run's key.
func (d DeadRun) Key() RunKey { return d.Container.Run() }
