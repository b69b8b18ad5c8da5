package discovery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/berthd/berth/agent"
)

// fakeProbes is a prober in memory, which answers as it is told and remembers
// when it was asked.
type fakeProbes struct {
	mu    sync.Mutex
	down  map[netip.AddrPort]bool
	took  time.Duration // of each probe
	asked map[netip.AddrPort][]time.Time
	under int
	most  int // under way at once
}

func newFakeProbes() *fakeProbes {
	return &fakeProbes{down: map[netip.AddrPort]bool{}, asked: map[netip.AddrPort][]time.Time{}}
}

func (p *fakeProbes) probe(ctx context.Context, target netip.AddrPort, _ string) error {
	took := p.begin(target)
	var err error
	if took > 0 {
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case <-time.After(took):
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.under--
	if err == nil && p.down[target] {
		err = errors.New("refused")
	}
	return err
}

func (p *fakeProbes) begin(target netip.AddrPort) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked[target] = append(p.asked[target], time.Now())
	p.under++
	p.most = max(p.most, p.under)
	return p.took
}

func (p *fakeProbes) set(target netip.AddrPort, down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down[target] = down
}

// times returns when a target was asked, from now on if reset.
func (p *fakeProbes) times(target netip.AddrPort) []time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.asked[target])
}

func (p *fakeProbes) count(target netip.AddrPort) int { return len(p.times(target)) }

// aCheck returns a check of port 80 of the container with this number.
func aCheck(number int, word string) *checked {
	return &checked{
		key: checkKey{agent.RunKey{ID: fmt.Sprint(number), StartedAt: 1}, 80}, name: fmt.Sprint("c", number),
		check:  &check{interval: 10 * time.Second, timeout: 2 * time.Second, rise: 1, fall: 3},
		target: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(number >> 8), byte(number)}), 80),
		state:  checkState{word: word, since: time.Now()},
	}
}

// scheduled runs a scheduler in a bubble until the test ends.
func scheduled(t *testing.T, limit int, p *fakeProbes) *scheduler {
	t.Helper()
	s := newScheduler(limit, p.probe, func() {}, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { s.run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	synctest.Wait()
	return s
}

func (s *scheduler) word(c *checked) string {
	state, _ := s.state(c.key)
	return state.word
}

// pass lets time go by in a bubble, and waits until all is done that is due.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestSchedulerFollowsAService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFakeProbes()
		s := scheduled(t, 4, p)
		c := aCheck(1, CheckStarting)
		p.set(c.target, true)
		s.want([]*checked{c}, true, time.Now())
		pass(30 * time.Second)
		if n := p.count(c.target); n < 30 || n > 35 {
			t.Errorf("got %d checks in the first 30 s, want one a second", n)
		}
		p.set(c.target, false)
		pass(time.Second)
		if got := s.word(c); got != CheckPassing {
			t.Errorf("a second after it is up: got %s, want passing", got)
		}
		before := p.count(c.target)
		pass(100 * time.Second)
		if n := p.count(c.target) - before; n < 10 || n > 12 {
			t.Errorf("got %d checks in 100 s, want one every 9 to 10 s", n)
		}
		p.set(c.target, true)
		pass(18*time.Second - time.Millisecond) // less than two intervals and a tenth less
		if got := s.word(c); got != CheckPassing {
			t.Errorf("before the third failure: got %s, want passing", got)
		}
		pass(12*time.Second + time.Millisecond) // three intervals in all
		if got := s.word(c); got != CheckFailing {
			t.Errorf("after three failures: got %s, want failing", got)
		}
		p.set(c.target, false)
		pass(10 * time.Second)
		if got := s.word(c); got != CheckPassing {
			t.Errorf("after one pass: got %s, want passing", got)
		}
		counts, states := s.counts()
		if want := map[string]int{CheckPassing: 1}; !maps.Equal(states, want) {
			t.Errorf("got %v, want %v", states, want)
		}
		if n := uint64(p.count(c.target)); counts.passed+counts.failed != n || counts.failed < 33 {
			t.Errorf("got %+v of %d checks", counts, n)
		}
	})
}

func TestSchedulerEndsChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFakeProbes()
		s := scheduled(t, 4, p)
		a, b := aCheck(1, CheckStarting), aCheck(2, CheckStarting)
		s.want([]*checked{a, b}, true, time.Now())
		pass(time.Second)
		s.want([]*checked{b}, false, time.Now())
		if got := s.word(a); got != CheckPassing {
			t.Errorf("missing in a list that is not complete: got %q, want passing", got)
		}
		s.want([]*checked{b}, true, time.Now())
		if got := s.word(a); got != "" {
			t.Errorf("missing in a complete list: got %q, want nothing", got)
		}
		n, m := p.count(a.target), p.count(b.target)
		pass(time.Minute)
		if p.count(a.target) != n || p.count(b.target) == m {
			t.Errorf("got %d and %d more checks, want none and some", p.count(a.target)-n, p.count(b.target)-m)
		}
		// The same container, started again, is another check.
		again := *b
		again.key.run.StartedAt++
		again.state = checkState{word: CheckStarting}
		s.want([]*checked{&again}, true, time.Now())
		if got := s.word(&again); got != CheckStarting {
			t.Errorf("another run: got %s, want starting", got)
		}
		if got := s.word(b); got != "" {
			t.Errorf("the run before: got %s, want nothing", got)
		}
	})
}

// underway returns a check that passes and whose first run, which will fail, is
// under way; a single failure is enough to be out.
func underway(p *fakeProbes, s *scheduler) *checked {
	p.took = time.Second
	c := aCheck(1, CheckPassing)
	c.check.fall = 1
	p.set(c.target, true)
	s.want([]*checked{c}, true, time.Now())
	for p.count(c.target) == 0 {
		pass(time.Millisecond)
	}
	return c
}

func TestSchedulerForgetsFindingsOfEndedRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFakeProbes()
		s := scheduled(t, 4, p)
		c := underway(p, s)
		s.want(nil, true, time.Now())
		again := *c
		again.key.run.StartedAt++
		again.target = aCheck(2, CheckPassing).target
		s.want([]*checked{&again}, true, time.Now())
		pass(p.took)
		if got := s.word(c); got != "" {
			t.Errorf("of the run that ended: got %s, want nothing", got)
		}
		if got := s.word(&again); got != CheckPassing {
			t.Errorf("of the next run: got %s, want passing", got)
		}
		pass(time.Minute)
		if n := p.count(c.target); n != 1 {
			t.Errorf("got %d checks of the run that ended, want the one that was under way", n)
		}
		if counts, _ := s.counts(); counts.failed != 1 {
			t.Errorf("got %+v, want one failed", counts)
		}
	})
}

func TestSchedulerForgetsFindingsOfAnotherPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFakeProbes()
		s := scheduled(t, 4, p)
		c := underway(p, s)
		moved := *c
		moved.target = netip.AddrPortFrom(c.target.Addr(), 81)
		s.want([]*checked{&moved}, true, time.Now())
		pass(p.took)
		if got := s.word(c); got != CheckPassing {
			t.Errorf("by the place where it was: got %s, want passing", got)
		}
		if n := p.count(moved.target); n != 1 {
			t.Errorf("got %d checks of the new place, want one at once", n)
		}
		// The next one is nine seconds away, unless the service moves again.
		pass(p.took)
		s.want([]*checked{c}, true, time.Now())
		synctest.Wait()
		if n := p.count(c.target); n != 2 {
			t.Errorf("got %d checks of the first place, want another one at once", n)
		}
	})
}

func TestSchedulerLetsChecksRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFakeProbes()
		s := scheduled(t, 4, p)
		c := aCheck(1, CheckStarting)
		p.set(c.target, true)
		s.want([]*checked{c}, true, time.Now())
		pass(5 * time.Second)
		rests := *c
		rests.target = netip.AddrPort{}
		s.want([]*checked{&rests}, true, time.Now())
		n := p.count(c.target)
		pass(time.Hour)
		if p.count(c.target) != n {
			t.Errorf("got %d checks while it rests, want none", p.count(c.target)-n)
		}
		if got := s.word(c); got != CheckFailing {
			t.Errorf("while it rests: got %s, want failing as before", got)
		}
		p.set(c.target, false)
		s.want([]*checked{c}, true, time.Now())
		synctest.Wait()
		if got := s.word(c); got != CheckPassing {
			t.Errorf("when it is back: got %s, want passing at once", got)
		}
	})
}

// However many are due, no more are under way than the limit, and all get their
// turn, a hanging one as much as others.
func TestSchedulerBoundsConcurrency(t *testing.T) {
	const limit, n = 7, 200
	synctest.Test(t, func(t *testing.T) {
		p := newFakeProbes()
		p.took = 300 * time.Millisecond
		s := scheduled(t, limit, p)
		var list []*checked
		for i := range n {
			list = append(list, aCheck(i, CheckStarting))
		}
		s.want(list, true, time.Now())
		pass(n*p.took/limit + time.Second)
		for _, c := range list {
			if got := s.word(c); got != CheckPassing {
				t.Fatalf("%s: got %s, want passing", c.name, got)
			}
		}
		pass(time.Minute)
		if p.most != limit {
			t.Errorf("got %d at once, want %d", p.most, limit)
		}
		p.mu.Lock()
		p.took = time.Hour // all hang
		p.mu.Unlock()
		pass(10 * time.Minute)
		_, states := s.counts()
		if want := map[string]int{CheckFailing: n}; !maps.Equal(states, want) {
			t.Errorf("when all hang: got %v, want %v", states, want)
		}
		if state, _ := s.state(list[0].key); state.last.why != "no answer within 2s" || state.last.took != 2*time.Second {
			t.Errorf("got %+v", state.last)
		}
		if counts, _ := s.counts(); counts.late == 0 {
			t.Error("nothing was late, with more to do than is possible")
		}
		if p.most != limit {
			t.Errorf("got %d at once, want %d", p.most, limit)
		}
	})
}

// Checks that ran before berth did are spread over their interval, new ones are
// run soon.
func TestSchedulerSpreadsStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFakeProbes()
		s := scheduled(t, 1000, p)
		var old, young []*checked
		for i := range 500 {
			old = append(old, aCheck(i, CheckAssumed))
			young = append(young, aCheck(1000+i, CheckStarting))
		}
		begin := time.Now()
		s.want(slices.Concat(old, young), true, begin)
		pass(12 * time.Second)
		inTenth := make([]int, 10)
		for _, c := range old {
			inTenth[min(9, p.times(c.target)[0].Sub(begin)/time.Second)]++
		}
		if slices.Max(inTenth) > 100 {
			t.Errorf("got %v first checks in each second, want about 50", inTenth)
		}
		for _, c := range young {
			if at := p.times(c.target)[0].Sub(begin); at > startSpread {
				t.Errorf("%s: got its first check after %v, want it within %v", c.name, at, startSpread)
			}
		}
	})
}

// Ending the scheduler ends what is under way, and another run goes on with it.
func TestSchedulerRunsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFakeProbes()
		p.took = time.Hour
		s := newScheduler(4, p.probe, func() {}, slog.New(slog.DiscardHandler))
		c := aCheck(1, CheckStarting)
		s.want([]*checked{c}, true, time.Now())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		s.run(ctx)
		cancel()
		if n := p.count(c.target); n != 1 {
			t.Fatalf("got %d checks, want one under way", n)
		}
		if got := s.word(c); got != CheckStarting {
			t.Errorf("an interrupted check is a finding: got %s", got)
		}
		p.took = 0
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		s.run(ctx)
		if got := s.word(c); got != CheckPassing {
			t.Errorf("after another run: got %s, want passing", got)
		}
	})
}

// A verdict changes the records at once, by way of Run.
func TestRunFollowsVerdicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := agent.NewStore()
		feed := store.Subscribe()
		defer feed.Close()
		p := newFakeProbes()
		d := mustNew(t, DefaultConfig(), testEnv())
		d.checks.probe = p.probe
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- d.Run(ctx, feed) }()

		synctest.Wait()
		time.Sleep(time.Second)
		target := netip.MustParseAddrPort("10.0.0.5:8080")
		p.set(target, true)
		c := with(container("a", named(web, checkedWeb), both("80/tcp=8080")...), func(c *agent.Container) { c.StartedAt = time.Now() })
		store.Publish(snapshot(c))
		records := func() int {
			synctest.Wait()
			set, _ := d.Records().Load()
			return len(linesOf(set))
		}
		if n := records(); n != 0 {
			t.Errorf("just started: got %d records, want none", n)
		}
		pass(5 * time.Second)
		p.set(target, false)
		pass(eagerEvery)
		if n := records(); n != 1 {
			t.Errorf("it passes: got %d records, want one", n)
		}
		p.set(target, true)
		for d.Services()[0].Instances[0].Check.State == CheckPassing {
			pass(time.Millisecond)
		}
		if n := records(); n != 0 {
			t.Errorf("with the verdict: got %d records, want none", n)
		}
		in := d.Services()[0].Instances[0]
		if want := "its check fails: GET http://10.0.0.5:8080/health: refused"; in.Reason != want || in.Check.Error != "refused" {
			t.Errorf("got %q, %+v; want %q", in.Reason, in.Check, want)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// A berth that starts where services run leaves them in, whatever their checks
// need to be sure, and takes those out that fail.
func TestRestartLeavesServicesIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := agent.NewStore()
		feed := store.Subscribe()
		defer feed.Close()
		p := newFakeProbes()
		p.set(netip.MustParseAddrPort("10.0.0.5:8081"), true)
		var list []*agent.Container
		for i, number := range []string{"a", "b"} {
			c := container(number, named("SERVICE_80_NAME=_"+number+"._tcp", checkedWeb), both(fmt.Sprintf("80/tcp=%d", 8080+i))...)
			list = append(list, with(c, func(c *agent.Container) { c.StartedAt = time.Now().Add(-time.Second) }))
		}
		d := mustNew(t, DefaultConfig(), testEnv())
		d.checks.probe = p.probe
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- d.Run(ctx, feed) }()
		store.Publish(snapshot(list...))
		synctest.Wait()
		set, seq := d.Records().Load()
		if seq != 1 || len(linesOf(set)) != 2 {
			t.Errorf("at the start: got set %d with %v, want the first with both", seq, linesOf(set))
		}
		pass(31 * time.Second)
		set, seq = d.Records().Load()
		if seq != 2 {
			t.Errorf("got set %d, want the second", seq)
		}
		checkLines(t, linesOf(set), "_a._tcp.berth.internal. 5 IN SRV 1 1 8080 n1.berth.internal.")
		cancel()
		<-done
	})
}
