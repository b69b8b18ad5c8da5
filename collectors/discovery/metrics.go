package discovery

import (
	"fmt"
	"sync/atomic"

	"github.com/berthd/berth/agent"
)

// stats are the counters behind Metrics.
type stats struct {
	evaluations  atomic.Uint64
	publications atomic.Uint64
	nanoseconds  atomic.Uint64 // spent in evaluations
}

// figures sums up the latest evaluation.
type figures struct{ registered, out, refused, held, records int }

func (d *Discovery) figures() figures {
	v := d.view.Load()
	if v == nil {
		return figures{}
	}
	f := figures{refused: len(v.refused), held: v.held, records: len(v.set.Records)}
	for i := range v.apps {
		for j := range v.apps[i].sites {
			if v.apps[i].sites[j].registered() {
				f.registered++
			} else {
				f.out++
			}
		}
	}
	return f
}

// Summary returns the key figures in one line, for people.
func (d *Discovery) Summary() string {
	f := d.figures()
	line := fmt.Sprintf("%s registered, %d out, %s", count(f.registered, "name"), f.out, count(f.records, "record"))
	if f.refused > 0 {
		line += ", " + count(f.refused, "claim") + " refused"
	}
	if f.held > 0 {
		line += ", " + count(f.held, "container") + " held down"
	}
	return line
}

// count writes a number of things in English.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// Metrics yields the component's figures.
func (d *Discovery) Metrics(yield func(agent.Sample) bool) {
	f := d.figures()
	done, states := d.checks.counts()
	const instancesHelp = "Names that containers claim, by whether they are registered."
	const checksHelp = "Checks of ports that were run, by what they found."
	gauge, counter := agent.Gauge, agent.Counter
	for _, s := range []agent.Sample{
		{Name: "berth_discovery_instances", Help: instancesHelp, Kind: gauge, Value: float64(f.registered), Labels: []agent.Label{{Name: "state", Value: Registered}}},
		{Name: "berth_discovery_instances", Help: instancesHelp, Kind: gauge, Value: float64(f.out), Labels: []agent.Label{{Name: "state", Value: Out}}},
		{Name: "berth_discovery_records", Help: "DNS records that this host wants.", Kind: gauge, Value: float64(f.records)},
		{Name: "berth_discovery_claims_refused", Help: "Claims and settings of live containers that are wrong.", Kind: gauge, Value: float64(f.refused)},
		{Name: "berth_discovery_held_down", Help: "Containers that are held down after a crash loop.", Kind: gauge, Value: float64(f.held)},
		{Name: "berth_discovery_evaluations_total", Help: "Times that the rules were applied to a snapshot.", Kind: counter, Value: float64(d.stats.evaluations.Load())},
		{Name: "berth_discovery_evaluation_seconds_total", Help: "Time spent in applying the rules.", Kind: counter, Value: float64(d.stats.nanoseconds.Load()) / 1e9},
		{Name: "berth_discovery_publications_total", Help: "Times that the desired records changed.", Kind: counter, Value: float64(d.stats.publications.Load())},
		{Name: "berth_discovery_check_runs_total", Help: checksHelp, Kind: counter, Value: float64(done.passed), Labels: []agent.Label{{Name: "result", Value: "passed"}}},
		{Name: "berth_discovery_check_runs_total", Help: checksHelp, Kind: counter, Value: float64(done.failed), Labels: []agent.Label{{Name: "result", Value: "failed"}}},
		{Name: "berth_discovery_check_seconds_total", Help: "Time that checks took.", Kind: counter, Value: done.busy.Seconds()},
		{Name: "berth_discovery_check_delay_seconds_total", Help: "Time by which checks were run later than they were due.", Kind: counter, Value: done.late.Seconds()},
	} {
		if !yield(s) {
			return
		}
	}
	for _, word := range checkStates {
		s := agent.Sample{Name: "berth_discovery_checks", Help: "Checks of ports, by their state.", Kind: gauge, Value: float64(states[word]), Labels: []agent.Label{{Name: "state", Value: word}}}
		if !yield(s) {
			return
		}
	}
}
