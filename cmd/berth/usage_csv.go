package main

import (
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/berthd/berth/collectors/usage"
)

// csvColumns are the columns of berth usage --csv, by the names of the JSON with
// what they are part of before them. An empty field is not known.
var csvColumns = []struct {
	name string
	of   func(w *usage.Row) string
}{
	{"service", func(w *usage.Row) string { return w.Service }},
	{"environment", func(w *usage.Row) string { return w.Environment }},
	{"instance_type", func(w *usage.Row) string { return w.InstanceType }},
	{"container", func(w *usage.Row) string { return w.Container }},
	{"container_id", func(w *usage.Row) string { return w.ContainerID }},
	{"critical", func(w *usage.Row) string { return strconv.FormatBool(w.Critical) }},
	{"containers", func(w *usage.Row) string { return strconv.Itoa(w.Containers) }},
	{"verdict", func(w *usage.Row) string { return w.Verdict }},
	{"history_hours", func(w *usage.Row) string { return csvFigure(w.HistoryHours) }},
	{"cpu_reserved_cores", func(w *usage.Row) string { return csvFigure(w.CPU.Reserved) }},
	{"cpu_reserved_source", func(w *usage.Row) string { return w.CPU.Source }},
	{"cpu_limit_cores", func(w *usage.Row) string { return csvFigure(w.CPU.Limit) }},
	{"cpu_used_cores", func(w *usage.Row) string { return csvFigure(w.CPU.Used) }},
	{"cpu_used_1h_cores", func(w *usage.Row) string { return csvFigure(w.CPU.Hourly) }},
	{"cpu_p50_cores", func(w *usage.Row) string { return csvFigure(w.CPU.P50) }},
	{"cpu_p95_cores", func(w *usage.Row) string { return csvFigure(w.CPU.P95) }},
	{"cpu_max_cores", func(w *usage.Row) string { return csvFigure(w.CPU.Max) }},
	{"cpu_throttled_ratio", func(w *usage.Row) string { return csvMaybe(w.CPU.Throttled) }},
	{"cpu_lying_factor_cores", func(w *usage.Row) string { return csvMaybe(w.CPU.LyingFactor) }},
	{"cpu_verdict", func(w *usage.Row) string { return w.CPU.Verdict }},
	{"cpu_advice_cores", func(w *usage.Row) string { return csvMaybe(w.CPU.Advice) }},
	{"cpu_reasons", func(w *usage.Row) string { return csvCodes(w.CPU.Reasons) }},
	{"memory_reserved_bytes", func(w *usage.Row) string { return csvBytes(w.Memory.Reserved) }},
	{"memory_reserved_source", func(w *usage.Row) string { return w.Memory.Source }},
	{"memory_limit_bytes", func(w *usage.Row) string { return csvBytes(w.Memory.Limit) }},
	{"memory_used_bytes", func(w *usage.Row) string { return csvBytes(w.Memory.Used) }},
	{"memory_p50_bytes", func(w *usage.Row) string { return csvBytes(w.Memory.P50) }},
	{"memory_p95_bytes", func(w *usage.Row) string { return csvBytes(w.Memory.P95) }},
	{"memory_max_bytes", func(w *usage.Row) string { return csvBytes(w.Memory.Max) }},
	{"memory_oom_kills", func(w *usage.Row) string { return csvBytes(w.Memory.OOMKills) }},
	{"memory_lying_factor_bytes", func(w *usage.Row) string { return csvMaybe(w.Memory.LyingFactor) }},
	{"memory_verdict", func(w *usage.Row) string { return w.Memory.Verdict }},
	{"memory_advice_bytes", func(w *usage.Row) string {
		if w.Memory.Advice == nil {
			return ""
		}
		return csvBytes(*w.Memory.Advice)
	}},
	{"memory_reasons", func(w *usage.Row) string { return csvCodes(w.Memory.Reasons) }},
}

// writeUsageCSV writes a report as CSV (RFC 4180, but with plain line ends), the
// time of its figures first.
func writeUsageCSV(to io.Writer, r *usage.Report, o *usageOptions, head bool) error {
	w := csv.NewWriter(to)
	if head {
		line := []string{"time"}
		for _, c := range csvColumns {
			line = append(line, c.name)
		}
		_ = w.Write(line)
	}
	rows := r.Services
	if o.containers {
		rows = r.Containers
	}
	sortUsage(rows, o.sort)
	for i := range rows {
		line := []string{r.At.UTC().Format(time.RFC3339)}
		for _, c := range csvColumns {
			line = append(line, csvText(c.of(&rows[i])))
		}
		_ = w.Write(line)
	}
	w.Flush()
	if err := w.Error(); err != nil {
		return fmt.Errorf("write CSV: %w", err)
	}
	return nil
}

// csvText keeps spreadsheets from taking a text for a formula: names of services
// are up to who writes labels.
func csvText(s string) string {
	s = printable(s)
	if s == "" || !strings.ContainsRune("=+-@\t\r", rune(s[0])) {
		return s
	}
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return s
	}
	return "'" + s
}

// csvFigure writes a figure with six decimals at most: advice is exact with them.
func csvFigure(v float64) string {
	s := strconv.FormatFloat(v, 'f', 6, 64)
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}

func csvBytes(v uint64) string { return strconv.FormatUint(v, 10) }

func csvMaybe(v *float64) string {
	if v == nil {
		return ""
	}
	return csvFigure(*v)
}

func csvCodes(reasons []usage.Reason) string {
	var codes []string
	for _, r := range reasons {
		codes = append(codes, r.Code)
	}
	return strings.Join(codes, " ")
}
