package main

import (
	"context"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/events"
)

func TestKindOf(t *testing.T) {
	for _, c := range []struct{ method, path, kind, id string }{
		{"HEAD", "/_ping", kindPing, ""},
		{"GET", "/v1.41/containers/json", kindList, ""},
		{"GET", "/containers/json", kindList, ""},
		{"GET", "/v1.41/networks", kindNetworks, ""},
		{"GET", "/v1.41/networks/abc", "GET /networks/abc", ""},
		{"GET", "/v1.41/events", kindEvents, ""},
		{"GET", "/v1.41/info", kindInfo, ""},
		{"GET", "/v1.41/containers/abc/json", kindInspect, "abc"},
		{"POST", "/v1.41/containers/abc/kill", "POST /containers/abc/kill", ""},
	} {
		if kind, id := kindOf(c.method, c.path); kind != c.kind || id != c.id {
			t.Errorf("%s %s: got %q, %q, want %q, %q", c.method, c.path, kind, id, c.kind, c.id)
		}
	}
}

// TestProxy: calls arrive, answers return, and both are counted once.
func TestProxy(t *testing.T) {
	dir := t.TempDir()
	engine, err := net.Listen("unix", filepath.Join(dir, "e"))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte(r.URL.Path))
	})}
	go srv.Serve(engine)
	defer srv.Close()
	p, err := newProxy(filepath.Join(dir, "p"), filepath.Join(dir, "e"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, "p"))
	}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	for _, path := range []string{"/v1.41/containers/a/json", "/v1.41/containers/b/json", "/v1.41/containers/a/json", "/v1.41/containers/json"} {
		resp, err := client.Get("http://engine" + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	if got := p.counted(); len(got) != 2 || got[kindInspect] != 3 || got[kindList] != 1 {
		t.Errorf("calls: got %v", got)
	}
	if a, both := p.inspectsOf("a"), p.inspectsOf("a", "b"); a != 2 || both != 3 {
		t.Errorf("inspects: got %d of a and %d of both, want 2 and 3", a, both)
	}
}

// TestNote: what counts as a change of ours, and what as a stranger's.
func TestNote(t *testing.T) {
	s := &subscriber{run: "7", awaited: make(map[string]chan time.Time), changed: make(map[string]int)}
	ours, at := map[string]string{label: "7"}, time.Now()
	ch := s.expect("a", events.ActionKill)
	for _, m := range []events.Message{
		{Type: "container", Action: "create", Actor: events.Actor{ID: "a", Attributes: ours}},
		{Type: "network", Action: "connect", Actor: events.Actor{ID: "n", Attributes: map[string]string{"container": "a"}}},
		{Type: "container", Action: "start", Actor: events.Actor{ID: "a", Attributes: ours}},
		{Type: "container", Action: "exec_die", Actor: events.Actor{ID: "a", Attributes: ours}},
		{Type: "container", Action: "health_status: healthy", Actor: events.Actor{ID: "a", Attributes: ours}},
		{Type: "container", Action: "kill", Actor: events.Actor{ID: "a", Attributes: ours}},
		{Type: "container", Action: "start", Actor: events.Actor{ID: "z"}},
		{Type: "container", Action: "exec_die", Actor: events.Actor{ID: "z"}},
		{Type: "network", Action: "create", Actor: events.Actor{ID: "n"}},
	} {
		s.note(m, at)
	}
	if got := s.changesOf("a"); got != 4 {
		t.Errorf("changes of ours: got %d, want 4", got)
	}
	if execs, foreign, _ := s.counts(); execs != 1 || foreign != 2 {
		t.Errorf("got %d execs and %d events of others, want 1 and 2", execs, foreign)
	}
	select {
	case got := <-ch:
		if !got.Equal(at) {
			t.Errorf("the kill was at %v, want %v", got, at)
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
		if got := percentile(l, q); got != want {
			t.Errorf("percentile %v: got %d, want %d", q, got, want)
		}
	}
}

func TestParseRSS(t *testing.T) {
	if got, err := parseRSS("Name:\tberth\nVmRSS:\t   20480 kB\n"); err != nil || got != 20480*1024 {
		t.Errorf("got %d, %v", got, err)
	}
	if _, err := parseRSS("Name:\tberth\n"); err == nil {
		t.Error("a status without VmRSS is accepted")
	}
}

func TestTable(t *testing.T) {
	tb := newTable(settings{})
	tb.duration("fast", 4*time.Millisecond, 5*time.Millisecond, "")
	tb.duration("slow", 6*time.Millisecond, 5*time.Millisecond, "")
	tb.exactly("lists", 0, 1, "") // too few is as wrong as too many
	tb.most("ratio", 1, 1, "", "")
	tb.yes("agree", false, "")
	if got, want := strings.Join(tb.missed(), " "), "slow lists agree"; got != want {
		t.Errorf("missed: got %q, want %q", got, want)
	}
	text, err := replace("a\n"+beginMark+"\nold\n"+endMark+"\nb\n", "new\n")
	if want := "a\n" + beginMark + "\nnew\n" + endMark + "\nb\n"; err != nil || text != want {
		t.Errorf("got %q, %v, want %q", text, err, want)
	}
	if _, err := replace("no marks", "new"); err == nil {
		t.Error("a text without marks is accepted")
	}
}
