package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berthd/berth/test/fakedocker"
)

// The tree.
const (
	services  = 20
	folders   = 2000
	deadOnes  = 1800
	filesEach = 5
	others    = 20_000
	manyRoots = 100_000 // folders of the large scan
)

// world is what the measurements share.
type world struct {
	s      settings
	dir    string
	engine *fakedocker.Engine
	ruby   string // its version; empty where there is none
	rows   map[string][]cost
	idle   result
	large  result
	load   string
	began  time.Time
}

func newWorld(ctx context.Context, s settings) (*world, error) {
	dir, err := os.MkdirTemp(s.dir, "berth-bench-prune-")
	if err != nil {
		return nil, err
	}
	w := &world{s: s, dir: dir, rows: make(map[string][]cost), load: loadAverage(), began: time.Now()}
	w.engine = fakedocker.New(filepath.Join(dir, "docker.sock"))
	err = errors.Join(w.engine.Up(), os.MkdirAll(filepath.Join(dir, "docker/containers"), 0o755))
	if out, rubyErr := exec.CommandContext(ctx, "ruby", "-e", "print RUBY_VERSION").Output(); rubyErr == nil {
		w.ruby = string(out)
	}
	for _, what := range []string{"./test/bench/prune/baseline", "./test/bench/prune"} {
		out, buildErr := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(dir, filepath.Base(what)), what).CombinedOutput()
		if buildErr != nil {
			err = errors.Join(err, fmt.Errorf("build %s: %w: %s", what, buildErr, out))
		}
	}
	if err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

func (w *world) close() error {
	w.engine.Down()
	return os.RemoveAll(w.dir)
}

// The names in a tree. The first folders are the dead ones.
func containerID(i int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d", i))
	return hex.EncodeToString(sum[:])
}

func service(i int) string { return fmt.Sprintf("service-%02d", i%services) }
func logFile(f int) string { return fmt.Sprintf("app.log.%d", f) }

// tree makes a tree, and a file with the IDs that live.
func (w *world) tree(name string, total, dead, files, beside int) (dir, alive string, err error) {
	dir = filepath.Join(w.dir, name)
	var ids []string
	old := time.Now().Add(-48 * time.Hour)
	for i := range total {
		id := containerID(i)
		at := filepath.Join(dir, "acme", service(i), "containers", id)
		if err := os.MkdirAll(at, 0o755); err != nil {
			return "", "", err
		}
		for f := range files {
			if err := os.WriteFile(filepath.Join(at, logFile(f)), make([]byte, 2048), 0o644); err != nil {
				return "", "", err
			}
			_ = os.Chtimes(filepath.Join(at, logFile(f)), old, old)
		}
		_ = os.Chtimes(at, old, old)
		if i >= dead {
			ids = append(ids, id)
		}
	}
	for i := range beside {
		at := filepath.Join(dir, "acme", service(i), "archive", fmt.Sprint(i/1000))
		if i < 1000*services/20 || i%1000 < services {
			if err := os.MkdirAll(at, 0o755); err != nil {
				return "", "", err
			}
		}
		if err := os.WriteFile(filepath.Join(at, fmt.Sprint(i)), []byte("x"), 0o644); err != nil {
			return "", "", err
		}
	}
	slices.Sort(ids)
	alive = dir + ".alive"
	err = os.WriteFile(alive, []byte(strings.Join(ids, "\n")+"\n"), 0o644)
	return dir, alive, err
}

// measure does all rounds.
func (w *world) measure(ctx context.Context) error {
	say("make trees of %d folders, %d rounds", folders, w.s.rounds)
	for round := range w.s.rounds {
		if err := w.round(ctx, round); err != nil {
			return err
		}
	}
	say("scan %d folders", manyRoots)
	dir, alive, err := w.tree("large", manyRoots, manyRoots, 0, 0)
	if err != nil {
		return err
	}
	if w.large, err = w.berth(ctx, "scan", dir+"/*/*/containers", alive, ""); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	say("idle, with 1,000 folders, for %v", idleTime)
	if dir, alive, err = w.tree("idle", 1000, 0, filesEach, 0); err != nil {
		return err
	}
	w.idle, err = w.berth(ctx, "idle", dir+"/*/*/containers", alive, "")
	return err
}

// idleTime is how long a collector is watched that has nothing to do.
const idleTime = 20 * time.Second

// watchIdle returns the CPU time of ten minutes of a process that waits, by its own
// clock (clock_getcpuclockid(3)).
func watchIdle(ctx context.Context, pid int) (float64, error) {
	clock := int32(^pid<<3 | 2)
	var begin, end unix.Timespec
	if err := unix.ClockGettime(clock, &begin); err != nil {
		return 0, err
	}
	select {
	case <-time.After(idleTime):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	err := unix.ClockGettime(clock, &end)
	return float64(end.Nano()-begin.Nano()) / 1e9 * float64(10*time.Minute/idleTime), err
}

// cost is what one measurement took, in seconds.
type cost struct{ wall, cpu float64 }

func (w *world) add(row string, c cost) { w.rows[row] = append(w.rows[row], c) }

// round measures everything once, in an order that changes from round to round.
func (w *world) round(ctx context.Context, n int) error {
	type contender struct {
		name string
		run  func(dir, alive string, scan bool) (cost, error)
	}
	process := func(name string, args func(dir, alive string, scan bool) []string) contender {
		return contender{name, func(dir, alive string, scan bool) (cost, error) {
			empty := filepath.Join(w.dir, "empty")
			if err := os.MkdirAll(empty, 0o755); err != nil {
				return cost{}, err
			}
			start, err := timed(ctx, args(empty, alive, true))
			if err != nil {
				return cost{}, err
			}
			w.add(name+" start", start)
			return timed(ctx, args(dir, alive, scan))
		}}
	}
	berth := func(name, glob, socket string) contender {
		return contender{name, func(dir, alive string, scan bool) (cost, error) {
			mode := "delete"
			if scan {
				mode = "scan"
			}
			r, err := w.berth(ctx, mode, dir+glob, alive, socket)
			if err == nil && !scan && r.Deleted != deadOnes {
				err = fmt.Errorf("berth deleted %d folders, not %d", r.Deleted, deadOnes)
			}
			return cost{r.Seconds, r.CPU}, err
		}}
	}
	all := []contender{
		process("baseline", func(dir, alive string, scan bool) []string {
			return []string{filepath.Join(w.dir, "baseline"), "-root", dir, "-alive", alive, fmt.Sprintf("-scan=%v", scan)}
		}),
		berth("berth", "/**/containers", filepath.Join(w.dir, "docker.sock")),
		berth("berth, engine that answers at once", "/**/containers", ""),
		berth("berth, default glob", "/*/*/containers", filepath.Join(w.dir, "docker.sock")),
		{"floor", func(dir, _ string, scan bool) (cost, error) {
			if scan {
				return cost{}, nil
			}
			return floor(dir, runtime.NumCPU())
		}},
	}
	if w.ruby != "" {
		all = append(all, process("ruby", func(dir, alive string, scan bool) []string {
			args := []string{"ruby", "test/bench/prune/baseline/prune.rb", dir, alive}
			if scan {
				args = append(args, "--scan")
			}
			return args
		}))
	}
	for i := range all {
		c := all[(i+n)%len(all)]
		dir, alive, err := w.tree(fmt.Sprint("tree", n, "-", i), folders, deadOnes, filesEach, others)
		if err != nil {
			return err
		}
		for _, scan := range []bool{true, false} {
			took, err := c.run(dir, alive, scan)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			what := " delete"
			if scan {
				what = " scan"
			}
			if took != (cost{}) {
				w.add(c.name+what, took)
			}
		}
		left, err := filepath.Glob(dir + "/*/*/containers/*")
		if err != nil || len(left) != folders-deadOnes {
			return fmt.Errorf("%s left %d folders, not %d: %w", c.name, len(left), folders-deadOnes, errors.Join(err, errors.New("it is wrong")))
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}

// timed runs a command.
func timed(ctx context.Context, args []string) (cost, error) {
	begin := time.Now()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return cost{}, fmt.Errorf("%q: %w: %s", args, err, out)
	}
	return cost{time.Since(begin).Seconds(), (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()}, nil
}

// berth runs the collector in a process of its own.
func (w *world) berth(ctx context.Context, mode, glob, alive, socket string) (result, error) {
	state, err := os.MkdirTemp(w.dir, "state-")
	if err != nil {
		return result{}, err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(w.dir, "prune"), "-child", mode, "-glob", glob, "-alive", alive,
		"-state", state, "-engine-root", filepath.Join(w.dir, "docker"), "-engine", socket)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.Env = append(os.Environ(), "GOGC=40") // as berth run has it
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return result{}, err
	}
	var waiting float64
	if mode == "idle" {
		time.Sleep(15 * time.Second) // the first scan, and what it leaves to the runtime
		waiting, err = watchIdle(ctx, cmd.Process.Pid)
	}
	if err = errors.Join(err, stdin.Close(), cmd.Wait()); err != nil {
		return result{}, fmt.Errorf("%s: %w: %s", mode, err, stderr.String())
	}
	var r result
	err = json.Unmarshal(stdout.Bytes(), &r)
	if mode == "idle" {
		r.Seconds, r.CPU = waiting, waiting+r.CPU
	}
	return r, err
}
