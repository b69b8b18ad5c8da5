package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
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

// fakeDaemon is a daemon as the test says.
type fakeDaemon struct {
	mu       sync.Mutex
	status   Status
	asked    int // for its status
	snapshot *agent.Snapshot
	alive    error
	reload   ReloadResult
	parts    map[string]http.Handler
}

func (d *fakeDaemon) Status() Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked++
	st := d.status
	st.PID = d.asked
	return st
}

func (d *fakeDaemon) Snapshot() *agent.Snapshot   { return d.snapshot }
func (d *fakeDaemon) Alive(context.Context) error { return d.alive }
func (d *fakeDaemon) EffectiveConfig() (yaml, json []byte) {
	return []byte("a: 1\n"), []byte(`{"a":1}`)
}
func (d *fakeDaemon) Reload(context.Context) ReloadResult { return d.reload }
func (d *fakeDaemon) Component(name string) http.Handler  { return d.parts[name] }
func (d *fakeDaemon) count() int                          { d.mu.Lock(); defer d.mu.Unlock(); return d.asked }

// socketPath returns a path that is short enough for a socket.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "berth-admin-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "run", "s")
}

func newServer(socket string, d Daemon, change ...func(*Config)) *Server {
	cfg := DefaultConfig()
	cfg.Socket = socket
	for _, c := range change {
		c(&cfg)
	}
	log := slog.New(slog.DiscardHandler)
	return New(cfg, agent.Env{Log: log, Health: agent.NewHealth(log)}, d)
}

// serve serves d and returns a client of it.
func serve(t *testing.T, d Daemon, change ...func(*Config)) *Client {
	t.Helper()
	socket := socketPath(t)
	s := newServer(socket, d, change...)
	ln, err := s.Listen()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: got %v, want nil when its context ends", err)
		}
		if _, err := os.Lstat(socket); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the socket is left behind: %v", err)
		}
	})
	return NewClient(socket)
}

func TestListen_Modes(t *testing.T) {
	socket := socketPath(t)
	ln, err := newServer(socket, &fakeDaemon{}).Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	fi, err := os.Stat(socket)
	if err != nil || fi.Mode() != fs.ModeSocket|0o660 {
		t.Errorf("socket: got %v, %v, want mode 0660", fi.Mode(), err)
	}
	if dir, err := os.Stat(filepath.Dir(socket)); err != nil || dir.Mode().Perm()&0o022 != 0 {
		t.Errorf("folder: got %v, %v, want one that others cannot write to", dir.Mode(), err)
	}
}

func TestListen_GroupThatTheHostHas(t *testing.T) {
	socket := socketPath(t)
	ln, err := newServer(socket, &fakeDaemon{}, func(c *Config) { c.Group = "root" }).Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	fi, err := os.Stat(socket)
	if err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 && fi.Sys().(*syscall.Stat_t).Gid != 0 {
		t.Errorf("group: got %d, want 0", fi.Sys().(*syscall.Stat_t).Gid)
	}
}

func TestListen_StaleSocketIsReplaced(t *testing.T) {
	socket := socketPath(t)
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		t.Fatal(err)
	}
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	old.SetUnlinkOnClose(false) // as when its process was killed
	old.Close()
	ln, err := newServer(socket, &fakeDaemon{}).Listen()
	if err != nil {
		t.Fatalf("got %v, want that the leftover is replaced", err)
	}
	ln.Close()
}

func TestListen_LiveSocketIsAnotherBerths(t *testing.T) {
	socket := socketPath(t)
	first, err := newServer(socket, &fakeDaemon{}).Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if _, err := newServer(socket, &fakeDaemon{}).Listen(); err == nil || !strings.Contains(err.Error(), "another berth is already running") {
		t.Errorf("got %v, want that another berth is running", err)
	}
	if _, err := os.Stat(socket); err != nil {
		t.Errorf("the first one's socket: %v", err)
	}
}

func TestListen_NotASocketIsKept(t *testing.T) {
	socket := socketPath(t)
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		t.Fatal(err)
	}
	target := socket + ".target"
	for what, make := range map[string]func() error{
		"a file":   func() error { return os.WriteFile(socket, []byte("precious"), 0o600) },
		"a folder": func() error { return os.Mkdir(socket, 0o700) },
		"a link":   func() error { return os.Symlink(target, socket) },
	} {
		if err := make(); err != nil {
			t.Fatal(err)
		}
		before, err := os.Lstat(socket)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := newServer(socket, &fakeDaemon{}).Listen(); err == nil || !strings.Contains(err.Error(), "is not a socket") {
			t.Errorf("%s: got %v, want an error", what, err)
		}
		if after, err := os.Lstat(socket); err != nil || !os.SameFile(before, after) {
			t.Errorf("%s: it was touched: %v", what, err)
		}
		if err := os.Remove(socket); err != nil {
			t.Fatal(err)
		}
	}
}

func TestListen_FolderThatCannotBe(t *testing.T) {
	socket := socketPath(t)
	if err := os.WriteFile(filepath.Dir(socket), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := newServer(socket, &fakeDaemon{}).Listen(); err == nil || !strings.Contains(err.Error(), "make the socket's folder") {
		t.Errorf("got %v, want an error about the folder", err)
	}
}

func TestConfig_Validate(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("defaults: %v", err)
	}
	for _, socket := range []string{"", "s", "./s", "/" + strings.Repeat("x", 107)} {
		if err := (Config{Socket: socket}).Validate(); err == nil {
			t.Errorf("%q: got no error", socket)
		}
	}
	if err := (Config{Socket: "/" + strings.Repeat("x", 106)}).Validate(); err != nil {
		t.Errorf("107 bytes: %v", err)
	}
}

func TestAnswers(t *testing.T) {
	d := &fakeDaemon{
		status:   Status{Version: "v1", Ready: true},
		snapshot: sample(),
		parts: map[string]http.Handler{"discovery": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, `{"path":%q}`, r.URL.Path)
		})},
		reload: ReloadResult{Changed: []string{"dns"}},
	}
	c := serve(t, d)
	for path, want := range map[string]string{
		"/healthz":               `{"status":"ok"}`,
		"/readyz":                `{"status":"ready"}`,
		"/v1/config":             `{"a":1}`,
		"/v1/config?format=yaml": "a: 1",
		"/v1/discovery/a/b":      `{"path":"/v1/discovery/a/b"}`,
	} {
		u, _ := url.Parse(path)
		got, err := c.Raw(t.Context(), u.Path, u.Query())
		if err != nil || strings.TrimSpace(string(got)) != want {
			t.Errorf("%s: got %s, %v, want %s", path, got, err, want)
		}
	}
	var st Status
	if err := c.Get(t.Context(), "/v1/status", nil, &st); err != nil || st.Version != "v1" {
		t.Errorf("status: got %+v, %v", st, err)
	}
	var list []ContainerInfo
	if err := c.Get(t.Context(), "/v1/containers", nil, &list); err != nil || len(list) != 2 || list[0].Name != "web" {
		t.Errorf("containers: got %+v, %v", list, err)
	}
	var res ReloadResult
	if err := c.Post(t.Context(), "/v1/reload", &res); err != nil || len(res.Changed) != 1 {
		t.Errorf("reload: got %+v, %v", res, err)
	}
}

func sample() *agent.Snapshot {
	return &agent.Snapshot{Containers: []*agent.Container{
		{
			ID: "a", Name: "web", State: agent.StateRunning, Labels: map[string]string{"password": "hush"},
			Env:       map[string]string{"SERVICE_NAME": "hush"},
			Endpoints: []agent.Endpoint{{IPv4: netip.MustParseAddr("172.17.0.2"), IPv6: netip.MustParseAddr("fd00::2")}, {}},
			Ports:     []agent.Port{{Container: 80, Proto: "tcp", Host: netip.MustParseAddrPort("0.0.0.0:8080")}, {Container: 81, Proto: "udp"}},
		},
		{ID: "b", Name: "idle", State: agent.StateCreated},
	}}
}

// What the API says of containers has no label and no variable in it, and no
// null where a script expects a list.
func TestContainers(t *testing.T) {
	text, err := json.Marshal(Containers(sample()))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "hush") || strings.Contains(string(text), "null") || strings.Contains(string(text), "0001-01-01") {
		t.Errorf("got %s", text)
	}
	want := `"addresses":["172.17.0.2","fd00::2"],"ports":[{"container":80,"proto":"tcp","host":"0.0.0.0:8080"},{"container":81,"proto":"udp"}]`
	if !strings.Contains(string(text), want) {
		t.Errorf("got %s, want %s in it", text, want)
	}
	if text, err = json.Marshal(Containers(&agent.Snapshot{})); err != nil || string(text) != "[]" {
		t.Errorf("of nothing: got %s, %v", text, err)
	}
}

func TestNodeOf(t *testing.T) {
	n := NodeOf(agent.Node{ID: "i", Settled: true, Source: "imds", Hostname: "h", InstanceID: "i", Account: "a", Region: "r", Zone: "z", InstanceType: "t"})
	if want := (Node{ID: "i", Settled: true, Source: "imds", Hostname: "h", InstanceID: "i", Account: "a", Region: "r", Zone: "z", InstanceType: "t"}); n != want {
		t.Errorf("got %+v, want %+v", n, want)
	}
}

// errorOf asserts that err is an answer with this code.
func errorOf(t *testing.T, what string, err error, code int, text string) {
	t.Helper()
	failed, ok := errors.AsType[*Error](err)
	if !ok || failed.Code != code || !strings.Contains(failed.Message, text) {
		t.Errorf("%s: got %#v, want code %d and %q", what, err, code, text)
	}
}

func TestErrors(t *testing.T) {
	d := &fakeDaemon{
		status: Status{NotReady: "the engine does not answer"},
		alive:  errors.New("the loop is stuck"),
		reload: ReloadResult{Error: "berth.yaml:3: no such key"},
		parts: map[string]http.Handler{
			"plain": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "plain text", http.StatusTeapot) }),
		},
	}
	c := serve(t, d)
	get := func(path string) error { return c.Get(t.Context(), path, nil, new(any)) }
	errorOf(t, "not ready", get("/readyz"), http.StatusServiceUnavailable, "the engine does not answer")
	errorOf(t, "stuck", get("/healthz"), http.StatusServiceUnavailable, "the loop is stuck")
	errorOf(t, "no such path", get("/v2/status"), http.StatusNotFound, "there is nothing at /v2/status")
	errorOf(t, "no such path", get("/"), http.StatusNotFound, "there is nothing at /")
	errorOf(t, "no such component", get("/v1/nothing/x"), http.StatusNotFound, `component "nothing" is not running`)
	errorOf(t, "an answer that is no JSON", get("/v1/plain/x"), http.StatusTeapot, "418")
	errorOf(t, "profiles, which are off", get("/debug/pprof/"), http.StatusNotFound, "there is nothing")
	err := c.Post(t.Context(), "/v1/reload", new(any))
	errorOf(t, "a refused reload", err, http.StatusUnprocessableEntity, "berth.yaml:3")
	var res ReloadResult
	if failed, ok := errors.AsType[*Error](err); !ok || json.Unmarshal(failed.Body, &res) != nil || res.Error == "" {
		t.Errorf("a refused reload: got %+v, want its result in the body", err)
	}
	// Only POST changes anything.
	if err := get("/v1/reload"); err == nil {
		t.Error("GET /v1/reload: got no error")
	}
	if err := c.Post(t.Context(), "/v1/status", new(any)); err == nil {
		t.Error("POST /v1/status: got no error")
	}
}

func TestPprof_OnlyWhenAsked(t *testing.T) {
	c := serve(t, &fakeDaemon{}, func(cfg *Config) { cfg.Pprof = true })
	if got, err := c.Raw(t.Context(), "/debug/pprof/cmdline", nil); err != nil || len(got) == 0 {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestWatch_Streams(t *testing.T) {
	d := &fakeDaemon{status: Status{Version: "v1"}}
	c := serve(t, d)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var pids []int
	err := c.Watch(ctx, "/v1/status", nil, minWatch, func(line []byte) error {
		var st Status
		if err := json.Unmarshal(line, &st); err != nil {
			return err
		}
		if bytes := strings.Count(string(line), "\n"); bytes != 1 {
			t.Errorf("got %d lines at once", bytes)
		}
		if pids = append(pids, st.PID); len(pids) == 3 {
			cancel() // as Ctrl-C does
		}
		return nil
	})
	if err != nil || fmt.Sprint(pids) != "[1 2 3]" {
		t.Errorf("got %v, %v, want three answers and no error", pids, err)
	}
	// The server notices that the client is gone.
	was := d.count()
	deadline := time.After(limit)
	for {
		select {
		case <-deadline:
			t.Fatal("the server goes on for a client that is gone")
		case <-time.After(3 * minWatch):
		}
		if now := d.count(); now == was {
			return
		} else {
			was = now
		}
	}
}

func TestWatch_Ends(t *testing.T) {
	d := &fakeDaemon{}
	c := serve(t, d)
	full := errors.New("full")
	if err := c.Watch(t.Context(), "/v1/status", nil, time.Second, func([]byte) error { return full }); !errors.Is(err, full) {
		t.Errorf("a reader that fails: got %v, want its error", err)
	}
	errorOf(t, "too often", c.Watch(t.Context(), "/v1/status", nil, time.Millisecond, nil), http.StatusBadRequest, "give an interval of 100ms or more")
	errorOf(t, "no interval", c.Get(t.Context(), "/v1/status", url.Values{"watch": {"often"}}, new(any)), http.StatusBadRequest, "watch=often")
	errorOf(t, "an error is not repeated", c.Watch(t.Context(), "/v1/nothing/x", nil, minWatch, nil), http.StatusNotFound, "not running")
	// What is not below /v1/ is not watched.
	if err := c.Get(t.Context(), "/healthz", url.Values{"watch": {"1s"}}, new(any)); err != nil {
		t.Errorf("/healthz: %v", err)
	}
}

func TestWatch_BerthGoesAway(t *testing.T) {
	socket := socketPath(t)
	s := newServer(socket, &fakeDaemon{})
	ln, err := s.Listen()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	err = NewClient(socket).Watch(t.Context(), "/v1/status", nil, time.Hour, func([]byte) error {
		cancel()
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "berth went away") || !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v, want that it went away", err)
	}
	if err := <-done; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

func TestClient_NobodyAnswers(t *testing.T) {
	socket := socketPath(t)
	c := NewClient(socket)
	get := func() error { return c.Get(t.Context(), "/v1/status", nil, new(any)) }
	errorOf(t, "no socket", get(), 0, "there is no such socket: is berth running")
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		t.Fatal(err)
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	errorOf(t, "nobody listens", get(), 0, "nobody listens: berth has stopped")
	errorOf(t, "no permission", c.unreachable(&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EACCES)}), 0, "run as root or join group berth")
	errorOf(t, "anything else", c.unreachable(errors.New("odd")), 0, "odd")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Get(ctx, "/v1/status", nil, new(any)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v, want %v", err, context.Canceled)
	}
}

func TestClient_AnswerThatIsNone(t *testing.T) {
	d := &fakeDaemon{parts: map[string]http.Handler{"odd": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "{") })}}
	c := serve(t, d)
	if err := c.Get(t.Context(), "/v1/odd/x", nil, new(any)); err == nil {
		t.Error("got no error")
	}
}
