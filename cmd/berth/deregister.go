package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spf13/cobra"
)

const deregisterHelp = `Take this host's records out of the zones of the fleet (Route 53, RFC 2136), and
forget them. It is for a host that berth is removed from; the packages run it
then, but not when they are upgraded. Stop berth first: a running one would write
the records again. To keep berth and stop using a zone, set enabled: false in its
section and reload instead.

Which records those are is known from berth's state, so that the zone is not
searched and nothing of another host is touched. What cannot be reached within
the time is left, and said; run it again, then.`

const deregisterExample = `  systemctl stop berth && berth deregister
  berth deregister --timeout 2m --json`

// deregistration is the JSON of berth deregister.
type deregistration struct {
	Name    string `json:"name"`
	Removed bool   `json:"removed"`
	Error   string `json:"error,omitempty"`
}

func (c *cli) deregisterCommand() *cobra.Command {
	var files configFiles
	var timeout time.Duration
	cmd := c.withJSON(&cobra.Command{
		Use:     "deregister",
		Short:   "Take this host's records out of shared zones, before berth is removed",
		Long:    deregisterHelp,
		Example: deregisterExample,
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if timeout <= 0 {
				return usageError(fmt.Errorf("--timeout %v: give it some time, such as 30s", timeout))
			}
			cfg, err := files.load()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			done, err := deregister(ctx, &files, cfg)
			if err != nil {
				return err
			}
			return c.printDeregistered(done)
		},
	})
	files.flags(cmd.Flags())
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "how long to try")
	return cmd
}

// deregister takes back what each fleet sink has written, all at once.
func deregister(ctx context.Context, files *configFiles, cfg *loaded) ([]deregistration, error) {
	if cfg.Log.Level == "info" {
		cfg.Log.Level = "warn" // what it comes to is printed
	}
	d, err := newDaemon(files, cfg, false)
	if err != nil {
		return nil, err
	}
	defer func() { _ = errors.Join(d.engine.Close(), d.node.Close()) }()
	defer d.sockets.Close()
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() { _ = d.node.Run(ctx) })

	var kinds []fleetKind
	for _, kind := range fleetKinds(cfg.Config) {
		if wrote(d.env, kind.name) {
			kinds = append(kinds, kind)
		}
	}
	out := make([]deregistration, len(kinds))
	var working sync.WaitGroup
	for i, kind := range kinds {
		working.Go(func() {
			out[i] = deregistration{Name: kind.name, Removed: true}
			if err := withdraw(ctx, kind, d.env); err != nil {
				out[i] = deregistration{Name: kind.name, Error: err.Error()}
			}
		})
	}
	working.Wait()
	return out, nil
}

func (c *cli) printDeregistered(done []deregistration) error {
	failed := false
	for _, r := range done {
		failed = failed || !r.Removed
	}
	if c.json {
		raw, err := json.Marshal(struct {
			Sinks []deregistration `json:"sinks"`
		}{append([]deregistration{}, done...)})
		if err != nil {
			return err
		}
		if err := c.printJSON(raw); err != nil {
			return err
		}
		if failed {
			return errSilent
		}
		return nil
	}
	if len(done) == 0 {
		fmt.Fprintln(c.out, "This host has no records in a zone of the fleet.")
	}
	for _, r := range done {
		if r.Removed {
			fmt.Fprintf(c.out, "%s: no records of this host are left.\n", r.Name)
		} else {
			fmt.Fprintf(c.out, "%s: %s\n", r.Name, r.Error)
		}
	}
	if failed {
		return errors.New("records of this host may be left: run it again when what is said above is right")
	}
	return nil
}
