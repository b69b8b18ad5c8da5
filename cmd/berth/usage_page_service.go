package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/berthd/berth/collectors/usage"
)

// verdictClass is the class of a verdict in the page's style sheet.
var verdictClass = map[string]string{
	usage.Undersized: "d", usage.Oversized: "w", usage.InBand: "ok", usage.NotReserved: "n", usage.StillLearning: "n",
}

// plotOf is the plot of one service, of one of its containers.
func (p *page) plotOf(w *usage.Row) plot {
	h := w.Hours
	t := plot{
		Name: rowName(w), Verdict: verdictWord(w.Verdict), Class: verdictClass[w.Verdict],
		N: p.Span.n, Days: p.Span.days("Mon"), Advice: -1,
	}
	used, reserved := p.Span.align(h, h.Used), p.Span.align(h, h.Reserved)
	advice := 0.0
	if w.CPU.Advice != nil && w.CPU.Verdict != usage.InBand {
		advice = *w.CPU.Advice
	}
	t.draw(used, reserved, p.Span.align(h, h.P95), advice)
	throttled, hours := throttledHours(p.Span.align(h, h.Throttled))
	t.Throttled = marks(throttled, plotHeight)
	var notes []string
	notes = append(notes, plural(w.Containers, "container"))
	if hours > 0 {
		notes = append(notes, fmt.Sprintf("throttled in %d of %s", hours, plural(knownHours(used), "hour")))
	}
	if advice > 0 {
		notes = append(notes, "advice "+exactCores(advice))
	}
	t.Note = strings.Join(notes, ", ")
	t.About = fmt.Sprintf("%s: one container reserves %s cores and uses up to %s on average of an hour; its p95 is up to %s. %s.",
		t.Name, cores(w.CPU.Reserved), cores(highest(used)), cores(highest(h.P95)), t.Note)
	return t
}

// throttledHours returns the hours that were throttled too much.
func throttledHours(ratios usage.Values) (chosen []bool, n int) {
	chosen = make([]bool, len(ratios))
	for i, v := range ratios {
		if v > throttledMuch {
			chosen[i] = true
			n++
		}
	}
	return chosen, n
}

func knownHours(values usage.Values) int {
	n := 0
	for _, v := range values {
		if !math.IsNaN(v) {
			n++
		}
	}
	return n
}

// heatOf is the row of one service in the heat map.
func (p *page) heatOf(w *usage.Row) heatRow {
	h := w.Hours
	row := heatRow{Name: rowName(w)}
	used, reserved := p.Span.align(h, h.Used), p.Span.align(h, h.Reserved)
	throttled, _ := throttledHours(p.Span.align(h, h.Throttled))
	danger := make([]bool, p.Span.n)
	below, above := 0, 0
	for i := range p.Span.n {
		lf := reserved[i] - used[i]
		cell := heatCell{X: i, Class: heatClass(lf, p.Band.Of(reserved[i]))}
		when := p.Span.at(i).Format("Mon 15:04")
		switch {
		case cell.Class == "x":
			continue // what is not there is not known
		case reserved[i] == 0:
			cell.Class, cell.Title = "n", when+" nothing reserved"
		default:
			cell.Title = when + " " + signed(lf)
			switch cell.Class[0] {
			case 'd':
				danger[i] = true
				below++
			case 'w':
				above++
			}
		}
		if throttled[i] {
			cell.Title += ", throttled"
		}
		row.Cells = append(row.Cells, cell)
	}
	row.Danger, row.Throttled = marks(danger, 0.5), marks(throttled, 1)
	row.About = fmt.Sprintf("%s: of %s, %d below the band and %d above it", row.Name, plural(len(row.Cells), "known hour"), below, above)
	return row
}

// legend explains the classes of the heat map: how far from the band they are,
// because its upper end is lower for small containers.
func (p *page) legend() {
	p.Legend = []legend{
		{"d3", fmt.Sprintf("below the band by more than %g", heatStep2)},
		{"d2", fmt.Sprintf("by %g to %g", heatStep1, heatStep2)},
		{"d1", fmt.Sprintf("by up to %g", heatStep1)},
		{"ok", "in the band"},
		{"w1", fmt.Sprintf("above it by up to %g", heatSpare1)},
		{"w2", fmt.Sprintf("by %g to %g", heatSpare1, heatSpare2)},
		{"w3", "by more"},
		{"n", "nothing reserved"},
	}
}

// rankOf lists what services could give back, and what they need: to the right and
// to the left of one axis, whose ends fit the longest bars.
func rankOf(title string, rows []usage.Row, free func(*usage.Row) float64, text func(float64) string) rank {
	out := rank{Title: title}
	left, right := 0.0, 0.0
	for i := range rows {
		v := free(&rows[i])
		if v == 0 {
			continue
		}
		left, right = max(left, -v), max(right, v)
		out.Rows = append(out.Rows, rankRow{Name: rowName(&rows[i]), Value: v})
	}
	slices.SortStableFunc(out.Rows, func(a, b rankRow) int {
		if a.Value < 0 || b.Value < 0 { // danger first
			return cmp.Compare(a.Value, b.Value)
		}
		return cmp.Compare(b.Value, a.Value)
	})
	for i := range out.Rows {
		row := &out.Rows[i]
		row.Zero = rounded(100 * left / (left + right))
		row.Width = rounded(100 * math.Abs(row.Value) / (left + right))
		row.X, row.Class, row.Text = row.Zero, "w", text(row.Value)+" to give back"
		if row.Value < 0 {
			row.X, row.Class, row.Text = rounded(row.Zero-row.Width), "d", text(-row.Value)+" short"
		}
	}
	return out
}

// tableRow is a service in the table.
func tableRow(w *usage.Row) pageRow {
	row := pageRow{
		Name: rowName(w), Class: verdictClass[w.Verdict], Verdict: verdictWord(w.Verdict), N: w.Containers,
		Reserved: "–", Source: w.CPU.Source, Used: cores(w.CPU.Hourly), P95: cores(w.CPU.P95), Max: cores(w.CPU.Max),
		Throttle: "–", Lying: "–", Memory: orDash(memoryOf(w)), CPUAdvice: "–", MemoryAdvice: "–",
		Free: w.FreeCores() + w.FreeMemory()/coreWorth,
	}
	if w.CPU.Source != usage.SourceNone {
		row.Reserved = cores(w.CPU.Reserved)
	}
	if v := w.CPU.Throttled; v != nil {
		row.Throttle = percent(*v)
	}
	if v := w.CPU.LyingFactor; v != nil {
		row.Lying = signed(*v)
	}
	if a := w.CPU.Advice; a != nil && w.CPU.Verdict != usage.InBand {
		row.CPUAdvice = exactCores(*a)
	}
	if a := w.Memory.Advice; a != nil && w.Memory.Verdict != usage.InBand {
		row.MemoryAdvice = size(float64(*a))
	}
	memory := w.Memory.Verdict == usage.Undersized || w.Memory.Verdict == usage.Oversized
	if w.CPU.Verdict != usage.InBand || !memory {
		for _, r := range w.CPU.Reasons {
			row.Why = append(row.Why, r.Why)
		}
	}
	if memory {
		for _, r := range w.Memory.Reasons {
			row.Why = append(row.Why, "memory: "+r.Why)
		}
	}
	return row
}
