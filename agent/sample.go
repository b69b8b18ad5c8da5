package agent

import "time"

// SampleKind says how a Sample's values add up.
type SampleKind uint8

// A Counter only grows (its value is the total since the component started); a
// Gauge is a level.
const (
	Gauge SampleKind = iota
	Counter
)

// String returns the kind's name in the OpenMetrics text format.
func (k SampleKind) String() string {
	if k == Counter {
		return "counter"
	}
	return "gauge"
}

// Label is one dimension of a sample. An empty value is as good as no label.
type Label struct{ Name, Value string }

// Sample is one measured value.
type Sample struct {
	// Name has the Prometheus form: snake case, base units (seconds, bytes,
	// cores), "_total" at the end of counters, "berth_" in front.
	Name   string
	Help   string // one sentence, the same for every sample of a name
	Kind   SampleKind
	Value  float64
	Labels []Label   // sorted by name, of bounded cardinality
	Time   time.Time // zero means "now"
}
