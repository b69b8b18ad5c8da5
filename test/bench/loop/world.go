package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
	"github.com/docker/go-connections/nat"
	"golang.org/x/sync/errgroup"

	"github.com/berthd/berth/test/apps"
)

const (
	label      = "berth.bench" // on every container of a bench; its value is the run
	repository = "berth-bench" // of its image
	port       = "8080/tcp"    // of the containers that have a name
	atOnce     = 4             // containers that are started or removed at a time
)

// world is the engine, what runs on it, and what has to be cleared away.
type world struct {
	settings

	engine  *client.Client
	socket  string // the engine's
	version string
	run     string // the value of label
	dir     string
	image   string
	fresh   bool // the image was not there before
	seen    *subscriber
	ids     []string // the containers that run all the time

	direct  *berth // speaks to the engine itself
	watched *berth // through proxy
	proxy   *proxy
	rss     []uint64 // of both, in bytes
}

func newWorld(s settings) *world { return &world{settings: s, run: fmt.Sprint(os.Getpid())} }

// open reaches the engine, subscribes to its events and makes the image.
func (w *world) open(ctx context.Context) (err error) {
	if w.berth, err = filepath.Abs(w.berth); err != nil {
		return err
	}
	if _, err := os.Stat(w.berth); err != nil {
		return fmt.Errorf("find berth: %w: make build makes it", err)
	}
	if w.engine, err = client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation()); err != nil {
		return fmt.Errorf("reach the engine: %w", err)
	}
	version, err := w.engine.ServerVersion(ctx)
	if err != nil {
		return fmt.Errorf("reach the engine: %w (make setup starts one where none is; as root?)", err)
	}
	w.version = version.Version
	var unix bool
	if w.socket, unix = strings.CutPrefix(w.engine.DaemonHost(), "unix://"); !unix {
		return fmt.Errorf("reach the engine at %s: its calls can be counted only on a Unix socket", w.engine.DaemonHost())
	}
	if w.dir, err = os.MkdirTemp("", "bench-loop-"); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	w.seen = subscribe(ctx, w.engine, w.run)
	before, err := w.engine.ImageList(ctx, image.ListOptions{Filters: filters.NewArgs(filters.Arg("reference", repository+"/"+apps.All))})
	if err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	w.fresh = len(before) == 0
	w.image, err = apps.Ensure(ctx, w.engine, repository, apps.All)
	return err
}

// spec is what container to make.
type spec struct {
	name   string // of the container, after the run's
	claims string // the service's name; "" for none, and then no port either
	args   []string
	health *container.HealthConfig
}

// create makes a container and returns its ID.
func (w *world) create(ctx context.Context, s spec) (string, error) {
	cfg := &container.Config{
		Image: w.image, Cmd: append([]string{"sleeper"}, s.args...), Healthcheck: s.health,
		Labels: map[string]string{label: w.run},
	}
	host := &container.HostConfig{NetworkMode: "bridge"}
	if s.claims != "" {
		cfg.Labels["SERVICE_8080_NAME"] = s.claims
		cfg.ExposedPorts = nat.PortSet{port: {}}
		host.PortBindings = nat.PortMap{port: {{}}}
	}
	made, err := w.engine.ContainerCreate(ctx, cfg, host, nil, nil, fmt.Sprintf("berth-bench-%s-%s", w.run, s.name))
	if err != nil {
		return "", fmt.Errorf("create %s: %w", s.name, err)
	}
	return made.ID, nil
}

// start makes and starts a container.
func (w *world) start(ctx context.Context, s spec) (string, error) {
	id, err := w.create(ctx, s)
	if err != nil {
		return "", err
	}
	if err := w.engine.ContainerStart(ctx, id, container.StartOptions{}); err != nil {
		return "", fmt.Errorf("start %s: %w", s.name, err)
	}
	return id, nil
}

func (w *world) remove(ctx context.Context, id string) error {
	if err := w.engine.ContainerRemove(ctx, id, container.RemoveOptions{Force: true}); err != nil {
		return fmt.Errorf("remove %.12s: %w", id, err)
	}
	return nil
}

// populate starts the containers that run all the time, half of them with a
// name.
func (w *world) populate(ctx context.Context, _ *table) error {
	w.ids = make([]string, w.containers)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for i := range w.ids {
		g.Go(func() (err error) {
			s := spec{name: fmt.Sprintf("base%03d", i)}
			if i%2 == 0 {
				s.claims = fmt.Sprintf("base%03d", i)
			}
			w.ids[i], err = w.start(ctx, s)
			return err
		})
	}
	return g.Wait()
}

// clear removes all that was made, whatever state it is in.
func (w *world) clear() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var errs []error
	for _, b := range []*berth{w.direct, w.watched} {
		errs = append(errs, b.stop())
	}
	w.proxy.close()
	if w.engine != nil {
		errs = append(errs, w.removeAll(ctx))
		if w.fresh && w.image != "" {
			_, err := w.engine.ImageRemove(ctx, w.image, image.RemoveOptions{PruneChildren: true})
			errs = append(errs, err)
		}
		errs = append(errs, w.engine.Close())
	}
	if w.dir != "" {
		errs = append(errs, os.RemoveAll(w.dir))
	}
	return errors.Join(errs...)
}

func (w *world) removeAll(ctx context.Context) error {
	all, err := w.engine.ContainerList(ctx, container.ListOptions{
		All: true, Filters: filters.NewArgs(filters.Arg("label", label+"="+w.run)),
	})
	if err != nil {
		return fmt.Errorf("list the bench's containers: %w", err)
	}
	var g errgroup.Group
	g.SetLimit(atOnce)
	for _, c := range all {
		g.Go(func() error { return w.remove(ctx, c.ID) })
	}
	return g.Wait()
}
