// Package burner is the sample application that uses as much CPU time and memory
// as it is told to. What it uses, it measures itself by the kernel's clock of its
// process, so that a test knows what an account of it must say.
package burner

import (
	"context"
	"flag"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// slice is how long it works at a stretch, and sleeps at most.
const slice = 10 * time.Millisecond

// Run burns as its flags say, until ctx ends:
//
//	-cores f    so many cores, one at most, on an average of 10 ms
//	-cpu d      so much CPU time at once, and end then
//	-for d      end after this time
//	-memory n   touch so many MiB first, and keep them
//
// It writes "ready" before it works, and "used", the nanoseconds of CPU time of
// its process, and the nanoseconds of its life, each second and at its end.
func Run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("burner", flag.ContinueOnError)
	cores := flags.Float64("cores", 0, "cores to use")
	amount := flags.Duration("cpu", 0, "CPU time to use before it ends")
	life := flags.Duration("for", 0, "time after which it ends")
	mebibytes := flags.Int("memory", 0, "MiB to touch")
	if err := flags.Parse(args); err != nil {
		return err
	}
	kept := make([]byte, *mebibytes<<20)
	for i := 0; i < len(kept); i += 4096 {
		kept[i] = 1
	}
	if *life > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, *life)
		defer cancel()
	}
	began := time.Now()
	fmt.Println("ready")
	said := began
	say := func() {
		used, _ := clock()
		fmt.Println("used", used.Nanoseconds(), time.Since(began).Nanoseconds())
	}
	defer say()
	first, err := clock()
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		now := time.Now()
		used, err := clock()
		if err != nil {
			return err
		}
		if *amount > 0 && used >= *amount {
			break
		}
		due := time.Duration(float64(now.Sub(began)) * *cores)
		if *amount > 0 || used-first < due {
			work(now.Add(slice / 10))
		} else {
			select {
			case <-ctx.Done():
			case <-time.After(slice):
			}
		}
		if now.Sub(said) >= time.Second {
			said = now
			say()
		}
	}
	_ = kept[len(kept)/2:]
	return nil
}

// work works until then.
func work(then time.Time) {
	for x := uint64(1); time.Now().Before(then); {
		for range 1000 {
			x = x*6364136223846793005 + 1442695040888963407
		}
		if x == 0 {
			fmt.Println("never")
		}
	}
}

// clock returns the CPU time that this process has used.
func clock() (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts); err != nil {
		return 0, fmt.Errorf("read the CPU clock: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}
