package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/berthd/berth/collectors/usage"
)

const usageSimulateHelp = `Replay loads, and score what berth's methods would have reserved for them. It asks
no running berth.

The loads are those of a CSV file with lines t,container,cores (seconds since 1970
or 2026-01-02T15:04:05Z; a name; the cores that it used up to then), or generated
ones of several kinds, which are the same for the same seed.

  slack     share of what is reserved that is not used
  time      share of the time in which more is wanted than reserved
  volume    share of the CPU that is wanted above what is reserved
  changes   of the reservation, a week
  longest   minutes in which more is wanted than reserved, at a stretch

Less is better for all of them, and none is worth much alone. What is seen in the
first 8 days (or the first third) is not scored.`

func (c *cli) usageSimulateCommand() *cobra.Command {
	o := usage.DefaultSimulateOptions()
	var trace string
	var each bool
	cmd := &cobra.Command{
		Use:   "simulate",
		Short: "Score the advice on recorded or generated loads",
		Long:  usageSimulateHelp,
		Example: `  berth usage simulate
  berth usage simulate --trace week.csv --each
  berth usage simulate --seed 500 --rough 2 --limited --json`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if trace != "" {
				for _, flag := range []string{"seed", "seeds", "days", "rough"} {
					if cmd.Flags().Changed(flag) {
						return usageError(fmt.Errorf("--trace and --%s: a recorded load is not generated", flag))
					}
				}
				traces, err := readTraces(trace)
				if err != nil {
					return err
				}
				o.Traces = traces
			}
			if err := o.Validate(); err != nil {
				return usageError(err)
			}
			s, err := usage.Simulate(cmd.Context(), o, usage.Methods())
			if err != nil {
				return fmt.Errorf("simulate: %w", err)
			}
			if c.json {
				raw, err := json.Marshal(s)
				if err != nil {
					return fmt.Errorf("write the scores: %w", err)
				}
				return c.printJSON(raw)
			}
			c.printSimulation(s, each)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&trace, "trace", "", "CSV file of loads to replay; - is standard input")
	f.Uint64Var(&o.Seed, "seed", o.Seed, "first seed of generated loads")
	f.IntVar(&o.Seeds, "seeds", o.Seeds, "how many seeds of each kind of load")
	f.IntVar(&o.Days, "days", o.Days, "how long generated loads last")
	f.Float64Var(&o.Rough, "rough", o.Rough, "noise and bursts of generated loads, as a multiple of the usual")
	f.BoolVar(&o.Limited, "limited", false, "what is wanted beyond the reservation is not seen, but as throttling")
	f.BoolVar(&each, "each", false, "show each load of the trace, or each kind of generated ones")
	return c.withJSON(cmd)
}

func readTraces(name string) ([]usage.Trace, error) {
	in := io.Reader(os.Stdin)
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("read the trace: %w", err)
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	traces, err := usage.ReadTraces(in)
	if err != nil {
		return nil, fmt.Errorf("read the trace %s: %w", name, err)
	}
	return traces, nil
}

func (c *cli) printSimulation(s *usage.Simulation, each bool) {
	what := plural(s.Loads, "recorded load")
	if s.Generated {
		what = fmt.Sprintf("%s from seed %d on", plural(s.Loads, "generated load"), s.Seed)
	}
	limited := ""
	if s.Limited {
		limited = ", limited to what is reserved"
	}
	fmt.Fprintf(c.out, "%s of up to %.1f days%s; the first %.1f are not scored.\n\n", what, s.Days, limited, s.WarmUpDays)
	columns := []*column{
		{head: "METHOD"},
		{head: "SLACK", right: true},
		{head: "TIME", right: true},
		{head: "VOLUME", right: true},
		{head: "CHANGES/WEEK", right: true},
		{head: "LONGEST MIN", right: true},
	}
	add := func(name string, p paint, score usage.Score) {
		for i, text := range []string{
			name, fmt.Sprintf("%.1f%%", 100*score.Slack), fmt.Sprintf("%.2f%%", 100*score.Time), fmt.Sprintf("%.3f%%", 100*score.Volume),
			fmt.Sprintf("%.1f", score.Changes), fmt.Sprintf("%.0f", score.Longest),
		} {
			columns[i].cells = append(columns[i].cells, cell{text, p})
		}
	}
	for _, m := range s.Methods {
		add(m.Method, plain, m.Score)
		if !each {
			continue
		}
		for _, list := range [][]usage.NamedScore{m.Kinds, m.Loads} {
			for _, one := range list {
				add("  "+printable(one.Name), dim, one.Score)
			}
		}
	}
	(&wideTable{columns}).write(c.out, c.painter(), 0)
}
