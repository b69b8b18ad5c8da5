package discovery

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/journal"
)

// ranIn is one life of berth with a state folder.
type ranIn struct {
	*Discovery
	env   agent.Env
	store *agent.Store
	stop  func()
}

// runIn starts berth in a bubble.
func runIn(t *testing.T, dir string, p *fakeProbes) *ranIn {
	t.Helper()
	r := &ranIn{env: testEnv(), store: agent.NewStore()}
	r.env.StateDir = dir
	r.Discovery = mustNew(t, DefaultConfig(), r.env)
	r.checks.probe = p.probe
	feed := r.store.Subscribe()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx, feed) }()
	synctest.Wait()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		feed.Close()
	})
	t.Cleanup(r.stop)
	return r
}

// names returns the SRV records.
func (r *ranIn) names() []string {
	synctest.Wait()
	set, _ := r.Records().Load()
	return linesOf(set)
}

func (r *ranIn) conditions() string {
	var list []string
	for _, c := range r.env.Health.Conditions() {
		list = append(list, c.Name+": "+c.Why)
	}
	return strings.Join(list, "\n")
}

const (
	srvUp   = "_up._tcp.berth.internal. 5 IN SRV 1 1 8080 n1.berth.internal."
	srvDown = "_down._tcp.berth.internal. 5 IN SRV 1 1 8081 n1.berth.internal."
)

// upAndDown starts two services, now: one that passes its check and one that does
// not.
func upAndDown(p *fakeProbes) *agent.Snapshot {
	p.set(netip.MustParseAddrPort("10.0.0.5:8081"), true)
	up := container("a", named("SERVICE_80_NAME=_up._tcp", checkedWeb), both("80/tcp=8080")...)
	down := container("b", named("SERVICE_80_NAME=_down._tcp", checkedWeb), both("80/tcp=8081")...)
	up.StartedAt, down.StartedAt = time.Now(), time.Now()
	return snapshot(up, down)
}

func TestRestartLeavesFailingServicesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, killed := t.TempDir(), t.TempDir()
		p := newFakeProbes()
		first := runIn(t, dir, p)
		time.Sleep(time.Second)
		snap := upAndDown(p)
		first.store.Publish(snap)
		pass(5 * time.Second)
		checkLines(t, first.names(), srvUp)

		// What is on disk at this moment is what kill -9 leaves.
		data, err := os.ReadFile(filepath.Join(dir, "checks.journal"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(killed, "checks.journal"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		first.stop()

		for _, dir := range []string{dir, killed} {
			next := runIn(t, dir, p)
			time.Sleep(time.Second)
			next.store.Publish(snap)
			checkLines(t, next.names(), srvUp)
			if state := next.Services()[0].Instances[0].Check; state.State != CheckFailing || state.Error != "refused" {
				t.Errorf("restored: got %+v, want it failing", state)
			}
			if got := next.conditions(); got != "" {
				t.Errorf("got conditions %s, want none", got)
			}
			next.stop()
		}

		// Without the file all that ran before is in, until its verdict.
		blank := runIn(t, t.TempDir(), p)
		time.Sleep(time.Second)
		blank.store.Publish(snap)
		checkLines(t, blank.names(), srvDown, srvUp)
		pass(31 * time.Second)
		checkLines(t, blank.names(), srvUp)
		blank.stop()
	})
}

// What has just started, and nothing is known of, stays out as well.
func TestRestartLeavesNewServicesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, p := t.TempDir(), newFakeProbes()
		p.took = time.Second
		first := runIn(t, dir, p)
		time.Sleep(time.Second)
		snap := upAndDown(p)
		first.store.Publish(snap)
		checkLines(t, first.names())
		first.stop()
		next := runIn(t, dir, p)
		next.store.Publish(snap)
		checkLines(t, next.names())
		pass(2 * time.Second)
		checkLines(t, next.names(), srvUp)
	})
}

// A service that recovered is not kept out by what the file said before.
func TestRestartForgetsWhatRecovered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, p := t.TempDir(), newFakeProbes()
		first := runIn(t, dir, p)
		time.Sleep(time.Second)
		snap := upAndDown(p)
		first.store.Publish(snap)
		pass(5 * time.Second)
		p.set(netip.MustParseAddrPort("10.0.0.5:8081"), false)
		pass(2 * time.Second)
		first.stop()
		next := runIn(t, dir, p)
		next.store.Publish(snap)
		checkLines(t, next.names(), srvDown, srvUp)
	})
}

// Until all containers are known, what is known of others is kept.
func TestSavedChecksWaitForTheirContainers(t *testing.T) {
	s := newScheduler(1, nil, func() {}, nil)
	saved := savedCheck{ID: "x", Started: 7, Port: 80, State: CheckFailing, Since: epoch, Error: "refused"}
	s.restore([]savedCheck{saved, {ID: "y", Started: 7, Port: 80, State: "of the future"}})
	s.want(nil, false, epoch)
	if got := s.outside(); !slices.Equal(got, []savedCheck{saved}) {
		t.Errorf("got %+v, want %+v", got, saved)
	}
	if state, ok := s.state(checkKey{agent.RunKey{ID: "x", StartedAt: 7}, 80}); !ok || state.word != CheckFailing {
		t.Errorf("got %+v, %v, want it failing", state, ok)
	}
	if _, ok := s.state(checkKey{agent.RunKey{ID: "x", StartedAt: 8}, 80}); ok {
		t.Error("another run is known")
	}
	s.want(nil, true, epoch)
	if got := s.outside(); len(got) != 0 {
		t.Errorf("with all containers known: got %+v, want nothing", got)
	}
}

// A disk that refuses is a condition, changes nothing else, and is tried again.
func TestStateOfChecksCannotBeKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, p := filepath.Join(t.TempDir(), "missing"), newFakeProbes()
		r := runIn(t, dir, p)
		time.Sleep(time.Second)
		r.store.Publish(upAndDown(p))
		pass(5 * time.Second)
		checkLines(t, r.names(), srvUp)
		if got := r.conditions(); !strings.HasPrefix(got, "checks: keep the state of checks: ") {
			t.Errorf("got conditions %q, want that of the state", got)
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		pass(saveAgain + time.Second)
		if got := r.conditions(); got != "" {
			t.Errorf("when the disk is back: got conditions %q, want none", got)
		}
		r.stop()
		if _, err := os.Stat(filepath.Join(dir, "checks.journal")); err != nil {
			t.Error(err)
		}
	})
}

// Who has no checks has no file, and nothing to say of the disk.
func TestNoChecksNoFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, p := t.TempDir(), newFakeProbes()
		r := runIn(t, dir, p)
		r.store.Publish(snapshot(container("a", named(web), both("80/tcp=8080")...)))
		pass(time.Minute)
		r.stop()
		if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
			t.Errorf("got %v, %v, want nothing", files, err)
		}
	})
}

// State that makes no sense is no reason not to run.
func TestStateOfChecksMakesNoSense(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, p := t.TempDir(), newFakeProbes()
		j, _, err := journal.Open(filepath.Join(dir, "checks.journal"), journal.Options{Owner: name})
		if err != nil {
			t.Fatal(err)
		}
		if err := j.Checkpoint([]byte("no JSON")); err != nil {
			t.Fatal(err)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		r := runIn(t, dir, p)
		time.Sleep(time.Second)
		r.store.Publish(upAndDown(p))
		pass(5 * time.Second)
		checkLines(t, r.names(), srvUp)
	})
}
