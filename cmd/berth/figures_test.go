package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/config"
	"github.com/berthd/berth/sinks/openmetrics"
)

// value returns the value of one sample; labels are names and values by turns.
func value(t *testing.T, samples []agent.Sample, name string, labels ...string) float64 {
	t.Helper()
	want := gauge(name, "", 0, labels...).Labels
	for _, s := range samples {
		if s.Name == name && slices.Equal(s.Labels, want) {
			return s.Value
		}
	}
	t.Errorf("got no %s%q", name, labels)
	return -1
}

func TestFigures(t *testing.T) {
	d := idleDaemon(t)
	snap := &agent.Snapshot{
		Seq: 7, At: time.Unix(1700000000, 5e8), Connected: true,
		Containers: []*agent.Container{
			{ID: "1", State: agent.StateRunning}, {ID: "2", State: agent.StateRunning}, {ID: "3", State: agent.StateExited},
		},
		Unread: []string{"4"}, Dead: make([]agent.DeadRun, 5), Networks: make([]agent.Network, 6),
	}
	d.env.Health.Scope("calc").Declare("odd", agent.SeverityWarning, 0)
	d.env.Health.Scope("calc").Set("odd", errors.New("it is"), "")
	f := figures{
		health: d.env.Health,
		components: func() []agent.ComponentStatus {
			return []agent.ComponentStatus{{Name: "calc", State: "failed", Restarts: 3}, {Name: "time", State: "running"}}
		},
		loop: func() agent.LoopStats {
			return agent.LoopStats{Events: 1, Lists: 2, NetworkLists: 3, Inspects: 4, Connects: 5, Stale: 6, Contradictions: 7}
		},
		snapshot: func() *agent.Snapshot { return snap },
	}
	got := slices.Collect(f.Metrics)
	for _, tt := range []struct {
		want   float64
		name   string
		labels []string
	}{
		{1, "berth_build_info", []string{"version", version()}},
		{1, "berth_condition", []string{"component", "calc", "condition", "odd", "severity", "warning"}},
		{0, "berth_component_up", []string{"component", "calc"}},
		{1, "berth_component_up", []string{"component", "time"}},
		{3, "berth_component_restarts_total", []string{"component", "calc"}},
		{1, "berth_engine_events_total", nil},
		{2, "berth_engine_requests_total", []string{"request", "list"}},
		{3, "berth_engine_requests_total", []string{"request", "networks"}},
		{4, "berth_engine_requests_total", []string{"request", "inspect"}},
		{5, "berth_engine_requests_total", []string{"request", "connect"}},
		{6, "berth_engine_stale_answers_total", nil},
		{7, "berth_engine_contradictions_total", nil},
		{1700000000.5, "berth_snapshot_timestamp_seconds", nil},
		{7, "berth_snapshots_total", nil},
		{2, "berth_containers", []string{"state", "running"}},
		{1, "berth_containers", []string{"state", "exited"}},
		{0, "berth_containers", []string{"state", "dead"}},
		{1, "berth_containers_unread", nil},
		{5, "berth_dead_runs", nil},
		{6, "berth_networks", nil},
		{1, "berth_engine_connected", nil},
		{0, "berth_engine_complete", nil},
	} {
		if v := value(t, got, tt.name, tt.labels...); v != tt.want {
			t.Errorf("%s%q: got %v, want %v", tt.name, tt.labels, v, tt.want)
		}
	}
	for i := range got { // whoever asks may stop at any sample
		n := 0
		for range f.Metrics {
			if n++; n > i {
				break
			}
		}
	}
}

// Whoever asks for figures while a reload is under way gets those of whole
// components, and neither waits for the other.
func TestFiguresUnderReload(t *testing.T) {
	d := idleDaemon(t)
	page, err := openmetrics.New(openmetrics.DefaultConfig(), d.env, d.sources)
	if err != nil {
		t.Fatal(err)
	}
	configs := [2]Config{d.cfg.Config, d.cfg.Config}
	for i := range configs {
		configs[i].DNS.Enabled = false
		configs[i].OpenMetrics.Enabled = false
		configs[i].StatsD.Enabled = false
		configs[i].Discovery.TTL = config.Duration(time.Duration(i+1) * time.Second)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stop := make(chan struct{})
	var asking sync.WaitGroup
	for range 2 {
		asking.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := page.Gather(); err != nil {
					t.Errorf("gather: %v", err)
				}
				d.samples()
			}
		})
	}
	for i := range 100 {
		built, err := d.build(configs[i%2])
		if err != nil {
			t.Fatal(err)
		}
		d.mu.Lock()
		changed := d.swap(ctx, built)
		d.mu.Unlock()
		if !slices.Contains(changed, "discovery") {
			t.Fatalf("reload %d: got %q run anew, want discovery among them", i, changed)
		}
	}
	close(stop)
	asking.Wait()
	if err := d.env.Health.Err(openmetrics.Name); err != nil {
		t.Errorf("got condition %v, want none", err)
	}
	if _, err := page.Gather(); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, src := range d.sources() {
		names = append(names, src.Name)
	}
	if got, want := strings.Join(names, " "), "berth discovery prune usage"; got != want {
		t.Errorf("got the sources %q, want %q", got, want)
	}
}
