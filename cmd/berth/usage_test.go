package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/berthd/berth/collectors/usage"
)

// run runs the command in this process, and returns what it prints.
func run(t *testing.T, want int, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, bad bytes.Buffer
	if code := berth(args, &out, &bad); code != want {
		t.Fatalf("berth %q: got exit code %d, want %d: %s", args, code, want, bad.String())
	}
	return out.String(), bad.String()
}

// golden compares a text with a file of testdata, or writes it with -update.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-), and what is printed (+); go test ./cmd/berth -run Golden -update:\n%s", file, diff)
	}
}

func TestUsageGolden(t *testing.T) {
	from := fixtureFile(t, fixtureReport())
	for name, args := range map[string][]string{
		"usage.txt":            {},
		"usage-waste.txt":      {"--sort", "waste"},
		"usage-containers.txt": {"--containers", "--sort", "name"},
		"usage-color.txt":      {"--color", "always"},
		"usage-one.txt":        {"calc"},
		"usage-one-of.txt":     {"search-2"},
		"usage.csv":            {"--csv", "--sort", "name"},
	} {
		out, _ := run(t, 0, append([]string{"usage", "--from", from}, args...)...)
		golden(t, name, out)
	}
}

// On a terminal each line fits, and what matters most is there.
func TestUsageTableFits(t *testing.T) {
	r := fixtureReport()
	for _, width := range []int{300, 160, 120, 100, 80, 72} {
		var b strings.Builder
		usageTable(r.Services, r, false).write(&b, false, width)
		golden(t, "usage-"+strconv.Itoa(width)+".txt", b.String())
		for line := range strings.Lines(b.String()) {
			line = strings.TrimSuffix(line, "\n")
			if n := utf8.RuneCountInString(line); n > width {
				t.Errorf("width %d: got %d columns: %s", width, n, line)
			}
		}
		for _, want := range []string{"SERVICE", "RESERVED", "USED", "LYING", "ADVICE", "nightly-report"} {
			if !strings.Contains(b.String(), want) {
				t.Errorf("width %d: got no %s", width, want)
			}
		}
	}
}

func TestUsageBar(t *testing.T) {
	band := usage.Band{Low: -0.1, High: 0.6}
	for _, tc := range []struct {
		lf   float64
		want string
	}{
		{0, "    [·|······]         "},
		{0.001, "    [·|······]         "},
		{0.02, "    [·|▌·····]         "},
		{0.1, "    [·|█·····]         "},
		{0.14, "    [·|█▌····]         "},
		{0.6, "    [·|██████]         "},
		{0.7, "    [·|██████]█        "},
		{1.5, "    [·|██████]█████████"},
		{1.53, "    [·|██████]████████▶"},
		{1e9, "    [·|██████]████████▶"},
		{-0.05, "    [▐|······]         "},
		{-0.1, "    [█|······]         "},
		{-0.15, "   ▐[█|······]         "},
		{-0.5, "████[█|······]         "},
		{-3, "◀███[█|······]         "},
	} {
		if got := bar(tc.lf, band); got != tc.want {
			t.Errorf("%v: got %q, want %q", tc.lf, got, tc.want)
		}
	}
	// Whatever the band and the factor, bars are equally long.
	for _, band := range []usage.Band{{}, {Low: -9, High: 9}, {Low: -0.5, High: 1.5}} {
		for _, lf := range []float64{-2, 0, 0.3, 2} {
			if n := utf8.RuneCountInString(bar(lf, band)); n != barLeft+barRight+3 {
				t.Errorf("%v in %v: %d columns", lf, band, n)
			}
		}
	}
}

func TestUsageOrder(t *testing.T) {
	row := func(name, verdict string, n int, used float64, lf, memory *float64) usage.Row {
		return usage.Row{
			Service: name, Verdict: verdict, Containers: n,
			CPU: usage.CPU{Hourly: used, LyingFactor: lf}, Memory: usage.Memory{LyingFactor: memory},
		}
	}
	rows := []usage.Row{
		row("waste", usage.Oversized, 2, 0.1, ptr(1.0), nil),
		row("memory", usage.Oversized, 1, 0.3, ptr(0.1), ptr(12.0*(1<<30))),
		row("throttled", usage.Undersized, 1, 0.2, ptr(0.4), nil),
		row("hot", usage.Undersized, 3, 2, ptr(-0.5), nil),
		row("nothing", usage.NotReserved, 1, 0.7, nil, nil),
		row("b", usage.InBand, 0, 0, ptr(0.0), nil),
		row("a", usage.InBand, 0, 0, ptr(0.0), nil),
	}
	for order, want := range map[string]string{
		"danger": "hot throttled nothing a b memory waste",
		"waste":  "memory waste throttled a b nothing hot",
		"used":   "hot nothing memory throttled waste a b",
		"name":   "a b hot memory nothing throttled waste",
	} {
		sortUsage(rows, order)
		var got []string
		for _, w := range rows {
			got = append(got, w.Service)
		}
		if got := strings.Join(got, " "); got != want {
			t.Errorf("%s: got %s, want %s", order, got, want)
		}
	}
}

func TestUsageFigures(t *testing.T) {
	for _, tc := range []struct{ got, want string }{
		{cores(0), "0"},
		{cores(-0.0001), "0"},
		{cores(0.0314), "0.031"},
		{cores(12), "12.00"},
		{exactCores(0.5), "0.5"},
		{exactCores(0.640625), "0.641"},
		{exactCores(2), "2"},
		{exactCores(0.3), "0.3"},
		{signed(0.25), "+0.25"},
		{signed(-0.25), "-0.25"},
		{signed(0), "0"},
		{size(0), "0"},
		{size(500 << 10), "500 KiB"},
		{size(16 << 20), "16 MiB"},
		{size(1536 << 20), "1.5 GiB"},
		{size(123.4 * (1 << 30)), "123 GiB"},
		{learned(23.9, 24), "23 of 24 h"},
		{learned(0.5/60, 1.0/60), "0 of 1 min"},
		{percent(0), "0%"},
		{percent(0.001), "<1%"},
		{percent(0.256), "26%"},
		{printable("a\x1b[2Jb\r\nc"), "a�[2Jb��c"},
		{csvText("=cmd()"), "'=cmd()"},
		{csvText("-0.5"), "-0.5"},
		{csvText("-x"), "'-x"},
		{csvText("web"), "web"},
		{csvFigure(1.390625), "1.390625"},
		{csvFigure(290455552), "290455552"},
		{csvFigure(0), "0"},
		{spark([]float64{0, 0, 0, 1, 2, 8, math.NaN(), math.NaN(), math.NaN(), 4, math.NaN(), 1}, 8), "▁█ ▅"},
		{spark([]float64{0, 0, 0}, 0), "▁"},
	} {
		if tc.got != tc.want {
			t.Errorf("got %q, want %q", tc.got, tc.want)
		}
	}
}

// The CSV says for each service what the report says.
func TestUsageCSV(t *testing.T) {
	r := fixtureReport()
	out, _ := run(t, 0, "usage", "--from", fixtureFile(t, r), "--csv", "--sort", "name")
	lines, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if len(lines) != 1+len(r.Services) {
		t.Fatalf("got %d lines for %d services", len(lines), len(r.Services))
	}
	for i, line := range lines[1:] {
		w := &r.Services[i]
		field := make(map[string]string)
		for j, name := range lines[0] {
			field[name] = line[j]
		}
		figure := func(name string) float64 {
			v, err := strconv.ParseFloat(field[name], 64)
			if err != nil {
				t.Errorf("%s: %s is %q", w.Service, name, field[name])
			}
			return v
		}
		near := func(name string, want float64) {
			if got := figure(name); math.Abs(got-want) > 1e-6*max(1, math.Abs(want)) {
				t.Errorf("%s: %s is %v, want %v", w.Service, name, got, want)
			}
		}
		if field["service"] != w.Service || field["verdict"] != w.Verdict || field["time"] != "2026-03-03T14:20:00Z" {
			t.Errorf("got %q for %s", line, w.Service)
		}
		near("cpu_reserved_cores", w.CPU.Reserved)
		near("cpu_used_1h_cores", w.CPU.Hourly)
		near("memory_used_bytes", float64(w.Memory.Used))
		if w.CPU.Advice != nil {
			near("cpu_advice_cores", *w.CPU.Advice)
		} else if field["cpu_advice_cores"] != "" {
			t.Errorf("%s: got advice %q, want none", w.Service, field["cpu_advice_cores"])
		}
		if w.CPU.LyingFactor != nil {
			near("cpu_lying_factor_cores", *w.CPU.LyingFactor)
		}
	}
}

// A recorded load, and generated ones, replayed.
func TestUsageSimulate(t *testing.T) {
	dir := t.TempDir()
	var trace strings.Builder
	trace.WriteString("t,container,cores\n")
	start := fixtureNow.Truncate(24 * time.Hour)
	for i := range 20 * 24 { // the job runs from 02:00 to 03:00
		at := start.Add(time.Duration(i+1) * time.Hour)
		job := 0.25
		if at.Hour() == 3 {
			job = 2
		}
		fmt.Fprintf(&trace, "%d,web,0.5\n%s,job,%g\n", at.Unix(), at.Format(time.RFC3339), job)
	}
	file := filepath.Join(dir, "trace.csv")
	if err := os.WriteFile(file, []byte(trace.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	out, _ := run(t, 0, "usage", "simulate", "--trace", file, "--each")
	golden(t, "usage-simulate.txt", out)

	out, _ = run(t, 0, "usage", "simulate", "--trace", file, "--json")
	var s usage.Simulation
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatal(err)
	}
	for _, m := range s.Methods {
		if m.Method != usage.MethodPeaks {
			continue
		}
		// By hand: web has what it uses, and the job 2 cores, which it uses for
		// one hour of 24.
		for _, load := range m.Loads {
			want := map[string]float64{"web": 0, "job": 1 - (23*0.25+2)/(24*2)}[load.Name]
			if math.Abs(load.Score.Slack-want) > 0.03 || load.Score.Volume != 0 {
				t.Errorf("%s: got %+v, want slack %v and no overrun", load.Name, load.Score, want)
			}
		}
	}

	one, _ := run(t, 0, "usage", "simulate", "--seed", "7", "--seeds", "1", "--days", "4", "--json")
	two, _ := run(t, 0, "usage", "simulate", "--seed", "7", "--seeds", "1", "--days", "4", "--json")
	other, _ := run(t, 0, "usage", "simulate", "--seed", "8", "--seeds", "1", "--days", "4", "--json")
	if one != two || one == other {
		t.Errorf("one seed gives one result: %v, another one gives another: %v", one == two, one != other)
	}

	bad := filepath.Join(dir, "bad.csv")
	if err := os.WriteFile(bad, []byte("1,web,0.5\n2,web,lots\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		code int
		args []string
		says string
	}{
		{codeFailed, []string{"--trace", bad}, "bad.csv: line 2"},
		{codeFailed, []string{"--trace", filepath.Join(dir, "none.csv")}, "no such file"},
		{codeUsage, []string{"--trace", file, "--seed", "3"}, "--trace and --seed"},
		{codeUsage, []string{"--seeds", "0"}, "give 1 to"},
		{codeUsage, []string{"now"}, "too many arguments"},
	} {
		if _, said := run(t, tc.code, append([]string{"usage", "simulate"}, tc.args...)...); !strings.Contains(said, tc.says) {
			t.Errorf("%q: got %q, want %q in it", tc.args, said, tc.says)
		}
	}
}
