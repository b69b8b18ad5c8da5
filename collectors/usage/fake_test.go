package usage

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berthd/berth/agent"
)

// world is a host of files: a procfs, cgroups, and processes that exit when the
// test says so. Its clock is that of the test's bubble.
type world struct {
	t    testing.TB
	dir  string
	boot time.Time
	v2   bool

	pidfds   map[int]int // a process's eventfd, which is readable when it has exited
	noPidfd  error
	noBirths error
	limit    int

	book       *ledger
	conditions map[string]string
	s          *sampler
	snap       agent.Snapshot
}

// ledger is a book that notes what it is told.
type ledger struct {
	base     map[agent.RunKey]Baseline
	all      []Measurement
	subjects []Subject
	reserved []Reservation
	ended    []Ending
	totals   []Totals
}

func (l *ledger) Baseline(run agent.RunKey) (Baseline, bool) {
	b, ok := l.base[run]
	return b, ok
}

func (l *ledger) Observe(s *Subject, r *Reservation, m *Measurement) {
	l.all, l.subjects, l.reserved = append(l.all, *m), append(l.subjects, *s), append(l.reserved, *r)
}
func (l *ledger) Ended(_ *Subject, _ *Reservation, e Ending) { l.ended = append(l.ended, e) }
func (l *ledger) Tick(t Totals)                              { l.totals = append(l.totals, t) }

// of returns the measurements of one container.
func (l *ledger) of(id string) (out []Measurement) {
	for _, m := range l.all {
		if m.Run.ID == id {
			out = append(out, m)
		}
	}
	return out
}

type noPoller struct{}

func (noPoller) add(int) error { return nil }
func (noPoller) remove(int)    {}

// newWorld returns a host without containers, whose cgroups are of version 1, or
// of version 2 alone. Nothing is sampled before start is called.
func newWorld(t testing.TB, v2 bool) *world {
	t.Helper()
	w := &world{
		t: t, dir: memoryDir(t), boot: time.Now().Add(-time.Hour), v2: v2, limit: 1 << 20,
		pidfds: make(map[int]int), book: &ledger{base: make(map[agent.RunKey]Baseline)}, conditions: make(map[string]string),
	}
	var mounts strings.Builder
	if v2 {
		fmt.Fprintf(&mounts, "41 31 0:38 / %s/cg rw - cgroup2 cgroup2 rw\n", w.dir)
	} else {
		for i, c := range []string{"cpu", "cpuacct", "memory", "blkio"} {
			fmt.Fprintf(&mounts, "%d 31 0:29 / %s/cg/%s rw - cgroup cgroup rw,%s\n", 32+i, w.dir, c, c)
		}
	}
	w.write("proc/self/mountinfo", mounts.String())
	w.write("proc/self/cgroup", "0::/berth.service\n2:cpuacct:/berth.service\n")
	w.write("proc/meminfo", "MemTotal: 1000000 kB\nMemAvailable: 400000 kB\n")
	w.busy(0)
	t.Cleanup(func() {
		if w.s != nil {
			w.s.close()
		}
		for _, fd := range w.pidfds {
			_ = unix.Close(fd)
		}
	})
	return w
}

// memoryDir returns a folder of the test's own, in memory where there is such a
// place: thousands of files take a disk seconds.
func memoryDir(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "berth-usage-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func (w *world) start() {
	w.t.Helper()
	h := host{
		proc: filepath.Join(w.dir, "proc"),
		pidfd: func(pid int) (int, error) {
			if w.noPidfd != nil {
				return -1, w.noPidfd
			}
			if fd, ok := w.pidfds[pid]; ok {
				return unix.Dup(fd)
			}
			return -1, unix.ESRCH
		},
		inotify: func() (int, error) {
			if w.noBirths != nil {
				return -1, w.noBirths
			}
			return unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		},
		uptime:  func() time.Duration { return time.Since(w.boot) },
		fdLimit: func() int { return w.limit },
	}
	var err error
	w.s, err = newSampler(settings{interval: 10 * time.Second, environment: "prod"}, h, w.book, noPoller{}, slog.New(slog.NewTextHandler(io.Discard, nil)),
		func(condition string, err error, _ string) {
			delete(w.conditions, condition)
			if err != nil {
				w.conditions[condition] = err.Error()
			}
		})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) write(name, content string) {
	w.t.Helper()
	file := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// busy sets the time that the host was not idle.
func (w *world) busy(d time.Duration) {
	w.write("proc/stat", fmt.Sprintf("cpu  %d 0 0 99 0 0 0 0 0 0\ncpu0 0\n", d/tick))
}

// use is what a container has used so far.
type use struct {
	cpu                time.Duration
	periods, throttled int
	memory, cache      int
	kills              int
	read               int
}

func testID(i int) string { return fmt.Sprintf("%064x", i) }

// set writes what the kernel says of a container. Files are written in place, as
// the kernel's are: a descriptor that is held sees it.
func (w *world) set(id string, u use) {
	w.t.Helper()
	if w.v2 {
		dir := "cg/docker/" + id + "/"
		w.write(dir+"cpu.stat", fmt.Sprintf("usage_usec %d\nnr_periods %d\nnr_throttled %d\nthrottled_usec %d\n", u.cpu.Microseconds(), u.periods, u.throttled, u.throttled*1000))
		w.write(dir+"cpu.pressure", fmt.Sprintf("some avg10=0.00 total=%d\n", u.cpu.Microseconds()/10))
		w.write(dir+"memory.current", fmt.Sprintln(u.memory))
		w.write(dir+"memory.stat", fmt.Sprintf("anon 5\ninactive_file %d\n", u.cache))
		w.write(dir+"memory.events", fmt.Sprintf("low 0\noom %d\noom_kill %d\n", u.kills, u.kills))
		w.write(dir+"io.stat", fmt.Sprintf("8:0 rbytes=%d wbytes=0\n", u.read))
		return
	}
	w.write("cg/cpuacct/docker/"+id+"/cpuacct.usage", fmt.Sprintln(u.cpu.Nanoseconds()))
	w.write("cg/cpu/docker/"+id+"/cpu.stat", fmt.Sprintf("nr_periods %d\nnr_throttled %d\nthrottled_time %d\n", u.periods, u.throttled, u.throttled*1000000))
	w.write("cg/memory/docker/"+id+"/memory.usage_in_bytes", fmt.Sprintln(u.memory))
	w.write("cg/memory/docker/"+id+"/memory.stat", fmt.Sprintf("cache 5\ninactive_file 1\ntotal_inactive_file %d\n", u.cache))
	w.write("cg/memory/docker/"+id+"/memory.oom_control", fmt.Sprintf("under_oom 0\noom_kill %d\n", u.kills))
	w.write("cg/blkio/docker/"+id+"/blkio.throttle.io_service_bytes", fmt.Sprintf("8:0 Read %d\n8:0 Write 0\nTotal %d\n", u.read, u.read))
}

// net writes the network counters of a process.
func (w *world) net(pid, rx int) {
	w.write(fmt.Sprintf("proc/%d/net/dev", pid), fmt.Sprintf("Inter-|\n face |bytes\n    lo: 9 9 0 0 0 0 0 0 9 9\n  eth0: %d 2 0 0 0 0 0 0 7 3\n", rx))
}

// process makes a process in a container's cgroup.
func (w *world) process(pid int, id string) {
	w.t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		w.t.Fatal(err)
	}
	w.pidfds[pid] = fd
	w.write(fmt.Sprintf("proc/%d/stat", pid), fmt.Sprintf("%d (app) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 %d 0\n", pid, time.Since(w.boot)/tick))
	w.write(fmt.Sprintf("proc/%d/cgroup", pid), w.cgroupOf(id))
	for _, dir := range w.folders(id) {
		w.write(dir+"/cgroup.procs", fmt.Sprintln(pid))
	}
}

func (w *world) cgroupOf(id string) string {
	if w.v2 {
		return "0::/docker/" + id + "\n"
	}
	var b strings.Builder
	for i, c := range []string{"cpu", "cpuacct", "memory", "blkio"} {
		fmt.Fprintf(&b, "%d:%s:/docker/%s\n", i+1, c, id)
	}
	return b.String()
}

func (w *world) folders(id string) []string {
	if w.v2 {
		return []string{"cg/docker/" + id}
	}
	return []string{"cg/cpuacct/docker/" + id, "cg/cpu/docker/" + id, "cg/memory/docker/" + id, "cg/blkio/docker/" + id}
}

// run starts a container, of which the engine says so in the next snapshot.
func (w *world) run(i, pid int) *agent.Container {
	w.t.Helper()
	id := testID(i)
	w.set(id, use{})
	w.process(pid, id)
	c := &agent.Container{ID: id, Name: fmt.Sprint("c", i), Image: "calc:1", State: agent.StateRunning, StartedAt: time.Now(), PID: pid, NetworkMode: "bridge"}
	w.snap.Containers = append(w.snap.Containers, c)
	return c
}

// publish gives the sampler a snapshot.
func (w *world) publish() {
	snap := &agent.Snapshot{Seq: w.snap.Seq + 1, Complete: true, Containers: append([]*agent.Container{}, w.snap.Containers...), Dead: append([]agent.DeadRun{}, w.snap.Dead...)}
	w.snap.Seq++
	w.s.apply(snap)
}

// exit ends a process: its pidfd is readable, and its cgroup still there.
func (w *world) exit(pid int) {
	w.t.Helper()
	if _, err := unix.Write(w.pidfds[pid], []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		w.t.Fatal(err)
	}
	for fd, c := range w.s.byPidfd {
		if c.pid == pid {
			w.s.exit(fd)
			return
		}
	}
}

// removeCgroup removes a container's cgroup.
func (w *world) removeCgroup(id string) {
	for _, dir := range w.folders(id) {
		if err := os.RemoveAll(filepath.Join(w.dir, dir)); err != nil {
			w.t.Fatal(err)
		}
	}
}

// bury makes the engine say that a container's run is over.
func (w *world) bury(c *agent.Container) {
	for i := range w.snap.Containers {
		if w.snap.Containers[i] == c {
			dead := *c
			dead.State, dead.PID, dead.FinishedAt = agent.StateExited, 0, time.Now()
			w.snap.Containers[i] = &dead
			w.snap.Dead = append(w.snap.Dead, agent.DeadRun{Container: &dead, FinishedAt: dead.FinishedAt})
			return
		}
	}
	w.t.Fatalf("no container %s", c.Name)
}
