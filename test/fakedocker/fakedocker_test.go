package fakedocker

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// up returns an engine that is up, and a client of it.
func up(t *testing.T) (*Engine, *http.Client) {
	t.Helper()
	e := New(filepath.Join(t.TempDir(), "docker.sock"))
	if err := e.Up(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Down)
	return e, client(e)
}

func client(e *Engine) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", e.Socket())
		},
	}}
}

func get(t *testing.T, c *http.Client, path string) (status int, body []byte) {
	t.Helper()
	resp, err := c.Get("http://docker" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, body
}

// scenario makes the containers that the answers in testdata were recorded of.
func scenario(e *Engine) {
	e.AddNetwork("recnet", "172.30.0.0/16")
	e.Run(Spec{
		Name: "rec-web", Image: "web:1", Labels: map[string]string{"SERVICE_8080_NAME": "web"},
		Env: []string{"SERVICE_9090_NAME=x"}, Expose: []string{"7000"},
		Publish: []string{"8080", "127.0.0.1:39999:9090"}, Health: "starting", Ago: 3 * time.Second,
	})
	e.Run(Spec{Name: "rec-exit", Image: "web:1", Ago: 3 * time.Second})
	e.Die("rec-exit", 1)
	e.Run(Spec{Name: "rec-host", Image: "web:1", Network: "host"})
	e.Stop("rec-host")
	e.Run(Spec{Name: "rec-net", Image: "web:1", Network: "recnet"})
	e.SetHealth("rec-web", "unhealthy")
}

// TestShapes compares each answer with one that was recorded from an Engine
// 20.10.24: no field may be there that the real one lacks, and none be missing
// but for those that this package leaves out on purpose.
func TestShapes(t *testing.T) {
	e, c := up(t)
	scenario(e)
	for _, tc := range []struct{ path, file string }{
		{"/v1.41/info", "info.json"},
		{"/v1.41/networks", "networks.json"},
		{"/v1.41/containers/json?all=1", "list.json"},
		{"/v1.41/containers/rec-web/json", "inspect-web.json"},
		{"/v1.41/containers/rec-exit/json", "inspect-exit.json"},
		{"/v1.41/containers/rec-net/json", "inspect-net.json"},
	} {
		t.Run(tc.file, func(t *testing.T) { compare(t, c, tc.path, tc.file) })
	}
	e.Stop("rec-web")
	t.Run("inspect-web-exited.json", func(t *testing.T) {
		compare(t, c, "/v1.41/containers/rec-web/json", "inspect-web-exited.json")
	})
	if v := e.Violations(); len(v) > 0 {
		t.Errorf("violations: %q", v)
	}
}

func compare(t *testing.T, c *http.Client, path, file string) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	status, body := get(t, c, path)
	if status != http.StatusOK {
		t.Fatalf("got status %d: %s", status, body)
	}
	want, got := shapeOf(t, raw), shapeOf(t, body)
	for _, field := range got {
		if !slices.Contains(want, field) {
			t.Errorf("the real engine has no %s", field)
		}
	}
	for _, field := range want {
		if !slices.Contains(got, field) && !leftOut(field) {
			t.Errorf("%s is missing", field)
		}
	}
}

// leftOut says which fields of an inspect the package does not have: limits of
// resources, where the file system is, and what a health check has printed.
func leftOut(field string) bool {
	for _, prefix := range []string{".HostConfig.", ".GraphDriver.Data.", ".State.Health.Log[]", ".Args[]", ".Config.Cmd[]", ".Config.Healthcheck."} {
		if strings.HasPrefix(field, prefix) {
			return true
		}
	}
	// Links have aliases on user-defined networks, which berth does not read.
	return strings.HasSuffix(field, ".Aliases[] string") || strings.HasSuffix(field, ".Aliases array")
}

// shapeOf returns a line for each path in a JSON text, with the kind of value.
func shapeOf(t *testing.T, raw []byte) []string {
	t.Helper()
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	found := make(map[string]bool)
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			found[path+" object"] = true
			for k, sub := range v {
				walk(path+"."+k, sub)
			}
		case []any:
			found[path+" array"] = true
			for _, sub := range v {
				walk(path+"[]", sub)
			}
		case nil:
			found[path+" null"] = true
		default:
			found[fmt.Sprintf("%s %T", path, v)] = true
		}
	}
	walk("", v)
	var out []string
	for s := range found {
		if !strings.HasSuffix(s, ".Aliases null") {
			out = append(out, s)
		}
	}
	slices.Sort(out)
	return out
}

// TestEvents compares the order and the shape of events with recorded ones.
func TestEvents(t *testing.T) {
	e, c := up(t)
	stream, err := c.Get("http://docker/v1.41/events?since=1.000000000")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	e.AddNetwork("recnet", "172.30.0.0/16")
	e.Run(Spec{
		Name: "rec-web", Image: "web:1", Labels: map[string]string{"SERVICE_8080_NAME": "web"}, Publish: []string{"8080"}, Health: "starting",
	})
	e.Run(Spec{Name: "rec-net", Image: "web:1", Network: "recnet"})
	e.SetHealth("rec-web", "unhealthy")
	e.Pause("rec-net")
	e.Unpause("rec-net")
	e.Stop("rec-web")
	e.Remove("rec-web")
	e.Remove("rec-net")

	recorded, err := os.ReadFile("testdata/events.ndjson")
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	containers := make(map[string]string) // names by ID
	for line := range bytes.Lines(recorded) {
		want = append(want, summary(t, containers, line))
	}
	for lines := bufio.NewReader(stream.Body); ; {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, summary(t, containers, line))
		if strings.HasPrefix(got[len(got)-1], "container destroy rec-net") {
			break
		}
	}
	// Only the events of one container are in order.
	for _, name := range []string{"rec-web", "rec-net"} {
		of := func(all []string) []string {
			return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return !strings.Contains(s, name) })
		}
		if g, w := of(got), of(want); !slices.Equal(g, w) {
			t.Errorf("%s: got\n\t%s\nwant\n\t%s", name, strings.Join(g, "\n\t"), strings.Join(w, "\n\t"))
		}
	}
}

// summary is an event without its IDs and times.
func summary(t *testing.T, containers map[string]string, line []byte) string {
	t.Helper()
	var ev event
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&ev); err != nil {
		t.Fatalf("%v in %s", err, line)
	}
	a := ev.Actor.Attributes
	// A network's events are put with those of the container that they are about.
	name := cmp.Or(containers[a["container"]], a["name"])
	if ev.Type == "container" && ev.Action == "create" {
		containers[ev.ID] = name
	}
	s := fmt.Sprintf("%s %s %s %s signal=%s exit=%s label=%s status=%s", ev.Type, ev.Action, name, ev.From, a["signal"], a["exitCode"], a["SERVICE_8080_NAME"], ev.Status)
	if (ev.ID == ev.Actor.ID) != (ev.Type == "container") || (a["container"] != "") != strings.HasSuffix(ev.Action, "connect") || ev.Scope != "local" {
		s += " is odd"
	}
	return s
}

func TestStrict(t *testing.T) {
	e, c := up(t)
	for _, tc := range []struct {
		method, path string
		want         int
	}{
		{"POST", "/v1.41/containers/x/stop", 405},
		{"DELETE", "/v1.41/containers/x", 405},
		{"GET", "/v1.42/info", 400},
		{"GET", "/v1.41/images/json", 404},
		{"GET", "/v1.41/containers/json?size=1", 400},
		{"GET", "/v1.41/containers/json?filters=%7B%22a%22%3A%7B%7D%7D", 400},
		{"GET", "/v1.41/events?until=1", 400},
		{"GET", "/v1.41/events?since=yesterday", 400},
		{"GET", "/v1.41/events?since=1.5", 400},
		{"GET", "/v1.41/events?filters=%7B%22event%22%3A%7B%22strat%22%3Atrue%7D%7D", 400},
	} {
		req, err := http.NewRequestWithContext(t.Context(), tc.method, "http://docker"+tc.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != tc.want {
			t.Errorf("%s %s: got %d, want %d", tc.method, tc.path, resp.StatusCode, tc.want)
		}
	}
	if got, want := len(e.Violations()), 10; got != want {
		t.Errorf("got %d violations, want %d: %q", got, want, e.Violations())
	}
	if status, body := get(t, c, "/v1.41/containers/nope/json"); status != 404 || string(body) != "{\"message\":\"No such container: nope\"}\n" {
		t.Errorf("got %d %s", status, body)
	}
	if got := len(e.Violations()); got != 10 {
		t.Error("asking for a container that is gone is no violation")
	}
}

func TestFaults(t *testing.T) {
	e, c := up(t)
	e.Run(Spec{Name: "web", Image: "web:1"})

	e.Fail(503, "starting")
	if status, body := get(t, c, "/info"); status != 503 || !strings.Contains(string(body), "starting") {
		t.Errorf("got %d %s", status, body)
	}
	e.Heal()
	e.FailInspect("web")
	if status, _ := get(t, c, "/containers/web/json"); status != 500 {
		t.Errorf("got %d", status)
	}
	e.Heal()

	e.Hang()
	answered := make(chan error, 1)
	go func() {
		resp, err := c.Get("http://docker/_ping")
		if err == nil {
			err = resp.Body.Close()
		}
		answered <- err
	}()
	select {
	case err := <-answered:
		t.Fatalf("a frozen engine answered: %v", err)
	case <-time.After(20 * time.Millisecond): // absence has no event to wait for
	}
	e.Heal()
	if err := <-answered; err != nil {
		t.Error(err)
	}

	if err := e.Refuse(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get("http://docker/_ping"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("refuse: %v", err)
	}
	if err := e.Up(); err != nil {
		t.Fatal(err)
	}
	e.Down()
	if _, err := c.Get("http://docker/_ping"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("down: %v", err)
	}
}

func TestEphemeralPortsAndAddresses(t *testing.T) {
	e := New("")
	web := e.Run(Spec{Name: "web", Image: "web:1", Publish: []string{"80"}})
	e.Run(Spec{Name: "db", Image: "db:1"})
	c := e.find(web)
	if got, want := c.ports[0].hostPort, 32768; got != want {
		t.Errorf("got port %d, want %d", got, want)
	}
	if got, want := e.find("db").ip.String(), "172.17.0.3"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	e.Stop("web")
	if c.ip.IsValid() || c.ports != nil {
		t.Errorf("a container that ended keeps %v and %v", c.ip, c.ports)
	}
	e.Start("web")
	if got, want := c.ports[0].hostPort, 32769; got != want {
		t.Errorf("after a restart: got port %d, want %d", got, want)
	}
	if got, want := c.ip.String(), "172.17.0.2"; got != want {
		t.Errorf("after a restart: got %s, want %s", got, want)
	}
}
