package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/berthd/berth/collectors/statsd"
	"github.com/berthd/berth/sinks/dogstatsd"
)

// statsd wires the relay to the agent's snapshots and to its upstream.
func (d *daemon) statsd(cfg statsd.Config) (*component, error) {
	sink, err := dogstatsd.NewLines(dogstatsd.LineConfig{
		Address: cfg.Upstream,
		Payload: int(cfg.Payload.Bytes()),
		Buffer:  cfg.Buffer.Bytes(),
		Segment: cfg.Segmentation,
	}, d.env)
	if err != nil {
		return nil, fmt.Errorf("statsd.upstream: %w", err)
	}
	relay, err := statsd.New(cfg, d.envFor(statsd.Name), sink)
	if err != nil {
		return nil, err
	}
	return &component{
		name: relay.Name(), section: cfg, part: relay, summary: relay.Summary,
		run: func(ctx context.Context) error {
			feed := d.agent.Store().Subscribe()
			defer feed.Close()
			return relay.Run(ctx, feed)
		},
	}, nil
}

const statsdHelp = `See what the relay of metrics does, to which containers send StatsD and DogStatsD.`

func (c *cli) statsdCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "statsd",
		Short:   "See who sends how many metrics",
		Long:    statsdHelp,
		Example: "  berth statsd top",
		Args:    exactly(),
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.statsdTopCommand())
	return cmd
}

const statsdTopHelp = `Show which containers send how many lines of metrics, those that send most first:
the rate of the last ten seconds or so, and what was received and dropped since
the relay was started. It goes on until Ctrl-C.

(host) is the host itself and containers in its network, (unknown) are sources
that no container has; their lines are passed on without a container's tags.`

func (c *cli) statsdTopCommand() *cobra.Command {
	var once bool
	var interval time.Duration
	cmd := &cobra.Command{
		Use:     "top",
		Short:   "Show which containers send most",
		Long:    statsdTopHelp,
		Example: "  berth statsd top\n  berth statsd top --once\n  berth statsd top --once --json | jq '.senders[0]'",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if interval < 100*time.Millisecond {
				return usageError(fmt.Errorf("--interval %v: give 100ms at least", interval))
			}
			if once {
				interval = 0
			}
			return c.show(cmd, "/v1/statsd/top", nil, interval, func(raw []byte) error {
				var top statsd.Top
				if err := json.Unmarshal(raw, &top); err != nil {
					return err
				}
				c.printTop(&top)
				return nil
			}, nil)
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "show it once")
	cmd.Flags().DurationVar(&interval, "interval", 2*time.Second, "how often to show it")
	return c.withJSON(cmd)
}

func (c *cli) printTop(top *statsd.Top) {
	p, sum := c.painter(), top.Totals
	fmt.Fprintf(c.out, "%s lines in, %s/s; %s out to %s", count(sum.LinesIn), rate(sum.Rate), count(sum.LinesOut), top.Upstream)
	if sum.Waiting > 0 {
		fmt.Fprintf(c.out, "; %s", p.paint(yellow, count(sum.Waiting)+" waiting"))
	}
	fmt.Fprintln(c.out)
	for _, d := range []struct {
		what string
		n    uint64
	}{
		{"malformed", sum.Dropped.Malformed},
		{"too long for a datagram", sum.Dropped.TooLong},
		{"over the rate limit", sum.Dropped.RateLimited},
		{"cut off in too long datagrams", sum.Dropped.Truncated},
		{"no room to wait for the upstream", sum.Dropped.Buffer},
		{"refused by the upstream", sum.Dropped.Send},
	} {
		if d.n > 0 {
			fmt.Fprintf(c.out, "%s %s\n", p.paint(red, "dropped: "+count(d.n)+" lines:"), d.what)
		}
	}
	if sum.Kernel > 0 {
		fmt.Fprintf(c.out, "%s the kernel had no room for them\n", p.paint(red, "dropped: "+count(sum.Kernel)+" datagrams:"))
	}
	if len(top.Senders) == 0 {
		fmt.Fprintln(c.out, "No container has sent a line. Where it can send to: berth status")
		return
	}
	fmt.Fprintln(c.out)
	t := table{head: []string{"CONTAINER", "LINES/S", "LINES", "BYTES", "DROPPED"}}
	for _, s := range top.Senders {
		dropped := cell{count(s.Dropped()), plain}
		if s.Dropped() > 0 {
			dropped.paint = red
		}
		t.add(s.Container, rate(s.Rate), count(s.Lines), count(s.Bytes), dropped)
	}
	t.write(c.out, p)
}

// count writes a number with its thousands apart.
func count(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// rate writes a number of lines a second, to a tenth below ten.
func rate(r float64) string {
	if r < 10 {
		return strconv.FormatFloat(r, 'f', 1, 64)
	}
	return count(uint64(math.Round(r)))
}
