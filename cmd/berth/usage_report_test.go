package main

import (
	"encoding/xml"
	"errors"
	"fmt"
	"html"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/berthd/berth/collectors/usage"
)

// report makes the page of a report by the command.
func reportPage(t *testing.T, r *usage.Report) string {
	t.Helper()
	out, _ := run(t, 0, "usage", "report", "--from", fixtureFile(t, r), "--html", "-")
	return out
}

// lately leaves the last hours of a report only, which makes a smaller page.
func lately(r *usage.Report, n int) *usage.Report {
	for i := range r.Services {
		h := r.Services[i].Hours
		cut := len(h.Used) - n
		h.Start = h.Start.Add(time.Duration(cut) * time.Hour)
		for _, v := range []*usage.Values{&h.Containers, &h.Reserved, &h.Used, &h.P90, &h.P95, &h.Max, &h.Throttled, &h.Memory, &h.OOMKills} {
			*v = (*v)[cut:]
		}
	}
	return r
}

// With BERTH_USAGE_PAGE=FILE the whole page is written there, to look at it.
func TestUsageReportGolden(t *testing.T) {
	golden(t, "usage.html", reportPage(t, lately(fixtureReport(), 30)))
	if file := os.Getenv("BERTH_USAGE_PAGE"); file != "" {
		if err := os.WriteFile(file, []byte(reportPage(t, fixtureReport())), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// element is one of an SVG.
type element struct {
	name  string
	attr  map[string]string
	title string
}

func (e *element) float(t *testing.T, name string) float64 {
	t.Helper()
	text, ok := e.attr[name]
	if !ok {
		return 0 // as SVG has it
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatalf("<%s %s=%q>: %v", e.name, name, text, err)
	}
	return v
}

// drawing is an inline SVG: its own element, and those in it.
type drawing struct {
	element
	parts []element
}

func (d *drawing) part(class string) *element {
	for i := range d.parts {
		if d.parts[i].attr["class"] == class {
			return &d.parts[i]
		}
	}
	return &element{name: "path", attr: map[string]string{"d": ""}}
}

var inlineSVG = regexp.MustCompile(`(?s)<svg.*?</svg>`)

// drawings parses all inline SVG of a page, as strictly as XML is.
func drawings(t *testing.T, page string) []drawing {
	t.Helper()
	var out []drawing
	for _, text := range inlineSVG.FindAllString(page, -1) {
		var d drawing
		dec := xml.NewDecoder(strings.NewReader(text))
		inTitle := false
		for {
			tok, err := dec.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%v in %.200s", err, text)
			}
			switch tok := tok.(type) {
			case xml.StartElement:
				e := element{name: tok.Name.Local, attr: make(map[string]string)}
				for _, a := range tok.Attr {
					e.attr[a.Name.Local] = a.Value
				}
				inTitle = e.name == "title"
				switch {
				case e.name == "svg":
					d.element = e
				case !inTitle:
					d.parts = append(d.parts, e)
				}
			case xml.CharData:
				if inTitle {
					d.parts[len(d.parts)-1].title += string(tok)
				}
			case xml.EndElement:
				inTitle = false
			}
		}
		out = append(out, d)
	}
	return out
}

// about returns the drawing whose label begins with a text, among those of a kind.
func about(t *testing.T, all []drawing, label, has string) *drawing {
	t.Helper()
	for i := range all {
		if strings.HasPrefix(all[i].attr["aria-label"], label) && (has == "" || all[i].attr[has] != "") {
			return &all[i]
		}
	}
	t.Fatalf("there is no drawing of %s", label)
	return nil
}

var pathCommand = regexp.MustCompile(`([MHVZ])(-?[0-9.]*)(?: (-?[0-9.]+))?`)

// heights reads a path of steps: what it is at in the middle of each hour, as a
// value; NaN where it is not. Of a closed shape it reads the upper edge, which
// comes first, and the lower one.
func heights(t *testing.T, path string, n int, top float64) (upper, lower []float64) {
	t.Helper()
	upper, lower = make([]float64, n), make([]float64, n)
	for i := range n {
		upper[i], lower[i] = math.NaN(), math.NaN()
	}
	if left := pathCommand.ReplaceAllString(path, ""); left != "" {
		t.Fatalf("%q of the path %q is not understood", left, path)
	}
	var x, y float64
	for _, m := range pathCommand.FindAllStringSubmatch(path, -1) {
		a, _ := strconv.ParseFloat(m[2], 64)
		switch m[1] {
		case "M":
			x = a
			y, _ = strconv.ParseFloat(m[3], 64)
		case "V":
			y = a
		case "H":
			into := upper
			if a < x {
				into = lower
			}
			for i := int(min(a, x)); i < int(max(a, x)); i++ {
				into[i] = top * (1 - y/100)
			}
			x = a
		}
	}
	return upper, lower
}

// same compares values of which some are not known.
func same(t *testing.T, what string, got, want []float64, within float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: got %d values, want %d", what, len(got), len(want))
		return
	}
	for i := range got {
		if math.IsNaN(got[i]) != math.IsNaN(want[i]) || math.Abs(got[i]-want[i]) > within {
			t.Errorf("%s: hour %d is %v, want %v", what, i, got[i], want[i])
			return
		}
	}
}

// Every plot shows the series that it is made of.
func TestUsageReportPlots(t *testing.T) {
	r := fixtureReport()
	all := drawings(t, reportPage(t, r))
	nothing := math.NaN()
	totalUsed, totalReserved := make([]float64, usage.HistoryHours+1), make([]float64, usage.HistoryHours+1)
	for i := range r.Services {
		w := &r.Services[i]
		h, n := w.Hours, len(w.Hours.Used)
		d := about(t, all, w.Service+": one container", "data-max")
		if got := d.attr["viewBox"]; got != fmt.Sprintf("0 0 %d 100", n) {
			t.Errorf("%s: got viewBox %s for %d hours", w.Service, got, n)
		}
		top := d.float(t, "data-max")
		within := top / 1e4
		line, _ := heights(t, d.part("reserved").attr["d"], n, top)
		same(t, w.Service+" reserved", line, h.Reserved, within)
		line, _ = heights(t, d.part("p95").attr["d"], n, top)
		same(t, w.Service+" p95", line, h.P95, within)

		var used, idleTop, idleLow, overTop, overLow []float64
		for j, u := range h.Used {
			if math.IsNaN(u) {
				u = 0
			} else {
				totalUsed[j] += u * h.Containers[j]
				totalReserved[j] += h.Reserved[j] * h.Containers[j]
			}
			res := h.Reserved[j]
			add := func(to *[]float64, v float64, drawn bool) {
				if !drawn {
					v = nothing
				}
				*to = append(*to, v)
			}
			add(&used, min(u, res), min(u, res) > 0)
			add(&idleTop, res, res > u)
			add(&idleLow, u, res > u)
			add(&overTop, u, u > res)
			add(&overLow, res, u > res)
		}
		up, _ := heights(t, d.part("used").attr["d"], n, top)
		same(t, w.Service+" used", up, used, within)
		up, low := heights(t, d.part("idle").attr["d"], n, top)
		same(t, w.Service+" idle", up, idleTop, within)
		same(t, w.Service+" idle from", low, idleLow, within)
		up, low = heights(t, d.part("over").attr["d"], n, top)
		same(t, w.Service+" over", up, overTop, within)
		same(t, w.Service+" over from", low, overLow, within)

		advice := d.part("advice").attr["d"]
		if w.CPU.Advice == nil || w.CPU.Verdict == usage.InBand {
			if advice != "" {
				t.Errorf("%s: got a line of advice, want none", w.Service)
			}
		} else {
			line, _ := heights(t, advice, n, top)
			if math.Abs(line[n/2]-*w.CPU.Advice) > within {
				t.Errorf("%s: the advice is drawn at %v, want %v", w.Service, line[n/2], *w.CPU.Advice)
			}
		}
		marked, _ := heights(t, d.part("thr").attr["d"], n, top)
		for j := range marked {
			if got, want := !math.IsNaN(marked[j]), h.Throttled[j] > 0.05; got != want {
				t.Errorf("%s: hour %d marked as throttled: %v, want %v", w.Service, j, got, want)
			}
		}
	}
	d := about(t, all, "Cores of all services", "data-max")
	top := d.float(t, "data-max")
	line, _ := heights(t, d.part("reserved").attr["d"], len(totalReserved), top)
	same(t, "total reserved", line, totalReserved, top/1e4)
	used, _ := heights(t, d.part("used").attr["d"], len(totalUsed), top)
	same(t, "total used", used, totalUsed, top/1e4)
}

// Every cell of the heat map has the class of its lying factor.
func TestUsageReportHeatMap(t *testing.T) {
	r := fixtureReport()
	all := drawings(t, reportPage(t, r))
	// The ends of the classes as the legend has them.
	class := func(reserved, used float64) string {
		lf, high := reserved-used, min(0.6, 0.5*reserved)
		for _, c := range []struct {
			end  float64
			name string
		}{{-1, "d3"}, {-0.4, "d2"}, {-0.1, "d1"}} {
			if lf < c.end-1e-12 {
				return c.name
			}
		}
		switch {
		case lf <= high:
			return "ok"
		case lf <= high+0.4:
			return "w1"
		case lf <= high+1.4:
			return "w2"
		}
		return "w3"
	}
	seen := make(map[string]int)
	for i := range r.Services {
		w := &r.Services[i]
		d := about(t, all, w.Service+": of ", "")
		cells := make(map[int]*element)
		for j := range d.parts {
			if p := &d.parts[j]; p.name == "rect" {
				if p.attr["width"] != "1" || p.attr["height"] != "1" || p.title == "" {
					t.Errorf("%s: got the cell %+v", w.Service, p)
				}
				cells[int(p.float(t, "x"))] = p
			}
		}
		line, _ := heights(t, d.part("dg").attr["d"], len(w.Hours.Used), 1)
		for j, used := range w.Hours.Used {
			cell := cells[j]
			if math.IsNaN(used) {
				if cell != nil {
					t.Errorf("%s: hour %d is not known, and has the cell %+v", w.Service, j, cell)
				}
				continue
			}
			want := class(w.Hours.Reserved[j], used)
			if w.CPU.Source == usage.SourceNone {
				want = "n"
			}
			if cell == nil || cell.attr["class"] != want {
				t.Errorf("%s: hour %d with %v is %+v, want %s", w.Service, j, w.Hours.Reserved[j]-used, cell, want)
				continue
			}
			seen[want]++
			at := w.Hours.Start.Add(time.Duration(j) * time.Hour).Format("Mon 15:04")
			if !strings.HasPrefix(cell.title, at) {
				t.Errorf("%s: the title of hour %d is %q, want %s first", w.Service, j, cell.title, at)
			}
			if got, want := !math.IsNaN(line[j]), want[0] == 'd'; got != want {
				t.Errorf("%s: hour %d has the line of danger: %v, want %v", w.Service, j, got, want)
			}
		}
	}
	for _, c := range []string{"d1", "d2", "ok", "w1", "w2", "n"} {
		if seen[c] == 0 {
			t.Errorf("the fixture has no hour of class %s", c)
		}
	}
}

// The bars of both rankings are as long as what they stand for, from one axis.
func TestUsageReportRanks(t *testing.T) {
	r := fixtureReport()
	all := drawings(t, reportPage(t, r))
	bars := func(free func(*usage.Row) float64, text func(float64) string) {
		var scale float64 // of one on the axis, by the longest bars
		left, right := 0.0, 0.0
		for i := range r.Services {
			left, right = max(left, -free(&r.Services[i])), max(right, free(&r.Services[i]))
		}
		zero := 100 * left / (left + right)
		for i := range r.Services {
			w := &r.Services[i]
			v := free(w)
			if v == 0 {
				continue
			}
			label, class := w.Service+": "+text(v)+" to give back", "w"
			if v < 0 {
				label, class = w.Service+": "+text(-v)+" short", "d"
			}
			d := about(t, all, label, "")
			bar := d.part(class)
			x, width := bar.float(t, "x"), bar.float(t, "width")
			axis, _ := strconv.ParseFloat(strings.TrimSuffix(strings.TrimPrefix(d.part("cap").attr["d"], "M"), " 0V10"), 64)
			scale = 100 / (left + right)
			if math.Abs(width-scale*math.Abs(v)) > 0.02 || width <= 0 {
				t.Errorf("%s: the bar is %v long for %v, want %v", w.Service, width, v, scale*math.Abs(v))
			}
			from := x
			if v < 0 {
				from = x + width
			}
			if math.Abs(axis-zero) > 0.02 || math.Abs(from-axis) > 0.02 || x < -0.02 || x+width > 100.02 {
				t.Errorf("%s: the bar from %v, %v long, is not at the axis at %v", w.Service, x, width, axis)
			}
		}
		if scale == 0 {
			t.Error("the fixture has no bar")
		}
	}
	bars((*usage.Row).FreeCores, func(v float64) string { return cores(v) + " cores" })
	bars((*usage.Row).FreeMemory, size)

	now, advised := about(t, all, "Cores now", ""), about(t, all, "Cores as advised", "")
	total := func(d *drawing) float64 {
		return d.part("used").float(t, "width") + d.part("idle").float(t, "width")
	}
	want := (15.5 - r.Sums.FreeCores + r.Sums.NeedCores) / 15.5
	if got := total(advised) / total(now); math.Abs(got-want) > 0.001 {
		t.Errorf("as advised, %v of what is reserved is drawn, want %v", got, want)
	}
	if got := now.part("used").float(t, "width") / total(now); math.Abs(got-6.21/15.5) > 0.001 {
		t.Errorf("used is %v of reserved, want %v", got, 6.21/15.5)
	}
}

// The page needs nothing besides itself, and can be read by those who do not see
// it.
func TestUsageReportIsSelfContained(t *testing.T) {
	page := reportPage(t, fixtureReport())
	for _, never := range []string{"http:", "https:", "<script", "<link", "src=", "url(", "@import", "<iframe", "onload", "NaN", "Inf", "ZgotmplZ", "<nil>", "%!"} {
		if strings.Contains(page, never) {
			t.Errorf("the page has %s in it", never)
		}
	}
	for _, want := range []string{`<html lang="en">`, "<title>4.77 cores and 9.6 GiB are reserved", "prefers-color-scheme: dark", "@media print", `name="viewport"`} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %s", want)
		}
	}
	for _, d := range drawings(t, page) {
		if d.attr["role"] != "img" || len(d.attr["aria-label"]) < 10 {
			t.Errorf("a drawing says nothing: %v", d.attr)
		}
	}
	// Every name that a section is labelled by is there.
	for _, m := range regexp.MustCompile(`aria-labelledby="([^"]+)"`).FindAllStringSubmatch(page, -1) {
		if !strings.Contains(page, `id="`+m[1]+`"`) {
			t.Errorf("nothing has the id %s", m[1])
		}
	}
}

// Names and reasons are text, whatever is in them.
func TestUsageReportEscapes(t *testing.T) {
	const evil = `"><script>alert('1')</script>{{.}}&amp;`
	r := fixtureReport()
	w := &r.Services[0]
	w.Service, w.Environment, w.CPU.Reasons[0].Why, r.Node = evil, "", evil, evil
	page := reportPage(t, r)
	for _, markup := range []string{"<script", "</script", `"alert(`, `'1'`} {
		if i := strings.Index(page, markup); i >= 0 {
			t.Errorf("a name got through as markup: %q", page[max(0, i-80):i+80])
		}
	}
	if !strings.Contains(html.UnescapeString(page), evil) {
		t.Error("the name is not there")
	}
	drawings(t, page)
}

func TestUsageReportOfLittle(t *testing.T) {
	learning := lately(fixtureReport(), 3)
	for i := range learning.Services {
		w := &learning.Services[i]
		w.Verdict, w.CPU.Verdict, w.Memory.Verdict = usage.StillLearning, usage.StillLearning, usage.StillLearning
		w.CPU.Advice, w.Memory.Advice = nil, nil
	}
	learning.Sums = usage.Sum(learning.Services)
	content := fixtureReport()
	for i := range content.Services {
		w := &content.Services[i]
		w.Verdict, w.CPU.Verdict, w.Memory.Verdict = usage.InBand, usage.InBand, usage.InBand
	}
	content.Sums = usage.Sum(content.Services)
	danger := fixtureReport()
	danger.Services = danger.Services[1:4]
	danger.Sums = usage.Sum(danger.Services)
	unknown := fixtureReport()
	for i := range unknown.Services {
		h := unknown.Services[i].Hours
		for j := range h.Used {
			h.Used[j], h.Reserved[j], h.P95[j], h.Containers[j] = math.NaN(), math.NaN(), math.NaN(), math.NaN()
		}
	}
	short := lately(fixtureReport(), 1)
	for name, tc := range map[string]struct {
		r     *usage.Report
		title string
		plots bool
	}{
		"nothing":        {&usage.Report{}, "Nothing has been measured yet", false},
		"learning":       {learning, "Too little is known yet to advise anything", true},
		"all is well":    {content, "Nothing should be reserved otherwise", true},
		"danger only":    {danger, "3 services need more than reserved", true},
		"unknown hours":  {unknown, "4.77 cores and 9.6 GiB are reserved and not needed", true},
		"the first hour": {short, "4.77 cores and 9.6 GiB are reserved and not needed", false},
	} {
		page := reportPage(t, tc.r)
		if !strings.Contains(page, "<h1>"+tc.title+"</h1>") {
			t.Errorf("%s: the headline is not %q", name, tc.title)
		}
		if got := strings.Contains(page, `id="heat"`); got != tc.plots {
			t.Errorf("%s: there is a heat map: %v, want %v", name, got, tc.plots)
		}
		for _, never := range []string{"NaN", "Inf", "ZgotmplZ", "%!"} {
			if strings.Contains(page, never) {
				t.Errorf("%s: the page has %s in it", name, never)
			}
		}
		drawings(t, page)
	}
}

// A host with very many services makes a page that can be opened, with those in
// danger among the plots.
func TestUsageReportIsBounded(t *testing.T) {
	r := fixtureReport()
	few := r.Services
	for i := range 60 {
		w := few[0] // in band
		w.Service = fmt.Sprintf("calm-%04d", i)
		r.Services = append(r.Services, w)
	}
	page := reportPage(t, r)
	if n := len(page); n > 4<<20 {
		t.Errorf("the page has %d bytes", n)
	}
	all := drawings(t, page)
	plots := 0
	for _, d := range all {
		if strings.Contains(d.attr["aria-label"], ": one container") {
			plots++
		}
	}
	if plots != mostPlotted {
		t.Errorf("got %d plots, want %d", plots, mostPlotted)
	}
	for _, name := range []string{"checkout", "calc", "cache", "search", "mailer"} {
		about(t, all, name+": one container", "")
	}
	if !strings.Contains(page, fmt.Sprint(len(r.Services)-mostPlotted, " more are in the table")) || !strings.Contains(page, "calm-0059") {
		t.Error("the rest is not in the table, or nobody says so")
	}
}

func TestUsageReportFile(t *testing.T) {
	from := fixtureFile(t, fixtureReport())
	dir := t.TempDir()
	file := filepath.Join(dir, "usage.html")
	for range 2 { // the second time, it is replaced
		run(t, 0, "usage", "report", "--from", from, "--html", file)
		raw, err := os.ReadFile(file)
		if err != nil || !strings.HasSuffix(strings.TrimSpace(string(raw)), "</html>") {
			t.Errorf("got %v, %d bytes", err, len(raw))
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("got %v in the folder, want the page alone", left)
	}
	// What --json prints makes the same page.
	again := filepath.Join(dir, "again.json")
	raw, _ := run(t, 0, "usage", "report", "--from", from, "--json")
	if err := os.WriteFile(again, []byte(raw), 0o600); err != nil {
		t.Fatal(err)
	}
	one, _ := run(t, 0, "usage", "report", "--from", from, "--html", "-")
	two, _ := run(t, 0, "usage", "report", "--from", again, "--html", "-")
	if one != two {
		t.Error("the page of the saved data is another one")
	}
	for _, args := range [][]string{{}, {"--html", file, "--json"}} {
		if _, said := run(t, codeUsage, append([]string{"usage", "report", "--from", from}, args...)...); !strings.Contains(said, "--html FILE") {
			t.Errorf("%q: got %q", args, said)
		}
	}
	run(t, codeFailed, "usage", "report", "--from", from, "--html", filepath.Join(dir, "none", "x.html"))
}

func TestNiceTop(t *testing.T) {
	for v, want := range map[float64]float64{
		0: 1, math.NaN(): 1, math.Inf(1): 1, 0.011: 0.015, 0.5: 0.5, 1: 1, 1.01: 1.5, 6.1: 8, 9: 10, 100: 100, 130: 150,
	} {
		if got := niceTop(v); math.Abs(got-want) > 1e-9 {
			t.Errorf("%v: got %v, want %v", v, got, want)
		}
	}
}
