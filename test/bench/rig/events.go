package rig

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/client"
)

// changes are the actions that change a container's state, and that berth thus
// may inspect it for. A signal changes nothing by itself, and the others follow
// one of these.
var changes = []events.Action{
	events.ActionCreate, events.ActionStart, events.ActionDie, events.ActionDestroy,
	events.ActionPause, events.ActionUnPause, events.ActionRename, events.ActionUpdate,
	events.ActionConnect, events.ActionDisconnect, // of a network, with a container
}

// Moment is when an event happened, and when it was seen.
type Moment struct {
	Happened time.Time // as the engine says, by this machine's clock
	Seen     time.Time
}

// Subscriber is an event stream that is not berth's. Its methods are safe for
// concurrent use.
type Subscriber struct {
	run string

	mu      sync.Mutex
	awaited map[string]chan Moment // container ID and action
	changed map[string]int         // events that change the state of one of our containers, by its ID
	execs   int                    // processes that have ended in our containers
	foreign int                    // events of others that may make berth ask, now or before
	err     error                  // why the stream ended
}

// subscribe opens the stream. Unlike berth's it has all actions.
func subscribe(ctx context.Context, engine *client.Client, run string) *Subscriber {
	s := &Subscriber{run: run, awaited: make(map[string]chan Moment), changed: make(map[string]int)}
	// The call returns when the engine has answered, so nothing is missed.
	msgs, errs := engine.Events(ctx, events.ListOptions{Filters: filters.NewArgs(
		filters.Arg("type", string(events.ContainerEventType)), filters.Arg("type", string(events.NetworkEventType)),
	)})
	go func() {
		for {
			select {
			case m := <-msgs:
				s.note(m, time.Now())
			case err := <-errs:
				s.mu.Lock()
				s.err = errors.Join(errors.New("the bench's event stream has ended"), err)
				s.mu.Unlock()
				return
			}
		}
	}()
	return s
}

// note counts an event.
func (s *Subscriber) note(m events.Message, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := m.Actor.ID
	if m.Type == events.NetworkEventType {
		id = m.Actor.Attributes["container"]
	}
	_, ours := s.changed[id] // since its creation, which came first
	if m.Actor.Attributes[label] == s.run && !ours {
		s.changed[id], ours = 0, true
	}
	change := slices.Contains(changes, m.Action) || strings.HasPrefix(string(m.Action), string(events.ActionHealthStatus))
	switch {
	case !ours && (change || m.Action == events.ActionKill):
		s.foreign++
	case ours && change:
		s.changed[id]++
	case ours && m.Action == events.ActionExecDie:
		s.execs++
	}
	key := id + " " + string(m.Action)
	if ch := s.awaited[key]; ch != nil {
		ch <- Moment{Happened: time.Unix(0, m.TimeNano), Seen: at}
		delete(s.awaited, key)
	}
}

// Expect returns a channel that gets the moment of the next such event.
func (s *Subscriber) Expect(id string, action events.Action) <-chan Moment {
	s.mu.Lock()
	defer s.mu.Unlock()
	ch := make(chan Moment, 1)
	s.awaited[id+" "+string(action)] = ch
	return ch
}

// Counts returns how many execs have ended and how many events of others there
// were, and an error if the stream has ended and the counts are thus worthless.
func (s *Subscriber) Counts() (execs, foreign int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.execs, s.foreign, s.err
}

// ChangesOf returns how many events have changed a container's state.
func (s *Subscriber) ChangesOf(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed[id]
}

// Ours returns the IDs of all containers that we have made.
func (s *Subscriber) Ours() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.changed))
}

// Total returns how many events have changed the state of any of our containers.
func (s *Subscriber) Total() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, c := range s.changed {
		n += c
	}
	return n
}
