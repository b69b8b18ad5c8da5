package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/berthd/berth/agent/config"
	"github.com/berthd/berth/sinks/cloudwatch"
)

const clusterScaleHelp = `Publish one figure in CloudWatch for the autoscaling of an ECS cluster, made of how
much of its CPU and of its memory is reserved (AWS/ECS CPUReservation and
MemoryReservation, the newest of each):

  2  add hosts:      either is at its maximum or above
  0  remove a host:  both are at their minimum or below
  1  neither

Alarms on CPU and on memory by themselves would work against each other. What is
missing, or older than cluster_scale.max_age, never makes for 0: the figure is 1
then, unless the other makes for 2. It is ScaleStatus with the dimension
ClusterName in the namespace berth, unless the section cluster_scale of the
configuration says otherwise.

Run it every minute by a timer, on any machine; several do no harm. It asks no
running berth. The units, the alarms as Terraform and the permissions that it
needs are among berth's examples (cluster-scale).

It exits with 0 when all is well, with 7 when some reading was missing (the figure
is published all the same), and with 1 when nothing was published.`

const clusterScaleExample = `  berth cluster-scale --cluster prod
  berth cluster-scale --cluster prod --dry-run
  berth cluster-scale --cluster prod --cpu-max 80% --cpu-min 30% --json`

func (c *cli) clusterScaleCommand() *cobra.Command {
	var files configFiles
	var dryRun bool
	cmd := &cobra.Command{
		Use:     "cluster-scale",
		Short:   "Publish whether an ECS cluster needs more hosts, or fewer",
		Long:    clusterScaleHelp,
		Example: clusterScaleExample,
		Args:    exactly(),
	}
	files.flags(cmd.Flags())
	keys := []struct{ flag, key, usage string }{
		{"cluster", "cluster", "name of the ECS cluster"},
		{"region", "region", "AWS region of the cluster"},
		{"cpu-max", "cpu_max", "add hosts when so much of the CPU is reserved, such as 75%"},
		{"cpu-min", "cpu_min", "remove one when no more of it is, such as 35%"},
		{"memory-max", "memory_max", "add hosts when so much of the memory is reserved, such as 75%"},
		{"memory-min", "memory_min", "remove one when no more of it is, such as 35%"},
	}
	for _, k := range keys {
		cmd.Flags().String(k.flag, "", k.usage+" (cluster_scale."+k.key+")")
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "read and print, but publish nothing")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		for _, k := range keys {
			if f := cmd.Flags().Lookup(k.flag); f.Changed {
				files.more = append(files.more, config.Override("flag --"+k.flag, "cluster_scale."+k.key, f.Value.String()))
			}
		}
		cfg, err := files.load()
		if err != nil {
			return err
		}
		if cfg.ClusterScale.Cluster == "" {
			return usageError(fmt.Errorf("say which cluster: --cluster prod, or cluster_scale.cluster in the configuration\nTry: %s --help", cmd.CommandPath()))
		}
		scale, err := cloudwatch.NewScale(cfg.ClusterScale)
		if err != nil {
			return err
		}
		report, err := scale.Run(cmd.Context(), dryRun)
		if err != nil {
			return err
		}
		if err := c.printScale(report); err != nil {
			return err
		}
		if report.Missing {
			return &codedError{codeMissing, errSilent}
		}
		return nil
	}
	return c.withJSON(cmd)
}

func (c *cli) printScale(r *cloudwatch.ScaleReport) error {
	if c.json {
		raw, err := json.Marshal(r)
		if err != nil {
			return err
		}
		return c.printJSON(raw)
	}
	p := c.painter()
	colour := map[cloudwatch.Status]paint{cloudwatch.ScaleIn: yellow, cloudwatch.Keep: green, cloudwatch.ScaleOut: red}[r.Status]
	fmt.Fprintf(c.out, "%s %s: %s %s\n", r.Metric, p.paint(bold, r.Cluster), p.paint(colour, strconv.Itoa(int(r.Status))), r.Meaning)
	fmt.Fprintf(c.out, "  because %s\n\n", r.Why)
	t := table{head: []string{"READING", "RESERVED", "MINIMUM", "MAXIMUM", "AGE", "NOTE"}}
	percent := func(v float64) string { return strconv.FormatFloat(v, 'g', 6, 64) + "%" }
	for _, reading := range r.Readings {
		reserved, age, note := "-", "-", cell{}
		if reading.Percent != nil {
			reserved = percent(*reading.Percent)
		}
		if reading.At != nil {
			age = span(max(time.Second, r.Time.Sub(*reading.At)))
		}
		if reading.Missing != "" {
			note = cell{"missing", yellow}
		}
		t.add(reading.Metric, reserved, percent(reading.Min), percent(reading.Max), age, note)
	}
	t.write(c.out, p)
	verb := "published as"
	if !r.Published {
		verb = "not published (--dry-run):"
	}
	fmt.Fprintf(c.out, "\n%s %s %s{%s=%q} in %s\n", verb, r.Namespace, r.Metric, r.Dimension, r.Cluster, r.Region)
	return nil
}
