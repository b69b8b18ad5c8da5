package rig

import (
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/events"
)

// TestNote: what counts as a change of ours, and what as a stranger's.
func TestNote(t *testing.T) {
	s := &Subscriber{run: "7", awaited: make(map[string]chan Moment), changed: make(map[string]int)}
	ours, at := map[string]string{label: "7"}, time.Now()
	engine := at.Add(-time.Millisecond)
	ch := s.Expect("a", events.ActionKill)
	for _, m := range []events.Message{
		{Type: "container", Action: "create", Actor: events.Actor{ID: "a", Attributes: ours}},
		{Type: "network", Action: "connect", Actor: events.Actor{ID: "n", Attributes: map[string]string{"container": "a"}}},
		{Type: "container", Action: "start", Actor: events.Actor{ID: "a", Attributes: ours}},
		{Type: "container", Action: "exec_die", Actor: events.Actor{ID: "a", Attributes: ours}},
		{Type: "container", Action: "health_status: healthy", Actor: events.Actor{ID: "a", Attributes: ours}},
		{Type: "container", Action: "kill", Actor: events.Actor{ID: "a", Attributes: ours}, TimeNano: engine.UnixNano()},
		{Type: "container", Action: "start", Actor: events.Actor{ID: "z"}},
		{Type: "container", Action: "exec_die", Actor: events.Actor{ID: "z"}},
		{Type: "network", Action: "create", Actor: events.Actor{ID: "n"}},
	} {
		s.note(m, at)
	}
	if got := s.ChangesOf("a"); got != 4 {
		t.Errorf("changes of ours: got %d, want 4", got)
	}
	if execs, foreign, _ := s.Counts(); execs != 1 || foreign != 2 {
		t.Errorf("got %d execs and %d events of others, want 1 and 2", execs, foreign)
	}
	select {
	case got := <-ch:
		if !got.Seen.Equal(at) || !got.Happened.Equal(engine) {
			t.Errorf("the kill was at %v, want %v and %v", got, engine, at)
		}
	default:
		t.Error("the kill was not told")
	}
}

func TestPercentile(t *testing.T) {
	var l []time.Duration
	for i := range 100 {
		l = append(l, time.Duration(i+1))
	}
	for q, want := range map[float64]time.Duration{0: 1, 50: 50, 99: 99, 100: 100} {
		if got := Percentile(l, q); got != want {
			t.Errorf("percentile %v: got %d, want %d", q, got, want)
		}
	}
}

func TestParseMemory(t *testing.T) {
	if got, err := parseMemory("Name:\tberth\nVmRSS:\t   20480 kB\n", "VmRSS"); err != nil || got != 20480*1024 {
		t.Errorf("got %d, %v", got, err)
	}
	if _, err := parseMemory("Name:\tberth\nRssFile:\t1 kB", "VmRSS"); err == nil {
		t.Error("a status without VmRSS is accepted")
	}
}

func TestTable(t *testing.T) {
	tb := NewTable("x")
	tb.Duration("fast", 4*time.Millisecond, 5*time.Millisecond, "")
	tb.Duration("slow", 6*time.Millisecond, 5*time.Millisecond, "")
	tb.Exactly("lists", 0, 1, "") // too few is as wrong as too many
	tb.Most("ratio", 1, 1, "", "")
	tb.Yes("agree", false, "")
	if got, want := strings.Join(tb.Missed(), " "), "slow lists agree"; got != want {
		t.Errorf("missed: got %q, want %q", got, want)
	}
	text, err := replace("a\n<!-- x -->\nold\n<!-- /x -->\nb\n<!-- y -->\n<!-- /y -->", "x", "new\n")
	if want := "a\n<!-- x -->\nnew\n<!-- /x -->\nb\n<!-- y -->\n<!-- /y -->"; err != nil || text != want {
		t.Errorf("got %q, %v, want %q", text, err, want)
	}
	if _, err := replace("no marks", "x", "new"); err == nil {
		t.Error("a text without marks is accepted")
	}
}
