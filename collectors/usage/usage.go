// Package usage measures what each container uses, and compares it with what
// it reserves.
//
// # What is measured
//
// CPU time, throttling by a quota, CPU pressure (PSI, where the kernel has it),
// memory (the working set: usage less page cache that is easily given back),
// out-of-memory kills, block I/O and network bytes. Each interval (10 s), once
// more when the container exits, and from the start of its run: a container that
// lives for 50 ms is accounted for like any other. Containers in the network of
// the host, or of another container, have no network figures: the counters would
// be somebody else's.
//
// Of a container that has not run since the last interval, its CPU time alone is
// read. Out-of-memory kills, I/O, network and pressure are read each minute (in one
// of six intervals) and at the exit.
//
// The figures are read from the kernel's files through descriptors that stay
// open, never from the engine's stats API, which costs a hundred times as much.
// Both versions of cgroups are read, also side by side. Where a container's
// cgroup is, the kernel says (/proc/PID/cgroup and mountinfo); nothing depends on
// the engine's cgroup driver or on names of parents.
//
// What is used is kept by run: a restarted container begins at zero. Counters
// that go backwards begin anew, windows shorter than half an interval are counted
// into the next one, and those longer than three, because berth was stopped or
// the host suspended, say so (Measurement.Gap): what was used is not lost, but
// says nothing of peaks.
//
// # What is reserved
//
// The first of these that a container has; `berth explain` says which:
//
//	berth      the label berth.cpu (0.5, 2, 250m) and berth.memory (512MiB), or
//	           the variables BERTH_CPU and BERTH_MEMORY
//	marathon   MARATHON_APP_RESOURCE_CPUS and _MEM (MiB)
//	nomad      NOMAD_CPU_CORES, or NOMAD_CPU_LIMIT (MHz, by the clock rate of
//	           this host's cores); NOMAD_MEMORY_LIMIT (MiB)
//	ecs        CPU shares of a container of ECS, 1024 for a core; 2 is none
//	cpus       docker run --cpus
//	quota      docker run --cpu-quota, by --cpu-period
//	shares     docker run --cpu-shares, 1024 for a core
//	soft       docker run --memory-reservation
//	limit      docker run --memory
//
// A setting that is not understood is refused alone, with a condition that names the
// container, and the next source counts. docker update is followed.
//
// Statistics are kept for each service, by environment and type of instance. The
// service is what the label berth.service (or the variable BERTH_SERVICE) or
// com.datadoghq.tags.service (DD_SERVICE) says, else that of ECS, Nomad, Marathon, Swarm or
// docker compose, and without any the image's name; the environment is that of
// berth.environment, BERTH_ENVIRONMENT, com.datadoghq.tags.env, DD_ENV, or the key
// usage.environment.
//
// # What is advised
//
// The lying factor is what a container reserves less the moving average, over an
// hour, of the cores that it uses. Between −0.1 and +0.6 cores it is in order
// (and below half of what is reserved); below, the container lives on what others
// have reserved; above, its reservation is waste. That says that something is
// wrong. What would be right comes from the peaks: for each hour, the level that
// was enough for 90 % of the time (95 % for services in usage.advice.critical),
// and of eight days of hours the highest. No margin is added. An average or one
// percentile of all time would miss a job that runs for an hour a night.
//
//   - A limit hides what is needed. Where it stopped a container in more than 5 %
//     of its active periods, 20 to 50 % more than the limit is advised, and never
//     less than is reserved, until a day has passed without.
//   - A verdict waits: 5 minutes below the band, a day above it, and for less
//     there must be a day of history. It stays until the lying factor is 0.05
//     cores inside the band and the peaks agree. Advice is raised every 15 minutes
//     at most, and lowered once a day.
//   - Memory is sized by the highest working set of eight days and 15 % more. An
//     out-of-memory kill counts at once and for eight days: a fifth or 64 MiB more
//     than the limit or the use at that time, whichever is most, but not more than
//     earlier advice, which nobody may have followed.
//   - With usage.advice.hourly, it is told besides what to reserve just now: the
//     95th percentile of this hour of the day and the next two, on the highest of
//     eight days. That leaves less unused, and changes ten times a day: it is for
//     hosts that resize containers as they run.
//   - Advice is at least 0.01 cores and 16 MiB, rounded up to 1/128 core (1/1024
//     below a quarter) and 8 MiB.
//
// The figures are kept in the state folder, once a minute: a restart of berth
// forgets nothing. `+"`berth usage <service>`"+` gives the grounds. How well this does
// on loads that are known is measured by test/bench/advice, and on your own traces
// by Simulate.
//
// # How the end is not missed
//
// The kernel removes a container's cgroup about 10 ms after its process has
// exited, and the engine tells of it later. berth holds a pidfd of the process,
// which tells at once. So that short containers are held in time, inotify tells
// of cgroups as they are made, before the container has started; which run of
// which container they are, the engine may say later.
//
// Where a system call for this is missing or forbidden, a condition says so:
// without pidfd_open (Linux 5.3), a container's last partial interval is lost;
// without inotify, containers that live for less than about 50 ms are missed.
// Close to the limit of descriptors, files are opened for each reading. On a host
// with several times more to do than it has cores, exits are missed unless berth
// may run at once: allow it CAP_SYS_NICE and RestrictRealtime=no in a drop-in of
// berth.service. It asks for the lowest real-time priority then, for the reading
// at an exit alone. berth_usage_exits_total counts what was missed.
//
// # Conservation
//
// What all containers use, subtracted from what the host uses, is
// berth_node_cpu_other_cores. Where the cgroups that containers' cgroups are made
// in hold nothing else (/docker, but not system.slice), what they used beyond
// their containers is berth_node_cpu_unattributed_cores: it is about zero, or
// something is missed.
package usage

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/berthd/berth/agent"
)

// Name is the component's name.
const Name = "usage"

// Usage is the collector. Make it with New. Its methods are safe for concurrent
// use, but Run is called once.
type Usage struct {
	cfg    Config
	log    *slog.Logger
	health *agent.Scope
	nodes  agent.NodeSource
	book   book
	host   host

	mu      sync.Mutex
	sampler *sampler // nil while Run does not run
}

// New returns the collector, or an error that joins all that is wrong with cfg.
func New(cfg Config, env agent.Env) (*Usage, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("check usage config: %w", err)
	}
	return newUsage(cfg, env, NewBook(cfg.Advice, env)), nil
}

func newUsage(cfg Config, env agent.Env, b book) *Usage {
	u := &Usage{
		cfg: cfg, log: env.Log, health: env.Health.Scope(Name), nodes: env.Node,
		book: b, host: thisHost(),
	}
	u.health.Declare("sampling", agent.SeverityError, 0)
	for _, condition := range []string{"exits", "births", "descriptors", "cgroups", "settings"} {
		u.health.Declare(condition, agent.SeverityWarning, 0)
	}
	return u
}

// forget is a book that keeps nothing.
type forget struct{}

func (forget) Baseline(agent.RunKey) (Baseline, bool)       { return Baseline{}, false }
func (forget) Observe(*Subject, *Reservation, *Measurement) {}
func (forget) Ended(*Subject, *Reservation, Ending)         {}
func (forget) Tick(Totals)                                  {}

// Name returns "usage".
func (u *Usage) Name() string { return Name }

// OnEvent sets who is told of events, besides the log; f must not block. Call it
// before Run.
func (u *Usage) OnEvent(f func(Event)) {
	if b, ok := u.book.(*Book); ok {
		b.OnEvent(f)
	}
}

// keeper is a book that outlives the process: Open is called before its other
// methods, and Run, which keeps it, beside them.
type keeper interface {
	Open()
	Run(context.Context) error
}

// Run measures until ctx ends, and returns nil then.
func (u *Usage) Run(ctx context.Context, f agent.Feed) error {
	if b, ok := u.book.(keeper); ok {
		b.Open()
		// The last measurements are to be kept, too.
		inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
		var keeping sync.WaitGroup
		defer keeping.Wait()
		defer cancel()
		keeping.Go(func() { _ = b.Run(inner) })
	}
	return u.loop(ctx, f)
}

func (u *Usage) settings() settings {
	return settings{
		interval:    u.cfg.Interval.Std(),
		environment: u.cfg.Environment,
		mhz:         cmp.Or(float64(u.cfg.CoreMHz), coreMHz(u.host.proc)),
	}
}

func (u *Usage) node() string {
	if u.nodes == nil {
		return ""
	}
	return u.nodes.Node().ID
}
