// Package dnsserver is berth's embedded DNS server: an authoritative server
// for the zone of this host's records, on the addresses where containers and
// the host itself can reach it, and nowhere else.
//
// # What it answers
//
// Every record of the newest set, at once: a new set is served as soon as it is
// there. SRV answers carry the addresses of their targets as additional
// records. Sets of several records come in a new order each time. Names come
// back in the case in which they were asked. A name that does not exist is
// NXDOMAIN, one without records of the type is NODATA, and both may be
// remembered for at most five seconds, so that a service which starts is found
// by those who asked too early. Before the first set the answer is SERVFAIL,
// which nobody remembers; so it is for missing names until the first whole set,
// because after a start they may be those of containers that are not known yet.
//
// Answers that do not fit are cut short and say so (TC), after additional
// records have been left out; TCP carries all. ANY gets one of the name's sets
// (RFC 8482), transfers are REFUSED, and so are other zones and other classes.
//
// # Where it listens
//
// On the configured addresses and on the gateway of every bridge network of the
// engine, over UDP and TCP. An address that is not up yet can be listened on all
// the same (IP_FREEBIND). One that another process has taken is tried again for
// ever; the health condition "listen" says which, and who has it. Public
// addresses are never listened on.
//
// # Forwarding
//
// With [Config.Forward], questions about other zones go to the host's
// resolvers, so that a container needs no other server. Only the host itself and
// the containers on its bridge networks are served so; for anyone else, and
// without it, they are REFUSED.
//
// # How it is fast
//
// A published set becomes an immutable table behind an atomic pointer. The
// answer about a name and type is packed when it is first asked for, and from
// then on copied behind the question: an answer costs one look-up and two or
// three copies, and allocates nothing. Questions are read and answers are
// written in batches. The message format of the hot path is this package's own.
//
// The package needs Linux.
package dnsserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/berthd/berth/agent"
)

// Name is the component's name in logs, health conditions and metrics.
const Name = "dnsserver"

// The names of the health conditions.
const (
	condListen   = "listen"
	condRecords  = "records"
	condUpstream = "upstream"
)

// Server serves the newest set of records. Make it with New; its exported
// methods are safe for concurrent use.
type Server struct {
	cfg    Config
	log    *slog.Logger
	health *agent.Scope
	store  *agent.Store
	// sockets are those of the environment, or the server's own.
	sockets agent.Sockets

	table     atomic.Pointer[table]
	clients   atomic.Pointer[clients]
	addrs     atomic.Pointer[addresses]
	meters    meters
	forwarder *forwarder
	forwards  sync.WaitGroup // forwarded questions that came over UDP

	slots   chan struct{} // one for each connection
	idle    time.Duration // how long a connection may say nothing
	buffers sync.Pool     // of *[maxTCP]byte
}

var (
	_ agent.RecordSink = (*Server)(nil)
	_ agent.Metered    = (*Server)(nil)
)

// New returns a server, which listens on nothing until Run. It takes the bridge
// networks from the store's snapshots.
func New(cfg Config, env agent.Env, store *agent.Store) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure %s: %w", Name, err)
	}
	s := &Server{
		cfg:     cfg,
		log:     env.Log.With("component", Name),
		health:  env.Health.Scope(Name),
		store:   store,
		sockets: env.Sockets,
		slots:   make(chan struct{}, maxConns),
		idle:    idleTimeout,
	}
	if s.sockets == nil {
		s.sockets = ownSockets{}
	}
	s.buffers.New = func() any { return new([maxTCP]byte) }
	s.health.Declare(condRecords, agent.SeverityWarning, 0)
	s.health.Declare(condUpstream, agent.SeverityError, 0)
	s.clients.Store(new(clients))
	s.addrs.Store(new(addresses))
	s.forwarder = newForwarder(cfg.Upstreams, s.Listening, s.health)
	return s, nil
}

// Name returns "dnsserver".
func (s *Server) Name() string { return Name }

// Applied returns the sequence number of the set that is served.
func (s *Server) Applied() uint64 {
	if t := s.table.Load(); t != nil {
		return t.seq
	}
	return 0
}

// Run serves until ctx ends. Its only errors are health conditions: an address
// that cannot be served does not stop the others.
func (s *Server) Run(ctx context.Context, want agent.Desired) error {
	feed := s.store.Subscribe()
	defer feed.Close()
	s.publish(want.Records()) // there may be a set already: serve it from the first question on
	var listening sync.WaitGroup
	listening.Go(func() { s.listen(ctx, feed) })
	defer s.forwards.Wait()
	defer listening.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-want.Changed():
			s.publish(want.Records())
		}
	}
}

// publish serves a set from now on. Its serial number is greater than the last
// one's, in this life of berth and, as it is the time, in earlier ones.
func (s *Server) publish(set agent.RecordSet, seq uint64) {
	if seq == 0 || seq == s.Applied() {
		return
	}
	start := time.Now()
	serial := uint32(start.Unix())
	last := s.table.Load()
	if last != nil {
		serial = max(serial, last.serial+1)
	}
	t, errs := newTable(set, seq, serial)
	s.meters.publishNanos.Store(int64(time.Since(start)))
	if t != nil {
		t.young = set.Partial && (last == nil || last.young)
		s.table.Store(t)
	}
	s.health.Set(condRecords, summary(errs), "these records are not served: correct the name that the container asks for")
}

// summary joins errors into one line for people, or nil when there are none. Of
// very many the first ones have to do.
func summary(errs []error) error {
	const most = 8
	if len(errs) == 0 {
		return nil
	}
	var texts []string
	for _, err := range errs[:min(len(errs), most)] {
		texts = append(texts, err.Error())
	}
	if n := len(errs) - most; n > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", n))
	}
	return errors.New(strings.Join(texts, "; "))
}
