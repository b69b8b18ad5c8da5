package logprune

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/config"
)

// TestFaults is the proof that nothing alive is ever deleted, and that everything
// dead is in the end: runs with random faults, on a real file system in memory, with
// real bind mounts, and a model of an engine and of its processes.
//
// Each run is a small host: containers are born, start, pause, restart, end and
// are removed, write into their folders, and hold files open; meanwhile lists fail,
// come back empty, are cut short, or come from another engine or from one that lost
// its data; between any two calls of the pruner to the kernel, folders are replaced by
// symbolic links, things are mounted, calls fail, containers are born, and the pruner
// is killed. After each cycle, all that must be there is: the folders of containers
// that exist, those held, mounted, exempt or retained, dates, strangers, and what
// symbolic links, hard links and mounts lead to. When all faults are over, every
// folder of a dead container is gone, and every other one is in its place.
//
// Each safeguard was broken once on purpose. This test fails when
//
//   - nothing is inspected before it goes (and prune03, prune04)
//   - another engine is believed, or one with another data root (prune03, TestAcceptEngine)
//   - an emptied data root is not noticed (prune03)
//   - the retention is not kept (prune09, TestRules)
//   - short names of decimal digits need no proof (prune08, TestRules)
//   - exempt paths (TestRules) or labels (TestSeenContainers) are forgotten
//   - open files are not looked for (prune06)
//
// Where two safeguards stand behind each other, breaking one alone does no harm here,
// and its own test fails: mounts that are crossed, or not looked for (prune01); errors
// of inspects, and incomplete snapshots (prune03); stopped containers, unread ones,
// mounts into containers (TestRules); late writes (TestWrittenToLately); what cannot be
// told (TestCannotTell); what is not moved back, or not asked for again in the trash
// (TestArchiveRequired, TestStartedMeanwhile, TestMovedBackFromTheTrash); answers and
// looks of long ago (TestAnswersGrowOld, TestLooksGrowOld, TestOneLookForAllBatches); who
// opens or mounts what is in the trash already (TestHeldInTheTrash); a container that goes
// while its folder is to be moved back (TestGoneWhileMovedBack); a folder that is another one
// than was looked at (TestReplacedByAnotherFolder); a journal without room
// (TestJournalOfAFullDisk).
//
//	BERTH_PRUNE_RUNS=10000   how many runs (1,000 by default)
//	BERTH_PRUNE_SEED=7       replay one run
func TestFaults(t *testing.T) { faults(t, 1000, 1) }

// TestFaultsAtOnce does the same with several folders on their way at any moment, as
// on a host: what happens meanwhile happens between the steps of all of them, and a
// kill ends all of them in the middle. The order of things differs from run to run,
// so that a seed replays what is to happen, but not when.
func TestFaultsAtOnce(t *testing.T) { faults(t, 300, 4) }

func faults(t *testing.T, runs, workers int) {
	if !inNamespace(t) {
		return
	}
	if n, err := strconv.Atoi(os.Getenv("BERTH_PRUNE_RUNS")); err == nil {
		runs = n
	}
	first := rand.Uint64() % 1e9
	if n, err := strconv.ParseUint(os.Getenv("BERTH_PRUNE_SEED"), 10, 64); err == nil {
		first, runs = n, 1
	}
	base := tmpfs(t, "size=512m")
	var deleted, killed, refused int64
	for n := range runs {
		seed := first + uint64(n)
		h := newHost(filepath.Join(base, fmt.Sprint("run", n)), seed, workers)
		err := h.live()
		deleted += h.deleted
		killed += int64(h.kills)
		refused += h.refused
		h.clear()
		if err != nil {
			t.Fatalf("seed %d (replay with BERTH_PRUNE_SEED=%d): %v\n%s", seed, seed, err, strings.Join(h.story, "\n"))
		}
	}
	t.Logf("%d runs from seed %d: %d folders deleted, %d refused, %d kills", runs, first, deleted, refused, killed)
	if runs >= 100 && (deleted < int64(runs) || killed < int64(runs)/10 || refused < int64(runs)/10) {
		t.Errorf("got %d deletions, %d refusals and %d kills in %d runs: too few to prove anything", deleted, refused, killed, runs)
	}
}

// box is a container of a run, and its folder: the truth.
type box struct {
	id, name string // of the container, and of the folder
	dir      string
	exists   bool
	folder   bool // the container has made it
	exempt   bool
	gone     time.Time
	unseen   bool // it came and went without a snapshot in between
	held     bool // a process has a file in it open, or has it mounted
	mounted  string
	late     bool // it was born after the snapshot of this cycle
	hurt     bool // a fault has damaged the folder: its content is not compared
}

// host is one run.
type host struct {
	workers int
	rng     *rand.Rand
	dir     string
	story   []string
	clock   time.Time
	cfg     Config
	m       *model
	proc    fakeProc
	p       *Pruner
	boxes   []*box
	keep    map[string]string // files that must stay as they are, with their content
	calls   int
	events  map[int]func() error // by the number of the call to the kernel
	dead    bool                 // the pruner was killed
	moved   bool                 // it has moved something in this cycle
	foreign bool                 // the engine's word is not true now
	pid     int

	kills            int
	deleted, refused int64
}

var orgs = []string{"acme", "globex"}

func newHost(dir string, seed uint64, workers int) *host {
	h := &host{
		workers: workers, rng: rand.New(rand.NewPCG(seed, 1)), dir: dir, keep: make(map[string]string), pid: 100,
		clock: time.Now().Add(-48 * time.Hour).Truncate(time.Second),
	}
	must(os.MkdirAll(h.path("log"), 0o755))
	must(os.MkdirAll(h.path("precious/deep"), 0o755))
	must(os.MkdirAll(h.path("state"), 0o700))
	for _, f := range []string{"precious/file", "precious/deep/file"} {
		h.file(h.path(f), "precious")
	}
	h.m = newModel(h.path("docker"), func() time.Time { return h.clock })
	if h.chance(3) {
		h.m.cut = 1 + h.rng.IntN(3)
	}
	h.proc = newFakeProc(h.path("proc"))
	h.cfg = DefaultConfig()
	h.cfg.Enabled = true
	h.cfg.Roots = []string{h.path("log/*/*/containers")}
	if h.chance(3) {
		h.cfg.Roots = []string{h.path("log/**/containers")}
	}
	h.cfg.Retain, h.cfg.RetainMin = config.Duration(time.Hour), config.Duration(time.Hour)
	if h.chance(3) {
		h.cfg.Retain, h.cfg.RetainMin = 0, 0 // nothing but the engine's answer protects what is new
	}
	if h.chance(4) {
		h.cfg.When = whenStopped
	}
	h.cfg.Many = []int{0, 1, 20}[h.rng.IntN(3)]
	h.cfg.Exempt = []string{h.path("log/*/exempt")}
	h.cfg.Rate = 0
	for _, name := range []string{"202611210130", "lost+found", "current", strings.Repeat("A", 64), strings.Repeat("a", 63)} {
		h.file(filepath.Join(h.root(0, "web"), name, "file"), name)
	}
	h.file(filepath.Join(h.root(0, "web"), strings.Repeat("b", 64)), "a file with a container's name")
	must(os.Symlink(h.path("precious"), filepath.Join(h.root(0, "web"), strings.Repeat("c", 64))))
	h.start()
	return h
}

func (h *host) path(rel string) string { return filepath.Join(h.dir, rel) }
func (h *host) chance(in int) bool     { return h.rng.IntN(in) == 0 }

func (h *host) say(format string, args ...any) {
	h.story = append(h.story, fmt.Sprintf("%s %s", h.clock.Format(time.TimeOnly), fmt.Sprintf(format, args...)))
}

func (h *host) root(org int, service string) string {
	return h.path(filepath.Join("log", orgs[org], service, "containers"))
}

// file makes a file that must stay.
func (h *host) file(path, content string) {
	h.write(path, content)
	h.keep[path] = content
}

// write makes a file and its folders, as of now by the run's clock.
func (h *host) write(path, content string) {
	must(os.MkdirAll(filepath.Dir(path), 0o755))
	must(os.WriteFile(path, []byte(content), 0o644))
	must(os.Chtimes(path, h.clock, h.clock))
	must(os.Chtimes(filepath.Dir(path), h.clock, h.clock))
}

// start makes a pruner, as a start of berth does.
func (h *host) start() {
	h.dead = false
	h.p = newTestPruner(h.cfg, h.m, testEnv(h.path("state")), &faulty{before: h.before}, h.proc.dir)
	h.p.workers, h.p.inspectors = h.workers, h.workers
	if h.workers > 1 {
		h.p.batch = 3 // so that one is looked at while another goes
	}
}

func (h *host) stop() {
	h.deleted += h.p.stats.deleted.Load()
	h.refused += h.p.stats.refused.Load()
	_ = h.p.ledger.close()
}

var errKilled = errors.New("killed")

// before is called before each call to the kernel, by any worker. What happens then
// happens between two answers of the engine.
func (h *host) before(op, name string) error {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if h.dead {
		return errKilled
	}
	h.calls++
	h.moved = h.moved || op == "renameat2"
	event := h.events[h.calls]
	if event == nil {
		return nil
	}
	delete(h.events, h.calls)
	h.say("  before call %d, %s %q:", h.calls, op, name)
	return event()
}

// kill is SIGKILL: from now on, nothing that the pruner does has an effect.
func (h *host) kill() error {
	h.say("  killed")
	h.dead = true
	h.kills++
	_ = h.p.ledger.j.Close()
	return errKilled
}

// live is the run: some steps with faults, and then peace.
func (h *host) live() error {
	defer func() { h.stop() }()
	// The first engine is believed to be the right one: nobody could know better.
	if err := h.cycle(); err != nil {
		return err
	}
	for range 6 + h.rng.IntN(6) {
		for range h.rng.IntN(6) {
			h.happen()
		}
		h.schedule()
		if err := h.cycle(); err != nil {
			return err
		}
		h.clock = h.clock.Add([]time.Duration{time.Second, 2 * time.Minute, 40 * time.Minute, 2 * time.Hour}[h.rng.IntN(4)])
	}
	return h.peace()
}

// cycle runs the pruner once, and checks that nothing is missing.
func (h *host) cycle() error {
	h.calls, h.moved = 0, false
	if h.foreign {
		h.say("cycle, with a wrong engine")
	} else {
		h.say("cycle")
	}
	h.p.cycle(context.Background())
	h.events = nil
	if h.dead {
		h.stop()
		h.m.dead = nil // the loop of another process knows of no deaths before
		h.start()
		return h.check(false)
	}
	// A list that claims to be complete and is not makes the pruner believe in an
	// earlier end: not in one of what exists.
	for _, b := range h.boxes {
		if b.exists && !b.late {
			b.unseen = h.m.distort != nil || h.foreign
		}
		b.late = false
	}
	return h.check(false)
}

// happen is one thing in the life of a host.
func (h *host) happen() {
	b := h.any()
	switch n := h.rng.IntN(14); {
	case b == nil || n < 4:
		h.born(h.rng.IntN(3) == 0)
	case n < 8 && b.exists:
		h.remove(b)
	case n == 8 && b.exists:
		h.exit(b)
	case n == 9 && b.exists:
		c := h.m.containers[b.id]
		c.State, c.StartedAt, c.FinishedAt = agent.StateRunning, h.clock, time.Time{}
		h.say("%s starts", b.id[:12])
	case n == 10 && b.exists:
		if c := h.m.containers[b.id]; c.State == agent.StateRunning {
			c.State = agent.StatePaused
			h.say("%s is paused", b.id[:12])
		}
	case n == 11 && b.folder && !b.held:
		h.hold(b)
	case n == 12 && b.folder && b.mounted == "":
		h.mount(b)
	case n == 13:
		h.distort()
	}
}

func (h *host) any() *box {
	if len(h.boxes) == 0 {
		return nil
	}
	return h.boxes[h.rng.IntN(len(h.boxes))]
}

// born makes a container. One in some has a short name of decimal digits.
func (h *host) born(decimal bool) *box {
	b := &box{id: someID(h.rng), exists: true, unseen: true}
	short := h.chance(3)
	if decimal && short {
		b.id = fmt.Sprintf("%012d", h.rng.Uint64N(1e12)) + b.id[12:]
	}
	b.name = b.id
	if short {
		b.name = b.id[:12]
	}
	service := []string{"web", "api", "exempt"}[h.rng.IntN(3)]
	b.dir = filepath.Join(h.root(h.rng.IntN(2), service), b.name)
	b.exempt = service == "exempt"
	c := h.m.run(b.id, fmt.Sprint("c", len(h.boxes)))
	if h.chance(6) {
		c.State, c.StartedAt = agent.StateCreated, time.Time{}
	}
	if h.chance(8) {
		c.Labels = map[string]string{"berth.prune": "false"}
		b.exempt = true
	}
	if h.chance(6) { // it mounts the folder of a predecessor, or one above its own
		if old := h.any(); old != nil && h.chance(2) {
			c.Mounts = []string{old.dir}
		} else {
			c.Mounts = []string{filepath.Dir(filepath.Dir(b.dir))}
		}
	}
	h.boxes = append(h.boxes, b)
	h.say("%s is born (%s), folder %s, mounts %q", b.id[:12], c.State, strings.TrimPrefix(b.dir, h.dir), c.Mounts)
	b.folder = true
	for _, f := range []string{"app.log", "old/1.log", "a\nb", strings.Repeat("n", 255)} {
		if f == "app.log" || h.chance(3) {
			h.write(filepath.Join(b.dir, f), b.id)
		}
	}
	if h.chance(4) {
		must(os.Link(h.path("precious/file"), filepath.Join(b.dir, "linked")))
	}
	if h.chance(4) {
		must(os.Symlink(h.path("precious"), filepath.Join(b.dir, "link")))
	}
	must(filepath.WalkDir(b.dir, func(path string, _ os.DirEntry, err error) error {
		h.touch(path)
		return err
	}))
	return b
}

// touch sets the time of a file, or of a link, to that of the run's clock.
func (h *host) touch(path string) {
	at := unix.NsecToTimespec(h.clock.UnixNano())
	_ = unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW)
}

func (h *host) remove(b *box) {
	b.exists, b.gone = false, h.clock
	if c := h.m.containers[b.id]; h.cfg.When == whenStopped && hasEnded(c) {
		b.gone = c.FinishedAt
	}
	h.m.remove(b.id)
	h.say("%s is removed", b.id[:12])
}

func (h *host) exit(b *box) {
	if c := h.m.containers[b.id]; c.Alive() {
		h.m.exit(b.id)
		h.say("%s exits", b.id[:12])
	}
}

// hold makes a process that the engine knows nothing of: it has a file of the
// folder open, or the folder mounted.
func (h *host) hold(b *box) {
	h.pid++
	var st unix.Stat_t
	if unix.Stat(b.dir, &st) != nil || unix.Stat(filepath.Join(b.dir, "app.log"), &st) != nil {
		return
	}
	b.held = true
	if h.chance(2) {
		h.proc.process(h.pid, []string{filepath.Join(b.dir, "app.log")}, nil, st.Dev)
		h.say("%s is held open by %d", b.id[:12], h.pid)
		return
	}
	own, err := readMounts("/proc/self/mountinfo")
	must(err)
	h.proc.process(h.pid, nil, []string{within(own, b.dir)}, st.Dev)
	h.say("%s is mounted by %d", b.id[:12], h.pid)
}

// mount mounts what is precious in the folder.
func (h *host) mount(b *box) {
	from, to := h.path("precious"), filepath.Join(b.dir, "mnt")
	if h.chance(2) {
		from, to = h.path("precious/file"), filepath.Join(b.dir, "mnt")
		if os.WriteFile(to, nil, 0o644) != nil {
			return
		}
	} else if os.Mkdir(to, 0o755) != nil {
		return
	}
	h.touch(to)
	h.touch(b.dir)
	h.unlessMoved(bind(from, to))
	b.mounted = to
	h.say("%s has %s mounted in it", b.id[:12], strings.TrimPrefix(from, h.dir))
}

// distort makes what the engine says untrue until the next time, or true again.
func (h *host) distort() {
	h.honest()
	switch h.rng.IntN(7) {
	case 0: // the list fails
		h.m.distort = func(s *agent.Snapshot) { s.Complete = false; s.Containers = nil }
		h.say("the list fails")
	case 1: // the list is empty, and inspects are right
		h.m.distort = func(s *agent.Snapshot) { s.Containers, s.Dead = nil, nil }
		h.say("the list is empty")
	case 2: // the list is cut short
		h.m.distort = func(s *agent.Snapshot) { s.Containers = s.Containers[:len(s.Containers)/2] }
		h.say("the list is cut short")
	case 3: // another engine, which knows none of the containers
		h.m.distort = func(s *agent.Snapshot) { s.EngineID, s.Containers, s.Dead = "OTHER", nil, nil }
		h.m.inspect = func(string) error { return agent.ErrNotFound }
		h.foreign = true
		h.say("another engine answers")
	case 4: // the data root was emptied, and the engine started again: the same ID
		must(os.Rename(h.path("docker/containers"), h.path("docker/lost")))
		must(os.Mkdir(h.path("docker/containers"), 0o755))
		h.m.distort = func(s *agent.Snapshot) { s.Containers, s.Dead = nil, nil }
		h.m.inspect = func(string) error { return agent.ErrNotFound }
		h.foreign = true
		h.say("the engine has lost its data")
	case 5: // inspects fail
		h.m.inspect = func(string) error { return errors.New("500") }
		h.say("inspects fail")
	case 6: // it would not show some
		h.m.distort = func(s *agent.Snapshot) {
			for _, c := range s.Containers {
				s.Unread = append(s.Unread, c.ID)
			}
			s.Containers = nil
		}
		h.say("containers are not shown")
	}
}

// honest ends what distort did.
func (h *host) honest() {
	h.m.distort, h.m.inspect, h.foreign = nil, nil, false
	if _, err := os.Stat(h.path("docker/lost")); err == nil {
		must(os.Remove(h.path("docker/containers")))
		must(os.Rename(h.path("docker/lost"), h.path("docker/containers")))
	}
}

// schedule has something happen in the middle of the next cycle.
func (h *host) schedule() {
	h.events = make(map[int]func() error)
	for range h.rng.IntN(3) {
		at := 1 + h.rng.IntN(150)
		switch h.rng.IntN(8) {
		case 0, 1:
			h.events[at] = h.kill
		case 2:
			errno := []unix.Errno{unix.ENOSPC, unix.EBUSY, unix.EACCES, unix.EIO}[h.rng.IntN(4)]
			h.events[at] = func() error { h.say("  %v", errno); return errno }
		case 3:
			h.events[at] = func() error { h.born(true).late = true; return nil }
		case 4:
			h.events[at] = func() error {
				if b := h.any(); b != nil && b.exists {
					// A stopped container may be started at any moment, after the last
					// look at it, too: that is what who prunes those of stopped ones wants.
					b.hurt = b.hurt || h.moved && h.cfg.When == whenStopped
					c := h.m.containers[b.id]
					c.State, c.StartedAt, c.FinishedAt = agent.StateRunning, h.clock, time.Time{}
					h.say("  %s starts", b.id[:12])
				}
				return nil
			}
		case 5, 6:
			h.events[at] = func() error { h.swap(); return nil }
		case 7:
			h.events[at] = func() error {
				if b := h.any(); b != nil && b.mounted == "" && b.folder {
					h.mount(b)
				}
				return nil
			}
		}
	}
}

// unlessMoved wants no error but that a folder went since it was last looked at,
// which another worker may have done.
func (h *host) unlessMoved(err error) {
	if h.workers == 1 || !errors.Is(err, unix.ENOENT) {
		must(err)
	}
}

// swap replaces a folder of a dead container, or one in it, by a symbolic link to
// what is precious.
func (h *host) swap() {
	b := h.any()
	if b == nil || b.exists || b.mounted != "" {
		return
	}
	at := b.dir
	if h.chance(2) {
		at = filepath.Join(b.dir, "old")
	}
	aside := h.path(fmt.Sprint("aside", h.calls, h.rng.IntN(1e6)))
	if os.Rename(at, aside) != nil {
		return
	}
	b.hurt = true
	if h.chance(2) {
		h.unlessMoved(os.Symlink(h.path("precious"), at))
		h.touch(at)
		h.touch(b.dir)
		h.say("  %s is replaced by a link", strings.TrimPrefix(at, h.dir))
		return
	}
	// Or by a folder of somebody's, full of what is not to be lost.
	h.unlessMoved(os.Mkdir(at, 0o755))
	h.touch(at)
	h.touch(b.dir)
	h.unlessMoved(bind(h.path("precious"), at))
	h.say("  %s is replaced by a mount", strings.TrimPrefix(at, h.dir))
}

// check returns what is missing that must be there. In peace, folders of the dead
// must be gone, and those of the living in their place.
func (h *host) check(peace bool) error {
	for path, content := range h.keep {
		got, err := os.ReadFile(path)
		if err != nil || string(got) != content {
			return fmt.Errorf("%q must stay as it is: got %q, %v", strings.TrimPrefix(path, h.dir), got, err)
		}
	}
	for _, b := range h.boxes {
		why := h.stays(b)
		if _, err := os.Lstat(b.dir); why == "" && err != nil {
			b.folder = false // it was right to go, whatever becomes of its container
		}
		if why != "" && !b.hurt {
			err := h.whole(b, b.dir)
			if err != nil && !peace { // between a kill and the next cycle
				err = h.whole(b, filepath.Join(filepath.Dir(b.dir), trashName, b.name))
			}
			if err != nil {
				return fmt.Errorf("%s must stay (%s): %w", strings.TrimPrefix(b.dir, h.dir), why, err)
			}
		}
	}
	return nil
}

func (h *host) whole(b *box, dir string) error {
	got, err := os.ReadFile(filepath.Join(dir, "app.log"))
	if err == nil && string(got) != b.id {
		err = fmt.Errorf("got %q", got)
	}
	return err
}

// lives reports whether a folder's container exists, as prune.when has it.
func (h *host) lives(b *box) bool {
	c := h.m.containers[b.id]
	return c != nil && (h.cfg.When == whenRemoved || !hasEnded(c))
}

// stays says why a folder must be there now, or "" if it need not.
func (h *host) stays(b *box) string {
	c := h.m.containers[b.id]
	switch {
	case !b.folder:
		return ""
	case h.lives(b):
		return "its container exists"
	case b.held:
		return "it is held"
	case b.exempt && !b.unseen:
		return "it is exempt"
	case c != nil && h.clock.Sub(c.FinishedAt) < h.cfg.Retain.Std():
		return "its container has just ended"
	case c == nil && h.clock.Sub(b.gone) < h.cfg.Retain.Std() && !b.unseen:
		return "its container has just gone"
	}
	return ""
}

// peace ends all faults, and wants the right end.
func (h *host) peace() error {
	h.honest()
	h.say("peace")
	h.unmount()
	for _, b := range h.boxes {
		b.held = false
	}
	for pid := 101; pid <= h.pid; pid++ {
		h.proc.end(pid)
	}
	for range 5 {
		h.clock = h.clock.Add(3 * time.Hour)
		if err := h.cycle(); err != nil {
			return err
		}
	}
	if err := h.check(true); err != nil {
		return err
	}
	for _, b := range h.boxes {
		if !h.mustGo(b) {
			continue
		}
		if fi, err := os.Lstat(b.dir); err == nil && fi.IsDir() {
			why, err := h.p.explain(context.Background(), b.dir)
			return fmt.Errorf("%s is still there: %+v, %v", strings.TrimPrefix(b.dir, h.dir), why, err)
		}
	}
	bins, err := filepath.Glob(h.path("log/*/*/containers/" + trashName))
	if err != nil || len(bins) > 0 {
		return fmt.Errorf("a trash is still there: %q, %v", bins, err)
	}
	return nil
}

// mustGo reports whether a folder must be gone in the end.
func (h *host) mustGo(b *box) bool {
	// One that was in the trash at a kill, and whose container was started then, may
	// be back.
	if h.stays(b) != "" || b.exempt || h.lives(b) {
		return false
	}
	if id, _ := parseID(b.name); b.unseen && id.decimal() {
		return false // nobody can know that it was a container's
	}
	for _, c := range h.m.containers {
		for _, m := range c.Mounts {
			if m == b.dir || inside(b.dir, m) && b.unseen && c.Alive() {
				return false
			}
		}
	}
	return true
}

// unmount ends all mounts of the run, wherever they were moved to.
func (h *host) unmount() {
	all, err := readMounts("/proc/self/mountinfo")
	must(err)
	for _, m := range slices.Backward(all) {
		if inside(m.point, h.dir) {
			must(unix.Unmount(m.point, unix.MNT_DETACH))
		}
	}
}

// clear removes what the run has left.
func (h *host) clear() {
	h.unmount()
	must(os.RemoveAll(h.dir))
}
