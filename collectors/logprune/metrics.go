package logprune

import (
	"fmt"
	"sync/atomic"

	"github.com/berthd/berth/agent"
)

// stats are the counters behind Metrics.
type stats struct {
	scans, deleted, files, bytes, refused, restored, images, containers atomic.Int64
	nanoseconds                                                         atomic.Int64 // spent in scans
	held, unwatched                                                     atomic.Int64 // at the last look
}

// Metrics yields the component's figures.
func (p *Pruner) Metrics(yield func(agent.Sample) bool) {
	_ = p.folderMetrics(yield) && p.otherMetrics(yield)
}

func (p *Pruner) folderMetrics(yield func(agent.Sample) bool) bool {
	p.mu.Lock()
	counts := p.counts
	p.mu.Unlock()
	for _, c := range []struct {
		state string
		n     int
	}{{Kept, counts.Kept}, {Waits, counts.Waits}, {Refused, counts.Refused}, {Due, counts.Due}, {Ignored, counts.Ignored}} {
		if !yield(agent.Sample{
			Name: "berth_prune_folders", Help: "Folders in the roots, by what is decided about them.",
			Value: float64(c.n), Labels: []agent.Label{{Name: "state", Value: c.state}},
		}) {
			return false
		}
	}
	return true
}

func (p *Pruner) otherMetrics(yield func(agent.Sample) bool) bool {
	s := &p.stats
	for _, x := range []agent.Sample{
		{Name: "berth_prune_deleted_folders_total", Help: "Folders that were deleted.", Kind: agent.Counter, Value: float64(s.deleted.Load())},
		{Name: "berth_prune_deleted_files_total", Help: "Files and folders in them that were deleted.", Kind: agent.Counter, Value: float64(s.files.Load())},
		{Name: "berth_prune_freed_bytes_total", Help: "Space that was freed by that, but for files that somebody holds open or that have other names.", Kind: agent.Counter, Value: float64(s.bytes.Load())},
		{Name: "berth_prune_refusals_total", Help: "Times that a folder was due and something was in the way.", Kind: agent.Counter, Value: float64(s.refused.Load())},
		{Name: "berth_prune_restored_total", Help: "Folders that were moved back from the trash because their container was there.", Kind: agent.Counter, Value: float64(s.restored.Load())},
		{Name: "berth_prune_held_folders", Help: "Folders that were due and held open by a process, at the last look.", Value: float64(s.held.Load())},
		{Name: "berth_prune_unwatched_folders", Help: "Folders beyond the limit of watches, in which new ones are found by the scan alone.", Value: float64(s.unwatched.Load())},
		{Name: "berth_prune_removed_images_total", Help: "Images that were removed.", Kind: agent.Counter, Value: float64(s.images.Load())},
		{Name: "berth_prune_removed_containers_total", Help: "Stopped containers that were removed.", Kind: agent.Counter, Value: float64(s.containers.Load())},
		{Name: "berth_prune_scans_total", Help: "Times that all roots were looked at.", Kind: agent.Counter, Value: float64(s.scans.Load())},
		{Name: "berth_prune_scan_seconds_total", Help: "Time that these looks took.", Kind: agent.Counter, Value: float64(s.nanoseconds.Load()) / 1e9},
	} {
		if !yield(x) {
			return false
		}
	}
	return true
}

// count sums up the last plan. It is called with p.mu held.
func (p *Pruner) count(pl *plan) Counts {
	c := Counts{Ignored: len(pl.found.strangers) + pl.found.more}
	for i := range pl.rulings {
		var r *refusal
		if len(p.refusals) > 0 {
			r = p.refusals[pl.found.path(i)]
		}
		c.add(pl.verdict(i, r))
	}
	return c
}

// Summary returns the key figures in one line, for people.
func (p *Pruner) Summary() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.counts
	line := fmt.Sprintf("%d folders due, %d wait, %d kept", c.Due, c.Waits, c.Kept)
	if c.Refused > 0 {
		line += fmt.Sprintf(", %d refused", c.Refused)
	}
	if n := p.stats.deleted.Load(); n > 0 {
		line += fmt.Sprintf(", %d deleted (%s)", n, bytesOf(p.stats.bytes.Load()))
	}
	if !p.active() {
		line = "dry run (prune.enabled is false): " + line
	}
	return line
}
