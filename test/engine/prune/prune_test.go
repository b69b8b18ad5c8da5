// Package prune tests the pruning of log folders, images and stopped containers
// against real Docker engines: private ones, which the tests may kill and empty.
package prune

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/mount"
	"go.uber.org/goleak"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/config"
	"github.com/berthd/berth/agent/docker"
	"github.com/berthd/berth/collectors/logprune"
	"github.com/berthd/berth/test/engine/enginetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// limit bounds every wait. It is for a broken test, never a measure.
const limit = 2 * time.Minute

// host is berth's loop and pruner on an engine.
type host struct {
	t      *testing.T
	engine *docker.Engine
	agent  *agent.Agent
	pruner *logprune.Pruner
	logs   string // the folder of the service's containers
}

type certain struct{}

func (certain) Node() agent.Node         { return agent.Node{ID: "host-1", Settled: true} }
func (certain) Changed() <-chan struct{} { return nil }
func (certain) StateHost() string        { return "host-1" }

func newHost(t *testing.T, address string) *host {
	t.Helper()
	dir := t.TempDir()
	h := &host{t: t, logs: filepath.Join(dir, "log/acme/web/containers")}
	for _, d := range []string{h.logs, filepath.Join(dir, "state")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	env := agent.Env{Log: log, Health: agent.NewHealth(log), Node: certain{}, StateDir: filepath.Join(dir, "state")}
	var err error
	if h.engine, err = docker.New(docker.Config{Host: address}); err != nil {
		t.Fatal(err)
	}
	h.agent = agent.New(h.engine, certain{}, agent.DefaultLoopConfig(), env)
	cfg := logprune.DefaultConfig()
	cfg.Enabled = true
	cfg.Roots = []string{filepath.Join(dir, "log/*/*/containers")}
	cfg.Retain, cfg.RetainMin, cfg.Scan = 0, 0, config.Duration(time.Second)
	cfg.CannotTell = "report" // not all processes of a test machine may be ours to look at
	if h.pruner, err = logprune.New(cfg, env, h.engine); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	go func() { _ = h.agent.Run(ctx); done <- struct{}{} }()
	go func() {
		feed := h.agent.Store().Subscribe()
		defer feed.Close()
		_ = h.pruner.Run(ctx, feed)
		done <- struct{}{}
	}()
	t.Cleanup(func() { cancel(); <-done; <-done; _ = h.engine.Close() })
	return h
}

// folder makes the folder of a container, as its logger would.
func (h *host) folder(name string) string {
	h.t.Helper()
	dir := filepath.Join(h.logs, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "app.log"), []byte("line\n"), 0o644); err != nil {
		h.t.Fatal(err)
	}
	return dir
}

// post asks the pruner to do something, and returns its refusal.
func (h *host) post(what string) error {
	rec := httptest.NewRecorder()
	h.pruner.ServeHTTP(rec, httptest.NewRequest(http.MethodPost, "/v1/prune/"+what, nil))
	if rec.Code != http.StatusOK {
		return errors.New(rec.Body.String())
	}
	return nil
}

// run has the pruner look and delete, and waits for the end of that.
func (h *host) run() error {
	if err := h.post("run"); err != nil {
		return err
	}
	for {
		rec := httptest.NewRecorder()
		h.pruner.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/v1/prune/progress", nil))
		var at logprune.Progress
		if err := json.Unmarshal(rec.Body.Bytes(), &at); err != nil {
			return err
		}
		if !at.Running {
			return nil
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (h *host) await(what string, ok func() error) {
	h.t.Helper()
	enginetest.Await(h.t, limit, what, func(context.Context) error { return ok() })
}

// goes waits until a folder is gone.
func (h *host) goes(dir string) {
	h.t.Helper()
	h.await("end of "+dir, func() error {
		if err := h.run(); err != nil {
			return err
		}
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("it is there: %v; %+v", err, h.pruner.Explain(dir))
		}
		return nil
	})
}

func (h *host) stays(dirs ...string) {
	h.t.Helper()
	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Join(dir, "app.log")); err != nil {
			h.t.Errorf("a folder that must stay: %v", err)
		}
	}
}

// Containers of a service log into folders of their own below one that all of them
// mount. One after the other ends; the engine is killed and comes back, and once
// with nothing: the folders of those that it forgot stay.
func TestSeeds(t *testing.T) {
	p := enginetest.Private(t, "--live-restore")
	h := newHost(t, p.Host)
	all := p.StartContainers(t, 5, func(i int) enginetest.Spec {
		return enginetest.Spec{Name: fmt.Sprint("web-", i), Adjust: func(_ *container.Config, hc *container.HostConfig) {
			hc.Mounts = []mount.Mount{{Type: mount.TypeBind, Source: filepath.Dir(h.logs), Target: "/logs"}}
		}}
	})
	dirs := make([]string, len(all))
	for i, c := range all {
		name := c.ID
		if i%2 == 1 {
			name = c.ID[:12]
		}
		dirs[i] = h.folder(name)
	}
	// This one has the folder of the first mounted, as a successor that goes on with it.
	heir := p.StartContainer(t, enginetest.Spec{Name: "heir", Adjust: func(_ *container.Config, hc *container.HostConfig) {
		hc.Mounts = []mount.Mount{{Type: mount.TypeBind, Source: dirs[0], Target: "/logs"}}
	}})
	date := h.folder("202611210130")
	h.await("all containers", func() error {
		if n := len(h.agent.Store().Snapshot().Containers); n != 6 {
			return fmt.Errorf("got %d", n)
		}
		return nil
	})
	for _, d := range dirs {
		_ = h.pruner.Explain(d)
	}
	if err := h.run(); err != nil { // berth has seen all of them
		t.Fatal(err)
	}
	h.stays(dirs...)

	all[1].Remove(t)
	all[2].Stop(t)
	all[3].Pause(t)
	all[0].Remove(t)
	h.goes(dirs[1])
	h.stays(dirs[0], dirs[2], dirs[3], dirs[4], date)
	heir.Remove(t)
	h.goes(dirs[0])

	// While the engine is away, and when it is back.
	p.Kill9(t)
	h.await("loss of the engine", func() error {
		if h.agent.Store().Snapshot().Connected {
			return errors.New("it seems to be there")
		}
		return nil
	})
	if err := h.run(); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("a run without an engine: got %v, want that it does not answer", err)
	}
	p.Start(t)
	h.await("return of the engine", func() error {
		if !h.agent.Store().Snapshot().Complete {
			return errors.New("not complete")
		}
		return nil
	})
	all[2].Remove(t)
	h.goes(dirs[2])
	h.stays(dirs[3], dirs[4], date)

	// Its data is lost, and its containers run on.
	pid := all[4].Pid(t)
	p.Kill9(t)
	if err := os.RemoveAll(filepath.Join(p.Dir, "data/containers")); err != nil {
		t.Fatal(err)
	}
	p.Start(t)
	h.await("an engine without containers", func() error {
		s := h.agent.Store().Snapshot()
		if !s.Complete || len(s.Containers) != 0 {
			return fmt.Errorf("complete: %v, %d containers", s.Complete, len(s.Containers))
		}
		return nil
	})
	if err := h.run(); err == nil || !strings.Contains(err.Error(), "are not those that were there") {
		t.Errorf("a run on an engine without its data: got %v, want that it is refused", err)
	}
	h.stays(dirs[3], dirs[4], date)
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err != nil {
		t.Logf("the container's process did not outlive it: %v", err)
	}
	// Somebody says that it is right.
	if err := h.post("accept-engine"); err != nil {
		t.Fatal(err)
	}
	h.goes(dirs[4])
	h.goes(dirs[3])
	h.stays(date)
}

// Images and containers are removed one by one, never forced, and volumes never.
func TestPitfall_prune07_NothingIsForcedAndNoVolumeGoes(t *testing.T) {
	p := enginetest.Private(t)
	h := newHost(t, p.Host)
	ctx := t.Context()
	c := p.StartContainer(t, enginetest.Spec{Name: "data", Adjust: func(cc *container.Config, _ *container.HostConfig) {
		cc.Volumes = map[string]struct{}{"/data": {}}
	}})
	info := c.Inspect(t)
	if len(info.Mounts) != 1 || info.Mounts[0].Type != mount.TypeVolume {
		t.Fatalf("got mounts %+v, want one volume", info.Mounts)
	}
	images := func() int {
		t.Helper()
		all, err := h.engine.Images(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	before := images()
	if err := h.engine.RemoveContainer(ctx, c.ID); !errors.Is(err, agent.ErrInUse) {
		t.Errorf("remove a running container: got %v, want that it is in use", err)
	}
	if err := h.engine.RemoveImage(ctx, info.Image); !errors.Is(err, agent.ErrInUse) {
		t.Errorf("remove the image of a running container: got %v, want that it is in use", err)
	}
	c.Stop(t)
	if err := h.engine.RemoveImage(ctx, info.Image); !errors.Is(err, agent.ErrInUse) {
		t.Errorf("remove the image of a stopped container: got %v, want that it is in use", err)
	}
	if err := h.engine.RemoveContainer(ctx, c.ID); err != nil {
		t.Errorf("remove a stopped container: got %v", err)
	}
	if _, err := p.Client.VolumeInspect(ctx, info.Mounts[0].Name); err != nil {
		t.Errorf("its volume: got %v, want it there", err)
	}
	if err := h.engine.RemoveContainer(ctx, c.ID); !errors.Is(err, agent.ErrNotFound) {
		t.Errorf("remove it again: got %v, want not found", err)
	}
	// An image with two names would have to be forced.
	if err := p.Client.ImageTag(ctx, info.Image, "berth-test/other:1"); err != nil {
		t.Fatal(err)
	}
	if err := p.Client.ImageTag(ctx, info.Image, "berth-test/third:1"); err != nil {
		t.Fatal(err)
	}
	if err := h.engine.RemoveImage(ctx, info.Image); !errors.Is(err, agent.ErrInUse) {
		t.Errorf("remove an image with several names: got %v, want that it is in use", err)
	}
	if got := images(); got != before {
		t.Errorf("got %d images, want %d", got, before)
	}
	for _, ref := range []string{"berth-test/other:1", "berth-test/third:1"} {
		if _, err := p.Client.ImageRemove(ctx, ref, image.RemoveOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.engine.RemoveImage(ctx, info.Image); err != nil {
		t.Errorf("remove an image that nobody uses: got %v", err)
	}
	if got := images(); got != before-1 {
		t.Errorf("got %d images, want %d", got, before-1)
	}
}
