package route53

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/test/fakeaws"
)

// The environment of TestCrash: how many runs, and which seed to replay.
const (
	killsVariable = "BERTH_KILLS"
	seedVariable  = "BERTH_SEED"
	childVariable = "BERTH_ROUTE53_CHILD" // set for the process that is killed
)

// life is what a child process does until it dies.
type life struct {
	Seed     uint64
	Step     int // the step at which it kills itself
	Config   Config
	StateDir string
}

// randomRecords returns what a host may want.
func randomRecords(rng *rand.Rand) []agent.Record {
	records := []agent.Record{addr("host1", fmt.Sprintf("192.0.2.%d", 1+rng.IntN(2)))}
	for i := range 6 {
		ttl := uint32(10 * (1 + rng.IntN(2)))
		for range rng.IntN(3) {
			rec := srv(fmt.Sprintf("_s%d._tcp", i), uint16(1000+rng.IntN(3)))
			rec.TTL = ttl
			records = append(records, rec)
		}
	}
	return records
}

// crashingChild lives a life: it wants one random set after the other, and ends
// by SIGKILL between two steps of the sink.
func crashingChild() {
	var l life
	if err := json.Unmarshal([]byte(os.Getenv(childVariable)), &l); err != nil {
		panic(err)
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	sink, err := New(l.Config, agent.Env{Log: log, Health: agent.NewHealth(log), Node: newHost("host1"), StateDir: l.StateDir})
	if err != nil {
		panic(err)
	}
	sink.timing = fast()
	step := 0
	sink.step = func(string) {
		if step++; step == l.Step {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // the signal is on its way
		}
	}
	records := new(agent.Records)
	feed := records.Subscribe()
	go func() { _ = sink.Run(context.Background(), feed) }()
	rng := rand.New(rand.NewPCG(l.Seed, 1))
	for {
		records.Publish(agent.NewRecordSet(domain, nodeOf("host1"), randomRecords(rng), rng.IntN(8) == 0))
		_, seq := records.Load()
		for end := time.Now().Add(20 * time.Second); sink.Applied() < seq; time.Sleep(100 * time.Microsecond) {
			if time.Now().After(end) {
				os.Exit(3)
			}
		}
	}
}

// TestCrash kills the sink between any two of its steps, again and again, and
// wants the next life to bring the zone in order, without a look at others' sets.
func TestCrash(t *testing.T) {
	runs, seed := 100, rand.Uint64()
	if s := os.Getenv(killsVariable); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatalf("parse %s: %v", killsVariable, err)
		}
		runs = n
	}
	if s := os.Getenv(seedVariable); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("parse %s: %v", seedVariable, err)
		}
		seed, runs = n, 1
	}
	for range runs {
		if !t.Run(fmt.Sprint(seed), func(t *testing.T) { crashOnce(t, seed) }) {
			t.Fatalf("replay: %s=%d go test -run TestCrash", seedVariable, seed)
		}
		seed++
	}
}

func crashOnce(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 0))
	r := newRig(t)
	r.cfg.Mode = []Mode{Multivalue, Multivalue, Weighted, Simple}[rng.IntN(4)]
	var others []fakeaws.RRSet
	if r.cfg.Mode == Multivalue {
		others = slices.Concat(r.foreign("_s1._tcp"), r.foreign("_s4._tcp"))
	}
	for range 1 + rng.IntN(2) {
		if rng.IntN(3) == 0 {
			r.fake.Inject(actionChange, fakeaws.CutAfter, fakeaws.Throttled, fakeaws.CutBefore)
		}
		r.live(life{Seed: rng.Uint64(), Step: 1 + rng.IntN(24), Config: r.cfg, StateDir: r.dir})
	}
	r.fake.Heal()
	r.start()
	want := r.set(randomRecords(rng)...).Records
	r.apply(want...)
	held, err := r.held()
	if err != nil {
		t.Fatal(err)
	}
	held = slices.DeleteFunc(held, func(rec agent.Record) bool { return rec.Target == "elsewhere.test." })
	slices.SortFunc(held, agent.Record.Compare)
	if !slices.Equal(held, want) {
		t.Errorf("the zone holds:\n%v\nwant:\n%v", held, want)
	}
	r.checkForeign(others)
	if why := r.condition(condIdentity); why != "" {
		t.Errorf("suspects another agent: %s", why)
	}
}

// live runs a child until it has killed itself.
func (r *rig) live(l life) {
	r.t.Helper()
	data, err := json.Marshal(l)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+string(data))
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	exit, ok := errors.AsType[*exec.ExitError](cmd.Run())
	if !ok || !exit.Sys().(syscall.WaitStatus).Signaled() {
		r.t.Fatalf("the child was not killed: %v\n%s", exit, out.String())
	}
}
