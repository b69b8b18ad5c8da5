package logprune

import (
	"errors"
	"fmt"
)

// why says for the record why a folder goes.
func (pl *plan) why(j *job) string {
	switch j.rule {
	case rulePressed:
		return "its container is gone, and the file system is full"
	case ruleTrash:
		return "finishes an interrupted deletion"
	}
	if pl.rulings[j.i].who >= 0 {
		return "its container has ended"
	}
	return "its container is gone"
}

// intend writes down what is about to be deleted.
func (p *Pruner) intend(pl *plan, jobs []*job) error {
	if len(jobs) == 0 {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now().UTC()
	var r record
	for _, j := range jobs {
		j.seq, j.planned = p.ledger.next, now
		p.ledger.next++
		d := j.deletion(pl)
		r.plan(&d)
	}
	return p.write(r)
}

// deletion is what the journal says of a job, but for what became of it.
func (j *job) deletion(pl *plan) Deletion {
	return Deletion{
		Seq: j.seq, Kind: KindFolder, Path: j.path, ID: j.id, Container: pl.name(j.folder, pl.rulings[j.i]),
		Why: pl.why(j), Planned: j.planned, Bytes: j.survey.bytes, Files: j.survey.entries,
	}
}

// record says what became of it.
func (p *Pruner) record(pl *plan, jobs []*job) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now().UTC()
	var r record
	for _, j := range jobs {
		switch {
		case j.done:
			delete(p.refusals, j.path)
			p.stats.deleted.Add(1)
			p.stats.bytes.Add(j.survey.bytes)
			p.stats.files.Add(j.survey.entries)
		case j.err != nil:
			p.refusals[j.path] = &refusal{err: j.err, fix: j.fix, at: now}
			p.stats.refused.Add(1)
			p.progress.refused.Add(1)
			p.log.Debug("not deleted", "folder", j.path, "err", j.err)
		}
		switch {
		case j.seq == 0:
		case j.done && !j.again:
			r.finished(j.seq, now)
		case j.done || j.err != nil:
			d := j.deletion(pl)
			if j.done {
				d.Done = now
			} else {
				d.Error, d.Bytes, d.Files = j.err.Error(), 0, 0
			}
			r.Deletions = append(r.Deletions, d)
		}
	}
	p.ledger.owe(r) // the next batch's intent takes it along, or flush does
}

// flush writes down what became of the last batch: each write waits for the disk, so
// that there is one for each batch and one for all. After a crash in between, what
// was finished says in the journal that it was planned.
func (p *Pruner) flush() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ledger.owes() {
		_ = p.write(record{}) // a condition; it is still owed
	}
}

// note writes down what has happened: if not now, then later. It is called with p.mu
// held.
func (p *Pruner) note(all []Deletion) {
	if r := (record{Deletions: all}); p.write(r) != nil { // a condition
		p.ledger.owe(r)
	}
}

// write makes a record durable. It is called with p.mu held. That there is no room is no
// error.
func (p *Pruner) write(r record) error {
	full, err := p.ledger.write(r)
	switch {
	case err != nil:
		err = fmt.Errorf("the journal of deletions cannot be written: %w", err)
		p.report("state", err, "check that state_dir exists and is writable")
		return err
	case full:
		p.report("state", errors.New("the disk has no room for the journal of deletions; it is kept in memory until there is"), "")
	default:
		p.report("state", nil, "")
	}
	return nil
}
