package logprune

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berthd/berth/agent"
)

// dead makes folders that are due, in several roots.
func (s *stage) dead(n, roots int) (dirs []string) {
	for i := range n {
		dir := filepath.Join(s.dir, "log/acme", fmt.Sprint("s", i%roots), "containers", id(fmt.Sprintf("dead%03x", i)))
		s.file(filepath.Join(dir, "app.log"), "x")
		must(os.Chtimes(dir, s.clock, s.clock))
		dirs = append(dirs, dir)
	}
	return dirs
}

func openHandles() int {
	all, err := os.ReadDir("/proc/self/fd")
	must(err)
	return len(all)
}

// Batches that go at once share roots, whose trash goes with the last of them, and
// leave no handle open.
func TestBatchesShareRoots(t *testing.T) {
	s := newStage(t, scratch(t))
	s.cfg.Many = 1000
	s.cycle()
	s.p.workers, s.p.inspectors, s.p.batch = 4, 4, 3
	dirs := s.dead(90, 4)
	before := openHandles()
	s.later(2 * time.Hour)
	s.wants(false, dirs...)
	for i := range 4 {
		s.wants(false, filepath.Join(s.dir, "log/acme", fmt.Sprint("s", i), "containers", trashName))
	}
	if after := openHandles(); after != before {
		t.Errorf("got %d open handles after a run, want %d as before", after, before)
	}
	if err := s.conditions(); err != nil {
		t.Errorf("got conditions %v, want none", err)
	}
}

// An error that ends the run ends that of all batches, and leaves nothing open.
func TestBatchesEndTogether(t *testing.T) {
	s := newStage(t, scratch(t))
	s.cfg.Many = 1000
	s.cycle()
	s.p.workers, s.p.inspectors, s.p.batch = 2, 2, 2
	dirs := s.dead(40, 2)
	must(s.p.ledger.j.Close()) // no intent can be written down
	before := openHandles()
	s.later(2 * time.Hour)
	s.wants(true, dirs...)
	if after := openHandles(); after != before {
		t.Errorf("got %d open handles after a run, want %d as before", after, before)
	}
}

// What is open is looked at once for all batches, but not for longer than an answer
// counts.
func TestOneLookForAllBatches(t *testing.T) {
	s := newStage(t, scratch(t))
	s.dead(1, 1)
	s.cycle()
	pl, err := s.p.look(t.Context(), s.m.Snapshot(), nil, false)
	must(err)
	r := s.p.newRun(pl, newPace(0))
	first := s.p.openFiles(r)
	s.clock = s.clock.Add(answerAge)
	if s.p.openFiles(r) != first {
		t.Error("got another look within a second, want the same")
	}
	s.clock = s.clock.Add(time.Millisecond)
	second := s.p.openFiles(r)
	if second == first {
		t.Error("got the same look after a second, want another")
	}
	s.clock = s.clock.Add(-time.Hour)
	if s.p.openFiles(r) == second {
		t.Error("got the same look after the clock went back, want another")
	}
}

// Who opens a file, or mounts the folder, when it is in the trash already, has it back.
func TestHeldInTheTrash(t *testing.T) {
	for name, mounts := range map[string]bool{"opened": false, "mounted": true} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, scratch(t))
			dir := s.folder(id("dead"))
			s.cycle()
			moved := filepath.Join(s.root, trashName, id("dead"))
			s.k.before = func(op, name string) error {
				if op != "statx" || name != id("dead") || !there(moved) {
					return nil
				}
				s.k.before = nil
				var st unix.Stat_t
				must(unix.Stat(moved, &st))
				own, err := readMounts("/proc/self/mountinfo")
				must(err)
				if mounts {
					s.proc.process(77, nil, []string{within(own, moved)}, st.Dev)
				} else {
					s.proc.process(77, []string{filepath.Join(moved, "app.log")}, nil, st.Dev)
				}
				return nil
			}
			s.later(2 * time.Hour)
			s.wants(true, filepath.Join(dir, "app.log"))
			s.wants(false, filepath.Join(s.root, trashName))
			s.wantsWhy(dir, Refused, "writer (pid 77)")
			s.proc.end(77)
			s.cycle()
			s.wants(false, dir)
		})
	}
}

// A mount of a folder within the tree, or of one whose name only begins like it, is told
// from one of the tree.
func TestMountsOfATree(t *testing.T) {
	tree := &survey{node: node{dev: 7, ino: 1}}
	root := &rootDir{path: "/var/log/acme/web/containers"}
	for at, want := range map[string]bool{
		"/log/acme/web/containers/abc":         true,
		"/log/acme/web/containers/abc/sub":     true,
		"/log/acme/web/containers/abc-1":       false,
		"/log/acme/web/containers/ab":          false,
		"/log/acme/web/containers":             false,
		"/log/acme/web/containers/abc!/x":      false,
		"/var/log/acme/web/containers/abc/sub": false,
	} {
		for _, dev := range []uint64{7, 8} {
			h := &holding{
				own:    []mount{{dev: 7, root: "/", point: "/var"}},
				mounts: []mounted{{mount{dev: dev, root: at}, 1}, {mount{dev: 9, root: "/"}, 1}},
				dir:    t.TempDir(),
			}
			// One whose name is between those of the folder and of what is in it.
			h.mounts = append(h.mounts, mounted{mount{dev: dev, root: "/log/acme/web/containers/abc "}, 1})
			slices.SortFunc(h.mounts, byRoot)
			if _, got := h.holder(tree, root, "abc", false); got != (want && dev == 7) {
				t.Errorf("%s of device %d: got held: %v", at, dev, got)
			}
		}
	}
}

// The names that the first look has found are deleted without reading the folder again;
// what came or went since is found all the same.
func TestFolderThatChangesBeforeItGoes(t *testing.T) {
	for what, change := range map[string]func(dir string){
		"nothing":        func(string) {},
		"a file comes":   func(dir string) { must(os.WriteFile(filepath.Join(dir, "new.log"), nil, 0o644)) },
		"a file goes":    func(dir string) { must(os.Remove(filepath.Join(dir, "app.log"))) },
		"a folder comes": func(dir string) { must(os.MkdirAll(filepath.Join(dir, "new/sub"), 0o755)) },
		"a file is a folder now": func(dir string) {
			must(os.Remove(filepath.Join(dir, "app.log")))
			must(os.MkdirAll(filepath.Join(dir, "app.log/sub"), 0o755))
		},
	} {
		t.Run(what, func(t *testing.T) {
			s := newStage(t, scratch(t))
			dir := s.folder(id("dead"))
			s.cycle()
			moved := filepath.Join(s.root, trashName, id("dead"))
			reads := 0
			s.k.before = func(op, name string) error {
				if op == "statx" && name == id("dead") && there(moved) {
					change(moved)
					reads = 0
				}
				if op == "getdents" {
					reads++
				}
				return nil
			}
			s.later(2 * time.Hour)
			s.wants(false, dir, filepath.Join(s.root, trashName))
			if again := reads > 0; again != (what != "nothing" && what != "a file goes") {
				t.Errorf("got %d reads of the folder in the trash", reads)
			}
		})
	}
}

// More names than are kept, files and folders.
func TestFolderOfManyNames(t *testing.T) {
	s := newStage(t, scratch(t))
	dir := s.folder(id("dead"))
	for i := range 100 {
		s.file(filepath.Join(dir, fmt.Sprintf("%03d%s", i, strings.Repeat("n", 200))), "x")
		s.file(filepath.Join(dir, fmt.Sprint("sub", i), "file"), "x")
	}
	must(os.Chtimes(dir, s.clock, s.clock))
	s.cycle()
	s.later(2 * time.Hour)
	s.wants(false, dir, filepath.Join(s.root, trashName))
	if d := s.p.ledger.history[0]; d.Files != 302 || d.Done.IsZero() {
		t.Errorf("got the journal %+v, want 302 files and folders, done", d)
	}
}

// However many walk, they find the same, in the same order.
func TestWalkersAgree(t *testing.T) {
	dir := t.TempDir()
	for i := range 40 {
		must(os.MkdirAll(filepath.Join(dir, fmt.Sprint("o", i%7), fmt.Sprint("s", i), "containers", id(fmt.Sprintf("%03x", i))), 0o755))
	}
	must(os.WriteFile(filepath.Join(dir, "o1/file"), nil, 0o644))
	for _, glob := range []string{"*/*/containers", "**/containers", "o1/*/containers"} {
		p, err := parsePattern(filepath.Join(dir, glob))
		must(err)
		var want *found
		for _, walkers := range []int{1, 2, 5} {
			got, err := find(t.Context(), linux{}, []pattern{p}, func(containerID) bool { return false }, 0, walkers)
			must(err)
			got.usage = nil
			if want == nil {
				want = got
			}
			if len(got.folders) < 5 || !reflect.DeepEqual(got, want) {
				t.Errorf("%s with %d walkers: got %+v, want %+v", glob, walkers, got, want)
			}
		}
	}
}

// What a crash left in the trash, and the list says is there, is not deleted because its
// container went just then: how long ago that was counts from now on.
func TestGoneWhileMovedBack(t *testing.T) {
	s := newStage(t, scratch(t))
	c, _ := s.leftInTheTrash()
	inBin := filepath.Join(s.root, trashName, c.ID, "app.log")
	s.m.inspect = func(string) error { return agent.ErrNotFound }
	s.later(time.Minute)
	s.wants(true, inBin)
	s.wantsWhy(filepath.Dir(inBin), Refused, "its container went meanwhile")
}

// The journal has what was there when the folder went, where the archive had it looked at
// again.
func TestJournalOfALateFile(t *testing.T) {
	s := newStage(t, scratch(t))
	s.cfg.Archive = archiveRequired
	dir := s.folder(id("dead"))
	s.cycle()
	s.p.UseArchive(&shelf{missing: func([]agent.FileID) ([]agent.FileID, error) { return nil, nil }})
	s.k.before = func(op, name string) error {
		if moved := filepath.Join(s.root, trashName, id("dead")); op == "statx" && name == id("dead") && there(moved) {
			s.k.before = nil
			s.file(filepath.Join(moved, "late.log"), "x")
		}
		return nil
	}
	s.later(2 * time.Hour)
	s.wants(false, dir)
	if d := s.p.ledger.history[0]; d.Files != 3 || d.Done.IsZero() {
		t.Errorf("got the journal %+v, want a folder with two files, done", d)
	}
}
