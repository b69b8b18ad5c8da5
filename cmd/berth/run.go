package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

const runHelp = `Run the daemon in the foreground. It logs to standard error and stops on SIGTERM
or Ctrl-C (a second one stops it at once); SIGHUP reloads the configuration.

Stopping berth takes no name out of DNS by intent: a restart or an upgrade is
invisible to those who ask.

With --dry-run nothing outside this process is changed or served: what berth
would do is printed on standard output, as one JSON object per line.`

const runExample = `  berth run
  berth run --config ./berth.yaml
  berth run --dry-run | jq .
  berth run --set dns.port=5353 --set state_dir=/tmp/berth --set admin.socket=/tmp/berth.sock`

func (c *cli) runCommand() *cobra.Command {
	var files configFiles
	var dryRun bool
	cmd := &cobra.Command{
		Use:     "run",
		Short:   "Run the daemon in the foreground",
		Long:    runHelp,
		Example: runExample,
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := files.load()
			if err != nil {
				return err
			}
			beSmall(cfg.Admin.Pprof)
			d, err := newDaemon(&files, cfg, dryRun)
			if err != nil {
				return err
			}
			for _, w := range cfg.result.Warnings {
				d.env.Log.Warn(w)
			}
			return d.runUntilSignal(cmd.Context())
		},
	}
	files.flags(cmd.Flags())
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "print what would be done, and do nothing")
	return cmd
}

// beSmall trades a little CPU, of which berth uses next to none, for memory, which
// it takes from the host's containers. GOGC in the environment has the last word.
func beSmall(profiles bool) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(40)
	}
	if !profiles {
		runtime.MemProfileRate = 0 // its tables take more than a megabyte
	}
}

// giveBack returns what a burst took to the host, every minute until ctx ends. It
// costs some milliseconds.
func giveBack(ctx context.Context) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			debug.FreeOSMemory()
		case <-ctx.Done():
			return
		}
	}
}

// runUntilSignal runs the daemon until a signal ends it.
func (d *daemon) runUntilSignal(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	d.context = ctx
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt, syscall.SIGHUP)
	defer signal.Stop(signals)

	done := make(chan error, 1)
	go func() { done <- d.run(ctx) }()
	for {
		select {
		case err := <-done:
			return err
		case sig := <-signals:
			switch {
			case sig == syscall.SIGHUP:
				if res := d.Reload(ctx); res.Error != "" {
					d.env.Log.Error("reload refused", "err", res.Error)
				}
			case ctx.Err() == nil:
				cancel(fmt.Errorf("signal %v", sig))
			default:
				return errors.New("stopped at once by a second signal")
			}
		}
	}
}
