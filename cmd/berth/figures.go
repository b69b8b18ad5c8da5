package main

import (
	"maps"
	"slices"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/sinks/openmetrics"
)

// figures are those of berth as a whole: what is wrong, how its components fare,
// and what it knows of the engine. It is an agent.Metered like any component, so
// that all sinks of metrics show the same.
type figures struct {
	health     *agent.Health
	components func() []agent.ComponentStatus
	loop       func() agent.LoopStats
	snapshot   func() *agent.Snapshot
}

// states are the states of containers, in the order of a container's life.
var states = [...]agent.State{
	agent.StateCreated, agent.StateRunning, agent.StatePaused, agent.StateRestarting,
	agent.StateRemoving, agent.StateExited, agent.StateDead,
}

// Metrics implements agent.Metered.
func (f figures) Metrics(yield func(agent.Sample) bool) {
	_ = f.ofBerth(yield) && f.ofLoop(yield) && f.ofSnapshot(yield)
}

func (f figures) ofBerth(yield func(agent.Sample) bool) bool {
	if !yield(gauge("berth_build_info", "Always 1, with the version that runs.", 1, "version", version())) {
		return false
	}
	for _, c := range f.health.Conditions() {
		if !yield(gauge("berth_condition", "Always 1, for each thing that is wrong now.", 1,
			"component", c.Component, "condition", c.Name, "severity", string(c.Severity))) {
			return false
		}
	}
	for _, c := range f.components() {
		if !yield(gauge("berth_component_up", "Whether a component runs, and has not failed.", truth(c.State == "running"), "component", c.Name)) ||
			!yield(counter("berth_component_restarts_total", "Times that a component was run again because it had failed.", uint64(c.Restarts), "component", c.Name)) {
			return false
		}
	}
	return true
}

func (f figures) ofLoop(yield func(agent.Sample) bool) bool {
	st := f.loop()
	const requests = "Requests to the engine, by what was asked."
	return yield(counter("berth_engine_events_total", "Events that the engine sent.", st.Events)) &&
		yield(counter("berth_engine_requests_total", requests, st.Connects, "request", "connect")) &&
		yield(counter("berth_engine_requests_total", requests, st.Inspects, "request", "inspect")) &&
		yield(counter("berth_engine_requests_total", requests, st.Lists, "request", "list")) &&
		yield(counter("berth_engine_requests_total", requests, st.NetworkLists, "request", "networks")) &&
		yield(counter("berth_engine_stale_answers_total", "Answers of the engine that were too old to be believed.", st.Stale)) &&
		yield(counter("berth_engine_contradictions_total", "Rows of lists that gave the lie to what events had told.", st.Contradictions))
}

func (f figures) ofSnapshot(yield func(agent.Sample) bool) bool {
	snap := f.snapshot()
	if snap.Seq > 0 && !yield(gauge("berth_snapshot_timestamp_seconds", "When something last changed on this host, since 1970.", float64(snap.At.UnixNano())/1e9)) {
		return false
	}
	count := make(map[agent.State]int)
	for _, c := range snap.Containers {
		count[c.State]++
	}
	for _, state := range states {
		if !yield(gauge("berth_containers", "Containers of the engine, by state.", float64(count[state]), "state", string(state))) {
			return false
		}
	}
	return yield(counter("berth_snapshots_total", "Snapshots of this host that were published.", snap.Seq)) &&
		yield(gauge("berth_engine_connected", "Whether the engine's stream of events is up.", truth(snap.Connected))) &&
		yield(gauge("berth_engine_complete", "Whether all of the engine's containers are known.", truth(snap.Complete))) &&
		yield(gauge("berth_containers_unread", "Containers that the engine does not let us inspect.", float64(len(snap.Unread)))) &&
		yield(gauge("berth_dead_runs", "Runs of containers that have ended and are remembered.", float64(len(snap.Dead)))) &&
		yield(gauge("berth_networks", "Networks of the engine.", float64(len(snap.Networks))))
}

// gauge returns a sample; labels are names and values by turns, sorted by name.
func gauge(name, help string, value float64, labels ...string) agent.Sample {
	s := agent.Sample{Name: name, Help: help, Value: value}
	for i := 0; i < len(labels); i += 2 {
		s.Labels = append(s.Labels, agent.Label{Name: labels[i], Value: labels[i+1]})
	}
	return s
}

func counter(name, help string, value uint64, labels ...string) agent.Sample {
	s := gauge(name, help, float64(value), labels...)
	s.Kind = agent.Counter
	return s
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// meter makes the sources of metrics those of the components that run now. It is
// called with d.mu held; reading them takes no lock, so that a scrape never
// waits for a reload, nor a reload for a scrape.
func (d *daemon) meter() {
	sources := []openmetrics.Source{{Name: "berth", Metered: figures{
		health: d.env.Health, components: d.parts.Status, loop: d.agent.Stats, snapshot: d.Snapshot,
	}}}
	for _, name := range slices.Sorted(maps.Keys(d.running)) {
		if m, ok := d.running[name].part.(agent.Metered); ok {
			sources = append(sources, openmetrics.Source{Name: name, Metered: m})
		}
	}
	d.metered.Store(&sources)
}

// sources returns what there is to measure now.
func (d *daemon) sources() []openmetrics.Source {
	if s := d.metered.Load(); s != nil {
		return *s
	}
	return nil
}

// samples returns one batch of all figures.
func (d *daemon) samples() []agent.Sample {
	var batch []agent.Sample
	for _, src := range d.sources() {
		batch = slices.AppendSeq(batch, src.Metered.Metrics)
	}
	return batch
}
