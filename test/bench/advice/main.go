// Command advice scores what berth recommends, and what the Kubernetes Vertical
// Pod Autoscaler would, on generated loads: how much is reserved for nothing, how
// much is wanted beyond what is reserved, and how often a reservation changes.
// Every figure depends on the loads: -rough 2 doubles their noise and bursts,
// -limited hides from the methods what is wanted beyond the reservation.
//
//	go run ./test/bench/advice               the fixed seeds, 1 to 100
//	go run ./test/bench/advice -seed 500     others
//	go run ./test/bench/advice -check        exit with 1 where a target is missed
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/berthd/berth/collectors/usage"
)

// The seeds that figures are reported for, 1 to 100, were never used to choose
// anything: that was done with 1000 to 1019 and 2000 to 2019.
func main() {
	first := flag.Uint64("seed", 1, "the first seed")
	n := flag.Int("seeds", 100, "how many seeds")
	days := flag.Int("days", 28, "how long a load lasts; the first 8 days are not scored")
	rough := flag.Float64("rough", 1, "noise and bursts, as a multiple of the usual")
	limited := flag.Bool("limited", false, "containers are limited to what they reserve")
	kinds := flag.Bool("kinds", false, "show each kind of load, too")
	check := flag.Bool("check", false, "hold the figures against the targets")
	flag.Parse()

	fmt.Printf("%d kinds of load x %d seeds from %d, %d days, rough %g, limited %v\n\n",
		len(usage.Kinds), *n, *first, *days, *rough, *limited)
	fmt.Printf("%-28s %8s %8s %9s %9s %9s\n", "", "slack %", "time %", "volume %", "changes/w", "longest m")
	sim, err := usage.Simulate(context.Background(), usage.SimulateOptions{
		Seed: *first, Seeds: *n, Days: *days, Rough: *rough, Limited: *limited,
	}, methods())
	if err != nil {
		fmt.Fprintln(os.Stderr, "advice:", err)
		os.Exit(2)
	}
	means := make(map[string]usage.Score)
	for _, m := range sim.Methods {
		for _, k := range m.Kinds {
			if *kinds {
				show("  "+k.Name, k.Score)
			}
		}
		means[m.Method] = m.Score
		show(m.Method, m.Score)
	}
	if *check && !meets(means) {
		os.Exit(1)
	}
}

// methods returns what is compared.
func methods() []usage.Method {
	return append([]usage.Method{
		{Name: vpa90, New: func() usage.Recommender { return newVPA(0.90) }, Policy: usage.CarefulPolicy},
		{Name: vpa95, New: func() usage.Recommender { return newVPA(0.95) }, Policy: usage.CarefulPolicy},
	}, usage.Methods()...)
}

const (
	vpa90 = "VPA p90 + 15 %"
	vpa95 = "VPA p95 + 15 %"
)

func show(name string, s usage.Score) {
	fmt.Printf("%-28s %8.2f %8.3f %9.4f %9.2f %9.0f\n", name, 100*s.Slack, 100*s.Time, 100*s.Volume, s.Changes, s.Longest)
}

// meets says which targets are met.
func meets(means map[string]usage.Score) bool {
	vpa, peaks := means[vpa95], means[usage.MethodPeaks]
	hourly, plan := means[usage.MethodHourly], means[usage.MethodPlan]
	fmt.Println()
	ok := true
	for _, t := range []struct {
		what        string
		got, atMost float64
	}{
		{"peaks: volume, as a share of that of VPA p95", peaks.Volume / vpa.Volume, 1.0 / 20},
		{"peaks: slack beyond that of VPA p95, points", 100 * (peaks.Slack - vpa.Slack), 1},
		{"peaks: changes, as a share of those of VPA p95", peaks.Changes / vpa.Changes, 1.0 / 3},
		{"hour-of-day: slack %", 100 * hourly.Slack, 42},
		{"hour-of-day: time %", 100 * hourly.Time, 0.8},
		{"plan: slack %", 100 * plan.Slack, 42},
		{"plan: volume %", 100 * plan.Volume, 0.5},
		{"plan: changes a week", plan.Changes, 10},
	} {
		word := "met"
		if t.got > t.atMost {
			word, ok = "MISSED", false
		}
		fmt.Printf("%-48s %8.3f  at most %6.3f  %s\n", t.what, t.got, t.atMost, word)
	}
	return ok
}
