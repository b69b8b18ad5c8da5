package usage

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berthd/berth/agent"
)

func both(t *testing.T, test func(t *testing.T, w *world)) {
	for _, v2 := range []bool{false, true} {
		t.Run(map[bool]string{false: "v1", true: "v2"}[v2], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, newWorld(t, v2)) })
		})
	}
}

func TestSamplerFollowsARun(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		w.start()
		time.Sleep(time.Second)
		c := w.run(1, 100)
		c.Resources.NanoCPUs = 5e8
		w.net(100, 1000)
		w.publish()
		id := c.ID

		time.Sleep(3 * time.Second)
		w.s.sweep()
		if n := len(w.book.all); n != 0 {
			t.Fatalf("got %d measurements of 3 s of 10, want none before half an interval", n)
		}
		time.Sleep(7 * time.Second)
		w.set(id, use{cpu: 2 * time.Second, periods: 100, throttled: 20, memory: 5000, cache: 2000, kills: 1, read: 4096})
		w.net(100, 1500)
		w.s.sweep()
		m := w.book.of(id)
		if len(m) != 1 {
			t.Fatalf("got %d measurements, want 1", len(m))
		}
		want := Counters{CPU: 2 * time.Second, Periods: 100, Throttled: 20, ThrottledTime: 20 * time.Millisecond, OOMKills: 1, NetRx: 1500, NetTx: 7, IORead: 4096}
		if w.v2 {
			want.Stalled = 200 * time.Millisecond
		}
		got := m[0]
		if got.Used != want || !got.First || got.Final || got.Gap || got.Memory != 3000 || got.Window != 10*time.Second || math.Abs(got.Cores()-0.2) > 1e-9 {
			t.Errorf("got %+v, want %+v used in the first 10s, and 3000 B", got, want)
		}
		if w.book.reserved[0].Cores != 0.5 || w.book.subjects[0] != (Subject{id, "c1", "calc", "prod", "", false}) {
			t.Errorf("got %+v of %+v", w.book.reserved[0], w.book.subjects[0])
		}

		// The next windows hold what was used in them.
		for i := range 6 {
			time.Sleep(10 * time.Second)
			w.set(id, use{cpu: time.Duration(2*i+4) * time.Second, periods: 100, throttled: 20, memory: 5000, cache: 2000, kills: 1, read: 4096})
			w.s.sweep()
		}
		m = w.book.of(id)
		if len(m) != 7 {
			t.Fatalf("got %d measurements, want 7", len(m))
		}
		slow := 0
		for _, m := range m[1:] {
			if m.First || m.Used.CPU != 2*time.Second || m.Window != 10*time.Second || m.Used.Periods != 0 || m.Used.NetRx != 0 || m.Used.OOMKills != 0 || m.Used.IORead != 0 {
				t.Errorf("got %+v, want 2s of CPU time and nothing else", m)
			}
			if m.Parts.Has(HasOOM | HasIO) {
				slow++
			}
		}
		if slow != 1 {
			t.Errorf("got kills and I/O in %d of 6 measurements, want one", slow)
		}

		// The exit: the last 3 s, and a kill with it.
		time.Sleep(3 * time.Second)
		w.set(id, use{cpu: 17 * time.Second, periods: 130, throttled: 50, memory: 0, kills: 2, read: 8192})
		w.exit(100)
		w.removeCgroup(id)
		m = w.book.of(id)
		last := m[len(m)-1]
		if !last.Final || last.Used.CPU != 3*time.Second || last.Window != 3*time.Second || last.Used.OOMKills != 1 || last.Used.Throttled != 30 || last.Used.IORead != 4096 || last.Parts.Has(HasMemory) {
			t.Errorf("got %+v at the exit", last)
		}
		if w.s.read.opened > 2 || len(w.s.byPidfd) != 0 {
			t.Errorf("%d files and %d pidfds are held after the exit, want none but the parent's", w.s.read.opened, len(w.s.byPidfd))
		}
		w.bury(c)
		w.publish()
		w.publish()
		if len(w.book.ended) != 1 || w.book.ended[0].Run != c.Run() {
			t.Errorf("got the ends %+v, want one of %v", w.book.ended, c.Run())
		}
		time.Sleep(2 * time.Minute)
		w.s.sweep()
		if len(w.s.cells) != 0 || len(w.s.spent) != 0 {
			t.Errorf("got %d cells and %d spent ones long after, want none", len(w.s.cells), len(w.s.spent))
		}
	})
}

// TestRefusedSettings: a setting that nobody understands is a condition, as long
// as there is a container that has it.
func TestRefusedSettings(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		w.start()
		w.run(1, 100)
		c := w.run(2, 101)
		c.Labels = map[string]string{labelCPU: "lots"}
		c.Resources.NanoCPUs = 5e8
		w.publish()
		for _, want := range []string{"1 containers", "c2", "label " + labelCPU, "lots"} {
			if got := w.conditions["settings"]; !strings.Contains(got, want) {
				t.Errorf("got the condition %q, want %q in it", got, want)
			}
		}
		if cl := w.s.bound(c.Run()); cl == nil || cl.reservation.Cores != 0.5 || w.s.stats.refused != 1 {
			t.Errorf("got %+v, %d refused; want what --cpus says, and one", cl, w.s.stats.refused)
		}
		w.snap.Containers = w.snap.Containers[:1]
		w.publish()
		if got := w.conditions["settings"]; got != "" {
			t.Errorf("got the condition %q of a container that is gone", got)
		}
	})
}

// TestHandlersOfRuns: what the admin socket says of runs that have ended, and of
// containers that run.
func TestHandlersOfRuns(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		w.start()
		u := &Usage{sampler: w.s}
		get := func(target string, code int, into any) {
			t.Helper()
			r := httptest.NewRecorder()
			u.ServeHTTP(r, httptest.NewRequest("GET", target, nil))
			if r.Code != code {
				t.Fatalf("%s: got %d %s, want %d", target, r.Code, r.Body, code)
			}
			if err := json.Unmarshal(r.Body.Bytes(), into); err != nil {
				t.Fatalf("%s: %v", target, err)
			}
		}
		var none []EndedRun
		if get("/v1/usage/ended", 200, &none); none == nil || len(none) != 0 {
			t.Errorf("got %v before any run has ended, want an empty list", none)
		}
		c := w.run(1, 100)
		c.Labels = map[string]string{labelCPU: "0.25", labelMemory: "lots"}
		w.publish()
		time.Sleep(10 * time.Second)
		w.set(c.ID, use{cpu: 2 * time.Second, memory: 3 << 20})
		w.s.sweep()

		var reasons []agent.Reason
		get("/v1/usage/explain?container="+c.Name, 200, &reasons)
		var said strings.Builder
		for _, r := range reasons {
			fmt.Fprintf(&said, "%s %s %s\n", r.Subject, r.Verdict, r.Rule)
		}
		for _, want := range []string{"cpu " + Measured + " it reserves 0.25 cores (source berth); it used 0.2 in the last 10 s", "its working set is 3.0 MiB", "label " + labelMemory + " " + Refused} {
			if !strings.Contains(said.String(), want) {
				t.Errorf("got the reasons\n%swant %q in them", &said, want)
			}
		}
		var failed apiError
		if get("/v1/usage/explain?container=other", 404, &failed); failed.Error == "" {
			t.Error("an unknown container has no error")
		}

		time.Sleep(3 * time.Second)
		w.set(c.ID, use{cpu: 3 * time.Second, read: 4096})
		w.exit(100)
		w.bury(c)
		w.publish()
		var ended []EndedRun
		get("/v1/usage/ended", 200, &ended)
		if len(ended) != 1 || ended[0].ID != c.ID || ended[0].Name != "c1" || !ended[0].Measured || ended[0].CPUSeconds != 3 || ended[0].IORead != 4096 || ended[0].ReservedCores != 0.25 {
			t.Errorf("got the ended runs %+v, want one of 3 s", ended)
		}
		get("/v1/usage/explain?container="+c.Name, 200, &reasons)
		if len(reasons) == 0 || reasons[0].Verdict != Unknown || !strings.Contains(reasons[0].Rule, "does not run") {
			t.Errorf("got %+v of a container that has ended", reasons)
		}
	})
}

// TestSamplerReadsLittle: of a container that has not run, its CPU time alone is
// read, until its slow files are; and the pressure is of the time since the last one.
func TestSamplerReadsLittle(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		w.start()
		c := w.run(1, 100)
		c.Resources.NanoCPUs = 5e8
		unlimited := w.run(2, 101)
		w.publish()
		sweep := func(u use) Measurement {
			t.Helper()
			time.Sleep(10 * time.Second)
			w.set(c.ID, u)
			w.set(unlimited.ID, u)
			w.s.sweep()
			m := w.book.of(c.ID)
			return m[len(m)-1]
		}
		u := use{cpu: time.Second, periods: 10, throttled: 2, memory: 5000}
		if m := sweep(u); m.Memory != 5000 || m.Used.Throttled != 2 {
			t.Fatalf("got %+v of the first window", m)
		}
		// No kernel says so of a container that has not run: it shows what is read.
		u.memory, u.periods, u.throttled = 7000, 20, 4
		slow := 0
		for range slowEvery {
			m := sweep(u)
			switch {
			case !m.Parts.Has(HasMemory | HasThrottling):
				t.Errorf("%+v lacks what is known", m)
			case m.Parts.Has(HasOOM):
				slow++
				if m.Memory != 7000 {
					t.Errorf("got %d B when all was read, want 7000", m.Memory)
				}
			case slow == 0 && m.Memory != 5000, !w.v2 && slow == 0 && m.Used.Periods != 0:
				t.Errorf("got %+v of a container that has not run, want no more than its CPU time", m)
			}
		}
		if slow != 1 {
			t.Errorf("all was read in %d of six windows, want one", slow)
		}
		pressed := 0
		for range slowEvery {
			u.cpu += time.Second // and a tenth of that in waiting
			u.memory++
			m := sweep(u)
			if m.Memory != uint64(u.memory) {
				t.Errorf("got %d B, want %d", m.Memory, u.memory)
			}
			if m.Parts.Has(HasPressure) {
				pressed++
				if m.StalledIn != slowEvery*10*time.Second || math.Abs(m.Pressure()*m.StalledIn.Seconds()-m.Used.Stalled.Seconds()) > 1e-9 || m.Used.Stalled == 0 {
					t.Errorf("got a pressure of %v: %v in %v, want that of a minute", m.Pressure(), m.Used.Stalled, m.StalledIn)
				}
			}
		}
		if (pressed == 1) != w.v2 {
			t.Errorf("the pressure was told in %d of six windows", pressed)
		}
		if !w.v2 && w.s.cells[unlimited.ID][0].files.fds[fileThrottle] >= 0 {
			t.Error("the throttling of a container without a limit is read")
		}
	})
}

func TestPitfall_usage03_MeasuredBeforeTheEngineTells(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		w.start()
		// A first container teaches where containers' cgroups are.
		w.run(1, 100)
		w.publish()

		// The next one is born, lives and dies before the engine says a word of it.
		id := testID(2)
		time.Sleep(time.Second)
		born := time.Now()
		w.mkdir(id)
		w.s.watch.events(w.s) // the runtime has put no process there yet
		w.process(200, id)
		w.set(id, use{})
		time.Sleep(nurseOften)
		w.s.nurseAll(time.Now())
		time.Sleep(settle)
		w.s.nurseAll(time.Now())
		started := time.Now()
		time.Sleep(30 * time.Millisecond)
		w.set(id, use{cpu: 25 * time.Millisecond, periods: 1, throttled: 1, kills: 1})
		w.exit(200)
		lived := time.Since(born)
		w.removeCgroup(id)
		if len(w.book.all) != 0 {
			t.Fatalf("got %+v before the engine said which run it is", w.book.all)
		}
		c := &agent.Container{ID: id, Name: "short", Image: "job", State: agent.StateExited, StartedAt: started, FinishedAt: time.Now()}
		w.snap.Containers = append(w.snap.Containers, c)
		w.snap.Dead = append(w.snap.Dead, agent.DeadRun{Container: c, FinishedAt: c.FinishedAt})
		w.publish()
		m := w.book.of(id)
		if len(m) != 1 || !m[0].First || !m[0].Final || m[0].Used.CPU != 25*time.Millisecond || m[0].Used.Throttled != 1 || m[0].Used.OOMKills != 1 || m[0].Run != c.Run() {
			t.Fatalf("got %+v, want all of one run", m)
		}
		if m[0].Window <= 0 || m[0].Window > lived {
			t.Errorf("got a window of %v, want at most %v", m[0].Window, lived)
		}
		if len(w.book.ended) != 1 {
			t.Errorf("got %d ends, want 1", len(w.book.ended))
		}
	})
}

// TestGoneBeforeItWasWhole: the runtime puts a process into one cgroup after the
// other, and it may be over before we look again.
func TestGoneBeforeItWasWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, false)
		w.start()
		w.run(1, 100)
		w.publish()
		id := testID(2)
		w.mkdir(id)
		w.process(200, id)
		w.set(id, use{})
		w.write("proc/200/cgroup", "2:cpuacct:/docker/"+id+"\n")
		w.s.watch.events(w.s)
		w.write("proc/200/cgroup", w.cgroupOf(id))
		w.set(id, use{cpu: time.Millisecond, periods: 3, throttled: 2, kills: 1, read: 512})
		started := time.Now()
		w.exit(200)
		w.removeCgroup(id)
		c := &agent.Container{ID: id, Name: "short", State: agent.StateExited, StartedAt: started, FinishedAt: time.Now()}
		w.snap.Containers = append(w.snap.Containers, c)
		w.snap.Dead = append(w.snap.Dead, agent.DeadRun{Container: c, FinishedAt: c.FinishedAt})
		w.publish()
		m := w.book.of(id)
		if len(m) != 1 || m[0].Used.OOMKills != 1 || m[0].Used.Throttled != 2 || m[0].Used.IORead != 512 || m[0].Used.CPU != time.Millisecond {
			t.Errorf("got %+v, want all of it", m)
		}
	})
}

func TestLostAtTheEnd(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		w.start()
		c := w.run(1, 100)
		w.publish()
		time.Sleep(10 * time.Second)
		w.set(c.ID, use{cpu: time.Second})
		w.s.sweep()
		time.Sleep(3 * time.Second)
		w.set(c.ID, use{cpu: 2 * time.Second})
		w.s.sweep() // too soon for a measurement
		cl := w.s.bound(c.Run())
		w.s.read.close(&cl.files) // as when the cgroup is gone: nothing can be read
		w.removeCgroup(c.ID)
		w.exit(100)
		m := w.book.of(c.ID)
		if len(m) != 2 || m[1].Used.CPU != time.Second || m[1].Final || w.s.stats.missedFinals != 1 {
			t.Errorf("got %+v and %d lost, want what was read before the end", m, w.s.stats.missedFinals)
		}
		w.bury(c)
		w.publish()
		if got := w.s.endings; len(got) != 1 || got[0].Measured || got[0].CPUSeconds != 2 {
			t.Errorf("got %+v, want 2 s, and that it is not all", got)
		}
	})
}

// mkdir makes a container's cgroups, as a runtime does: empty.
func (w *world) mkdir(id string) {
	for _, dir := range w.folders(id) {
		if err := os.MkdirAll(filepath.Join(w.dir, dir), 0o755); err != nil {
			w.t.Fatal(err)
		}
		w.write(dir+"/cgroup.procs", "")
	}
}

func TestRuntimeProcessesBeforeTheContainers(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		w.start()
		w.run(1, 100)
		w.publish()
		id := testID(2)
		w.mkdir(id)
		w.process(201, id)
		w.set(id, use{})
		w.s.watch.events(w.s)
		// The runtime's first process makes way for the one that will be the container.
		w.process(203, id)
		w.exit(201)
		if c := w.s.cells[id][0]; c.over || c.pid != 203 {
			t.Fatalf("got process %d, over: %v, want 203 and not over", c.pid, c.over)
		}
		w.set(id, use{cpu: 5 * time.Millisecond})
		for _, dir := range w.folders(id) {
			w.write(dir+"/cgroup.procs", "")
		}
		w.exit(203)
		if c := w.s.cells[id][0]; !c.over || c.last.total.CPU != 5*time.Millisecond {
			t.Errorf("got %+v, want its end and 5ms", c.last)
		}
		// Nobody ever claims it.
		time.Sleep(2 * forgetAfter)
		w.s.sweep()
		if w.s.stats.unclaimed != 1 || w.s.stats.unclaimedCPU != 5*time.Millisecond || len(w.s.cells[id]) != 0 {
			t.Errorf("got %d unclaimed with %v", w.s.stats.unclaimed, w.s.stats.unclaimedCPU)
		}
	})
}

func TestPitfall_usage09_RestartUnderTheSameID(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		w.start()
		c := w.run(1, 100)
		w.publish()
		time.Sleep(10 * time.Second)
		w.set(c.ID, use{cpu: 9 * time.Second, kills: 3})
		w.s.sweep()
		w.exit(100)
		w.removeCgroup(c.ID)

		time.Sleep(time.Second)
		w.mkdir(c.ID)
		w.set(c.ID, use{})
		w.process(101, c.ID)
		w.s.watch.events(w.s)
		time.Sleep(100 * time.Millisecond)
		w.bury(c)
		next := *c
		next.StartedAt, next.PID = time.Now(), 101
		w.snap.Containers = []*agent.Container{&next}
		w.publish()
		time.Sleep(10 * time.Second)
		w.set(c.ID, use{cpu: time.Second})
		w.s.sweep()
		m := w.book.of(c.ID)
		last := m[len(m)-1]
		if last.Run != next.Run() || last.Used.CPU != time.Second || last.Used.OOMKills != 0 || !last.First {
			t.Errorf("got %+v, want 1s of the second run, from its start", last)
		}
		if len(w.book.ended) != 1 || w.book.ended[0].Run != c.Run() {
			t.Errorf("got the ends %+v, want that of the first run", w.book.ended)
		}
	})
}

func TestCountersThatGoBackwards(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		w.start()
		c := w.run(1, 100)
		w.publish()
		for _, cpu := range []time.Duration{8, 3, 5} {
			time.Sleep(10 * time.Second)
			w.set(c.ID, use{cpu: cpu * time.Second})
			w.s.sweep()
		}
		m := w.book.of(c.ID)
		if len(m) != 2 || m[0].Used.CPU != 8*time.Second || m[1].Used.CPU != 2*time.Second || w.s.stats.backwards != 1 {
			t.Errorf("got %+v and %d resets, want 8s, a reset, and 2s", m, w.s.stats.backwards)
		}
	})
}

func TestPitfall_usage10_WindowsAreWhatTheyAre(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		w.start()
		c := w.run(1, 100)
		w.publish()
		var cpu time.Duration
		step := func(d time.Duration) {
			time.Sleep(d)
			cpu += d / 4
			w.set(c.ID, use{cpu: cpu})
			w.s.sweep()
		}
		step(10 * time.Second)
		step(4 * time.Second) // too soon: counted in the next one
		step(6 * time.Second)
		step(45 * time.Second) // a stall
		step(12 * time.Second)
		m := w.book.of(c.ID)
		if len(m) != 4 {
			t.Fatalf("got %d measurements, want 4: %+v", len(m), m)
		}
		for i, want := range []time.Duration{10, 10, 45, 12} {
			if m[i].Window != want*time.Second || math.Abs(m[i].Cores()-0.25) > 1e-9 || m[i].Gap != (want == 45) {
				t.Errorf("%d: got %v, %v cores, a gap: %v, want %v s of 0.25 cores", i, m[i].Window, m[i].Cores(), m[i].Gap, want)
			}
		}
	})
}

func TestPitfall_usage11_StartUpIsCounted(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		// It ran for 20 s, and worked in the first of them, before berth came.
		c := w.run(1, 100)
		w.set(c.ID, use{cpu: 4 * time.Second})
		time.Sleep(20 * time.Second)
		w.start()
		w.publish()
		w.s.sweep()
		m := w.book.of(c.ID)
		if len(m) != 1 || !m[0].First || m[0].Used.CPU != 4*time.Second || m[0].Window != 20*time.Second {
			t.Errorf("got %+v, want 4s in the first 20s", m)
		}
	})
}

func TestRestartOfBerth(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		c := w.run(1, 100)
		time.Sleep(time.Hour)
		w.book.base[c.Run()] = Baseline{At: time.Now(), Parts: HasOOM, Total: Counters{CPU: time.Minute, OOMKills: 2}}
		time.Sleep(40 * time.Second)
		w.set(c.ID, use{cpu: 64 * time.Second, kills: 3, read: 4096})
		w.start()
		w.publish()
		w.s.sweep()
		m := w.book.of(c.ID)
		if len(m) != 1 || m[0].First || !m[0].Gap || m[0].Used.CPU != 4*time.Second || m[0].Window != 40*time.Second {
			t.Fatalf("got %+v, want 4s in the 40s since the earlier berth", m)
		}
		if m[0].Total.Total.CPU != 64*time.Second {
			t.Errorf("got %+v, want the whole for the next one", m[0].Total)
		}
	})
}

func TestPitfall_usage15_NetworkOfTheHostIsNobodys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, false)
		w.start()
		for i, mode := range []string{"host", "container:" + testID(9), "none", "bridge", "shop_default"} {
			c := w.run(i+1, 100+i)
			c.NetworkMode = mode
			w.net(100+i, 1<<30)
		}
		w.publish()
		time.Sleep(10 * time.Second)
		w.s.sweep()
		for i, want := range []bool{false, false, false, true, true} {
			m := w.book.of(testID(i + 1))
			if len(m) != 1 || m[0].Parts.Has(HasNet) != want || (m[0].Used.NetRx > 0) != want {
				t.Errorf("%s: got %+v, want network figures: %v", w.snap.Containers[i].NetworkMode, m, want)
			}
		}
	})
}

func TestPitfall_usage04_NoNamespaceIsPinned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, false)
		w.start()
		c := w.run(1, 100)
		w.net(100, 5)
		w.publish()
		cl := w.s.bound(c.Run())
		w.s.sweep()
		if cl.files.fds[fileNet] < 0 {
			t.Fatal("the network file is not held while the container runs")
		}
		w.exit(100)
		for i, fd := range cl.files.fds {
			if fd >= 0 {
				t.Errorf("file %d is still held after the exit", i)
			}
		}
		if cl.pidfd >= 0 {
			t.Error("the pidfd is still held after the exit")
		}
	})
}

func TestProcessNumbersAreUsedAgain(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		w.start()
		// The engine's word is old: another container's process has the number.
		c := w.run(1, 100)
		w.write("proc/100/cgroup", w.cgroupOf(testID(2)))
		w.publish()
		if cl := w.s.bound(c.Run()); cl != nil {
			t.Errorf("%s is measured for %s", cl.main, c.ID)
		}
		if w.conditions["cgroups"] == "" {
			t.Error("got no condition of a container that cannot be measured")
		}
		// What is true by now is found at the next sweep.
		w.write("proc/100/cgroup", w.cgroupOf(c.ID))
		w.s.sweep()
		if w.s.bound(c.Run()) == nil || w.conditions["cgroups"] != "" {
			t.Errorf("got the conditions %v, want it measured", w.conditions)
		}
	})
}

func TestCgroupGoneBetweenOpenAndRead(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		w.start()
		c := w.run(1, 100)
		w.removeCgroup(c.ID)
		w.publish()
		cl := w.s.bound(c.Run())
		if cl == nil || !cl.over || w.s.stats.missedFinals != 1 {
			t.Errorf("got %+v, %d lost, want its end", cl, w.s.stats.missedFinals)
		}
		w.s.sweep()
		w.bury(c)
		w.publish()
		if len(w.book.ended) != 1 || len(w.book.all) != 0 || w.s.read.opened > 1 {
			t.Errorf("got %d ends, %d measurements, %d files held", len(w.book.ended), len(w.book.all), w.s.read.opened)
		}
	})
}

func TestWithoutSystemCalls(t *testing.T) {
	for _, errno := range []error{unix.ENOSYS, unix.EPERM} {
		t.Run(fmt.Sprint(errno), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, false)
				w.noPidfd, w.noBirths = errno, errno
				w.start()
				c := w.run(1, 100)
				w.net(100, 5)
				w.publish()
				if w.conditions["exits"] == "" || w.conditions["births"] == "" {
					t.Errorf("got the conditions %v, want exits and births", w.conditions)
				}
				time.Sleep(10 * time.Second)
				w.set(c.ID, use{cpu: 5 * time.Second})
				w.s.sweep()
				if m := w.book.of(c.ID); len(m) != 1 || m[0].Used.CPU != 5*time.Second {
					t.Fatalf("got %+v, want 5s", m)
				}
				// Its number goes to another process: what that uses is not c's.
				time.Sleep(10 * time.Second)
				w.process(100, testID(2))
				w.set(c.ID, use{cpu: 7 * time.Second})
				w.s.sweep()
				if cl := w.s.bound(c.Run()); !cl.over {
					t.Error("a container is measured whose process is another one")
				}
			})
		})
	}
}

func TestCloseToTheLimitOfDescriptors(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		w.limit = 64 * 5 / 4 * 2 // room for fdOthers and seven containers
		w.start()
		for i := range 20 {
			w.run(i+1, 100+i)
		}
		w.publish()
		time.Sleep(10 * time.Second)
		for i := range 20 {
			w.set(testID(i+1), use{cpu: time.Second})
		}
		w.s.sweep()
		if n := len(w.book.all); n != 20 {
			t.Errorf("got %d measurements, want those of all 20", n)
		}
		if w.conditions["descriptors"] == "" || w.s.stats.unheld == 0 || w.s.stats.unheld == 20 {
			t.Errorf("got the conditions %v, %d unheld, want some", w.conditions, w.s.stats.unheld)
		}
		if held := w.s.read.opened + w.s.stats.held; held > w.limit*fdShare/100 {
			t.Errorf("%d descriptors are held, want at most %d", held, w.limit*fdShare/100)
		}
	})
}

func TestPitfall_usage13_UpdatesAreFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, false)
		w.start()
		c := w.run(1, 100)
		c.Resources.NanoCPUs = 1e9
		w.publish()
		time.Sleep(10 * time.Second)
		w.s.sweep()
		updated := *c
		updated.Resources.NanoCPUs = 2e9
		updated.Name = "renamed"
		w.snap.Containers[0] = &updated
		w.publish()
		time.Sleep(10 * time.Second)
		w.s.sweep()
		if len(w.book.all) != 2 || w.book.reserved[0].Cores != 1 || w.book.reserved[1].Cores != 2 || w.book.subjects[1].Name != "renamed" || w.book.all[1].First {
			t.Errorf("got %+v of %+v", w.book.reserved, w.book.subjects)
		}
	})
}

func TestConservation(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		parent := "cg/cpuacct/docker/"
		if w.v2 {
			parent = "cg/docker/"
		}
		all := func(d time.Duration) {
			w.write(parent+"cpuacct.usage", fmt.Sprintln(d.Nanoseconds()))
			w.write(parent+"cpu.stat", fmt.Sprintf("usage_usec %d\n", d.Microseconds()))
		}
		w.write(parent+"cgroup.procs", "")
		all(100 * time.Second)
		w.start()
		a := w.run(1, 100)
		w.set(a.ID, use{cpu: 50 * time.Second})
		w.publish()
		w.s.sweep()
		// One lives on, one comes and goes, and 0.5 s were nobody's.
		b := w.run(2, 101)
		w.removeCgroup(b.ID)
		w.mkdir(b.ID)
		w.process(101, b.ID)
		w.set(b.ID, use{})
		w.s.watch.events(w.s)
		time.Sleep(10 * time.Second)
		w.set(a.ID, use{cpu: 53 * time.Second})
		w.set(b.ID, use{cpu: 2 * time.Second})
		for _, dir := range w.folders(b.ID) {
			w.write(dir+"/cgroup.procs", "")
		}
		w.exit(101)
		w.removeCgroup(b.ID)
		all(105*time.Second + 500*time.Millisecond)
		w.busy(8 * time.Second)
		w.s.sweep()
		got := w.book.totals[len(w.book.totals)-1]
		if !got.Valid || math.Abs(got.Used-0.5) > 1e-9 || math.Abs(got.Unattributed-0.05) > 1e-9 || math.Abs(got.Other-0.3) > 1e-9 || math.Abs(got.UsedCores-0.8) > 1e-9 {
			t.Errorf("got %+v, want 0.5 used by containers, 0.05 by nobody, 0.3 by others, of 0.8", got)
		}
		// Something else lives there: the difference says nothing.
		w.write(parent+"other.service/cgroup.procs", "1\n")
		for range slowEvery {
			time.Sleep(10 * time.Second)
			w.s.sweep()
		}
		if got := w.book.totals[len(w.book.totals)-1]; !math.IsNaN(got.Unattributed) {
			t.Errorf("got %v unattributed, want none", got.Unattributed)
		}
	})
}

func TestParentsOfTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, true)
		w.start()
		move := func(task string, pid int, id string) {
			w.write(fmt.Sprintf("proc/%d/cgroup", pid), "0::/ecs/"+task+"/"+id+"\n")
			w.write("cg/ecs/"+task+"/"+id+"/cpu.stat", "usage_usec 7000\n")
			w.write("cg/ecs/"+task+"/"+id+"/cgroup.procs", fmt.Sprintln(pid))
		}
		c := w.run(1, 100)
		move("t1", 100, c.ID)
		w.publish()
		// A task of which nobody has told yet has a parent of its own.
		w.process(200, testID(2))
		move("t2", 200, testID(2))
		w.s.watch.events(w.s)
		if cells := w.s.cells[testID(2)]; len(cells) != 1 || cells[0].pid != 200 || cells[0].last.total.CPU != 7*time.Millisecond {
			t.Errorf("got %+v, want the new task's container", cells)
		}
	})
}

func TestFiveThousandContainers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, true)
		w.start()
		const n = 5000
		for i := range n {
			id := testID(i + 1)
			w.write("cg/docker/"+id+"/cpu.stat", "usage_usec 1000000\n")
			pid := 1000 + i
			w.write(fmt.Sprintf("proc/%d/stat", pid), fmt.Sprintf("%d (app) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 %d 0\n", pid, time.Since(w.boot)/tick))
			w.write(fmt.Sprintf("proc/%d/cgroup", pid), "0::/docker/"+id+"\n")
			w.snap.Containers = append(w.snap.Containers, &agent.Container{ID: id, Name: id[:8], Image: "calc", State: agent.StateRunning, StartedAt: time.Now(), PID: pid, NetworkMode: "host"})
		}
		w.noPidfd = unix.ENOSYS
		w.publish()
		time.Sleep(10 * time.Second)
		w.s.sweep()
		if len(w.book.all) != n || w.s.totals.Containers != n {
			t.Errorf("got %d measurements of %d containers", len(w.book.all), w.s.totals.Containers)
		}
		if limit := w.limit * fdShare / 100; w.s.read.opened > limit {
			t.Errorf("%d files are held, want at most %d", w.s.read.opened, limit)
		}
	})
}

func TestSweepDoesNotAllocate(t *testing.T) {
	for _, v2 := range []bool{false, true} {
		w := newWorld(t, v2)
		w.start()
		w.s.book = forget{}
		w.s.interval = 0
		for i := range 50 {
			w.run(i+1, 100+i)
			w.net(100+i, 5)
		}
		w.publish()
		for range 2 * slowEvery {
			w.s.sweep()
		}
		before := w.s.stats.measurements
		allocs := testing.AllocsPerRun(60, func() {
			for _, list := range w.s.cells {
				for _, c := range list {
					w.s.sample(c)
				}
			}
		})
		if w.s.stats.measurements == before {
			t.Fatal("nothing was measured")
		}
		if allocs != 0 {
			t.Errorf("v2 %v: got %v allocations in sampling 50 containers, want none", v2, allocs)
		}
	}
}

func BenchmarkSample(b *testing.B) {
	w := newWorld(b, false)
	w.start()
	w.s.book = forget{}
	w.s.interval = 0
	w.run(1, 100)
	w.net(100, 5)
	w.publish()
	c := w.s.bound(w.snap.Containers[0].Run())
	b.ReportAllocs()
	for b.Loop() {
		w.s.sample(c)
	}
}
