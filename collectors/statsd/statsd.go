// Package statsd is the relay of metrics: containers send StatsD or DogStatsD to
// the gateway of their network, berth adds who they are, and one upstream on the
// host, such as a Datadog agent, gets everything in large datagrams. No container
// needs a sidecar, an address to be told, or a library that knows its origin.
//
// # Where it receives
//
// Over UDP on port 8125 of the gateway of every bridge network, followed as
// networks come and go, and on the addresses of [Config.Listen]. And on a Unix
// datagram socket for containers in the host's network, which mount its folder
// (not the socket itself: its file is another one after a restart of the host).
// An address that another process has is tried again for ever; the health
// condition "listen" says which, and the others are received on.
//
// # Who sent it
//
// A line that comes over a bridge is told by its source address, and where two
// networks have the same ones, by the interface, too, which is otherwise not asked
// for: it costs a tenth of all. (So whoever may forge addresses, and whose packets
// the host's rp_filter lets through, may send in the name of another; on one
// network nothing prevents that anyway.) A line over the Unix socket is told by the
// cgroup of its sender. What cannot be told is not guessed: lines from the host's own addresses (containers in its network,
// Docker's proxy) and from unknown ones go on without tags of a container and are
// counted. Containers that share one network get the tags that all of them have.
// For two seconds after its end a container's lines are still its own; if another
// one has its address by then, they are that one's.
//
// # What becomes of a line
//
// It is passed on byte for byte, but for what mode adds: tags
// (container_tags, tags), or the container's ID (c:). Tags come first, and none
// that the client sets itself. Metrics of every type, events and service checks
// are told apart by their structure alone; whether a value is a number is for the
// upstream to judge. A line for which a datagram has no room with its tags goes
// without them; one for which it has none at all, and one that is malformed, is
// dropped, alone. All of it is counted:
//
//	lines in = lines out + malformed + too_long + rate_limited + truncated
//	         + buffer + send + waiting
//
// where buffer is what had to make room for newer lines while the upstream was
// away or slow, send what the kernel refused, and waiting what is in the buffer.
// Before that, datagrams for which a socket had no room are counted as the
// kernel's drops; the condition "receive" tells of them.
//
// # How it is fast
//
// One thread reads all sockets, 256 datagrams in one system call, into buffers
// that are made once; it writes lines into datagrams that are full, and sends 32
// of these in one call. At 500 datagrams a second and more it looks every
// [Config.Linger], or when some 512 datagrams may have come, instead of being woken
// up by each, and the runtime does not learn that it sleeps meanwhile. Nothing is
// allocated.
// Senders are looked up in an immutable table behind an atomic pointer, which is
// made anew with each snapshot, with tags ready to be copied.
//
// The package needs Linux.
package statsd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/berthd/berth/agent"
)

// Name is the component's name in logs, health conditions and metrics.
const Name = "statsd"

// The names of the health conditions.
const (
	condListen  = "listen"
	condBuffer  = "buffer"
	condReceive = "receive"
)

const (
	// minRetry and maxRetry are the pauses between two tries to listen on an
	// address.
	minRetry = 250 * time.Millisecond
	maxRetry = 30 * time.Second
	// beginAfter is how long the relay waits for the engine's containers to be
	// known before it receives at all. What the sockets of the last run hold is of
	// containers, and is not to be passed on without their tags.
	beginAfter = 5 * time.Second
	// tick is how often rates are computed and drops looked for.
	tick = time.Second
	// calm is how long the kernel must have dropped nothing before the condition
	// passes.
	calm = time.Minute
	// closeMost is how long the upstream may take at the end.
	closeMost = time.Second
)

// Statsd is the collector. Make it with New. Its methods are safe for concurrent
// use, but Run is called once.
type Statsd struct {
	cfg     Config
	log     *slog.Logger
	health  *agent.Scope
	sink    agent.LineSink
	sockets agent.Sockets

	registrar *registrar // of Run
	meters    meters
	table     atomic.Pointer[table]
	view      atomic.Pointer[view]
}

// view is what is shown of the relay. It is immutable but for the accounts.
type view struct {
	snapshot *agent.Snapshot
	sockets  []*socket
	closed   uint64 // drops of sockets that are no more
	port     agent.LinePort
	senders  []*origin // by name; those that ended, too
	live     []*origin // without them
}

// New returns the collector, which opens nothing until Run.
func New(cfg Config, env agent.Env, sink agent.LineSink) (*Statsd, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure %s: %w", Name, err)
	}
	s := &Statsd{cfg: cfg, log: env.Log.With("component", Name), health: env.Health.Scope(Name), sink: sink, sockets: env.Sockets}
	if s.sockets == nil {
		s.sockets = ownSockets{}
	}
	s.health.Declare(condBuffer, agent.SeverityWarning, 0)
	s.health.Declare(condReceive, agent.SeverityWarning, 0)
	s.registrar = newRegistrar(cfg)
	t, _ := s.registrar.build(new(agent.Snapshot), nil, time.Now())
	s.table.Store(t)
	s.view.Store(&view{snapshot: new(agent.Snapshot), senders: s.registrar.senders(false), live: s.registrar.senders(true)})
	return s, nil
}

// Name returns "statsd".
func (s *Statsd) Name() string { return Name }

// Run relays until ctx ends, and then hands on what it has read.
func (s *Statsd) Run(ctx context.Context, feed agent.Feed) (err error) {
	port, err := s.sink.Open()
	if err != nil {
		return fmt.Errorf("open the upstream: %w", err)
	}
	r, err := newReceiver(s.cfg, &s.table, &s.meters, port)
	if err != nil {
		return errors.Join(err, port.Close(ctx))
	}
	ended := make(chan error, 1)
	var thread sync.WaitGroup
	processors(1) // see receiver.wait
	thread.Go(func() { ended <- r.run() })
	f := newFollower(s, r, port)
	defer func() {
		r.stop()
		thread.Wait()
		processors(-1)
		flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeMost)
		defer cancel()
		if closeErr := port.Close(flush); closeErr != nil {
			s.log.Warn("lines were lost at the end", "err", closeErr)
		}
		f.clear()
	}()
	return f.run(ctx, feed, ended)
}

// processing guards the number of processors.
var processing sync.Mutex

// processors changes the number of goroutines that run at once.
func processors(by int) {
	processing.Lock()
	defer processing.Unlock()
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + by)
}
