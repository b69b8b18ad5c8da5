// Command names measures how a host's names reach a zone of Route 53 and one of
// BIND, with bin/berth and containers on this machine's real engine.
//
//	go run ./test/bench/names          # ≤ 10 minutes; needs bin/berth (make build)
//	go run ./test/bench/names -check   # exits with 1 when a number is missed
//	go run ./test/bench/names -json    # the table as JSON
//	go run ./test/bench/names -write   # the table also into test/bench/README.md
//
// Route 53 is the strict fake of test/fakeaws over HTTP on loopback, so its times
// are those of berth and the engine, without the network's and AWS's. BIND is the
// real one, with the zone and the rules of packaging/examples, and its journal on
// this machine's disk. No rate is throttled; berth's own limits are its defaults.
//
// # How it is measured
//
// Latency. Containers start and are killed one after the other, further apart
// than berth's 250 ms window, so that nothing waits for it. For Route 53 it is from
// the engine's own time of the event to the moment at which the fake, in this
// process, reads the call that changes the name. For BIND it is from the engine's
// time to the right answer in hand: from when the bench itself has seen the event,
// and not before, it asks BIND over UDP, again 200 µs after each answer.
//
// Calls. Counted at the fake. The first change goes out at once and what follows
// within 250 ms together, so that a hundred containers cost as many calls as they
// fill windows: a burst costs two, and the bound of four is for a burst of starts
// and one of stops. No engine starts a hundred containers in 250 ms; berth
// is stopped (SIGSTOP) meanwhile, so that all of it comes at once, as after a hang
// or a slow boot. Beside it stands what the same costs at the engine's own pace.
//
// Restart and idleness. A restart with its journal changes nothing. A first life
// without journal has looked for leftovers before, once, within a minute. The idle
// window is short; that nothing wakes the sink for an hour either is shown by
// TestNumbers_IdleHour of sinks/route53.
//
// Memory. RssAnon of a berth without the sink and of one with it, both with the
// same records, from containers on the host's network with many services each: the
// medians of several lives.
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
	berth              string
	containers, rounds int
	idle               time.Duration
	check, json, write bool
}

func main() {
	var s settings
	flag.StringVar(&s.berth, "berth", "bin/berth", "the agent to measure")
	flag.IntVar(&s.containers, "containers", 100, "containers that start and stop together")
	flag.IntVar(&s.rounds, "rounds", 100, "measured starts, and kills, of each server")
	flag.DurationVar(&s.idle, "idle", time.Minute, "how long to count the calls of an idle berth")
	flag.BoolVar(&s.check, "check", false, "exit with 1 when a number is missed")
	flag.BoolVar(&s.json, "json", false, "print the table as JSON")
	flag.BoolVar(&s.write, "write", false, "also keep the table in "+rig.README)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := bench(ctx, s); err != nil {
		fmt.Fprintln(os.Stderr, "bench-names:", err)
		os.Exit(1)
	}
}

// bench measures everything, cleans up and prints the table.
func bench(ctx context.Context, s settings) error {
	t := rig.NewTable("names")
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
	if err := w.open(ctx); err != nil {
		return err
	}
	t.About = "with " + rig.Machine(w.Version)
	for _, part := range []struct {
		what string
		run  func(context.Context, *rig.Table) error
	}{
		{"restart a berth that writes to Route 53, once it has looked for leftovers (within a minute)", w.measureRestart},
		{fmt.Sprintf("start and stop %d containers at once, and at the engine's pace", s.containers), w.measureCalls},
		{fmt.Sprintf("start and kill %d containers, one by one, for Route 53", s.rounds), w.measureRoute53},
		{fmt.Sprintf("wait %v, and see what it does meanwhile", s.idle), w.measureIdle},
		{fmt.Sprintf("start and kill %d containers, one by one, for BIND", s.rounds), w.measureBIND},
		{"weigh berths with and without a sink", w.measureMemory},
	} {
		say("%s", part.what)
		if err := part.run(ctx, t); err != nil {
			return fmt.Errorf("%s: %w", part.what, err)
		}
	}
	_, foreign, err := w.Seen.Counts()
	if foreign > 0 {
		t.Note("Others on the same engine made %d events meanwhile, and their names are berth's, too.", foreign)
	}
	return err
}

// say tells how far the bench is.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench-names: %s  "+format+"\n", append([]any{time.Now().Format(time.TimeOnly)}, args...)...)
}
