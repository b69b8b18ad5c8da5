// Package logprune deletes the log folders of containers that are gone, so that
// the disk never fills, and never one of a container that is there.
//
// # What is deleted
//
// Folders below the roots of the configuration whose name is a container's ID: all
// 64 digits of it, or the first twelve. By default
//
//	/var/log/<organisation>/<service>/containers/<container ID>
//
// A folder goes when its container was removed (or, with `when: stopped`, has
// ended), and neither that nor a change of any file in it is less than `retain` ago.
// Until `enabled: true` nothing is deleted: berth prune --dry-run shows every folder
// with what would become of it, and why.
//
// # Why it can be trusted
//
// A list that lacks a container proves nothing: it may have failed, come from an
// engine that is starting, or from another one. So all of these must hold:
//
//   - The engine is the one that was there all the time: the same ID, and the same
//     data root with the same folder of containers in it, by device, inode and time
//     of birth. An engine whose data was lost keeps its ID. After a change nothing is
//     deleted until somebody says berth prune --accept-engine.
//   - The snapshot is complete, and has no such container in any state.
//   - Right before, an inspect of the ID is answered with "no such container": not
//     more than a second before the folder is moved to the trash. Every other answer,
//     and none, keeps the folder.
//   - When more than usual are due at once (`many`), a second scan must agree.
//   - A short name of decimal digits alone, as 202611210130, may be a date: berth
//     must have seen the container.
//   - The folder, or anything in it, is mounted into no other container. Below a
//     folder that one mounts, berth must have seen the container (`under_mounts`).
//   - No process has a file in it open, or has it mounted in a mount namespace of its
//     own, whoever started that process. Where this cannot be told, `cannot_tell`
//     decides.
//   - With `archive: required`, all of its files are archived.
//
// # How it is deleted
//
// Through directory handles that follow no symbolic link and cross no mount at any
// level (openat2); a kernel without that deletes nothing. A mount anywhere inside
// keeps the whole tree. What goes is first renamed into .berth-trash in its root, so
// that nobody can open it any more, looked at once more, and moved back if anybody
// had opened it meanwhile; then it is deleted leaf by leaf, at a bounded rate. A
// crash leaves it in the trash, where the next run judges it anew: it is deleted, or
// moved back. Every deletion is in the journal (berth prune log) and in berth's log.
// The journal wants room on the disk; when there is none, deletions go on, and are
// written down when there is.
//
// # Pressure
//
// A file system that is fuller than `pressure.high`, in bytes or inodes, shortens
// `retain` down to `retain_min`, for the oldest first, until it is below
// `pressure.low`. Nothing else gives way. If that is not enough, a condition names
// the largest folders of live containers, whose logs want to be rotated (see
// packaging/examples/logrotate-berth.conf), and deleted files that are still open.
//
// # Images and stopped containers
//
// Each has an opt-in of its own, and its time of day. Images that no container uses
// go by their ID, never forced; stopped containers never with volumes, and never those
// of ECS.
//
// # When
//
// A death in a snapshot sets the time of the next look; new folders on the way to
// roots are seen at once (inotify); and a scan every ten minutes looks at everything.
package logprune

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/berthd/berth/agent"
)

// name is the component's name, and that of its section.
const name = "prune"

// gap is the least time between two looks that nobody asked for.
const gap = 5 * time.Second

// Pruner is the collector. Make it with New. Its methods are safe for concurrent
// use, but those that say so are called before Run, and Run is called once.
type Pruner struct {
	cfg       Config
	patterns  []pattern
	log       *slog.Logger
	health    *agent.Scope
	node      agent.NodeSource
	stateDir  string
	inspector Inspector
	engine    Engine // for images and containers; nil for none
	archive   Archive
	dryRun    bool // besides Config.Enabled

	k    kernel
	proc proc
	now  func() time.Time
	// How much is done at once; tests that are to be replayed want 1 of each. A batch of 0
	// is as large as fits.
	workers, inspectors, batch int

	unsafe error // why this kernel cannot delete safely
	feed   agent.Feed
	watch  *watcher

	requests chan func(context.Context)
	progress progress
	stats    stats

	// What follows is changed by the goroutine of Run alone, which holds mu while
	// it does, and read by others that hold it.
	mu               sync.Mutex
	ledger           *ledger
	opened           error // why there is no journal
	refusals         map[string]*refusal
	pressure         *pressure
	links            map[string]string // resolved paths of mounts
	suspects         suspects
	expect           int    // folders, as many as the last scan has found
	counts           Counts // of that
	imageRulings     []ImageRuling
	containerRulings []ContainerRuling

	lastScan, wake             time.Time // of Run's goroutine alone
	nextImages, nextContainers time.Time
	hurried                    time.Time // when these were last run
}

// New returns the collector, or an error that joins all that is wrong with cfg.
// The engine is asked about containers that seem to be gone, and is what images and
// stopped containers are removed through.
func New(cfg Config, env agent.Env, engine Engine) (*Pruner, error) {
	err := errors.Join(cfg.Validate(), cfg.Pressure.Validate(), cfg.Images.Validate(), cfg.Containers.Validate())
	if err != nil {
		return nil, fmt.Errorf("check prune config: %w", err)
	}
	p := &Pruner{
		cfg: cfg, log: env.Log, health: env.Health.Scope(name), node: env.Node, stateDir: env.StateDir,
		inspector: engine, engine: engine,
		k: linux{}, proc: proc{"/proc", linux{}}, now: time.Now, workers: workers, inspectors: inspectors,
		requests: make(chan func(context.Context)),
		ledger:   newLedger(), refusals: make(map[string]*refusal), links: make(map[string]string),
		pressure: newPressure(cfg.Pressure),
	}
	for _, glob := range cfg.Roots {
		pat, err := parsePattern(glob)
		if err != nil {
			return nil, fmt.Errorf("check prune config: %w", err)
		}
		p.patterns = append(p.patterns, pat)
	}
	for condition, severity := range conditions {
		p.health.Declare(condition, severity, 0)
	}
	return p, nil
}

// conditions are those of the component, and how much each matters.
var conditions = map[string]agent.Severity{
	"engine":   agent.SeverityError,   // its word does not count
	"kernel":   agent.SeverityError,   // nothing can be deleted safely
	"state":    agent.SeverityError,   // the journal
	"scan":     agent.SeverityWarning, // roots that cannot be looked at
	"refused":  agent.SeverityWarning, // folders that are due and stay
	"held":     agent.SeverityWarning, // it cannot be told what is open
	"pressure": agent.SeverityError,   // a disk stays full
	"images":   agent.SeverityWarning,
	"watch":    agent.SeverityWarning,
}

// UseArchive sets who knows which files are archived. Call it before Run.
func (p *Pruner) UseArchive(a Archive) { p.archive = a }

// DryRun makes the collector plan only, whatever the configuration says. Call it
// before Run.
func (p *Pruner) DryRun() { p.dryRun = true }

// Name returns "prune".
func (p *Pruner) Name() string { return name }

// Run prunes until ctx ends. It returns nil then; what it was about to delete is
// finished by the next run.
func (p *Pruner) Run(ctx context.Context, f agent.Feed) error {
	p.begin(f)
	defer p.end()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var changed <-chan struct{}
	for {
		if p.node != nil {
			changed = p.node.Changed()
		}
		p.openJournal()
		timer.Reset(time.Until(p.wake))
		select {
		case <-ctx.Done():
			return nil
		case <-f.Changed():
			p.notice()
			continue
		case <-changed:
			continue
		case <-p.watch.C:
			p.soon(p.lastScan.Add(gap))
			continue
		case do := <-p.requests:
			do(ctx)
			continue
		case <-timer.C:
		}
		p.cycle(ctx)
		p.others(ctx)
	}
}

func (p *Pruner) begin(f agent.Feed) {
	p.mu.Lock()
	p.feed, p.unsafe = f, probe(p.k)
	p.mu.Unlock()
	p.report("kernel", p.unsafe, "berth prunes nothing on this host; use another kernel, or allow openat2 in the filter")
	var err error
	p.watch, err = newWatcher(p.cfg.MaxWatches)
	p.report("watch", err, "new folders are found by the scan only; raise fs.inotify.max_user_instances")
	now := p.now()
	p.nextImages = daily(now, p.cfg.Images.At, p.cfg.Images.Jitter.Std(), p.host())
	p.nextContainers = daily(now, p.cfg.Containers.At, p.cfg.Containers.Jitter.Std(), p.host())
	// The first scan waits for the engine's first list.
	p.wake = now.Add(gap)
}

func (p *Pruner) end() {
	p.watch.close()
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.ledger.save(); err != nil {
		p.log.Warn("what is known of containers could not be saved", "err", err)
	}
	if err := p.ledger.close(); err != nil {
		p.log.Warn("the journal could not be closed", "err", err)
	}
	p.ledger.j = nil
	for condition := range conditions {
		p.report(condition, nil, "")
	}
}

// active reports whether anything may be deleted.
func (p *Pruner) active() bool { return p.cfg.Enabled && !p.dryRun }

// report sets a condition. In a dry run nobody need be woken: the plan says it all.
func (p *Pruner) report(condition string, err error, hint string) {
	if !p.active() && !p.cfg.Images.Enabled && !p.cfg.Containers.Enabled {
		err = nil
	}
	p.health.Set(condition, err, hint)
}

// soon sets the next look to be no later than t.
func (p *Pruner) soon(t time.Time) {
	if t.Before(p.wake) {
		p.wake = t
	}
}

func (p *Pruner) host() string {
	if p.node == nil {
		return ""
	}
	return p.node.StateHost()
}

var errNoHost = errors.New("it is not certain yet who this host is, and whose journal its is")

// openJournal opens the journal as soon as it is certain whose it is: that of
// another host, in a baked image or a clone, knows other containers.
func (p *Pruner) openJournal() {
	if p.ledger.j != nil {
		return
	}
	host := p.host()
	p.mu.Lock()
	defer p.mu.Unlock()
	if host == "" {
		p.opened = errNoHost
		return
	}
	l, replay, err := openLedger(filepath.Join(p.stateDir, "prune.journal"), host)
	p.opened = err
	p.report("state", err, "check that state_dir exists and is writable")
	if err != nil {
		return
	}
	if replay.SetAside != "" || replay.Reason != nil {
		p.log.Warn("unusable state was set aside", "path", replay.SetAside, "err", replay.Reason)
	}
	p.ledger = l
}

// notice takes over what a new snapshot says of deaths, without a look at the disk.
func (p *Pruner) notice() {
	snap := p.feed.Snapshot()
	if snap.Seq == 0 {
		return // the loop has not looked at the engine yet
	}
	p.adopt(snap)
	blocked := p.trust(snap)
	p.reportEngine(blocked)
	if blocked != nil {
		return
	}
	now := p.now()
	p.mu.Lock()
	died := p.ledger.memory.learn(snap, p.cfg.ExemptLabels, now)
	p.mu.Unlock()
	if died {
		p.soon(now.Add(p.cfg.Retain.Std()))
	}
	if p.cfg.When == whenStopped && len(snap.Dead) > 0 {
		p.soon(snap.Dead[len(snap.Dead)-1].FinishedAt.Add(p.cfg.Retain.Std()))
	}
	if p.lastScan.IsZero() {
		p.wake = now
	}
	if earliest := p.lastScan.Add(gap); p.wake.Before(earliest) {
		p.wake = earliest
	}
}

// trust returns why what a snapshot does not have may be there all the same, or nil.
func (p *Pruner) trust(snap *agent.Snapshot) error {
	switch {
	case p.unsafe != nil:
		return p.unsafe
	case p.ledger.j == nil:
		return p.opened
	case !snap.Connected:
		return &hinted{errors.New("the engine does not answer"), "see `berth status`"}
	case !snap.Complete:
		return &hinted{errors.New("the engine's containers are not all known yet"), "wait a moment"}
	}
	mark, err := markEngine(snap.EngineID, snap.EngineRoot)
	if err != nil {
		return &engineError{err, "let berth see the engine's data root"}
	}
	if p.ledger.engine == nil {
		return &engineError{errors.New("no engine was accepted yet"), acceptHint}
	}
	if err := mark.differs(*p.ledger.engine); err != nil {
		return &engineError{err, acceptHint}
	}
	return nil
}

const acceptHint = "if that is right, and no container of the former one is alive: berth prune --accept-engine"

// engineError is why the word of the engine does not count.
type engineError struct {
	error
	fix string
}

func (e *engineError) Unwrap() error { return &hinted{e.error, e.fix} }

// adopt accepts the first engine that this host has.
func (p *Pruner) adopt(snap *agent.Snapshot) {
	if p.ledger.j == nil || p.ledger.engine != nil || !snap.Complete {
		return
	}
	mark, err := markEngine(snap.EngineID, snap.EngineRoot)
	if err == nil {
		err = p.accept(mark)
	}
	if err == nil {
		p.log.Info("this engine's word counts from now on", "engine", mark.ID, "root", mark.Root)
	}
}

func (p *Pruner) accept(mark engineMark) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.suspects = suspects{}
	if err := p.ledger.accept(mark); err != nil {
		p.report("state", err, "check that state_dir exists and is writable")
		return err
	}
	return nil
}
