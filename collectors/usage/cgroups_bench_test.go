package usage

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berthd/berth/agent"
)

// inKernel is how many cgroups BenchmarkCgroups measures.
const inKernel = 100

// kernelCgroups makes cgroups in each hierarchy of this host that is read, like
// those of as many containers: each has a process, with a network of its own.
func kernelCgroups(b *testing.B) (containers []*agent.Container) {
	b.Helper()
	if os.Geteuid() != 0 {
		b.Skip("only root may make cgroups")
	}
	mountinfo, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		b.Fatal(err)
	}
	var parents []string
	for _, h := range hierarchies(mountinfo) {
		read := h.v2 || slices.ContainsFunc(h.controllers, func(c string) bool { return new(dirs).of(c, false) != nil })
		parent := filepath.Join(h.point, fmt.Sprintf("berth-test-%d", os.Getpid()))
		if !read || slices.Contains(parents, parent) {
			continue
		}
		if err := os.Mkdir(parent, 0o755); err != nil {
			b.Skipf("cannot make cgroups here: %v", err)
		}
		parents = append(parents, parent)
		b.Cleanup(func() { removeCgroups(b, parent) })
		if h.v2 {
			// Where version 2 has the controllers. In a hybrid tree it has none.
			_ = os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte("+cpu +memory +io"), 0)
		}
	}
	for i := range inKernel {
		id := testID(i)
		cmd := exec.Command("sleep", "infinity")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
		for _, parent := range parents {
			if err := os.Mkdir(filepath.Join(parent, id), 0o755); err != nil {
				b.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(parent, id, "cgroup.procs"), fmt.Append(nil, cmd.Process.Pid), 0); err != nil {
				b.Fatal(err)
			}
		}
		containers = append(containers, &agent.Container{
			ID: id, Name: fmt.Sprint("c", i), Image: "calc:1", State: agent.StateRunning,
			StartedAt: time.Now(), PID: cmd.Process.Pid, NetworkMode: "bridge",
		})
	}
	return containers
}

// removeCgroups removes a cgroup and those in it. The kernel needs a moment after
// their last process.
func removeCgroups(b *testing.B, parent string) {
	children, err := os.ReadDir(parent)
	if err != nil {
		b.Error(err)
	}
	for _, c := range children {
		if c.IsDir() {
			removeCgroup(b, filepath.Join(parent, c.Name()))
		}
	}
	removeCgroup(b, parent)
}

func removeCgroup(b *testing.B, dir string) {
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		err := unix.Rmdir(dir)
		if err == nil {
			return
		}
		if err != unix.EBUSY || time.Now().After(end) {
			b.Errorf("remove %s: %v", dir, err)
			return
		}
	}
}

// threadCPU returns the CPU time of this thread.
func threadCPU() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts)
	return time.Duration(ts.Nano())
}

// BenchmarkCgroups is what the sampler costs for one container, by the kernel's
// own files: of a sweep of 100, and of each file alone; right after the one before
// (hot), and with nothing of it left in the CPU's caches (cold), as it is after
// ten seconds of other work. Only root may make the cgroups.
func BenchmarkCgroups(b *testing.B) {
	containers := kernelCgroups(b)
	h := thisHost()
	s, err := newSampler(settings{}, h, forget{}, noPoller{}, slog.New(slog.NewTextHandler(io.Discard, nil)), func(string, error, string) {})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(s.close)
	s.apply(&agent.Snapshot{Seq: 1, Complete: true, Containers: containers})
	for range 2 * slowEvery {
		s.sweep()
	}
	works := []struct {
		name string
		do   func()
	}{{"idle", s.sweep}, {"active", func() {
		for _, list := range s.cells {
			list[0].counted-- // as if it had run
		}
		s.sweep()
	}}}
	for which := range fileCount {
		f := &s.cells[testID(0)][0].files
		name := f.path(h.proc, which)
		if f.fds[which] == gone {
			continue
		}
		works = append(works, struct {
			name string
			do   func()
		}{strings.ReplaceAll(filepath.Base(name), ".", "_"), func() {
			for _, list := range s.cells {
				if _, err := s.read.read(&list[0].files, which); err != nil {
					b.Fatal(err)
				}
			}
		}})
	}
	other := make([]byte, 64<<20) // larger than the caches
	for _, work := range works {
		for _, how := range []string{"hot", "cold"} {
			b.Run(work.name+"/"+how, func(b *testing.B) {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				b.ReportAllocs()
				var used time.Duration
				n := 0
				for b.Loop() {
					if how == "cold" {
						b.StopTimer()
						for i := 0; i < len(other); i += 64 {
							other[i]++
						}
						b.StartTimer()
					}
					before := threadCPU()
					work.do()
					used += threadCPU() - before
					n++
				}
				b.ReportMetric(float64(used.Nanoseconds())/1e3/float64(n)/inKernel, "µs/container")
			})
		}
	}
}
