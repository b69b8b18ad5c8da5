// Command loop measures the way from an engine's event to a DNS answer, and what
// berth costs the host and the engine meanwhile, with bin/berth on this machine's
// real engine and 100 running containers.
//
//	go run ./test/bench/loop          # ≤ 5 minutes; needs bin/berth (make build)
//	go run ./test/bench/loop -check   # exits with 1 when a number is missed
//	go run ./test/bench/loop -json    # the table as JSON
//	go run ./test/bench/loop -write   # the table also into test/bench/README.md
//	go run ./test/bench/loop -long    # two idle minutes rather than one
//
// # How it is measured
//
// Latency. An event stream of the bench's own notes when it sees an event; from
// then on, and not before, the bench asks berth's DNS server over loopback, again
// 200 µs after each answer, until the answer is right. Nothing polls while the
// engine works, so that two cores are enough for an honest figure. It is from
// event to answer in hand, thus one round trip and up to one such pause too long.
// Containers start and are killed one after the other, and berth speaks to the
// engine directly.
//
// Counts. Another berth speaks to the engine through a proxy on a Unix socket,
// which counts every call, by container. Its counts must be those of
// /v1/status. They are held against the events that the bench's own stream has
// seen of the same containers; of these, the ones that change a container's state
// count: a signal (kill) and what only follows another event (stop, restart) do
// not. Containers of other people on the same engine are left out.
//
// Idle. One minute without an event at the default interval between lists; if
// somebody else's containers make events, the minute is measured once more, and
// if they do again, the table says so. Beside it runs a berth that lists every 10 s, for six intervals
// in a minute. CPU time is the process's clock (clock_getcpuclockid(3)), exact to
// the nanosecond, and includes threads that have ended.
//
// Start to READY is from before the fork to the datagram at the bench's own
// NOTIFY_SOCKET. Memory is the highest VmRSS that was seen after any part.
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

// limit bounds the whole run, and patience each wait in it: bounds for something
// broken, never measures.
const (
	limit    = 10 * time.Minute
	patience = rig.Patience
)

// settings are the flags.
type settings struct {
	berth              string
	containers, rounds int
	check, json, write bool
	long               bool
}

func main() {
	var s settings
	flag.StringVar(&s.berth, "berth", "bin/berth", "the agent to measure")
	flag.IntVar(&s.containers, "containers", 100, "running containers")
	flag.IntVar(&s.rounds, "rounds", 100, "measured starts, and kills")
	flag.BoolVar(&s.check, "check", false, "exit with 1 when a number is missed")
	flag.BoolVar(&s.json, "json", false, "print the table as JSON")
	flag.BoolVar(&s.write, "write", false, "also keep the table in "+rig.README)
	flag.BoolVar(&s.long, "long", false, "measure two idle minutes rather than one")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := bench(ctx, s); err != nil {
		fmt.Fprintln(os.Stderr, "bench-loop:", err)
		os.Exit(1)
	}
}

// bench measures everything, cleans up and prints the table.
func bench(ctx context.Context, s settings) error {
	t := rig.NewTable("loop")
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
	w := newWorld(s)
	defer func() {
		say("remove what was started")
		cleared := w.clear()
		if outer.Err() != nil {
			err = errors.New("interrupted; all that it had started is removed")
		}
		err = errors.Join(err, cleared)
	}()
	if err := w.Open(ctx); err != nil {
		return err
	}
	t.About = fmt.Sprintf("with %d running containers, half of them with a name. %s", s.containers, rig.Machine(w.Version))
	for _, part := range []struct {
		what string
		run  func(context.Context, *rig.Table) error
	}{
		{fmt.Sprintf("start %d containers", s.containers), w.populate},
		{"start berth five times", w.measureReady},
		{fmt.Sprintf("start and kill %d containers, one by one", s.rounds), w.measureLatency},
		{"count what berth asks of the engine, event by event", w.measureInspects},
		{fmt.Sprintf("count what it asks during %d execs", execs), w.measureExecs},
		{"wait, and see what it does meanwhile", w.measureIdle},
	} {
		say("%s", part.what)
		if err := part.run(ctx, t); err != nil {
			return fmt.Errorf("%s: %w", part.what, err)
		}
	}
	w.measureMemory(t)
	return nil
}

// say tells how far the bench is.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench-loop: %s  "+format+"\n", append([]any{time.Now().Format(time.TimeOnly)}, args...)...)
}
