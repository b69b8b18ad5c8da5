package rfc2136

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/config"
	"github.com/berthd/berth/test/dnsservers"
)

// killChild is the variable with the life of a child that is to be killed.
const killChild = "BERTH_RFC2136_KILL_CHILD"

func TestMain(m *testing.M) {
	if life := os.Getenv(killChild); life != "" {
		if err := live([]byte(life)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// life is what a child is told.
type life struct {
	Server, Key, Secret, StateDir string
	Seed                          uint64
	// Die is the step, counted from the start, at which the child kills itself;
	// 0 to leave that to its parent.
	Die int
}

// live is the child: it wants one random set after the other, and prints a line
// at each step.
func live(told []byte) error {
	var l life
	if err := json.Unmarshal(told, &l); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	cfg := DefaultConfig()
	cfg.Servers, cfg.Key = []string{l.Server}, l.Key
	var ref config.Secret
	if err := ref.UnmarshalText([]byte(l.Secret)); err != nil {
		return err
	}
	cfg.Secret = ref
	s, err := New(cfg, agent.Env{Log: log, Health: agent.NewHealth(log), Node: identity{"host1"}, StateDir: l.StateDir})
	if err != nil {
		return err
	}
	s.pace = 0
	rng := rand.New(rand.NewPCG(l.Seed, 0))
	records := new(agent.Records)
	steps := 0
	// No set is like one before: else there may be nothing to do, and the child
	// would come to rest before its step to die, or its parent's moment to kill.
	publish := func() {
		set := append(someRecords(rng), srv("host1", uint16(1000+steps)))
		records.Publish(agent.NewRecordSet(zone, node("host1"), set, false))
	}
	s.step = func(name string) {
		if steps++; steps == l.Die {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // until it arrives
		}
		fmt.Println(name)
		publish()
	}
	publish()
	feed := records.Subscribe()
	defer feed.Close()
	return s.Run(context.Background(), feed)
}

func someRecords(rng *rand.Rand) []agent.Record {
	var records []agent.Record
	for i := range 8 {
		if rng.IntN(2) == 0 {
			records = append(records, srv("host1", uint16(i)))
		}
	}
	return records
}

// TestKill kills a process that keeps records, BERTH_KILLS times (40), at random
// steps or at any moment, and starts it anew: then the zone is as wanted, and
// another host's record is there.
func TestKill(t *testing.T) {
	kills := 40
	if s := os.Getenv("BERTH_KILLS"); s != "" {
		var err error
		kills, err = strconv.Atoi(s)
		must(t, err)
	}
	rng := rand.New(rand.NewPCG(seedOf(t), 0))
	each(t, func(t *testing.T, s *dnsservers.Server) {
		other := newHost(t, "host10", s)
		other.start()
		other.apply(srv("host10", 1))
		h := newHost(t, "host1", s)
		h.prepare = func(s *Sink) { s.pace = 0 }
		for kill := range kills / len(servers) {
			l := life{
				Server: h.cfg.Servers[0], Key: h.cfg.Key, Secret: h.cfg.Secret.Reference(),
				StateDir: h.env.StateDir, Seed: rng.Uint64(),
			}
			if kill%4 != 0 {
				l.Die = 1 + rng.IntN(16)
			}
			runAndKill(t, l, rng)
			if kill%3 == 0 {
				continue // killed again before it was whole
			}
			want := someRecords(rng)
			h.start()
			h.apply(want...)
			holds(t, s, append(want, srv("host10", 1))...)
			h.stop()
			if t.Failed() {
				t.Fatalf("kill %d: %+v", kill, l)
			}
		}
	})
}

// runAndKill starts a child and waits for its end, which it or this test brings
// about.
func runAndKill(t *testing.T, l life, rng *rand.Rand) {
	t.Helper()
	told, err := json.Marshal(l)
	must(t, err)
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), killChild+"="+string(told))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	lines := bufio.NewScanner(out)
	for range 1 + rng.IntN(12) {
		if !lines.Scan() {
			break
		}
	}
	if l.Die == 0 {
		delay := time.NewTimer(time.Duration(rng.IntN(2000)) * time.Microsecond)
		<-delay.C // any moment will do
		must(t, cmd.Process.Kill())
	}
	for lines.Scan() {
	}
	_ = cmd.Wait()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		t.Fatalf("the child ended by itself: %v", cmd.ProcessState)
	}
}
