package discovery

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/berthd/berth/agent"
)

// busyHost returns n containers with a published service each, ten of each
// name.
func busyHost(n int) *agent.Snapshot {
	var list []*agent.Container
	for i := range n {
		c := container("a", named(fmt.Sprintf("SERVICE_8080_NAME=service-%d", i/10), "SERVICE_8080_TAGS=blue"), both(fmt.Sprintf("8080/tcp=%d", 20000+i))...)
		c.ID, c.Name = fmt.Sprintf("%064x", i), fmt.Sprintf("c%d", i)
		list = append(list, c)
	}
	return snapshot(list...)
}

// BenchmarkEvaluate is one change on a busy host: one container is new to the
// memo, the others are known.
func BenchmarkEvaluate(b *testing.B) {
	for _, n := range []int{100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			snap, m, r := busyHost(n), new(memo), mustRules(b, nil)
			r.evaluate(snap, testNow, m)
			b.ReportAllocs()
			for b.Loop() {
				snap.Containers[0] = with(snap.Containers[0], func(*agent.Container) {})
				r.evaluate(snap, testNow, m)
			}
		})
	}
}

// BenchmarkFirst is the first look at a busy host.
func BenchmarkFirst(b *testing.B) {
	snap, r := busyHost(100), mustRules(b, nil)
	b.ReportAllocs()
	for b.Loop() {
		r.evaluate(snap, testNow, new(memo))
	}
}

// thousandChecks returns a scheduler with 1,000 checks that wait.
func thousandChecks() *scheduler {
	s := newScheduler(64, nil, func() {}, slog.New(slog.DiscardHandler))
	list := make([]*checked, 1000)
	for i := range list {
		list[i] = aCheck(i, CheckPassing)
	}
	s.want(list, true, time.Now())
	return s
}

// BenchmarkCheck is what one run of one of 1,000 checks costs without its probe.
// At an interval of 10 s that is 100 of them a second.
func BenchmarkCheck(b *testing.B) {
	s, now := thousandChecks(), time.Now().Add(time.Minute)
	b.ReportAllocs()
	for b.Loop() {
		job, _ := s.take(now)
		s.finish(outcome{task: job.task, target: job.target, finding: finding{at: now, took: time.Millisecond}})
		now = now.Add(10 * time.Millisecond)
	}
}

// BenchmarkWant is what 1,000 checks add to each evaluation.
func BenchmarkWant(b *testing.B) {
	s := thousandChecks()
	list := make([]*checked, 0, 1000)
	for _, t := range s.tasks {
		list = append(list, &t.checked)
	}
	b.ReportAllocs()
	for b.Loop() {
		s.want(list, true, time.Now())
	}
}

// BenchmarkProbe is one check over loopback, the server's part included.
func BenchmarkProbe(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	target, probe := netip.MustParseAddrPort(server.Listener.Addr().String()), netProber()
	for name, path := range map[string]string{"http": "/", "tcp": ""} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := probe(b.Context(), target, path); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
