package logprune

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/berthd/berth/agent"
)

// How much is done at once, but for tests.
const (
	workers    = 2 // batches at once: one waits for the engine while one does for the disk
	inspectors = 8 // inspects at once
)

// askedAtOnce is how many containers the engine is asked about in one go: few enough
// that the first answer is still fresh when the last one is there, of an engine that
// takes milliseconds for each.
const askedAtOnce = 256

// The bounds of an answer of the engine: how long it may take; and how old it may be
// when a folder goes by it, that is, when it is renamed into the trash. Older ones are
// asked for again. It holds for the look at the disk, too.
const (
	inspectLimit = 10 * time.Second
	answerAge    = time.Second
)

// Inspector asks the engine about containers. It is safe for concurrent use.
type Inspector interface {
	// Inspect asks about one. The error of one that does not exist wraps
	// agent.ErrNotFound.
	Inspect(ctx context.Context, id string) (*agent.Container, error)
	// Absent asks about many at once, each anew, and returns for each whether the
	// engine has said that it does not exist. False is no answer.
	Absent(ctx context.Context, ids []string) []bool
}

// Archive tells which files are not archived yet. It is asked right before their
// folder is moved to the trash, and again when it was, and nobody holds them open.
// An error means that it does not know; then the folder stays. An empty answer,
// nil or not, means that all of them are archived.
type Archive interface {
	Missing(ctx context.Context, files []agent.FileID) ([]agent.FileID, error)
}

// job is one folder on its way out.
type job struct {
	i      int32 // index into found.folders
	folder *folder
	rule   rule
	path   string
	id     string
	root   int // open handle of its root
	trash  int // of the trash of the root, or -1
	survey survey
	again  bool // it was surveyed again since the journal has it
	inBin  bool // it is in the trash
	answer answer
	err    error
	fix    string
	// seq is its number in the journal, 0 for none, and planned since when.
	seq     uint64
	planned time.Time
	done    bool
}

// answer is what the engine has said about a job's container.
type answer struct {
	at    time.Time // when it was asked
	alive bool      // it has the container
	err   error     // why the job cannot be done; nil if it can
	fix   string
}

func (j *job) refuse(err error, fix string) {
	if j.err == nil {
		j.err, j.fix = err, fix
	}
}

// open returns those that nothing is in the way of.
func open(jobs []*job) []*job {
	out := make([]*job, 0, len(jobs))
	for _, j := range jobs {
		if j.err == nil {
			out = append(out, j)
		}
	}
	return out
}

// sameWorld reports why the word of the engine no longer counts, if so.
func (p *Pruner) sameWorld(pl *plan) error {
	snap := p.feed.Snapshot()
	if snap.EngineID != pl.snap.EngineID || snap.EngineRoot != pl.snap.EngineRoot {
		return errors.New("another engine answers than when this was planned")
	}
	return p.trust(snap)
}

// ask inspects each container. Only "no such container" lets its folder go; for
// stopped ones, that it is as it was. It changes nothing of the jobs but their
// answers, so that they may be worked on meanwhile.
func (p *Pruner) ask(ctx context.Context, pl *plan, jobs []*job) {
	alone := make([]*job, 0, len(jobs))
	missing := make([]*job, 0, len(jobs))
	for _, j := range jobs {
		if j.rule == ruleRestore || pl.rulings[j.i].who >= 0 {
			alone = append(alone, j)
		} else {
			missing = append(missing, j)
		}
	}
	for part := range slices.Chunk(missing, askedAtOnce) {
		alone = append(alone, p.askMany(ctx, part)...)
	}
	share(p.inspectors, len(alone), func() func(int) {
		return func(i int) { alone[i].answer = p.askOne(ctx, pl, alone[i]) }
	})
}

// share has so many workers do what there is to do, by number. start makes what one worker
// needs.
func share(workers, all int, start func() func(i int)) {
	var next atomic.Int64
	var working sync.WaitGroup
	for range min(workers, all) {
		working.Go(func() {
			do := start()
			for n := next.Add(1); n <= int64(all); n = next.Add(1) {
				do(int(n - 1))
			}
		})
	}
	working.Wait()
}

// askMany asks about containers that are probably gone, and returns those of which the
// engine has not said so.
func (p *Pruner) askMany(ctx context.Context, jobs []*job) (left []*job) {
	ctx, cancel := context.WithTimeout(ctx, inspectLimit)
	defer cancel()
	ids := make([]string, len(jobs))
	for n, j := range jobs {
		ids[n] = j.id
	}
	at := p.now()
	for n, gone := range p.inspector.Absent(ctx, ids) {
		if gone {
			jobs[n].answer = answer{at: at}
		} else {
			left = append(left, jobs[n])
		}
	}
	return left
}

func (p *Pruner) askOne(ctx context.Context, pl *plan, j *job) answer {
	ctx, cancel := context.WithTimeout(ctx, inspectLimit)
	defer cancel()
	a := answer{at: p.now()}
	c, err := p.inspector.Inspect(ctx, j.id)
	a.alive = err == nil
	switch {
	case errors.Is(err, agent.ErrNotFound):
		if j.rule == ruleRestore {
			a.err = errors.New("its container went meanwhile: the next scan decides anew")
		}
	case err != nil:
		a.err, a.fix = fmt.Errorf("the engine does not say whether its container is there: %w", err), "see `berth status`"
	case j.rule == ruleRestore:
	case j.rule == ruleTrash:
		a.err = errors.New("its container is there")
	case !p.stoppedStill(pl, j, c):
		a.err = fmt.Errorf("the engine says that its container is there (%s)", c.State)
	}
	return a
}

// believe refuses the jobs that the engine's answer forbids, and has the retention
// of containers that are there after all count from the next time that they seem to
// be gone.
func (p *Pruner) believe(pl *plan, jobs []*job) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, j := range jobs {
		if j.answer.err != nil {
			j.refuse(j.answer.err, j.answer.fix)
		}
		if mem := pl.memory.find(j.folder.id); j.answer.alive && mem != nil && !mem.Gone.IsZero() {
			mem.Gone = time.Time{}
			pl.memory.dirty = true
		}
	}
}

// confirm asks the engine once more, unless its answer is as good as new.
func (p *Pruner) confirm(ctx context.Context, pl *plan, j *job) {
	if p.recent(j.answer.at) {
		return
	}
	if j.answer = p.askOne(ctx, pl, j); j.answer.err != nil {
		p.believe(pl, []*job{j})
	}
}

// stoppedStill reports whether an existing container's folder may go.
func (p *Pruner) stoppedStill(pl *plan, j *job, c *agent.Container) bool {
	who := pl.rulings[j.i].who
	if p.cfg.When != whenStopped || who < 0 || !hasEnded(c) {
		return false
	}
	was := pl.snap.Containers[who]
	return was.ID == c.ID && was.Run() == c.Run() && was.FinishedAt.Equal(c.FinishedAt)
}

// restore moves folders back whose containers are there after all.
func (p *Pruner) restore(jobs []*job) {
	for _, j := range jobs {
		if !j.inBin || !j.answer.alive || j.trash < 0 {
			continue
		}
		err := p.k.renameat2(j.trash, j.id, j.root, j.id)
		if err != nil {
			j.err, j.fix = fmt.Errorf("it cannot be moved back from the trash: %w", err), "move it back by hand"
			continue
		}
		p.log.Warn("moved back from the trash: its container is there", "folder", j.path)
		p.stats.restored.Add(1)
		j.inBin = false
		j.refuse(errors.New("its container is there"), "")
	}
}

// surveyAll looks at all trees.
func (p *Pruner) surveyAll(ctx context.Context, pl *plan, jobs []*job) {
	look := newSurveyor(p.k, p.cfg.Archive == archiveRequired)
	for _, j := range jobs {
		var err error
		j.survey, err = look.look(ctx, j.dir(), j.id)
		switch {
		case errors.Is(err, errMountInside):
			j.refuse(err, "unmount it: everything below a mount belongs to somebody else")
		case err != nil:
			j.refuse(err, "")
		case !j.inBin:
			p.unchanged(pl, j)
		}
	}
}

// dir is the open folder that a job's folder is in.
func (j *job) dir() int {
	if j.inBin {
		return j.trash
	}
	return j.root
}

// unchanged refuses a tree in which a file has changed within the retention.
func (p *Pruner) unchanged(pl *plan, j *job) {
	need := p.cfg.Retain.Std()
	if j.rule == rulePressed {
		need = p.cfg.RetainMin.Std()
	}
	age := p.now().Sub(time.Unix(0, j.survey.newest))
	known := pl.memory.find(j.folder.id) != nil || pl.rulings[j.i].who >= 0
	if age < need && (age >= 0 || !known) {
		j.refuse(fmt.Errorf("a file in it changed at %s, and it is kept for %v after that", time.Unix(0, j.survey.newest).UTC().Format(time.RFC3339), need), "")
	}
}

// refuseHeld refuses folders that somebody has open, and those where that cannot be
// told.
func (p *Pruner) refuseHeld(pl *plan, jobs []*job, got *holding) {
	for _, j := range jobs {
		if who, held := got.holder(&j.survey, &pl.found.roots[j.folder.root], j.id, j.inBin); held {
			p.stats.held.Add(1)
			j.refuse(&heldError{who}, "stop it, or have it reopen its log files")
		}
	}
	if got.unsure == nil || len(jobs) == 0 {
		return
	}
	if p.cfg.CannotTell == unsureReport {
		p.report("held", got.unsure, "prune.cannot_tell is report: deletions go on")
		return
	}
	for _, j := range jobs {
		j.refuse(got.unsure, "let berth look at /proc/PID/fd of all processes (CAP_SYS_PTRACE), or set prune.cannot_tell to report")
	}
}

// lookOpen looks through /proc for what is open where the roots are.
func (p *Pruner) lookOpen(pl *plan) *holding {
	devs := make(map[uint64]bool)
	for _, r := range pl.found.roots {
		devs[r.node.dev] = true
	}
	at := p.now()
	got := p.proc.look(devs, livePIDs(pl.snap), false)
	got.at = at
	return got
}

// heldError is why a folder in which a file is open stays.
type heldError struct{ who holder }

func (e *heldError) Error() string {
	return "a file in it is open, or it is mounted somewhere: " + e.who.String()
}

func livePIDs(snap *agent.Snapshot) []int {
	var pids []int
	for _, c := range snap.Containers {
		if c.PID > 0 && c.Alive() {
			pids = append(pids, c.PID)
		}
	}
	return pids
}

// archived refuses folders with files that are not archived, where they must be.
func (p *Pruner) archived(ctx context.Context, jobs []*job) {
	if p.cfg.Archive != archiveRequired {
		return
	}
	for _, j := range jobs {
		if p.archive == nil {
			j.refuse(errors.New("prune.archive is required, and nothing archives logs on this host"), "set prune.archive to ignored, or ship the logs")
			continue
		}
		missing, err := p.archive.Missing(ctx, j.survey.files)
		switch {
		case err != nil:
			j.refuse(fmt.Errorf("it is not known whether it is archived: %w", err), "")
		case len(missing) > 0:
			j.refuse(fmt.Errorf("%d of its %d files are not archived yet", len(missing), len(j.survey.files)), "")
		}
	}
}

// appeared refuses folders whose container the newest snapshot has.
func (p *Pruner) appeared(pl *plan, jobs []*job) {
	snap := p.feed.Snapshot()
	if snap.Seq == pl.snap.Seq {
		return
	}
	x := newIndex(snap.Containers)
	for _, j := range jobs {
		if i, ok := x[j.folder.id]; ok && !p.stoppedStill(pl, j, snap.Containers[i]) {
			j.refuse(errors.New("its container appeared meanwhile"), "")
		}
		for _, id := range snap.Unread {
			if strings.HasPrefix(id, j.id) {
				j.refuse(errors.New("its container appeared meanwhile"), "")
			}
		}
	}
}

// recheck looks once more, now that nobody can open the files by their path, and
// moves back what somebody has opened, started or written to meanwhile.
func (p *Pruner) recheck(ctx context.Context, pl *plan, jobs []*job) {
	moved := open(jobs)
	for _, j := range moved {
		if pl.rulings[j.i].who >= 0 && j.rule != ruleTrash {
			if c, err := p.inspector.Inspect(ctx, j.id); err == nil && !p.stoppedStill(pl, j, c) || err != nil && !errors.Is(err, agent.ErrNotFound) {
				j.refuse(errors.New("its container was started meanwhile"), "")
			}
		}
	}
	if still := open(moved); len(still) > 0 {
		p.refuseHeld(pl, still, p.lookOpen(pl))
	}
	if p.cfg.Archive == archiveRequired {
		look := newSurveyor(p.k, true)
		for _, j := range open(moved) {
			var err error
			if j.survey, err = look.look(ctx, j.dir(), j.id); err != nil {
				j.refuse(err, "")
			}
			j.again = true
		}
		p.archived(ctx, open(moved))
	}
	p.undo(moved, nil)
}

// undo moves those back that something is in the way of, or all if err is not nil.
func (p *Pruner) undo(jobs []*job, err error) {
	for _, j := range jobs {
		if err != nil {
			j.refuse(err, "")
		}
		if j.err == nil || !j.inBin || j.folder.trash || j.done {
			continue
		}
		if err := p.k.renameat2(j.trash, j.id, j.root, j.id); err != nil {
			j.err = fmt.Errorf("%w; and it cannot be moved back from the trash: %w", j.err, err)
			continue
		}
		j.inBin = false
	}
}

// removeAll deletes what is in the trash, and for want of one, where it is.
func (p *Pruner) removeAll(ctx context.Context, r *run, jobs []*job) {
	remove := newRemover(p.k, r.pace)
	for _, j := range jobs {
		if !j.inBin {
			p.confirm(ctx, r.pl, j)
		}
		if ctx.Err() != nil {
			j.refuse(ctx.Err(), "")
		}
		if j.err != nil {
			continue
		}
		before := remove.files
		err := remove.remove(ctx, j.dir(), j.id, &j.survey)
		p.progress.files.Add(remove.files - before)
		if err != nil {
			j.refuse(err, "")
			continue
		}
		j.done = true
		p.progress.folders.Add(1)
		p.progress.bytes.Add(j.survey.bytes)
		p.log.LogAttrs(ctx, slog.LevelInfo, "deleted", slog.String("folder", j.path), slog.String("container", r.pl.name(j.folder, r.pl.rulings[j.i])),
			slog.String("why", r.pl.why(j)), slog.Int64("files", j.survey.entries), slog.Int64("bytes", j.survey.bytes))
	}
}
