package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/collectors/discovery"
)

const servicesHelp = `List the names that this host's containers claim, and where each leads: every
instance with its address and port, and for those that are out of DNS, why.`

func (c *cli) servicesCommand() *cobra.Command {
	var watch time.Duration
	cmd := &cobra.Command{
		Use:     "services",
		Short:   "List the names that containers have, and where they lead",
		Long:    servicesHelp,
		Example: "  berth services\n  berth services --watch 1s\n  berth services --json | jq -r '.[].srv'",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.show(cmd, "/v1/discovery/services", nil, watch, func(raw []byte) error {
				var list []discovery.Service
				if err := json.Unmarshal(raw, &list); err != nil {
					return err
				}
				c.printServices(cmd.Context(), list, time.Now())
				return nil
			}, nil)
		},
	}
	cmd.Flags().DurationVar(&watch, "watch", 0, "show it again at this interval, such as 2s")
	return c.withJSON(cmd)
}

func (c *cli) printServices(ctx context.Context, list []discovery.Service, now time.Time) {
	if len(list) == 0 {
		c.printNothing(ctx, "No container on this host claims a name.\nGive one a label, as in: docker run --label SERVICE_80_NAME=web …   Why a container has none: berth explain <container>")
		return
	}
	t := table{head: []string{"SERVICE", "CONTAINER", "PORT", "ADDRESS", "STATE", "SINCE"}}
	for _, s := range list {
		for _, in := range s.Instances {
			state := cell{in.State, green}
			if in.State != discovery.Registered {
				state = cell{in.State + ": " + in.Reason, yellow}
			}
			var addr string
			if in.Port != 0 && len(in.Addresses) > 0 {
				addr = fmt.Sprintf("%s:%d", hostOf(in), in.Port)
			}
			t.add(s.SRV, in.Container, fmt.Sprintf("%d/%s", in.ContainerPort, in.Proto), orDash(addr), state, ago(in.Since, now))
		}
	}
	t.write(c.out, c.painter())
}

func hostOf(in discovery.Instance) string {
	if a := in.Addresses[0]; a.Is6() {
		return "[" + a.String() + "]"
	}
	return in.Addresses[0].String()
}

const portsHelp = `Show where the ports of a container are found on this host, or those of every
container that claims a service; with a port number, that one only.`

func (c *cli) portsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "ports <container|service> [port]",
		Short:   "Show where a container's ports are mapped to",
		Long:    portsHelp,
		Example: "  berth ports web\n  berth ports calc 5555     where is the JMX port of calc?\n  berth ports 3f2a9c --json",
		Args:    atMost(2, "container or service"),
		RunE: func(cmd *cobra.Command, args []string) error {
			query := url.Values{"ref": {args[0]}}
			if len(args) == 2 {
				if _, err := strconv.ParseUint(args[1], 10, 16); err != nil {
					return usageError(fmt.Errorf("port %q: give a number from 1 to 65535", args[1]))
				}
				query.Set("port", args[1])
			}
			return c.show(cmd, "/v1/discovery/ports", query, 0, func(raw []byte) error {
				var list []discovery.PortMapping
				if err := json.Unmarshal(raw, &list); err != nil {
					return err
				}
				c.printPorts(list)
				return nil
			}, nil)
		},
	}
	return c.withJSON(cmd)
}

func (c *cli) printPorts(list []discovery.PortMapping) {
	if len(list) == 0 {
		fmt.Fprintln(c.out, "It has no such port.")
		return
	}
	t := table{head: []string{"CONTAINER", "PORT", "REACHED AT", "BOUND TO", "SERVICES", "NOTE"}}
	for _, m := range list {
		t.add(m.Container, fmt.Sprintf("%d/%s", m.Port, m.Proto), orDash(m.Host), orDash(m.Bound),
			orDash(strings.Join(m.Services, ",")), m.Note)
	}
	t.write(c.out, c.painter())
}

const explainHelp = `Say rule by rule why a container has its names, or has none, with which tags its
metrics are passed on, what it reserves and by which setting, and what would change
that. The container may be given by
name, ID, or the beginning of an ID.

Given the path of a log folder, say why it is kept, or when it will be deleted.`

func (c *cli) explainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "explain <container|folder>",
		Short:   "Say why a container has a name, or a log folder is kept",
		Long:    explainHelp,
		Example: "  berth explain web\n  berth explain 3f2a9c --json\n  berth explain /var/log/acme/web/containers/3f2a9c0d1e5b",
		Args:    exactly("container"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if filepath.IsAbs(args[0]) {
				return c.explainFolder(cmd, args[0])
			}
			ex, err := c.explanation(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if c.json {
				raw, err := json.Marshal(ex)
				if err != nil {
					return err
				}
				return c.printJSON(raw)
			}
			c.printExplanation(ex)
			return nil
		},
	}
	return c.withJSON(cmd)
}

// explanation asks all components that have something to say of a container.
func (c *cli) explanation(ctx context.Context, container string) (*discovery.Explanation, error) {
	query := url.Values{"container": {container}}
	var ex discovery.Explanation
	if err := c.client().Get(ctx, "/v1/discovery/explain", query, &ex); err != nil {
		return nil, err
	}
	// They may be off, and they know no container that was removed.
	for _, path := range []string{"/v1/statsd/explain", "/v1/usage/explain"} {
		var more []agent.Reason
		if err := c.client().Get(ctx, path, query, &more); err == nil {
			ex.Reasons = append(ex.Reasons, more...)
		}
	}
	return &ex, nil
}

func (c *cli) printExplanation(ex *discovery.Explanation) {
	p := c.painter()
	fmt.Fprintf(c.out, "%s  %s, image %s, %s", p.paint(bold, ex.Container), agent.ShortID(ex.ContainerID), ex.Image, ex.State)
	if o := ex.Origin; o.Orchestrator != "" {
		fmt.Fprintf(c.out, ", by %s", o.Orchestrator)
		for _, s := range []string{o.Cluster, o.Service} {
			if s != "" {
				fmt.Fprintf(c.out, " %s", s)
			}
		}
	}
	fmt.Fprintln(c.out)
	for _, r := range ex.Reasons {
		colour := map[string]paint{discovery.Registered: green, discovery.Out: yellow, discovery.Refused: red}[r.Verdict]
		fmt.Fprintf(c.out, "  %s %s: %s\n", p.paint(colour, fmt.Sprintf("%-10s", r.Verdict)), r.Subject, r.Rule)
		if r.Fix != "" {
			fmt.Fprintf(c.out, "             %s %s\n", p.paint(dim, "→"), r.Fix)
		}
	}
}
