package logprune

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
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
	Planned   []planned   `json:"p,omitempty"`      // folders that are about to be deleted
	Deletions []Deletion  `json:"d,omitempty"`      // planned or finished, by Seq
	Done      []span      `json:"done,omitempty"`   // finished just as they were planned
}

// planned is deletions of folders with consecutive numbers, which are in one folder and
// go for one reason. It says in a third of the bytes what as many Deletions would.
type planned struct {
	First uint64    `json:"first"`
	Dir   string    `json:"dir"`
	Why   string    `json:"why"`
	At    time.Time `json:"at"`
	IDs   []string  `json:"ids"`
	Names []string  `json:"names,omitempty"` // of the containers; nil where none is known
	Bytes []int64   `json:"bytes"`
	Files []int64   `json:"files"`
}

// plan adds one, which may be done so.
func (r *record) plan(d *Deletion) {
	dir, name := path.Split(d.Path)
	dir = strings.TrimSuffix(dir, "/")
	n := len(r.Planned) - 1
	if n < 0 || !r.Planned[n].fits(d, dir) {
		r.Planned = append(r.Planned, planned{First: d.Seq, Dir: dir, Why: d.Why, At: d.Planned})
		n++
	}
	p := &r.Planned[n]
	p.IDs, p.Bytes, p.Files = append(p.IDs, name), append(p.Bytes, d.Bytes), append(p.Files, d.Files)
	if p.Names != nil || d.Container != "" {
		p.Names = append(append(p.Names, make([]string, len(p.IDs)-1-len(p.Names))...), d.Container)
	}
}

// fits reports whether one more deletion differs in nothing but what p has of each.
func (p *planned) fits(d *Deletion, dir string) bool {
	return p.First+uint64(len(p.IDs)) == d.Seq && p.Dir == dir && p.Why == d.Why && p.At.Equal(d.Planned)
}

// deletions returns what plan was given.
func (p *planned) deletions() []Deletion {
	out := make([]Deletion, 0, len(p.IDs))
	for i, id := range p.IDs {
		d := Deletion{Seq: p.First + uint64(i), Kind: KindFolder, Path: p.Dir + "/" + id, ID: id, Why: p.Why, Planned: p.At}
		if i < len(p.Names) {
			d.Container = p.Names[i]
		}
		if i < len(p.Bytes) && i < len(p.Files) {
			d.Bytes, d.Files = p.Bytes[i], p.Files[i]
		}
		out = append(out, d)
	}
	return out
}

// atLength returns the same record without groups.
func (r record) atLength() record {
	r.Deletions = slices.Clip(r.Deletions)
	for i := range r.Planned {
		r.Deletions = append(r.Deletions, r.Planned[i].deletions()...)
	}
	r.Planned = nil
	return r
}

// span is deletions with consecutive numbers, which are finished. It says of hundreds
// of them in one line what was said when they were planned.
type span struct {
	First uint64    `json:"first"`
	Last  uint64    `json:"last"`
	At    time.Time `json:"at"`
}

// finished adds one deletion to those that are.
func (r *record) finished(seq uint64, at time.Time) {
	if n := len(r.Done); n > 0 && r.Done[n-1].Last+1 == seq && r.Done[n-1].At.Equal(at) {
		r.Done[n-1].Last = seq
		return
	}
	r.Done = append(r.Done, span{seq, seq, at})
}

// and returns a record of both, r before next. Of more deletions than are remembered it
// has the newest. Only next may have what is planned.
func (r record) and(next record) record {
	next.Deletions = newest(append(slices.Clip(r.Deletions), next.Deletions...))
	next.Done = newest(append(slices.Clip(r.Done), next.Done...))
	return next
}

func newest[T any](all []T) []T { return all[max(len(all)-maxHistory, 0):] }

// ledger is what must survive a restart. It is used by one goroutine at a time.
type ledger struct {
	j       *journal.Journal
	engine  *engineMark // that was accepted; nil for none yet
	memory  *memory
	images  map[string]time.Time
	history []Deletion
	next    uint64
	pending record       // that is not written yet
	line    bytes.Buffer // the newest entry of the journal
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
	for _, d := range r.atLength().Deletions {
		l.next = max(l.next, d.Seq+1)
		i := l.find(d.Seq)
		switch {
		case i < len(l.history) && l.history[i].Seq == d.Seq:
			l.history[i] = d
		case i > 0 || len(l.history) < maxHistory:
			l.history = slices.Insert(l.history, i, d)
		}
	}
	if over := len(l.history) - maxHistory; over > 0 {
		l.history = slices.Delete(l.history, 0, over)
	}
	for _, s := range r.Done {
		for i := l.find(s.First); i < len(l.history) && l.history[i].Seq <= s.Last; i++ {
			l.history[i].Done = s.At
		}
	}
}

// find returns where in the history a number is, or would be.
func (l *ledger) find(seq uint64) int {
	i, _ := slices.BinarySearchFunc(l.history, seq, func(d Deletion, seq uint64) int { return cmp.Compare(d.Seq, seq) })
	return i
}

// write makes a record durable. A disk without room must not keep berth from
// making some: then the record waits in memory, and full is true. What a crash
// leaves half done is found in the trash, not in the journal. After any other error
// the record is as if it had never been; what waited before it still waits.
func (l *ledger) write(r record) (full bool, err error) {
	if l.j == nil {
		return false, errors.New("there is no journal")
	}
	r = l.pending.and(r)
	l.line.Reset()
	if err := json.NewEncoder(&l.line).Encode(r); err != nil {
		return false, err
	}
	err = l.j.Append(l.line.Bytes())
	switch {
	case err == nil:
		l.apply(r)
		l.pending = record{}
		return false, nil
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, journal.ErrFull):
		l.pending = record{} // r has it
		l.owe(r.atLength())
		return true, nil
	}
	return false, err
}

// owe has what became of deletions wait for the next write.
func (l *ledger) owe(r record) {
	l.apply(r)
	l.pending = l.pending.and(r)
}

// owes reports whether anything waits to be written.
func (l *ledger) owes() bool { return len(l.pending.Deletions)+len(l.pending.Done) > 0 }

// save writes all of it, if the memory has changed or anything waits to be written.
func (l *ledger) save() error {
	if l.j == nil || !l.memory.dirty && !l.owes() {
		return nil
	}
	if err := l.j.Checkpoint(l.encode()); err != nil {
		return err
	}
	l.memory.dirty, l.pending = false, record{}
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
