// Package admin is berth's front door for its own command: a small HTTP API on
// a Unix socket, mode 0660, owned by root and the group berth where there is
// one. It changes nothing but by POST, and listens nowhere else.
//
//	GET  /healthz             200 while the loop turns
//	GET  /readyz              200 while engine and config are good, else 503
//	GET  /v1/status           Status
//	GET  /v1/containers       []ContainerInfo
//	GET  /v1/config           the effective config, secrets redacted
//	POST /v1/reload           read the config again; ReloadResult
//	     /v1/<component>/…    what the component itself answers
//	GET  /debug/pprof/…       only with admin.pprof
//
// Errors are {"error": "…"} with a fitting status. Any GET below /v1/ takes
// ?watch=2s: the answer is then repeated, as one line of JSON each time, at
// that interval until the client goes away.
//
// The folder of the socket must never be one that containers mount: who can
// write to the socket can reconfigure the host's agent.
package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/config"
)

// DefaultSocket is where the API listens unless the config says otherwise.
const DefaultSocket = "/run/berth/berth.sock"

// Config is the section `admin`.
type Config struct {
	// Socket is the path of the Unix socket. Its folder must not be mounted
	// into containers.
	Socket string `yaml:"socket"`
	// Group is the group that may use the socket, besides root. It is left out
	// where the host does not have it.
	Group string `yaml:"group"`
	// Pprof serves Go's profiles below /debug/pprof/ on the socket.
	Pprof bool `yaml:"pprof"`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config { return Config{Socket: DefaultSocket, Group: "berth"} }

// Validate returns what is wrong with the config.
func (c Config) Validate() error {
	if !filepath.IsAbs(c.Socket) {
		return config.Fieldf("socket", "%q is not an absolute path: write it as %s", c.Socket, DefaultSocket)
	}
	// sun_path of unix(7) has room for 107 bytes and the final zero.
	if len(c.Socket) > 107 {
		return config.Fieldf("socket", "the path has %d bytes, and a socket's may have 107: choose a shorter one", len(c.Socket))
	}
	return nil
}

// Daemon is what the API shows and steers. Its methods are called for each
// request, concurrently.
type Daemon interface {
	Status() Status
	Snapshot() *agent.Snapshot
	// Alive returns nil if the loop turns.
	Alive(ctx context.Context) error
	// EffectiveConfig returns the config in force, as YAML and as JSON.
	EffectiveConfig() (yaml, json []byte)
	Reload(ctx context.Context) ReloadResult
	// Component returns the handler of a component, or nil.
	Component(name string) http.Handler
}

// Server is the API. Make it with New.
type Server struct {
	cfg    Config
	env    agent.Env
	daemon Daemon
	mux    *http.ServeMux
}

// New returns a server; Run makes it listen.
func New(cfg Config, env agent.Env, daemon Daemon) *Server {
	s := &Server{cfg: cfg, env: env, daemon: daemon, mux: http.NewServeMux()}
	s.mux.HandleFunc("GET /healthz", s.healthz)
	s.mux.HandleFunc("GET /readyz", s.readyz)
	s.mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) { WriteJSON(w, daemon.Status()) })
	s.mux.HandleFunc("GET /v1/containers", s.containers)
	s.mux.HandleFunc("GET /v1/config", s.config)
	s.mux.HandleFunc("POST /v1/reload", s.reload)
	s.mux.HandleFunc("/v1/{component}/", s.component)
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		WriteError(w, http.StatusNotFound, fmt.Errorf("there is nothing at %s", r.URL.Path))
	})
	if cfg.Pprof {
		s.mux.HandleFunc("/debug/pprof/", pprof.Index)
		s.mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		s.mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		s.mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		s.mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return s
}

// Listen opens the socket. A socket that nobody listens on is a leftover and
// replaced; one that answers belongs to another berth, and is an error.
func (s *Server) Listen() (net.Listener, error) {
	path := s.cfg.Socket
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		_ = conn.Close()
		return nil, fmt.Errorf("listen on %s: another berth is already running there: stop it first, or give this one an admin.socket and a state_dir of its own", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make the socket's folder: %w", err)
	}
	if fi, err := os.Lstat(path); err == nil {
		if fi.Mode().Type() != fs.ModeSocket {
			return nil, fmt.Errorf("listen on %s: it exists and is not a socket: remove it, or set admin.socket", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("remove the old socket: %w", err)
		}
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on the admin socket: %w", err)
	}
	if err := s.permit(path); err != nil {
		_ = ln.Close()
		return nil, err
	}
	return ln, nil
}

func (s *Server) permit(path string) error {
	if err := os.Chmod(path, 0o660); err != nil {
		return fmt.Errorf("set the socket's mode: %w", err)
	}
	g, err := user.LookupGroup(s.cfg.Group)
	if err != nil {
		return nil // root alone, then
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return nil
	}
	if err := os.Chown(path, -1, gid); err != nil && os.Getuid() == 0 {
		return fmt.Errorf("give the socket to group %s: %w", s.cfg.Group, err)
	}
	return nil
}

// Serve answers on ln until ctx ends, and closes it.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	srv := &http.Server{
		Handler:           s.watching(s.mux),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       time.Minute,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if srv.Shutdown(end) != nil {
			_ = srv.Close()
		}
	})
	defer stop()
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the admin socket: %w", err)
	}
	return nil
}

func (s *Server) healthz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	if err := s.daemon.Alive(ctx); err != nil {
		WriteError(w, http.StatusServiceUnavailable, err)
		return
	}
	WriteJSON(w, map[string]string{"status": "ok"})
}

func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	if st := s.daemon.Status(); !st.Ready {
		WriteError(w, http.StatusServiceUnavailable, errors.New(st.NotReady))
		return
	}
	WriteJSON(w, map[string]string{"status": "ready"})
}

func (s *Server) containers(w http.ResponseWriter, _ *http.Request) {
	WriteJSON(w, Containers(s.daemon.Snapshot()))
}

func (s *Server) config(w http.ResponseWriter, r *http.Request) {
	y, j := s.daemon.EffectiveConfig()
	if r.URL.Query().Get("format") == "yaml" {
		w.Header().Set("Content-Type", "application/yaml")
		_, _ = w.Write(y)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(j)
}

func (s *Server) reload(w http.ResponseWriter, r *http.Request) {
	res := s.daemon.Reload(r.Context())
	if res.Error != "" {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnprocessableEntity)
	}
	WriteJSON(w, res)
}

func (s *Server) component(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("component")
	h := s.daemon.Component(name)
	if h == nil {
		WriteError(w, http.StatusNotFound, fmt.Errorf("component %q is not running on this host, or answers nothing", name))
		return
	}
	h.ServeHTTP(w, r)
}

// WriteJSON answers with v.
func WriteJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v)
}

// WriteError answers with {"error": "…"}.
func WriteError(w http.ResponseWriter, code int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()})
}

// minWatch keeps a watcher from loading the host that it watches.
const minWatch = 100 * time.Millisecond

// watching repeats the answer to a GET with ?watch=<interval>.
func (s *Server) watching(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text := r.URL.Query().Get("watch")
		if text == "" || r.Method != http.MethodGet || !strings.HasPrefix(r.URL.Path, "/v1/") {
			next.ServeHTTP(w, r)
			return
		}
		every, err := time.ParseDuration(text)
		if err != nil || every < minWatch {
			WriteError(w, http.StatusBadRequest, fmt.Errorf("watch=%s: give an interval of %v or more, such as 2s", text, minWatch))
			return
		}
		tick := time.NewTicker(every)
		defer tick.Stop()
		for first := true; ; first = false {
			rec := &recorder{header: make(http.Header), code: http.StatusOK}
			next.ServeHTTP(rec, r)
			if first {
				w.Header().Set("Content-Type", "application/x-ndjson")
				w.WriteHeader(rec.code)
			}
			line := append(bytes.ReplaceAll(bytes.TrimSpace(rec.body.Bytes()), []byte("\n"), nil), '\n')
			if _, err := w.Write(line); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
			if rec.code != http.StatusOK {
				return
			}
			select {
			case <-tick.C:
			case <-r.Context().Done():
				return
			}
		}
	})
}

// recorder keeps one answer.
type recorder struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(code int)        { r.code = code }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }
