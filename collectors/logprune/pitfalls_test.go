package logprune

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/config"
)

// stage is a small host for one test: a root, an engine, and a clock that begins
// two days ago.
type stage struct {
	t     *testing.T
	dir   string
	root  string
	clock time.Time
	cfg   Config
	m     *model
	k     *faulty
	proc  fakeProc
	env   agent.Env
	p     *Pruner
}

// newStage makes a stage in a folder. The test may change cfg until the first
// cycle.
func newStage(t *testing.T, dir string) *stage {
	t.Helper()
	s := &stage{t: t, dir: dir, clock: time.Now().Add(-48 * time.Hour), k: new(faulty)}
	s.root = filepath.Join(dir, "log/acme/web/containers")
	must(os.MkdirAll(s.root, 0o755))
	must(os.MkdirAll(filepath.Join(dir, "state"), 0o700))
	s.m = newModel(filepath.Join(dir, "docker"), func() time.Time { return s.clock })
	s.proc = newFakeProc(filepath.Join(dir, "proc"))
	s.cfg = DefaultConfig()
	s.cfg.Enabled = true
	s.cfg.Roots = []string{filepath.Join(dir, "log/*/*/containers")}
	s.cfg.Rate = 0
	return s
}

// cycle looks and deletes once.
func (s *stage) cycle() {
	s.t.Helper()
	if s.p == nil {
		s.env = testEnv(filepath.Join(s.dir, "state"))
		s.p = newTestPruner(s.cfg, s.m, s.env, s.k, s.proc.dir)
		s.t.Cleanup(func() { _ = s.p.ledger.close() })
	}
	s.p.cycle(context.Background())
}

// conditions joins what is wrong.
func (s *stage) conditions() error { return s.env.Health.Err(name) }

// later lets time go by, and looks again.
func (s *stage) later(d time.Duration) {
	s.t.Helper()
	s.clock = s.clock.Add(d)
	s.cycle()
}

// id returns a full ID that begins with a word of hexadecimal digits.
func id(word string) string { return word + strings.Repeat("0", longDigits-len(word)) }

// folder makes a folder with a file in it, as of now by the stage's clock.
func (s *stage) folder(name string) string {
	dir := filepath.Join(s.root, name)
	s.file(filepath.Join(dir, "app.log"), name)
	return dir
}

func (s *stage) file(path, content string) {
	must(os.MkdirAll(filepath.Dir(path), 0o755))
	must(os.WriteFile(path, []byte(content), 0o644))
	must(os.Chtimes(path, s.clock, s.clock))
	must(os.Chtimes(filepath.Dir(path), s.clock, s.clock))
}

func there(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// wants fails the test unless the paths are there, or gone.
func (s *stage) wants(exist bool, paths ...string) {
	s.t.Helper()
	for _, path := range paths {
		if there(path) != exist {
			s.t.Errorf("%s: got it there: %v, want %v; %s", strings.TrimPrefix(path, s.dir), !exist, exist, s.why(path))
		}
	}
}

// why returns what the pruner says of a folder.
func (s *stage) why(path string) string {
	all, err := s.p.explain(context.Background(), path)
	if err != nil || len(all) == 0 {
		return fmt.Sprintf("no reason given (%v)", err)
	}
	return all[0].Verdict + ": " + all[0].Rule
}

func (s *stage) wantsWhy(path, verdict, part string) {
	s.t.Helper()
	if got := s.why(path); !strings.HasPrefix(got, verdict+": ") || !strings.Contains(got, part) {
		s.t.Errorf("%s: got %q, want %s: …%s…", strings.TrimPrefix(path, s.dir), got, verdict, part)
	}
}

func TestPitfall_prune01_NothingIsDeletedThroughAMount(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	for _, what := range []string{"folder", "file", "deep", "itself", "later"} {
		t.Run(what, func(t *testing.T) {
			s := newStage(t, tmpfs(t, "size=16m"))
			precious := filepath.Join(s.dir, "precious")
			s.file(filepath.Join(precious, "file"), "keep")
			dir := s.folder(id("dead"))
			neighbour := s.folder(id("beef"))
			at, from := filepath.Join(dir, "mnt"), precious
			switch what {
			case "file":
				from = filepath.Join(precious, "file")
				s.file(at, "")
			case "deep":
				at = filepath.Join(dir, "a/b/c")
				must(os.MkdirAll(at, 0o755))
			case "itself":
				at = dir
			default:
				must(os.Mkdir(at, 0o755))
			}
			must(filepath.WalkDir(dir, func(path string, _ os.DirEntry, _ error) error { return os.Chtimes(path, s.clock, s.clock) }))
			if what == "later" { // when all was looked at, and it is already in the trash
				s.k.before = func(op, name string) error {
					if op == "unlinkat" && name == "app.log" && there(filepath.Join(s.root, trashName, id("dead"))) {
						s.k.before = nil
						return bind(precious, filepath.Join(s.root, trashName, id("dead"), "mnt"))
					}
					return nil
				}
			} else {
				must(bind(from, at))
			}
			s.cycle()
			s.later(2 * time.Hour)
			s.wants(true, filepath.Join(precious, "file"))
			s.wants(false, neighbour)
			if what != "later" {
				s.wants(true, at)
				s.wantsWhy(dir, Refused, "mounted")
			}
			for unix.Unmount(at, unix.MNT_DETACH) == nil || unix.Unmount(filepath.Join(s.root, trashName, id("dead"), "mnt"), unix.MNT_DETACH) == nil {
			}
			s.later(2 * time.Hour)
			s.later(2 * time.Hour)
			s.wants(false, dir, filepath.Join(s.root, trashName))
			s.wants(true, filepath.Join(precious, "file"))
		})
	}
}

// A link that takes the place of a folder at any moment of its deletion leads
// nowhere.
func TestPitfall_prune02_LinksAreNotFollowedWheneverTheyAppear(t *testing.T) {
	done := false
	for n := 1; !done; n++ {
		s := newStage(t, scratch(t))
		precious := filepath.Join(s.dir, "precious")
		s.file(filepath.Join(precious, "app.log"), "keep")
		s.file(filepath.Join(precious, "sub/file"), "keep")
		dir := s.folder(id("dead"))
		s.file(filepath.Join(dir, "sub/file"), "x")
		must(os.Chtimes(dir, s.clock, s.clock))
		s.cycle()
		s.clock = s.clock.Add(2 * time.Hour)
		call := 0
		s.k.before = func(string, string) error {
			if call++; call != n {
				return nil
			}
			for _, at := range []string{dir, filepath.Join(s.root, trashName, id("dead"))} {
				for i, swapped := range []string{filepath.Join(at, "sub"), at} {
					if there(swapped) && (n+i)%2 == 0 && os.Rename(swapped, filepath.Join(s.dir, fmt.Sprint("aside", i))) == nil {
						must(os.Symlink(precious, swapped))
					}
				}
			}
			return nil
		}
		s.cycle()
		if done = call < n; done && n < 30 {
			t.Errorf("got %d calls to the kernel, want more: nothing was deleted", call)
		}
		s.wants(true, filepath.Join(precious, "app.log"), filepath.Join(precious, "sub/file"))
		_ = s.p.ledger.close()
	}
}

// Whatever is wrong with a list, or with who made it, nothing is deleted.
func TestPitfall_prune03_AListIsNoProof(t *testing.T) {
	gone := func(string) error { return agent.ErrNotFound }
	for name, break_ := range map[string]func(s *stage){
		"the engine is away": func(s *stage) {
			s.m.distort = func(x *agent.Snapshot) { x.Connected, x.Containers = false, nil }
			s.m.inspect = gone
		},
		"the list is not there": func(s *stage) {
			s.m.distort = func(x *agent.Snapshot) { x.Complete, x.Containers = false, nil }
			s.m.inspect = gone
		},
		"the list is empty": func(s *stage) { s.m.distort = func(x *agent.Snapshot) { x.Containers, x.Dead = nil, nil } },
		"inspects fail": func(s *stage) {
			s.m.distort = func(x *agent.Snapshot) { x.Containers = nil }
			s.m.inspect = func(string) error { return errors.New("500 Internal Server Error") }
		},
		"another engine": func(s *stage) {
			s.m.distort = func(x *agent.Snapshot) { x.EngineID, x.Containers = "OTHER", nil }
			s.m.inspect = gone
		},
		"another data root": func(s *stage) {
			other := filepath.Join(s.dir, "other")
			must(os.MkdirAll(filepath.Join(other, "containers"), 0o755))
			s.m.distort = func(x *agent.Snapshot) { x.EngineRoot, x.Containers = other, nil }
			s.m.inspect = gone
		},
		"the data root is not mounted": func(s *stage) {
			must(os.Rename(s.m.root, s.m.root+".away"))
			must(os.Mkdir(s.m.root, 0o755))
			s.m.distort = func(x *agent.Snapshot) { x.Containers = nil }
			s.m.inspect = gone
		},
		"the data was emptied": func(s *stage) {
			must(os.Remove(filepath.Join(s.m.root, "containers")))
			must(os.Mkdir(filepath.Join(s.m.root, "containers"), 0o755))
			s.m.distort = func(x *agent.Snapshot) { x.Containers = nil }
			s.m.inspect = gone
		},
		"the data root cannot be seen": func(s *stage) {
			must(os.Rename(s.m.root, s.m.root+".away"))
			s.m.distort = func(x *agent.Snapshot) { x.Containers = nil }
			s.m.inspect = gone
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, scratch(t))
			lives := s.folder(id("a11e"))
			s.m.run(id("a11e"), "web")
			s.cycle()
			break_(s)
			for range 4 {
				s.later(2 * time.Hour)
			}
			s.wants(true, lives)
		})
	}
}

// The engine's data in the hands of another berth: only a person can say that it is
// right.
func TestAcceptEngine(t *testing.T) {
	s := newStage(t, scratch(t))
	dead := s.folder(id("dead"))
	s.cycle()
	s.m.id = "OTHER"
	s.later(2 * time.Hour)
	s.wants(true, dead)
	if err := s.conditions(); err == nil || !strings.Contains(err.Error(), "another engine answers") {
		t.Errorf("got conditions %v, want one about another engine", err)
	}
	mark, err := markEngine(s.m.id, s.m.root)
	must(err)
	must(s.p.accept(mark))
	s.cycle()
	s.wants(false, dead)
	if err := s.conditions(); err != nil {
		t.Errorf("got conditions %v, want none", err)
	}
	_ = s.p.ledger.close()
	s.p = nil // a restart remembers it
	again := s.folder(id("dea2"))
	s.cycle()
	s.later(2 * time.Hour)
	s.wants(false, again)
}

func TestPitfall_prune04_NotRunningIsNotGone(t *testing.T) {
	s := newStage(t, scratch(t))
	var dirs []string
	for i, state := range []agent.State{agent.StateCreated, agent.StatePaused, agent.StateRestarting, agent.StateExited, agent.StateDead, agent.StateRemoving} {
		c := s.m.run(id(fmt.Sprintf("%x%x%x", i+1, i+1, i+1)), string(state))
		c.State, c.FinishedAt = state, s.clock
		dirs = append(dirs, s.folder(c.ID), s.folder(c.ShortID()))
	}
	s.cycle()
	s.later(5 * time.Hour)
	s.wants(true, dirs...)

	// One that is born when the list was taken, and before the deletion.
	born := s.folder(id("b0b0"))
	s.clock = s.clock.Add(5 * time.Hour)
	s.m.asked = func(asked string) {
		if _, ok := s.m.containers[id("b0b1")]; asked == id("b0b1") && !ok {
			s.m.run(id("b0b1"), "late") // its answer was "no such container"
		}
	}
	after := s.folder(id("b0b1"))
	must(os.Chtimes(after, s.clock.Add(-3*time.Hour), s.clock.Add(-3*time.Hour)))
	must(os.Chtimes(filepath.Join(after, "app.log"), s.clock.Add(-3*time.Hour), s.clock.Add(-3*time.Hour)))
	snap := s.m.Snapshot()
	s.m.distort = func(x *agent.Snapshot) { x.Containers, x.Seq = snap.Containers, snap.Seq }
	s.m.run(id("b0b0"), "born")
	s.p.feed = &changing{model: s.m, first: snap}
	s.m.distort = nil
	s.cycle()
	s.wants(true, born, after)
}

// changing is a feed whose first snapshot is an old one.
type changing struct {
	*model
	first *agent.Snapshot
	n     int
}

func (c *changing) Snapshot() *agent.Snapshot {
	if c.n++; c.n <= 2 {
		return c.first
	}
	return c.model.Snapshot()
}

func TestPitfall_prune05_OneFolderInTheWayStopsNoOther(t *testing.T) {
	for _, op := range []string{"openat2", "statx", "renameat2", "unlinkat"} {
		for _, errno := range []unix.Errno{unix.EACCES, unix.EBUSY, unix.EIO, unix.EPERM} {
			s := newStage(t, scratch(t))
			bad, good := s.folder(id("bad")), s.folder(id("600d"))
			s.file(filepath.Join(bad, "stuck"), "x")
			must(os.Chtimes(bad, s.clock, s.clock))
			s.cycle()
			s.clock = s.clock.Add(2 * time.Hour)
			s.k.before = func(o, name string) error {
				if o == op && (name == id("bad") || name == "stuck") {
					return errno
				}
				return nil
			}
			s.cycle()
			s.wants(false, good)
			s.k.before = nil
			s.cycle()
			s.wants(false, bad, filepath.Join(s.root, trashName))
		}
	}
}

// What a real process has open, or as its working folder, stays; and what was
// deleted and is open is told.
func TestPitfall_prune06_OpenFilesAreHeld(t *testing.T) {
	s := newStage(t, scratch(t))
	s.cfg.CannotTell = unsureReport // not all of this machine may be ours to look at
	s.cycle()
	s.p.proc = proc{"/proc", linux{}}
	open, cwd, free := s.folder(id("0be1")), s.folder(id("c3d0")), s.folder(id("f4ee"))
	file, err := os.OpenFile(filepath.Join(open, "app.log"), os.O_WRONLY|os.O_APPEND, 0)
	must(err)
	gone := filepath.Join(s.dir, "gone")
	must(os.WriteFile(gone, make([]byte, 1<<20), 0o644))
	deleted, err := os.Open(gone)
	must(err)
	must(os.Remove(gone))
	writer := exec.CommandContext(t.Context(), "sleep", "600")
	writer.Stdout, writer.Stdin, writer.Dir = file, deleted, cwd
	must(writer.Start())
	file.Close()
	deleted.Close()
	s.later(2 * time.Hour)
	s.wants(true, filepath.Join(open, "app.log"), filepath.Join(cwd, "app.log"))
	s.wants(false, free)
	s.wantsWhy(open, Refused, fmt.Sprintf("sleep (pid %d)", writer.Process.Pid))
	told := false
	for _, l := range s.p.proc.look(nil, nil, true).lost {
		told = told || l.pid == writer.Process.Pid && l.bytes == 1<<20
	}
	if !told {
		t.Error("got no word of the megabyte that was deleted and is open")
	}
	must(writer.Process.Kill())
	_ = writer.Wait()
	s.cycle()
	s.wants(false, open, cwd)
}

// Where it cannot be told who has what open, the configuration decides.
func TestCannotTell(t *testing.T) {
	for mode, stays := range map[Unsure]bool{unsureRefuse: true, unsureReport: false} {
		s := newStage(t, scratch(t))
		s.cfg.CannotTell = mode
		dead := s.folder(id("dead"))
		s.cycle()
		s.proc.process(77, nil, nil, 0)
		must(os.RemoveAll(filepath.Join(s.proc.dir, "77/fd")))
		must(os.WriteFile(filepath.Join(s.proc.dir, "77/fd"), nil, 0o644)) // no folder: unreadable
		s.later(2 * time.Hour)
		s.wants(stays, dead)
		if err := s.conditions(); err == nil || !strings.Contains(err.Error(), errUnsure.Error()) {
			t.Errorf("%s: got conditions %v, want that it cannot be told", mode, err)
		}
		// A /proc that shows none of the processes of containers is not the host's.
		s.proc.end(77)
		s.m.run(id("a11e"), "web").PID = 4242
		dead = s.folder(id("dea1"))
		s.later(2 * time.Hour)
		s.wants(stays, dead)
	}
}

func TestPitfall_prune08_NamesLinksAndFullDisks(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	dir := tmpfs(t, "size=4m")
	s := newStage(t, dir)
	strange := []string{"lost+found", "aquota.user", ".nfs0000", "202611210130", strings.ToUpper(id("dead")), id("dead") + "0"}
	for _, name := range strange {
		s.folder(name)
	}
	other := filepath.Join(dir, "other")
	s.file(other, strings.Repeat("x", 1<<20))
	dead := s.folder(id("dead"))
	must(os.Link(other, filepath.Join(dead, "linked")))
	must(os.Chtimes(dead, s.clock, s.clock))
	s.file(filepath.Join(dead, strings.Repeat("n", 255)), strings.Repeat("x", 1<<20))
	s.file(filepath.Join(dead, "a\nb"), "")
	s.cycle()
	// Not a byte is left.
	fill, err := os.Create(filepath.Join(dir, "fill"))
	must(err)
	for size := 1 << 20; size > 0; size /= 2 {
		for {
			if _, err := fill.Write(make([]byte, size)); err != nil {
				break
			}
		}
	}
	fill.Close()
	if err := os.WriteFile(filepath.Join(dir, "more"), make([]byte, 1), 0o644); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("write to the full disk: got %v", err)
	}
	s.later(2 * time.Hour)
	s.wants(false, dead)
	for _, name := range strange {
		s.wants(true, filepath.Join(s.root, name, "app.log"))
	}
	// What was freed is the megabyte of its own, and not that which has another name.
	if got := s.p.stats.bytes.Load(); got < 1<<20 || got > 1<<20+64<<10 {
		t.Errorf("got %d bytes freed, want a megabyte and little more", got)
	}
	history := s.p.ledger.history
	if n := len(history); n != 1 || history[0].Done.IsZero() {
		t.Errorf("got the journal %+v, want one deletion, done", history)
	}
	// And it is written down when there is room.
	must(os.Remove(filepath.Join(dir, "fill")))
	s.folder(id("dea2"))
	s.later(time.Hour)
	s.later(2 * time.Hour)
	must(s.p.ledger.close())
	l, _, err := openLedger(filepath.Join(dir, "state/prune.journal"), "host-1")
	must(err)
	defer l.close()
	if len(l.history) != 2 {
		t.Errorf("got %d deletions in the journal after a restart, want 2", len(l.history))
	}
}

// A disk that has no inodes left is as full as one without bytes.
func TestPitfall_prune09_InodesRunOut(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	dir := tmpfs(t, "size=64m,nr_inodes=1000")
	s := newStage(t, dir)
	s.cfg.Retain, s.cfg.RetainMin = config.Duration(24*time.Hour), config.Duration(time.Hour)
	s.cfg.Many = 1000
	live := s.m.run(id("a11e"), "web")
	loud := s.folder(live.ID)
	var dirs []string
	for i := range 40 {
		dirs = append(dirs, s.folder(id(fmt.Sprintf("de%02x", i))))
		for n := range 18 {
			s.file(filepath.Join(dirs[i], fmt.Sprint(n)), "")
		}
		s.clock = s.clock.Add(time.Minute)
	}
	s.cycle()
	s.wants(true, dirs...)
	s.later(5 * time.Hour) // 800 of 1,000 are used: not full
	s.wants(true, dirs...)
	for n := range 120 {
		s.file(filepath.Join(loud, fmt.Sprint(n)), "")
	}
	s.cycle()
	s.wants(false, dirs[0])
	s.wants(true, dirs[39], filepath.Join(loud, "119"))
	// Those that are younger than the minimum stay, however full it is.
	for n := 120; os.WriteFile(filepath.Join(loud, fmt.Sprint(n)), nil, 0o644) == nil; n++ {
	}
	young := []string{}
	for _, d := range dirs {
		if there(d) {
			young = append(young, d)
			must(os.Chtimes(d, s.clock, s.clock))
		}
	}
	s.cycle()
	s.wants(true, young...)
	if err := s.conditions(); err == nil || !strings.Contains(err.Error(), "100% of its inodes") || !strings.Contains(err.Error(), loud+" of web") {
		t.Errorf("got conditions %v, want that the inodes are used up, and by whom", err)
	}
}

// The journal wants room that a full disk does not have: what it should say waits in
// memory, and is written with the next thing that it has room for.
func TestJournalOfAFullDisk(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	dir := tmpfs(t, "size=128k")
	path := filepath.Join(dir, "prune.journal")
	l, _, err := openLedger(path, "host-1")
	must(err)
	deletion := func(seq uint64) record {
		return record{Deletions: []Deletion{{Seq: seq, ID: id("dead"), Why: strings.Repeat("x", 16<<10)}}}
	}
	if full, err := l.write(deletion(1)); full || err != nil {
		t.Fatalf("write: got %v, %v", full, err)
	}
	must(os.WriteFile(filepath.Join(dir, "fill"), nil, 0o600))
	for size := int64(128 << 10); size > 0; size -= 4 << 10 {
		_ = os.WriteFile(filepath.Join(dir, "fill"), make([]byte, size), 0o600)
		if info, err := os.Stat(filepath.Join(dir, "fill")); err == nil && info.Size() == size {
			break
		}
	}
	var planned record
	planned.plan(&Deletion{Seq: 2, Path: "/var/log/a/b/containers/" + id("dead"), Why: strings.Repeat("x", 16<<10)})
	if full, err := l.write(planned); !full || err != nil {
		t.Fatalf("write to a full disk: got %v, %v, want that it is full", full, err)
	}
	must(os.Remove(filepath.Join(dir, "fill")))
	if full, err := l.write(deletion(3)); full || err != nil {
		t.Fatalf("write again: got %v, %v", full, err)
	}
	must(l.close())
	l, _, err = openLedger(path, "host-1")
	must(err)
	defer l.close()
	if len(l.history) != 3 {
		t.Errorf("got %d deletions after a restart, want 3", len(l.history))
	}
}
