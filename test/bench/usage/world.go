package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/berthd/berth/collectors/usage"
	"github.com/berthd/berth/test/bench/rig"
)

// interval is berth's default, and that of all that is compared with it.
const interval = 10 * time.Second

// world is the engine, the containers, and two berths.
type world struct {
	settings
	*rig.World

	ids      []string   // the containers that run all the time
	on, off  *rig.Berth // with and without usage
	page     string     // the first one's metrics
	perCPU   float64    // what usage costs, in percent of a core
	conserve []float64  // share of what containers used that was attributed, in each interval
}

// populate starts the containers that run all the time, and the berths.
func (w *world) populate(ctx context.Context, _ *rig.Table) (err error) {
	specs := make([]rig.Spec, w.containers)
	for i := range specs {
		specs[i].Name = fmt.Sprintf("base%03d", i)
		switch i % 10 {
		case 8:
			specs[i].App, specs[i].Args = "burner", []string{"-cores", "0.005"}
		case 9:
			specs[i].App, specs[i].Args = "burner", []string{"-cores", "0.01"}
		}
	}
	if w.ids, err = w.StartAll(ctx, specs); err != nil {
		return err
	}
	if w.off, err = w.StartBerth(ctx, rig.Options{Set: []string{"usage.enabled=false", "statsd.enabled=false"}}); err != nil {
		return err
	}
	if w.on, err = w.StartBerth(ctx, rig.Options{Set: []string{"statsd.enabled=false"}}); err != nil {
		return err
	}
	st, err := w.on.Status(ctx)
	if err != nil {
		return err
	}
	for _, c := range st.Components {
		if m := regexp.MustCompile(`http://127\.0\.0\.1:\d+/metrics`).FindString(c.Summary); m != "" {
			w.page = m
		}
	}
	if w.page == "" {
		return errors.New("berth's status does not say where its metrics are")
	}
	// Two sweeps, after which all is open and has grown.
	return w.pause(ctx, 2*interval+interval/2)
}

// pause waits.
func (w *world) pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// clear removes all that was made, whatever state it is in.
func (w *world) clear() error {
	return errors.Join(w.on.Stop(), w.off.Stop(), w.Close())
}

// figures returns berth's metrics; those with labels are added up by name.
func (w *world) figures(ctx context.Context) (map[string]float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.page, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("read berth's metrics: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("read berth's metrics: %w", err)
	}
	return parseFigures(string(text))
}

// parseFigures reads the text format of Prometheus.
func parseFigures(text string) (map[string]float64, error) {
	out := make(map[string]float64)
	for l := range strings.Lines(text) {
		if strings.HasPrefix(l, "#") || strings.TrimSpace(l) == "" {
			continue
		}
		name, value, ok := strings.Cut(strings.TrimSpace(l), " ")
		if i := strings.IndexByte(l, '{'); i >= 0 {
			name = l[:i]
			value, ok = strings.TrimSpace(l[strings.LastIndexByte(l, '}')+1:]), true
		}
		v, err := strconv.ParseFloat(value, 64)
		if !ok || err != nil {
			return nil, fmt.Errorf("read berth's metrics: %q", l)
		}
		out[name] += v
	}
	return out, nil
}

// ended returns what berth knows of runs that have ended, by container.
func (w *world) ended(ctx context.Context) (map[string]usage.EndedRun, error) {
	var list []usage.EndedRun
	if err := w.on.Get(ctx, "/v1/usage/ended", nil, &list); err != nil {
		return nil, err
	}
	out := make(map[string]usage.EndedRun, len(list))
	for _, e := range list {
		out[e.ID] = e
	}
	return out, nil
}
