package agent

import (
	"slices"
	"time"
)

// LoopConfig holds the loop's intervals and bounds. The defaults suit every
// host that we know of.
type LoopConfig struct {
	Resync         time.Duration // between two full lists
	StopHold       time.Duration // how long a stop signal is believed while the container still runs
	ListTimeout    time.Duration // for one list
	InspectTimeout time.Duration // for one inspect
	Workers        int           // inspects in flight at once
	DeadRetention  time.Duration // how long an ended run stays in Snapshot.Dead
	MaxDead        int           // how many ended runs are kept at most; the oldest go first
}

// DefaultLoopConfig returns the defaults.
func DefaultLoopConfig() LoopConfig {
	return LoopConfig{
		Resync:         time.Minute,
		StopHold:       time.Minute,
		ListTimeout:    30 * time.Second,
		InspectTimeout: 10 * time.Second,
		Workers:        16,
		DeadRetention:  time.Hour,
		MaxDead:        4096,
	}
}

// state is all that the loop knows. It belongs to one goroutine. Nothing in it
// reads a clock, does I/O or draws random numbers: the same inputs at the same
// times give the same effects in the same order, which is what lets a
// simulation replay a million of them from a seed.
type state struct {
	cfg LoopConfig

	// mark is the logical clock. Whatever makes knowledge doubtful takes the
	// next mark; an answer that was asked for before the newest mark of its
	// container is too old to be believed.
	mark    uint64
	entries map[string]*entry
	timed   map[string]*entry // those with a retry or a stop hold pending
	queue   queue

	session    session
	containers list // the list of containers
	networks   list // the list of networks
	knownNets  []Network
	node       Node
	dead       deadRuns

	changed bool // since the last snapshot
	stats   LoopStats
}

// LoopStats counts what the loop has asked of the engine, since it started.
type LoopStats struct {
	Events         uint64 `json:"events"`
	Lists          uint64 `json:"lists"`
	NetworkLists   uint64 `json:"network_lists"`
	Inspects       uint64 `json:"inspects"`
	Connects       uint64 `json:"connects"`
	Stale          uint64 `json:"stale"`          // answers discarded because they were too old
	Contradictions uint64 `json:"contradictions"` // rows that gave the lie to what events had told
}

// session is one connection to the engine.
type session struct {
	gen         uint64
	up          bool      // identified, and the stream has not ended
	complete    bool      // all was listed and inspected since it came up
	mark        uint64    // when it came up
	since       time.Time // when it came up
	info        EngineInfo
	err         error     // why it is down
	reconnectAt time.Time // when to try again; zero while trying or up
	backoff     time.Duration
	lastEvent   time.Time // the engine's clock
}

// list is the state of one kind of list.
type list struct {
	token   uint64    // of the one in flight, 0 if none
	mark    uint64    // when it was asked for
	asked   time.Time // likewise
	done    bool      // one has succeeded in this session
	again   bool      // asked for once more while one was in flight
	due     time.Time // when the next one is; zero while in flight
	fails   int       // in a row
	err     error
	backoff time.Duration
}

// entry is what the loop knows of one container.
type entry struct {
	id string
	c  *Container // as last inspected, plus what events told since; nil before the first inspect

	dirty    uint64 // the newest mark
	inflight uint64 // the mark that the inspect in flight was asked with, 0 if none
	checked  uint64 // the mark of the newest inspect that was answered
	queued   bool

	err     error // why the last inspect failed
	fails   int   // in a row
	backoff time.Duration
	retryAt time.Time

	killed     time.Time // the newest signal that may mean "stop", the engine's clock
	killSignal int

	// A row that contradicts what an inspect keeps saying is not worth an
	// inspect a minute: futile counts those in a row that changed nothing, and
	// skip how many more such rows to let pass.
	byRow        bool
	futile, skip int
	futileRow    Row // the last one that led to an inspect

	futileEarliest, futileLatest time.Time // bounds of its run's start
}

func newState(cfg LoopConfig) *state {
	return &state{
		cfg:     cfg,
		entries: make(map[string]*entry),
		timed:   make(map[string]*entry),
		dead:    newDeadRuns(cfg),
	}
}

// track keeps e in the map of those that wait for a moment, or out of it.
func (s *state) track(e *entry) {
	if e.retryAt.IsZero() && e.holdEnds(s.cfg).IsZero() {
		delete(s.timed, e.id)
	} else {
		s.timed[e.id] = e
	}
}

// entry returns what is known of a container, an empty entry if nothing is.
func (s *state) entry(id string) *entry {
	e := s.entries[id]
	if e == nil {
		e = &entry{id: id}
		s.entries[id] = e
	}
	return e
}

// markDirty makes everything that is known of a container doubtful.
func (s *state) markDirty(e *entry) {
	s.mark++
	e.dirty = s.mark
	e.retryAt = time.Time{}
	s.enqueue(e)
	s.track(e)
}

// setStopping recomputes StoppingSince.
func (s *state) setStopping(e *entry, now time.Time) {
	if e.c == nil {
		return
	}
	if at := e.stopping(e.c, s.cfg, now); !at.Equal(e.c.StoppingSince) {
		c := *e.c
		c.StoppingSince = at
		e.c = &c
		s.changed = true
	}
}

// stopping returns what StoppingSince of c, a state of this container, is now.
func (e *entry) stopping(c *Container, cfg LoopConfig, now time.Time) time.Time {
	means := e.killSignal == sigKill || e.killSignal == c.StopSignal
	if !means || !c.Alive() || !e.killed.After(c.StartedAt) || !now.Before(e.killed.Add(hold(c, cfg))) {
		return time.Time{}
	}
	return e.killed
}

// hold is how long a stop signal is believed. The engine kills after the
// container's own time-out, unless `docker stop -t` said otherwise, which no
// event tells: StopHold covers the usual values of that.
func hold(c *Container, cfg LoopConfig) time.Duration { return max(c.StopTimeout, cfg.StopHold) }

func (e *entry) holdEnds(cfg LoopConfig) time.Time {
	if e.c == nil || e.c.StoppingSince.IsZero() {
		return time.Time{}
	}
	return e.c.StoppingSince.Add(hold(e.c, cfg))
}

func sortedKeys[V any](m map[string]V) []string {
	if len(m) == 0 {
		return nil
	}
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
