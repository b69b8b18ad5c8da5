// Command prune measures the pruning of log folders: berth's collector with all of
// its safety, beside a plain pruner in Go without any (baseline) and, where ruby is,
// the same in Ruby.
//
//	go run ./test/bench/prune           # seven minutes on a disk; needs root
//	go run ./test/bench/prune -check    # exits with 1 when a number is missed
//	go run ./test/bench/prune -write    # the table also into test/bench/README.md
//	go run ./test/bench/prune -dir DIR  # where the trees are made; a temporary folder by default
//
// # How it is measured
//
// Every measurement has a fresh copy of one tree: 2,000 folders of containers below
// twenty services, 1,800 of them dead, five files of 2 KiB in each, and 20,000 other
// files beside them. All three look for …/**/containers/* in it; berth also with its
// default glob, which knows the depth. The page cache is warm: the tree was just
// written. Each row is the median of the rounds, which take turns, of the time on
// the clock and of CPU time. The floor is the barest deletion of the same folders on
// all cores, by names known before: what the kernel itself takes.
//
// The other two are timed as processes, less the time that their runtime needs to start and
// end with nothing to do. berth is a daemon: a process of its own is asked over HTTP
// to scan, or to delete, and says how long that took, from the request to the end. It has
// looked once before, as `prune.many` wants it for so many, and its rate is not
// limited. Its engine is a fake one behind a Unix socket, in this process, which is
// asked about each folder before it goes; a row shows what that costs.
//
// Idle is the CPU time of ten minutes: of one scan, and of the wake-ups between. The
// time is that of the process's clock, with 1,000 folders of live containers.
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
)

const limit = 25 * time.Minute

type settings struct {
	dir          string
	rounds       int
	check, write bool
}

func main() {
	var s settings
	var c childSettings
	flag.StringVar(&s.dir, "dir", "", "folder for the trees")
	flag.IntVar(&s.rounds, "rounds", 5, "rounds of each measurement")
	flag.BoolVar(&s.check, "check", false, "exit with 1 when a number is missed")
	flag.BoolVar(&s.write, "write", false, "also keep the table in "+readme)
	c.flags()
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	run := func() error { return bench(ctx, s) }
	if c.mode != "" {
		run = func() error { return child(ctx, c) }
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench-prune:", err)
		os.Exit(1)
	}
}

func bench(ctx context.Context, s settings) (err error) {
	if os.Getuid() != 0 {
		return errors.New("this needs root, as berth does")
	}
	w, err := newWorld(ctx, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	if err := w.measure(ctx); err != nil {
		return err
	}
	t := w.table()
	if err := t.print(os.Stdout); err != nil {
		return err
	}
	if s.write {
		if err := t.keep(); err != nil {
			return err
		}
	}
	if missed := t.missed(); s.check && len(missed) > 0 {
		return fmt.Errorf("%d numbers are missed: %q", len(missed), missed)
	}
	return nil
}

func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench-prune: %s  "+format+"\n", append([]any{time.Now().Format(time.TimeOnly)}, args...)...)
}
