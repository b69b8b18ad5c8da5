package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/docker/docker/api/types/container"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/berthd/berth/test/bench/rig"
)

// percent returns a CPU time as a percentage of one core over a time.
func percent(cpu, wall time.Duration) float64 { return 100 * cpu.Seconds() / wall.Seconds() }

// spent is the CPU time that both berths have used by some moment.
type spent struct {
	on, off time.Duration
	at      time.Time
}

func (w *world) spent() (s spent, err error) {
	on, err1 := w.on.CPU()
	off, err2 := w.off.CPU()
	return spent{on, off, time.Now()}, errors.Join(err1, err2)
}

// since returns percentages of a core: with usage, without, and what it costs.
func (s spent) since(before spent) (on, off, cost float64) {
	wall := s.at.Sub(before.at)
	on, off = percent(s.on-before.on, wall), percent(s.off-before.off, wall)
	return on, off, on - off
}

// measureCost measures what usage costs berth, and how long a sweep takes. The
// page of metrics is not read meanwhile.
func (w *world) measureCost(ctx context.Context, t *rig.Table) error {
	figures, err := w.figures(ctx)
	if err != nil {
		return err
	}
	before, err := w.spent()
	if err != nil {
		return err
	}
	if err := w.pause(ctx, w.window); err != nil {
		return err
	}
	after, err := w.spent()
	if err != nil {
		return err
	}
	then, err := w.figures(ctx)
	if err != nil {
		return err
	}
	on, off, cost := after.since(before)
	w.perCPU = cost
	sweeps := then["berth_usage_sweeps_total"] - figures["berth_usage_sweeps_total"]
	if sweeps == 0 {
		return errors.New("berth has swept nothing")
	}
	sweep := (then["berth_usage_sweep_seconds_total"] - figures["berth_usage_sweep_seconds_total"]) / sweeps
	t.Most("usage, whole path, 100 containers every 10 s", cost, 0.08, "% of a core", "berth used %.3g %%, and %.3g %% without usage", on, off)
	t.Most("a sweep of 100", sweep*1e3, 5, "ms", "mean of %.0f", sweeps)
	t.Most("sampler, for each container", sweep*1e6/float64(w.containers), 20, "µs", "of the sweep; it allocates nothing, which a test holds")
	return nil
}

// daemons are the engine's processes.
func daemons() (pids []int, err error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	for _, dir := range dirs {
		comm, err := os.ReadFile(dir + "/comm")
		if err != nil {
			continue // it has ended
		}
		switch name := strings.TrimSpace(string(comm)); {
		case name == "dockerd", name == "containerd", strings.HasPrefix(name, "containerd-shim"):
			pid, _ := strconv.Atoi(filepath.Base(dir))
			pids = append(pids, pid)
		}
	}
	if len(pids) == 0 {
		return nil, errors.New("found none of the engine's processes")
	}
	return pids, nil
}

// cpuOf adds up the CPU clocks of processes (clock_getcpuclockid(3)).
func cpuOf(pids []int) (sum time.Duration) {
	for _, pid := range pids {
		var ts unix.Timespec
		if unix.ClockGettime(int32(^pid<<3|2), &ts) == nil {
			sum += time.Duration(ts.Nano())
		}
	}
	return sum
}

// daemonsDuring returns what share of a core the engine's processes use while
// something is done.
func daemonsDuring(do func() error) (float64, error) {
	pids, err := daemons()
	if err != nil {
		return 0, err
	}
	cpu, at := cpuOf(pids), time.Now()
	err = do()
	return percent(cpuOf(pids)-cpu, time.Since(at)), err
}

// measureStats asks the engine for the same, at the same cadence.
func (w *world) measureStats(ctx context.Context, t *rig.Table) error {
	window := w.window / 2
	idle, err := daemonsDuring(func() error { return w.pause(ctx, window) })
	if err != nil {
		return err
	}
	empty, calls := 0, 0
	busy, err := daemonsDuring(func() error {
		for end := time.Now().Add(window); time.Now().Before(end); {
			next := time.Now().Add(interval)
			zero, err := w.statsSweep(ctx)
			if err != nil {
				return err
			}
			empty += zero
			calls += len(w.ids)
			if err := w.pause(ctx, time.Until(next)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	cost := busy - idle
	t.Note("Docker's stats API, one-shot, %d calls in %v: %.3g %% of a core in the engine's processes, over %.3g %% without; its client is not counted. %d answers were empty.", calls, window, cost, idle, empty)
	least(t, "cheaper than Docker's stats API, one-shot", cost/w.perCPU, 30, "×", "%.3g %% of a core", cost)
	return nil
}

// least adds a figure that has to be at least so high.
func least(t *rig.Table, measure string, got, want float64, unit, note string, args ...any) {
	t.Yes(fmt.Sprintf("%s: %.4g %s, at least %v", measure, got, unit, want), got >= want, note, args...)
}

// statsSweep asks for all containers at once, and counts empty answers.
func (w *world) statsSweep(ctx context.Context) (empty int, err error) {
	zero := make([]bool, len(w.ids))
	g, ctx := errgroup.WithContext(ctx)
	for i, id := range w.ids {
		g.Go(func() error {
			r, err := w.Engine.ContainerStatsOneShot(ctx, id)
			if err != nil {
				return fmt.Errorf("ask for the stats of %.12s: %w", id, err)
			}
			defer r.Body.Close()
			var s container.StatsResponse
			if err := json.NewDecoder(r.Body).Decode(&s); err != nil {
				return fmt.Errorf("ask for the stats of %.12s: %w", id, err)
			}
			zero[i] = s.Read.Year() <= 1
			return nil
		})
	}
	err = g.Wait()
	for _, z := range zero {
		if z {
			empty++
		}
	}
	return empty, err
}

// cadvisorModule is where the cAdvisor is that runs if no other one is named.
const cadvisorModule = "test/tools/cadvisor"

// buildCAdvisor builds it, which does nothing where it is up to date.
func buildCAdvisor(ctx context.Context) (string, error) {
	program, err := filepath.Abs(".cache/bench-usage/cadvisor")
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-C", cadvisorModule, "-trimpath", "-o", program, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build cAdvisor: %w\n%s", err, out)
	}
	return program, nil
}

// read reads a page and throws it away.
func read(ctx context.Context, page string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, page, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// measureCAdvisor runs cAdvisor beside the berths, and reads its page and berth's
// every 10 s.
func (w *world) measureCAdvisor(ctx context.Context, t *rig.Table) error {
	const port = "19475"
	const page = "http://127.0.0.1:" + port + "/metrics"
	cmd := exec.CommandContext(ctx, w.cadvisor, "-port", port, "-listen_ip", "127.0.0.1", "-docker_only",
		"-housekeeping_interval=10s", "-max_housekeeping_interval=10s", "-allow_dynamic_housekeeping=false",
		"-disable_metrics=advtcp,cpu_topology,cpuset,hugetlb,memory_numa,percpu,process,referenced_memory,resctrl,sched,tcp,udp,disk")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start cAdvisor: %w", err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	if err := rig.Until(ctx, "cAdvisor answers", func() error { return read(ctx, page) }); err != nil {
		return err
	}
	if err := w.pause(ctx, 2*interval); err != nil {
		return err
	}
	pids := []int{cmd.Process.Pid}
	before, err := w.spent()
	if err != nil {
		return err
	}
	own := cpuOf(pids)
	engine, err := daemonsDuring(func() error {
		for end := before.at.Add(w.window); time.Now().Before(end); {
			if err := errors.Join(read(ctx, page), read(ctx, w.page)); err != nil {
				return fmt.Errorf("read a page of metrics: %w", err)
			}
			if err := w.pause(ctx, interval); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	after, err := w.spent()
	if err != nil {
		return err
	}
	_, _, ours := after.since(before)
	cost := percent(cpuOf(pids)-own, after.at.Sub(before.at))
	t.Note("While cAdvisor ran, the engine's processes used %.3g %% of a core, which is not counted as its own.", engine)
	least(t, "cheaper than cAdvisor, tuned, both with their page read every 10 s", cost/ours, 15, "×", "cAdvisor %.3g %% of a core, usage %.3g %%", cost, ours)
	return nil
}

// measureMemory reads what berth needs after all of that.
func (w *world) measureMemory(t *rig.Table) error {
	anon, err := w.on.Anonymous()
	if err != nil {
		return err
	}
	without, err := w.off.Anonymous()
	if err != nil {
		return err
	}
	t.Most("anonymous memory of berth with 100 containers", float64(anon)/1e6, 30, "MB", "%.3g MB without usage", float64(without)/1e6)
	return nil
}
