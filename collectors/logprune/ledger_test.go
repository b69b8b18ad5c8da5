package logprune

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"
)

// reopened returns the history that a restart finds.
func reopened(t *testing.T, path string) []Deletion {
	t.Helper()
	l, replay, err := openLedger(path, "host-1")
	must(err)
	defer l.close()
	if replay.Reason != nil {
		t.Errorf("got the journal set aside: %v", replay.Reason)
	}
	return l.history
}

func seqs(all []Deletion) []uint64 {
	var out []uint64
	for _, d := range all {
		out = append(out, d.Seq)
	}
	return out
}

// An error that is not that of a full disk loses nothing of what waits already.
func TestJournalThatFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "prune.journal")
	l, _, err := openLedger(path, "host-1")
	must(err)
	if _, err := l.write(record{Deletions: []Deletion{{Seq: 1}}}); err != nil {
		t.Fatalf("write: %v", err)
	}
	l.owe(record{Deletions: []Deletion{{Seq: 2}}})
	must(l.j.Close())
	if full, err := l.write(record{Deletions: []Deletion{{Seq: 3}}}); full || err == nil {
		t.Fatalf("write to a closed journal: got %v, %v, want an error", full, err)
	}
	again, _, err := openLedger(path, "host-1")
	must(err)
	l.j = again.j
	must(l.save())
	must(l.close())
	if got := seqs(reopened(t, path)); !slices.Equal(got, []uint64{1, 2}) {
		t.Errorf("got %v in the journal after a restart, want 1 and 2: the third was refused", got)
	}
}

// What was deleted while the journal failed is written down by the first cycle that
// it does not fail in.
func TestDeletionsThatCouldNotBeWritten(t *testing.T) {
	s := newStage(t, scratch(t))
	dead := s.folder(id("dead"))
	s.cycle()
	s.k.before = func(op, _ string) error {
		if op == "renameat2" {
			must(s.p.ledger.j.Close())
		}
		return nil
	}
	s.later(2 * time.Hour)
	s.k.before = nil
	s.wants(false, dead)
	if s.conditions() == nil {
		t.Error("got no condition, want one about the journal")
	}
	path := filepath.Join(s.dir, "state/prune.journal")
	l, _, err := openLedger(path, "host-1")
	must(err)
	s.p.ledger.j = l.j
	s.cycle()
	if err := s.conditions(); err != nil {
		t.Errorf("got conditions %v, want none", err)
	}
	must(s.p.ledger.close())
	if got := reopened(t, path); len(got) != 1 || got[0].Done.IsZero() || got[0].Planned.After(got[0].Done) {
		t.Errorf("got the journal %+v, want one deletion, planned and done", got)
	}
}

// Batches may be longer than what is remembered: then the newest are.
func TestHistoryIsInOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "prune.journal")
	l, _, err := openLedger(path, "host-1")
	must(err)
	const n = maxHistory + maxHistory/2
	var planned, done record
	for seq := range uint64(n) {
		planned.Deletions = append(planned.Deletions, Deletion{Seq: seq + 1})
		done.Deletions = append(done.Deletions, Deletion{Seq: seq + 1, Done: time.Unix(1, 0)})
	}
	for _, r := range []record{planned, done} {
		if _, err := l.write(r); err != nil {
			t.Fatalf("write: %v", err)
		}
	}
	check := func(when string, got []Deletion) {
		t.Helper()
		if len(got) != maxHistory {
			t.Fatalf("%s: got %d deletions, want %d", when, len(got), maxHistory)
		}
		for i, d := range got {
			if want := uint64(n - maxHistory + i + 1); d.Seq != want || d.Done.IsZero() {
				t.Fatalf("%s: got number %d, done at %v, in place %d; want %d, done", when, d.Seq, d.Done, i, want)
			}
		}
	}
	check("in memory", l.history)
	must(l.close())
	check("after a restart", reopened(t, path))
}

// What is written in short is read at length: a restart finds what was planned, what was
// done as planned, and what was not, with all that is said of each.
func TestJournalInShort(t *testing.T) {
	seed := rand.Uint64() % 1e9
	rng := rand.New(rand.NewPCG(seed, 1))
	path := filepath.Join(t.TempDir(), "prune.journal")
	l, _, err := openLedger(path, "host-1")
	must(err)
	var want []Deletion
	at := time.Unix(1_800_000_000, 0).UTC()
	for range 20 {
		var planned, became record
		at = at.Add(time.Second)
		for range rng.IntN(30) {
			id := fmt.Sprintf("%012x", rng.Uint64N(1e12))
			d := Deletion{
				Seq: uint64(len(want) + 1), Kind: KindFolder, ID: id, Path: fmt.Sprintf("/var/log/o/s%d/containers/%s", rng.IntN(3), id),
				Why: []string{"its container is gone", "it is full"}[rng.IntN(2)], Planned: at, Bytes: rng.Int64N(1e6), Files: rng.Int64N(9),
			}
			if rng.IntN(3) == 0 {
				d.Container = fmt.Sprint("web-", len(want))
			}
			planned.plan(&d)
			switch rng.IntN(4) {
			case 0: // interrupted
			case 1:
				d.Error, d.Bytes, d.Files = "it is open", 0, 0
				became.Deletions = append(became.Deletions, d)
			default:
				d.Done = at.Add(time.Millisecond)
				became.finished(d.Seq, d.Done)
			}
			want = append(want, d)
		}
		if _, err := l.write(planned); err != nil {
			t.Fatal(err)
		}
		l.owe(became)
	}
	if !reflect.DeepEqual(l.history, want) {
		t.Fatalf("seed %d: in memory: got %+v, want %+v", seed, l.history, want)
	}
	if _, err := l.write(record{}); err != nil {
		t.Fatal(err)
	}
	must(l.close())
	if got := reopened(t, path); !reflect.DeepEqual(got, want) {
		t.Errorf("seed %d: after a restart: got %+v, want %+v", seed, got, want)
	}
}
