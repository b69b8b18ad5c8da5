package main

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/berthd/berth/collectors/usage"
)

// The plots of the usage report are inline SVG without text: each is stretched to
// the width that it gets, and what is written around it is HTML, which is not. One
// hour is one unit wide; what is drawn by its height is 100 units high.

// plotHeight is the height of plots, in units.
const plotHeight = 100

// hourSpan is the hours that all plots of a report show.
type hourSpan struct {
	start time.Time // a full hour, UTC
	n     int       // how many hours
}

// Hours returns how many hours there are.
func (s hourSpan) Hours() int { return s.n }

// spanOf returns the hours that any service knows something of.
func spanOf(rows []usage.Row) hourSpan {
	var s hourSpan
	var end time.Time
	for i := range rows {
		h := rows[i].Hours
		if h == nil || len(h.Used) == 0 {
			continue
		}
		from := h.Start.UTC().Truncate(time.Hour)
		if to := from.Add(time.Duration(len(h.Used)) * time.Hour); to.After(end) {
			end = to
		}
		if s.start.IsZero() || from.Before(s.start) {
			s.start = from
		}
	}
	// More than anybody remembers is not drawn.
	s.n = min(int(end.Sub(s.start)/time.Hour), 2*usage.HistoryHours)
	return s
}

// align returns the values of a series, hour by hour of the span.
func (s hourSpan) align(h *usage.Series, values usage.Values) usage.Values {
	out := make(usage.Values, s.n)
	shift := 0
	if h != nil {
		shift = int(h.Start.UTC().Truncate(time.Hour).Sub(s.start) / time.Hour)
	}
	for i := range out {
		out[i] = math.NaN()
		if j := i - shift; h != nil && j >= 0 && j < len(values) {
			out[i] = values[j]
		}
	}
	return out
}

// at returns the beginning of an hour.
func (s hourSpan) at(i int) time.Time { return s.start.Add(time.Duration(i) * time.Hour) }

// tick is a mark of an axis, at a share of its length in percent.
type tick struct {
	At   float64
	Text string
	Last bool // there is no room to the right of it
}

// days returns the midnights of the span.
func (s hourSpan) days(layout string) []tick {
	var out []tick
	for i := range s.n {
		if t := s.at(i); t.Hour() == 0 {
			out = append(out, tick{At: rounded(100 * float64(i) / float64(s.n)), Text: t.Format(layout), Last: s.n-i < 12})
		}
	}
	return out
}

func rounded(v float64) float64 { return math.Round(v*100) / 100 }

// niceTop returns a round number of 1, 1.5, 2, 3, 4, 5, 6, 8 times a power of ten
// that is not less than v: the top of an axis.
func niceTop(v float64) float64 {
	if !(v > 0) || math.IsInf(v, 0) {
		return 1
	}
	unit := math.Pow(10, math.Floor(math.Log10(v)))
	for _, f := range []float64{1, 1.5, 2, 3, 4, 5, 6, 8} {
		if top := f * unit; top >= v*(1-1e-9) {
			return top
		}
	}
	return 10 * unit
}

// number writes a coordinate.
func number(v float64) string {
	return strconv.FormatFloat(rounded(v), 'f', -1, 64)
}

// stepLine draws values as steps from the top of 0 to top: SVG path data. It is
// interrupted where nothing is known.
func stepLine(values usage.Values, top float64) string {
	var b strings.Builder
	down := false
	for i, v := range values {
		if math.IsNaN(v) {
			down = false
			continue
		}
		y := number(heightOf(v, top))
		if down {
			b.WriteString("V" + y)
		} else {
			b.WriteString("M" + strconv.Itoa(i) + " " + y)
		}
		b.WriteString("H" + strconv.Itoa(i+1))
		down = true
	}
	return b.String()
}

// stepArea draws what is between two lines of values: SVG path data of closed
// shapes. Where either is not known, or there is nothing between them, nothing is.
func stepArea(low, high usage.Values, top float64) string {
	var b strings.Builder
	for i := 0; i < len(low); {
		if !(high[i] > low[i]) {
			i++
			continue
		}
		j := i
		for j < len(low) && high[j] > low[j] {
			j++
		}
		for k := i; k < j; k++ {
			y := number(heightOf(high[k], top))
			if k == i {
				b.WriteString("M" + strconv.Itoa(i) + " " + y)
			} else {
				b.WriteString("V" + y)
			}
			b.WriteString("H" + strconv.Itoa(k+1))
		}
		for k := j - 1; k >= i; k-- {
			b.WriteString("V" + number(heightOf(low[k], top)) + "H" + strconv.Itoa(k))
		}
		b.WriteString("Z")
		i = j
	}
	return b.String()
}

// heightOf returns where a value is drawn; 0 is the upper edge.
func heightOf(v, top float64) float64 {
	return plotHeight * (1 - min(max(v/top, 0), 1))
}

// marks draws a line at a height through the hours that are chosen.
func marks(chosen []bool, y float64) string {
	var b strings.Builder
	for i := 0; i < len(chosen); i++ {
		if !chosen[i] {
			continue
		}
		j := i
		for j < len(chosen) && chosen[j] {
			j++
		}
		b.WriteString("M" + strconv.Itoa(i) + " " + number(y) + "H" + strconv.Itoa(j))
		i = j
	}
	return b.String()
}

// each returns f of two values of each hour.
func each(a, b usage.Values, f func(a, b float64) float64) usage.Values {
	out := make(usage.Values, len(a))
	for i := range a {
		out[i] = f(a[i], b[i])
	}
	return out
}

func zero(n int) usage.Values { return make(usage.Values, n) }

// highest returns the highest value that is known, or 0.
func highest(values usage.Values) float64 {
	most := 0.0
	for _, v := range values {
		if v > most {
			most = v
		}
	}
	return most
}

// The classes of the heat map, from danger to waste. The steps beyond the band are
// the same on each side of 0 for the eye: a reservation that is short by a core is
// worse than one with a core to spare.
const (
	heatStep1, heatStep2   = 0.3, 0.9 // below the band, cores
	heatSpare1, heatSpare2 = 0.4, 1.4 // above it
)

// heatClass returns the class of a lying factor.
func heatClass(lf float64, band usage.Band) string {
	switch {
	case math.IsNaN(lf):
		return "x"
	case lf < band.Low-heatStep2:
		return "d3"
	case lf < band.Low-heatStep1:
		return "d2"
	case lf < band.Low:
		return "d1"
	case lf <= band.High:
		return "ok"
	case lf <= band.High+heatSpare1:
		return "w1"
	case lf <= band.High+heatSpare2:
		return "w2"
	}
	return "w3"
}
