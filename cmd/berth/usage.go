package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/berthd/berth/agent/admin"
	"github.com/berthd/berth/collectors/usage"
)

const usageHelp = `Show what services reserve, what they use, and what they should reserve. All
figures are those of one container; N is how many run.

The lying factor is reserved less used cores (the mean of the last hour). Below
the band [ | ] a service lives on what others have reserved, which is danger;
above it, its reservation is waste. Advice is sized by the highest hours of eight
days, never by an average; there is none to reserve less before 24 hours are known.

With a service or container, all that is known of it is shown, and the grounds of
the advice.`

const usageExample = `  berth usage                             danger first, waste last
  berth usage --sort waste                the most to gain first
  berth usage calc                        why calc should reserve something else
  berth usage --containers --watch 10s
  berth usage --json | jq -r '.services[] | select(.verdict == "undersized") | .service'
  berth usage report --html usage.html    a page to show around`

// usageOptions are the flags of berth usage.
type usageOptions struct {
	sort       string
	containers bool
	csv        bool
	from       string
	watch      time.Duration
}

func (c *cli) usageCommand() *cobra.Command {
	var o usageOptions
	cmd := &cobra.Command{
		Use:     "usage [service|container]",
		Short:   "Show what services reserve, use, and should reserve",
		Long:    usageHelp,
		Example: usageExample,
		Args:    atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(usageOrders, o.sort) {
				return usageError(fmt.Errorf("--sort=%s: give %s", o.sort, strings.Join(usageOrders, ", ")))
			}
			if o.csv && c.json {
				return usageError(errors.New("--csv and --json: give one of them"))
			}
			return c.usage(cmd, args, &o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.sort, "sort", "danger", "order: "+strings.Join(usageOrders, ", "))
	f.BoolVar(&o.containers, "containers", false, "show containers instead of services (JSON always has both)")
	f.BoolVar(&o.csv, "csv", false, "print CSV, for spreadsheets")
	f.StringVar(&o.from, "from", "", "read this saved answer (of --json) instead of asking the running berth")
	f.DurationVar(&o.watch, "watch", 0, "show it again at this interval, such as 10s")
	cmd.AddCommand(c.usageReportCommand(), c.usageSimulateCommand())
	return c.withJSON(cmd)
}

// usage gets a report, of this host or a saved one, and prints it.
func (c *cli) usage(cmd *cobra.Command, args []string, o *usageOptions) error {
	query := url.Values{}
	if len(args) > 0 {
		query.Set("ref", args[0])
		query.Set("hours", "true")
	}
	headed := false
	render := func(raw []byte) error {
		var r usage.Report
		if err := json.Unmarshal(raw, &r); err != nil {
			return err
		}
		if o.csv {
			err := writeUsageCSV(c.out, &r, o, !headed)
			headed = true
			return err
		}
		c.printUsage(cmd.Context(), &r, o, len(args) > 0)
		return nil
	}
	if o.from == "" {
		err := c.show(cmd, usagePath, query, o.watch, render, nil)
		if said, ok := errors.AsType[*admin.Error](err); ok && said.Code == http.StatusNotFound && len(args) == 0 {
			return fmt.Errorf("%w: usage.enabled turns it on", err)
		}
		return err
	}
	if o.watch != 0 {
		return usageError(errors.New("--from and --watch: a saved answer does not change"))
	}
	r, err := savedUsage(o.from)
	if err != nil {
		return err
	}
	if len(args) > 0 {
		if err := r.Only(args[0]); err != nil {
			return &codedError{codeNotFound, err}
		}
	}
	raw, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	if c.json {
		return c.printJSON(raw)
	}
	return render(raw)
}

const usagePath = "/v1/usage/report"

// savedUsage reads an answer from a file, or from standard input by the name -.
func savedUsage(name string) (*usage.Report, error) {
	raw, err := io.ReadAll(os.Stdin)
	if name != "-" {
		raw, err = os.ReadFile(name)
	}
	if err != nil {
		return nil, fmt.Errorf("read the saved answer: %w", err)
	}
	var r usage.Report
	if err := json.Unmarshal(raw, &r); err != nil {
		return nil, fmt.Errorf("read the saved answer %s: %w: is it the output of berth usage --json?", name, err)
	}
	return &r, nil
}

func (c *cli) printUsage(ctx context.Context, r *usage.Report, o *usageOptions, one bool) {
	switch {
	case r.At.IsZero():
		fmt.Fprintln(c.out, "Nothing is measured yet. The first figures come after one interval (usage.interval).")
		return
	case len(r.Services) == 0 && len(r.Containers) == 0 && o.from != "":
		fmt.Fprintln(c.out, "No container was known.")
		return
	case len(r.Services) == 0 && len(r.Containers) == 0:
		c.printNothing(ctx, "No container has run on this host since berth measures: there is nothing to say about reservations.")
		return
	}
	rows := r.Services
	if o.containers {
		rows = r.Containers
	}
	sortUsage(rows, o.sort)
	if one {
		c.printUsageOf(r)
		return
	}
	c.printUsageHead(r)
	if len(rows) == 0 {
		fmt.Fprintln(c.out, "\nNo container runs now. What services have used: berth usage")
		return
	}
	fmt.Fprintln(c.out)
	usageTable(rows, r, o.containers).write(c.out, c.painter(), widthOf(c.out))
	legend := fmt.Sprintf("[ | ] is a lying factor (reserved less used cores) of %+g, 0 and %+g. Why, and eight days: berth usage <name>", r.Band.Low, r.Band.High)
	fmt.Fprintln(c.out, "\n"+c.painter().paint(dim, legend))
}
