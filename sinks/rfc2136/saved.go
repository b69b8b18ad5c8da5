package rfc2136

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/journal"
)

// What the journal holds is JSON, so that a person can read what this host has
// done: a checkpoint of the ledger, then two entries for each message.

// savedEntry is an entry of the journal: a message before it is sent, or what
// became of the one before. A message without the latter is in doubt.
type savedEntry struct {
	Send    *savedMessage `json:"send,omitempty"`
	Settled string        `json:"settled,omitempty"`
}

// The values of savedEntry.Settled.
const (
	settledApplied = "applied" // and no copy of it is under way
	settledRefused = "refused"
)

type savedMessage struct {
	Zone   string        `json:"zone"`
	Delete []savedRecord `json:"delete,omitempty"`
	Add    []savedRecord `json:"add,omitempty"`
}

// savedRecord is a record, apart from agent.Record so that a change there does
// not make old journals unreadable.
type savedRecord struct {
	Name     string           `json:"name"`
	Type     agent.RecordType `json:"type"`
	TTL      uint32           `json:"ttl"`
	Priority uint16           `json:"priority,omitempty"`
	Weight   uint16           `json:"weight,omitempty"`
	Port     uint16           `json:"port,omitempty"`
	Target   string           `json:"target,omitempty"`
	Addr     netip.Addr       `json:"addr,omitzero"`
}

// savedState is a checkpoint.
type savedState struct {
	Entries []savedOwned  `json:"entries"`
	Pending *savedMessage `json:"pending,omitempty"`
}

type savedOwned struct {
	Zone string `json:"zone"`
	savedRecord
	Doubt bool `json:"doubt,omitempty"`
}

func save(records []agent.Record) []savedRecord {
	out := make([]savedRecord, len(records))
	for i, r := range records {
		out[i] = savedRecord(r)
	}
	return out
}

func restore(records []savedRecord) []agent.Record {
	out := make([]agent.Record, len(records))
	for i, r := range records {
		out[i] = agent.Record(r)
	}
	return out
}

func saveMessage(m message) *savedMessage {
	return &savedMessage{m.Zone, save(m.Delete), save(m.Add)}
}

func (s *savedMessage) restore() message {
	return message{Zone: s.Zone, Delete: restore(s.Delete), Add: restore(s.Add)}
}

// encode marshals what cannot fail to be marshalled: strings, numbers, addresses.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encode %T: %v", v, err))
	}
	return b
}

// state returns the whole ledger for a checkpoint.
func (l *ledger) state() []byte {
	fresh := make(map[key]bool)
	for _, k := range l.fresh {
		fresh[k] = true // comes back with the pending message
	}
	s := savedState{Entries: []savedOwned{}}
	for _, k := range slices.SortedFunc(maps.Keys(l.entries), compareKeys) {
		if fresh[k] {
			continue
		}
		e := l.entries[k]
		r := savedRecord(k.record)
		r.TTL = e.ttl
		s.Entries = append(s.Entries, savedOwned{k.zone, r, !e.doubt.IsZero()})
	}
	if l.pending != nil {
		s.Pending = saveMessage(*l.pending)
	}
	return encode(s)
}

// replay returns the ledger that a journal tells of, with what it held taken as
// uncertain: the zone may have been restored from a copy meanwhile, and saying it
// all once more costs one message. Doubts last until the given time. With an
// error, the ledger is what could be read in front of it.
func replay(r journal.Replay, doubt time.Time) (*ledger, error) {
	l := newLedger()
	if err := l.restore(r.Checkpoint, doubt); err != nil {
		return l, err
	}
	for i, data := range r.Entries {
		var e savedEntry
		err := json.Unmarshal(data, &e)
		switch {
		case err != nil:
			return l, fmt.Errorf("read entry %d of the journal: %w", i, err)
		case e.Send != nil:
			l.begin(e.Send.restore(), doubt)
		case l.pending == nil:
			return l, fmt.Errorf("read entry %d of the journal: it settles nothing", i)
		case e.Settled == settledApplied:
			l.applied(time.Time{}, time.Time{})
		case e.Settled == settledRefused:
			l.refused()
		}
	}
	if l.pending != nil {
		l.doubtful(doubt)
	}
	for k, e := range l.entries {
		e.held, e.gone = false, false
		l.entries[k] = e
	}
	return l, nil
}

func (l *ledger) restore(checkpoint []byte, doubt time.Time) error {
	if checkpoint == nil {
		return nil
	}
	var s savedState
	if err := json.Unmarshal(checkpoint, &s); err != nil {
		return fmt.Errorf("read the journal's checkpoint: %w", err)
	}
	for _, o := range s.Entries {
		e := entry{ttl: o.TTL}
		if o.Doubt {
			e.doubt = doubt
		}
		l.entries[keyOf(o.Zone, agent.Record(o.savedRecord))] = e
	}
	if s.Pending != nil {
		l.begin(s.Pending.restore(), doubt)
	}
	return nil
}
