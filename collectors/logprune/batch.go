package logprune

import (
	"context"
	"slices"
	"sync"
	"time"
)

// The bounds of one batch: less than maxHistory, so that all of it is remembered.
const (
	batchSize    = 512
	pressedBatch = 32 // between two looks at how full the file system is
)

// batch is folders on their way out. They share a look through /proc and a write to
// the journal.
type batch struct {
	jobs []*job
	h    *handles
	at   time.Time // when its folders were looked at
}

// actAll deletes the folders, batch by batch, as far as nothing is in the way. An
// error ends the run. Where nothing slows it down, the next batch is looked at while
// one goes: that waits for the engine and the other for the disk.
func (p *Pruner) actAll(ctx context.Context, pl *plan, all []int32, pace *pace) error {
	if p.workers == 1 || pace.every > 0 {
		for part := range slices.Chunk(all, p.batch) {
			if err := p.act(ctx, pl, part, pace); err != nil {
				return err
			}
		}
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ready := make(chan *batch)
	go func() {
		defer close(ready)
		for part := range slices.Chunk(all, p.batch) {
			if ctx.Err() != nil {
				return
			}
			ready <- p.prepare(ctx, pl, part)
		}
	}()
	var err error
	for b := range ready {
		if err == nil {
			err = p.finish(ctx, pl, b, pace)
		}
		if err != nil {
			cancel()
		}
		b.h.close()
	}
	return err
}

// act deletes the folders of one batch.
func (p *Pruner) act(ctx context.Context, pl *plan, part []int32, pace *pace) error {
	b := p.prepare(ctx, pl, part)
	defer b.h.close()
	return p.finish(ctx, pl, b, pace)
}

// prepare opens what a batch needs, and looks at its folders. It changes nothing but
// the batch, which is to be closed.
func (p *Pruner) prepare(ctx context.Context, pl *plan, part []int32) *batch {
	b := &batch{h: newHandles(p.k, pl), jobs: make([]*job, len(part))}
	for n, i := range part {
		f := &pl.found.folders[i]
		b.jobs[n] = &job{i: i, folder: f, rule: pl.rulings[i].rule, path: pl.found.path(int(i)), id: f.id.String(), inBin: f.trash, trash: -1}
		b.h.give(b.jobs[n])
	}
	p.lookAt(ctx, pl, b)
	return b
}

// lookAt asks the engine for the containers of a batch while it looks at the disk.
func (p *Pruner) lookAt(ctx context.Context, pl *plan, b *batch) {
	b.at = p.now()
	var asking sync.WaitGroup
	asking.Go(func() { p.ask(ctx, pl, b.jobs) })
	if p.inspectors == 1 {
		asking.Wait()
	}
	p.surveyAll(ctx, pl, b.dead())
	asking.Wait()
}

// dead returns the jobs that are to be deleted, and that nothing is in the way of.
func (b *batch) dead() []*job {
	return slices.DeleteFunc(open(b.jobs), func(j *job) bool { return j.rule == ruleRestore })
}

// finish deletes the folders of a batch. What is in the way of one is not in the way
// of others; an error ends the run.
func (p *Pruner) finish(ctx context.Context, pl *plan, b *batch, pace *pace) error {
	jobs := b.jobs
	if err := p.sameWorld(pl); err != nil {
		return err
	}
	if age := p.now().Sub(b.at); age < 0 || age > answerAge {
		p.lookAt(ctx, pl, b) // the one before took its time
	}
	p.believe(pl, jobs)
	p.restore(jobs)
	p.refuseHeld(pl, open(jobs))
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
			b.h.bin(j)
		}
	}
	p.undo(jobs, nil)
	p.recheck(ctx, pl, jobs)
	p.removeAll(ctx, pl, open(jobs), pace)
	return ctx.Err()
}
