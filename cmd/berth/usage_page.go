package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/berthd/berth/collectors/usage"
)

// mostPlotted bounds how many services have plots of their own, so that the page
// of a host with thousands of services can be opened: those in danger and those
// that waste most. The table has all.
const mostPlotted = 40

// page is what the template of the usage report shows.
type page struct {
	Node, At, Known string
	Environment     string // of all services, where they have the same
	Headline        string
	Lead            []string
	Cards           []card
	Host            []hostBar
	Span            hourSpan
	Days            []tick // midnights, with their date
	Total           *plot
	Plots           []plot
	Heat            []heatRow
	Legend          []legend
	Ranks           []rank
	Rows            []pageRow
	Unplotted       int
	Band            usage.Band
	Share           string // Band.HighShare
	Learning        float64
}

// card is one of the large figures.
type card struct{ Class, Figure, Text string }

// hostBar is one bar about the whole host: parts of its length in percent.
type hostBar struct {
	Name, Text string
	Used, Idle float64 // parts: used, and reserved beyond that
	Capacity   float64 // where it ends
}

// plot is reserved against used over time.
type plot struct {
	Name, Verdict, Class string
	About                string // in words, for those who do not see it
	Top                  string
	Max                  float64 // of the axis, cores
	N                    int
	Days                 []tick
	// SVG path data.
	Used, Idle, Over, Reserved, P95, Throttled string
	Advice                                     float64 // height of the line; negative for none
	Note                                       string
}

// heatRow is a service's row of the heat map.
type heatRow struct {
	Name, About string
	Cells       []heatCell
	Danger      string // path data: a line through the hours below the band
	Throttled   string
}

type heatCell struct {
	X            int
	Class, Title string
}

type legend struct{ Class, Text string }

// rank is a list of bars, the longest first.
type rank struct {
	Title, None string
	Rows        []rankRow
}

type rankRow struct {
	Name, Class, Text string
	X, Width          float64 // percent of the width; 0 of the axis is at Zero
	Zero              float64
	Value             float64
}

// pageRow is a service in the table.
type pageRow struct {
	Name, Class, Verdict                       string
	N                                          int
	Reserved, Source, Used, P95, Max, Throttle string
	Lying, Memory, CPUAdvice, MemoryAdvice     string
	Free                                       float64 // to sort by
	Why                                        []string
}

// pageOf works out what the page shows.
func pageOf(r *usage.Report) *page {
	rows := slices.Clone(r.Services)
	sortUsage(rows, "danger")
	p := &page{
		Node: cmp.Or(r.Node, "this host"), Band: r.Band, Share: percent(r.Band.HighShare), Learning: r.LearningHours,
		At: r.At.UTC().Format("Monday 2 January 2006, 15:04 UTC"),
	}
	if len(rows) > 0 && !slices.ContainsFunc(rows, func(w usage.Row) bool { return w.Environment != rows[0].Environment }) {
		p.Environment = rows[0].Environment
		for i := range rows {
			rows[i].Environment = "" // said once
		}
	}
	if r.Since != nil {
		p.Known = fmt.Sprintf("%.0f hours", max(1, math.Round(r.At.Sub(*r.Since).Hours())))
		if r.At.Sub(*r.Since).Hours() >= usage.HistoryHours {
			p.Known = "eight days"
		}
	}
	p.headline(r)
	p.hostBars(r)
	for i := range rows {
		p.Rows = append(p.Rows, tableRow(&rows[i]))
	}
	p.Ranks = []rank{
		rankOf("Cores", rows, (*usage.Row).FreeCores, func(v float64) string { return cores(v) + " cores" }),
		rankOf("Memory", rows, (*usage.Row).FreeMemory, size),
	}
	plotted := worthPlots(rows)
	p.Span = spanOf(plotted)
	p.Unplotted = len(rows) - len(plotted)
	if p.Span.n < 2 {
		return p
	}
	p.Days = p.Span.days("Mon 2")
	p.Total = p.total(r)
	for i := range plotted {
		p.Plots = append(p.Plots, p.plotOf(&plotted[i]))
		p.Heat = append(p.Heat, p.heatOf(&plotted[i]))
	}
	p.legend()
	return p
}

// worthPlots returns the services that are plotted: all that have hours, or those
// with the most urgent advice.
func worthPlots(rows []usage.Row) []usage.Row {
	out := slices.DeleteFunc(slices.Clone(rows), func(w usage.Row) bool { return w.Hours == nil })
	if len(out) <= mostPlotted {
		return out
	}
	worth := func(w *usage.Row) float64 {
		v := math.Abs(w.FreeCores()) + math.Abs(w.FreeMemory())/coreWorth
		if w.Verdict == usage.Undersized {
			v += 1e6
		}
		return v
	}
	slices.SortStableFunc(out, func(a, b usage.Row) int { return cmp.Compare(worth(&b), worth(&a)) })
	out = out[:mostPlotted]
	sortUsage(out, "danger")
	return out
}

// headline says what matters, for those who read nothing else.
func (p *page) headline(r *usage.Report) {
	s := &r.Sums
	share := func(part, whole float64) string {
		if whole <= 0 {
			return ""
		}
		return " (" + percent(part/whole) + ")"
	}
	free := amounts("", s.FreeCores, float64(s.FreeMemory))
	need := amounts("", s.NeedCores, float64(s.NeedMemory))
	switch {
	case r.At.IsZero() || len(r.Services) == 0:
		p.Headline = "Nothing has been measured yet"
	case s.Oversized > 0 && free != "":
		p.Headline = free + " are reserved and not needed"
	case s.Undersized > 0:
		p.Headline = plural(s.Undersized, "service") + " " + verb(s.Undersized, "needs", "need") + " more than reserved"
	case s.Learning > 0 && s.InBand == 0:
		p.Headline = "Too little is known yet to advise anything"
	default:
		p.Headline = "Nothing should be reserved otherwise"
	}
	if s.FreeCores > 0 {
		p.Cards = append(p.Cards, card{"w", cores(s.FreeCores), "cores can be given back" + share(s.FreeCores, r.Host.ReservedCores)})
	}
	if s.FreeMemory > 0 {
		p.Cards = append(p.Cards, card{"w", size(float64(s.FreeMemory)), "can be given back" + share(float64(s.FreeMemory), float64(r.Host.ReservedMemory))})
	}
	if s.Undersized > 0 {
		text := verb(s.Undersized, "service is", "services are") + " in danger"
		if need != "" {
			text += ": short of " + need
		}
		p.Cards = append(p.Cards, card{"d", fmt.Sprint(s.Undersized), text})
	}
	if u := r.Host.ContainerUsed; u != nil && r.Host.ReservedCores > 0 {
		p.Cards = append(p.Cards, card{"", percent(*u / r.Host.ReservedCores), "of the reserved cores are used now"})
	}
	if s.Oversized > 0 {
		p.Lead = append(p.Lead, fmt.Sprintf("%s %s more than the highest hours of %s needed. What is given back, schedulers can use for something else.",
			plural(s.Oversized, "service"), verb(s.Oversized, "reserves", "reserve"), cmp.Or(p.Known, "what is known")))
	}
	if s.Undersized > 0 {
		p.Lead = append(p.Lead, fmt.Sprintf("%s %s more than reserved: what they use belongs to others, or a limit stops or kills them.",
			plural(s.Undersized, "service"), verb(s.Undersized, "needs", "need")))
	}
	if s.Learning > 0 {
		p.Lead = append(p.Lead, fmt.Sprintf("Of %s too little is known yet: advice takes %.0f hours.", plural(s.Learning, "service"), r.LearningHours))
	}
}

// hostBars compares the host as it is with what is advised.
func (p *page) hostBars(r *usage.Report) {
	h := &r.Host
	add := func(name string, used, reserved, advised, capacity float64, text func(float64) string) {
		if capacity <= 0 {
			return
		}
		top := max(capacity, reserved, advised, used)
		part := func(v float64) float64 { return rounded(100 * v / top) }
		bar := func(name string, reserved float64, say string) hostBar {
			return hostBar{
				Name: name, Text: say, Used: part(min(used, reserved)), Idle: part(max(0, reserved-used)), Capacity: part(capacity),
			}
		}
		p.Host = append(p.Host,
			bar(name+" now", reserved, fmt.Sprintf("%s reserved, %s used, of %s", text(reserved), text(used), text(capacity))),
			bar(name+" as advised", advised, text(advised)+" reserved"))
	}
	used := 0.0
	if h.ContainerUsed != nil {
		used = *h.ContainerUsed
	}
	s := &r.Sums
	add("Cores", used, h.ReservedCores, max(0, h.ReservedCores-s.FreeCores+s.NeedCores), h.Cores, cores)
	inUse := 0.0 // by containers: the host itself uses some, too
	for i := range r.Containers {
		inUse += float64(r.Containers[i].Memory.Used)
	}
	reserved := float64(h.ReservedMemory)
	add("Memory", inUse, reserved, max(0, reserved-float64(s.FreeMemory)+float64(s.NeedMemory)), float64(h.Memory), size)
}

// total is the plot of all services together.
func (p *page) total(r *usage.Report) *plot {
	n := p.Span.n
	sum := func(pick func(*usage.Series) usage.Values) usage.Values {
		out := make(usage.Values, n)
		for i := range out {
			out[i] = math.NaN()
		}
		for i := range r.Services {
			h := r.Services[i].Hours
			if h == nil {
				continue
			}
			many := p.Span.align(h, h.Containers)
			for j, v := range p.Span.align(h, pick(h)) {
				if v *= many[j]; !math.IsNaN(v) {
					if math.IsNaN(out[j]) {
						out[j] = 0
					}
					out[j] += v
				}
			}
		}
		return out
	}
	reserved := sum(func(h *usage.Series) usage.Values { return h.Reserved })
	used := sum(func(h *usage.Series) usage.Values { return h.Used })
	t := &plot{Name: "All services", Advice: -1, N: n, Days: p.Days}
	t.draw(used, reserved, nil, 0)
	t.About = fmt.Sprintf("Cores of all services over %d hours: at most %s reserved, and at most %s used on average of an hour.", n, cores(highest(reserved)), cores(highest(used)))
	return t
}

// draw sets the path data. What is used beyond what is reserved is apart.
func (t *plot) draw(used, reserved, p95 usage.Values, advice float64) {
	t.Max = niceTop(1.05 * max(highest(used), highest(reserved), highest(p95), advice))
	t.Top = trimCores(t.Max) + " cores"
	if t.Max == 1 {
		t.Top = "1 core"
	}
	n := len(used)
	known := each(reserved, used, func(r, u float64) float64 {
		if math.IsNaN(r) {
			return 0
		}
		return r
	})
	within := each(used, known, func(u, r float64) float64 { return min(u, r) })
	t.Used = stepArea(zero(n), within, t.Max)
	t.Idle = stepArea(used, reserved, t.Max)
	t.Over = stepArea(within, used, t.Max)
	t.Reserved = stepLine(reserved, t.Max)
	t.P95 = stepLine(p95, t.Max)
	if advice > 0 {
		t.Advice = rounded(heightOf(advice, t.Max))
	}
}

func trimCores(v float64) string {
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.3f", v), "0"), ".")
}
