package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/admin"
	"github.com/berthd/berth/agent/config"
	"github.com/berthd/berth/agent/docker"
	"github.com/berthd/berth/agent/journal"
	"github.com/berthd/berth/agent/node"
	"github.com/berthd/berth/agent/sockets"
	"github.com/berthd/berth/sinks/openmetrics"
)

// daemon is a running berth: the parts that live as long as the process, and
// the components, which come and go with the configuration.
type daemon struct {
	files   *configFiles
	dryRun  bool
	context context.Context // of the daemon: components that a reload starts live as long

	env     agent.Env
	started time.Time
	node    *node.Source
	engine  *docker.Engine
	agent   *agent.Agent
	parts   *agent.Supervisor
	records *agent.Records // what discovery wants; outlives it, and the sinks
	sockets *sockets.Registry
	metered atomic.Pointer[[]openmetrics.Source] // see meter

	mu        sync.Mutex // guards what follows; held during a reload
	cfg       *loaded
	loadedAt  time.Time
	reloadErr error
	running   map[string]*component
}

// component is one part that was built from a section of the configuration.
type component struct {
	name    string
	section any // a copy of the section: a different one means a different component
	run     func(context.Context) error
	part    any           // the thing itself, for its optional interfaces
	summary func() string // one line for berth status; may be nil
}

// newDaemon makes everything, and starts nothing.
func newDaemon(files *configFiles, cfg *loaded, dryRun bool) (*daemon, error) {
	log := cfg.Log.logger()
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("make the state folder: %w: run berth as root, or set state_dir", err)
	}
	d := &daemon{
		files:   files,
		dryRun:  dryRun,
		started: time.Now(),
		env: agent.Env{
			Log:      log,
			Health:   agent.NewHealth(log),
			StateDir: cfg.StateDir,
		},
		records:  new(agent.Records),
		sockets:  sockets.New(log),
		cfg:      cfg,
		loadedAt: time.Now(),
		running:  make(map[string]*component),
	}
	var err error
	d.node, err = node.New(cfg.Node, d.env)
	if errors.Is(err, journal.ErrLocked) {
		return nil, fmt.Errorf("use the state folder %s: another berth is already running there: stop it first, or give this one an admin.socket and a state_dir of its own", cfg.StateDir)
	}
	if err != nil {
		return nil, err
	}
	d.env.Node = d.node
	if d.engine, err = docker.New(cfg.Engine); err != nil {
		return nil, errors.Join(err, d.node.Close())
	}
	d.agent = agent.New(d.engine, d.node, cfg.Loop.loop(), d.env)
	d.parts = agent.NewSupervisor(d.env)
	return d, nil
}

// run runs everything until ctx ends.
func (d *daemon) run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, d.engine.Close(), d.node.Close()) }()
	defer d.sockets.Close()
	api := admin.New(d.cfg.Admin, d.env, d)
	listener, err := api.Listen()
	if err != nil {
		return err
	}
	built, err := d.build(d.cfg.Config)
	if err != nil {
		return errors.Join(err, listener.Close())
	}

	var loop sync.WaitGroup
	loop.Go(func() { _ = d.agent.Run(ctx) })
	loop.Go(func() { giveBack(ctx) })
	defer loop.Wait()
	d.parts.Start(ctx, "node", d.node.Run)
	d.parts.Start(ctx, "admin", serveOnce(api, listener))
	d.mu.Lock()
	d.swap(ctx, built)
	d.mu.Unlock()
	d.parts.Start(ctx, "notify", d.notify)
	sweep := time.AfterFunc(sweepAfter, func() { d.sockets.Sweep() })
	defer sweep.Stop()
	d.env.Log.Info("berth is running", "version", version(), "engine", d.engine.Host(), "node", d.node.Node().ID, "dry_run", d.dryRun)

	<-ctx.Done()
	d.env.Log.Info("stopping; names stay in DNS until the host itself goes away")
	d.parts.StopAll()
	return nil
}

// sweepAfter is when the sockets that the last run left behind and that no
// component has asked for are closed: long after all components have started.
const sweepAfter = time.Minute

// envFor returns what a component is made with.
func (d *daemon) envFor(name string) agent.Env {
	env := d.env
	env.Sockets = d.sockets.Scope(name)
	return env
}

// serveOnce serves on a listener that is open already, and opens another one if
// that fails.
func serveOnce(api *admin.Server, ln net.Listener) func(context.Context) error {
	return func(ctx context.Context) (err error) {
		if ln == nil {
			if ln, err = api.Listen(); err != nil {
				return err
			}
		}
		defer func() { ln = nil }()
		return api.Serve(ctx, ln)
	}
}

// swap makes the running components those that were built. Components whose
// section is the same are left alone. It is called with d.mu held.
func (d *daemon) swap(ctx context.Context, built []*component) (changed []string) {
	wanted := make(map[string]*component)
	for _, c := range built {
		wanted[c.name] = c
	}
	for name, old := range d.running {
		if c := wanted[name]; c == nil || !reflect.DeepEqual(c.section, old.section) {
			d.parts.Stop(name)
			delete(d.running, name)
			changed = append(changed, name)
			if c == nil {
				d.sockets.Scope(name).Retain(func(string, string) bool { return false })
			}
		}
	}
	for _, c := range built {
		if d.running[c.name] == nil {
			d.running[c.name] = c
			d.parts.Start(ctx, c.name, c.run)
			changed = append(changed, c.name)
		}
	}
	d.meter()
	slices.Sort(changed)
	return slices.Compact(changed)
}

// Reload implements admin.Daemon: all or nothing. ctx is that of the request
// and bounds nothing that outlives it.
func (d *daemon) Reload(context.Context) admin.ReloadResult {
	d.mu.Lock()
	defer d.mu.Unlock()
	changed, err := d.reload()
	d.reloadErr = err
	health := d.env.Health.Scope("config")
	if err != nil {
		health.Set("reload", fmt.Errorf("the last reload was refused: %s", firstLine(err)),
			"the configuration before it is in force: berth check shows all that is wrong")
		return admin.ReloadResult{Error: describe(err), Changed: []string{}}
	}
	health.Set("reload", nil, "")
	d.env.Log.Info("reloaded", "changed", strings.Join(changed, ","))
	return admin.ReloadResult{Changed: append([]string{}, changed...)}
}

func (d *daemon) reload() ([]string, error) {
	next, err := d.files.load()
	if err != nil {
		return nil, err
	}
	for _, fixed := range []struct {
		key      string
		old, new any
	}{
		{"state_dir", d.cfg.StateDir, next.StateDir},
		{"log", d.cfg.Log, next.Log},
		{"engine", d.cfg.Engine, next.Engine},
		{"loop", d.cfg.Loop, next.Loop},
		{"node", d.cfg.Node, next.Node},
		{"admin", d.cfg.Admin, next.Admin},
	} {
		if !reflect.DeepEqual(fixed.old, fixed.new) {
			return nil, fmt.Errorf("%s has changed, which a reload cannot do: systemctl restart berth (a restart takes no name out of DNS)", fixed.key)
		}
	}
	built, err := d.build(next.Config)
	if err != nil {
		return nil, err
	}
	d.cfg, d.loadedAt = next, time.Now()
	return d.swap(d.context, built), nil
}

// describe returns an error with excerpts, where it has them.
func describe(err error) string {
	if bad, ok := errors.AsType[*config.Errors](err); ok {
		var b strings.Builder
		_ = bad.Format(&b, false)
		return strings.TrimRight(b.String(), "\n")
	}
	return err.Error()
}

func firstLine(err error) string {
	first, _, _ := strings.Cut(err.Error(), "\n")
	return first
}

// Snapshot implements admin.Daemon.
func (d *daemon) Snapshot() *agent.Snapshot { return d.agent.Store().Snapshot() }

// Alive implements admin.Daemon.
func (d *daemon) Alive(ctx context.Context) error { return d.agent.Ping(ctx) }

// EffectiveConfig implements admin.Daemon.
func (d *daemon) EffectiveConfig() (yaml, json []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return config.Effective(d.cfg.Config, d.cfg.result), config.JSON(d.cfg.Config, d.cfg.result)
}

// Component implements admin.Daemon.
func (d *daemon) Component(name string) http.Handler {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.running[name]; c != nil {
		h, _ := c.part.(http.Handler)
		return h
	}
	return nil
}

// Status implements admin.Daemon.
func (d *daemon) Status() admin.Status {
	snap := d.Snapshot()
	d.mu.Lock()
	defer d.mu.Unlock()
	st := admin.Status{
		Version: version(), PID: os.Getpid(), Started: d.started, DryRun: d.dryRun,
		Node: admin.NodeOf(d.node.Node()),
		Engine: admin.Engine{
			Host: d.engine.Host(), ID: snap.EngineID, Version: snap.EngineVersion,
			Connected: snap.Connected, Complete: snap.Complete,
			Containers: len(snap.Containers), Networks: len(snap.Networks),
			Snapshot: snap.Seq, SnapshotAt: snap.At, Asked: d.agent.Stats(),
		},
		Config:     admin.ConfigStatus{Files: append([]string{}, d.cfg.files...), Loaded: d.loadedAt},
		Conditions: d.env.Health.Conditions(),
		Components: []admin.Component{},
	}
	for _, c := range snap.Containers {
		if c.Running() {
			st.Engine.Running++
		}
	}
	for _, p := range d.parts.Status() {
		c := admin.Component{ComponentStatus: p}
		if r := d.running[p.Name]; r != nil && r.summary != nil {
			c.Summary = r.summary()
		}
		st.Components = append(st.Components, c)
	}
	if d.reloadErr != nil {
		st.Config.Error = describe(d.reloadErr)
	}
	st.NotReady = notReady(snap, d.reloadErr)
	st.Ready = st.NotReady == ""
	return st
}

// notReady says why berth is not ready: readiness depends on the engine and the
// configuration, and on nothing else.
func notReady(snap *agent.Snapshot, reloadErr error) string {
	switch {
	case !snap.Connected:
		return "the engine does not answer"
	case !snap.Complete:
		return "the engine's containers are not all known yet"
	case reloadErr != nil:
		return "the last reload was refused: " + firstLine(reloadErr)
	}
	return ""
}
