// Package rfc2136 keeps this host's records in a zone of a name server that
// accepts dynamic updates: BIND, Knot, PowerDNS and others (RFC 2136), signed with
// TSIG (RFC 8945), over TCP.
//
// # What it writes
//
// Single records are added and removed, never whole sets, so that any number of
// hosts write to one zone without reading it: _calc._tcp holds a record of each
// host that runs calc. One message carries everything that has changed, removals
// first, and the server applies all of it or nothing; very many changes take
// several. The first change goes out at once, and those of the next 250 ms
// together.
//
// # What is ours
//
// Exactly what the journal says that this host has added; the zone is never
// listed or transferred. The name server cannot tell two writers of one record
// apart: a record that somebody else had added with the same data is removed when
// this host no longer wants it. What the server drops silently, such as records
// at a name that has a CNAME (RFC 2136 §3.4.2.2), is not noticed.
//
// The names of a set's records have one TTL for all hosts (RFC 2181 §5.2): with
// hosts that disagree, the one which wrote last decides. Give all hosts of a fleet
// the same discovery.ttl.
//
// # Who else writes
//
// The addresses at the host's own name (<node>.<domain>) are nobody else's, and
// messages claim, by a prerequisite, that they are as this host has written them.
// A server that denies it has found a second agent with the same identity, or
// somebody who edits the zone: the condition "identity" says so, what this host
// wants is written all the same, and the claim is made again each minute until it
// is true. Nothing of the other writer's is removed. Two agents notice each other
// when either has something to change, and not while a message is in doubt.
//
// # What is not lost
//
// Each message is in the journal, on disk, before it is sent, and what became of
// it afterwards. An update may be sent again without harm. After a start, all that
// the journal tells of is said once more, so that a zone which was restored from
// an older copy is right again after a restart of berth.
//
// A message without an answer is in doubt: it may have been applied, and as long
// as its signature is valid it may still be, after newer ones. What it was about
// is therefore put right twice: at once, and when the signature has expired. Only
// a signed answer ends a doubt.
//
// # When it does not work
//
// It tries again for ever, at random moments of growing spans, up to 30 s. The
// condition "update" says which server said what, and what to do: a clock that is
// wrong, a key that the server does not know, a change that it does not allow. A
// server that fails while another one accepts is the condition "server". "clock"
// warns before a wrong clock makes updates fail, "journal" says that the disk
// takes no intents, without which nothing is sent, and "zone" that the records lie
// outside of the server's zone.
package rfc2136

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/journal"
)

// Name is the component's name in logs, health conditions and metrics.
const Name = "rfc2136"

// The names of the health conditions.
const (
	condUpdate  = "update"
	condServer  = "server"
	condClock   = "clock"
	condJournal = "journal"
	condZone    = "zone"

	condIdentity = "identity"
)

const (
	// coalesce is the time between the first messages of two changes.
	coalesce = 250 * time.Millisecond
	// The spans of retries double from the first to the last; the moment within
	// each is random, so that the hosts of a fleet do not come back together.
	firstRetry = 500 * time.Millisecond
	lastRetry  = 30 * time.Second
	// avoid is how long a server that failed is tried after the others.
	avoid = time.Minute
	// doubtful is how long a message without an answer can still be applied: its
	// signature is valid for the fudge in front of the server's clock, which may
	// be late by as much.
	doubtful = 2 * fudge * time.Second
	// clockWarning is the difference of clocks from which on there is a warning.
	clockWarning = fudge * time.Second / 3
)

// Sink sends updates. Make it with New; Run and Remove are not called at the same
// time, its other methods are safe for concurrent use.
type Sink struct {
	cfg    Config
	log    *slog.Logger
	health *agent.Scope
	node   agent.NodeSource
	path   string // of the journal
	client client
	// missing is what the config lacks; nothing is done then.
	missing error

	applied atomic.Uint64
	meters  meters

	// The following belong to Run or Remove.
	journal *journal.Journal // nil while it is not open
	ledger  *ledger
	retries map[string]retry     // by zone, or "" for the journal
	failed  map[string]time.Time // servers, by when they failed
	last    time.Time            // when the last change began to be sent
	more    bool                 // that change goes on
	trouble error                // why the last message was not applied

	denied    time.Time // until then, no claim is made
	disputed  bool      // the last claim was denied
	restating bool      // and what this host wants has not been said since

	// What tests change.
	pace  time.Duration // coalesce
	doubt time.Duration // doubtful
	limit int           // maxMessage
	now   func() time.Time

	recheck time.Duration
	step    func(name string) // called between the steps of a message
}

type retry struct {
	failures int
	at       time.Time
}

var (
	_ agent.RecordSink = (*Sink)(nil)
	_ agent.Metered    = (*Sink)(nil)
)

// New returns a sink, which does nothing until Run or Remove. Its journal is in
// env.StateDir. A config in which only servers or key are missing is no error
// here: such a sink can be described, but Run only says what is missing, and
// Remove returns it.
func New(cfg Config, env agent.Env) (*Sink, error) {
	cfg.Enabled = true
	missing := cfg.Validate()
	cfg.Enabled = false // now only what is there counts
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure %s: %w", Name, err)
	}
	s := &Sink{
		cfg:     cfg,
		log:     env.Log.With("component", Name),
		health:  env.Health.Scope(Name),
		node:    env.Node,
		path:    filepath.Join(env.StateDir, Name+".journal"),
		missing: missing,
		client:  client{cfg, time.Now},
		ledger:  newLedger(),
		retries: make(map[string]retry),
		failed:  make(map[string]time.Time),
		pace:    coalesce,
		doubt:   doubtful,
		limit:   maxMessage,
		recheck: recheck,
		now:     time.Now,
		step:    func(string) {},
	}
	// A server that is restarted is back within seconds.
	s.health.Declare(condUpdate, agent.SeverityError, 5*time.Second)
	s.health.Declare(condServer, agent.SeverityWarning, 5*time.Second)
	s.health.Declare(condClock, agent.SeverityWarning, 0)
	// What the second look finds in order wakes nobody up: an address that was
	// there before, or a server that lags behind another one.
	s.health.Declare(condIdentity, agent.SeverityWarning, recheck*3/2)
	return s, nil
}

// Name returns "rfc2136".
func (s *Sink) Name() string { return Name }

// Applied returns the sequence number of the newest set that the zone is known to
// hold.
func (s *Sink) Applied() uint64 { return s.applied.Load() }

// Run keeps the zone at the newest set until ctx ends. Its only errors are health
// conditions.
func (s *Sink) Run(ctx context.Context, want agent.Desired) error {
	if s.missing != nil {
		s.health.Set(condUpdate, s.missing, "complete the section rfc2136: packaging/examples has configs of both sides")
		<-ctx.Done()
		return nil
	}
	defer s.close()
	s.loop(ctx, want.Changed(), func() (target, uint64, bool) {
		set, seq := want.Records()
		if seq == 0 || !set.Node.Settled {
			return target{}, 0, false
		}
		t := target{
			zone: s.cfg.zone(set.Zone), own: dns.CanonicalName(set.Node.Label() + "." + set.Zone),
			records: set.Records, partial: set.Partial,
		}
		err := outside(t)
		s.health.Set(condZone, err, "set rfc2136.zone to a zone that discovery.domain lies in")
		return t, seq, err == nil
	}, nil)
	return nil
}

// outside returns an error if there is a record that is not in the target's zone.
func outside(t target) error {
	for _, r := range t.records {
		if !dns.IsSubDomain(t.zone, r.Name) {
			return fmt.Errorf("%s is not in the zone %s", r.Name, t.zone)
		}
	}
	return nil
}

// Remove deletes all of this host's records, in whichever zone they are, and
// returns nil when a server has said that they are gone. It tries until ctx ends,
// and then returns why not. An addition that nobody has answered and that still
// hangs in the network may come after it, for as long as its signature is valid.
func (s *Sink) Remove(ctx context.Context) error {
	if s.missing != nil {
		return fmt.Errorf("remove records: %w", s.missing)
	}
	defer s.close()
	ctx, done := context.WithCancelCause(ctx)
	defer done(nil)
	nothing := func() (target, uint64, bool) { return target{}, 0, true }
	s.loop(ctx, nil, nothing, func() { done(errRemoved) })
	err := context.Cause(ctx)
	switch {
	case errors.Is(err, errRemoved):
		return nil
	case s.trouble != nil:
		return fmt.Errorf("remove records: %w: %w", err, s.trouble)
	}
	return fmt.Errorf("remove records: %w", err)
}

var errRemoved = errors.New("removed")

// loop works towards what want returns (the target, its number, and whether there
// is one) until ctx ends. It calls reached whenever there is nothing left to do.
func (s *Sink) loop(ctx context.Context, changed <-chan struct{}, want func() (target, uint64, bool), reached func()) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		var nodeChanged <-chan struct{}
		if s.node != nil {
			nodeChanged = s.node.Changed()
		}
		at := s.turn(ctx, want, reached)
		timer.Stop()
		if !at.IsZero() {
			timer.Reset(max(0, at.Sub(s.now())))
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-nodeChanged:
		case <-timer.C:
		}
	}
}

// turn sends one message at most. It returns when the next turn is due if nothing
// happens before: zero for never.
func (s *Sink) turn(ctx context.Context, want func() (target, uint64, bool), reached func()) time.Time {
	t, seq, ok := want()
	if !ok {
		return time.Time{}
	}
	now := s.now()
	if ready, at := s.open(now); !ready {
		return at
	}
	m, at := s.next(t, now)
	if m.empty() {
		if at.IsZero() {
			s.reached(seq, reached)
			return earliest(s.ledger.nextDoubt(now), s.lookAgain(ctx, t, now))
		}
		return at
	}
	if at := s.last.Add(s.pace); !s.more && now.Before(at) {
		return at
	}
	if !s.more {
		s.last = now
	}
	m, s.more = m.cut(s.limit)
	if m.Zone == t.zone && s.mayClaim(now) {
		m.claims = s.ledger.claims(t.zone, t.own)
	}
	if !s.send(ctx, m, now) {
		s.more = false
	} else if m, at := s.next(t, s.now()); m.empty() && at.IsZero() {
		s.reached(seq, reached)
	}
	return now // see what is next
}

// next returns what is to be done in the first zone that has something, and is
// not to be left alone for now; otherwise when the first of those is due, or zero
// if there is none.
func (s *Sink) next(t target, now time.Time) (message, time.Time) {
	var due time.Time
	for _, zone := range s.ledger.zones(t) {
		m := s.ledger.plan(zone, t, now)
		if m.empty() {
			continue
		}
		at := s.retries[zone].at
		if !now.Before(at) {
			return m, time.Time{}
		}
		if due.IsZero() || at.Before(due) {
			due = at
		}
	}
	return message{}, due
}

// reached notes that the zones are as the set with this number wants them.
func (s *Sink) reached(seq uint64, then func()) {
	s.applied.Store(max(seq, s.applied.Load()))
	s.health.Set(condUpdate, nil, "")
	if then != nil {
		then()
	}
}

// send journals one message and has a server apply it, and reports whether that
// worked. If not, the zone is left alone for a while.
func (s *Sink) send(ctx context.Context, m message, now time.Time) bool {
	s.step("before the intent")
	if err := s.append(savedEntry{Send: saveMessage(m)}); err != nil {
		return false
	}
	s.ledger.begin(m, now.Add(s.doubt))
	s.step("after the intent")
	ok, harmless, failures := s.deliver(ctx, m)
	s.step("after the message")
	switch {
	case ok && harmless:
		if s.append(savedEntry{Settled: settledApplied}) == nil {
			s.step("after the outcome")
		}
		s.ledger.applied(now, time.Time{})
	case ok:
		s.ledger.applied(now, s.now().Add(s.doubt))
	case harmless:
		_ = s.append(savedEntry{Settled: settledRefused}) // without it, it is in doubt
		s.ledger.refused()
	default:
		s.ledger.doubtful(s.now().Add(s.doubt))
	}
	s.meters.records.Store(int64(s.ledger.count()))
	switch {
	case ok:
		delete(s.retries, m.Zone)
		s.restating = s.restating && s.more
		if len(m.claims) > 0 {
			s.agreed()
		}
		return true
	case failures.denied():
		s.deny(m, failures)
		return false // and again at once
	}
	if ctx.Err() == nil {
		s.postpone(m.Zone)
		s.trouble = fmt.Errorf("update zone %s: %w", m.Zone, failures)
		s.health.Set(condUpdate, s.trouble, failures.hint())
	}
	return false
}

// deliver tries the servers one after the other. Ok means that one has applied
// the message, harmless that no copy of it is left which may still be applied.
func (s *Sink) deliver(ctx context.Context, m message) (ok, harmless bool, failed failures) {
	harmless = true
	for _, server := range s.servers() {
		skew, f := s.client.exchange(ctx, server, m.update())
		if f == nil {
			s.meters.count("applied")
			delete(s.failed, server)
			s.checkClock(server, skew)
			s.reportServers(failed)
			return true, harmless, nil
		}
		harmless = harmless && f.harmless
		failed = append(failed, f)
		if ctx.Err() != nil {
			return false, harmless, failed // not the server's fault
		}
		s.meters.count(string(f.kind))
		if f.kind == denied {
			return false, harmless, failed // by the zone, whichever server is asked
		}
		s.failed[server] = s.now()
	}
	return false, harmless, failed
}

// reportServers sets the condition of the servers that failed while another one
// accepted the update.
func (s *Sink) reportServers(failed failures) {
	switch {
	case len(failed) > 0:
		s.health.Set(condServer, failed, "another server takes the updates; "+failed.hint())
	case len(s.failed) == 0:
		s.health.Set(condServer, nil, "")
	}
}

// servers returns the servers in the order in which to try them: as configured,
// those that failed of late behind the others.
func (s *Sink) servers() []string {
	now := s.now()
	late := func(server string) int {
		if at, ok := s.failed[server]; ok && now.Sub(at) < avoid {
			return 1
		}
		return 0
	}
	return slices.SortedStableFunc(slices.Values(s.cfg.Servers), func(a, b string) int { return late(a) - late(b) })
}

// checkClock warns of a clock that is about to make updates fail.
func (s *Sink) checkClock(server string, skew time.Duration) {
	s.meters.skew.Store(int64(skew))
	var err error
	if skew.Abs() >= clockWarning {
		err = fmt.Errorf("%s: %s", server, skewText(skew))
	}
	s.health.Set(condClock, err, fmt.Sprintf("updates are refused from %v on: run NTP here and on the server", fudge*time.Second))
}

// postpone leaves a zone alone for a random time of a span that doubles.
func (s *Sink) postpone(zone string) {
	r := s.retries[zone]
	span := min(lastRetry, firstRetry<<min(r.failures, 16))
	s.retries[zone] = retry{r.failures + 1, s.now().Add(rand.N(span))}
}
