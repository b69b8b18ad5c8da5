package route53

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// ledger is what this host has written, as the journal holds it.
type ledger struct {
	Zone hostedZone
	// Adopted says that what an earlier life without a journal may have left
	// has been looked for.
	Adopted bool
	Sets    map[key]*entry
}

// entry is what is known of one record set that is this host's.
type entry struct {
	Have *value `json:"have,omitempty"` // what it holds; nil for nothing
	// Unsure is set from the intent to change the set until the answer: it holds
	// Have, or else Next.
	Unsure bool   `json:"unsure,omitempty"`
	Next   *value `json:"next,omitempty"`
	// Doubt is set when an intent without an answer was followed by another: the
	// set may hold what neither Have nor Next says.
	Doubt bool `json:"doubt,omitempty"`
}

// hostedZone is a zone that was found, and what it was found by.
type hostedZone struct {
	ID       string `json:"id,omitempty"`
	Name     string `json:"name,omitempty"`
	Selector string `json:"selector,omitempty"`
}

// operation is what a journal entry says happened to some sets.
type operation string

const (
	opIntent  operation = "intent"  // is about to make them the values
	opDone    operation = "done"    // made them what the intent says
	opVoid    operation = "void"    // the intent was refused
	opFound   operation = "found"   // they hold the values, whoever wrote them
	opForget  operation = "forget"  // they are none of this host's
	opZone    operation = "zone"    // found the hosted zone
	opAdopted operation = "adopted" // looked for leftovers
)

// record is one entry of the journal.
type record struct {
	Op   operation   `json:"op"`
	Sets []setRecord `json:"sets,omitempty"`
	Zone hostedZone  `json:"zone,omitzero"`
}

type setRecord struct {
	Key   key    `json:"k"`
	Value *value `json:"v,omitempty"`
}

// checkpoint is the whole ledger. Its form has a version of its own.
type checkpoint struct {
	Version int        `json:"version"`
	Zone    hostedZone `json:"zone,omitzero"`
	Adopted bool       `json:"adopted"`
	Sets    []setEntry `json:"sets"`
}

type setEntry struct {
	Key   key    `json:"k"`
	Entry *entry `json:"e"`
}

const ledgerVersion = 1

func newLedger() *ledger { return &ledger{Sets: make(map[key]*entry)} }

// replay builds the ledger from a journal.
func replay(state []byte, entries [][]byte) (*ledger, error) {
	l := newLedger()
	if state != nil {
		var c checkpoint
		if err := json.Unmarshal(state, &c); err != nil {
			return l, fmt.Errorf("read checkpoint: %w", err)
		}
		if c.Version != ledgerVersion {
			return l, fmt.Errorf("read checkpoint: version %d is unknown", c.Version)
		}
		l.Zone, l.Adopted = c.Zone, c.Adopted
		for _, s := range c.Sets {
			l.Sets[s.Key] = s.Entry
		}
	}
	for _, data := range entries {
		var r record
		if err := json.Unmarshal(data, &r); err != nil {
			return l, fmt.Errorf("read entry: %w", err)
		}
		l.apply(r)
	}
	return l, nil
}

// encode returns the checkpoint. Marshalling these types cannot fail.
func (l *ledger) encode() []byte {
	c := checkpoint{Version: ledgerVersion, Zone: l.Zone, Adopted: l.Adopted}
	for _, k := range slices.SortedFunc(maps.Keys(l.Sets), key.compare) {
		c.Sets = append(c.Sets, setEntry{k, l.Sets[k]})
	}
	data, err := json.Marshal(c)
	if err != nil {
		panic(err)
	}
	return data
}

// apply brings the ledger up to date with a record. Applying one twice in a row
// is as good as once.
func (l *ledger) apply(r record) {
	switch r.Op {
	case opZone:
		l.Zone = r.Zone
	case opAdopted:
		l.Adopted = true
	}
	for _, s := range r.Sets {
		e := l.Sets[s.Key]
		if e == nil {
			e = new(entry)
		}
		switch r.Op {
		case opIntent:
			e.Doubt = e.Unsure
			e.Unsure, e.Next = true, s.Value
		case opDone:
			*e = entry{Have: s.Value}
		case opVoid:
			if !e.Doubt { // what the intent before it did is still unknown
				*e = entry{Have: e.Have}
			}
		case opFound:
			*e = entry{Have: s.Value}
		case opForget:
			*e = entry{}
		}
		if e.Have == nil && !e.Unsure {
			delete(l.Sets, s.Key)
		} else {
			l.Sets[s.Key] = e
		}
	}
}
