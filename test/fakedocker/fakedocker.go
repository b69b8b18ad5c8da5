// Package fakedocker is a container engine for tests: an HTTP server on a Unix
// socket which speaks as much of Docker's API 1.41 as berth uses, over a small
// model in memory that a test changes.
//
//	e := fakedocker.New(filepath.Join(t.TempDir(), "docker.sock"))
//	if err := e.Up(); err != nil { … }
//	defer e.Down()
//	id := e.Run(fakedocker.Spec{Name: "web", Image: "web:1", Publish: []string{"8080"}})
//	e.SetHealth(id, "healthy")
//	e.Stop(id)
//
// # What is like the real one
//
// Shapes and values are those of Engine 20.10: the package's own test compares
// every answer with one recorded from a 20.10.24 (testdata), field by field.
// Events come in the engine's order (a stop is kill, die, disconnect, stop),
// are kept up to 256, are lost when the engine goes down, and are dropped for a
// reader that lags. The headers of a stream are sent before the subscription.
//
// # What is stricter
//
// A real engine is lenient; the fake is not, so that a client which passes here
// passes there. Whatever berth should never ask is answered with an error and
// noted: a method other than GET and HEAD (berth only reads), an unknown path,
// an unknown parameter or filter, an API version above 1.41. Tests end with
// Violations. A slow reader of events gets no grace of 100 ms.
//
// # What can go wrong
//
// Down takes the socket away, Refuse leaves a dead one, Hang accepts and never
// answers, Fail answers all but pings with an error, FailInspect spoils one container;
// Heal ends the latter three. All methods are safe for concurrent use.
package fakedocker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"
)

// SetRoot changes what the engine says of where its data is. It keeps nothing there.
// Call it before Up.
func (e *Engine) SetRoot(dir string) { e.root = dir }

// Engine is one fake engine. Make it with New.
type Engine struct {
	socket string
	root   string // of its data

	mu         sync.Mutex
	server     *http.Server // nil while down
	serving    sync.WaitGroup
	containers []*container // in the order of creation
	networks   []*network
	made       int // containers so far, for their IDs
	nextPort   int
	nextPID    int
	bus        bus
	faults     faults
	violations []string
	calls      map[string]int
}

// faults are what goes wrong on purpose.
type faults struct {
	status  int // of every answer; 0 for none
	message string
	inspect map[string]bool // containers whose inspects fail
	hang    chan struct{}   // closed when the engine thaws; nil if it is not frozen
}

// New returns an engine that is down and has the networks of a fresh one:
// bridge (172.17.0.0/16), host and none.
func New(socket string) *Engine {
	e := &Engine{
		socket:   socket,
		root:     "/var/lib/docker",
		nextPort: 32768, // the first of Linux's ephemeral ports
		nextPID:  4001,
		calls:    make(map[string]int),
	}
	e.networks = []*network{
		newNetwork("bridge", "bridge", "172.17.0.0/16"),
		newNetwork("host", "host", ""),
		newNetwork("none", "null", ""),
	}
	return e
}

// Socket returns the path of the socket.
func (e *Engine) Socket() string { return e.socket }

// Host returns the address in the form of DOCKER_HOST.
func (e *Engine) Host() string { return "unix://" + e.socket }

// Up starts the engine: it makes the socket and answers. Containers are as they
// were left; events from before are forgotten.
func (e *Engine) Up() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.server != nil {
		return errors.New("start the fake engine: it is up already")
	}
	if err := os.Remove(e.socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the old socket: %w", err)
	}
	ln, err := net.Listen("unix", e.socket)
	if err != nil {
		return fmt.Errorf("start the fake engine: %w", err)
	}
	if err := os.Chmod(e.socket, 0o660); err != nil { // as docker.socket has it
		return errors.Join(err, ln.Close())
	}
	e.bus.reset()
	e.server = &http.Server{Handler: http.HandlerFunc(e.serve), ReadHeaderTimeout: time.Minute}
	server := e.server
	e.serving.Go(func() { _ = server.Serve(ln) })
	return nil
}

// Down stops the engine at once: connections break and the socket goes.
// Containers keep running, as with live-restore.
func (e *Engine) Down() {
	e.mu.Lock()
	server := e.server
	e.server = nil
	e.thaw()
	e.mu.Unlock()
	if server == nil {
		return
	}
	_ = server.Close()
	e.serving.Wait()
}

// Refuse stops the engine like Down but leaves a socket on which nobody
// listens.
func (e *Engine) Refuse() error {
	e.Down()
	_ = os.Remove(e.socket)
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: e.socket, Net: "unix"})
	if err != nil {
		return fmt.Errorf("leave a dead socket: %w", err)
	}
	ln.SetUnlinkOnClose(false)
	return ln.Close()
}

// Hang freezes the engine: requests are accepted and not answered, and open
// streams stay open and silent.
func (e *Engine) Hang() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.faults.hang == nil {
		e.faults.hang = make(chan struct{})
	}
}

// Fail makes the engine answer every request but pings with an error.
func (e *Engine) Fail(status int, message string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.faults.status, e.faults.message = status, message
}

// FailInspect makes the inspects of one container fail with status 500.
func (e *Engine) FailInspect(ref string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.faults.inspect == nil {
		e.faults.inspect = make(map[string]bool)
	}
	e.faults.inspect[e.must(ref).id] = true
}

// Heal ends what Hang, Fail and FailInspect began.
func (e *Engine) Heal() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.thaw()
	e.faults = faults{}
}

func (e *Engine) thaw() {
	if e.faults.hang != nil {
		close(e.faults.hang)
		e.faults.hang = nil
	}
}

// frozen waits until the engine thaws or the client goes away.
func (e *Engine) frozen(ctx context.Context) {
	e.mu.Lock()
	hang := e.faults.hang
	e.mu.Unlock()
	if hang == nil {
		return
	}
	select {
	case <-hang:
	case <-ctx.Done():
	}
}

// Violations returns what was asked that berth should never ask.
func (e *Engine) Violations() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.violations)
}

// Calls returns how often a path was asked for, such as "/info" or
// "/containers/{id}/json".
func (e *Engine) Calls(path string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.calls[path]
}
