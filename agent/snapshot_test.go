package agent

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

func sampleSnapshot() *Snapshot {
	addr := netip.MustParseAddr
	return &Snapshot{
		Containers: []*Container{
			{ID: "aaa1", Name: "web", State: StateRunning, Endpoints: []Endpoint{
				{Network: "bridge", IPv4: addr("172.17.0.2"), IPv6: addr("fd00::2")}, {Network: "other", IPv4: addr("10.0.0.2")},
			}},
			{ID: "aaa2", Name: "aab", State: StatePaused, Endpoints: []Endpoint{{Network: "bridge", IPv4: addr("172.17.0.3")}}},
			{ID: "aab3", Name: "old", State: StateExited, Endpoints: []Endpoint{{Network: "bridge", IPv4: addr("172.17.0.4")}}},
			{ID: "bbb4", Name: "host", State: StateRunning},
		},
		Networks: []Network{
			{Name: "b", Driver: "bridge", Gateways: []netip.Addr{addr("172.18.0.1"), addr("172.17.0.1")}},
			{Name: "c", Driver: "bridge", Gateways: []netip.Addr{addr("172.17.0.1")}},
			{Name: "host", Driver: "host"},
			{Name: "o", Driver: "overlay", Gateways: []netip.Addr{addr("10.9.0.1")}},
		},
	}
}

func TestSnapshot_Lookups(t *testing.T) {
	s := sampleSnapshot()
	name := func(c *Container) string {
		if c == nil {
			return ""
		}
		return c.Name
	}
	for id, want := range map[string]string{"aaa1": "web", "bbb4": "host", "aaa": "", "zzz": "", "": ""} {
		if got := name(s.ByID(id)); got != want {
			t.Errorf("ByID(%q): got %q, want %q", id, got, want)
		}
	}
	for ref, want := range map[string]string{"web": "web", "/web": "web", "old": "old", "aaa1": "", "": ""} {
		if got := name(s.ByName(ref)); got != want {
			t.Errorf("ByName(%q): got %q, want %q", ref, got, want)
		}
	}
	for addr, want := range map[string]string{
		"172.17.0.2": "web", "::ffff:172.17.0.2": "web", "fd00::2": "web", "10.0.0.2": "web",
		"172.17.0.3": "aab",
		"172.17.0.4": "", // its address is free for another
		"192.0.2.1":  "",
	} {
		if got := name(s.ByAddr(netip.MustParseAddr(addr))); got != want {
			t.Errorf("ByAddr(%s): got %q, want %q", addr, got, want)
		}
	}
	if got := s.ByAddr(netip.Addr{}); got != nil {
		t.Errorf("ByAddr of no address: got %+v", got)
	}
}

func TestSnapshot_Find(t *testing.T) {
	s := sampleSnapshot()
	for ref, want := range map[string][]string{
		"aaa1": {"web"}, "web": {"web"}, "/web": {"web"}, "bb": {"host"},
		"aa":  {"web", "aab", "old"},
		"aab": {"aab"}, // a name comes before the beginning of an ID
		"x":   nil, "": nil,
	} {
		var got []string
		for _, c := range s.Find(ref) {
			got = append(got, c.Name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("Find(%q): got %q, want %q", ref, got, want)
		}
	}
}

func TestSnapshot_Bridges(t *testing.T) {
	want := []netip.Addr{netip.MustParseAddr("172.17.0.1"), netip.MustParseAddr("172.18.0.1")}
	if got := sampleSnapshot().Bridges(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestContainer_Run(t *testing.T) {
	c := &Container{ID: "a"}
	if got, want := c.Run(), (RunKey{ID: "a"}); got != want {
		t.Errorf("before its first run: got %+v, want %+v", got, want)
	}
	c.StartedAt = time.Unix(1, 2)
	if got, want := c.Run(), (RunKey{ID: "a", StartedAt: 1_000_000_002}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := ShortID(fakeID(0)); len(got) != 12 {
		t.Errorf("short ID: got %q", got)
	}
}

func TestDeadRuns(t *testing.T) {
	cfg := LoopConfig{DeadRetention: time.Hour, MaxDead: 3}
	d := newDeadRuns(cfg)
	at := func(minute int) time.Time { return time.Unix(int64(60*minute), 0) }
	run := func(id string, start, end int) DeadRun {
		return DeadRun{Container: &Container{ID: id, State: StateExited, StartedAt: at(start)}, FinishedAt: at(end)}
	}
	ids := func() (out []string) {
		for _, r := range d.runs {
			out = append(out, r.Container.ID)
		}
		return out
	}
	want := func(what string, want ...string) {
		t.Helper()
		if got := ids(); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", what, got, want)
		}
		if len(d.keys) != len(d.runs) {
			t.Errorf("%s: got %d keys of %d runs", what, len(d.keys), len(d.runs))
		}
	}
	if !d.add(run("b", 1, 20)) || !d.add(run("a", 1, 10)) {
		t.Error("a new run is no news")
	}
	if d.add(run("a", 1, 10)) || d.add(DeadRun{Container: &Container{ID: "never ran"}}) {
		t.Error("a known run, or none, is news")
	}
	want("by their end", "a", "b")
	shared := slices.Clip(d.runs)
	// Its removal is later than its end, and counts from then.
	a := run("a", 1, 10).Container
	a.FinishedAt = at(10)
	d.remove(a, at(30))
	want("after a removal", "b", "a")
	if shared[0].Container.ID != "a" || !shared[0].RemovedAt.IsZero() {
		t.Errorf("what a snapshot holds was changed: %+v", shared)
	}
	d.add(run("c", 1, 40))
	d.add(run("d", 1, 50))
	want("at most three", "a", "c", "d")
	if d.expire(at(89)) || !d.expire(at(90)) {
		t.Error("a run is not kept for exactly the retention time")
	}
	want("after an hour", "c", "d")
	if got := d.next(); !got.Equal(at(100)) {
		t.Errorf("next: got %v, want %v", got, at(100))
	}
}
