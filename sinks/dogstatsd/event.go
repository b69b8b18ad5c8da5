package dogstatsd

import (
	"strings"
	"time"

	"github.com/DataDog/datadog-go/v5/statsd"
)

// Event is something that people should see in their stream of events.
type Event struct {
	Title   string
	Text    string // several lines, if need be
	Warning bool   // or else it is for information
	Tags    []string
	At      time.Time // zero means "now"
}

// mostEvents is how many events wait for the next Write, and mostText how many
// bytes the text of one may have: DogStatsD takes 8 KiB for a packet.
const (
	mostEvents = 100
	mostText   = 4000
)

// Tell sends an event with the next Write. It never blocks; an event for which
// there is no room is lost, and counted. It is safe for concurrent use.
func (s *Sink) Tell(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.events) >= mostEvents {
		s.lostEvents.Add(1)
		return
	}
	s.events = append(s.events, e)
}

// sendEvents hands those that wait to the client.
func (s *Sink) sendEvents() {
	s.mu.Lock()
	waiting := s.events
	s.events = nil
	s.mu.Unlock()
	for _, e := range waiting {
		out := statsd.NewEvent(shorten(e.Title), shorten(e.Text))
		out.AlertType, out.Timestamp = statsd.Info, e.At
		if e.Warning {
			out.AlertType = statsd.Warning
		}
		out.SourceTypeName = "berth"
		for _, tag := range e.Tags {
			out.Tags = append(out.Tags, clean(tag))
		}
		if err := s.client.Event(out); err != nil {
			s.lostEvents.Add(1)
		}
	}
}

// shorten keeps a text small enough for a packet.
func shorten(text string) string {
	if len(text) > mostText {
		return strings.ToValidUTF8(text[:mostText], "") + "…"
	}
	return text
}
