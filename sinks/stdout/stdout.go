// Package stdout is the dry run: a sink of every kind that writes what it would
// do as lines of JSON, and touches nothing else.
//
// A line of a change of records has the operation first, then the record as a
// zone file writes it, then its parts, so that both people and jq can read it:
//
//	{"op":"create","record":"_calc._tcp.example. 10 IN SRV 1 1 32768 i-1.example.","zone":"example.","name":"_calc._tcp.example.","type":"SRV","ttl":10,"value":"1 1 32768 i-1.example."}
//	{"op":"delete","record":"i-1.example. 10 IN A 192.0.2.1",…}
//
// and one of a sample:
//
//	{"op":"sample","name":"berth_container_cpu_seconds_total","kind":"counter","value":1.5,"labels":{"container":"calc"},"time":"2026-01-02T15:04:05Z"}
//
// The sink remembers what it wrote, so that only differences are printed. It
// remembers nothing across a restart.
package stdout

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/berthd/berth/agent"
)

// Name is the component's name in logs and health conditions.
const Name = "stdout"

// The longest and the shortest pause between two tries to write.
const (
	minPause = 100 * time.Millisecond
	maxPause = 10 * time.Second
)

// Sink writes lines to one writer. It is a RecordSink and a MetricSink at once;
// its methods are safe for concurrent use, and lines are never mixed up.
type Sink struct {
	health *agent.Scope

	mu   sync.Mutex // guards w and torn
	w    io.Writer
	torn bool // the last write ended inside a line

	applied atomic.Uint64
	held    []agent.Record // what has been printed; belongs to Run
}

var (
	_ agent.RecordSink = (*Sink)(nil)
	_ agent.MetricSink = (*Sink)(nil)
)

// New returns a sink that writes to w.
func New(w io.Writer, env agent.Env) *Sink {
	return &Sink{health: env.Health.Scope(Name), w: w}
}

// Name returns "stdout".
func (s *Sink) Name() string { return Name }

// Applied returns the number of the newest set whose changes have been written.
func (s *Sink) Applied() uint64 { return s.applied.Load() }

// Run writes the changes from each desired set to the next until ctx ends. A
// writer that fails is tried again for ever.
func (s *Sink) Run(ctx context.Context, want agent.Desired) error {
	retry := time.NewTimer(0)
	retry.Stop()
	defer retry.Stop()
	pause := minPause
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-want.Changed():
		case <-retry.C:
		}
		set, seq := want.Records()
		if seq == 0 {
			continue
		}
		err := s.reconcile(set)
		s.health.Set("write", err, "see where standard output goes")
		if err != nil {
			retry.Reset(pause)
			pause = min(2*pause, maxPause)
			continue
		}
		pause = minPause
		s.applied.Store(seq)
	}
}

// reconcile writes the changes that lead to set. What a partial set lacks is
// written as a deletion too: all that this sink holds it has added itself.
func (s *Sink) reconcile(set agent.RecordSet) error {
	ch := agent.Diff(s.held, set.Records)
	for _, r := range ch.Delete {
		if err := s.change("delete", set.Zone, r, agent.Changes{Delete: []agent.Record{r}}); err != nil {
			return err
		}
	}
	for _, r := range ch.Create {
		if err := s.change("create", set.Zone, r, agent.Changes{Create: []agent.Record{r}}); err != nil {
			return err
		}
	}
	s.held = set.Records
	return nil
}

// change writes one line and remembers that it has been written.
func (s *Sink) change(op, zone string, r agent.Record, ch agent.Changes) error {
	line := recordLine{
		Op: op, Record: r.String(), Zone: zone,
		Name: r.Name, Type: r.Type, TTL: r.TTL, Value: r.Value(),
	}
	if err := s.writeLine(line); err != nil {
		return err
	}
	s.held = agent.Apply(s.held, ch)
	return nil
}

// Write writes one line for each sample.
func (s *Sink) Write(ctx context.Context, samples []agent.Sample) error {
	for _, sample := range samples {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.writeLine(newSampleLine(sample)); err != nil {
			return err
		}
	}
	return nil
}

// writeLine writes v as one line. A line that was cut short by an error is
// ended first, so that it spoils only itself.
func (s *Sink) writeLine(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode line: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.torn {
		b = append([]byte{'\n'}, b...)
	}
	n, err := s.w.Write(append(b, '\n'))
	if err != nil {
		s.torn = s.torn && n == 0 || n > 0
		return fmt.Errorf("write line: %w", err)
	}
	s.torn = false
	return nil
}

// recordLine is the line of one change of records.
type recordLine struct {
	Op     string           `json:"op"`
	Record string           `json:"record"`
	Zone   string           `json:"zone"`
	Name   string           `json:"name"`
	Type   agent.RecordType `json:"type"`
	TTL    uint32           `json:"ttl"`
	Value  string           `json:"value"`
}

// sampleLine is the line of one sample.
type sampleLine struct {
	Op     string            `json:"op"`
	Name   string            `json:"name"`
	Kind   string            `json:"kind"`
	Value  any               `json:"value"` // a string where JSON has no such number
	Labels map[string]string `json:"labels,omitempty"`
	Time   *time.Time        `json:"time,omitempty"`
}

func newSampleLine(s agent.Sample) sampleLine {
	line := sampleLine{Op: "sample", Name: s.Name, Kind: s.Kind.String(), Value: s.Value}
	if math.IsNaN(s.Value) || math.IsInf(s.Value, 0) {
		line.Value = strconv.FormatFloat(s.Value, 'g', -1, 64)
	}
	if len(s.Labels) > 0 {
		line.Labels = make(map[string]string, len(s.Labels))
		for _, l := range s.Labels {
			line.Labels[l.Name] = l.Value
		}
	}
	if !s.Time.IsZero() {
		t := s.Time.UTC()
		line.Time = &t
	}
	return line
}
