package agent

import (
	"sync"
	"sync/atomic"
)

// Latest holds the newest of a sequence of values, and tells subscribers when
// there is a newer one. One goroutine publishes, any number read. It is how
// both snapshots and record sets travel: nothing queues, so that a slow
// consumer holds up nobody and always works on the newest state.
type Latest[T any] struct {
	cur atomic.Pointer[numbered[T]]

	mu   sync.Mutex
	subs map[*Subscription[T]]struct{}
}

type numbered[T any] struct {
	value T
	seq   uint64
}

// Publish makes v the newest value and tells every subscriber. The sequence
// number grows by one each time, from 1.
func (l *Latest[T]) Publish(v T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, seq := l.Load()
	l.cur.Store(&numbered[T]{v, seq + 1})
	for sub := range l.subs {
		select {
		case sub.changed <- struct{}{}:
		default: // it has not looked since the last one, and will see this one
		}
	}
}

// Load returns the newest value and its sequence number, or the zero value and
// 0 before the first publication.
func (l *Latest[T]) Load() (T, uint64) {
	if n := l.cur.Load(); n != nil {
		return n.value, n.seq
	}
	var zero T
	return zero, 0
}

// Subscribe returns a new subscription for one consumer, with a first
// notification pending. Close it when the consumer ends.
func (l *Latest[T]) Subscribe() *Subscription[T] {
	sub := &Subscription[T]{latest: l, changed: make(chan struct{}, 1)}
	sub.changed <- struct{}{}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.subs == nil {
		l.subs = make(map[*Subscription[T]]struct{})
	}
	l.subs[sub] = struct{}{}
	return sub
}

// Subscription is one consumer's view of a Latest.
type Subscription[T any] struct {
	latest  *Latest[T]
	changed chan struct{}
}

// Load returns the newest value and its sequence number.
func (s *Subscription[T]) Load() (T, uint64) { return s.latest.Load() }

// Changed is sent to after each publication; capacity one, coalescing.
func (s *Subscription[T]) Changed() <-chan struct{} { return s.changed }

// Close ends the notifications. It may be called more than once.
func (s *Subscription[T]) Close() {
	s.latest.mu.Lock()
	defer s.latest.mu.Unlock()
	delete(s.latest.subs, s)
}

// Store holds the newest snapshot.
type Store struct{ latest Latest[*Snapshot] }

// NewStore returns a store with an empty, incomplete snapshot.
func NewStore() *Store { return new(Store) }

var empty = &Snapshot{}

// Snapshot returns the newest snapshot, never nil.
func (s *Store) Snapshot() *Snapshot {
	if snap, _ := s.latest.Load(); snap != nil {
		return snap
	}
	return empty
}

// Publish makes snap the newest snapshot. The loop calls it, and tests which
// stand in for the loop; snap belongs to everyone from then on.
func (s *Store) Publish(snap *Snapshot) { s.latest.Publish(snap) }

// Subscribe returns a feed for one consumer. Close it when the consumer ends.
func (s *Store) Subscribe() *StoreFeed {
	return &StoreFeed{Subscription: s.latest.Subscribe(), store: s}
}

// StoreFeed is a Feed on a Store.
type StoreFeed struct {
	*Subscription[*Snapshot]
	store *Store
}

// Snapshot returns the newest snapshot, never nil.
func (f *StoreFeed) Snapshot() *Snapshot { return f.store.Snapshot() }

// Records holds the newest set of desired records.
type Records struct{ latest Latest[RecordSet] }

// Publish makes set the newest one, unless it equals the one before, and
// reports whether it did. One goroutine publishes.
func (r *Records) Publish(set RecordSet) bool {
	if cur, seq := r.latest.Load(); seq > 0 && cur.Equal(set) {
		return false
	}
	r.latest.Publish(set)
	return true
}

// Load returns the newest set and its sequence number, which is 0 before the
// first.
func (r *Records) Load() (RecordSet, uint64) { return r.latest.Load() }

// Subscribe returns a Desired for one sink. Close it when the sink ends.
func (r *Records) Subscribe() *RecordsFeed { return &RecordsFeed{r.latest.Subscribe()} }

// RecordsFeed is a Desired on a Records.
type RecordsFeed struct{ *Subscription[RecordSet] }

// Records returns the newest set and its sequence number.
func (f *RecordsFeed) Records() (RecordSet, uint64) { return f.Load() }
