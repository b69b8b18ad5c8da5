package main

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"net/url"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/berthd/berth/collectors/usage"
)

const usageReportHelp = `Write what berth usage knows as one page of HTML: what could be given back and what
is in danger, reserved against used over eight days, a heat map of the lying
factor, and the advice with its grounds. The page needs nothing besides itself: no
network, no script. It is made for light and dark screens, phones and paper.

With --json, the data of the page is printed, which --from reads: on another
machine, or later.`

func (c *cli) usageReportCommand() *cobra.Command {
	var file, from string
	cmd := &cobra.Command{
		Use:   "report",
		Short: "Write a page about what is reserved for nothing, and what is in danger",
		Long:  usageReportHelp,
		Example: `  berth usage report --html usage.html
  berth usage report --html - | ssh laptop 'cat > usage.html'
  berth usage report --json > host1.json
  berth usage report --from host1.json --html host1.html`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if (file == "") == !c.json {
				return usageError(errors.New("say where to: --html FILE (- is standard output), or --json\nTry: berth usage report --help"))
			}
			var raw []byte
			var r *usage.Report
			var err error
			if from != "" {
				if r, err = savedUsage(from); err == nil {
					raw, err = json.Marshal(r)
				}
			} else if raw, err = c.client().Raw(cmd.Context(), usagePath, url.Values{"hours": {"true"}}); err == nil {
				err = json.Unmarshal(raw, &r)
			}
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(raw)
			}
			page, err := usagePage(r)
			if err != nil {
				return err
			}
			if file == "-" {
				_, err = c.out.Write(page)
				return err
			}
			return writeWhole(file, page)
		},
	}
	cmd.Flags().StringVar(&file, "html", "", "file to write the page to; - is standard output")
	cmd.Flags().StringVar(&from, "from", "", "read this saved answer (of --json) instead of asking the running berth")
	return c.withJSON(cmd)
}

// writeWhole writes a file so that nobody ever sees half of it.
func writeWhole(name string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

//go:embed usage_report.html
var usageReportHTML string

var usageReportTemplate = template.Must(template.New("usage").Parse(usageReportHTML))

// usagePage returns a report as a page.
func usagePage(r *usage.Report) ([]byte, error) {
	var b bytes.Buffer
	if err := usageReportTemplate.Execute(&b, pageOf(r)); err != nil {
		return nil, fmt.Errorf("make the page: %w", err)
	}
	return b.Bytes(), nil
}
