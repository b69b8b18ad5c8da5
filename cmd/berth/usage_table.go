package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/berthd/berth/collectors/usage"
)

// widthOf returns how many columns a terminal has, and 0 for what is none.
func widthOf(w io.Writer) int {
	if f, ok := w.(*os.File); ok {
		if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil {
			return int(size.Col)
		}
	}
	return 0
}

// column is one of a wide table.
type column struct {
	head  string
	right bool // figures
	// drop is when it is left out on a terminal that is too narrow: the highest
	// one first, 0 never.
	drop int
	// least is to how many characters it may be cut where it is the last one.
	least int
	cells []cell
}

func (c *column) width() int {
	w := utf8.RuneCountInString(c.head)
	for _, cell := range c.cells {
		w = max(w, utf8.RuneCountInString(cell.text))
	}
	return w
}

// wideTable is a table that fits terminals: columns are left out, and then the
// last one is cut.
type wideTable struct{ columns []*column }

// gap is between columns.
const gap = 2

// fit leaves out what a width has no room for.
func (t *wideTable) fit(width int) []*column {
	columns := slices.Clone(t.columns)
	for {
		total := -gap
		for i, c := range columns {
			w := c.width()
			if i == len(columns)-1 {
				w = min(w, c.least)
			}
			total += w + gap
		}
		if total <= width {
			return columns
		}
		most := slices.MaxFunc(columns, func(a, b *column) int { return a.drop - b.drop })
		if most.drop == 0 {
			return columns
		}
		columns = slices.DeleteFunc(columns, func(c *column) bool { return c == most })
	}
}

// write prints the table; a width of 0 has room for all.
func (t *wideTable) write(w io.Writer, on painter, width int) {
	columns := t.columns
	if width > 0 {
		columns = t.fit(width)
	}
	widths := make([]int, len(columns))
	rows := 0
	for i, c := range columns {
		widths[i] = c.width()
		rows = max(rows, len(c.cells))
	}
	for row := -1; row < rows; row++ {
		var b strings.Builder
		at := 0
		for i, c := range columns {
			field := cell{c.head, bold}
			if row >= 0 {
				field = c.cells[row]
			}
			if i == len(columns)-1 && width > 0 {
				field.text = cut(field.text, max(width-at, c.least))
			}
			pad := strings.Repeat(" ", max(0, widths[i]-utf8.RuneCountInString(field.text)))
			at += widths[i] + gap
			if c.right {
				b.WriteString(pad)
				pad = ""
			}
			b.WriteString(on.paint(field.paint, field.text))
			if i < len(columns)-1 {
				b.WriteString(pad + strings.Repeat(" ", gap))
			}
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
}

// cut shortens a text to a width.
func cut(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:width-1]) + "…"
}

// usageTable lists services or containers.
func usageTable(rows []usage.Row, r *usage.Report, containers bool) *wideTable {
	var t wideTable
	add := func(head string, right bool, drop int, text func(w *usage.Row) cell) {
		c := &column{head: head, right: right, drop: drop}
		for i := range rows {
			c.cells = append(c.cells, text(&rows[i]))
		}
		t.columns = append(t.columns, c)
	}
	some := func(has func(w usage.Row) bool) bool { return slices.ContainsFunc(rows, has) }
	name := "SERVICE"
	if containers {
		name = "CONTAINER"
		add(name, false, 0, func(w *usage.Row) cell { return cell{text: printable(w.Container)} })
		add("SERVICE", false, 8, func(w *usage.Row) cell { return cell{text: printable(w.Service)} })
	} else {
		add(name, false, 0, func(w *usage.Row) cell { return cell{text: printable(w.Service)} })
	}
	if some(func(w usage.Row) bool { return w.Environment != "" }) {
		add("ENV", false, 7, func(w *usage.Row) cell { return cell{text: orDash(printable(w.Environment))} })
	}
	if !containers {
		add("N", true, 6, func(w *usage.Row) cell { return cell{text: strconv.Itoa(w.Containers)} })
	}
	add("RESERVED", true, 0, func(w *usage.Row) cell {
		if w.CPU.Source == usage.SourceNone {
			return cell{"-", dim}
		}
		return cell{text: cores(w.CPU.Reserved)}
	})
	add("BY", false, 11, func(w *usage.Row) cell { return cell{orDash(w.CPU.Source), dim} })
	add("USED", true, 0, func(w *usage.Row) cell { return cell{text: cores(w.CPU.Used)} })
	add("P95", true, 5, func(w *usage.Row) cell { return cell{text: cores(w.CPU.P95)} })
	add("MAX", true, 10, func(w *usage.Row) cell { return cell{text: cores(w.CPU.Max)} })
	if some(func(w usage.Row) bool { return w.CPU.Throttled != nil }) {
		add("THROTTLED", true, 4, func(w *usage.Row) cell {
			switch v := w.CPU.Throttled; {
			case v == nil:
				return cell{"-", dim}
			case *v > throttledMuch:
				return cell{percent(*v), red}
			default:
				return cell{text: percent(*v)}
			}
		})
	}
	add("LYING", true, 0, func(w *usage.Row) cell {
		if w.CPU.LyingFactor == nil {
			return cell{"-", dim}
		}
		return cell{signed(*w.CPU.LyingFactor), usagePaint[placeOf(*w.CPU.LyingFactor, r.Band.Of(w.CPU.Reserved))]}
	})
	add("FACTOR", false, 3, func(w *usage.Row) cell {
		if w.CPU.LyingFactor == nil {
			return cell{}
		}
		return cell{bar(*w.CPU.LyingFactor, r.Band.Of(w.CPU.Reserved)), usagePaint[placeOf(*w.CPU.LyingFactor, r.Band.Of(w.CPU.Reserved))]}
	})
	add("MEMORY", true, 9, func(w *usage.Row) cell { return cell{text: orDash(memoryOf(w))} })
	add("ADVICE", false, 0, func(w *usage.Row) cell { return cell{adviceOf(w, r.LearningHours), usagePaint[w.Verdict]} })
	last := func(least int) { t.columns[len(t.columns)-1].least = least }
	last(32)
	if some(func(w usage.Row) bool { return why(&w) != "" }) {
		add("WHY", false, 12, func(w *usage.Row) cell { return cell{text: why(w)} })
		last(16)
	}
	return &t
}

// throttledMuch is the share of throttled periods from which advice is raised.
const throttledMuch = 0.05

// memoryOf says how much memory is used of what is reserved.
func memoryOf(w *usage.Row) string {
	if w.Memory.Source == usage.SourceNone || w.Memory.Source == "" {
		return size(float64(w.Memory.Used))
	}
	return size(float64(w.Memory.Used)) + " of " + size(float64(w.Memory.Reserved))
}

func signed(v float64) string {
	s := cores(v)
	if v > 0 && s != "0" {
		s = "+" + s
	}
	return s
}

// placeOf says where a lying factor is, as the verdict that it would be alone.
func placeOf(lf float64, band usage.Band) string {
	switch {
	case lf < band.Low:
		return usage.Undersized
	case lf > band.High:
		return usage.Oversized
	}
	return usage.InBand
}

// The scale of bars: each cell is a tenth of a core, from -0.5 to +1.5.
const (
	barCell           = 0.1
	barLeft, barRight = 5, 15
)

// bar draws a lying factor from 0 to the left or right: [ and ] are the ends of
// the band, and | is 0. An arrow says that it goes on.
func bar(lf float64, band usage.Band) string {
	low := min(max(int(math.Round(-band.Low/barCell)), 0), barLeft)
	high := min(max(int(math.Round(band.High/barCell)), 0), barRight)
	// Rounded to half cells; what is not nothing shows.
	halves := int(math.Round(math.Abs(lf) / barCell * 2))
	if halves == 0 && math.Abs(lf) > barCell/10 {
		halves = 1
	}
	side := func(n, edge int, full, half, arrow, end string, filled int) []string {
		var out []string
		for i := range n {
			if i == edge {
				out = append(out, end)
			}
			switch {
			case i == n-1 && filled > 2*n:
				out = append(out, arrow)
			case filled >= 2*(i+1):
				out = append(out, full)
			case filled == 2*i+1:
				out = append(out, half)
			case i < edge:
				out = append(out, "·")
			default:
				out = append(out, " ")
			}
		}
		if edge >= n {
			out = append(out, end)
		}
		return out
	}
	left, right := 0, halves
	if lf < 0 {
		left, right = halves, 0
	}
	l := side(barLeft, low, "█", "▐", "◀", "[", left)
	slices.Reverse(l)
	return strings.Join(l, "") + "|" + strings.Join(side(barRight, high, "█", "▌", "▶", "]", right), "")
}
