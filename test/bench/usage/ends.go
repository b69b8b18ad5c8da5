package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"
	"golang.org/x/sync/errgroup"

	"github.com/berthd/berth/test/bench/rig"
)

// measureEnds starts short containers, and asks berth whether it has measured
// the exit of each.
func (w *world) measureEnds(ctx context.Context, t *rig.Table) error {
	for _, kind := range []struct {
		life string
		want float64
	}{{"200ms", 99}, {"30ms", 90}, {"0s", 0}} {
		for _, burst := range []bool{false, true} {
			how := "at 5 starts a second"
			if burst {
				how = fmt.Sprintf("%d at once", w.rounds)
			}
			say("containers that sleep for %s, %s", kind.life, how)
			ids, err := w.short(ctx, kind.life, burst)
			if err != nil {
				return err
			}
			share, lived, err := w.share(ctx, ids)
			if err != nil {
				return err
			}
			measure := fmt.Sprintf("exits measured of containers that sleep for %s, %s", kind.life, how)
			note := fmt.Sprintf("of %d; by the engine they lived for %v (median)", len(ids), lived.Round(time.Millisecond))
			if kind.want > 0 {
				least(t, measure, share, kind.want, "%", "%s", note)
			} else {
				t.Note("%s: %.4g %% %s.", measure, share, note)
			}
			if err := w.RemoveAll(ctx, ids); err != nil {
				return err
			}
		}
	}
	slices.Sort(w.conserve)
	if len(w.conserve) == 0 {
		return errors.New("there is no figure of conservation: something else is in the cgroup of the containers")
	}
	least(t, "attributed to containers, of what their cgroups used", w.conserve[len(w.conserve)/2], 99, "%", "median of %d intervals, the worst %.4g %%", len(w.conserve), w.conserve[0])
	return nil
}

// short starts containers that sleep for so long, and waits for their ends.
func (w *world) short(ctx context.Context, life string, burst bool) ([]string, error) {
	ids := make([]string, w.rounds)
	for i := range ids {
		var err error
		name := fmt.Sprintf("short-%s-%v-%02d", life, burst, i)
		if ids[i], err = w.Create(ctx, rig.Spec{Name: name, Args: []string{"-exit-after", life}}); err != nil {
			return ids, err
		}
	}
	tick := time.NewTicker(time.Second / 5)
	defer tick.Stop()
	g, gctx := errgroup.WithContext(ctx)
	for _, id := range ids {
		g.Go(func() error {
			if err := w.Run(gctx, id); err != nil {
				return fmt.Errorf("start a short container: %w", err)
			}
			return nil
		})
		if !burst {
			select {
			case <-tick.C:
			case <-gctx.Done():
			}
		}
	}
	return ids, g.Wait()
}

// share returns which share of containers have their last figures, in percent,
// once berth knows that all have ended; and how long they lived.
func (w *world) share(ctx context.Context, ids []string) (share float64, median time.Duration, err error) {
	measured := 0
	var lives []time.Duration
	err = rig.Until(ctx, "berth knows that all short containers have ended", func() error {
		ended, err := w.ended(ctx)
		if err != nil {
			return err
		}
		measured, lives = 0, nil
		for _, id := range ids {
			e, ok := ended[id]
			if !ok {
				return fmt.Errorf("it does not know of %.12s", id)
			}
			if e.Measured && e.CPUSeconds > 0 {
				measured++
			}
			lives = append(lives, e.EndedAt.Sub(e.StartedAt))
		}
		return nil
	})
	if err != nil {
		return 0, 0, err
	}
	slices.Sort(lives)
	// Containers have come and gone in this interval: what is not attributed?
	if err := w.pause(ctx, interval); err != nil {
		return 0, 0, err
	}
	f, err := w.figures(ctx)
	if rest, ok := f["berth_node_cpu_unattributed_cores"]; ok && f["berth_node_cpu_container_cores"] > 0 {
		w.conserve = append(w.conserve, 100*(1-math.Abs(rest)/(rest+f["berth_node_cpu_container_cores"])))
	}
	return 100 * float64(measured) / float64(len(ids)), rig.Percentile(lives, 50), err
}

// measureAccuracy burns, and compares.
func (w *world) measureAccuracy(ctx context.Context, t *rig.Table) error {
	for _, kind := range []struct {
		what string
		args []string
		want float64
	}{
		{"3 CPU-seconds at once", []string{"-cpu", "3s"}, 2},
		{"0.25 cores for 10 s", []string{"-cores", "0.25", "-for", "10s"}, 1},
		{"0.70 cores for 10 s", []string{"-cores", "0.7", "-for", "10s"}, 1},
	} {
		id, err := w.Start(ctx, rig.Spec{Name: "burn" + kind.args[1], App: "burner", Args: kind.args})
		if err != nil {
			return err
		}
		done, failed := w.Engine.ContainerWait(ctx, id, container.WaitConditionNotRunning)
		select {
		case <-done:
		case err := <-failed:
			return fmt.Errorf("wait for a burner: %w", err)
		}
		said, err := w.said(ctx, id)
		if err != nil {
			return err
		}
		var got float64
		if err := rig.Until(ctx, "berth knows what the burner has used", func() error {
			ended, err := w.ended(ctx)
			if e, ok := ended[id]; err == nil && (!ok || !e.Measured) {
				err = fmt.Errorf("%+v", e)
			}
			got = ended[id].CPUSeconds
			return err
		}); err != nil {
			return err
		}
		t.Most("error of "+kind.what, 100*math.Abs(got-said.Seconds())/said.Seconds(), kind.want, "%", "berth %.4f s, the process itself %.4f s", got, said.Seconds())
	}
	return nil
}

// said returns the CPU time that a burner says that it has used.
func (w *world) said(ctx context.Context, id string) (used time.Duration, err error) {
	r, err := w.Engine.ContainerLogs(ctx, id, container.LogsOptions{ShowStdout: true})
	if err != nil {
		return 0, fmt.Errorf("read a burner's output: %w", err)
	}
	defer r.Close()
	var out strings.Builder
	if _, err := stdcopy.StdCopy(&out, &out, r); err != nil {
		return 0, fmt.Errorf("read a burner's output: %w", err)
	}
	for l := range strings.Lines(out.String()) {
		var cpu, life int64
		if n, _ := fmt.Sscanf(l, "used %d %d", &cpu, &life); n == 2 {
			used = time.Duration(cpu)
		}
	}
	if used == 0 {
		return 0, fmt.Errorf("a burner said nothing of what it used: %q", out.String())
	}
	return used, nil
}
