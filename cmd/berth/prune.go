package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/berthd/berth/collectors/logprune"
)

const pruneHelp = `Show which log folders of containers are due to be deleted, which wait, and what is
in the way of others. Nothing is changed without --now; and until prune.enabled is
true in the configuration, nothing is deleted at all.

With --dry-run every folder is shown, the kept and the foreign ones too, with the
rule that decides about it and what would change that.

After the engine was replaced, moved or lost its data, berth deletes nothing: what
the new one does not know may be alive. When you know that no container of the
former engine is, say so with --accept-engine.`

const pruneExample = `  berth prune                    what is due, what waits, what is in the way
  berth prune --dry-run          every folder, and why
  berth prune --now              delete what is due, now
  berth prune log                what was deleted, and why
  berth explain /var/log/acme/web/containers/3f2a9c0d1e5b
  berth prune --dry-run --json | jq '.folders[] | select(.verdict == "due")'`

// prune wires the collector to the agent's snapshots and to the engine. It always
// runs: while it is not enabled, it plans.
func (d *daemon) prune(cfg logprune.Config) (*component, error) {
	col, err := logprune.New(cfg, d.env, d.engine)
	if err != nil {
		return nil, err
	}
	if d.dryRun {
		col.DryRun()
	}
	return &component{
		name: col.Name(), section: cfg, part: col, summary: col.Summary,
		run: func(ctx context.Context) error {
			feed := d.agent.Store().Subscribe()
			defer feed.Close()
			return col.Run(ctx, feed)
		},
	}, nil
}

func (c *cli) pruneCommand() *cobra.Command {
	var dryRun, now, accept bool
	cmd := &cobra.Command{
		Use:     "prune",
		Short:   "Show which log folders are due to be deleted, or delete them",
		Long:    pruneHelp,
		Example: pruneExample,
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if chosen := countTrue(dryRun, now, accept); chosen > 1 {
				return usageError(errors.New("--dry-run, --now and --accept-engine are three things: give one"))
			}
			switch {
			case accept:
				return c.acceptEngine(cmd.Context())
			case now:
				return c.pruneNow(cmd.Context())
			}
			return c.show(cmd, "/v1/prune/plan", nil, 0, func(raw []byte) error {
				var plan logprune.Plan
				if err := json.Unmarshal(raw, &plan); err != nil {
					return err
				}
				c.printPlan(&plan, dryRun, time.Now())
				return nil
			}, nil)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&dryRun, "dry-run", false, "show every folder, and what would become of it")
	flags.BoolVar(&now, "now", false, "delete what is due, now")
	flags.BoolVar(&accept, "accept-engine", false, "let the engine that answers now say what is gone")
	cmd.AddCommand(c.pruneLogCommand())
	return c.withJSON(cmd)
}

func countTrue(all ...bool) (n int) {
	for _, b := range all {
		if b {
			n++
		}
	}
	return n
}

func (c *cli) printPlan(plan *logprune.Plan, all bool, now time.Time) {
	p := c.painter()
	for _, f := range plan.Folders {
		if all {
			c.printFolder(p, f, now)
		}
	}
	if !all {
		t := table{head: []string{"VERDICT", "SINCE", "CONTAINER", "FOLDER"}}
		for _, f := range plan.Folders {
			if f.Verdict == logprune.Kept || f.Verdict == logprune.Ignored {
				continue
			}
			t.add(cell{f.Verdict, verdictPaint(f.Verdict)}, ago(f.Since, now), orDash(f.Container), f.Path+": "+f.Rule)
		}
		if len(t.rows) > 0 {
			t.write(c.out, p)
		}
	}
	if plan.More > 0 {
		fmt.Fprintf(c.out, "and %d more names that are no containers'\n", plan.More)
	}
	for _, im := range plan.Images {
		if im.Verdict == logprune.Due || all {
			fmt.Fprintf(c.out, "%s image %s: %s\n", p.paint(verdictPaint(im.Verdict), fmt.Sprintf("%-8s", im.Verdict)), orElse(strings.Join(im.Refs, " "), im.ID), im.Rule)
		}
	}
	for _, ct := range plan.Containers {
		if ct.Verdict == logprune.Due || all {
			fmt.Fprintf(c.out, "%s container %s: %s\n", p.paint(verdictPaint(ct.Verdict), fmt.Sprintf("%-8s", ct.Verdict)), ct.Name, ct.Rule)
		}
	}
	n := plan.Counts
	fmt.Fprintf(c.out, "%d due, %d wait, %d refused, %d kept, %d ignored, below %s\n",
		n.Due, n.Waits, n.Refused, n.Kept, n.Ignored, plural(len(plan.Roots), "root"))
	for _, e := range plan.Errors {
		fmt.Fprintln(c.out, p.paint(red, "not looked at")+": "+e)
	}
	if plan.Blocked != "" {
		fmt.Fprintln(c.out, p.paint(yellow, "Nothing is deleted")+": "+plan.Blocked)
		if plan.Fix != "" {
			fmt.Fprintln(c.out, "  "+p.paint(dim, "→")+" "+plan.Fix)
		}
	}
	if !plan.Enabled {
		fmt.Fprintln(c.out, p.paint(yellow, "This is a dry run")+": nothing is deleted until prune.enabled is true.")
	}
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

func verdictPaint(verdict string) paint {
	return map[string]paint{logprune.Due: red, logprune.Waits: yellow, logprune.Refused: yellow, logprune.Kept: green}[verdict]
}

// printFolder prints one folder and the rule that decides about it.
func (c *cli) printFolder(p painter, f logprune.Folder, now time.Time) {
	fmt.Fprintf(c.out, "%s %s", p.paint(verdictPaint(f.Verdict), fmt.Sprintf("%-8s", f.Verdict)), f.Path)
	if f.Container != "" {
		fmt.Fprintf(c.out, " (%s)", f.Container)
	}
	fmt.Fprintf(c.out, ": %s", f.Rule)
	if f.Due.After(now) {
		fmt.Fprintf(c.out, "; due in %s", span(f.Due.Sub(now)))
	}
	fmt.Fprintln(c.out)
	if f.Fix != "" {
		fmt.Fprintf(c.out, "         %s %s\n", p.paint(dim, "→"), f.Fix)
	}
}

// pruneNow has berth delete what is due, and shows how far it is.
func (c *cli) pruneNow(ctx context.Context) error {
	var at logprune.Progress
	if err := c.client().Post(ctx, "/v1/prune/run", &at); err != nil {
		return err
	}
	run := at.Run
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for at.Run == run && at.Running {
		if terminal(c.err) && !c.json {
			fmt.Fprintf(c.err, "\r\x1b[K%d of %d folders, %d files, %s", at.Folders, at.Total, at.Files, sizeOf(at.Bytes))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.New("not waited for: berth goes on; see `berth prune log`")
		}
		at = logprune.Progress{}
		if err := c.client().Get(ctx, "/v1/prune/progress", nil, &at); err != nil {
			return err
		}
	}
	if terminal(c.err) && !c.json {
		fmt.Fprint(c.err, "\r\x1b[K")
	}
	if c.json {
		raw, err := json.Marshal(at)
		if err != nil {
			return err
		}
		return c.printJSON(raw)
	}
	c.printRun(c.out, &at)
	if at.Error != "" {
		return fmt.Errorf("stopped: %s", at.Error)
	}
	return nil
}

func (c *cli) printRun(w io.Writer, at *logprune.Progress) {
	p := c.painter()
	fmt.Fprintf(w, "Deleted %d of %s that were due: %d files, %s freed.\n", at.Folders, plural(int(at.Total), "folder"), at.Files, sizeOf(at.Bytes))
	for _, f := range at.Refusal {
		c.printFolder(p, f, time.Now())
	}
}

func (c *cli) acceptEngine(ctx context.Context) error {
	var a logprune.Accepted
	if err := c.client().Post(ctx, "/v1/prune/accept-engine", &a); err != nil {
		return err
	}
	if c.json {
		raw, err := json.Marshal(a)
		if err != nil {
			return err
		}
		return c.printJSON(raw)
	}
	fmt.Fprintf(c.out, "From now on the engine %s with its data in %s says what is gone.\n", a.ID, a.Root)
	return nil
}

const pruneLogHelp = `Show what berth has deleted, newest first: folders, images and containers, with the
reason, when, and what it freed. The last thousand are remembered.`

func (c *cli) pruneLogCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "log",
		Short:   "Show what was deleted, and why",
		Long:    pruneLogHelp,
		Example: "  berth prune log\n  berth prune log --json | jq -r '.deletions[].path'",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.show(cmd, "/v1/prune/log", nil, 0, func(raw []byte) error {
				var log logprune.Log
				if err := json.Unmarshal(raw, &log); err != nil {
					return err
				}
				c.printDeletions(log.Deletions, time.Now())
				return nil
			}, nil)
		},
	}
	return c.withJSON(cmd)
}

func (c *cli) printDeletions(all []logprune.Deletion, now time.Time) {
	if len(all) == 0 {
		fmt.Fprintln(c.out, "Nothing was deleted so far.")
		return
	}
	t := table{head: []string{"AGO", "FILES", "FREED", "CONTAINER", "WHAT"}}
	for _, d := range all {
		when, what, why := d.Done, d.Path, d.Why
		if what == "" {
			what = d.Kind + " " + d.ID
		}
		if when.IsZero() {
			when = d.Planned
			why = "not finished: " + orElse(d.Error, "interrupted")
		}
		t.add(ago(when, now), d.Files, sizeOf(d.Bytes), orDash(d.Container), what+": "+why)
	}
	t.write(c.out, c.painter())
}

// sizeOf writes a number of bytes for people.
func sizeOf(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	size, units := float64(n), "KMGTPE"
	i := -1
	for size >= unit && i < len(units)-1 {
		size /= unit
		i++
	}
	return fmt.Sprintf("%.1f %ciB", size, units[i])
}

// explainFolder prints what is decided about a folder, or about those of a
// container.
func (c *cli) explainFolder(cmd *cobra.Command, ref string) error {
	return c.show(cmd, "/v1/prune/explain", map[string][]string{"folder": {ref}}, 0, func(raw []byte) error {
		var all []logprune.Folder
		if err := json.Unmarshal(raw, &all); err != nil {
			return err
		}
		for _, f := range all {
			c.printFolder(c.painter(), f, time.Now())
		}
		return nil
	}, nil)
}
