// Command demo shows berth's main jobs on this machine's own Docker engine: real
// containers get names in DNS, find each other by them, and lose them the
// moment they stop; and their metrics arrive with the tags of who sent them. Every
// line that it prints was checked; if one turns out not to be so, it says what was
// expected and exits with 1.
//
// It starts the agent with its defaults (its state and socket in a temporary
// folder), and removes all that it made, also after Ctrl-C.
//
// With -bind the names are in a zone of a BIND of its own, where any client of
// that server finds them: the agent has a key that may change what is its host's.
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

// limit bounds the whole demo, and patience each wait in it: bounds for
// something broken, never measures.
const (
	limit    = 3 * time.Minute
	patience = 45 * time.Second
)

func main() {
	berth := flag.String("berth", "bin/berth", "the agent to show")
	bind := flag.Bool("bind", false, "keep the names in a zone of BIND")
	flag.Parse()
	// The last two come when the terminal is closed, or the reader of a pipe is.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	if err := demo(ctx, *berth, *bind); err != nil {
		fmt.Fprintln(os.Stderr, "\ndemo:", err)
		os.Exit(1)
	}
}

// demo plays all scenes and cleans up.
func demo(ctx context.Context, berth string, bind bool) (err error) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	s := newStage(os.Stdout, bind)
	defer func() {
		interrupted := errors.Is(ctx.Err(), context.Canceled)
		left := s.clear()
		switch {
		case interrupted && left == nil:
			err = errors.New("interrupted; all that it had started is removed")
		case interrupted:
			err = fmt.Errorf("interrupted, and not all that it had started is removed: %w", left)
		default:
			err = errors.Join(err, left)
		}
	}()
	if err := s.open(ctx, berth); err != nil {
		return err
	}
	scenes := []func(context.Context) error{s.names, s.together, s.tell, s.goodbye, s.more, s.health, s.refused, s.folders, s.sizes, s.status}
	if bind {
		scenes = []func(context.Context) error{s.names, s.dig, s.together, s.goodbye, s.more, s.health, s.strangers, s.status, s.restart, s.leave}
	}
	for _, scene := range scenes {
		if err := scene(ctx); err != nil {
			return err
		}
	}
	s.title("That was all")
	s.say("From the engine's event to the answer in DNS: a start took %s, a stop %s.", s.starts, s.stops)
	if bind {
		s.say("What changes within 250 ms goes out together, so that some of it waits as long.")
	}
	s.say("%d containers came and went in %.0f s. What the demo started is removed now.", s.made, time.Since(began).Seconds())
	return nil
}
