package fakedocker

import (
	"strings"
	"time"
)

// The engine keeps so many events for a "since", and queues so many for each
// reader (moby: daemon/events, eventsLimit and bufferSize).
const (
	keptEvents   = 256
	queuedEvents = 1024
)

// event is one event in the shape of the API. Status, ID and From are there for
// containers only.
type event struct {
	Status   string `json:"status,omitempty"`
	ID       string `json:"id,omitempty"`
	From     string `json:"from,omitempty"`
	Type     string `json:"Type"`
	Action   string `json:"Action"`
	Actor    actor  `json:"Actor"`
	Scope    string `json:"scope"`
	Time     int64  `json:"time"`
	TimeNano int64  `json:"timeNano"`
}

type actor struct {
	ID         string            `json:"ID"`
	Attributes map[string]string `json:"Attributes"`
}

// bus hands events to readers. It is guarded by Engine.mu.
type bus struct {
	kept    []event
	readers map[*reader]bool
}

// reader is one request to /events.
type reader struct {
	filter filter
	queue  chan event
}

func (b *bus) reset() { *b = bus{} }

// publish never waits: a reader whose queue is full loses the event.
func (b *bus) publish(ev event) {
	now := time.Now()
	ev.Scope, ev.Time, ev.TimeNano = "local", now.Unix(), now.UnixNano()
	b.kept = append(b.kept, ev)
	b.kept = b.kept[max(0, len(b.kept)-keptEvents):]
	for r := range b.readers {
		if !r.filter.match(ev) {
			continue
		}
		select {
		case r.queue <- ev:
		default:
		}
	}
}

// subscribe returns a reader and the events that are kept since a moment; the
// zero time means none.
func (b *bus) subscribe(since time.Time, f filter) (*reader, []event) {
	var past []event
	for _, ev := range b.kept {
		if !since.IsZero() && ev.TimeNano >= since.UnixNano() && f.match(ev) {
			past = append(past, ev)
		}
	}
	r := &reader{filter: f, queue: make(chan event, queuedEvents)}
	if b.readers == nil {
		b.readers = make(map[*reader]bool)
	}
	b.readers[r] = true
	return r, past
}

// filter is the parameter "filters" of /events; an absent key lets all pass.
type filter struct {
	types, actions []string
}

// match goes by the engine's rules: an action also matches by what stands
// before its colon, so that "health_status" finds "health_status: healthy".
func (f filter) match(ev event) bool {
	is := func(want []string, got string) bool {
		if want == nil {
			return true
		}
		for _, w := range want {
			if before, _, _ := strings.Cut(got, ":"); w == got || w == before {
				return true
			}
		}
		return false
	}
	return is(f.types, ev.Type) && is(f.actions, ev.Action)
}

// emit publishes an event of a container.
func (e *Engine) emit(c *container, action string, attributes ...string) {
	attrs := map[string]string{"image": c.spec.Image, "name": c.name}
	for k, v := range c.spec.Labels {
		attrs[k] = v
	}
	for i := 0; i+1 < len(attributes); i += 2 {
		attrs[attributes[i]] = attributes[i+1]
	}
	e.bus.publish(event{
		Status: action, ID: c.id, From: c.spec.Image,
		Type: "container", Action: action, Actor: actor{c.id, attrs},
	})
}

// emitNetwork publishes an event of a network; c is nil for its own life.
func (e *Engine) emitNetwork(n *network, action string, c *container) {
	attrs := map[string]string{"name": n.name, "type": n.driver}
	if c != nil {
		attrs["container"] = c.id
	}
	e.bus.publish(event{Type: "network", Action: action, Actor: actor{n.id, attrs}})
}
