package logprune

import (
	"context"
	"slices"
	"sync"
	"time"
)

// The bounds of one batch: worth a look through /proc, and less than maxHistory, so that
// all of it is remembered.
const (
	batchSize    = 512
	smallBatch   = 64
	pressedBatch = 32 // between two looks at how full the file system is
)

// run is what all batches of one run share.
type run struct {
	pl   *plan
	pace *pace
	h    *handles

	mu   sync.Mutex
	open *holding // what was open a moment ago; nil for not known
}

func (p *Pruner) newRun(pl *plan, pace *pace) *run {
	p.stats.held.Store(0)
	return &run{pl: pl, pace: pace, h: newHandles(p.k, pl)}
}

// batch is folders on their way out. They share a look through /proc and a write to
// the journal.
type batch struct {
	jobs  []*job
	at    time.Time     // when its look began
	asked chan struct{} // closed when the engine has answered
}

// actAll deletes the folders, in batches, as far as nothing is in the way. An error
// ends the run. Where nothing slows it down, several batches go at once, and the engine
// is asked about one more: each waits by turns for the engine, for the disk and for the
// journal.
func (p *Pruner) actAll(ctx context.Context, r *run, all []int32) error {
	at := p.workers
	if r.pace.every > 0 {
		at = 1
	}
	size := p.batch
	if size == 0 { // the same number for each worker
		size = min(max((len(all)+2*at-1)/(2*at), smallBatch), batchSize)
	}
	if at == 1 {
		for part := range slices.Chunk(all, size) {
			if err := p.act(ctx, r, part); err != nil {
				return err
			}
		}
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	begun := make(chan *batch)
	var working sync.WaitGroup
	for range at {
		working.Go(func() {
			for b := range begun {
				if err := p.finish(ctx, r, b); err != nil {
					cancel(err) // in vain, but for the first
				}
			}
		})
	}
	for part := range slices.Chunk(all, size) {
		if ctx.Err() != nil {
			break
		}
		begun <- p.prepare(ctx, r, part)
	}
	close(begun)
	working.Wait()
	return context.Cause(ctx)
}

// act deletes the folders of one batch.
func (p *Pruner) act(ctx context.Context, r *run, part []int32) error {
	return p.finish(ctx, r, p.prepare(ctx, r, part))
}

// prepare opens what a batch needs, and has the engine asked. It changes nothing but the
// batch, which is to be finished.
func (p *Pruner) prepare(ctx context.Context, r *run, part []int32) *batch {
	b := &batch{jobs: make([]*job, len(part))}
	all := make([]job, len(part))
	for n, i := range part {
		f := &r.pl.found.folders[i]
		all[n] = job{i: i, folder: f, rule: r.pl.rulings[i].rule, path: r.pl.found.path(int(i)), id: f.id.String(), inBin: f.trash, root: -1, trash: -1}
		b.jobs[n] = &all[n]
	}
	r.h.give(b.jobs)
	p.askFor(ctx, r.pl, b)
	return b
}

// askFor has the engine asked about the containers of a batch, which may be looked at
// meanwhile.
func (p *Pruner) askFor(ctx context.Context, pl *plan, b *batch) {
	b.at, b.asked = p.now(), make(chan struct{})
	go func(asked chan struct{}) {
		defer close(asked)
		p.ask(ctx, pl, b.jobs)
	}(b.asked)
	if p.inspectors == 1 {
		<-b.asked
	}
}

// dead returns the jobs that are to be deleted, and that nothing is in the way of.
func (b *batch) dead() []*job {
	return slices.DeleteFunc(open(b.jobs), func(j *job) bool { return j.rule == ruleRestore })
}

// openFiles returns what is open, of the same moment for all batches: nothing has moved
// yet, and who opens something later is found when it has.
func (p *Pruner) openFiles(r *run) *holding {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open == nil || !p.recent(r.open.at) {
		r.open = p.lookOpen(r.pl)
	}
	return r.open
}

// recent reports whether what was found out at that time still counts.
func (p *Pruner) recent(at time.Time) bool {
	age := p.now().Sub(at)
	return age >= 0 && age <= answerAge
}

// finish deletes the folders of a batch that was prepared. What is in the way of one is not
// in the way of others; an error ends the run.
func (p *Pruner) finish(ctx context.Context, r *run, b *batch) error {
	pl, jobs := r.pl, b.jobs
	defer r.h.release(jobs)
	p.surveyAll(ctx, pl, b.dead())
	<-b.asked
	if err := p.sameWorld(pl); err != nil {
		return err
	}
	if !p.recent(b.at) { // looking took its time
		p.askFor(ctx, pl, b)
		p.surveyAll(ctx, pl, b.dead())
		<-b.asked
	}
	p.believe(pl, jobs)
	p.restore(jobs)
	if ready := open(jobs); len(ready) > 0 {
		p.refuseHeld(pl, ready, p.openFiles(r))
	}
	p.archived(ctx, open(jobs))
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := p.intend(pl, open(jobs)); err != nil {
		return err
	}
	// From here on, what is in the way undoes what was done.
	defer p.record(pl, jobs)
	if err := p.sameWorld(pl); err != nil {
		p.undo(jobs, err)
		return err
	}
	p.appeared(pl, open(jobs))
	for _, j := range open(jobs) {
		if p.confirm(ctx, pl, j); j.err == nil && !j.inBin {
			r.h.bin(j)
		}
	}
	p.undo(jobs, nil)
	p.recheck(ctx, pl, jobs)
	p.removeAll(ctx, r, open(jobs))
	return ctx.Err()
}
