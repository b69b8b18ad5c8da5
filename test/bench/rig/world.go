// Package rig is what the benchmarks with a real engine share: a World of
// containers on this machine's engine, which it leaves as it was; berths that run
// as systemd runs them; an event stream beside theirs; and the Table of what was
// measured, for people, as JSON and in the README.
package rig

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
	"github.com/docker/go-connections/nat"
	"golang.org/x/sync/errgroup"

	"github.com/berthd/berth/test/apps"
)

// Patience bounds each wait for something: a bound for what is broken, never a
// measure.
const Patience = 20 * time.Second

// Port is the one that containers with a name publish.
const Port = "8080/tcp"

// AtOnce is how many containers are started or removed at a time.
const AtOnce = 4

const (
	label      = "berth.bench" // on every container of a bench; its value is the run
	repository = "berth-bench" // of its image
)

// World is the engine, what runs on it, and what has to be cleared away. Its
// methods are safe for concurrent use, except Open and Close.
type World struct {
	Binary string // berth's

	Engine  *client.Client
	Socket  string // the engine's
	Version string // the engine's
	Dir     string // for files, until Close
	Seen    *Subscriber

	run   string // the value of label
	image string
	fresh bool // the image was not there before
}

// Open reaches the engine, subscribes to its events and makes the image. The
// world is to be closed even if that fails.
func (w *World) Open(ctx context.Context) (err error) {
	w.run = fmt.Sprint(os.Getpid())
	if w.Binary, err = filepath.Abs(w.Binary); err != nil {
		return err
	}
	if _, err := os.Stat(w.Binary); err != nil {
		return fmt.Errorf("find berth: %w: make build makes it", err)
	}
	if w.Engine, err = client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation()); err != nil {
		return fmt.Errorf("reach the engine: %w", err)
	}
	version, err := w.Engine.ServerVersion(ctx)
	if err != nil {
		return fmt.Errorf("reach the engine: %w (make setup starts one where none is; as root?)", err)
	}
	w.Version = version.Version
	var unix bool
	if w.Socket, unix = strings.CutPrefix(w.Engine.DaemonHost(), "unix://"); !unix {
		return fmt.Errorf("reach the engine at %s: its calls can be counted only on a Unix socket", w.Engine.DaemonHost())
	}
	if w.Dir, err = os.MkdirTemp("", "berth-bench-"); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	w.Seen = subscribe(ctx, w.Engine, w.run)
	before, err := w.Engine.ImageList(ctx, image.ListOptions{Filters: filters.NewArgs(filters.Arg("reference", repository+"/"+apps.All))})
	if err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	w.fresh = len(before) == 0
	w.image, err = apps.Ensure(ctx, w.Engine, repository, apps.All)
	return err
}

// Spec is what container to make.
type Spec struct {
	Name   string            // of the container, after the run's
	Claims string            // the service's name; "" for none, and then no port either
	Labels map[string]string // besides
	App    string            // of package apps; a sleeper by default
	Args   []string
	Adjust func(*container.HostConfig) // if set, may change what is sent
	Host   bool                        // on the host's network, and then no port either
	Health *container.HealthConfig
}

// Create makes a container and returns its ID.
func (w *World) Create(ctx context.Context, s Spec) (string, error) {
	cfg := &container.Config{
		Image: w.image, Cmd: append([]string{cmp.Or(s.App, "sleeper")}, s.Args...), Healthcheck: s.Health,
		Labels: map[string]string{label: w.run},
	}
	maps.Copy(cfg.Labels, s.Labels)
	host := &container.HostConfig{NetworkMode: "bridge"}
	if s.Host {
		host.NetworkMode = "host"
	}
	if s.Claims != "" {
		cfg.Labels["SERVICE_8080_NAME"] = s.Claims
		cfg.ExposedPorts = nat.PortSet{Port: {}}
		host.PortBindings = nat.PortMap{Port: {{}}}
	}
	if s.Adjust != nil {
		s.Adjust(host)
	}
	made, err := w.Engine.ContainerCreate(ctx, cfg, host, nil, nil, w.Name(s.Name))
	if err != nil {
		return "", fmt.Errorf("create %s: %w", s.Name, err)
	}
	return made.ID, nil
}

// Start makes and starts a container.
func (w *World) Start(ctx context.Context, s Spec) (string, error) {
	id, err := w.Create(ctx, s)
	if err != nil {
		return "", err
	}
	if err := w.Run(ctx, id); err != nil {
		return "", fmt.Errorf("start %s: %w", s.Name, err)
	}
	return id, nil
}

// Run starts a container that was created. Engine 20.10 now and then kills a
// helper of its own on the way: then it is started again.
func (w *World) Run(ctx context.Context, id string) error {
	const tries = 3
	for try := 1; ; try++ {
		err := w.Engine.ContainerStart(ctx, id, container.StartOptions{})
		if err == nil || try == tries || !strings.Contains(err.Error(), "signal: killed") && !strings.Contains(err.Error(), "OCI runtime create failed") {
			return err
		}
	}
}

// Remove removes a container, whatever state it is in.
func (w *World) Remove(ctx context.Context, id string) error {
	if err := w.Engine.ContainerRemove(ctx, id, container.RemoveOptions{Force: true}); err != nil {
		return fmt.Errorf("remove %.12s: %w", id, err)
	}
	return nil
}

// Name returns what a container of this name is called by the engine.
func (w *World) Name(name string) string { return "berth-bench-" + w.run + "-" + name }

// StartAll starts containers, some at a time, and returns their IDs.
func (w *World) StartAll(ctx context.Context, specs []Spec) ([]string, error) {
	ids := make([]string, len(specs))
	return ids, each(ctx, specs, func(ctx context.Context, i int) (err error) {
		ids[i], err = w.Start(ctx, specs[i])
		return err
	})
}

// Close removes all that was made, whatever state it is in. The berths must have
// been stopped.
func (w *World) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var errs []error
	if w.Engine != nil {
		errs = append(errs, w.removeAll(ctx))
		if w.fresh && w.image != "" {
			_, err := w.Engine.ImageRemove(ctx, w.image, image.RemoveOptions{PruneChildren: true})
			if !errdefs.IsConflict(err) { // with another bench, which uses it
				errs = append(errs, err)
			}
		}
		errs = append(errs, w.Engine.Close())
	}
	if w.Dir != "" {
		errs = append(errs, os.RemoveAll(w.Dir))
	}
	return errors.Join(errs...)
}

func (w *World) removeAll(ctx context.Context) error {
	all, err := w.Engine.ContainerList(ctx, container.ListOptions{
		All: true, Filters: filters.NewArgs(filters.Arg("label", label+"="+w.run)),
	})
	if err != nil {
		return fmt.Errorf("list the bench's containers: %w", err)
	}
	ids := make([]string, len(all))
	for i, c := range all {
		ids[i] = c.ID
	}
	return w.RemoveAll(ctx, ids)
}

// RemoveAll removes containers, some at a time.
func (w *World) RemoveAll(ctx context.Context, ids []string) error {
	return each(ctx, ids, func(ctx context.Context, i int) error { return w.Remove(ctx, ids[i]) })
}

// each calls do for each index, AtOnce at a time, until one fails.
func each[T any](ctx context.Context, all []T, do func(context.Context, int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(AtOnce)
	for i := range all {
		g.Go(func() error { return do(ctx, i) })
	}
	return g.Wait()
}

// Until calls ok until it returns nil, every 20 ms.
func Until(ctx context.Context, what string, ok func() error) error {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	for {
		err := ok()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not so: %s: %w", what, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
