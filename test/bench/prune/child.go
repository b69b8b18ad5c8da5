package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/docker"
	"github.com/berthd/berth/collectors/logprune"
)

// childSettings are the flags of the process that is berth's part.
type childSettings struct {
	mode, glob, alive, state, root, socket string
}

func (c *childSettings) flags() {
	flag.StringVar(&c.mode, "child", "", "used by the bench itself: scan, delete or idle")
	flag.StringVar(&c.glob, "glob", "", "")
	flag.StringVar(&c.alive, "alive", "", "")
	flag.StringVar(&c.state, "state", "", "")
	flag.StringVar(&c.root, "engine-root", "", "")
	flag.StringVar(&c.socket, "engine", "", "")
}

// result is what a child prints.
type result struct {
	Seconds float64 // of a scan, or of a run
	CPU     float64 // seconds, of the whole process or of the idle time
	RSS     int64   // bytes, at most
	Deleted int64
	Folders int
}

// feed is an agent.Feed of one snapshot.
type feed struct {
	snap    *agent.Snapshot
	changed chan struct{} // sent to once
}

func (f feed) Snapshot() *agent.Snapshot { return f.snap }
func (f feed) Changed() <-chan struct{}  { return f.changed }

// node is an agent.NodeSource that is certain.
type node struct{}

func (node) Node() agent.Node         { return agent.Node{ID: "bench", Settled: true} }
func (node) Changed() <-chan struct{} { return nil }
func (node) StateHost() string        { return "bench" }

// absent is an engine that has none of the containers it is asked for.
type absent struct{ logprune.Engine }

func (absent) Inspect(context.Context, string) (*agent.Container, error) {
	return nil, agent.ErrNotFound
}

func (absent) Absent(_ context.Context, ids []string) []bool {
	return slices.Repeat([]bool{true}, len(ids))
}

// child runs the collector and measures one thing.
func child(ctx context.Context, c childSettings) error {
	text, err := os.ReadFile(c.alive)
	if err != nil {
		return err
	}
	snap := &agent.Snapshot{Seq: 1, At: time.Now(), Connected: true, Complete: true, EngineID: "bench", EngineRoot: c.root}
	for id := range strings.FieldsSeq(string(text)) {
		snap.Containers = append(snap.Containers, &agent.Container{ID: id, Name: id[:8], State: agent.StateRunning, StartedAt: snap.At})
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	if c.mode == "delete" {
		out, err := os.Create(c.state + ".log")
		if err != nil {
			return err
		}
		defer out.Close()
		log = slog.New(slog.NewTextHandler(out, nil)) // each deletion has its line
	}
	env := agent.Env{Log: log, Health: agent.NewHealth(log), Node: node{}, StateDir: c.state}
	cfg := logprune.DefaultConfig()
	cfg.Enabled = c.mode == "delete"
	cfg.Roots = []string{c.glob}
	cfg.Rate, cfg.ConfirmAfter, cfg.CannotTell = 0, 0, "report"
	var engine logprune.Engine = absent{}
	if c.socket != "" {
		e, err := docker.New(docker.Config{Host: "unix://" + c.socket})
		if err != nil {
			return err
		}
		defer e.Close()
		engine = e
	}
	p, err := logprune.New(cfg, env, engine)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	news := make(chan struct{}, 1)
	news <- struct{}{}
	go func() { done <- p.Run(ctx, feed{snap, news}) }()
	defer func() { cancel(); <-done }()
	if err := scanned(ctx, p); err != nil {
		return err
	}
	var r result
	switch c.mode {
	case "scan":
		r, err = measureScan(ctx, p)
	case "delete":
		r, err = measureDelete(ctx, p)
	case "idle":
		r, err = measureIdle(ctx, p)
	}
	if err != nil {
		return err
	}
	var use unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &use); err != nil {
		return err
	}
	r.RSS = use.Maxrss * 1024
	return json.NewEncoder(os.Stdout).Encode(r)
}

// scanned waits for the first scan.
func scanned(ctx context.Context, p *logprune.Pruner) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for figures(p)["berth_prune_scans_total"] == 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// figures are the sums of the collector's own.
func figures(p *logprune.Pruner) map[string]float64 {
	out := make(map[string]float64)
	p.Metrics(func(s agent.Sample) bool { out[s.Name] += s.Value; return true })
	return out
}

// measureScan returns the best of three scans, as a daemon's are.
func measureScan(ctx context.Context, p *logprune.Pruner) (result, error) {
	best := result{Seconds: math.Inf(1)}
	for range 3 {
		begin, used := time.Now(), cpu()
		if err := p.Look(ctx); err != nil {
			return result{}, err
		}
		if took := time.Since(begin).Seconds(); took < best.Seconds {
			best = result{Seconds: took, CPU: cpu() - used}
		}
	}
	best.Folders = int(figures(p)["berth_prune_folders"])
	return best, nil
}

func ask(p *logprune.Pruner, method, path string, into any) error {
	rec := httptest.NewRecorder()
	p.ServeHTTP(rec, httptest.NewRequest(method, "/v1/prune/"+path, nil))
	if rec.Code != http.StatusOK {
		return errors.New(rec.Body.String())
	}
	return json.Unmarshal(rec.Body.Bytes(), into)
}

// measureDelete returns the time of a run that was asked for: a scan, a plan, and
// everything that it deletes.
func measureDelete(ctx context.Context, p *logprune.Pruner) (result, error) {
	var at logprune.Progress
	begin, used := time.Now(), cpu()
	if err := ask(p, http.MethodPost, "run", &at); err != nil {
		return result{}, err
	}
	for at.Running {
		if ctx.Err() != nil {
			return result{}, ctx.Err()
		}
		time.Sleep(2 * time.Millisecond)
		if err := ask(p, http.MethodGet, "progress", &at); err != nil {
			return result{}, err
		}
	}
	if len(at.Refusal) > 0 || at.Error != "" {
		return result{}, fmt.Errorf("%d were refused, as %+v; %s", len(at.Refusal), at.Refusal[0], at.Error)
	}
	return result{Seconds: time.Since(begin).Seconds(), CPU: cpu() - used, Deleted: at.Folders}, nil
}

// measureIdle waits until its standard input ends, and then returns the CPU time of
// one scan.
func measureIdle(ctx context.Context, p *logprune.Pruner) (result, error) {
	debug.FreeOSMemory()
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return result{}, err
	}
	const scans = 20
	begin := cpu()
	for range scans {
		if err := p.Look(ctx); err != nil {
			return result{}, err
		}
	}
	return result{CPU: (cpu() - begin) / scans}, nil
}

// cpu is the CPU time of this process so far, in seconds.
func cpu() float64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts); err != nil {
		panic(err)
	}
	return float64(ts.Nano()) / 1e9
}
