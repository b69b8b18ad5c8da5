package agent

import (
	"slices"
	"time"
)

// deadRuns remembers the runs that ended, for a time and up to a number.
type deadRuns struct {
	cfg  LoopConfig
	runs []DeadRun // sorted by last
	keys map[RunKey]bool
}

func newDeadRuns(cfg LoopConfig) deadRuns {
	return deadRuns{cfg: cfg, keys: make(map[RunKey]bool)}
}

// add records the end of a run, and reports whether it is news.
func (d *deadRuns) add(run DeadRun) bool {
	if run.Container.StartedAt.IsZero() || d.keys[run.Key()] {
		return false
	}
	d.insert(run)
	return true
}

// remove records that a container is gone, and with it its last run, which may
// have ended long before.
func (d *deadRuns) remove(c *Container, at time.Time) {
	run := DeadRun{Container: c, FinishedAt: c.FinishedAt, RemovedAt: at}
	if c.Alive() {
		run.FinishedAt = at
	}
	if d.keys[run.Key()] {
		i := slices.IndexFunc(d.runs, func(r DeadRun) bool { return r.Key() == run.Key() })
		run.FinishedAt = d.runs[i].FinishedAt
		d.runs = slices.Delete(slices.Clone(d.runs), i, i+1)
	}
	d.insert(run)
}

// insert keeps the order. The slice is shared with snapshots: it grows beyond
// the end that they see, and is copied for any other change.
func (d *deadRuns) insert(run DeadRun) {
	d.keys[run.Key()] = true
	at := len(d.runs)
	for at > 0 && d.runs[at-1].last().After(run.last()) {
		at--
	}
	if at == len(d.runs) {
		d.runs = append(d.runs, run)
	} else {
		d.runs = slices.Insert(slices.Clone(d.runs), at, run)
	}
	d.forget(max(0, len(d.runs)-d.cfg.MaxDead))
}

// last is the moment from which the retention time counts.
func (d DeadRun) last() time.Time {
	if d.RemovedAt.After(d.FinishedAt) {
		return d.RemovedAt
	}
	return d.FinishedAt
}

// next returns when the oldest run is to be forgotten; zero if there is none.
func (d *deadRuns) next() time.Time {
	if len(d.runs) == 0 {
		return time.Time{}
	}
	return d.runs[0].last().Add(d.cfg.DeadRetention)
}

// expire forgets what is older than the retention time, and reports whether
// there was any.
func (d *deadRuns) expire(now time.Time) bool {
	n := 0
	for n < len(d.runs) && !now.Before(d.runs[n].last().Add(d.cfg.DeadRetention)) {
		n++
	}
	d.forget(n)
	return n > 0
}

func (d *deadRuns) forget(n int) {
	for _, r := range d.runs[:n] {
		delete(d.keys, r.Key())
	}
	d.runs = d.runs[n:]
}
