package discovery

import (
	"container/heap"
	"context"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"
)

// startSpread is how long the first checks of what starts at one moment are
// spread over; those of what ran before are spread over their whole interval,
// as nobody waits for them.
const startSpread = 250 * time.Millisecond

// prober checks one place once, and says what is wrong with it. GETs path, or
// only connects if that is empty. It returns soon after ctx ends.
type prober func(ctx context.Context, target netip.AddrPort, path string) error

// scheduler runs checks when they are due, a bounded number at once. One
// goroutine starts them, in the order in which they are due; each has one of its
// own while it is under way.
type scheduler struct {
	limit   int
	probe   prober
	changed func() // is called after each verdict
	log     *slog.Logger
	wake    chan struct{} // capacity 1: there may be something due earlier
	unsaved chan struct{} // capacity 1: what keeps services out has changed

	mu      sync.Mutex
	tasks   map[checkKey]*task
	saved   map[checkKey]checkState // of an earlier berth, until all runs are known
	queue   taskQueue               // those that wait
	counted checkCounts
}

// task is one check that is wanted. The scheduler's mutex guards it.
type task struct {
	checked
	began time.Time // when it was first wanted
	due   time.Time
	place int  // in the queue; -1 when it is not there
	busy  bool // it is under way
}

// checkCounts sums up what was done.
type checkCounts struct {
	passed, failed uint64
	busy, late     time.Duration // under way, and waiting for its turn
}

func newScheduler(limit int, probe prober, changed func(), log *slog.Logger) *scheduler {
	return &scheduler{
		limit: limit, probe: probe, changed: changed, log: log,
		wake: make(chan struct{}, 1), unsaved: make(chan struct{}, 1), tasks: make(map[checkKey]*task),
	}
}

// state returns what is known of a check. Safe for concurrent use.
func (s *scheduler) state(key checkKey) (checkState, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tasks[key]; t != nil {
		return t.state, true
	}
	state, ok := s.saved[key]
	return state, ok
}

// counts returns what was done, and how many checks are in each state. Safe for
// concurrent use.
func (s *scheduler) counts() (checkCounts, map[string]int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	states := make(map[string]int, len(checkStates))
	for _, t := range s.tasks {
		states[t.state.word]++
	}
	return s.counted, states
}

// want makes list the checks that are run, each from the state that it comes
// with if it is new. Those that are not in list end if it is complete.
func (s *scheduler) want(list []*checked, complete bool, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wanted := make(map[checkKey]bool, len(list))
	for _, c := range list {
		wanted[c.key] = true
		t := s.tasks[c.key]
		if t == nil {
			t = &task{checked: *c, began: now, place: -1}
			t.due = now.Add(firstDelay(c))
			s.tasks[c.key] = t
			if !t.state.in() {
				s.touch()
			}
		} else {
			moved := t.target != c.target
			t.name, t.check, t.target = c.name, c.check, c.target
			if moved && !t.busy {
				s.drop(t)
				t.due = now
			}
		}
		s.enqueue(t)
	}
	if complete {
		s.retain(wanted)
	}
	notify(s.wake)
}

// retain ends all other checks than those wanted.
func (s *scheduler) retain(wanted map[checkKey]bool) {
	s.saved = nil
	for key, t := range s.tasks {
		if wanted[key] {
			continue
		}
		s.drop(t)
		delete(s.tasks, key)
	}
}

// firstDelay spreads the first runs of checks.
func firstDelay(c *checked) time.Duration {
	spread := min(startSpread, c.check.interval)
	if c.state.in() {
		spread = c.check.interval
	}
	return rand.N(spread)
}

// enqueue lets a task wait until it is due, if it can be run and is not.
func (s *scheduler) enqueue(t *task) {
	if t.place < 0 && !t.busy && t.target.IsValid() {
		heap.Push(&s.queue, t)
	}
}

func (s *scheduler) drop(t *task) {
	if t.place >= 0 {
		heap.Remove(&s.queue, t.place)
	}
}

// touch says that what keeps services out of DNS has changed.
func (s *scheduler) touch() { notify(s.unsaved) }

// notify sends to a channel of capacity 1 without waiting: if it is full, its
// receiver is about to look, anyway.
func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// outcome is what a run of a task's check found where the task was then.
type outcome struct {
	task   *task
	target netip.AddrPort
	finding
}

// run runs checks until ctx ends.
func (s *scheduler) run(ctx context.Context) {
	s.release()
	done := make(chan outcome, s.limit) // has room for all: nobody waits to tell
	var probes sync.WaitGroup
	defer probes.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for under := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-timer.C:
		case o := <-done:
			under--
			if s.finish(o) {
				s.changed()
			}
		}
		timer.Stop()
		for under < s.limit {
			job, next := s.take(time.Now())
			if job == nil {
				if !next.IsZero() {
					timer.Reset(time.Until(next))
				}
				break
			}
			under++
			probes.Go(func() { done <- s.try(ctx, job) })
		}
	}
}

// release forgets what was under way when an earlier run ended.
func (s *scheduler) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tasks {
		t.busy = false
		s.enqueue(t)
	}
}

// job is one run of a check.
type job struct {
	task   *task
	target netip.AddrPort
	check  *check
}

// take returns the first task that is due, or nil and when one will be; zero
// for never.
func (s *scheduler) take(now time.Time) (*job, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		return nil, time.Time{}
	}
	t := s.queue[0]
	if t.due.After(now) {
		return nil, t.due
	}
	heap.Pop(&s.queue)
	t.busy = true
	s.counted.late += now.Sub(t.due)
	return &job{t, t.target, t.check}, time.Time{}
}

// try runs a check once.
func (s *scheduler) try(ctx context.Context, j *job) outcome {
	begin := time.Now()
	ctx, cancel := context.WithTimeout(ctx, j.check.timeout)
	defer cancel()
	err := s.probe(ctx, j.target, j.check.path)
	o := outcome{task: j.task, target: j.target}
	o.at = time.Now()
	o.took = o.at.Sub(begin)
	if err != nil {
		o.why = explainFailure(err, j.check.timeout)
	}
	return o
}

// finish takes note of what a run found, and reports whether that is a verdict.
func (s *scheduler) finish(o outcome) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := o.task
	t.busy = false
	s.count(o.finding)
	if s.tasks[t.key] != t {
		return false // the run of the container has ended
	}
	if t.target != o.target {
		t.due = o.at
		s.enqueue(t) // the finding is about another place
		return false
	}
	before := t.state
	t.state = before.after(o.finding, t.check)
	pause := t.state.pause(t.check, o.at.Sub(t.began))
	t.due = o.at.Add(-min(o.took, pause)).Add(pause - rand.N(pause/10+1))
	s.enqueue(t)
	if t.state.word == before.word {
		return false
	}
	s.touch()
	args := []any{"container", t.name, "port", t.key.port, "check", t.describe()}
	if o.why != "" {
		args = append(args, "err", o.why)
	}
	s.log.Info("check "+t.state.word, args...)
	return true
}

func (s *scheduler) count(f finding) {
	s.counted.busy += f.took
	if f.why == "" {
		s.counted.passed++
	} else {
		s.counted.failed++
	}
}

// taskQueue is a heap of tasks, the first that is due on top.
type taskQueue []*task

func (q taskQueue) Len() int           { return len(q) }
func (q taskQueue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }

func (q taskQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}

// Push appends a task, for container/heap.
func (q *taskQueue) Push(x any) {
	t := x.(*task)
	t.place = len(*q)
	*q = append(*q, t)
}

// Pop removes the last task, for container/heap.
func (q *taskQueue) Pop() any {
	last := len(*q) - 1
	t := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	t.place = -1
	return t
}
