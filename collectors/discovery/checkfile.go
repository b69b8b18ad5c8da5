package discovery

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/journal"
)

// How often the state of checks is written at most, and how soon again after
// the disk refused.
const (
	saveEvery = time.Second
	saveAgain = 30 * time.Second
)

const saveHint = "see the state folder's disk; until it passes, a restart of berth would let failing services into DNS until their next verdict"

// savedCheck is a check that keeps its service out of DNS. A restart of berth
// must not let it in; all others are in after a restart anyway, so that nothing
// needs to be known of them.
type savedCheck struct {
	ID      string    `json:"id"`      // of the container
	Started int64     `json:"started"` // nanoseconds since 1970
	Port    uint16    `json:"port"`
	State   string    `json:"state"` // CheckStarting or CheckFailing
	Since   time.Time `json:"since"`
	Error   string    `json:"error,omitempty"`
}

// restore makes saved states known to checks that are wanted later.
func (s *scheduler) restore(list []savedCheck) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.saved = make(map[checkKey]checkState, len(list))
	for _, c := range list {
		if c.State != CheckStarting && c.State != CheckFailing {
			continue // of another version
		}
		s.saved[checkKey{agent.RunKey{ID: c.ID, StartedAt: c.Started}, c.Port}] = checkState{
			word: c.State, since: c.Since, last: finding{why: c.Error},
		}
	}
}

// outside returns what is to be saved, sorted: the checks that keep services out,
// and those restored ones whose containers have not been seen yet.
func (s *scheduler) outside() []savedCheck {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []savedCheck{}
	add := func(key checkKey, state checkState) {
		if !state.in() {
			list = append(list, savedCheck{key.run.ID, key.run.StartedAt, key.port, state.word, state.since, state.last.why})
		}
	}
	for key, state := range s.saved {
		if s.tasks[key] == nil {
			add(key, state)
		}
	}
	for key, t := range s.tasks {
		add(key, t.state)
	}
	slices.SortFunc(list, func(a, b savedCheck) int {
		return cmp.Or(strings.Compare(a.ID, b.ID), cmp.Compare(a.Started, b.Started), cmp.Compare(a.Port, b.Port))
	})
	return list
}

// checkFile keeps the state of checks over restarts. It belongs to one
// goroutine. That its host's identity is not asked for is right: the ID and the
// start of a run say by themselves that it is one of this host.
type checkFile struct {
	path    string
	checks  *scheduler
	health  *agent.Scope
	log     *slog.Logger
	journal *journal.Journal // nil while it cannot be opened
}

// load restores what the file holds. A host without checks never has one.
func (f *checkFile) load() error {
	if _, err := os.Lstat(f.path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	j, replay, err := journal.Open(f.path, journal.Options{Owner: name})
	if err != nil {
		return err
	}
	f.journal = j
	if replay.SetAside != "" {
		f.log.Warn("unusable state was set aside", "path", replay.SetAside, "err", replay.Reason)
	}
	var list []savedCheck
	if replay.Checkpoint != nil {
		if err := json.Unmarshal(replay.Checkpoint, &list); err != nil {
			f.log.Warn("the state of checks cannot be read", "path", f.path, "err", err)
			return nil
		}
	}
	f.checks.restore(list)
	return nil
}

// run writes the file whenever something has changed, until ctx ends.
func (f *checkFile) run(ctx context.Context) {
	defer f.close()
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.checks.unsaved:
		}
		pause := saveEvery
		if err := f.save(); err != nil {
			f.health.Set("checks", fmt.Errorf("keep the state of checks: %w", err), saveHint)
			f.checks.touch() // nothing is saved yet
			pause = saveAgain
		} else {
			f.health.Set("checks", nil, "")
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

func (f *checkFile) save() error {
	if f.journal == nil {
		j, _, err := journal.Open(f.path, journal.Options{Owner: name})
		if err != nil {
			return err
		}
		f.journal = j
	}
	data, err := json.Marshal(f.checks.outside())
	if err != nil {
		return err
	}
	return f.journal.Checkpoint(data)
}

// close saves what has changed since the last time.
func (f *checkFile) close() {
	var err error
	select {
	case <-f.checks.unsaved:
		err = f.save()
	default:
	}
	if f.journal != nil {
		err = errors.Join(err, f.journal.Close())
		f.journal = nil
	}
	if err != nil {
		f.log.Warn("the state of checks is not saved", "path", f.path, "err", err)
	}
	f.health.Set("checks", nil, "")
}

// keepChecks restores the state of checks, and returns what keeps it until ctx
// ends; nil if there is nowhere to keep it.
func (d *Discovery) keepChecks() *checkFile {
	if d.stateDir == "" {
		return nil
	}
	f := &checkFile{path: filepath.Join(d.stateDir, "checks.journal"), checks: d.checks, health: d.health, log: d.log}
	if err := f.load(); err != nil {
		d.health.Set("checks", fmt.Errorf("recall the state of checks: %w", err), saveHint)
		d.checks.touch()
	}
	return f
}
