package docker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/berthd/berth/agent"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// limit bounds what must happen. It is for a broken test, never a measure.
const limit = 30 * time.Second

// recorded is an engine that answers with what an engine of a release has said:
// that of 20.10 is recorded, that of 29 is made from it by what the history of
// the API says of versions 1.42 to 1.52.
type recorded struct {
	release string // folder of testdata
	api     string // the newest API version it speaks

	mu       sync.Mutex
	requests []*http.Request
	answer   func(w http.ResponseWriter, r *http.Request) bool // answers instead, or says no
}

// serve makes the engine listen on a socket, and returns its address.
func (rec *recorded) serve(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "berth-docker-") // short, for the socket's sake
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return "unix://" + rec.serveAt(t, filepath.Join(dir, "docker.sock"))
}

func (rec *recorded) serveAt(t *testing.T, path string) string {
	t.Helper()
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: rec}
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.Serve(ln)
	}()
	t.Cleanup(func() {
		srv.Close()
		<-done
	})
	return path
}

func (rec *recorded) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	seen := r.Clone(context.Background())
	seen.Body = io.NopCloser(bytes.NewReader(body))
	rec.mu.Lock()
	rec.requests = append(rec.requests, seen)
	answer := rec.answer
	rec.mu.Unlock()
	if answer != nil && answer(w, r) {
		return
	}
	w.Header().Set("Api-Version", rec.api)
	path := r.URL.Path
	if strings.HasPrefix(path, "/v") {
		_, path, _ = strings.Cut(path[1:], "/")
		path = "/" + path
	}
	switch {
	case path == "/_ping":
		io.WriteString(w, "OK")
	case path == "/info":
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"ID":"ENGINE","ServerVersion":%q,"DockerRootDir":"/var/lib/docker"}`, rec.release)
	case path == "/containers/json":
		rec.file(w, "list.json")
	case path == "/networks":
		rec.file(w, "networks.json")
	case path == "/events":
		rec.file(w, "events.ndjson")
		w.(http.Flusher).Flush()
		<-r.Context().Done() // the stream stays open
	case strings.HasPrefix(path, "/containers/"):
		rec.file(w, "inspect-"+strings.Split(path, "/")[2]+".json")
	default:
		http.NotFound(w, r)
	}
}

func (rec *recorded) file(w http.ResponseWriter, name string) {
	data, err := os.ReadFile(filepath.Join("testdata", rec.release, name))
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		w.WriteHeader(http.StatusNotFound)
		io.WriteString(w, `{"message":"No such container"}`)
		return
	}
	w.Write(data)
}

func (rec *recorded) seen() []*http.Request {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	return slices.Clone(rec.requests)
}

// connect returns an Engine on host.
func connect(t *testing.T, host string) *Engine {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Host = host
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

var releases = []struct{ release, api string }{{"20.10", "1.41"}, {"29", "1.52"}}

// each runs f for each release.
func each(t *testing.T, f func(t *testing.T, rec *recorded, e *Engine)) {
	for _, r := range releases {
		t.Run(r.release, func(t *testing.T) {
			rec := &recorded{release: r.release, api: r.api}
			f(t, rec, connect(t, rec.serve(t)))
		})
	}
}

const (
	webID   = "41846b74a272c0e90996b929c1e3c9a0e047bc58b97f01061c7c44bb3765b3e8"
	guestID = "193033301b4f1cf836ba56f4a880b661c3c7ce7b167bf8ec6d3da8f7195f65ef"
	doneID  = "5eef1670d50d086ba639e7fd638affcb1d99d62bb57a37d338c01323c84fdeda"
	imageID = "sha256:f94239ba3f23e8a6ec7cf375c0acdb00254b85e5006f64b0d8197dd1cbb7c164"
	bridge  = "56ea0ca786425f388bbec484650fac91eb163fa405799c3ac16d1bc0be6c0291"
	recNet  = "c203fba82f758f37ed87eeeec6041030838c9b2e51540d1e57c794c68e2ce313"
)

var (
	webEndpoints = []agent.Endpoint{
		{Network: "bridge", NetworkID: bridge, IPv4: netip.MustParseAddr("172.17.0.2")},
		{Network: "rec-net", NetworkID: recNet, IPv4: netip.MustParseAddr("10.77.0.2")},
	}
	webPorts = []agent.Port{
		{Container: 8080, Proto: "tcp", Host: netip.MustParseAddrPort("0.0.0.0:33142")},
		{Container: 8080, Proto: "tcp", Host: netip.MustParseAddrPort("[::]:32773")},
		{Container: 8125, Proto: "udp", Host: netip.MustParseAddrPort("127.0.0.1:18125")},
	}
)

func at(t *testing.T, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func TestInspect(t *testing.T) {
	each(t, func(t *testing.T, _ *recorded, e *Engine) {
		for name, want := range map[string]agent.Container{
			"web": {
				ID: webID, Name: "rec-web", State: agent.StateRunning, Health: agent.HealthStarting, PID: 2215,
				Labels:    map[string]string{"SERVICE_8080_NAME": "web"},
				Env:       map[string]string{"SERVICE_8080_TAGS": "a,b"}, // and nothing of SECRET and PATH
				CreatedAt: at(t, "2026-11-21T04:24:22.776977829Z"), StartedAt: at(t, "2026-11-21T04:24:23.62647619Z"),
				StopSignal: 10, StopTimeout: 7 * time.Second, NetworkMode: "rec-net", Endpoints: webEndpoints,
				Ports: append(slices.Clone(webPorts), agent.Port{Container: 9000, Proto: "tcp"}),
			},
			"guest": {
				ID: guestID, Name: "rec-guest", State: agent.StatePaused, PID: 2523, Labels: map[string]string{},
				CreatedAt: at(t, "2026-11-21T04:24:24.208642537Z"), StartedAt: at(t, "2026-11-21T04:24:24.393876276Z"),
				StopSignal: 15, StopTimeout: 10 * time.Second, NetworkMode: "container:" + webID,
			},
			"done": {
				ID: doneID, Name: "rec-done", State: agent.StateExited, ExitCode: 3, Labels: map[string]string{},
				CreatedAt: at(t, "2026-11-21T04:24:23.775988036Z"), StartedAt: at(t, "2026-11-21T04:24:24.126826167Z"),
				FinishedAt: at(t, "2026-11-21T04:24:24.142727169Z"),
				StopSignal: 15, StopTimeout: 10 * time.Second, NetworkMode: "default",
				Endpoints: []agent.Endpoint{{Network: "bridge", NetworkID: bridge}},
			},
		} {
			want.Image, want.ImageID = "berth-test/app:ec3d9bd37e05", imageID
			got, err := e.Inspect(t.Context(), name)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			} else if !reflect.DeepEqual(*got, want) {
				t.Errorf("%s:\ngot  %+v\nwant %+v", name, *got, want)
			}
		}
		created, err := e.Inspect(t.Context(), "created")
		if err != nil || created.State != agent.StateCreated || !created.StartedAt.IsZero() || !created.FinishedAt.IsZero() {
			t.Errorf("created: got %+v, %v", created, err)
		}
		if _, err := e.Inspect(t.Context(), "nobody"); !errors.Is(err, agent.ErrNotFound) {
			t.Errorf("nobody: got %v, want %v", err, agent.ErrNotFound)
		}
	})
}

func TestList(t *testing.T) {
	each(t, func(t *testing.T, _ *recorded, e *Engine) {
		got, err := e.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := []agent.Row{
			{ID: guestID, Name: "rec-guest", State: agent.StatePaused, Health: agent.HealthUnknown, AgeMin: time.Second, AgeMax: 2 * time.Second},
			{
				ID: doneID, Name: "rec-done", State: agent.StateExited, Health: agent.HealthUnknown, AgeMin: time.Second, AgeMax: 2 * time.Second,
				Endpoints: []agent.Endpoint{{Network: "bridge", NetworkID: bridge}},
			},
			{
				ID: "bf46e05aa2b09eea2fa7c8b9057d50ccd8d7e3aadd77faca3de9ca52edd41c4f", Name: "rec-created",
				State: agent.StateCreated, Health: agent.HealthUnknown, Endpoints: []agent.Endpoint{{Network: "bridge"}},
			},
			{
				ID: webID, Name: "rec-web", State: agent.StateRunning, Health: agent.HealthStarting, AgeMin: time.Second, AgeMax: 2 * time.Second,
				Endpoints: webEndpoints, Ports: webPorts,
			},
		}
		if !reflect.DeepEqual(got.Rows, want) {
			t.Errorf("got  %+v\nwant %+v", got.Rows, want)
		}
	})
}

// What a list says of a container and what an inspect says of it must agree, or
// each list would cost an inspect of each container.
func TestList_AgreesWithInspect(t *testing.T) {
	each(t, func(t *testing.T, _ *recorded, e *Engine) {
		listing, err := e.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range listing.Rows {
			c, err := e.Inspect(t.Context(), strings.TrimPrefix(row.Name, "rec-"))
			if err != nil {
				t.Fatal(err)
			}
			published := slices.DeleteFunc(slices.Clone(c.Ports), func(p agent.Port) bool { return !p.Published() })
			if row.State != c.State || row.Name != c.Name || !slices.Equal(row.Ports, published) ||
				row.Health != agent.HealthUnknown && row.Health != c.Health || c.Alive() && !slices.Equal(row.Endpoints, c.Endpoints) {
				t.Errorf("row %+v\ninspect %+v", row, c)
			}
		}
	})
}

func TestNetworks(t *testing.T) {
	each(t, func(t *testing.T, _ *recorded, e *Engine) {
		got, err := e.Networks(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		names := make([]string, len(got))
		for i, n := range got {
			names[i] = n.Name
		}
		if want := []string{"bridge", "host", "none", "rec-net"}; !slices.Equal(names, want) {
			t.Fatalf("got %q, want %q", names, want)
		}
		n := got[3]
		want := agent.Network{
			ID: recNet, Name: "rec-net", Driver: "bridge", Bridge: "br-c203fba82f75",
			// The engine does not tell the gateway: it is the subnet's first address.
			Gateways: []netip.Addr{netip.MustParseAddr("10.77.0.1")},
			Subnets:  []netip.Prefix{netip.MustParsePrefix("10.77.0.0/24")},
		}
		if !reflect.DeepEqual(n, want) {
			t.Errorf("got  %+v\nwant %+v", n, want)
		}
		if b := got[0]; b.Bridge != "docker0" || len(b.Gateways) != 1 {
			t.Errorf("bridge: got %+v, want docker0 with a gateway", b)
		}
		if h := got[1]; h.Bridge != "" || len(h.Gateways) != 0 {
			t.Errorf("host: got %+v, want neither bridge nor gateway", h)
		}
	})
}

func TestIdentify(t *testing.T) {
	each(t, func(t *testing.T, rec *recorded, e *Engine) {
		got, err := e.Identify(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		api := map[string]string{"20.10": "1.41", "29": "1.51"}[rec.release] // 1.51 is the client's own newest
		if want := (agent.EngineInfo{ID: "ENGINE", Version: rec.release, API: api, Root: "/var/lib/docker"}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

func TestIdentify_EngineWithoutID(t *testing.T) {
	rec := &recorded{release: "29", api: "1.52", answer: func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/info") {
			return false
		}
		io.WriteString(w, `{"ServerVersion":"29"}`)
		return true
	}}
	if _, err := connect(t, rec.serve(t)).Identify(t.Context()); err == nil || !strings.Contains(err.Error(), "no ID yet") {
		t.Errorf("got %v, want an error: what has no ID is not up yet", err)
	}
}

// receive takes one event from a stream.
func receive(t *testing.T, events <-chan agent.Event, errs <-chan error) agent.Event {
	t.Helper()
	select {
	case ev := <-events:
		return ev
	case err := <-errs:
		t.Fatalf("the stream ended: %v", err)
	case <-time.After(limit):
		t.Fatal("no event")
	}
	return agent.Event{}
}

// ended waits for the end of a stream.
func ended(t *testing.T, events <-chan agent.Event, errs <-chan error) error {
	t.Helper()
	for {
		select {
		case <-events:
		case err := <-errs:
			return err
		case <-time.After(limit):
			t.Fatal("the stream did not end")
		}
	}
}

func TestEvents(t *testing.T) {
	each(t, func(t *testing.T, rec *recorded, e *Engine) {
		ctx, cancel := context.WithCancel(t.Context())
		since := time.Unix(1795235062, 5)
		events, errs := e.Events(ctx, since)
		var got []string
		for range 28 {
			ev := receive(t, events, errs)
			if ev.Time.IsZero() || ev.ID == "" {
				t.Errorf("got %+v, want a time and an ID", ev)
			}
			text := ev.Type + " " + ev.Action
			if ev.Container != "" {
				text += " of " + agent.ShortID(ev.Container)
			}
			if ev.Signal != 0 {
				text += fmt.Sprint(" by ", ev.Signal)
			}
			if ev.ExitCode != 0 {
				text += fmt.Sprint(" with ", ev.ExitCode)
			}
			got = append(got, text)
		}
		for _, want := range []string{
			"network create", "container create", "network connect of 41846b74a272", "container start",
			"container die with 3", "container pause", "container unpause", "container kill by 1",
			"container rename", "container kill by 9", "container die with 137", "network disconnect of 41846b74a272",
			"container destroy", "network destroy",
		} {
			if !slices.Contains(got, want) {
				t.Errorf("%q is missing in %q", want, got)
			}
		}
		cancel()
		if err := ended(t, events, errs); !errors.Is(err, context.Canceled) {
			t.Errorf("the end: got %v, want %v", err, context.Canceled)
		}
		for _, r := range rec.seen() {
			if !strings.HasSuffix(r.URL.Path, "/events") {
				continue
			}
			q := r.URL.Query()
			if got, want := q.Get("since"), "1795235062.000000005"; got != want {
				t.Errorf("since: got %s, want %s", got, want)
			}
			if f := q.Get("filters"); strings.Contains(f, "exec_") || !strings.Contains(f, `"health_status":true`) {
				t.Errorf("filters: got %s, want health_status and no exec_*", f)
			}
		}
	})
}

// All that berth sends is a question without a body: ADVISORIES.md builds on it.
func TestRequestsOnlyRead(t *testing.T) {
	each(t, func(t *testing.T, rec *recorded, e *Engine) {
		ctx, cancel := context.WithCancel(t.Context())
		events, errs := e.Events(ctx, time.Now())
		receive(t, events, errs)
		_, err1 := e.Identify(ctx)
		_, err2 := e.List(ctx)
		_, err3 := e.Networks(ctx)
		_, err4 := e.Inspect(ctx, "web")
		if err := errors.Join(err1, err2, err3, err4); err != nil {
			t.Error(err)
		}
		cancel()
		ended(t, events, errs)
		paths := make(map[string]bool)
		for _, r := range rec.seen() {
			body, _ := io.ReadAll(r.Body)
			if r.Method != http.MethodGet && r.Method != http.MethodHead || len(body) > 0 {
				t.Errorf("%s %s with %d bytes, want a read without a body", r.Method, r.URL, len(body))
			}
			_, path, versioned := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v"), "/")
			if !versioned || r.URL.Path == "/_ping" {
				path = strings.TrimPrefix(r.URL.Path, "/")
			}
			paths[path] = true
		}
		want := map[string]bool{"_ping": true, "info": true, "events": true, "networks": true, "containers/json": true, "containers/web/json": true}
		if !reflect.DeepEqual(paths, want) {
			t.Errorf("paths: got %v, want %v", paths, want)
		}
	})
}

func TestErrors(t *testing.T) {
	dir, err := os.MkdirTemp("", "berth-docker-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	stale := filepath.Join(dir, "stale")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	for host, want := range map[string]struct {
		is         error
		text, hint string
	}{
		"unix://" + filepath.Join(dir, "none"): {syscall.ENOENT, "no such file or directory", "systemctl start docker"},
		"unix://" + stale:                      {syscall.ECONNREFUSED, "connection refused", "nobody listens"},
	} {
		e := connect(t, host)
		_, err := e.List(t.Context())
		failed, ok := errors.AsType[*Error](err)
		if !ok || !errors.Is(err, want.is) {
			t.Fatalf("%s: got %v, want an Error of %v", host, err, want.is)
		}
		if got := err.Error(); got != "list containers at "+host+": "+want.text {
			t.Errorf("%s: got %q", host, got)
		}
		if got := failed.Hint(); !strings.Contains(got, want.hint) {
			t.Errorf("%s: hint: got %q, want %q in it", host, got, want.hint)
		}
		events, errs := e.Events(t.Context(), time.Now())
		if err := ended(t, events, errs); !errors.Is(err, want.is) {
			t.Errorf("%s: events: got %v, want %v", host, err, want.is)
		}
	}
	denied := &Error{Host: "h", Op: "list", Err: &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EACCES)}}
	if got := denied.Hint(); !strings.Contains(got, "run berth as root") {
		t.Errorf("hint without permission: got %q", got)
	}
	if got := (&Error{Err: errors.New("odd")}).Hint(); !strings.Contains(got, "systemctl status docker") {
		t.Errorf("hint of anything else: got %q", got)
	}
}

// An engine's own errors are told as it says them, and are no proof of absence.
func TestErrors_OfTheEngine(t *testing.T) {
	for _, code := range []int{http.StatusInternalServerError, http.StatusServiceUnavailable, http.StatusBadRequest, http.StatusForbidden} {
		rec := &recorded{release: "20.10", api: "1.41", answer: func(w http.ResponseWriter, r *http.Request) bool {
			if strings.HasSuffix(r.URL.Path, "/_ping") {
				return false
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(code)
			io.WriteString(w, `{"message":"not today"}`)
			return true
		}}
		e := connect(t, rec.serve(t))
		_, listErr := e.List(t.Context())
		_, netErr := e.Networks(t.Context())
		_, inspectErr := e.Inspect(t.Context(), "web")
		_, infoErr := e.Identify(t.Context())
		for _, err := range []error{listErr, netErr, inspectErr, infoErr} {
			if err == nil || !strings.Contains(err.Error(), "not today") || errors.Is(err, agent.ErrNotFound) {
				t.Errorf("%d: got %v, want the engine's own words", code, err)
			}
		}
	}
}

func TestErrors_AnswersThatAreNone(t *testing.T) {
	for _, body := range []string{"{", "[", `{"Id":"x"}`, "null", `[{"Id":`} {
		rec := &recorded{release: "20.10", api: "1.41", answer: func(w http.ResponseWriter, r *http.Request) bool {
			if strings.HasSuffix(r.URL.Path, "/_ping") {
				return false
			}
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, body)
			return true
		}}
		e := connect(t, rec.serve(t))
		if c, err := e.Inspect(t.Context(), "web"); err == nil || errors.Is(err, agent.ErrNotFound) {
			t.Errorf("inspect %q: got %+v, %v, want an error that is no proof of absence", body, c, err)
		}
		if body == "null" {
			continue // an empty list, which the loop never takes for the truth
		}
		if l, err := e.List(t.Context()); err == nil {
			t.Errorf("list %q: got %+v, want an error", body, l)
		}
	}
}

// Who says 404 without a word of the container may be a proxy.
func TestInspect_NotEveryNotFoundIsAProof(t *testing.T) {
	for body, gone := range map[string]bool{
		`{"message":"No such container: web"}`: true,
		`{"cause":"no such container","message":"no container with name or ID \"web\" found: no such container","response":404}`: true,
		`{"message":"page not found"}`: false,
		`{"message":""}`:               false,
		`404 page not found`:           false,
		``:                             false,
	} {
		rec := &recorded{release: "20.10", api: "1.41", answer: func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, "/containers/web/json") {
				return false
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, body)
			return true
		}}
		e := connect(t, rec.serve(t))
		if _, err := e.Inspect(t.Context(), "web"); err == nil || errors.Is(err, agent.ErrNotFound) != gone {
			t.Errorf("%q: got %v, want a proof of absence: %v", body, err, gone)
		}
	}
}

// An engine at a new socket of the same path is noticed although the connections
// to the old one live, and until a new session begins nobody speaks to it.
func TestEvents_ReplacedSocketEndsTheSession(t *testing.T) {
	old, new := &recorded{release: "20.10", api: "1.41"}, &recorded{release: "29", api: "1.52"}
	host := old.serve(t)
	path := strings.TrimPrefix(host, "unix://")
	e := connect(t, host)
	events, errs := e.Events(t.Context(), time.Now())
	receive(t, events, errs)
	new.serveAt(t, path+".new")
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	if err := ended(t, events, errs); !errors.Is(err, errReplaced) {
		t.Errorf("the end: got %v, want %v", err, errReplaced)
	}
	e.Close() // the idle connections, so that a new one would have to be made
	if _, err := e.Inspect(t.Context(), "web"); !errors.Is(err, errReplaced) {
		t.Errorf("inspect in the old session: got %v, want %v", err, errReplaced)
	}
	if n := len(new.seen()); n != 0 {
		t.Errorf("the new engine was asked %d times within the old session", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	events, errs = e.Events(ctx, time.Now())
	receive(t, events, errs)
	if info, err := e.Identify(ctx); err != nil || info.Version != "29" {
		t.Errorf("in the new session: got %+v, %v, want the new engine", info, err)
	}
	cancel()
	ended(t, events, errs)
}

func TestEvents_ClosedByTheEngine(t *testing.T) {
	rec := &recorded{release: "20.10", api: "1.41", answer: func(w http.ResponseWriter, r *http.Request) bool {
		return strings.HasSuffix(r.URL.Path, "/events") // 200, and the end
	}}
	e := connect(t, rec.serve(t))
	events, errs := e.Events(t.Context(), time.Now())
	if err := ended(t, events, errs); err == nil || !strings.Contains(err.Error(), "the engine closed it") {
		t.Errorf("got %v, want that the engine closed it", err)
	}
}

func TestConfig_Validate(t *testing.T) {
	for _, host := range []string{"unix:///var/run/docker.sock", "tcp://127.0.0.1:2375"} {
		cfg := DefaultConfig()
		cfg.Host = host
		if err := cfg.Validate(); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	for want, cfg := range map[string]Config{
		"host:":          {Host: "docker.sock"},
		`env[0]: "*":`:   {Host: "unix:///s", Env: []string{"*"}},
		`env[0]: "":`:    {Host: "unix:///s", Env: []string{""}},
		`env[1]: "A*B":`: {Host: "unix:///s", Env: []string{"OK", "A*B"}},
		`env[0]: "A**":`: {Host: "unix:///s", Env: []string{"A**"}},
		"write it as ":   {Host: ""},
	} {
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want %q in it", cfg, err, want)
		}
		if _, err := New(cfg); err == nil {
			t.Errorf("New(%+v): got no error", cfg)
		}
	}
}

func TestDefaultConfig_HostFromEnvironment(t *testing.T) {
	t.Setenv("DOCKER_HOST", "unix:///elsewhere")
	if got := DefaultConfig().Host; got != "unix:///elsewhere" {
		t.Errorf("got %s", got)
	}
	t.Setenv("DOCKER_HOST", "")
	if u, err := url.Parse(DefaultConfig().Host); err != nil || u.Path != "/var/run/docker.sock" {
		t.Errorf("got %v, %v", u, err)
	}
}
