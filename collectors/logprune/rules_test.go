package logprune

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/config"
)

func TestParseID(t *testing.T) {
	for name, want := range map[string]bool{
		strings.Repeat("a", 64): true, strings.Repeat("0", 12): true, "0123456789ab": true,
		strings.Repeat("A", 64): false, strings.Repeat("a", 63): false, strings.Repeat("a", 13): false,
		"": false, "lost+found": false, "0123456789ag": false, "../../etc/pa": false,
	} {
		id, ok := parseID(name)
		if ok != want || ok && id.String() != name {
			t.Errorf("%q: got %v (%s), want %v", name, ok, id, want)
		}
	}
	if id, _ := parseID("202611210130"); !id.decimal() {
		t.Error("202611210130: got not decimal, want decimal")
	}
	if id, _ := parseID("20261121013a"); id.decimal() {
		t.Error("20261121013a: got decimal, want not")
	}
}

func FuzzParseID(f *testing.F) {
	f.Add(strings.Repeat("a", 64))
	f.Add("202611210130")
	f.Fuzz(func(t *testing.T, name string) {
		id, ok := parseID(name)
		if ok && (id.String() != name || strings.ContainsAny(name, "/.\x00") || len(name) != 64 && len(name) != 12) {
			t.Errorf("%q: got %q", name, id)
		}
		full, _ := parseID(strings.Repeat("0", 52) + "0123456789ab")
		if ok && !id.short && id.shortened().String() != name[:12] || full.shortened().String() != strings.Repeat("0", 12) {
			t.Errorf("%q: got the short form %q", name, id.shortened())
		}
	})
}

// Each rule, by what it says of one folder.
func TestRules(t *testing.T) {
	for name, tc := range map[string]struct {
		set     func(s *stage)
		folder  string
		after   time.Duration // of the death
		verdict string
		part    string
	}{
		"lives":           {func(s *stage) { s.m.run(id("a1"), "web") }, id("a1"), 0, Kept, "its container is there (running)"},
		"lives, by 12":    {func(s *stage) { s.m.run(id("a1"), "web") }, id("a1")[:12], 0, Kept, "its container is there"},
		"exited, removed": {func(s *stage) { s.m.run(id("a1"), "web"); s.m.exit(id("a1")) }, id("a1"), 9 * time.Hour, Kept, "(exited)"},
		"exited, stopped": {func(s *stage) { s.cfg.When = whenStopped; s.m.run(id("a1"), "web"); s.m.exit(id("a1")) }, id("a1"), 30 * time.Minute, Waits, "kept for 1h"},
		"created, stopped": {func(s *stage) {
			s.cfg.When = whenStopped
			c := s.m.run(id("a1"), "web")
			c.State, c.StartedAt = agent.StateCreated, time.Time{}
		}, id("a1"), 9 * time.Hour, Kept, "(created)"},
		"retained":     {func(*stage) {}, id("dead"), 59 * time.Minute, Waits, "kept for 1h"},
		"due":          {func(s *stage) { s.cfg.Enabled = false }, id("dead"), time.Hour, Due, "this is a dry run"},
		"no proof":     {func(*stage) {}, "202611210130", 9 * time.Hour, Ignored, "may be a number or a date"},
		"exempt":       {func(s *stage) { s.cfg.Exempt = []string{filepath.Join(s.dir, "log/acme/*")} }, id("dead"), 9 * time.Hour, Kept, "prune.exempt"},
		"not its name": {func(*stage) {}, "current", 9 * time.Hour, Ignored, "its name is not a container's"},
		"mounted":      {func(s *stage) { s.m.run(id("a1"), "heir").Mounts = []string{filepath.Join(s.root, id("dead"))} }, id("dead"), 9 * time.Hour, Kept, "container heir has it mounted"},
		"mounted in it": {func(s *stage) {
			s.m.run(id("a1"), "heir").Mounts = []string{filepath.Join(s.root, id("dead"), "app.log")}
		}, id("dead"), 9 * time.Hour, Kept, "has it mounted, or something in it"},
		"mounted, by a link": {func(s *stage) {
			must(os.Symlink(filepath.Join(s.root, id("dead")), filepath.Join(s.dir, "link")))
			s.m.run(id("a1"), "heir").Mounts = []string{filepath.Join(s.dir, "link")}
		}, id("dead"), 9 * time.Hour, Kept, "container heir has it mounted"},
		"mounted into a stopped one": {func(s *stage) {
			s.m.run(id("a1"), "heir").Mounts = []string{filepath.Join(s.root, id("dead"))}
			s.m.exit(id("a1"))
		}, id("dead"), 9 * time.Hour, Kept, "has it mounted"},
		"below a mount": {func(s *stage) { s.m.run(id("a1"), "watcher").Mounts = []string{"/"} }, id("dead"), 9 * time.Hour, Kept, "a folder above it mounted"},
		"below a mount, delete": {func(s *stage) {
			s.cfg.UnderMounts, s.cfg.Enabled = underDelete, false
			s.m.run(id("a1"), "watcher").Mounts = []string{"/"}
		}, id("dead"), 9 * time.Hour, Due, "its container is gone"},
		"below a mount, of a stopped one": {func(s *stage) {
			s.cfg.Enabled = false
			s.m.run(id("a1"), "watcher").Mounts = []string{s.dir}
			s.m.exit(id("a1"))
		}, id("dead"), 9 * time.Hour, Due, "its container is gone"},
		"unread": {func(s *stage) {
			s.m.distort = func(x *agent.Snapshot) { x.Unread = []string{id("dead")} }
		}, id("dead"), 9 * time.Hour, Kept, "the engine would not show it"},
		"archive": {func(s *stage) { s.cfg.Archive = archiveRequired }, id("dead"), 9 * time.Hour, Refused, "nothing archives logs"},
		"many": {func(s *stage) {
			s.cfg.Many, s.cfg.ConfirmAfter = 0, config.Duration(100*time.Hour)
		}, id("dead"), 9 * time.Hour, Waits, "a second scan must find the same"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, scratch(t))
			tc.set(s)
			dir := s.folder(tc.folder)
			s.cycle()
			s.later(tc.after)
			s.cycle()
			s.wantsWhy(dir, tc.verdict, tc.part)
			if tc.verdict != Due && !there(dir) {
				t.Error("it was deleted")
			}
		})
	}
}

// A container that berth saw has proved that its name is one, and has a mount of
// somebody's above it.
func TestSeenContainers(t *testing.T) {
	s := newStage(t, scratch(t))
	s.m.run(id("a1"), "watcher").Mounts = []string{"/"}
	decimal := "202611210130" + strings.Repeat("e", 52)
	exempt := s.m.run(id("e1"), "exempt")
	exempt.Labels = map[string]string{"berth.prune": "false"}
	s.m.run(decimal, "web")
	dirs := []string{s.folder(decimal[:12]), s.folder(id("e1"))}
	s.cycle()
	s.m.remove(decimal)
	s.m.remove(id("e1"))
	s.later(time.Minute)
	must(s.p.ledger.close())
	s.p = nil // berth is restarted
	s.cycle()
	s.later(59 * time.Minute)
	s.wants(false, dirs[0])
	s.wantsWhy(dirs[1], Kept, "prune.exempt_labels")
}

// shelf is an Archive.
type shelf struct {
	missing func([]agent.FileID) ([]agent.FileID, error)
	asked   int
}

func (s *shelf) Missing(_ context.Context, files []agent.FileID) ([]agent.FileID, error) {
	s.asked++
	return s.missing(files)
}

// What is not archived stays, also when that is found out in the trash.
func TestArchiveRequired(t *testing.T) {
	all := func([]agent.FileID) ([]agent.FileID, error) { return nil, nil }
	for name, tc := range map[string]struct {
		first, second func([]agent.FileID) ([]agent.FileID, error)
		stays         bool
	}{
		"all are there":      {all, all, false},
		"one is missing":     {func(f []agent.FileID) ([]agent.FileID, error) { return f[:1], nil }, all, true},
		"it does not know":   {func([]agent.FileID) ([]agent.FileID, error) { return nil, errors.New("away") }, all, true},
		"missing then":       {all, func(f []agent.FileID) ([]agent.FileID, error) { return f, nil }, true},
		"does not know then": {all, func([]agent.FileID) ([]agent.FileID, error) { return nil, errors.New("away") }, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, scratch(t))
			s.cfg.Archive = archiveRequired
			dir := s.folder(id("dead"))
			s.cycle()
			a := &shelf{}
			a.missing = func(f []agent.FileID) ([]agent.FileID, error) {
				if len(f) != 1 || f[0].Size != int64(longDigits) || f[0].MtimeNs == 0 || f[0].Ino == 0 {
					t.Errorf("got the files %+v, want one of %d bytes", f, longDigits)
				}
				if a.asked == 1 {
					return tc.first(f)
				}
				if !there(filepath.Join(s.root, trashName, id("dead"), "app.log")) {
					t.Error("the second time: it is not in the trash")
				}
				return tc.second(f)
			}
			s.p.UseArchive(a)
			s.later(2 * time.Hour)
			s.wants(tc.stays, dir)
			s.wants(false, filepath.Join(s.root, trashName))
		})
	}
}

// A stopped container that is started when its folder is already in the trash has it
// back.
func TestStartedMeanwhile(t *testing.T) {
	s := newStage(t, scratch(t))
	s.cfg.When = whenStopped
	s.m.run(id("a1"), "web")
	dir := s.folder(id("a1"))
	s.cycle()
	s.m.exit(id("a1"))
	s.clock = s.clock.Add(2 * time.Hour)
	s.k.before = func(op, name string) error {
		if op == "renameat2" && name == id("a1") {
			s.k.before = nil
			s.m.containers[id("a1")].State = agent.StateRunning
			s.m.containers[id("a1")].StartedAt = s.clock
		}
		return nil
	}
	s.cycle()
	s.wants(true, filepath.Join(dir, "app.log"))
	s.wants(false, filepath.Join(s.root, trashName))
	s.m.exit(id("a1"))
	s.later(2 * time.Hour)
	s.wants(false, dir)
}

// A folder that takes the place of another after that was looked at stays: when it
// was moved to the trash, it is moved back; in the trash, it is left there.
func TestReplacedByAnotherFolder(t *testing.T) {
	for _, at := range []string{"renameat2", "openat2"} {
		t.Run("before "+at, func(t *testing.T) {
			s := newStage(t, scratch(t))
			dir := s.folder(id("dead"))
			s.cycle()
			s.clock = s.clock.Add(2 * time.Hour)
			want := dir
			if at == "openat2" {
				want = filepath.Join(s.root, trashName, id("dead"))
			}
			s.k.before = func(op, name string) error {
				if op == at && name == id("dead") && there(want) {
					s.k.before = nil
					must(os.Rename(want, filepath.Join(s.dir, "aside")))
					s.file(filepath.Join(want, "precious"), "keep")
				}
				return nil
			}
			s.cycle()
			s.wants(true, filepath.Join(want, "precious"), filepath.Join(s.dir, "aside"))
			if all := s.p.ledger.history; len(all) != 1 || !strings.Contains(all[0].Error, errReplaced.Error()) {
				t.Errorf("got the journal %+v, want one deletion that was not done, and why", all)
			}
		})
	}
}

// leftInTheTrash makes a container that has ended, and whose folder is in the trash
// because it could not be deleted. It returns the container, and where the folder was.
func (s *stage) leftInTheTrash() (c *agent.Container, dir string) {
	s.t.Helper()
	s.cfg.When = whenStopped
	c = s.m.run(id("dead"), "web")
	dir = s.folder(c.ID)
	s.cycle()
	s.m.exit(c.ID)
	s.k.before = func(op, name string) error {
		if op == "unlinkat" && name == "app.log" {
			return unix.EIO
		}
		return nil
	}
	s.later(2 * time.Hour)
	s.k.before = nil
	s.wants(true, filepath.Join(s.root, trashName, c.ID, "app.log"))
	return c, dir
}

// What a crash left in the trash is moved back if its container is there by then, in
// the list or by the engine's answer alone.
func TestMovedBackFromTheTrash(t *testing.T) {
	for name, distort := range map[string]func(*agent.Snapshot){
		"in the list":   nil,
		"by its answer": func(x *agent.Snapshot) { x.Containers = nil },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, scratch(t))
			c, dir := s.leftInTheTrash()
			s.m.distort = distort
			c.State, c.StartedAt, c.FinishedAt = agent.StateRunning, s.clock, time.Time{}
			s.later(time.Minute)
			s.wants(true, filepath.Join(dir, "app.log"))
			s.wants(false, filepath.Join(s.root, trashName))
		})
	}
}

// A batch that had to wait is looked at again before its folders go.
func TestLooksGrowOld(t *testing.T) {
	s := newStage(t, scratch(t))
	dead, quiet := s.folder(id("dead")), s.folder(id("dea2"))
	s.cycle()
	s.clock = s.clock.Add(2 * time.Hour)
	pl, err := s.p.look(t.Context(), s.m.Snapshot(), nil, false)
	must(err)
	due, _ := pl.due()
	r := s.p.newRun(pl, newPace(0))
	b := s.p.prepare(t.Context(), r, due)
	s.clock = s.clock.Add(answerAge + time.Millisecond)
	s.file(filepath.Join(dead, "app.log"), "somebody still writes")
	must(s.p.finish(t.Context(), r, b))
	s.wants(true, dead)
	s.wants(false, quiet)
}

// An answer of the engine that is not fresh any more is no proof: it is asked again
// right before the folder goes.
func TestAnswersGrowOld(t *testing.T) {
	s := newStage(t, scratch(t))
	dead := s.folder(id("dead"))
	s.cycle()
	asked := 0
	s.m.asked = func(string) {
		if asked++; asked == 1 {
			s.m.run(id("dead"), "late")
			s.clock = s.clock.Add(answerAge + time.Millisecond)
		}
	}
	s.m.distort = func(x *agent.Snapshot) { x.Containers = nil } // nor has the list it yet
	s.later(2 * time.Hour)
	s.wants(true, dead)
	// The second answer, among those of many, is not that it is gone: it is asked for alone.
	if asked != 3 {
		t.Errorf("the engine was asked %d times, want three times", asked)
	}
}

// The retention counts from the last change of any file, too.
func TestWrittenToLately(t *testing.T) {
	s := newStage(t, scratch(t))
	dir := s.folder(id("dead"))
	s.cycle()
	s.clock = s.clock.Add(50 * time.Minute)
	f, err := os.OpenFile(filepath.Join(dir, "app.log"), os.O_APPEND|os.O_WRONLY, 0)
	must(err)
	_, err = f.WriteString("last words\n")
	must(errors.Join(err, f.Close(), os.Chtimes(filepath.Join(dir, "app.log"), s.clock, s.clock)))
	s.later(30 * time.Minute)
	s.wants(true, dir)
	s.wantsWhy(dir, Refused, "a file in it changed at")
	s.later(31 * time.Minute)
	s.wants(false, dir)
}

func TestPatterns(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"a/s/containers", "b/t/containers", "b/t/u/containers", "c/.hidden/containers", "d/containers"} {
		must(os.MkdirAll(filepath.Join(dir, d, id("1")), 0o755))
	}
	must(os.Symlink(filepath.Join(dir, "a"), filepath.Join(dir, "link")))
	for glob, want := range map[string]string{
		"*/*/containers":   "a/s/containers b/t/containers",
		"**/containers":    "a/s/containers b/t/containers b/t/u/containers d/containers",
		"b/**/containers":  "b/t/containers b/t/u/containers",
		"a/s/containers":   "a/s/containers",
		"[ab]/*/conta*":    "a/s/containers b/t/containers",
		"link/*/c*":        "",
		"c/.*/containers":  "c/.hidden/containers",
		"none/*/*/con*":    "",
		"a/s/containers/*": "a/s/containers/" + id("1"),
	} {
		p, err := parsePattern(filepath.Join(dir, glob))
		must(err)
		f, err := find(t.Context(), linux{}, []pattern{p, p}, func(containerID) bool { return false }, 0, 2)
		must(err)
		var got []string
		for _, r := range f.roots {
			got = append(got, strings.TrimPrefix(r.path, dir+"/"))
		}
		slices.Sort(got)
		if strings.Join(got, " ") != want {
			t.Errorf("%s: got the roots %q, want %q (%v)", glob, got, want, f.errs)
		}
	}
	p, err := parsePattern(filepath.Join(dir, "link/s/containers"))
	must(err)
	f, err := find(t.Context(), linux{}, []pattern{p}, func(containerID) bool { return false }, 0, 2)
	must(err)
	if len(f.roots) != 0 || len(f.errs) != 1 || !strings.Contains(f.errs[0].Error(), "symbolic link") {
		t.Errorf("a link in the fixed part: got %+v, %v, want an error", f.roots, f.errs)
	}
	for _, bad := range []string{"var/log", "/", "/var//log", "/var/log/", "/var/[", "/var/../etc"} {
		if _, err := parsePattern(bad); err == nil {
			t.Errorf("%s: got no error", bad)
		}
	}
}

func TestPressureHasHysteresis(t *testing.T) {
	p := newPressure(PressureConfig{High: 85, Low: 80})
	for i, step := range []struct {
		u    usage
		want bool
	}{{usage{0.84, 0}, false}, {usage{0.85, 0}, true}, {usage{0.81, 0}, true}, {usage{0.79, 0}, false}, {usage{0.1, 0.9}, true}, {usage{0.1, 0.79}, false}} {
		if got := p.update(1, step.u); got != step.want {
			t.Errorf("step %d: got %v, want %v", i, got, step.want)
		}
	}
	if u := usageOf(&unix.Statfs_t{Blocks: 100, Bfree: 20, Bavail: 10}); u.bytes < 0.88 || u.bytes > 0.89 || u.inodes != 0 {
		t.Errorf("got %+v, want 80 of 90, as df has it", u)
	}
}

func TestPlanImages(t *testing.T) {
	now := time.Now()
	day := 24 * time.Hour
	cfg := DefaultConfig().Images
	cfg.Keep, cfg.KeepRecent = []string{"base/*"}, 1
	images := []agent.Image{
		{ID: "used", Refs: []string{"shop/web:1"}, Created: now.Add(-30 * day)},
		{ID: "newest", Refs: []string{"shop/web:3"}, Created: now.Add(-20 * day)},
		{ID: "older", Refs: []string{"shop/web:2"}, Created: now.Add(-25 * day)},
		{ID: "kept", Refs: []string{"base/debian:12"}, Created: now.Add(-90 * day)},
		{ID: "base2", Refs: []string{"base/debian:13"}, Created: now.Add(-9 * day)},
		{ID: "lately", Created: now.Add(-90 * day)},
		{ID: "dangling", Created: now.Add(-90 * day)},
		{ID: "unknown", Created: now.Add(-90 * day)},
	}
	uses := map[string]time.Time{}
	for _, im := range images {
		uses[im.ID] = now.Add(-8 * day)
	}
	uses["lately"] = now.Add(-6 * day)
	delete(uses, "unknown")
	snap := &agent.Snapshot{Containers: []*agent.Container{{ID: "c", Name: "web", ImageID: "used", State: agent.StateCreated}}}
	due := func() string {
		var out []string
		for _, r := range planImages(&cfg, images, snap, uses, now) {
			if r.Verdict == Due {
				out = append(out, r.ID)
			}
		}
		slices.Sort(out)
		return strings.Join(out, " ")
	}
	if got, want := due(), "dangling older"; got != want {
		t.Errorf("got %q due, want %q", got, want)
	}
	snap.Unread = []string{"x"}
	if got := due(); got != "" {
		t.Errorf("with a container that is not shown: got %q due, want none", got)
	}
	if !learnUses(uses, images, snap, now) || !uses["unknown"].Equal(now) || !uses["used"].Equal(now) {
		t.Errorf("got the uses %v, want those of now", uses)
	}
	for ref, want := range map[string]string{"a:1": "a", "h:5000/a": "h:5000/a", "h:5000/a:1": "h:5000/a", "a@sha256:0": "a"} {
		if got := repository(ref); got != want {
			t.Errorf("%s: got the repository %s, want %s", ref, got, want)
		}
	}
}

func TestImagesAndContainersAreRemoved(t *testing.T) {
	s := newStage(t, scratch(t))
	s.cfg.Images.Enabled, s.cfg.Containers.Enabled, s.cfg.Enabled = true, true, false
	s.m.images = []agent.Image{{ID: "sha256:old", Created: s.clock}, {ID: "sha256:web", Created: s.clock}}
	s.m.run(id("a1"), "web").ImageID = "sha256:web"
	for name, labels := range map[string]map[string]string{
		id("de1"): nil, id("de2"): {"com.amazonaws.ecs.task-arn": "x"}, id("de3"): {"berth.prune": "false"},
	} {
		s.m.run(name, name).Labels = labels
		s.m.exit(name)
	}
	s.m.run(id("c4"), "created").State = agent.StateCreated
	s.cycle()
	// As Run does it every day.
	for range 10 {
		s.clock = s.clock.Add(24 * time.Hour)
		s.p.others(context.Background())
	}
	slices.Sort(s.m.removed)
	if got, want := fmt.Sprint(s.m.removed), fmt.Sprint([]string{id("de1"), "sha256:old"}); got != want {
		t.Errorf("got %s removed, want %s", got, want)
	}
	if err := s.conditions(); err != nil {
		t.Errorf("got conditions %v, want none", err)
	}
	if n := len(s.p.ledger.history); n != 2 {
		t.Errorf("got %d deletions in the journal, want 2", n)
	}
}

func TestDaily(t *testing.T) {
	at := func(clock string) time.Time {
		v, err := time.Parse("2006-01-02 15:04", "2026-11-21 "+clock)
		must(err)
		return v
	}
	for now, want := range map[string]time.Time{"02:00": at("03:30"), "03:30": at("03:30").AddDate(0, 0, 1), "23:59": at("03:30").AddDate(0, 0, 1)} {
		if got := daily(at(now), "03:30", 0, "h"); !got.Equal(want) {
			t.Errorf("after %s: got %v, want %v", now, got, want)
		}
	}
	a, b := daily(at("12:00"), "23:30", time.Hour, "host-a"), daily(at("12:00"), "23:30", time.Hour, "host-b")
	if a.Equal(b) || a.Before(at("23:30")) || !a.Before(at("23:30").Add(time.Hour)) {
		t.Errorf("got %v and %v, want two moments within an hour of 23:30", a, b)
	}
}

func TestConfigIsChecked(t *testing.T) {
	if err := errors.Join(DefaultConfig().Validate(), DefaultConfig().Pressure.Validate(), DefaultConfig().Images.Validate(), DefaultConfig().Containers.Validate()); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	c := DefaultConfig()
	c.Roots, c.RetainMin, c.Exempt, c.ExemptLabels, c.Scan, c.Rate = []string{"log"}, c.Retain+1, []string{"x"}, []string{"=1"}, 0, -1
	c.Pressure.Low, c.Images.At, c.Containers.At = 90, "3am", ""
	err := fmt.Sprint(errors.Join(c.Validate(), c.Pressure.Validate(), c.Images.Validate(), c.Containers.Validate()))
	for _, key := range []string{"roots[0]", "retain_min", "exempt[0]", "exempt_labels[0]", "scan", "rate", "low", "at"} {
		if !strings.Contains(err, key) {
			t.Errorf("got no error about %s in: %s", key, err)
		}
	}
}
