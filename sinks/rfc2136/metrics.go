package rfc2136

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
	mu      sync.Mutex
	results map[string]uint64 // messages, by "applied" or the kind of failure

	records atomic.Int64
	skew    atomic.Int64 // nanoseconds
}

func (m *meters) count(result string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.results == nil {
		m.results = make(map[string]uint64)
	}
	m.results[result]++
}

func (m *meters) snapshot() map[string]uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := maps.Clone(m.results)
	if out == nil {
		out = make(map[string]uint64)
	}
	out["applied"] += 0 // there from the start
	return out
}

// Summary returns the key figures in one line, for people.
func (s *Sink) Summary() string {
	return fmt.Sprintf("%d records at %s; %d updates", s.meters.records.Load(),
		strings.Join(s.cfg.Servers, ", "), s.meters.snapshot()["applied"])
}

// Metrics yields the sink's figures.
func (s *Sink) Metrics(yield func(agent.Sample) bool) {
	results := s.meters.snapshot()
	for _, result := range slices.Sorted(maps.Keys(results)) {
		if !yield(agent.Sample{
			Name: "berth_rfc2136_messages_total", Help: "Updates sent to name servers, by result.",
			Kind: agent.Counter, Value: float64(results[result]),
			Labels: []agent.Label{{Name: "result", Value: result}},
		}) {
			return
		}
	}
	_ = yield(agent.Sample{
		Name: "berth_rfc2136_records", Help: "Records of this host that are in the zone, or may be.",
		Value: float64(s.meters.records.Load()),
	}) && yield(agent.Sample{
		Name: "berth_rfc2136_clock_skew_seconds", Help: "How far this host's clock is ahead of the name server's.",
		Value: time.Duration(s.meters.skew.Load()).Seconds(),
	})
}
