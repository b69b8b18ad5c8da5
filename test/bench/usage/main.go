// Command usage measures what it costs to know what 100 containers use, how much
// of it berth misses, and how near it is, with bin/berth on this machine's engine.
//
//	go run ./test/bench/usage            # about eight minutes; needs bin/berth (make build)
//	go run ./test/bench/usage -check     # exits with 1 when a number is missed
//	go run ./test/bench/usage -json      # the table as JSON
//	go run ./test/bench/usage -write     # the table also into test/bench/README.md
//	go run ./test/bench/usage -cost      # what it costs alone, in half the time
//	go run ./test/bench/usage -cadvisor FILE   # beside another cAdvisor
//
// # How it is measured
//
// Cost. 80 containers sleep, 10 use 0.005 and 10 use 0.01 cores. Two berths run
// side by side with their defaults, but that one has usage.enabled=false: the
// difference of their CPU clocks (clock_getcpuclockid(3)) over a minute is what
// usage costs, with its statistics and all, while nobody reads the page of metrics.
// A minute or several, because some of what any berth does it does once in each.
// The time of a sweep is berth's own figure, which the clock of the thread confirms
// to be mostly CPU time: the files are the kernel's. Then the same containers are
// asked for by Docker's stats API, one-shot, all at once, every 10 s: what dockerd,
// containerd and the shims use meanwhile, less what they use in the minute before,
// is its cost. What its client uses is left out. cAdvisor is built from its
// published libraries (test/tools/cadvisor), and runs with -docker_only, 10 s, and
// all metrics off that berth has not. Both pages are read every 10 s then, and what
// making them costs counts for both. What the daemons use for cAdvisor does not.
//
// Ends. Containers that sleep for 0, 30 and 200 ms (the application needs some
// milliseconds to start) are started at five a second and 50 at once; berth's
// list of ended runs says whether the last figures of each were taken at its exit.
//
// Accuracy. The burner uses the CPU time that it is told to, and says how much it
// was by its own clock. Its container's also has what the runtime used to start it.
//
// Conservation. What the cgroup of all containers used in an interval beyond what
// was measured of each, as a share of it; while containers come and go.
//
// Everything that it made is removed at the end, also after Ctrl-C.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/berthd/berth/test/bench/rig"
)

// limit bounds the whole run: a bound for something broken, never a measure.
const limit = 20 * time.Minute

// settings are the flags.
type settings struct {
	berth, cadvisor    string
	containers, rounds int
	window             time.Duration
	cost               bool // alone
	check, json, write bool
}

func main() {
	var s settings
	flag.StringVar(&s.berth, "berth", "bin/berth", "the agent to measure")
	flag.StringVar(&s.cadvisor, "cadvisor", "", "another cAdvisor to measure beside it, than the one built from "+cadvisorModule)
	flag.IntVar(&s.containers, "containers", 100, "running containers")
	flag.IntVar(&s.rounds, "rounds", 50, "short containers of each kind")
	flag.DurationVar(&s.window, "window", time.Minute, "how long each cost is measured")
	flag.BoolVar(&s.cost, "cost", false, "measure what it costs, and nothing else")
	flag.BoolVar(&s.check, "check", false, "exit with 1 when a number is missed")
	flag.BoolVar(&s.json, "json", false, "print the table as JSON")
	flag.BoolVar(&s.write, "write", false, "also keep the table in "+rig.README)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := bench(ctx, s); err != nil {
		fmt.Fprintln(os.Stderr, "bench-usage:", err)
		os.Exit(1)
	}
}

// bench measures everything, cleans up and prints the table.
func bench(ctx context.Context, s settings) error {
	t := rig.NewTable("usage")
	if err := measure(ctx, s, t); err != nil {
		return err
	}
	return t.Finish(s.json, s.write, s.check)
}

// measure fills the table.
func measure(ctx context.Context, s settings, t *rig.Table) (err error) {
	outer := ctx
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	w := &world{settings: s, World: &rig.World{Binary: s.berth}}
	defer func() {
		say("remove what was started")
		cleared := w.clear()
		if outer.Err() != nil {
			err = errors.New("interrupted; all that it had started is removed")
		}
		err = errors.Join(err, cleared)
	}()
	if w.cadvisor == "" {
		if w.cadvisor, err = buildCAdvisor(ctx); err != nil {
			return err
		}
	}
	if err := w.Open(ctx); err != nil {
		return err
	}
	t.About = fmt.Sprintf("with %d running containers. %s", s.containers, rig.Machine(w.Version))
	for _, part := range []struct {
		what string
		run  func(context.Context, *rig.Table) error
		cost bool
	}{
		{fmt.Sprintf("start %d containers, and two berths", s.containers), w.populate, true},
		{fmt.Sprintf("wait for %v, and see what it costs", s.window), w.measureCost, true},
		{"ask the engine's stats API for the same", w.measureStats, true},
		{"run cAdvisor for the same", w.measureCAdvisor, true},
		{"burn by measure", w.measureAccuracy, false},
		{"start short containers", w.measureEnds, false},
	} {
		if s.cost && !part.cost {
			continue
		}
		say("%s", part.what)
		if err := part.run(ctx, t); err != nil {
			return fmt.Errorf("%s: %w", part.what, err)
		}
	}
	return w.measureMemory(t)
}

// say tells how far the bench is.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench-usage: %s  "+format+"\n", append([]any{time.Now().Format(time.TimeOnly)}, args...)...)
}
