package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/berthd/berth/collectors/usage"
)

// printUsageHead prints what is above the table: the host, and what to do.
func (c *cli) printUsageHead(r *usage.Report) {
	p, h, s := c.painter(), &r.Host, &r.Sums
	used := ""
	if h.ContainerUsed != nil {
		used = " and use " + cores(*h.ContainerUsed)
	}
	fmt.Fprintf(c.out, "%s: %s reserve %s of %g cores%s; of %s of memory they reserve %s.\n",
		p.paint(bold, orDash(printable(r.Node))), plural(h.Containers, "container"), cores(h.ReservedCores), h.Cores, used,
		size(float64(h.Memory)), size(float64(h.ReservedMemory)))
	if s.Undersized > 0 {
		fmt.Fprintf(c.out, "%s: %s %s more%s.\n", p.paint(red, "Danger"), plural(s.Undersized, "service"), verb(s.Undersized, "needs", "need"), amounts(" than reserved: ", s.NeedCores, float64(s.NeedMemory)))
	}
	if s.Oversized > 0 {
		fmt.Fprintf(c.out, "%s: %s %s less%s.\n", p.paint(yellow, "Waste"), plural(s.Oversized, "service"), verb(s.Oversized, "needs", "need"), amounts(" than reserved: ", s.FreeCores, float64(s.FreeMemory)))
	}
	if s.Learning > 0 {
		most := 0.0
		for _, w := range r.Services {
			if w.Verdict == usage.StillLearning {
				most = max(most, w.HistoryHours)
			}
		}
		fmt.Fprintf(c.out, "Learning: of %s too little is known yet (%s at most).\n", plural(s.Learning, "service"), learned(most, r.LearningHours))
	}
	if s.Undersized+s.Oversized+s.Learning == 0 {
		fmt.Fprintln(c.out, "Nothing should be reserved otherwise.")
	}
}

// amounts says an amount of cores and memory after a text, or nothing.
func amounts(text string, c, memory float64) string {
	var parts []string
	if c > 0 {
		parts = append(parts, cores(c)+" cores")
	}
	if memory > 0 {
		parts = append(parts, size(memory))
	}
	if parts == nil {
		return ""
	}
	return text + strings.Join(parts, " and ")
}

func verb(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// usageOrders are the values of --sort.
var usageOrders = []string{"danger", "waste", "used", "name"}

// coreWorth is how many bytes of memory are counted as much as a core when rows
// are sorted by waste: what general-purpose machines have for each.
const coreWorth = 4 << 30

// sortUsage sorts rows; equal ones by name.
func sortUsage(rows []usage.Row, order string) {
	// lying is the lying factor of all of a row's containers. What reserves
	// nothing takes what others have reserved.
	lying := func(w *usage.Row) float64 {
		n := float64(max(w.Containers, 1))
		if w.CPU.LyingFactor == nil {
			return -w.CPU.Hourly * n
		}
		return *w.CPU.LyingFactor * n
	}
	waste := func(w *usage.Row) float64 {
		v := lying(w)
		if w.Memory.LyingFactor != nil {
			v += *w.Memory.LyingFactor * float64(max(w.Containers, 1)) / coreWorth
		}
		return v
	}
	safe := func(w *usage.Row) int {
		if w.Verdict == usage.Undersized {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(rows, func(a, b usage.Row) int {
		by := 0
		switch order {
		case "danger":
			by = cmp.Or(cmp.Compare(safe(&a), safe(&b)), cmp.Compare(lying(&a), lying(&b)))
		case "waste":
			by = cmp.Compare(waste(&b), waste(&a))
		case "used":
			by = cmp.Compare(b.CPU.Hourly*float64(b.Containers), a.CPU.Hourly*float64(a.Containers))
		}
		return cmp.Or(by, strings.Compare(rowName(&a), rowName(&b)))
	})
}

// rowName names a row as people do: the container, or the service with its
// environment.
func rowName(w *usage.Row) string {
	switch {
	case w.Container != "":
		return printable(w.Container)
	case w.Environment != "":
		return printable(w.Service + " (" + w.Environment + ")")
	}
	return printable(w.Service)
}

// printable replaces what could move a terminal's cursor: names of services are
// up to who writes labels.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// cores writes an amount of cores with as many digits as matter.
func cores(v float64) string {
	digits := 2
	if math.Abs(v) < 0.1 {
		digits = 3
	}
	s := strconv.FormatFloat(v, 'f', digits, 64)
	if strings.Trim(s, "-0.") == "" {
		return "0"
	}
	return s
}

// exactCores writes what to reserve, so that it can be copied: no less than it is.
func exactCores(v float64) string {
	return strconv.FormatFloat(math.Ceil(v*1000-1e-6)/1000, 'f', -1, 64)
}

// coreCount is exactCores with its unit.
func coreCount(v float64) string {
	if s := exactCores(v); s != "1" {
		return s + " cores"
	}
	return "1 core"
}

// size writes an amount of memory.
func size(bytes float64) string {
	switch v := math.Abs(bytes); {
	case v < 0.5:
		return "0"
	case v < 1<<20:
		return strconv.FormatFloat(bytes/(1<<10), 'f', 0, 64) + " KiB"
	case v < 1<<30:
		return strconv.FormatFloat(bytes/(1<<20), 'f', 0, 64) + " MiB"
	case v < 100<<30:
		return strconv.FormatFloat(bytes/(1<<30), 'f', 1, 64) + " GiB"
	}
	return strconv.FormatFloat(bytes/(1<<30), 'f', 0, 64) + " GiB"
}

// percent writes a share.
func percent(v float64) string {
	if v > 0 && v < 0.005 {
		return "<1%"
	}
	return strconv.FormatFloat(100*v, 'f', 0, 64) + "%"
}

// usagePaint is the colour of a verdict.
var usagePaint = map[string]paint{
	usage.Undersized: red, usage.Oversized: yellow, usage.InBand: green,
	usage.StillLearning: dim, usage.NotReserved: dim,
}

// verdictWord is a verdict in words.
func verdictWord(v string) string { return strings.ReplaceAll(v, "_", " ") }

// adviceOf says what a row should reserve.
func adviceOf(w *usage.Row, learning float64) string {
	text := verdictWord(w.Verdict)
	if w.Verdict == usage.StillLearning {
		return text + ", " + learned(w.HistoryHours, learning)
	}
	var to []string
	if a := w.CPU.Advice; a != nil && w.CPU.Verdict != usage.InBand {
		to = append(to, coreCount(*a))
	}
	if a := w.Memory.Advice; a != nil && w.Memory.Verdict != usage.InBand {
		to = append(to, size(float64(*a)))
	}
	if len(to) == 0 {
		return text
	}
	return text + ": " + strings.Join(to, ", ")
}

// learned says how much is known of what advice takes, in hours.
func learned(known, needed float64) string {
	if needed < 1 { // somebody is in a hurry
		return fmt.Sprintf("%.0f of %.0f min", math.Floor(60*known), 60*needed)
	}
	return fmt.Sprintf("%.0f of %.0f h", math.Floor(known), needed)
}

// why returns the first ground of a row's verdict.
func why(w *usage.Row) string {
	reasons := w.CPU.Reasons
	if w.CPU.Verdict != w.Verdict {
		reasons = w.Memory.Reasons
	}
	if len(reasons) == 0 {
		return ""
	}
	return printable(reasons[0].Why)
}
