package rfc2136

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/miekg/dns"

	"github.com/berthd/berth/agent"
)

// recheck is how long after a claim that was denied it is made again.
const recheck = time.Minute

// claim is what must be true of one RRset for a message to be carried out: it is
// made of these records, or there is none. Only the names that are this host's
// alone are claimed, so that what denies it is somebody with the same identity.
type claim struct {
	name    string
	kind    agent.RecordType
	records []agent.Record
}

// claims returns what must be true of the addresses at this host's own name, or
// nothing if some of that is uncertain: while a message about them is in doubt, or
// before the first one of this life. Half a claim that is true proves nothing.
func (l *ledger) claims(zone, own string) []claim {
	if own == "" {
		return nil
	}
	var out []claim
	for _, kind := range []agent.RecordType{agent.TypeA, agent.TypeAAAA} {
		c := claim{name: own, kind: kind}
		for k, e := range l.entries {
			if k.zone != zone || k.record.Name != own || k.record.Type != kind {
				continue
			}
			if !e.held || !e.doubt.IsZero() {
				return nil
			}
			c.records = append(c.records, k.record)
		}
		slices.SortFunc(c.records, agent.Record.Compare)
		out = append(out, c)
	}
	return out
}

// unsure notes that what is said to be in a zone may not be there.
func (l *ledger) unsure(zone string) {
	for k, e := range l.entries {
		if k.zone == zone {
			e.held = false
			l.entries[k] = e
		}
	}
}

// prerequisites returns the claim as RFC 2136 §2.4.2 (an RRset of these records)
// and §2.4.3 (no RRset) have it.
func (c claim) prerequisites() []dns.RR {
	if len(c.records) == 0 {
		return []dns.RR{&dns.ANY{Hdr: dns.RR_Header{
			Name: c.name, Rrtype: dns.StringToType[string(c.kind)], Class: dns.ClassNONE,
		}}}
	}
	var out []dns.RR
	for _, r := range c.records {
		r.TTL = 0
		out = append(out, resource(r))
	}
	return out
}

// mayClaim reports whether messages may depend on claims: not for a while after
// one was denied, nor before all has been said once more.
func (s *Sink) mayClaim(now time.Time) bool { return !s.restating && !now.Before(s.denied) }

// deny notes that the server has denied a claim. All that this host has in the
// zone is said once more, without claims, so that it is there whoever has removed
// some of it.
func (s *Sink) deny(m message, failures failures) {
	s.denied = s.now().Add(s.recheck)
	s.disputed, s.restating = true, true
	s.last = time.Time{} // at once
	s.ledger.unsure(m.Zone)
	own := m.claims[0].name
	s.log.Warn("the zone has other addresses of this host than it has written", "name", own, "answer", failures)
	s.health.Set(condIdentity, fmt.Errorf("somebody else writes the addresses of %s: %w", own, failures),
		"two agents have one identity (a cloned machine, a second berth), a person has edited the zone, or an earlier life without its journal has left addresses there: "+
			"compare `dig "+own+" ANY` with this host, give each host a node.id of its own, and remove what is left over")
}

// lookAgain sends the claims alone when one was denied a while ago. It returns
// when to do so next; zero for never.
func (s *Sink) lookAgain(ctx context.Context, t target, now time.Time) time.Time {
	if !s.disputed {
		return time.Time{}
	}
	if !s.mayClaim(now) {
		return s.denied
	}
	s.denied = now.Add(s.recheck)
	m := message{Zone: t.zone, claims: s.ledger.claims(t.zone, t.own)}
	if len(m.claims) == 0 {
		return s.denied
	}
	ok, _, failures := s.deliver(ctx, m) // it changes nothing: there is no intent
	switch {
	case ok:
		s.agreed()
		return time.Time{}
	case failures.denied():
		s.deny(m, failures)
		return now
	}
	return s.denied
}

// earliest returns the earlier of two times, of which zero is never.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// agreed notes that a claim was found to be true.
func (s *Sink) agreed() {
	s.disputed = false
	s.health.Set(condIdentity, nil, "")
}

var errDenied = errors.New("a prerequisite is not met")
