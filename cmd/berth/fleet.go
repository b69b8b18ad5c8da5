package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/sinks/rfc2136"
	"github.com/berthd/berth/sinks/route53"
)

// fleetSink is a sink that writes into a zone which a whole fleet shares. What it
// wrote stays there when berth stops, and goes when it is told to go.
type fleetSink interface {
	agent.RecordSink
	// Remove deletes all that this host has written, wherever, and tries until
	// ctx ends. It excludes Run.
	Remove(ctx context.Context) error
}

// fleetKind is one kind of these sinks, with its section.
type fleetKind struct {
	name    string
	enabled bool
	section any
	make    func(agent.Env) (fleetSink, error)
}

func fleetKinds(cfg Config) []fleetKind {
	return []fleetKind{
		{rfc2136.Name, cfg.RFC2136.Enabled, cfg.RFC2136, func(env agent.Env) (fleetSink, error) { return rfc2136.New(cfg.RFC2136, env) }},
		{route53.Name, cfg.Route53.Enabled, cfg.Route53, func(env agent.Env) (fleetSink, error) { return route53.New(cfg.Route53, env) }},
	}
}

// journalOf returns the file in which a fleet sink remembers what it wrote.
func journalOf(env agent.Env, name string) string {
	return filepath.Join(env.StateDir, name+".journal")
}

// wrote reports whether a fleet sink may have left something in a zone.
func wrote(env agent.Env, name string) bool {
	_, err := os.Lstat(journalOf(env, name))
	return !errors.Is(err, fs.ErrNotExist)
}

// fleet makes the fleet sinks that are enabled, and for those that are not but
// once were, what takes their records back.
func (d *daemon) fleet(cfg Config) ([]*component, error) {
	var out []*component
	for _, kind := range fleetKinds(cfg) {
		switch {
		case kind.enabled:
			sink, err := kind.make(d.env)
			if err != nil {
				return nil, err
			}
			out = append(out, d.recordSink(sink, kind.section))
		case wrote(d.env, kind.name):
			out = append(out, d.withdrawal(kind))
		}
	}
	return out, nil
}

// withdrawn is the section of a withdrawal, which differs from that of the sink.
type withdrawn struct{ section any }

// withdrawal makes what takes back the records of a sink that is disabled. The
// sink's state says which those are, so that this goes on after a restart.
func (d *daemon) withdrawal(kind fleetKind) *component {
	var done, stuck atomic.Bool
	health := d.env.Health.Scope(kind.name)
	c := &component{name: kind.name, section: withdrawn{kind.section}}
	c.summary = func() string {
		switch {
		case done.Load():
			return "disabled: this host has no records there"
		case stuck.Load():
			return "disabled: this host's records cannot be taken back"
		}
		return "disabled: this host's records are being taken back"
	}
	c.run = func(ctx context.Context) error {
		defer health.Set(condLeft, nil, "")
		if err := withdraw(ctx, kind, d.env); err == nil {
			done.Store(true)
			d.env.Log.Info("took back this host's records", "component", kind.name)
		} else if ctx.Err() == nil {
			stuck.Store(true)
			health.Set(condLeft, err, fmt.Sprintf("complete the section %s again, without enabled: true, so that the records can be taken back; or remove %s to leave them where they are",
				kind.name, journalOf(d.env, kind.name)))
		}
		<-ctx.Done()
		return nil
	}
	return c
}

// condLeft is the health condition of a sink whose records cannot be taken back.
const condLeft = "left"

// withdraw takes back the records of one sink, until ctx ends, and then its state.
func withdraw(ctx context.Context, kind fleetKind, env agent.Env) error {
	sink, err := kind.make(env)
	if err != nil {
		return err
	}
	if err := sink.Remove(ctx); err != nil {
		return errors.New(strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	if err := os.Remove(journalOf(env, kind.name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget what was written: %w", err)
	}
	return nil
}
