package route53

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/berthd/berth/agent"
)

// meters is what the sink has counted since it was made.
type meters struct {
	retries  atomic.Uint64
	held     atomic.Uint64 // refusals of a set by itself
	foreign  atomic.Uint64 // sets that somebody else had changed
	unsynced atomic.Uint64 // changes that were not INSYNC when last asked for

	mu       sync.Mutex
	calls    map[call]uint64
	changes  uint64
	latency  time.Duration // of the last accepted batch
	insync   uint64
	delay    time.Duration // from the last change to INSYNC
	err      error         // of the last call, nil if it succeeded
	zone     hostedZone
	sets     int
	limited  int
	refused  int
	pending  bool
	lastRoom time.Duration // the present window
}

type call struct{ action, result string }

func (m *meters) called(action string, err error) {
	result := "ok"
	if err != nil {
		result = [...]string{"unknown", "throttled", "refused", "denied", "nozone", "failed", "unknown"}[classify(err)]
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.calls == nil {
		m.calls = make(map[call]uint64)
	}
	m.calls[call{action, result}]++
	m.err = err
}

func (m *meters) changed(n int, took time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changes += uint64(n)
	m.latency = took
}

func (m *meters) synced(after time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.insync++
	m.delay = after
}

func (m *meters) lastError() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

// observe takes over what the worker has come to.
func (m *meters) observe(w *worker) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.zone, m.sets, m.pending = w.ledger.Zone, len(w.ledger.Sets), w.pending.id != ""
	m.limited, m.refused = w.heldSets()
	m.lastRoom = w.window(w.ledger.Zone.ID).width
}

// Summary returns the key figures in one line, for people.
func (s *Sink) Summary() string {
	m := &s.meters
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.zone.ID == "" {
		return "no hosted zone yet"
	}
	parts := []string{fmt.Sprintf("%d record sets in %s (%s)", m.sets, m.zone.Name, m.zone.ID)}
	if n := m.limited + m.refused; n > 0 {
		parts = append(parts, fmt.Sprintf("%d refused", n))
	}
	if m.pending {
		parts = append(parts, "changes on their way to the name servers")
	}
	return strings.Join(parts, "; ")
}

// Metrics yields the sink's figures.
func (s *Sink) Metrics(yield func(agent.Sample) bool) {
	for _, sample := range s.samples() {
		if !yield(sample) {
			return
		}
	}
}

func (s *Sink) samples() []agent.Sample {
	m := &s.meters
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []agent.Sample
	add := func(kind agent.SampleKind, name, help string, v float64, labels ...agent.Label) {
		out = append(out, agent.Sample{Name: "berth_route53_" + name, Help: help, Kind: kind, Value: v, Labels: labels})
	}
	for _, c := range slices.SortedFunc(maps.Keys(m.calls), func(a, b call) int {
		return strings.Compare(a.action+" "+a.result, b.action+" "+b.result)
	}) {
		add(agent.Counter, "calls_total", "Calls of the Route 53 API, by action and result.", float64(m.calls[c]),
			agent.Label{Name: "action", Value: c.action}, agent.Label{Name: "result", Value: c.result})
	}
	pending := 0.0
	if m.pending {
		pending = 1
	}
	add(agent.Counter, "changes_total", "Changes that Route 53 has taken.", float64(m.changes))
	add(agent.Gauge, "change_seconds", "How long the last batch of changes took to be taken.", m.latency.Seconds())
	add(agent.Counter, "insync_total", "Changes that were seen to have arrived at all name servers.", float64(m.insync))
	add(agent.Counter, "insync_unknown_total", "Changes that had not arrived at all name servers when last asked for.", float64(m.unsynced.Load()))
	add(agent.Gauge, "insync_seconds", "How long the last change that was followed took to arrive at all name servers.", m.delay.Seconds())
	add(agent.Gauge, "pending", "Whether a change is being followed to the name servers.", pending)
	add(agent.Gauge, "record_sets", "Record sets of this host.", float64(m.sets))
	add(agent.Gauge, "held_record_sets", "Record sets that are refused, by reason.", float64(m.limited), agent.Label{Name: "reason", Value: "limit"})
	add(agent.Gauge, "held_record_sets", "Record sets that are refused, by reason.", float64(m.refused), agent.Label{Name: "reason", Value: "refused"})
	add(agent.Counter, "refusals_total", "Refusals of a record set by itself.", float64(m.held.Load()))
	add(agent.Counter, "retries_total", "Times that a zone could not be written.", float64(m.retries.Load()))
	add(agent.Counter, "foreign_writes_total", "Record sets of this host that somebody else had changed.", float64(m.foreign.Load()))
	add(agent.Gauge, "window_seconds", "Width of the window between batches, which failures widen.", m.lastRoom.Seconds())
	return out
}
