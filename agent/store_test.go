package agent

import (
	"net/netip"
	"sync"
	"testing"
)

func TestLatest_CoalescesForASlowReader(t *testing.T) {
	var l Latest[int]
	if v, seq := l.Load(); v != 0 || seq != 0 {
		t.Errorf("before the first: got %d, %d", v, seq)
	}
	slow, closed := l.Subscribe(), l.Subscribe()
	<-slow.Changed()
	<-closed.Changed()
	closed.Close()
	closed.Close()
	for i := range 1000 {
		l.Publish(i)
	}
	<-slow.Changed()
	if v, seq := slow.Load(); v != 999 || seq != 1000 {
		t.Errorf("got %d, %d, want the newest", v, seq)
	}
	for name, sub := range map[string]*Subscription[int]{"slow": slow, "closed": closed} {
		select {
		case <-sub.Changed():
			t.Errorf("%s: a notification too many", name)
		default:
		}
	}
	slow.Close()
}

func TestLatest_NewSubscriberIsToldAtOnce(t *testing.T) {
	var l Latest[string]
	l.Publish("old")
	sub := l.Subscribe()
	defer sub.Close()
	<-sub.Changed()
	if v, _ := sub.Load(); v != "old" {
		t.Errorf("got %q", v)
	}
}

// Whoever is told, and then loads, never misses the last value.
func TestLatest_NobodyMissesTheLast(t *testing.T) {
	const last = 10_000
	var l Latest[int]
	var wg sync.WaitGroup
	for range 4 {
		sub := l.Subscribe()
		wg.Go(func() {
			defer sub.Close()
			previous := -1
			for range sub.Changed() {
				v, seq := sub.Load()
				if v < previous || seq != 0 && uint64(v) != seq {
					t.Errorf("got %d (%d) after %d", v, seq, previous)
				}
				if previous = v; v == last {
					return
				}
			}
		})
	}
	for i := range last {
		l.Publish(i + 1)
	}
	wg.Wait()
}

func TestStore_FeedsAreIndependent(t *testing.T) {
	s := NewStore()
	if snap := s.Snapshot(); snap == nil || snap.Complete {
		t.Errorf("before the first: got %+v, want an empty one", snap)
	}
	a, b := s.Subscribe(), s.Subscribe()
	defer a.Close()
	defer b.Close()
	<-a.Changed()
	<-b.Changed()
	s.Publish(&Snapshot{Seq: 1})
	<-a.Changed()
	if got := a.Snapshot().Seq; got != 1 {
		t.Errorf("a: got %d", got)
	}
	s.Publish(&Snapshot{Seq: 2})
	<-b.Changed()
	if got := b.Snapshot().Seq; got != 2 {
		t.Errorf("b: got %d", got)
	}
	<-a.Changed()
}

func TestRecords_EqualSetIsNoNews(t *testing.T) {
	r := new(Records)
	feed := r.Subscribe()
	defer feed.Close()
	<-feed.Changed()
	if _, seq := feed.Records(); seq != 0 {
		t.Errorf("before the first: got %d", seq)
	}
	set := func(partial bool) RecordSet {
		return NewRecordSet("z.", Node{ID: "n"}, []Record{{Name: "a.z.", Type: TypeA, Addr: netip.MustParseAddr("192.0.2.1")}}, partial)
	}
	for i, step := range []struct {
		set  RecordSet
		news bool
	}{{set(true), true}, {set(true), false}, {set(false), true}, {set(false), false}, {RecordSet{}, true}} {
		if got := r.Publish(step.set); got != step.news {
			t.Errorf("publication %d: got %v, want %v", i, got, step.news)
		}
	}
	<-feed.Changed()
	if _, seq := feed.Records(); seq != 3 {
		t.Errorf("got %d, want 3", seq)
	}
	// The first set is news even when it is empty.
	if !new(Records).Publish(RecordSet{}) {
		t.Error("the first set is no news")
	}
}
