package discovery

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/berthd/berth/agent"
)

var seed = flag.Uint64("seed", 0, "seed of the random tests; 0 takes a new one")

// random returns a source whose seed is printed when the test fails.
func random(t *testing.T) *rand.Rand {
	n := *seed
	if n == 0 {
		n = uint64(time.Now().UnixNano())
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("replay with -seed=%d", n)
		}
	})
	return rand.New(rand.NewPCG(n, 0))
}

func pick[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

// randomSnapshot mixes everything that the rules tell apart.
func randomSnapshot(r *rand.Rand) *agent.Snapshot {
	var list []*agent.Container
	for i := range r.IntN(12) {
		c := container(fmt.Sprintf("%x", i), map[string]string{})
		for range r.IntN(4) {
			key := pick(r, "SERVICE_", "SERVICE_80_", "SERVICE_81_", "SERVICE_53_") +
				pick(r, "NAME", "NAME", "NAME", "NAME", "name", "TTL", "PRIORITY", "WEIGHT", "NETWORK", "IGNORE", "ZONE", "CHECK_TCP", "CHECK_HTTP", "CHECK_RISE", "")
			c.Labels[key] = pick(r, "calc", "_calc._tcp", "_calc._udp", "calc,api", "a..b", "*", "30", "7", "user", "inner", "n1", "/up", "")
		}
		c.Ports = nil
		for range r.IntN(5) {
			c.Ports = append(c.Ports, agent.Port{
				Container: pick[uint16](r, 80, 81, 53), Proto: pick(r, "tcp", "udp"),
				Host: netip.AddrPortFrom(netip.MustParseAddr(pick(r, "0.0.0.0", "::", "127.0.0.1", "10.0.0.5", "192.168.7.9", "fd00::9", "fe80::1")), uint16(r.IntN(4))),
			})
		}
		c.State = pick(r, agent.StateRunning, agent.StateRunning, agent.StateRunning, agent.StatePaused, agent.StateExited)
		c.Health = pick(r, agent.HealthNone, agent.HealthNone, agent.HealthHealthy, agent.HealthStarting, agent.HealthUnhealthy)
		c.NetworkMode = pick(r, "bridge", "bridge", "user", "inner", "host", "none", "lan", "container:c0", "container:c1", "container:gone")
		c.Endpoints = nil
		for _, n := range []string{"bridge", "inner", "lan", "mesh", "unknown", "user"} {
			if r.IntN(3) == 0 {
				c.Endpoints = append(c.Endpoints, agent.Endpoint{Network: n, NetworkID: "net-" + n, IPv4: netip.AddrFrom4([4]byte{172, 30, byte(i), byte(r.IntN(3))})})
			}
		}
		list = append(list, c)
	}
	snap := snapshot(list...)
	if r.IntN(4) == 0 {
		snap.Node.IPv6 = netip.Addr{}
	}
	if r.IntN(6) == 0 {
		snap.Node.IPv4 = netip.Addr{}
	}
	snap.Complete = r.IntN(3) > 0
	for _, c := range list {
		if r.IntN(4) == 0 {
			snap.Dead = append(snap.Dead, crashed(c, r.IntN(8), epoch.Add(50*time.Second))...)
			c.StartedAt = epoch.Add(55 * time.Second)
		}
	}
	return snap
}

// TestDiffTurnsOneSnapshotIntoTheNext checks that what sinks do leads to what
// discovery wants, and that every wanted set is well formed.
func TestDiffTurnsOneSnapshotIntoTheNext(t *testing.T) {
	rnd, rules, m := random(t), mustRules(t, nil), new(memo)
	var have []agent.Record
	registered := 0
	for i := range 3000 {
		snap := randomSnapshot(rnd)
		verdict := pick(rnd, CheckStarting, CheckFailing, CheckAssumed, CheckPassing, CheckPassing)
		rules.checks = func(key checkKey) (checkState, bool) {
			return checkState{word: verdict}, key.port != 81
		}
		v := rules.evaluate(snap, testNow, m)
		want := v.set.Records
		if got := agent.Apply(have, agent.Diff(have, want)); !slices.Equal(got, want) {
			t.Fatalf("step %d: applying the changes gives\n%v\nwant\n%v", i, got, want)
		}
		if fresh := rules.evaluate(snap, testNow, new(memo)).set; !fresh.Equal(v.set) {
			t.Fatalf("step %d: the memo changes the result:\n%v\nwant\n%v", i, v.set, fresh)
		}
		checkSet(t, v)
		checkStory(t, v)
		registered += len(linesOf(v.set))
		have = want
		if t.Failed() {
			t.Fatalf("step %d", i)
		}
	}
	if registered < 2000 {
		t.Errorf("only %d records in all: the snapshots are too dull to prove anything", registered)
	}
}

// checkSet asserts what must hold of every record set.
func checkSet(t *testing.T, v *view) {
	t.Helper()
	ttls := make(map[string]uint32)
	hosts := make(map[string]bool)
	for i, r := range v.set.Records {
		if i > 0 && v.set.Records[i-1].Compare(r) >= 0 {
			t.Errorf("not sorted, or repeated: %v", r)
		}
		rrset := r.Name + string(r.Type)
		if ttl, ok := ttls[rrset]; ok && ttl != r.TTL {
			t.Errorf("two TTLs in one RRset: %v", r)
		}
		ttls[rrset] = r.TTL
		if r.Type != agent.TypeSRV {
			hosts[r.Name] = true
			if r.Addr.Is4() != (r.Type == agent.TypeA) || r.Addr.IsLoopback() || r.Addr.IsUnspecified() {
				t.Errorf("bad address: %v", r)
			}
		}
	}
	for _, r := range v.set.Records {
		if r.Type == agent.TypeSRV && (!hosts[r.Target] || r.Port == 0) {
			t.Errorf("target without an address, or no port: %v", r)
		}
	}
}

// checkStory asserts that the table and the explanations agree with the records.
func checkStory(t *testing.T, v *view) {
	t.Helper()
	claims := make(map[string]int)
	for _, svc := range v.services() {
		for _, in := range svc.Instances {
			has := slices.ContainsFunc(v.set.Records, func(r agent.Record) bool {
				return r.Name == svc.SRV && r.Port == in.Port && r.Target == in.Target
			})
			if in.State == Registered && !has {
				t.Errorf("registered but not in DNS: %s %+v", svc.Name, in)
			}
			if in.State == Out && in.Reason == "" {
				t.Errorf("out without a reason: %s %+v", svc.Name, in)
			}
			if in.State == Registered {
				claims[in.ContainerID]++
			}
		}
	}
	for _, c := range v.snap.Containers {
		e := v.explain(c)
		if (e.Registered > 0) != (claims[c.ID] > 0) {
			t.Errorf("explanation of %s says %d registered, the table %d", c.Name, e.Registered, claims[c.ID])
		}
		if len(e.Reasons) == 0 {
			t.Errorf("no reason at all for %s", c.Name)
		}
	}
}
