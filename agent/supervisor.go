package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

// restartFirst and restartLast bound the pause before a component that failed
// is run again. It doubles with each failure, and is back at the first value
// once the component has lived for restartLast.
const restartFirst, restartLast = time.Second, time.Minute

// Supervisor runs components, each on its own: one that fails or panics is run
// again after a pause and holds up no other. Its methods are safe for
// concurrent use.
type Supervisor struct {
	log    *slog.Logger
	health *Health

	mu    sync.Mutex
	parts map[string]*part
}

type part struct {
	ComponentStatus
	cancel context.CancelFunc
	done   chan struct{}
}

// ComponentStatus says how one component fares.
type ComponentStatus struct {
	Name     string    `json:"name"`
	State    string    `json:"state"` // "running" or "failed"
	Since    time.Time `json:"since"` // start of the present run, or the failure
	Restarts int       `json:"restarts"`
	Err      string    `json:"err,omitempty"` // of the last failure
}

// NewSupervisor returns a supervisor without components.
func NewSupervisor(env Env) *Supervisor {
	return &Supervisor{log: env.Log, health: env.Health, parts: make(map[string]*part)}
}

// Start runs a component until ctx ends or Stop is called. The name must not be
// in use.
func (s *Supervisor) Start(ctx context.Context, name string, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(ctx)
	p := &part{cancel: cancel, done: make(chan struct{})}
	p.ComponentStatus = ComponentStatus{Name: name, State: "running", Since: time.Now()}
	s.mu.Lock()
	if s.parts[name] != nil {
		s.mu.Unlock()
		panic("component " + name + " is started twice")
	}
	s.parts[name] = p
	s.mu.Unlock()
	go func() {
		defer close(p.done)
		s.supervise(ctx, p, run)
	}()
}

// Stop ends a component and waits until it has. It does nothing for a name that
// is not in use.
func (s *Supervisor) Stop(name string) {
	s.mu.Lock()
	p := s.parts[name]
	delete(s.parts, name)
	s.mu.Unlock()
	if p == nil {
		return
	}
	p.cancel()
	<-p.done
	s.health.Scope(name).Set("running", nil, "")
}

// StopAll ends all components at once and waits until they have ended.
func (s *Supervisor) StopAll() {
	s.mu.Lock()
	names := make([]string, 0, len(s.parts))
	for name, p := range s.parts {
		p.cancel()
		names = append(names, name)
	}
	s.mu.Unlock()
	for _, name := range names {
		s.Stop(name)
	}
}

// Status returns the state of every component, by name.
func (s *Supervisor) Status() []ComponentStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]ComponentStatus, 0, len(s.parts))
	for _, p := range s.parts {
		out = append(out, p.ComponentStatus)
	}
	slices.SortFunc(out, func(a, b ComponentStatus) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

func (s *Supervisor) supervise(ctx context.Context, p *part, run func(context.Context) error) {
	scope, pause := s.health.Scope(p.Name), restartFirst
	for {
		began := time.Now()
		err := guard(ctx, run)
		if ctx.Err() != nil {
			if err != nil && !errors.Is(err, context.Canceled) {
				s.log.Warn("stopped with an error", "component", p.Name, "err", err)
			}
			return
		}
		if err == nil {
			err = errors.New("it ended without being told to")
		}
		if time.Since(began) > restartLast {
			pause = restartFirst
		}
		scope.Set("running", fmt.Errorf("it failed and is started again in %v: %w", pause, err),
			"the other components go on; if it does not pass, please report it with the output of berth support")
		s.set(p, "failed", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		pause = min(2*pause, restartLast)
		scope.Set("running", nil, "")
		s.set(p, "running", nil)
	}
}

func (s *Supervisor) set(p *part, state string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.State, p.Since = state, time.Now()
	if err != nil {
		p.Err = err.Error()
		p.Restarts++
	}
}

// guard turns a panic into an error. What else the component started is lost
// with it, but the host keeps its names, its metrics and its logs.
func guard(ctx context.Context, run func(context.Context) error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	return run(ctx)
}
