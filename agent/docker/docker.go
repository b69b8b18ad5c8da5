// Package docker is the one place where berth speaks to a Docker engine: an
// agent.Engine over github.com/docker/docker/client. It needs API 1.41 (Engine
// 20.10) or newer, and negotiates the version anew with each session, so that
// an engine may be upgraded underneath it.
//
// It reads, through seven calls: events, info, container list and inspect,
// network list, image list, ping. The two that change anything, the removal of an
// image and of a container, are in prune.go. Nothing of the client's types leaves the package, which
// keeps a move to the module's successor within this folder.
//
// # Sessions
//
// Events opens a session: a client with connections of its own, which the other
// methods use until the next session. A socket that was replaced by a new file
// (the engine was reinstalled, or the folder bind-mounted anew) is found by a
// look at its inode every few seconds, and ends the session.
package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/config"
)

// Config says where the engine is and what of a container's environment berth
// may know.
type Config struct {
	// Host is the engine's address, as DOCKER_HOST has it.
	Host string `yaml:"host"`
	// Env lists the environment variables of containers that berth reads: exact
	// names, or beginnings that end in "*". All others never leave the
	// engine's answer.
	Env []string `yaml:"env"`
}

// DefaultConfig returns the engine's usual socket, or DOCKER_HOST where it is
// set, and the variables that name a service or say what it reserves.
func DefaultConfig() Config {
	host := os.Getenv(client.EnvOverrideHost)
	if host == "" {
		host = client.DefaultDockerHost
	}
	return Config{
		Host: host,
		Env: []string{
			"SERVICE_*",
			"BERTH_*",
			"MARATHON_APP_ID", "MARATHON_APP_RESOURCE_CPUS", "MARATHON_APP_RESOURCE_MEM", "MESOS_TASK_ID",
			"NOMAD_JOB_NAME", "NOMAD_GROUP_NAME", "NOMAD_TASK_NAME", "NOMAD_ALLOC_ID", "NOMAD_NAMESPACE", "NOMAD_DC",
			"NOMAD_CPU_LIMIT", "NOMAD_CPU_CORES", "NOMAD_MEMORY_LIMIT",
			"DD_ENV", "DD_SERVICE", "DD_VERSION",
		},
	}
}

// Validate reports what is wrong with the config, without asking the engine.
func (c Config) Validate() error {
	var errs []error
	if _, err := client.ParseHostURL(c.Host); err != nil {
		errs = append(errs, config.Fieldf("host", "%w: write it as unix:///var/run/docker.sock or tcp://127.0.0.1:2375", err))
	}
	for n, p := range c.Env {
		if i := strings.IndexByte(p, '*'); p == "" || p == "*" || i >= 0 && i != len(p)-1 {
			errs = append(errs, config.Fieldf(fmt.Sprintf("env[%d]", n), "%q: write a variable's name, or a beginning of it and one * at the end", p))
		}
	}
	return errors.Join(errs...)
}

const (
	// headerTimeout bounds how long an engine may take to open the stream.
	headerTimeout = 10 * time.Second
	// idleConns is how many connections stay open between calls, as many as there
	// are callers at once: the client's own two would have the others dial for
	// each call. idleTimeout is for how long.
	idleConns   = 8
	idleTimeout = 30 * time.Second
	// inodeInterval is how often the socket's file is looked at.
	inodeInterval = 2 * time.Second
)

// Engine implements agent.Engine. It is safe for concurrent use.
type Engine struct {
	cfg Config

	mu  sync.Mutex
	now *session

	dialErr atomic.Pointer[error] // of the newest dial that failed
}

// session is one client with connections of its own.
type session struct {
	cli    *client.Client
	socket inode // of the engine's socket when the session began

	// opened is closed when the stream is open, or failed. It is nil for a
	// session without a stream.
	opened chan struct{}
	info   agent.EngineInfo // valid once opened is closed
	err    error            // likewise
}

var _ agent.Engine = (*Engine)(nil)

// New returns an engine. It does not connect: an engine that is not there (yet)
// is an error of each call, not of New.
func New(cfg Config) (*Engine, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	e := &Engine{cfg: cfg}
	if _, err := e.renew(nil); err != nil {
		return nil, err
	}
	return e, nil
}

// Host returns the engine's address.
func (e *Engine) Host() string { return e.cfg.Host }

// renew starts a session: new connections, and a new negotiation of the version.
func (e *Engine) renew(opened chan struct{}) (*session, error) {
	s := &session{socket: e.socket(), opened: opened}
	var err error
	s.cli, err = client.NewClientWithOpts(
		client.WithHTTPClient(&http.Client{
			Transport:     &http.Transport{MaxIdleConns: idleConns, MaxIdleConnsPerHost: idleConns, IdleConnTimeout: idleTimeout},
			CheckRedirect: client.CheckRedirect,
		}),
		client.WithHost(e.cfg.Host),
		client.WithTLSClientConfigFromEnv(),
		client.WithDialContext(e.dialer(s.socket)),
		client.WithAPIVersionNegotiation(),
	)
	if err != nil {
		return nil, fmt.Errorf("make a client for %s: %w", e.cfg.Host, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.now != nil {
		_ = e.now.cli.Close() // closes idle connections only
	}
	e.now = s
	return s, nil
}

func (e *Engine) session() *session {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.now
}

func (e *Engine) client() *client.Client { return e.session().cli }

// Close closes the idle connections.
func (e *Engine) Close() error { return e.client().Close() }

// eventFilter leaves out what nobody here needs, above all the three exec_*
// events of every health check. "stop" and "restart" only follow "die" and
// "start".
func eventFilter() filters.Args {
	return filters.NewArgs(
		filters.Arg("type", string(events.ContainerEventType)),
		filters.Arg("type", string(events.NetworkEventType)),
		filters.Arg("event", "create"), // of containers and of networks
		filters.Arg("event", "start"),
		filters.Arg("event", "kill"),
		filters.Arg("event", "die"),
		filters.Arg("event", "destroy"),
		filters.Arg("event", "pause"),
		filters.Arg("event", "unpause"),
		filters.Arg("event", "rename"),
		filters.Arg("event", "update"),
		filters.Arg("event", "health_status"),
		filters.Arg("event", "connect"),
		filters.Arg("event", "disconnect"),
	)
}

// Events implements agent.Engine. It returns at once; the stream is opened in
// the background.
func (e *Engine) Events(ctx context.Context, since time.Time) (<-chan agent.Event, <-chan error) {
	out, errs := make(chan agent.Event), make(chan error, 1)
	s, err := e.renew(make(chan struct{}))
	if err != nil {
		errs <- err
		return out, errs
	}
	go func() { errs <- e.stream(ctx, s, since, out) }()
	return out, errs
}

// stream opens the session's stream and reads it until it ends.
func (e *Engine) stream(ctx context.Context, s *session, since time.Time, out chan<- agent.Event) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	msgs, errs, err := e.open(ctx, cancel, s, since)
	s.err = err
	close(s.opened)
	if err != nil {
		return err
	}
	look := time.NewTicker(inodeInterval)
	defer look.Stop()
	for {
		select {
		case m := <-msgs:
			select {
			case out <- toEvent(m):
			case <-ctx.Done():
				return ctx.Err()
			}
		case err := <-errs:
			if errors.Is(err, io.EOF) {
				err = errors.New("the engine closed it")
			}
			return e.wrap("read the event stream", err)
		case <-look.C:
			if e.socket() != s.socket {
				return e.wrap("read the event stream", errReplaced)
			}
		}
	}
}

// open asks who the engine is and then for its events, one after the other: the
// first call negotiates the version, which the client's Events reads without a
// lock. An engine that is frozen answers neither.
func (e *Engine) open(ctx context.Context, cancel func(), s *session, since time.Time) (<-chan events.Message, <-chan error, error) {
	tooLong := time.AfterFunc(headerTimeout, cancel)
	defer tooLong.Stop()
	info, err := e.identify(ctx, s.cli)
	if err != nil {
		return nil, nil, err
	}
	// Events returns when the engine has sent its headers.
	msgs, errs := s.cli.Events(ctx, events.ListOptions{
		Since:   fmt.Sprintf("%d.%09d", since.Unix(), since.Nanosecond()),
		Filters: eventFilter(),
	})
	if ctx.Err() != nil {
		return nil, nil, e.wrap("open the event stream", context.DeadlineExceeded)
	}
	s.info = info
	return msgs, errs, nil
}

// inode identifies a file by its device and number.
type inode struct{ dev, ino uint64 }

var errReplaced = errors.New("the socket was replaced")

// socket identifies the engine's socket, and is zero where there is none.
func (e *Engine) socket() inode {
	path, ok := strings.CutPrefix(e.cfg.Host, "unix://")
	if !ok {
		return inode{}
	}
	fi, err := os.Stat(path)
	if err != nil {
		return inode{}
	}
	st := fi.Sys().(*syscall.Stat_t)
	return inode{uint64(st.Dev), st.Ino}
}

// Identify implements agent.Engine. In a session with a stream it answers once
// that is open, so that what is listed from then on cannot miss an event.
func (e *Engine) Identify(ctx context.Context) (agent.EngineInfo, error) {
	s := e.session()
	if s.opened == nil {
		return e.identify(ctx, s.cli)
	}
	select {
	case <-s.opened:
		return s.info, s.err
	case <-ctx.Done():
		return agent.EngineInfo{}, e.wrap("identify the engine", ctx.Err())
	}
}

func (e *Engine) identify(ctx context.Context, cli *client.Client) (agent.EngineInfo, error) {
	info, err := cli.Info(ctx)
	if err != nil {
		return agent.EngineInfo{}, e.wrap("identify the engine", err)
	}
	if info.ID == "" {
		return agent.EngineInfo{}, e.wrap("identify the engine", errors.New("it has no ID yet"))
	}
	return agent.EngineInfo{
		ID:      info.ID,
		Version: info.ServerVersion,
		API:     cli.ClientVersion(),
		Root:    info.DockerRootDir,
	}, nil
}

// List implements agent.Engine.
func (e *Engine) List(ctx context.Context) (agent.Listing, error) {
	all, err := e.client().ContainerList(ctx, container.ListOptions{All: true})
	if err != nil {
		return agent.Listing{}, e.wrap("list containers", err)
	}
	rows := make([]agent.Row, 0, len(all))
	for i := range all {
		rows = append(rows, toRow(&all[i]))
	}
	return agent.Listing{Rows: rows}, nil
}

// Networks implements agent.Engine.
func (e *Engine) Networks(ctx context.Context) ([]agent.Network, error) {
	all, err := e.client().NetworkList(ctx, network.ListOptions{})
	if err != nil {
		return nil, e.wrap("list networks", err)
	}
	return toNetworks(all), nil
}

// Inspect implements agent.Engine.
func (e *Engine) Inspect(ctx context.Context, id string) (*agent.Container, error) {
	c, err := e.client().ContainerInspect(ctx, id)
	if isGone(err) {
		return nil, agent.ErrNotFound
	}
	if err != nil {
		return nil, e.wrap("inspect "+agent.ShortID(id), err)
	}
	out, err := toContainer(&c, e.cfg.Env)
	if err != nil {
		return nil, e.wrap("inspect "+agent.ShortID(id), err)
	}
	return out, nil
}

// isGone reports whether an error is the engine's word that there is no such
// container, on which records go and folders are deleted. The status alone is not: a
// proxy in front of the socket, or an engine that does not know the path, says 404,
// too. Docker says "No such container: …" (of all versions from 1.12 to 29), Podman
// "no container with name or ID … found: no such container".
func isGone(err error) bool {
	return errdefs.IsNotFound(err) && saysGone(err.Error())
}

// Error is a failed call to the engine.
type Error struct {
	Host string // the engine's address
	Op   string // what was tried
	Err  error
}

// Error says what failed and where.
func (e *Error) Error() string { return fmt.Sprintf("%s at %s: %v", e.Op, e.Host, e.cause()) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// cause strips what the client says around the system's own word.
func (e *Error) cause() error {
	if errno, ok := errors.AsType[syscall.Errno](e.Err); ok {
		return errno
	}
	return e.Err
}

// Hint returns what a person can do about it.
func (e *Error) Hint() string {
	switch {
	case errors.Is(e.Err, os.ErrPermission):
		return "run berth as root, or add its user to the group docker (which is as good as root)"
	case errors.Is(e.Err, os.ErrNotExist):
		return "start the engine (systemctl start docker), or set engine.host to where its socket is"
	case errors.Is(e.Err, syscall.ECONNREFUSED):
		return "the socket is there, but nobody listens: start the engine (systemctl start docker)"
	}
	return "look at the engine (systemctl status docker); berth keeps what it knows and reconnects by itself"
}

// wrap names the call and the engine. The client replaces the error of a failed
// dial by a text of its own, so that the dial's own is put back.
func (e *Engine) wrap(op string, err error) error {
	if client.IsErrConnectionFailed(err) || errors.Is(err, errReplaced) {
		if dialErr := e.dialErr.Load(); dialErr != nil {
			err = *dialErr
		}
	}
	return &Error{Host: e.cfg.Host, Op: op, Err: err}
}

// dialer returns what connects the client of one session to the engine. It
// refuses a socket other than the one that the session began with: behind that
// may be another engine, whose "no such container" would be no proof. It
// remembers why a dial failed.
func (e *Engine) dialer(began inode) func(ctx context.Context, network, addr string) (net.Conn, error) {
	dial := func(ctx context.Context) (net.Conn, error) {
		u, err := client.ParseHostURL(e.cfg.Host)
		if err != nil {
			return nil, err
		}
		var d net.Dialer
		conn, err := d.DialContext(ctx, u.Scheme, u.Host)
		if err == nil && e.socket() != began {
			_ = conn.Close()
			return nil, errReplaced
		}
		return conn, err
	}
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := dial(ctx)
		if err != nil {
			e.dialErr.Store(&err)
		}
		return conn, err
	}
}
