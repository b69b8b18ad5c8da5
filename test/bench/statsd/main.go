// Command statsd measures what berth's statsd relay costs, beside the naive relay
// in baseline and statsd_exporter's, and prints one table.
//
//	go run ./test/bench/statsd          # as root; eighteen minutes
//	go run ./test/bench/statsd -check   # fails unless the limits hold
//	go run ./test/bench/statsd -write   # the table also into test/bench/README.md
//	go run ./test/bench/statsd -quick   # one round of everything, for a look
//	go run ./test/bench/statsd -place loopback -relays berth -fixed
//	go run ./test/bench/statsd -peer 'statsrelay=/opt/statsrelay -b {listen} {upstream}'
//
// # How it is measured
//
// Each relay runs on processor 0, and generator and sink share processor 1. Eight
// senders have an address each; a datagram has one line of 80 bytes, or ten. They
// take turns in sending 1 to 16 datagrams at once (64 from 400,000 a second on), by
// UDP segmentation, which the receiving socket takes apart: a relay sees datagrams
// like any others. berth adds some 190 bytes of tags to each line, by the sender's
// address; the others add none.
//
// The sink counts the lines, and looks at 5,000 of them a second: each must be
// what was sent, followed by the tags of its sender where some are added. One
// line that is not so fails the bench. A line's value is the time at which it was
// sent, so that its age at the sink is the latency, with the wait for the sink's
// own thread.
//
// CPU time is the relay's, by the process's clock, which is the sum over
// /proc/PID/task/*/schedstat with the threads that have ended. The kernel charges
// the delivery to the sink to the relay that sends, and the delivery to the relay
// to the generator.
//
// In each round, every relay in turn is measured at each rate; the table has the
// medians. The highest rate is searched for: the highest at which less than one
// line in a thousand is lost in one of three runs, and that again. Where the generator cannot send
// more, the figure is a lower bound and is marked ≥. All runs are then made once
// more through a bridge, to which a network namespace for each sender is
// connected by a veth pair, as an engine connects containers.
//
// Memory is what a relay that has relayed has more at its highest than berth's
// relay before the first line; allocations are those of its whole process.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// limit bounds the whole run: for something broken, never a measure.
const limit = 40 * time.Minute

// processors is how many goroutines of the bench may run, on its one processor:
// generator, sink, and what else wakes up.
const processors = 8

// settings are the flags.
type settings struct {
	check, write, quick bool
	fixed               bool
	only, relays        string
	rounds              int
	length              time.Duration
	peers               []contender
}

// whole tells whether there is what the limits are about.
func (s settings) whole() bool { return !s.fixed && s.relays == "" }

func main() {
	var s settings
	flag.BoolVar(&s.check, "check", false, "exit with 1 unless the limits hold")
	flag.BoolVar(&s.write, "write", false, "also keep the table in "+readme)
	flag.BoolVar(&s.quick, "quick", false, "one short round")
	flag.StringVar(&s.only, "place", "", "measure at one `place` only: loopback or bridge")
	flag.BoolVar(&s.fixed, "fixed", false, "at the fixed rates only: no search, no judgement")
	flag.StringVar(&s.relays, "relays", "", "measure only relays with this in their `name`, as \"berth, tagged → udp\"")
	flag.IntVar(&s.rounds, "rounds", 5, "rounds of the measurements at fixed rates")
	flag.DurationVar(&s.length, "time", 2*time.Second, "length of each measurement")
	flag.Func("peer", "also measure `name=command`, with {listen} and {upstream} in it", func(text string) error {
		c, err := parsePeer(text)
		s.peers = append(s.peers, c)
		return err
	})
	flag.Parse()
	if s.check && !s.whole() {
		fmt.Fprintln(os.Stderr, "bench-statsd: -check needs a run without -fixed and -relays")
		os.Exit(2)
	}
	if s.quick {
		s.rounds, s.length = 1, time.Second
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := bench(ctx, s); err != nil {
		fmt.Fprintln(os.Stderr, "bench-statsd:", err)
		os.Exit(1)
	}
}

// bench measures everything, cleans up and prints the table.
func bench(ctx context.Context, s settings) error {
	t := &table{began: time.Now(), load: loadAverage()}
	if err := measureAll(ctx, s, t); err != nil {
		if ctx.Err() != nil {
			err = errors.New("interrupted; all that it had started is removed")
		}
		return err
	}
	if s.whole() {
		t.judge()
	}
	if err := t.print(os.Stdout); err != nil {
		return err
	}
	if s.write {
		if err := t.keep(readme); err != nil {
			return err
		}
	}
	if missed := t.missed(); s.check && len(missed) > 0 {
		return fmt.Errorf("%d limits do not hold: %q", len(missed), missed)
	}
	return nil
}

// measureAll measures in each place.
func measureAll(ctx context.Context, s settings, t *table) (err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	bin, err := buildAll(ctx)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench-statsd-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	starter() // before: its thread may run anywhere
	// The runtime sees within a second that it is confined to one processor, and
	// would run one goroutine at a time: the sink, woken by the kernel, would wait
	// for the generator's to end its turn, and its wait would count as the relay's.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(processors))
	if err := confine(benchCPU); err != nil {
		return err
	}
	defer prefer(os.Getpid())()
	for _, name := range []string{loopback{}.name(), (&bridge{}).name()} {
		if s.only != "" && s.only != name {
			continue
		}
		if err := measureAt(ctx, s, t, name, dir, append(contenders(bin), s.peers...)); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// measureAt measures in one place.
func measureAt(ctx context.Context, s settings, t *table, name, dir string, who []contender) (err error) {
	var p place = loopback{}
	if name != p.name() {
		if p, err = newBridge(ctx); err != nil {
			return err
		}
	}
	defer func() { err = errors.Join(err, p.close()) }()
	var relays []*relay
	defer func() {
		for _, r := range relays {
			err = errors.Join(err, r.stop())
		}
	}()
	var entries []*entry
	for _, c := range who {
		if !strings.Contains(c.name+" → "+c.upstream, s.relays) {
			continue
		}
		r, err := start(ctx, c, p, dir)
		if err != nil {
			return err
		}
		relays = append(relays, r)
		entries = append(entries, &entry{relay: r})
	}
	if err := measureMemoryBefore(entries); err != nil {
		return err
	}
	for round := range s.rounds {
		say("%s: round %d of %d at fixed rates", name, round+1, s.rounds)
		for _, rate := range fixedRates {
			for _, e := range entries {
				if err := e.fixed(ctx, rate, s.length); err != nil {
					return err
				}
			}
		}
	}
	if s.fixed {
		t.add(name, entries)
		return nil
	}
	for _, perDatagram := range []int{1, many} {
		for _, e := range entries {
			say("%s: the highest rate of %s to %s, %d in a datagram", name, e.relay.name, e.relay.upstream, perDatagram)
			if err := e.search(ctx, perDatagram, s.quick); err != nil {
				return err
			}
		}
	}
	for _, e := range entries {
		if err := e.rest(ctx, s.length); err != nil {
			return err
		}
	}
	t.add(name, entries)
	return nil
}

// say tells how far the bench is.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench-statsd: %s  "+format+"\n", append([]any{time.Now().Format(time.TimeOnly)}, args...)...)
}
