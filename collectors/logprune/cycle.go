package logprune

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/berthd/berth/agent"
)

// cycle looks at everything, deletes what is due, and sets the time of the next
// look.
func (p *Pruner) cycle(ctx context.Context) {
	snap := p.feed.Snapshot()
	p.lastScan = p.now()
	p.wake = p.lastScan.Add(p.cfg.Scan.Std())
	if snap.Seq == 0 {
		return // the loop has not looked at the engine yet
	}
	p.adopt(snap)
	blocked := p.trust(snap)
	p.reportEngine(blocked)
	pl, err := p.look(ctx, snap, blocked, true)
	if err != nil {
		return // ctx has ended
	}
	p.reportScan(pl)
	if p.active() {
		p.execute(ctx, pl)
		p.sweep(pl)
	}
	p.relieve(ctx, pl)
	p.settle(pl)
	if !pl.next.IsZero() {
		p.soon(later(pl.next, p.lastScan.Add(gap)))
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// look scans and plans. Unless it is to remember, it changes nothing.
func (p *Pruner) look(ctx context.Context, snap *agent.Snapshot, blocked error, remember bool) (*plan, error) {
	begin := time.Now()
	x := newIndex(snap.Containers)
	p.mu.Lock()
	expect := p.expect
	p.mu.Unlock()
	found, err := find(ctx, p.k, p.patterns, func(id containerID) bool {
		i, ok := x[id]
		return ok && (p.cfg.When != whenStopped || !hasEnded(snap.Containers[i]))
	}, expect+expect/16, p.workers)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	in := inputs{
		cfg: &p.cfg, now: now, snap: snap, blocked: blocked, memory: p.ledger.memory, found: found,
		mounts: p.mounts(snap), suspects: &p.suspects,
	}
	if !remember {
		copied := p.suspects
		in.suspects = &copied
	}
	if remember {
		if blocked == nil {
			p.ledger.memory.learn(snap, p.cfg.ExemptLabels, now)
		}
		for dev, u := range found.usage {
			p.pressure.update(dev, u)
		}
	}
	on := p.pressure.on
	in.pressed = func(root int32) bool { return on[found.roots[root].node.dev] }
	pl := makePlan(in)
	if remember {
		p.expect = len(found.folders)
		p.stats.scans.Add(1)
		p.stats.nanoseconds.Add(int64(time.Since(begin)))
	}
	return pl, nil
}

// mounts returns what is mounted into containers, by the paths that lead there
// without symbolic links. A path is resolved once: what is mounted is what it led
// to when the container was started.
func (p *Pruner) mounts(snap *agent.Snapshot) []mountOf {
	var out []mountOf
	links := make(map[string]string, len(p.links))
	for i, c := range snap.Containers {
		for _, m := range c.Mounts {
			to, ok := p.links[m]
			if !ok {
				to = m
				if real, err := filepath.EvalSymlinks(m); err == nil {
					to = real
				}
			}
			links[m] = to
			out = append(out, mountOf{to, int32(i)})
			if to != m {
				out = append(out, mountOf{m, int32(i)})
			}
		}
	}
	p.links = links
	slices.SortFunc(out, func(a, b mountOf) int { return strings.Compare(a.path, b.path) })
	return out
}

// execute deletes what a plan says is due.
func (p *Pruner) execute(ctx context.Context, pl *plan) {
	now, pressed := pl.due()
	if len(now)+len(pressed) == 0 {
		return
	}
	p.progress.total.Store(int64(len(now)))
	full := len(p.pressure.on) > 0
	pace := newPace(p.cfg.Rate)
	if full {
		pace = newPace(0)
	}
	r := p.newRun(pl, pace)
	err := p.actAll(ctx, r, now)
	for batch := range slices.Chunk(pressed, pressedBatch) {
		if err != nil {
			break
		}
		batch = slices.DeleteFunc(slices.Clone(batch), func(i int32) bool { return !p.stillFull(pl, i) })
		if len(batch) == 0 {
			continue
		}
		p.progress.total.Add(int64(len(batch)))
		err = p.act(ctx, r, batch)
	}
	p.flush()
	if err != nil && ctx.Err() == nil {
		p.log.Warn("pruning was stopped", "err", err)
	}
	p.progress.stop(err)
}

// stillFull measures the file system of a folder anew.
func (p *Pruner) stillFull(pl *plan, i int32) bool {
	dev := pl.found.roots[pl.found.folders[i].root].node.dev
	u, err := p.usageOf(pl, dev)
	if err != nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pressure.update(dev, u)
}

// relieve raises or ends the alarm of file systems that stay full.
func (p *Pruner) relieve(ctx context.Context, pl *plan) {
	var errs []error
	for dev := range pl.found.usage {
		if !p.pressure.on[dev] {
			continue
		}
		u, err := p.usageOf(pl, dev)
		if err != nil {
			continue
		}
		p.mu.Lock()
		on := p.pressure.update(dev, u)
		p.mu.Unlock()
		if !on {
			continue
		}
		p.nextImages, p.nextContainers = p.hurry(p.nextImages), p.hurry(p.nextContainers)
		at := ""
		for _, r := range pl.found.roots {
			if r.node.dev == dev {
				at = r.path
				break
			}
		}
		gone := p.proc.look(nil, nil, true).lost
		errs = append(errs, alarm(at, u, pl.writers(ctx, p.k, dev), gone, dev))
	}
	p.report("pressure", errors.Join(errs...), "rotate these logs (packaging/examples/logrotate-berth.conf), or give the host a larger disk; nothing of a live container is ever deleted")
}

// hurry brings a daily run forward, to once an hour at most.
func (p *Pruner) hurry(next time.Time) time.Time {
	if soon := p.now().Add(time.Minute); next.After(soon) && p.now().Sub(p.hurried) > time.Hour {
		return soon
	}
	return next
}

// settle saves what is remembered, and tells people what is in the way.
func (p *Pruner) settle(pl *plan) {
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := make(map[*seen]bool)
	still := make(map[string]bool)
	for i := range pl.found.folders {
		if mem := p.ledger.memory.find(pl.found.folders[i].id); mem != nil {
			kept[mem] = true
		}
		if r := pl.rulings[i].rule; len(p.refusals) > 0 && (r == ruleDue || r == rulePressed || r == ruleTrash || r == ruleRestore) {
			if at := pl.found.path(i); p.refusals[at] != nil {
				still[at] = true
			}
		}
	}
	for at := range p.refusals {
		if !still[at] {
			delete(p.refusals, at)
		}
	}
	p.ledger.memory.forget(p.now(), kept)
	if p.ledger.j != nil {
		if err := p.ledger.save(); err != nil {
			p.report("state", err, "check that state_dir exists, is writable and has room")
		} else {
			p.report("state", nil, "")
		}
	}
	p.reportRefusals()
	p.counts = p.count(pl)
}

func (p *Pruner) reportRefusals() {
	var first string
	unsure := false
	for path, r := range p.refusals {
		if first == "" || path < first {
			first = path
		}
		unsure = unsure || errors.Is(r.err, errUnsure)
	}
	if first == "" {
		p.report("refused", nil, "")
	} else {
		r := p.refusals[first]
		p.report("refused", fmt.Errorf("%d folders are due and stay, such as %s: %w", len(p.refusals), first, r.err), "see `berth explain "+first+"`")
	}
	if !unsure && p.cfg.CannotTell != unsureReport {
		p.report("held", nil, "")
	}
}

// reportEngine tells people why the engine's word does not count, where that does
// not pass by itself.
func (p *Pruner) reportEngine(blocked error) {
	if e, ok := errors.AsType[*engineError](blocked); ok {
		p.report("engine", fmt.Errorf("nothing is deleted: %w", e.error), e.fix)
		return
	}
	p.report("engine", nil, "")
}

func (p *Pruner) reportScan(pl *plan) {
	var err error
	if n := len(pl.found.errs); n > 0 {
		err = fmt.Errorf("%d folders cannot be looked at, such as %w", n, pl.found.errs[0])
	}
	p.report("scan", err, "berth must be root, with CAP_DAC_READ_SEARCH; or correct prune.roots")
	if p.watch != nil {
		left, err := p.watch.set(pl.found.passed)
		p.stats.unwatched.Store(int64(left))
		p.report("watch", err, "these are found by the scan only; raise fs.inotify.max_user_watches")
	}
}

// others prunes images and stopped containers, if it is time, or if anybody has
// asked.
func (p *Pruner) others(ctx context.Context) {
	if p.engine == nil {
		return
	}
	snap := p.feed.Snapshot()
	now := p.now()
	images, containers := !now.Before(p.nextImages), !now.Before(p.nextContainers)
	if (!images || !p.cfg.Images.Enabled) && (!containers || !p.cfg.Containers.Enabled) || p.trust(snap) != nil {
		p.soonOthers()
		return
	}
	var errs []error
	if containers && p.cfg.Containers.Enabled {
		errs = append(errs, p.pruneContainers(ctx, snap))
		p.nextContainers = daily(now, p.cfg.Containers.At, p.cfg.Containers.Jitter.Std(), p.host())
	}
	if images && p.cfg.Images.Enabled {
		errs = append(errs, p.pruneImages(ctx, snap))
		p.nextImages = daily(now, p.cfg.Images.At, p.cfg.Images.Jitter.Std(), p.host())
	}
	p.hurried = now
	if err := errors.Join(errs...); ctx.Err() == nil {
		p.report("images", err, "see berth's log")
	}
	p.soonOthers()
}

// soonOthers wakes Run when images or containers are due.
func (p *Pruner) soonOthers() {
	if p.cfg.Images.Enabled {
		p.soon(later(p.nextImages, p.lastScan.Add(gap)))
	}
	if p.cfg.Containers.Enabled {
		p.soon(later(p.nextContainers, p.lastScan.Add(gap)))
	}
}

// progress says how far a run is. It is safe for concurrent use.
type progress struct {
	running                                            atomic.Bool // one that was asked for
	runs, total, folders, files, bytes, refused, began atomic.Int64
	err                                                atomic.Pointer[string]
}

// reset begins a run that was asked for.
func (g *progress) reset(now time.Time) {
	g.runs.Add(1)
	for _, n := range []*atomic.Int64{&g.total, &g.folders, &g.files, &g.bytes, &g.refused} {
		n.Store(0)
	}
	g.err.Store(nil)
	g.began.Store(now.UnixNano())
}

func (g *progress) stop(err error) {
	if err != nil {
		text := err.Error()
		g.err.Store(&text)
	}
}
