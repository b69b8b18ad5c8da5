package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/admin"
)

const statusHelp = `Show one screen about this host: who it is, whether the engine answers, what is
wrong (since when, why, and what to do about it), and each component with its
key figures.

It exits with 0 when berth answered, whatever it said; with --exit-code it exits
with 6 when something is wrong.`

func (c *cli) statusCommand() *cobra.Command {
	var exitCode bool
	var watch time.Duration
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Show how this host fares: one screen",
		Long:    statusHelp,
		Example: "  berth status\n  berth status --watch 2s\n  berth status --exit-code >/dev/null || page-someone",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var st admin.Status
			err := c.show(cmd, "/v1/status", nil, watch, func(raw []byte) error {
				st = admin.Status{}
				if err := json.Unmarshal(raw, &st); err != nil {
					return err
				}
				c.printStatus(&st, time.Now())
				return nil
			}, &st)
			if err == nil && exitCode && (!st.Ready || len(st.Conditions) > 0) {
				return &codedError{codeUnhealthy, errSilent}
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&exitCode, "exit-code", false, "exit with 6 when something is wrong")
	cmd.Flags().DurationVar(&watch, "watch", 0, "show it again at this interval, such as 2s")
	return c.withJSON(cmd)
}

// show gets an answer and prints it, as JSON or with render; with a watch
// interval it does so for ever.
func (c *cli) show(cmd *cobra.Command, path string, query map[string][]string, watch time.Duration, render func([]byte) error, into any) error {
	ctx := cmd.Context()
	print := func(raw []byte) error {
		if c.json {
			if into != nil {
				if err := json.Unmarshal(raw, into); err != nil {
					return fmt.Errorf("read berth's answer: %w", err)
				}
			}
			return c.printJSON(raw)
		}
		if err := render(raw); err != nil {
			return fmt.Errorf("read berth's answer: %w", err)
		}
		return nil
	}
	if watch == 0 {
		raw, err := c.client().Raw(ctx, path, query)
		if err != nil {
			return err
		}
		return print(raw)
	}
	return c.client().Watch(ctx, path, query, watch, func(raw []byte) error {
		if c.json {
			_, err := c.out.Write(raw) // one object per line
			return err
		}
		if terminal(c.out) {
			fmt.Fprint(c.out, "\x1b[H\x1b[2J") // home, clear
		}
		return print(raw)
	})
}

func (c *cli) printStatus(st *admin.Status, now time.Time) {
	p, w := c.painter(), c.out
	head := func(name string) string { return p.paint(bold, fmt.Sprintf("%-8s", name)) }

	state := p.paint(green, "ready")
	if !st.Ready {
		state = p.paint(red, "not ready") + ": " + st.NotReady
	}
	if st.DryRun {
		state += p.paint(yellow, " (dry run: nothing is changed)")
	}
	fmt.Fprintf(w, "%s %s, pid %d, up %s, %s\n", head("berth"), st.Version, st.PID, ago(st.Started, now), state)
	fmt.Fprintf(w, "%s %s\n", head("host"), describeNode(st.Node))
	fmt.Fprintf(w, "%s %s\n", head("engine"), describeEngine(st.Engine, now))
	files := "built-in defaults"
	if len(st.Config.Files) > 0 {
		files = strings.Join(st.Config.Files, ", ")
	}
	fmt.Fprintf(w, "%s %s, loaded %s ago\n", head("config"), files, ago(st.Config.Loaded, now))

	if len(st.Conditions) > 0 {
		fmt.Fprintf(w, "\n%s\n", p.paint(bold, "What is wrong"))
	}
	for _, cond := range st.Conditions {
		colour := red
		if cond.Severity == agent.SeverityWarning {
			colour = yellow
		}
		fmt.Fprintf(w, "  %s %s/%s, since %s: %s\n", p.paint(colour, string(cond.Severity)), cond.Component, cond.Name, ago(cond.Since, now), cond.Why)
		if cond.Hint != "" {
			fmt.Fprintf(w, "          %s %s\n", p.paint(dim, "→"), cond.Hint)
		}
	}
	if st.Config.Error != "" && strings.Contains(st.Config.Error, "\n") {
		fmt.Fprintf(w, "\n%s\n%s\n", p.paint(bold, "The reload that was refused"), indent(st.Config.Error))
	}

	fmt.Fprintln(w)
	t := table{head: []string{"COMPONENT", "STATE", "SINCE", "RESTARTS", "FIGURES"}}
	for _, comp := range st.Components {
		colour := green
		if comp.State != "running" {
			colour = red
		}
		t.add(comp.Name, cell{comp.State, colour}, ago(comp.Since, now), comp.Restarts, comp.Summary)
	}
	t.write(w, p)
}

func describeNode(n admin.Node) string {
	parts := []string{}
	if n.ID != "" {
		parts = append(parts, n.ID)
	} else {
		parts = append(parts, "identity not known yet")
	}
	if n.Hostname != "" && n.Hostname != n.ID {
		parts = append(parts, "hostname "+n.Hostname)
	}
	for _, a := range []string{n.IPv4.String(), n.IPv6.String()} {
		if a != "invalid IP" {
			parts = append(parts, a)
		}
	}
	for _, s := range []string{n.InstanceType, n.Zone, n.Account} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	if n.ID != "" && n.Source != "" {
		known := "identity from " + n.Source
		if !n.Settled {
			known += ", not confirmed yet"
		}
		parts = append(parts, known)
	}
	return strings.Join(parts, ", ")
}

func describeEngine(e admin.Engine, now time.Time) string {
	switch {
	case !e.Connected && e.ID == "":
		return e.Host + ", has not answered yet"
	case !e.Connected:
		return fmt.Sprintf("%s, does not answer; what was known %s ago is kept (%d containers)", e.Host, ago(e.SnapshotAt, now), e.Containers)
	}
	s := fmt.Sprintf("Docker %s at %s, %d containers (%d running), %d networks", e.Version, e.Host, e.Containers, e.Running, e.Networks)
	if !e.Complete {
		s += ", not all known yet"
	}
	return s
}

func indent(s string) string { return "  " + strings.ReplaceAll(s, "\n", "\n  ") }

const reloadHelp = `Make the running berth read its configuration again, as SIGHUP does. All of it is
built and validated first; then the components whose section has changed are run
anew, and no other. A configuration that is wrong changes nothing: the one before
stays in force, berth status says so, and the exit code is 3.`

func (c *cli) reloadCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "reload",
		Short:   "Make the running berth read its configuration again",
		Long:    reloadHelp,
		Example: "  berth check && berth reload",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var res admin.ReloadResult
			err := c.client().Post(cmd.Context(), "/v1/reload", &res)
			if said, ok := errors.AsType[*admin.Error](err); ok && said.Code == 422 {
				if c.json {
					_ = c.printJSON(said.Body)
					return &codedError{codeConfig, errSilent}
				}
				return &codedError{codeConfig, fmt.Errorf("reload refused, the configuration before is in force:\n%s", said.Message)}
			}
			if err != nil {
				return err
			}
			if c.json {
				raw, err := json.Marshal(res)
				if err != nil {
					return err
				}
				return c.printJSON(raw)
			}
			if len(res.Changed) == 0 {
				fmt.Fprintln(c.out, "Nothing has changed.")
			} else {
				fmt.Fprintln(c.out, "Run anew: "+strings.Join(res.Changed, ", "))
			}
			return nil
		},
	}
	return c.withJSON(cmd)
}
