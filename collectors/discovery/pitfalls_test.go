package discovery

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berthd/berth/agent"
)

const web = "SERVICE_80_NAME=_web._tcp"

func both(spec string) []agent.Port {
	number, host, _ := strings.Cut(spec, "=")
	return ports(number+"=0.0.0.0:"+host, number+"=[::]:"+host)
}

// whyOf returns the rule behind the first claim that is not registered.
func whyOf(t *testing.T, snap *agent.Snapshot) string {
	t.Helper()
	for _, svc := range mustRules(t, nil).evaluate(snap, testNow, new(memo)).services() {
		for _, in := range svc.Instances {
			if in.State == Out {
				return in.Reason
			}
		}
	}
	return ""
}

func TestPitfall_discovery08_CrashLoop(t *testing.T) {
	// Ten restarts a second for a minute: the records may change a few times
	// at the beginning, and then no more.
	r, m := mustRules(t, nil), new(memo)
	c := container("a", named(web), both("80/tcp=80")...)
	var dead []agent.DeadRun
	var records agent.Records
	for i := range 600 {
		start := testNow.Add(time.Duration(i) * 100 * time.Millisecond)
		end := start.Add(50 * time.Millisecond)
		run := with(c, func(c *agent.Container) { c.StartedAt = start })
		up := snapshot(run)
		up.Dead = slices.Clone(dead)
		records.Publish(r.evaluate(up, start.Add(time.Millisecond), m).set)
		dead = append(dead, agent.DeadRun{Container: run, FinishedAt: end})
		down := snapshot(with(run, func(c *agent.Container) { c.State = agent.StateRestarting; c.Ports = nil }))
		down.Dead = slices.Clone(dead)
		records.Publish(r.evaluate(down, end, m).set)
	}
	if _, seq := records.Load(); seq > 7 {
		t.Errorf("%d sets published in a minute of 600 crashes, want 7 at most", seq)
	}
}

func TestPitfall_discovery09_RestartWithAnotherEphemeralPort(t *testing.T) {
	before := container("a", named(web), both("80/tcp=32768")...)
	after := with(before, func(c *agent.Container) { c.Ports, c.StartedAt = both("80/tcp=32769"), testNow })
	r := mustRules(t, nil)
	have := r.evaluate(snapshot(before), testNow, new(memo)).set.Records
	want := r.evaluate(snapshot(after), testNow, new(memo)).set.Records
	ch := agent.Diff(have, want)
	if len(ch.Delete) != 1 || ch.Delete[0].Port != 32768 || len(ch.Create) != 1 || ch.Create[0].Port != 32769 {
		t.Errorf("changes %v, want port 32768 deleted and 32769 created", ch)
	}
}

func TestPitfall_discovery10_HealthCheck(t *testing.T) {
	for health, in := range map[agent.HealthStatus]bool{
		agent.HealthNone: true, agent.HealthHealthy: true, agent.HealthStarting: false, agent.HealthUnhealthy: false,
	} {
		c := with(container("a", named(web), both("80/tcp=80")...), func(c *agent.Container) { c.Health = health })
		if got := len(lines(t, snapshot(c))) > 0; got != in {
			t.Errorf("health %q: registered %v, want %v", health, got, in)
		}
	}
}

func TestPitfall_discovery11_PauseAndUnpause(t *testing.T) {
	c := container("a", named(web), both("80/tcp=80")...)
	r, m := mustRules(t, nil), new(memo)
	in := r.evaluate(snapshot(c), testNow, m).set
	paused := r.evaluate(snapshot(with(c, func(c *agent.Container) { c.State = agent.StatePaused })), testNow, m).set
	if got := linesOf(paused); len(got) != 0 {
		t.Errorf("paused: %v, want no records", got)
	}
	back := r.evaluate(snapshot(with(c, func(*agent.Container) {})), testNow, m).set
	if !back.Equal(in) {
		t.Errorf("unpaused: %v, want %v", back, in)
	}
}

func TestPitfall_discovery07_StoppingContainerIsOutAndComesBack(t *testing.T) {
	c := container("a", named(web), both("80/tcp=80")...)
	stopping := with(c, func(c *agent.Container) { c.StoppingSince = testNow })
	if got := lines(t, snapshot(stopping)); len(got) != 0 {
		t.Errorf("stopping: %v, want no records", got)
	}
	checkLines(t, lines(t, snapshot(c)), "_web._tcp.berth.internal. 5 IN SRV 1 1 80 n1.berth.internal.")
}

func TestPitfall_discovery12_LoopbackOnly(t *testing.T) {
	for _, bound := range [][]string{{"80/tcp=127.0.0.1:80"}, {"80/tcp=127.8.0.1:80"}, {"80/tcp=[::1]:80"}, {"80/tcp=127.0.0.1:80", "80/tcp=[::1]:80"}} {
		snap := snapshot(container("a", named(web), ports(bound...)...))
		if got := lines(t, snap); len(got) != 0 {
			t.Errorf("bound to %v: %v, want no records", bound, got)
		}
		if why := whyOf(t, snap); !strings.Contains(why, "nothing but the host itself") {
			t.Errorf("bound to %v: reason %q", bound, why)
		}
	}
}

func TestPitfall_discovery12_DualStackIsOneSRV(t *testing.T) {
	got := lines(t, snapshot(container("a", named(web), both("80/tcp=8080")...)))
	checkLines(t, got, "_web._tcp.berth.internal. 5 IN SRV 1 1 8080 n1.berth.internal.")
}

func TestPitfall_discovery12_TCPAndUDPOnOnePort(t *testing.T) {
	c := container("a", named("SERVICE_53_NAME=dns"), append(both("53/tcp=1053"), both("53/udp=2053")...)...)
	got := lines(t, snapshot(c))
	for _, want := range []string{
		"_dns._tcp.berth.internal. 5 IN SRV 1 1 1053 n1.berth.internal.",
		"_dns._udp.berth.internal. 5 IN SRV 1 1 2053 n1.berth.internal.",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("records %v lack %q", got, want)
		}
	}
}

func TestPitfall_discovery12_ExposedButNotPublished(t *testing.T) {
	snap := snapshot(container("a", named(web), port("80/tcp")))
	if got := lines(t, snap); len(got) != 0 {
		t.Errorf("%v, want no records", got)
	}
	if why := whyOf(t, snap); why != "port 80/tcp is exposed but not published" {
		t.Errorf("reason %q", why)
	}
}

func TestPitfall_discovery12_HostNetwork(t *testing.T) {
	c := with(container("a", named(web)), func(c *agent.Container) { c.NetworkMode, c.Endpoints = "host", nil })
	checkLines(t, lines(t, snapshot(c)), "_web._tcp.berth.internal. 5 IN SRV 1 1 80 n1.berth.internal.")
}

func TestPitfall_discovery12_NetworkOfAnotherContainer(t *testing.T) {
	x := container("b", nil, both("80/tcp=8080")...)
	app := with(container("a", named(web)), func(c *agent.Container) {
		c.NetworkMode, c.Endpoints = "container:"+x.ID, nil
		c.StartedAt = epoch.Add(time.Second)
	})
	const record = "_web._tcp.berth.internal. 5 IN SRV 1 1 8080 n1.berth.internal."
	checkLines(t, lines(t, snapshot(app, x)), record)
	byName := with(app, func(c *agent.Container) { c.NetworkMode = "container:" + x.Name })
	checkLines(t, lines(t, snapshot(byName, x)), record)
	if got := lines(t, snapshot(app)); len(got) != 0 {
		t.Errorf("without the other container: %v", got)
	}
	for _, test := range []struct {
		change func(*agent.Container)
		why    string
	}{
		{func(c *agent.Container) { c.State, c.Ports = agent.StateExited, nil }, "which is exited"},
		{func(c *agent.Container) { c.StoppingSince = testNow }, "being stopped"},
		{func(c *agent.Container) { c.StartedAt = epoch.Add(2 * time.Second) }, "an earlier run"},
		{func(c *agent.Container) { c.NetworkMode, c.StartedAt = "container:"+app.ID, app.StartedAt }, "circle"},
	} {
		snap := snapshot(app, with(x, test.change))
		if why := whyOf(t, snap); len(lines(t, snap)) != 0 || !strings.Contains(why, test.why) {
			t.Errorf("reason %q, want %q; records %v", why, test.why, lines(t, snap))
		}
	}
	general := with(app, func(c *agent.Container) { c.Labels = named("SERVICE_NAME=_web._tcp") })
	alone := mustRules(t, nil).evaluate(snapshot(general), testNow, new(memo))
	if reasons := alone.explain(general).Reasons; !strings.Contains(reasons[0].Rule, "does not exist") {
		t.Errorf("reasons %+v do not begin with the missing container", reasons)
	}
	// What SERVICE_NAME means to the app changes with the other one's ports,
	// although the app itself does not.
	r, m := mustRules(t, nil), new(memo)
	checkLines(t, linesOf(r.evaluate(snapshot(general, x), testNow, m).set), record)
	more := with(x, func(c *agent.Container) { c.Ports = append(both("80/tcp=8080"), both("81/tcp=8081")...) })
	checkLines(t, linesOf(r.evaluate(snapshot(general, more), testNow, m).set),
		"_web-80._tcp.berth.internal. 5 IN SRV 1 1 8080 n1.berth.internal.",
		"_web-81._tcp.berth.internal. 5 IN SRV 1 1 8081 n1.berth.internal.")
}

func TestPitfall_discovery12_ItsOwnNetworkInACircle(t *testing.T) {
	c := container("a", named(web), both("80/tcp=80")...)
	c.NetworkMode = "container:" + c.ID
	if why := whyOf(t, snapshot(c)); !strings.Contains(why, "circle") {
		t.Errorf("reason %q", why)
	}
}

func TestPitfall_discovery12_SpecificAddressOfTheHost(t *testing.T) {
	got := lines(t, snapshot(container("a", named(web), port("80/tcp=192.168.7.9:8080"))))
	checkLines(t, got,
		"192-168-7-9.n1.berth.internal. 5 IN A 192.168.7.9",
		"_web._tcp.berth.internal. 5 IN SRV 1 1 8080 192-168-7-9.n1.berth.internal.")
	snap := snapshot(container("a", named(web), port("80/tcp=10.0.0.5:8080")))
	snap.Node.IPv6 = netip.Addr{}
	checkLines(t, lines(t, snap), "_web._tcp.berth.internal. 5 IN SRV 1 1 8080 n1.berth.internal.")
}

func TestPitfall_discovery13_LabelBeatsVariable(t *testing.T) {
	c := container("a", named("SERVICE_80_NAME=_label._tcp", "SERVICE_80_name=_folded._tcp"), both("80/tcp=80")...)
	c.Env = named("SERVICE_80_NAME=_variable._tcp")
	want := "_label._tcp.berth.internal. 5 IN SRV 1 1 80 n1.berth.internal."
	for range 20 { // maps are read in another order each time
		checkLines(t, lines(t, snapshot(c)), want)
	}
}

func TestPitfall_discovery13_BadNameIsRefusedAlone(t *testing.T) {
	long := strings.Repeat("x", 64)
	for _, bad := range []string{"a..b", "_a.._tcp", "*", "*.web", long, "_" + long + "._tcp", "un_der", "-a", "a-", "a b", "é", "_web", "_web._icmp", "."} {
		c := container("a", named("SERVICE_80_NAME="+bad+",_good._tcp", "SERVICE_81_NAME=_other._tcp"),
			append(both("80/tcp=80"), both("81/tcp=81")...)...)
		checkLines(t, lines(t, snapshot(c)),
			"_good._tcp.berth.internal. 5 IN SRV 1 1 80 n1.berth.internal.",
			"_other._tcp.berth.internal. 5 IN SRV 1 1 81 n1.berth.internal.")
		v := mustRules(t, nil).evaluate(snapshot(c), testNow, new(memo))
		if len(v.refused) != 1 {
			t.Errorf("%q: %d refused, want 1", bad, len(v.refused))
		}
	}
}

func TestPitfall_discovery26_RenamedHost(t *testing.T) {
	c := container("a", named(web), both("80/tcp=80")...)
	r, m := mustRules(t, nil), new(memo)
	have := r.evaluate(snapshot(c), testNow, m).set
	renamed := snapshot(c)
	renamed.Node.ID = "n2"
	want := r.evaluate(renamed, testNow, m).set
	checkChanges(t, agent.Diff(have.Records, want.Records),
		"- _web._tcp.berth.internal. 5 IN SRV 1 1 80 n1.berth.internal.",
		"- n1.berth.internal. 5 IN A 10.0.0.5",
		"- n1.berth.internal. 5 IN AAAA 2001:db8::5",
		"+ _web._tcp.berth.internal. 5 IN SRV 1 1 80 n2.berth.internal.",
		"+ n2.berth.internal. 5 IN A 10.0.0.5",
		"+ n2.berth.internal. 5 IN AAAA 2001:db8::5")
}

func TestPitfall_discovery26_HostAddressChanged(t *testing.T) {
	c := container("a", named("SERVICE_80_NAME=web"), both("80/tcp=80")...)
	r, m := mustRules(t, nil), new(memo)
	have := r.evaluate(snapshot(c), testNow, m).set
	moved := snapshot(c)
	moved.Node.IPv4 = netip.MustParseAddr("10.0.0.6")
	want := r.evaluate(moved, testNow, m).set
	checkChanges(t, agent.Diff(have.Records, want.Records),
		"- n1.berth.internal. 5 IN A 10.0.0.5", "- web.berth.internal. 5 IN A 10.0.0.5",
		"+ n1.berth.internal. 5 IN A 10.0.0.6", "+ web.berth.internal. 5 IN A 10.0.0.6")
}

func TestPitfall_discovery26_ClonedHostsShareNoTarget(t *testing.T) {
	// Two clones whose identity has settled differently claim the same service:
	// neither set holds a record that the other one could take for its own.
	c := container("a", named(web), both("80/tcp=80")...)
	one, two := snapshot(c), snapshot(c)
	two.Node.ID = "i-0123"
	a, b := mustRules(t, nil).evaluate(one, testNow, new(memo)).set, mustRules(t, nil).evaluate(two, testNow, new(memo)).set
	for _, r := range a.Records {
		if slices.Contains(b.Records, r) {
			t.Errorf("both hosts want %v", r)
		}
	}
}

// checkChanges compares changes, deletions first, each with its sign.
func checkChanges(t *testing.T, ch agent.Changes, want ...string) {
	t.Helper()
	var got []string
	for _, r := range ch.Delete {
		got = append(got, fmt.Sprint("- ", r))
	}
	for _, r := range ch.Create {
		got = append(got, fmt.Sprint("+ ", r))
	}
	slices.SortStableFunc(got, func(a, b string) int { return strings.Compare(b[:1], a[:1]) })
	checkLines(t, got, want...)
}
