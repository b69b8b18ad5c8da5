package usage

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/journal"
)

// The bounds of a Book. A service takes about 7 KiB, a container half of one.
const (
	// mostServices is how many services are remembered: as many as fit a snapshot
	// on disk (see persist.go). Of more, those that were seen last stay.
	mostServices   = 2000
	mostContainers = 20000
	// forgotten is after which time without a measurement a container that
	// nobody has said to be over is.
	forgotten = time.Hour
	// shortTau and longTau are the time constants of the moving averages, seconds.
	shortTau = 300
	longTau  = 3600
	// resize is how often what to reserve is worked out anew.
	resize = time.Minute
	// recentEvents is how many events are kept for those who ask.
	recentEvents = 100
)

// Book keeps the statistics of services and of the containers that run, and says
// what they should reserve. Make it with NewBook. Observe, Ended, Tick and
// Baseline are called from one goroutine, the others from any.
type Book struct {
	cfg      AdviceConfig
	log      *slog.Logger
	health   *agent.Scope
	node     agent.NodeSource // may be nil
	path     string           // of the journal; empty for none
	boot     string           // of the host; empty when not known
	interval time.Duration    // between snapshots on disk
	notify   func(Event)      // may be nil

	mu         sync.Mutex
	clock      clock
	totals     Totals
	services   map[serviceKey]*service
	containers map[agent.RunKey]*tenant
	restored   map[agent.RunKey]Baseline // of runs that have not been measured yet
	events     []Event                   // newest last
	stats      bookStats
	journal    *journal.Journal // nil while it is not open
}

// bookStats are the counters of a Book.
type bookStats struct {
	observed, refused    uint64 // measurements; those that make no sense
	evicted              uint64 // services that were forgotten for others
	unkept               uint64 // measurements of containers beyond the bound
	clockSteps           uint64
	events               map[string]uint64 // by kind
	saves, failed, bytes uint64
}

// serviceKey is what statistics are kept by.
type serviceKey struct{ service, environment, instanceType string }

func keyOf(s *Subject) serviceKey {
	return serviceKey{s.Service, s.Environment, s.InstanceType}
}

// service is what is known of one service in one environment on one type of
// instance.
type service struct {
	key      serviceKey
	critical bool
	history  *history
	cores    histogram // of a container, decaying
	memory   histogram
	oom      shortage
	first    time.Time // measurement
	last     time.Time

	reservation Reservation // the latest
	tenants     []*tenant   // that run

	size   size
	sized  time.Time
	hourly float64 // cores: what to reserve just now; 0 while not known
	cpu    machine
	mem    machine
	cpuNow verdictNow
	memNow verdictNow
}

// verdictNow is the latest verdict with its grounds, as a report has it.
type verdictNow struct {
	verdict string
	advice  float64 // 0 while not known
	reasons []Reason
}

// tenant is a run of a container.
type tenant struct {
	run         agent.RunKey
	subject     Subject
	reservation Reservation
	service     *service
	short, long average // cores
	throttled   average // share of active periods, over longTau
	pressure    average
	hasThrottle bool
	memory      float64
	memoryPeak  float64
	kills       float64
	at          time.Time // of the last measurement
	base        Baseline
}

// NewBook returns an empty book. Run restores and keeps it.
func NewBook(cfg AdviceConfig, env agent.Env) *Book {
	b := &Book{
		cfg: cfg, log: env.Log, health: env.Health.Scope(Name), node: env.Node,
		boot: bootID(), interval: time.Minute,
		services: make(map[serviceKey]*service), containers: make(map[agent.RunKey]*tenant),
		restored: make(map[agent.RunKey]Baseline),
	}
	b.stats.events = make(map[string]uint64)
	if env.StateDir != "" {
		b.path = filepath.Join(env.StateDir, "usage.journal")
	}
	b.health.Declare("statistics", agent.SeverityWarning, 0)
	return b
}

// OnEvent sets who is told of events, besides the log: f is called from the
// goroutine that calls Tick, and must not block. Call it before Run.
func (b *Book) OnEvent(f func(Event)) { b.notify = f }

// Open restores what an earlier berth has kept. Call it before all others; it is
// an error of nobody when that cannot be done, but a condition.
func (b *Book) Open() { b.restore() }

// Run keeps the book on disk until ctx ends, and once more then.
func (b *Book) Run(ctx context.Context) error {
	b.keep(ctx)
	return nil
}

// Baseline implements book.
func (b *Book) Baseline(run agent.RunKey) (Baseline, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	base, ok := b.restored[run]
	delete(b.restored, run)
	return base, ok
}

// now returns the time to keep statistics by, and moves them if the clock went
// back.
func (b *Book) now(wall time.Time) time.Time {
	at, back := b.clock.now(wall.Round(0).UTC())
	if back != 0 {
		b.stats.clockSteps++
		b.log.Warn("the clock went back; statistics move with it", "hours", -back)
		for _, s := range b.services {
			s.history.shift(back)
			d := time.Duration(back) * time.Hour
			s.first, s.last, s.sized = s.first.Add(d), s.last.Add(d), time.Time{}
			s.cores.ref += d.Seconds()
			s.memory.ref += d.Seconds()
			if s.oom.at != 0 {
				s.oom.at += int64(d.Seconds())
			}
		}
		for _, t := range b.containers {
			t.at = t.at.Add(time.Duration(back) * time.Hour)
		}
	}
	return at
}

// Observe implements book.
func (b *Book) Observe(subject *Subject, r *Reservation, m *Measurement) {
	b.mu.Lock()
	defer b.mu.Unlock()
	seconds := m.Window.Seconds()
	if seconds <= 0 || m.Used.CPU < 0 {
		b.stats.refused++
		return
	}
	b.stats.observed++
	now := b.now(m.At)
	t := b.tenant(subject, r, m.Run, now)
	if t == nil {
		b.stats.unkept++
		return
	}
	t.take(r, m, now)
	t.service.take(t, m, now)
}

// tenant returns the run's, which it makes if need be; nil beyond the bound.
func (b *Book) tenant(subject *Subject, r *Reservation, run agent.RunKey, now time.Time) *tenant {
	t := b.containers[run]
	if t == nil {
		if len(b.containers) >= mostContainers {
			return nil
		}
		t = &tenant{run: run}
		b.containers[run] = t
	} else if t.subject == *subject {
		return t
	}
	if t.service == nil || t.service.key != keyOf(subject) {
		t.leave()
		t.service = b.service(keyOf(subject), now)
		t.service.tenants = append(t.service.tenants, t)
	}
	t.subject = *subject
	return t
}

// leave takes a run out of its service's list.
func (t *tenant) leave() {
	if t.service == nil {
		return
	}
	list := t.service.tenants
	for i, other := range list {
		if other == t {
			list[i] = list[len(list)-1]
			list[len(list)-1] = nil
			t.service.tenants = list[:len(list)-1]
			return
		}
	}
}

// service returns the key's, which it makes if need be.
func (b *Book) service(key serviceKey, now time.Time) *service {
	s := b.services[key]
	if s == nil {
		if len(b.services) >= mostServices {
			b.evict()
		}
		s = newService(key, &b.cfg)
		s.first = now
		b.services[key] = s
	}
	return s
}

func newService(key serviceKey, cfg *AdviceConfig) *service {
	return &service{
		key: key, critical: cfg.critical(key.service), history: newHistory(),
		cores:  histogram{first: firstCores, weights: make([]float32, coreBuckets)},
		memory: histogram{first: firstMemory, weights: make([]float32, memoryBuckets)},
	}
}

// evict forgets the service that was seen longest ago. Containers of it that run
// begin anew.
func (b *Book) evict() {
	var oldest *service
	for _, s := range b.services {
		if oldest == nil || len(s.tenants) < 1 && len(oldest.tenants) > 0 ||
			(len(s.tenants) < 1) == (len(oldest.tenants) < 1) && s.last.Before(oldest.last) {
			oldest = s
		}
	}
	for _, t := range oldest.tenants {
		delete(b.containers, t.run)
	}
	delete(b.services, oldest.key)
	b.stats.evicted++
}

// take adds a measurement to the run's own averages.
func (t *tenant) take(r *Reservation, m *Measurement, now time.Time) {
	seconds := m.Window.Seconds()
	cores := m.Cores()
	t.reservation = *r
	t.at = now
	t.base = m.Total
	t.short.add(cores, seconds, shortTau)
	t.long.add(cores, seconds, longTau)
	if m.Parts.Has(HasThrottling) && r.CPULimit > 0 {
		ratio := 0.0
		if m.Used.Periods > 0 {
			ratio = float64(m.Used.Throttled) / float64(m.Used.Periods)
		}
		t.hasThrottle = true
		t.throttled.add(ratio, seconds, longTau)
	} else {
		t.hasThrottle = false
	}
	if m.Parts.Has(HasPressure) {
		t.pressure.add(m.Pressure(), m.StalledIn.Seconds(), shortTau)
	}
	if m.Parts.Has(HasMemory) {
		t.memory = float64(m.Memory)
		t.memoryPeak = max(t.memoryPeak, t.memory)
	}
}

// take adds a measurement to the statistics of the service.
func (s *service) take(t *tenant, m *Measurement, now time.Time) {
	seconds, cores := m.Window.Seconds(), m.Cores()
	s.reservation = t.reservation
	s.last = now
	s.history.turn(hourOf(now))
	unix := float64(now.Unix())
	l := &s.history.current
	if m.Gap {
		// So long a mean says nothing of peaks, and is not of this hour alone.
		s.history.spread(now, seconds, cores, t.reservation.Cores)
	} else {
		l.cores.add(cores, seconds)
		l.peak = max(l.peak, cores)
		l.used += m.Used.CPU.Seconds()
		l.reserved += t.reservation.Cores * seconds
		l.seconds += seconds
		s.cores.addAt(cores, seconds, unix)
		if m.Parts.Has(HasThrottling) && t.reservation.CPULimit > 0 {
			l.periods += float64(m.Used.Periods)
			l.throttled += float64(m.Used.Throttled)
			if m.Used.Throttled > 0 {
				l.limit = max(l.limit, t.reservation.CPULimit)
			}
		}
	}
	if m.Parts.Has(HasMemory) {
		l.memory = max(l.memory, float64(m.Memory))
		s.memory.addAt(float64(m.Memory), min(seconds, 3600), unix)
	}
	if m.Parts.Has(HasOOM) && m.Used.OOMKills > 0 {
		t.kills += float64(m.Used.OOMKills)
		l.kills += float64(m.Used.OOMKills)
		s.oom.killed(now.Unix(), float64(t.reservation.MemoryLimit), t.memoryPeak)
	}
}

// Ended implements book.
func (b *Book) Ended(subject *Subject, r *Reservation, e Ending) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.containers[e.Run]
	if e.OOMKilled && (t == nil || t.kills == 0) {
		// Also of one that was never measured: it may have died of it at once.
		at := e.At.Round(0).UTC()
		if s := b.service(keyOf(subject), at); s.oom.at < at.Unix() {
			peak := float64(r.Memory)
			if t != nil {
				peak = t.memoryPeak
			}
			s.oom.killed(at.Unix(), float64(r.MemoryLimit), peak)
			s.reservation = *r
			s.last = later(s.last, at)
			s.history.turn(hourOf(later(b.clock.at, at)))
			s.history.current.kills++
		}
	}
	if t != nil {
		t.leave()
		delete(b.containers, e.Run)
	}
	delete(b.restored, e.Run)
}

// Tick implements book.
func (b *Book) Tick(totals Totals) {
	b.mu.Lock()
	var told []Event
	b.totals = totals
	if !totals.At.IsZero() {
		now := b.now(totals.At)
		for run, t := range b.containers {
			if now.Sub(t.at) > forgotten {
				t.leave()
				delete(b.containers, run)
			}
		}
		for _, s := range b.services {
			s.history.turn(hourOf(now))
			told = s.judge(&b.cfg, now, told)
		}
		if !b.clock.from.IsZero() {
			told = nil // while the clock is in doubt, nothing is said
		}
		for _, e := range told {
			b.stats.events[e.Kind]++
			b.events = append(b.events, e)
		}
		if n := len(b.events) - recentEvents; n > 0 {
			b.events = append(b.events[:0], b.events[n:]...)
		}
	}
	b.mu.Unlock()
	for _, e := range told {
		e.log(b.log)
		if b.notify != nil {
			b.notify(e)
		}
	}
}
