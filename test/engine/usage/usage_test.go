// Package usage tests what berth says of real containers' use: by the figures of
// applications that measure themselves, and by those that the engine set.
//
// The collector runs in the test's own process, but where system calls are to be
// missing. Nothing decides by time: every figure is awaited, and what is compared
// is CPU time, not speed.
package usage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/admin"
	"github.com/berthd/berth/agent/config"
	"github.com/berthd/berth/agent/docker"
	"github.com/berthd/berth/collectors/usage"
	"github.com/berthd/berth/test/engine/enginetest"
)

// limit bounds every wait. It is for a broken test, never a measure.
const limit = 2 * time.Minute

// denyVariable makes this program another one that has no right to some system
// calls: "38:berth run …" refuses them with error 38.
const denyVariable = "BERTH_TEST_DENY"

func TestMain(m *testing.M) {
	if line := os.Getenv(denyVariable); line != "" {
		fmt.Fprintln(os.Stderr, denyAndRun(line))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// measured is a running collector.
type measured struct {
	*usage.Usage
	health *agent.Health
}

// measure starts a collector with an agent of its own.
func measure(t *testing.T, e *enginetest.Engine) *measured {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	env := agent.Env{Log: log, Health: agent.NewHealth(log), StateDir: t.TempDir()}
	cfg := docker.DefaultConfig()
	cfg.Host = e.Host
	engine, err := docker.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	a := agent.New(engine, nil, agent.DefaultLoopConfig(), env)
	settings := usage.DefaultConfig()
	settings.Interval = config.Duration(time.Second)
	u, err := usage.New(settings, env)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = a.Run(ctx) })
	running.Go(func() {
		feed := a.Store().Subscribe()
		defer feed.Close()
		if err := u.Run(ctx, feed); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	enginetest.Await(t, limit, "the agent knows all containers", func(context.Context) error {
		if !a.Store().Snapshot().Complete {
			return errors.New("it does not")
		}
		return nil
	})
	return &measured{u, env.Health}
}

// figures returns what is shown of a container that runs, without the prefix of
// the names; nil before it is measured.
func (m *measured) figures(id string) map[string]float64 {
	var out map[string]float64
	for s := range m.Metrics {
		for _, l := range s.Labels {
			if l.Name == "container_id" && l.Value == agent.ShortID(id) {
				if out == nil {
					out = make(map[string]float64)
				}
				out[strings.TrimPrefix(s.Name, "berth_container_")] = s.Value
			}
		}
	}
	return out
}

// await waits until a container's figures are as they should be.
func (m *measured) await(t *testing.T, c *enginetest.Container, what string, ok func(f map[string]float64) bool) map[string]float64 {
	t.Helper()
	var f map[string]float64
	enginetest.Await(t, limit, what, func(context.Context) error {
		if f = m.figures(c.ID); f == nil || !ok(f) {
			return fmt.Errorf("%v", f)
		}
		return nil
	})
	return f
}

// awaitEnd waits until the nth run of a container has ended.
func (m *measured) awaitEnd(t *testing.T, c *enginetest.Container, nth int) (run usage.EndedRun) {
	t.Helper()
	enginetest.Await(t, limit, "the end of "+c.Name, func(context.Context) error {
		n := 0
		for _, e := range m.Ended() {
			if e.ID == c.ID {
				if n++; n == nth {
					run = e
					return nil
				}
			}
		}
		return fmt.Errorf("%d runs have ended", n)
	})
	return run
}

// said returns what a burner says that it has used, at last.
func said(t *testing.T, c *enginetest.Container) (used time.Duration) {
	t.Helper()
	for l := range strings.Lines(c.Logs(t)) {
		var cpu, life int64
		if n, _ := fmt.Sscanf(l, "used %d %d", &cpu, &life); n == 2 {
			used = time.Duration(cpu)
		}
	}
	if used == 0 {
		t.Fatalf("%s says nothing of what it used: %q", c.Name, c.Logs(t))
	}
	return used
}

func TestCPUSecondsOfShortLives(t *testing.T) {
	e := enginetest.Outer(t)
	m := measure(t, e)
	for _, tc := range []struct {
		args []string
		most float64 // error, as a share; of short ones, what the runtime uses to start them counts
		more time.Duration
	}{
		{[]string{"-cpu", "3s"}, 0.02, 0},
		{[]string{"-cpu", "300ms"}, 0.02, 60 * time.Millisecond},
		{[]string{"-cpu", "10ms"}, 0.02, 60 * time.Millisecond},
		{[]string{"-cores", "0.25", "-for", "4s"}, 0.02, 60 * time.Millisecond},
	} {
		c := e.StartContainer(t, enginetest.Spec{Name: "burner", Args: append([]string{"burner"}, tc.args...), Hurry: true})
		run := m.awaitEnd(t, c, 1)
		want := said(t, c)
		if excess := run.CPUSeconds - want.Seconds(); !run.Measured || excess < -tc.most*want.Seconds() || excess > tc.most*want.Seconds()+tc.more.Seconds() {
			t.Errorf("%v: got %+v, want %v of CPU time", tc.args, run, want)
		}
	}
}

func TestShortContainersAreMeasured(t *testing.T) {
	e := enginetest.Outer(t)
	m := measure(t, e)
	// One that stays, so that it is known where cgroups are made.
	stays := e.StartContainer(t, enginetest.Spec{Name: "stays"})
	m.await(t, stays, "a first measurement", func(map[string]float64) bool { return true })
	const n = 10
	lost := 0
	for range n {
		c := e.StartContainer(t, enginetest.Spec{Name: "short", Args: []string{"sleeper", "-exit-after", "0s"}, Hurry: true})
		if run := m.awaitEnd(t, c, 1); !run.Measured || run.CPUSeconds <= 0 {
			lost++
			t.Logf("not measured: %+v", run)
		}
	}
	// On a machine that is busy with other things one may slip through.
	if lost > 1 {
		t.Errorf("%d of %d containers that did nothing were not measured at their exit", lost, n)
	}
}

func TestPitfall_usage05_ThrottlingBehindAComfortableAverage(t *testing.T) {
	e := enginetest.Outer(t)
	m := measure(t, e)
	// It wants 0.25 cores in stretches and may have 0.1.
	c := e.StartContainer(t, enginetest.Spec{
		Name: "throttled", Args: []string{"burner", "-cores", "0.25"},
		Adjust: func(_ *container.Config, h *container.HostConfig) { h.NanoCPUs = 1e8 },
	})
	f := m.await(t, c, "it is throttled", func(f map[string]float64) bool { return f["cpu_throttled_ratio"] > 0.3 })
	if f["cpu_limit_cores"] != 0.1 || f["cpu_reserved_cores"] != 0.1 {
		t.Errorf("got %v, want 0.1 cores reserved and the limit", f)
	}
}

func TestMemoryAndOOM(t *testing.T) {
	e := enginetest.Outer(t)
	m := measure(t, e)
	limited := func(mib int64) func(*container.Config, *container.HostConfig) {
		return func(_ *container.Config, h *container.HostConfig) {
			h.Memory, h.MemorySwap = mib<<20, mib<<20
		}
	}
	c := e.StartContainer(t, enginetest.Spec{Name: "memory", Args: []string{"burner", "-memory", "48"}, Adjust: limited(128)})
	f := m.await(t, c, "its memory is measured", func(f map[string]float64) bool { return f["memory_working_set_bytes"] > 48<<20 })
	if f["memory_working_set_bytes"] > 64<<20 || f["memory_limit_bytes"] != 128<<20 || f["memory_reserved_bytes"] != 128<<20 || f["memory_oom_kills_total"] != 0 {
		t.Errorf("got %v, want 48 MiB and little more, of 128", f)
	}
	killed := e.StartContainer(t, enginetest.Spec{Name: "oom", Args: []string{"burner", "-memory", "64"}, Adjust: limited(24), Hurry: true})
	run := m.awaitEnd(t, killed, 1)
	if !run.OOMKilled || run.OOMKills == 0 || run.ExitCode != 137 {
		t.Errorf("got %+v, want it killed for its memory", run)
	}
}

func TestRestartAndUpdate(t *testing.T) {
	e := enginetest.Outer(t)
	m := measure(t, e)
	c := e.StartContainer(t, enginetest.Spec{
		Name: "again", Args: []string{"burner", "-cpu", "500ms"},
		Labels: map[string]string{"berth.cpu": "lots"},
		Adjust: func(_ *container.Config, h *container.HostConfig) { h.CPUShares = 512 },
	})
	first := m.awaitEnd(t, c, 1)
	c.Start(t)
	second := m.awaitEnd(t, c, 2)
	for _, run := range []usage.EndedRun{first, second} {
		if !run.Measured || run.CPUSeconds < 0.5 || run.CPUSeconds > 0.7 || run.ReservedCores != 0.5 {
			t.Errorf("got %+v, want half a second in each run, and half a core", run)
		}
	}
	if first.StartedAt.Equal(second.StartedAt) {
		t.Error("both runs have one start")
	}
	refused := false
	for _, r := range m.Explain(c.ID) {
		refused = refused || r.Verdict == usage.Refused && r.Subject == "label berth.cpu" && strings.Contains(r.Rule, "lots")
	}
	if !refused {
		t.Errorf("got %+v, want the label refused", m.Explain(c.ID))
	}

	u := e.StartContainer(t, enginetest.Spec{Name: "updated", Adjust: func(_ *container.Config, h *container.HostConfig) { h.CPUShares = 512 }})
	m.await(t, u, "its first reservation", func(f map[string]float64) bool { return f["cpu_reserved_cores"] == 0.5 })
	if _, err := e.Client.ContainerUpdate(t.Context(), u.ID, container.UpdateConfig{Resources: container.Resources{CPUShares: 2048}}); err != nil {
		t.Fatal(err)
	}
	f := m.await(t, u, "its new reservation", func(f map[string]float64) bool { return f["cpu_reserved_cores"] == 2 })
	if math.Abs(f["cpu_lying_factor_cores"]-2) > 0.1 {
		t.Errorf("got a lying factor of %v cores, want 2", f["cpu_lying_factor_cores"])
	}
}

func TestNetworks(t *testing.T) {
	e := enginetest.Outer(t)
	m := measure(t, e)
	for network, want := range map[string]bool{"": true, "host": false, "none": false} {
		c := e.StartContainer(t, enginetest.Spec{Name: "net" + network, Network: network})
		f := m.await(t, c, "a first measurement", func(map[string]float64) bool { return true })
		if _, got := f["network_receive_bytes_total"]; got != want {
			t.Errorf("network %q: got network figures: %v, want %v", network, got, want)
		}
	}
}

func TestCustomParent(t *testing.T) {
	e := enginetest.Outer(t)
	m := measure(t, e)
	for _, id := range []string{"t1", "t2"} {
		c := e.StartContainer(t, enginetest.Spec{
			Name: "task" + id, Args: []string{"burner", "-cpu", "200ms"}, Hurry: true,
			Adjust: func(_ *container.Config, h *container.HostConfig) { h.CgroupParent = "/berth-test-ecs/" + id },
		})
		if run := m.awaitEnd(t, c, 1); !run.Measured || run.CPUSeconds < 0.2 {
			t.Errorf("got %+v, want 200ms", run)
		}
	}
	removeCgroups(t)
}

// removeCgroups removes the parents that runc has made, and leaves.
func removeCgroups(t *testing.T) {
	dirs, err := filepath.Glob("/sys/fs/cgroup/*/berth-test-ecs/*")
	if err != nil {
		t.Fatal(err)
	}
	parents, _ := filepath.Glob("/sys/fs/cgroup/*/berth-test-ecs")
	for _, dir := range append(dirs, parents...) {
		enginetest.Await(t, limit, "removal of "+dir, func(context.Context) error {
			// rmdir is how a cgroup is removed; its files are the kernel's.
			if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) {
				return err
			}
			return nil
		})
	}
}

// denied are the system calls that may be missing.
var denied = []uint32{unix.SYS_PIDFD_OPEN, unix.SYS_INOTIFY_INIT1, unix.SYS_INOTIFY_ADD_WATCH}

// denyAndRun replaces this process by the program of the line, whose system calls
// are filtered.
func denyAndRun(line string) error {
	var errno uint32
	number, rest, _ := strings.Cut(line, ":")
	if _, err := fmt.Sscan(number, &errno); err != nil {
		return err
	}
	runtime.LockOSThread()
	// struct seccomp_data begins with the number of the system call.
	prog := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}}
	for _, nr := range denied {
		prog = append(prog,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: nr, Jf: 1},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | errno})
	}
	prog = append(prog, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	if err := setFilter(prog); err != nil {
		return err
	}
	args := strings.Fields(rest)
	os.Unsetenv(denyVariable)
	return fmt.Errorf("exec %s: %w", args[0], unix.Exec(args[0], args, os.Environ()))
}

func TestWithoutSystemCalls(t *testing.T) {
	e := enginetest.Outer(t)
	dir, err := os.MkdirTemp("", "berth-usage-") // short, for the socket's sake
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	program := filepath.Join(dir, "berth")
	if out, err := exec.Command("go", "build", "-o", program, "github.com/berthd/berth/cmd/berth").CombinedOutput(); err != nil {
		t.Fatalf("build berth: %v\n%s", err, out)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "berth.yaml"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, errno := range []unix.Errno{unix.ENOSYS, unix.EPERM} {
		t.Run(errno.Error(), func(t *testing.T) {
			socket := filepath.Join(dir, fmt.Sprint("s", int(errno)))
			cmd := exec.Command(self)
			cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d:%s run --config %s/berth.yaml --set state_dir=%s/state%d --set admin.socket=%s --set engine.host=%s --set usage.interval=1s --set dns.enabled=false --set openmetrics.enabled=false --set statsd.enabled=false --set node.ec2=off",
				denyVariable, errno, program, dir, dir, errno, socket, e.Host))
			cmd.Stderr = t.Output()
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				_ = cmd.Process.Signal(unix.SIGTERM)
				_ = cmd.Wait()
			}()
			client := admin.NewClient(socket)
			c := e.StartContainer(t, enginetest.Spec{Name: "burner", Args: []string{"burner", "-cores", "0.2"}})
			enginetest.Await(t, limit, "status tells of both", func(ctx context.Context) error {
				var st admin.Status
				if err := client.Get(ctx, "/v1/status", nil, &st); err != nil {
					return err
				}
				found := map[string]string{}
				for _, cond := range st.Conditions {
					if cond.Component == usage.Name {
						found[cond.Name] = cond.Why
					}
				}
				if found["exits"] == "" || found["births"] == "" {
					return fmt.Errorf("%v", found)
				}
				return nil
			})
			// It measures nevertheless, until the last full interval.
			said := func() float64 {
				var list []usage.EndedRun
				if err := client.Get(t.Context(), "/v1/usage/ended", nil, &list); err != nil {
					t.Fatal(err)
				}
				for _, run := range list {
					if run.ID == c.ID {
						return run.CPUSeconds
					}
				}
				return -1
			}
			enginetest.Await(t, limit, "it has burned for a while", func(context.Context) error {
				if n := strings.Count(c.Logs(t), "used"); n < 4 {
					return fmt.Errorf("%d seconds", n)
				}
				return nil
			})
			c.Kill(t, "KILL")
			enginetest.Await(t, limit, "it knows the end, and what was used before", func(context.Context) error {
				if cpu := said(); cpu < 0.2 {
					return fmt.Errorf("%v s", cpu)
				}
				return nil
			})
		})
	}
}
