package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/berthd/berth/test/bench/rig"
)

const (
	carriers  = 10 // containers
	claims    = 25 // services of each; each makes four records: two names, and two for addresses
	lives     = 3  // of each kind of berth
	maxGrowth = 5.0
	// weighing is how long the memory is watched, once all records are written.
	weighing = 3 * time.Second
)

// measureMemory weighs berths with 1,000 records: one that writes them nowhere
// but to its own server, and one for each sink.
func (w *world) measureMemory(ctx context.Context, t *rig.Table) error {
	specs := make([]rig.Spec, carriers)
	for i := range specs {
		specs[i] = rig.Spec{Name: fmt.Sprintf("carrier%d", i), Host: true, Labels: make(map[string]string)}
		for n := range claims {
			specs[i].Labels[fmt.Sprintf("SERVICE_%d_NAME", 20000+n)] = fmt.Sprintf("carried%d-%d", i, n)
		}
	}
	ids, err := w.StartAll(ctx, specs)
	if err != nil {
		return err
	}
	dynamic, err := w.toBIND()
	if err != nil {
		return err
	}
	kinds := []struct {
		name    string
		options func(life int) rig.Options
		records func() ([]string, error) // by their names
		weights []float64
	}{
		{"neither", func(int) rig.Options { return rig.Options{} }, nil, nil},
		{"Route 53", func(life int) rig.Options {
			o := w.toRoute53(filepath.Join(w.Dir, fmt.Sprint("memory", life)))
			o.Set = append(o.Set, "route53.changes_per_second=10000") // not to wait for the quota
			return o
		}, func() (names []string, err error) {
			for _, s := range w.fake.Sets(w.zone) {
				for range s.Values {
					names = append(names, s.Name)
				}
			}
			return names, nil
		}, nil},
		{"BIND", func(int) rig.Options { return dynamic }, func() (names []string, err error) {
			all, err := w.bind.Records(ctx)
			for _, rr := range all {
				names = append(names, rr.Header().Name)
			}
			return names, err
		}, nil},
	}
	for life := range lives {
		for i := range kinds {
			k := &kinds[i]
			if err := w.run(ctx, k.options(life)); err != nil {
				return err
			}
			if k.records != nil {
				if err := awaitRecords(ctx, k.name, k.records); err != nil {
					return err
				}
			}
			n, err := w.weigh(ctx)
			if err != nil {
				return err
			}
			k.weights = append(k.weights, n)
		}
	}
	if err := w.berth.Stop(); err != nil {
		return err
	}
	base := median(kinds[0].weights)
	for _, k := range kinds[1:] {
		names, err := k.records()
		if err != nil {
			return err
		}
		t.Most(fmt.Sprintf("anonymous memory for %d records in %s", len(names), k.name), median(k.weights)-base, maxGrowth, "MB",
			"with it %s, without %s", list(k.weights), list(kinds[0].weights))
	}
	return w.RemoveAll(ctx, ids)
}

// awaitRecords waits until a zone has all services.
func awaitRecords(ctx context.Context, server string, records func() ([]string, error)) error {
	return rig.Until(ctx, server+" has all services", func() error {
		names, err := records()
		n := 0
		for _, name := range names {
			if strings.HasPrefix(name, "_carried") {
				n++
			}
		}
		if err == nil && n < carriers*claims {
			err = fmt.Errorf("it has %d of %d", n, carriers*claims)
		}
		return err
	})
}

// weigh returns the highest anonymous memory of the berth within a while, in MB.
func (w *world) weigh(ctx context.Context) (float64, error) {
	var most uint64
	for end := time.Now().Add(weighing); time.Now().Before(end); {
		n, err := w.berth.Anonymous()
		if err != nil {
			return 0, err
		}
		most = max(most, n)
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	return float64(most) / 1e6, nil
}

// median returns the middle value, or the upper of two.
func median(l []float64) float64 { return slices.Sorted(slices.Values(l))[len(l)/2] }

func list(l []float64) string {
	var parts []string
	for _, v := range l {
		parts = append(parts, fmt.Sprintf("%.1f", v))
	}
	return strings.Join(parts, ", ")
}
