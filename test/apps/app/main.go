// Command app is every sample application of berth in one static binary: its
// first argument names the one to be.
//
//	app burner  [-cores 0.25] [-cpu 3s] …
//	app calc    [-listen :8080]
//	app time    [-listen :8080]
//	app portal  [-listen :8080] [-domain berth.internal]
//	app sleeper [-exit-after 1s] [-ignore-term] …
//	app metrics [-client udp] [-count 1] …
//	app health  [-file /health]
//
// One binary makes one small layer, which all containers of a test share.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/berthd/berth/test/apps/burner"
	"github.com/berthd/berth/test/apps/calc"
	"github.com/berthd/berth/test/apps/metrics"
	"github.com/berthd/berth/test/apps/portal"
	"github.com/berthd/berth/test/apps/sleeper"
	clock "github.com/berthd/berth/test/apps/time"
)

func main() {
	// The sleeper decides by itself what a signal does to it.
	if len(os.Args) > 1 && os.Args[1] == "sleeper" {
		exit(sleeper.Run(os.Args[2:]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	exit(run(ctx, os.Args[1:]))
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("usage: app burner|calc|time|portal|metrics|sleeper|health [flags]")
	}
	switch name, rest := args[0], args[1:]; name {
	case "burner":
		return burner.Run(ctx, rest)
	case "calc":
		return calc.Run(ctx, rest)
	case "time":
		return clock.Run(ctx, rest)
	case "portal":
		return portal.Run(ctx, rest)
	case "metrics":
		return metrics.Run(ctx, rest)
	case "health":
		return sleeper.Health(rest)
	default:
		return fmt.Errorf("unknown application %q", name)
	}
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "app:", err)
		os.Exit(1)
	}
	os.Exit(0)
}
