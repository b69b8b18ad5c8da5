package rfc2136

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/berthd/berth/agent"
)

// ledger is what this host has added to the zones, as far as it can know: every
// record that is there because of us is in it, whatever was lost on the way. It
// is what survives in the journal; it does no I/O.
type ledger struct {
	entries map[key]entry
	pending *message // begun, and not settled
	fresh   []key    // of pending: what was not in entries before
}

// key is a record of a zone without its TTL, which belongs to the RRset and not
// to the record (RFC 2181 §5.2).
type key struct {
	zone   string
	record agent.Record
}

func keyOf(zone string, r agent.Record) key {
	r.TTL = 0
	return key{zone, r}
}

type entry struct {
	ttl  uint32 // unknownTTL after a doubtful change of it
	held bool   // a server has said that it is in the zone with this TTL
	gone bool   // a server has said that it is not in the zone
	// doubt is until when a message which nobody answered may still change the
	// record; zero without one.
	doubt time.Time
}

// unknownTTL is a TTL that no record has (RFC 2181 §8 ends at 2³¹-1).
const unknownTTL = 1<<32 - 1

func newLedger() *ledger { return &ledger{entries: make(map[key]entry)} }

// target is what the zones are to hold.
type target struct {
	zone    string
	own     string         // the name that is this host's alone; empty for none
	records []agent.Record // sorted
	partial bool           // remove nothing
}

// zones returns the zones with which there may be something to do: the target's
// first.
func (l *ledger) zones(t target) []string {
	seen := make(map[string]bool)
	for k := range l.entries {
		seen[k.zone] = true
	}
	delete(seen, t.zone)
	zones := slices.Sorted(maps.Keys(seen))
	if t.zone != "" {
		zones = slices.Insert(zones, 0, t.zone)
	}
	return zones
}

// plan returns all that is to be done in one zone to reach the target.
func (l *ledger) plan(zone string, t target, now time.Time) message {
	m := message{Zone: zone}
	wanted := make(map[key]bool)
	if zone == t.zone {
		for _, r := range t.records {
			k := keyOf(zone, r)
			if wanted[k] {
				continue // twice, with two TTLs: the lower one came first
			}
			wanted[k] = true
			e, ours := l.entries[k]
			if ours && (e.overdue(now) || e.ttl != r.TTL && !e.gone) {
				// BIND takes the new TTL of a record that is there; Knot does not.
				m.Delete = append(m.Delete, k.record)
			}
			if !e.held || e.ttl != r.TTL || e.overdue(now) {
				m.Add = append(m.Add, r)
			}
		}
	}
	for k, e := range l.entries {
		if !t.partial && k.zone == zone && !wanted[k] && (!e.gone || e.overdue(now)) {
			m.Delete = append(m.Delete, k.record)
		}
	}
	slices.SortFunc(m.Delete, agent.Record.Compare)
	return m
}

// overdue reports whether the time of doubt is over, so that the record can be
// put right for good.
func (e entry) overdue(now time.Time) bool { return !e.doubt.IsZero() && !now.Before(e.doubt) }

// begin notes that m is about to be sent. A message that was begun before and
// not settled is in doubt until then.
func (l *ledger) begin(m message, doubt time.Time) {
	if l.pending != nil {
		l.doubtful(doubt)
	}
	l.pending, l.fresh = &m, nil
	for _, r := range m.Add {
		k := keyOf(m.Zone, r)
		if _, ok := l.entries[k]; !ok {
			l.entries[k] = entry{ttl: r.TTL}
			l.fresh = append(l.fresh, k)
		}
	}
}

// applied settles the pending message: the zone has changed as it says. Sent is
// when that was; what was in doubt until then is in doubt no longer. A copy of
// the message which another server did not answer is in doubt until the given
// time; zero without one.
func (l *ledger) applied(sent, doubt time.Time) {
	m := l.pending
	left := func(k key) time.Time {
		if old := l.entries[k]; doubt.IsZero() && !old.overdue(sent) {
			return old.doubt
		}
		return doubt
	}
	for _, r := range m.Delete {
		k := keyOf(m.Zone, r)
		if d := left(k); d.IsZero() {
			delete(l.entries, k)
		} else {
			l.entries[k] = entry{ttl: l.entries[k].ttl, gone: true, doubt: d}
		}
	}
	for _, r := range m.Add {
		k := keyOf(m.Zone, r)
		l.entries[k] = entry{ttl: r.TTL, held: true, doubt: left(k)}
	}
	l.pending, l.fresh = nil, nil
}

// refused settles the pending message: the zone has not changed.
func (l *ledger) refused() {
	for _, k := range l.fresh {
		delete(l.entries, k)
	}
	l.pending, l.fresh = nil, nil
}

// doubtful settles the pending message: nobody knows whether the zone has
// changed, or still will, until the given time.
func (l *ledger) doubtful(until time.Time) {
	m := l.pending
	for _, r := range m.Delete {
		k := keyOf(m.Zone, r)
		l.entries[k] = entry{ttl: l.entries[k].ttl, doubt: until}
	}
	for _, r := range m.Add {
		k := keyOf(m.Zone, r)
		e := entry{ttl: r.TTL, doubt: until}
		if l.entries[k].ttl != r.TTL {
			e.ttl = unknownTTL
		}
		l.entries[k] = e
	}
	l.pending, l.fresh = nil, nil
}

// nextDoubt returns the first time after now at which a doubt ends; zero for none.
func (l *ledger) nextDoubt(now time.Time) time.Time {
	var first time.Time
	for _, e := range l.entries {
		if e.doubt.After(now) && (first.IsZero() || e.doubt.Before(first)) {
			first = e.doubt
		}
	}
	return first
}

// count returns how many records are in the zones, or may be.
func (l *ledger) count() int {
	n := 0
	for _, e := range l.entries {
		if !e.gone {
			n++
		}
	}
	return n
}

// compareKeys orders keys by zone and record.
func compareKeys(a, b key) int {
	if c := strings.Compare(a.zone, b.zone); c != 0 {
		return c
	}
	return a.record.Compare(b.record)
}
