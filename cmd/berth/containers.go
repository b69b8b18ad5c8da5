package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/admin"
)

const containersHelp = `List the containers that berth knows: the running ones, or all with --all.

This is berth's own view, which can differ from "docker ps" for some
milliseconds, and for as long as the engine does not answer.`

func (c *cli) containersCommand() *cobra.Command {
	var all bool
	var watch time.Duration
	cmd := &cobra.Command{
		Use:     "containers",
		Aliases: []string{"ps"},
		Short:   "List the containers that berth knows",
		Long:    containersHelp,
		Example: "  berth containers\n  berth containers --all\n  berth containers --json | jq -r '.[].name'",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.show(cmd, "/v1/containers", nil, watch, func(raw []byte) error {
				var list []admin.ContainerInfo
				if err := json.Unmarshal(raw, &list); err != nil {
					return err
				}
				c.printContainers(cmd.Context(), list, all, time.Now())
				return nil
			}, nil)
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "also those that do not run (JSON always has all)")
	cmd.Flags().DurationVar(&watch, "watch", 0, "show it again at this interval, such as 2s")
	return c.withJSON(cmd)
}

func (c *cli) printContainers(ctx context.Context, list []admin.ContainerInfo, all bool, now time.Time) {
	t := table{head: []string{"ID", "NAME", "IMAGE", "STATE", "SINCE", "ADDRESS", "PORTS"}}
	for _, ct := range list {
		alive := ct.State == agent.StateRunning || ct.State == agent.StatePaused
		if !alive && !all {
			continue
		}
		state, since := describeState(ct), ct.StartedAt
		if !alive {
			since = ct.FinishedAt
		}
		var addrs, ports []string
		for _, a := range ct.Addresses {
			addrs = append(addrs, a.String())
		}
		for _, p := range ct.Ports {
			ports = append(ports, describePort(p))
		}
		t.add(agent.ShortID(ct.ID), ct.Name, ct.Image, state, ago(since, now),
			orDash(strings.Join(addrs, ",")), strings.Join(slices.Compact(ports), " "))
	}
	if len(t.rows) == 0 {
		c.printNothing(ctx, "No containers run on this host. All there are: berth containers --all")
		return
	}
	t.write(c.out, c.painter())
}

// printNothing prints text, which says that a list is empty, or why that cannot
// be said: what the engine has not told is not known to be absent.
func (c *cli) printNothing(ctx context.Context, text string) {
	var st admin.Status
	if err := c.client().Get(ctx, "/v1/status", nil, &st); err == nil && !st.Engine.Complete {
		text = "Not known: " + st.NotReady + ". What to do about it: berth status"
	}
	fmt.Fprintln(c.out, text)
}

func describeState(ct admin.ContainerInfo) cell {
	switch {
	case !ct.StoppingSince.IsZero():
		return cell{"stopping", yellow}
	case ct.State == agent.StateRunning && ct.Health == agent.HealthUnhealthy:
		return cell{"unhealthy", red}
	case ct.State == agent.StateRunning && ct.Health != agent.HealthNone:
		return cell{string(ct.Health), green}
	case ct.State == agent.StateRunning:
		return cell{"running", green}
	case ct.State == agent.StateExited:
		return cell{fmt.Sprintf("exited (%d)", ct.ExitCode), dim}
	}
	return cell{string(ct.State), plain}
}

// describePort shows both families' wildcard as "*", so that a port that is
// published on 0.0.0.0 and [::] alike shows once.
func describePort(p admin.PortInfo) string {
	inside := fmt.Sprintf("%d/%s", p.Container, p.Proto)
	if !p.Host.IsValid() {
		return inside
	}
	host := p.Host.Addr().String()
	switch p.Host.Addr() {
	case netip.IPv4Unspecified(), netip.IPv6Unspecified():
		host = "*"
	}
	return fmt.Sprintf("%s:%d→%s", host, p.Host.Port(), inside)
}
