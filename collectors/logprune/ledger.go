package logprune

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berthd/berth/agent/journal"
)

// Deletion is one thing that was deleted, or is to be.
type Deletion struct {
	Seq       uint64    `json:"seq"`
	Kind      string    `json:"kind"` // "folder", "image" or "container"
	Path      string    `json:"path,omitempty"`
	ID        string    `json:"id"`
	Container string    `json:"container,omitempty"` // the container's name, or the image's references
	Why       string    `json:"why"`
	Planned   time.Time `json:"planned"`
	Done      time.Time `json:"done,omitzero"` // zero while it is not finished
	Bytes     int64     `json:"bytes"`         // freed, as far as known
	Files     int64     `json:"files"`
	Error     string    `json:"error,omitempty"` // why it was not finished, or was undone
}

// What Deletion.Kind may be.
const (
	KindFolder    = "folder"
	KindImage     = "image"
	KindContainer = "container"
)

// maxHistory is how many deletions are remembered.
const maxHistory = 1000

// checkpoint is all that the journal holds, and its form has a version.
type checkpoint struct {
	Version int                  `json:"version"`
	Engine  *engineMark          `json:"engine,omitempty"`
	Seen    map[string]*seen     `json:"seen,omitempty"`
	Images  map[string]time.Time `json:"images,omitempty"` // last use, or first sight
	History []Deletion           `json:"history,omitempty"`
	Next    uint64               `json:"next"`
}

const ledgerVersion = 1

// record is one entry of the journal.
type record struct {
	Engine    *engineMark `json:"engine,omitempty"` // was accepted
	Deletions []Deletion  `json:"d,omitempty"`      // planned or finished, by Seq
}

// ledger is what must survive a restart. It is used by one goroutine at a time.
type ledger struct {
	j       *journal.Journal
	engine  *engineMark // that was accepted; nil for none yet
	memory  *memory
	images  map[string]time.Time
	history []Deletion
	next    uint64
	pending []Deletion // that are not written yet
}

func newLedger() *ledger {
	return &ledger{memory: newMemory(), images: make(map[string]time.Time), next: 1}
}

// openLedger opens the journal of a host.
func openLedger(path, host string) (*ledger, journal.Replay, error) {
	l := newLedger()
	j, replay, err := journal.Open(path, journal.Options{Owner: name, Host: host, State: l.encode, LogBytes: 1 << 20})
	if err != nil {
		return nil, replay, err
	}
	l.j = j
	if err := l.restore(replay); err != nil {
		// State of another version: what it knew makes berth less careful, not more.
		*l = *newLedger()
		l.j = j
		replay.Reason = errors.Join(replay.Reason, err)
	}
	return l, replay, nil
}

func (l *ledger) restore(replay journal.Replay) error {
	if replay.Checkpoint != nil {
		var c checkpoint
		if err := json.Unmarshal(replay.Checkpoint, &c); err != nil {
			return fmt.Errorf("read checkpoint: %w", err)
		}
		if c.Version != ledgerVersion {
			return fmt.Errorf("read checkpoint: version %d is unknown", c.Version)
		}
		l.engine, l.next = c.Engine, max(c.Next, 1)
		l.apply(record{Deletions: c.History})
		for id, s := range c.Seen {
			if s != nil {
				l.memory.add(id, s)
			}
		}
		for id, at := range c.Images {
			l.images[id] = at
		}
	}
	for _, data := range replay.Entries {
		var r record
		if err := json.Unmarshal(data, &r); err != nil {
			return fmt.Errorf("read entry: %w", err)
		}
		l.apply(r)
	}
	return nil
}

// encode returns the checkpoint. Marshalling these types cannot fail.
func (l *ledger) encode() []byte {
	data, err := json.Marshal(checkpoint{
		Version: ledgerVersion, Engine: l.engine, Seen: l.memory.byID, Images: l.images, History: l.history, Next: l.next,
	})
	if err != nil {
		panic(err)
	}
	return data
}

// apply brings the ledger up to date with a record; twice is as good as once. The
// history is in the order of Seq, and a batch may be longer than it.
func (l *ledger) apply(r record) {
	if r.Engine != nil {
		l.engine = r.Engine
	}
	for _, d := range r.Deletions {
		l.next = max(l.next, d.Seq+1)
		i, known := slices.BinarySearchFunc(l.history, d.Seq, func(d Deletion, seq uint64) int { return cmp.Compare(d.Seq, seq) })
		switch {
		case known:
			l.history[i] = d
		case i > 0 || len(l.history) < maxHistory:
			l.history = slices.Insert(l.history, i, d)
		}
	}
	if over := len(l.history) - maxHistory; over > 0 {
		l.history = slices.Delete(l.history, 0, over)
	}
}

// write makes a record durable. A disk without room must not keep berth from
// making some: then the record waits in memory, and full is true. What a crash
// leaves half done is found in the trash, not in the journal. After any other error
// the record is as if it had never been; what waited before it still waits.
func (l *ledger) write(r record) (full bool, err error) {
	if l.j == nil {
		return false, errors.New("there is no journal")
	}
	r.Deletions = append(slices.Clip(l.pending), r.Deletions...)
	data, err := json.Marshal(r)
	if err != nil {
		return false, err
	}
	err = l.j.Append(data)
	switch {
	case err == nil:
		l.apply(r)
		l.pending = nil
		return false, nil
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, journal.ErrFull):
		l.pending = nil // r has it
		l.owe(r.Deletions)
		return true, nil
	}
	return false, err
}

// owe has what became of deletions wait for the next write.
func (l *ledger) owe(all []Deletion) {
	l.apply(record{Deletions: all})
	l.pending = append(l.pending, all...)
	if over := len(l.pending) - maxHistory; over > 0 {
		l.pending = slices.Delete(l.pending, 0, over)
	}
}

// save writes all of it, if the memory has changed or anything waits to be written.
func (l *ledger) save() error {
	if l.j == nil || !l.memory.dirty && len(l.pending) == 0 {
		return nil
	}
	if err := l.j.Checkpoint(l.encode()); err != nil {
		return err
	}
	l.memory.dirty, l.pending = false, nil
	return nil
}

// accept makes an engine the one whose word counts. What is remembered of another
// one's containers is forgotten.
func (l *ledger) accept(m engineMark) error {
	was := l.memory
	l.memory = newMemory()
	l.memory.dirty = true
	old := l.engine
	l.engine = &m
	if l.j == nil {
		return nil
	}
	if err := l.j.Checkpoint(l.encode()); err != nil {
		l.memory, l.engine = was, old
		return err
	}
	l.memory.dirty = false
	return nil
}

func (l *ledger) close() error {
	if l.j == nil {
		return nil
	}
	return l.j.Close()
}
