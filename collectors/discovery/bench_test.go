package discovery

import (
	"fmt"
	"testing"

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
