package main

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/berthd/berth/collectors/usage"
)

// printUsageOf prints all that is known of one service or container.
func (c *cli) printUsageOf(r *usage.Report) {
	p := c.painter()
	for i := range r.Services {
		if i > 0 {
			fmt.Fprintln(c.out)
		}
		c.printRow(&r.Services[i], r)
	}
	if len(r.Services) == 0 {
		for i := range r.Containers {
			c.printRow(&r.Containers[i], r)
		}
		return
	}
	if len(r.Containers) > 0 {
		fmt.Fprintln(c.out)
		usageTable(r.Containers, r, true).write(c.out, p, widthOf(c.out))
	}
}

func (c *cli) printRow(w *usage.Row, r *usage.Report) {
	p := c.painter()
	about := []string{plural(w.Containers, "container") + " now"}
	if w.Container != "" {
		about = []string{"of service " + printable(w.Service)}
	}
	if w.InstanceType != "" {
		about = append(about, "on "+printable(w.InstanceType))
	}
	if w.Critical {
		about = append(about, "critical")
	}
	about = append(about, fmt.Sprintf("%.0f of %d hours known", w.HistoryHours, usage.HistoryHours))
	fmt.Fprintf(c.out, "%s  %s\n", p.paint(bold, rowName(w)), strings.Join(about, ", "))

	cpu := &w.CPU
	line := "reserves nothing"
	if cpu.Source != usage.SourceNone {
		line = fmt.Sprintf("reserves %s (%s)", coreCount(cpu.Reserved), cpu.Source)
	}
	if cpu.Limit > 0 {
		line += fmt.Sprintf(", is limited to %s", exactCores(cpu.Limit))
	}
	line += fmt.Sprintf("; uses %s (5 min), %s (1 h), p50 %s, p95 %s, max %s", cores(cpu.Used), cores(cpu.Hourly), cores(cpu.P50), cores(cpu.P95), cores(cpu.Max))
	if cpu.Throttled != nil {
		line += "; throttled in " + percent(*cpu.Throttled) + " of its periods"
	}
	fmt.Fprintf(c.out, "  %-8s%s\n", "cpu", line)
	if lf := cpu.LyingFactor; lf != nil {
		fmt.Fprintf(c.out, "  %-8slying factor %s  %s\n", "", signed(*lf), p.paint(usagePaint[placeOf(*lf, r.Band.Of(cpu.Reserved))], strings.TrimRight(bar(*lf, r.Band.Of(cpu.Reserved)), " ")))
	}
	advice := ""
	if cpu.Advice != nil && cpu.Verdict != usage.InBand {
		advice = ": reserve " + coreCount(*cpu.Advice)
	}
	c.printVerdict(cpu.Verdict, advice, cpu.Reasons)

	mem := &w.Memory
	line = "reserves nothing"
	if mem.Source != usage.SourceNone {
		line = fmt.Sprintf("reserves %s (%s)", size(float64(mem.Reserved)), mem.Source)
	}
	if mem.Limit > 0 {
		line += ", is limited to " + size(float64(mem.Limit))
	}
	line += fmt.Sprintf("; uses %s, p50 %s, p95 %s, max %s", size(float64(mem.Used)), size(float64(mem.P50)), size(float64(mem.P95)), size(float64(mem.Max)))
	if mem.OOMKills > 0 {
		line += "; " + plural(int(mem.OOMKills), "out-of-memory kill")
	}
	fmt.Fprintf(c.out, "  %-8s%s\n", "memory", line)
	advice = ""
	if mem.Advice != nil && mem.Verdict != usage.InBand {
		advice = ": reserve " + size(float64(*mem.Advice))
	}
	c.printVerdict(mem.Verdict, advice, mem.Reasons)
	if w.Hours != nil {
		c.printSpark(w.Hours)
	}
}

func (c *cli) printVerdict(verdict, advice string, reasons []usage.Reason) {
	if verdict == "" {
		return
	}
	fmt.Fprintf(c.out, "  %-8s%s%s\n", "", c.painter().paint(usagePaint[verdict], verdictWord(verdict)), advice)
	for _, r := range reasons {
		fmt.Fprintf(c.out, "  %-8s%s %s\n", "", c.painter().paint(dim, "·"), printable(r.Why))
	}
}

// sparkHours is how many hours one character of a spark line is about.
const sparkHours = 3

// printSpark prints the highest p95 of each few hours as a line of bars.
func (c *cli) printSpark(s *usage.Series) {
	top := 0.0
	known := 0
	for _, v := range s.P95 {
		if !math.IsNaN(v) {
			top = max(top, v)
			known++
		}
	}
	if known < 2 {
		return
	}
	from := s.Start.UTC()
	fmt.Fprintf(c.out, "  %-8s%s  p95 of each %d h since %s UTC; the highest is %s\n", "hours", spark(s.P95, top), sparkHours, from.Format("Mon "+time.TimeOnly[:5]), cores(top))
}

// spark draws values from 0 to top; unknown ones are spaces.
func spark(values []float64, top float64) string {
	levels := []rune("▁▂▃▄▅▆▇█")
	var b strings.Builder
	for i := 0; i < len(values); i += sparkHours {
		most := math.NaN()
		for _, v := range values[i:min(i+sparkHours, len(values))] {
			if !(v <= most) && !math.IsNaN(v) {
				most = v
			}
		}
		switch {
		case math.IsNaN(most):
			b.WriteByte(' ')
		case top <= 0:
			b.WriteRune(levels[0])
		default:
			b.WriteRune(levels[min(int(most/top*float64(len(levels))), len(levels)-1)])
		}
	}
	return b.String()
}
