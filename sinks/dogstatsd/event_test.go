package dogstatsd

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// TestEvents: they are sent with the next batch, in DogStatsD's form, once.
func TestEvents(t *testing.T) {
	srv := listen(t, "udp", "127.0.0.1:0")
	sink, _ := newSink(t, srv.addr, func(c *Config) { c.Tags = []string{"env:prod"} })
	sink.Tell(Event{
		Title: "calc needs more CPU", Text: "it uses more\nthan it reserves", Warning: true,
		Tags: []string{"service:calc", "odd:a,b|c"}, At: time.Unix(1000, 0),
	})
	if err := sink.Write(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	want := `_e{19,30}:calc needs more CPU|it uses more\nthan it reserves|d:1000|s:berth|t:warning|#env:prod,service:calc,odd:a_b_c`
	if got := srv.lines(t); !slices.Equal(got, []string{want}) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if err := sink.Write(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if got := srv.lines(t); len(got) != 0 {
		t.Errorf("sent again: %q", got)
	}
}

// TestEventsAreBounded: what has no room is counted, and a text that no packet
// has room for is cut.
func TestEventsAreBounded(t *testing.T) {
	srv := listen(t, "unixgram", t.TempDir()+"/s")
	sink, _ := newSink(t, srv.addr, nil)
	for range mostEvents + 3 {
		sink.Tell(Event{Title: "x", Text: "y"})
	}
	if got := sink.lostEvents.Load(); got != 3 {
		t.Errorf("%d lost, want 3", got)
	}
	sink.events = []Event{{Title: "x", Text: strings.Repeat("ü", 10000)}}
	if err := sink.Write(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if got := srv.lines(t); len(got) != 1 || !strings.Contains(got[0], "ü…|") || len(got[0]) > 4200 {
		t.Errorf("got %d lines", len(got))
	}
}
