package statsd

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berthd/berth/agent"
)

func at(index uint32, addr string) place {
	return place{index, netip.MustParseAddr(addr).As16()}
}

func texts(tags []tag) string {
	var all []string
	for _, t := range tags {
		all = append(all, t.text)
	}
	return strings.Join(all, " ")
}

// lo is the interface that the network "net" leads over in these tests.
var lo = map[string]uint32{"lo": 1, "eth0": 2}

func tableOf(t *testing.T, snap *agent.Snapshot) *table {
	t.Helper()
	cfg := DefaultConfig()
	cfg.ContainerTags = []string{"service", "env"}
	tab, _ := newRegistrar(cfg).build(snap, lo, time.Unix(0, 0))
	return tab
}

func TestLookup(t *testing.T) {
	six := running(2, "six", "")
	six.Endpoints = []agent.Endpoint{{NetworkID: "net", IPv6: netip.MustParseAddr("fd00::2")}}
	lan := running(3, "lan", "")
	lan.Endpoints = []agent.Endpoint{{NetworkID: "macvlan", IPv4: netip.MustParseAddr("192.168.1.7")}}
	young := running(4, "young", "")
	young.Endpoints = []agent.Endpoint{{NetworkID: "not listed yet", IPv4: netip.MustParseAddr("172.30.0.2")}}
	dead := running(5, "dead", "172.17.0.5")
	dead.State = agent.StateExited
	paused := running(6, "paused", "172.17.0.6")
	paused.State = agent.StatePaused
	host := running(7, "host", "")
	host.NetworkMode = "host"
	snap := snapshotOf(running(1, "web", "172.17.0.2"), six, lan, young, dead, paused, host)
	snap.Networks = append(snap.Networks, agent.Network{ID: "macvlan", Driver: "macvlan"})
	snap.Networks[0].Gateways = []netip.Addr{netip.MustParseAddr("172.17.0.1")}
	snap.Node.IPv4 = netip.MustParseAddr("192.0.2.10")
	tab := tableOf(t, snap)
	for _, tc := range []struct {
		from place
		want string
	}{
		{at(1, "172.17.0.2"), "web"},
		{at(1, "::ffff:172.17.0.2"), "web"},
		{at(2, "172.17.0.2"), unknownName}, // by another interface: not the one it says it is
		{at(1, "fd00::2"), "six"},
		{at(1, "192.168.1.7"), unknownName},
		{at(9, "172.30.0.2"), "young"},
		{at(1, "172.17.0.5"), unknownName},
		{at(1, "172.17.0.6"), "paused"},
		{at(1, "172.17.0.1"), sharedName},
		{at(1, "127.0.0.1"), sharedName},
		{at(1, "127.9.9.9"), sharedName},
		{at(1, "192.0.2.10"), sharedName},
		{at(1, "::1"), sharedName},
		{at(1, "198.51.100.1"), unknownName},
	} {
		if got := tab.lookup(tc.from).name; got != tc.want {
			t.Errorf("%v over %d: got %s, want %s", tc.from, tc.from.index, got, tc.want)
		}
		if tc.from.index != 2 { // nobody has that address twice: it is enough
			if got := tab.lookup(place{addr: tc.from.addr}).name; got != tc.want {
				t.Errorf("%v: got %s, want %s", tc.from, got, tc.want)
			}
		}
	}
	if tab.indexed {
		t.Error("the kernel is asked for interfaces, and need not be")
	}
}

// Where two networks have the same addresses, the interface tells which of them a
// datagram came from; nothing else does.
func TestLookup_NetworksWithTheSameAddresses(t *testing.T) {
	other := running(2, "other", "172.17.0.2")
	other.Endpoints[0].NetworkID = "net2"
	alone := running(3, "alone", "172.17.0.3")
	both := running(4, "both", "172.17.0.4")
	both.Endpoints = append(both.Endpoints, agent.Endpoint{NetworkID: "net2", IPv4: both.Endpoints[0].IPv4})
	snap := snapshotOf(running(1, "web", "172.17.0.2"), other, alone, both)
	snap.Networks = append(snap.Networks, agent.Network{ID: "net2", Driver: "bridge", Bridge: "eth0"})
	cfg := DefaultConfig()
	r := newRegistrar(cfg)
	now := time.Unix(1000, 0)
	tab, _ := r.build(snap, lo, now)
	if !tab.indexed {
		t.Error("the kernel is not asked for interfaces")
	}
	want := map[place]string{
		at(1, "172.17.0.2"): "web", at(2, "172.17.0.2"): "other", at(0, "172.17.0.2"): unknownName,
		at(1, "172.17.0.3"): "alone", at(2, "172.17.0.3"): unknownName, at(0, "172.17.0.3"): "alone",
		at(1, "172.17.0.4"): "both", at(2, "172.17.0.4"): "both", at(0, "172.17.0.4"): "both",
	}
	for from, name := range want {
		if got := tab.lookup(from).name; got != name {
			t.Errorf("%v over %d: got %s, want %s", from, from.index, got, name)
		}
	}
	// One of them ends: the address is the other's alone, and the interface no
	// longer asked for, but the last lines of the first are not the other's where
	// they tell where they came from.
	tab, _ = r.build(snapshotOf(running(1, "web", "172.17.0.2")), lo, now)
	for from, name := range map[place]string{at(0, "172.17.0.2"): "web", at(1, "172.17.0.2"): "web", at(2, "172.17.0.2"): "other"} {
		if got := tab.lookup(from).name; got != name {
			t.Errorf("after an end: %v over %d: got %s, want %s", from, from.index, got, name)
		}
	}
	if tab.indexed {
		t.Error("after an end: the kernel is still asked for interfaces")
	}
}

// Containers that share one network get what they have in common.
func TestSharedNetwork(t *testing.T) {
	web := running(1, "web", "172.17.0.2", serviceLabel, "shop", ddLabels+"env", "prod")
	proxy := running(2, "proxy", "", serviceLabel, "proxy", ddLabels+"env", "prod")
	proxy.NetworkMode = "container:" + idOf(1)
	guest := running(3, "guest", "", ddLabels+"env", "prod")
	guest.NetworkMode = "container:proxy"
	gone := running(4, "gone", "")
	gone.NetworkMode, gone.State = "container:web", agent.StateExited
	tab := tableOf(t, snapshotOf(web, proxy, guest, gone))
	o := tab.lookup(at(1, "172.17.0.2"))
	if o.name != "web+proxy+guest" || texts(o.tags) != "env:prod" || o.cid != nil {
		t.Errorf("got %s with %q and %q", o.name, texts(o.tags), o.cid)
	}
	if got := texts(tab.byID[idOf(2)].tags); got != "service:proxy env:prod" {
		t.Errorf("over the Unix socket the proxy has the tags %q", got)
	}
	tab = tableOf(t, snapshotOf(web, gone))
	if o := tab.lookup(at(1, "172.17.0.2")); o.name != "web" {
		t.Errorf("got %s, want web alone", o.name)
	}
}

// What ended is remembered for a while, but not where something else is.
func TestPitfall_statsd12_AnAddressThatIsUsedAgain(t *testing.T) {
	cfg := DefaultConfig()
	r := newRegistrar(cfg)
	now := time.Unix(1000, 0)
	name := func(tab *table) string { return tab.lookup(at(1, "172.17.0.2")).name }
	tab, next := r.build(snapshotOf(running(1, "old", "172.17.0.2")), lo, now)
	if name(tab) != "old" || !next.IsZero() {
		t.Errorf("got %s until %v", name(tab), next)
	}
	first := tab.byID[idOf(1)]
	tab, next = r.build(snapshotOf(), lo, now)
	if name(tab) != "old" || !next.Equal(now.Add(lateFor)) || tab.byID[idOf(1)] != first {
		t.Errorf("just ended: got %s until %v", name(tab), next)
	}
	tab, next = r.build(snapshotOf(), lo, now.Add(lateFor-1))
	if name(tab) != "old" || !next.Equal(now.Add(lateFor)) {
		t.Errorf("a moment before: got %s until %v", name(tab), next)
	}
	tab, next = r.build(snapshotOf(), lo, now.Add(lateFor))
	if name(tab) != unknownName || !next.IsZero() || tab.byID[idOf(1)] != nil {
		t.Errorf("long ended: got %s until %v", name(tab), next)
	}
	// The account is there for longer, and goes on where the container does.
	first.account.lines.Add(7)
	tab, _ = r.build(snapshotOf(running(1, "old", "172.17.0.2")), lo, now.Add(time.Minute))
	if got := tab.byID[idOf(1)].account.lines.Load(); got != 7 {
		t.Errorf("a container that is back has %d lines, want 7", got)
	}
	r.build(snapshotOf(), lo, now.Add(time.Minute))
	tab, _ = r.build(snapshotOf(running(2, "new", "172.17.0.2")), lo, now.Add(time.Minute))
	if name(tab) != "new" {
		t.Errorf("reused after a moment: got %s", name(tab))
	}
	tab, next = r.build(snapshotOf(running(2, "new", "172.17.0.2")), lo, now.Add(time.Minute))
	if name(tab) != "new" {
		t.Errorf("reused at once: got %s", name(tab))
	}
	if tab.byID[idOf(1)] == nil || next.IsZero() {
		t.Error("the process of the old one is forgotten although it may have sent something")
	}
	r.build(snapshotOf(), lo, now.Add(2*time.Minute+rememberFor))
	if n := len(r.senders(false)); n != 2 {
		t.Errorf("%d senders are known in the end, want the two that always are", n)
	}
}

// A table is made anew when the first of those that ended is to go, whether it had
// an address or not.
func TestEndedOnesGoOneByOne(t *testing.T) {
	for _, addressed := range []bool{false, true} {
		r := newRegistrar(DefaultConfig())
		begin := time.Unix(1000, 0)
		var live []*agent.Container
		for n := range 10 {
			addr := ""
			if (n%2 == 0) == addressed {
				addr = netip.AddrFrom4([4]byte{172, 17, 0, byte(n)}).String()
			}
			live = append(live, running(n, "web", addr))
		}
		now := begin
		for ; len(live) > 0; live = live[1:] {
			r.build(snapshotOf(live...), lo, now)
			now = now.Add(lateFor / 20)
		}
		for n := range 10 {
			want := begin.Add(time.Duration(n+1)*lateFor/20 + lateFor)
			if _, next := r.build(snapshotOf(), lo, now); !next.Equal(want) {
				t.Errorf("after %d of them: got %v, want %v", n, next.Sub(begin), want.Sub(begin))
			}
			now = want
		}
	}
}

// Labels that change with a new run change the tags; otherwise nothing is made
// anew.
func TestOriginsAreKept(t *testing.T) {
	r := newRegistrar(DefaultConfig())
	now := time.Unix(0, 0)
	one, _ := r.build(snapshotOf(running(1, "web", "172.17.0.2", serviceLabel, "a")), lo, now)
	two, _ := r.build(snapshotOf(running(1, "web", "172.17.0.2", serviceLabel, "a")), lo, now)
	renamed, _ := r.build(snapshotOf(running(1, "shop", "172.17.0.2", serviceLabel, "a")), lo, now)
	if got := renamed.byID[idOf(1)].name; got != "shop" {
		t.Errorf("after it was renamed it is %s", got)
	}
	three, _ := r.build(snapshotOf(running(1, "web", "172.17.0.2", serviceLabel, "b")), lo, now)
	if one.byID[idOf(1)] != two.byID[idOf(1)] {
		t.Error("an origin was made anew although nothing has changed")
	}
	if got := texts(three.byID[idOf(1)].tags); got != "service:b" || three.byID[idOf(1)].account != one.byID[idOf(1)].account {
		t.Errorf("got the tags %q", got)
	}
}

func TestTags(t *testing.T) {
	c := running(1, "web-1", "", ddLabels+"service", "shop", "com.example.team", "blue,env:fake|#x\ny:z")
	c.Image = "registry.example:5000/shop/web:1.4@sha256:abc"
	c.Labels[agent.LabelsCompose+"project"], c.Labels[agent.LabelsCompose+"service"] = "prod", "web"
	c.Labels[agent.LabelsCompose+"container-number"] = "3"
	c.Env = map[string]string{"DD_ENV": "staging", "DD_VERSION": "7"}
	cfg := DefaultConfig()
	cfg.ContainerTags = append(slices.Clone(tagNames), "team=com.example.team", "none=com.example.none")
	cfg.Tags = []string{"region:eu"}
	want := "region:eu service:shop env:staging version:7 cluster:prod image_name:registry.example:5000/shop/web image_tag:1.4 " +
		"container_name:web-1 container_id:" + idOf(1) + " task:3 task_container:web orchestrator:compose team:blue_env:fake_#x y:z"
	if got := texts(cfg.tagsOf(c)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for ref, want := range map[string][2]string{
		"nginx": {"nginx", ""}, "nginx:1": {"nginx", "1"}, "r:5000/nginx": {"r:5000/nginx", ""}, "sha256:abc": {"", ""}, "": {"", ""}, "a/b@sha256:c": {"a/b", ""},
	} {
		if name, tag := splitImage(ref); name != want[0] || tag != want[1] {
			t.Errorf("%q: got %q and %q", ref, name, tag)
		}
	}
	long, ok := makeTag("k", strings.Repeat("é", 300))
	if !ok || len(long.text) > maxTagBytes || !strings.HasSuffix(long.text, "é") {
		t.Errorf("a long value: got %d bytes, %v", len(long.text), ok)
	}
	for _, empty := range []string{"", " ", "\n\t"} {
		if tag, ok := makeTag("k", empty); ok {
			t.Errorf("%q: got %q", empty, tag.text)
		}
	}
}

// procDir is a /proc with processes in cgroups.
type procDir struct{ dir string }

func (p procDir) put(t *testing.T, pid, started, cgroup string) {
	t.Helper()
	dir := filepath.Join(p.dir, pid)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	stat := pid + " (a ) name) S 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 " + started + " 1 1\n"
	for name, text := range map[string]string{"stat": stat, "cgroup": cgroup} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPeers(t *testing.T) {
	proc := procDir{t.TempDir()}
	inner := strings.Repeat("f", 64)
	proc.put(t, "10", "100", "0::/system.slice/docker-"+idOf(1)+".scope\n")
	proc.put(t, "11", "100", "12:cpu:/docker/"+idOf(2)+"\n1:name=systemd:/docker/"+idOf(2)+"\n")
	proc.put(t, "12", "100", "0::/ecs/0123456789abcdef0123456789abcdef/"+idOf(1)+"\n")
	proc.put(t, "13", "100", "0::/docker/"+idOf(1)+"/docker/"+inner+"\n") // docker in docker
	proc.put(t, "14", "100", "0::/user.slice/user-0.slice\n")
	proc.put(t, "15", "100", "0::/docker/"+idOf(1)+"0\n") // 65 digits
	proc.put(t, "16", "100", "0::/docker/"+inner+"\n")
	tab := tableOf(t, snapshotOf(running(1, "web", ""), running(2, "calc", "")))
	ps := newPeers(proc.dir)
	for pid, want := range map[int32]string{
		10: "web", 11: "calc", 12: "web", 13: "web", 14: sharedName, 15: sharedName, 16: sharedName, 99: unknownName, 0: unknownName, -1: unknownName,
	} {
		for range 2 {
			if got := ps.find(pid, tab, 0).name; got != want {
				t.Errorf("process %d: got %s, want %s", pid, got, want)
			}
		}
	}
	// Another process with the same number is noticed when it is looked at again.
	if used := ps.lookups; ps.find(0, tab, 0) != tab.unknown || ps.lookups != used {
		t.Error("a process of another PID namespace was looked for")
	}
	if err := os.WriteFile(filepath.Join(proc.dir, "10", "stat"), []byte("10 (name) S 1 1"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := newPeers(proc.dir).find(10, tab, 0).name; got != unknownName {
		t.Errorf("got %s of a process with a short stat", got)
	}
	proc.put(t, "10", "200", "0::/docker/"+idOf(2)+"\n")
	if got := ps.find(10, tab, peerFresh-1).name; got != "web" {
		t.Errorf("got %s, want what is remembered", got)
	}
	if got := ps.find(10, tab, peerFresh).name; got != "calc" {
		t.Errorf("got %s, want calc: the process is another one", got)
	}
	if used := ps.lookups; ps.find(10, tab, 2*peerFresh-1).name != "calc" || ps.lookups != used {
		t.Error("a process was looked at again too soon")
	}
	// A new table has new origins.
	without := tableOf(t, snapshotOf())
	if got := ps.find(11, without, 1).name; got != sharedName {
		t.Errorf("got %s of a table without the container", got)
	}
	// A process that is gone is not known by its number for ever.
	if err := os.RemoveAll(filepath.Join(proc.dir, "12")); err != nil {
		t.Fatal(err)
	}
	if got := ps.find(12, tab, 2*peerFresh).name; got != unknownName {
		t.Errorf("got %s of a process that is gone", got)
	}
	if _, known := ps.known[12]; known {
		t.Error("a process that is gone is remembered")
	}
	// Looks are rationed, and memory is bounded.
	for pid := range int32(peersMost + 10) {
		ps.known[pid+1000] = peer{}
	}
	proc.put(t, "17", "1", "0::/docker/"+idOf(1)+"\n")
	ps.find(17, tab, 3*peerFresh)
	if n := len(ps.known); n > peersMost {
		t.Errorf("%d processes are remembered, want at most %d", n, peersMost)
	}
	for range peerLookups {
		ps.find(98, tab, 4*peerFresh)
	}
	if got := ps.find(13, tab, 4*peerFresh).name; got != unknownName {
		t.Errorf("got %s after too many looks, want none to be made", got)
	}
	if got := ps.find(13, tab, 5*peerFresh).name; got != "web" {
		t.Errorf("got %s a second later, want web", got)
	}
}

func TestBucket(t *testing.T) {
	var b bucket
	take := func(n int, now time.Duration) (got int) {
		b.refill(100, now)
		for range n {
			if b.take() {
				got++
			}
		}
		return got
	}
	for _, step := range []struct {
		now     time.Duration
		n, want int
	}{
		{time.Hour, 150, 100},
		{time.Hour, 1, 0},
		{time.Hour + 100*time.Millisecond, 50, 10},
		{2 * time.Hour, 500, 100},
		{2*time.Hour + 5*time.Millisecond, 1, 0},
		{2*time.Hour + 10*time.Millisecond, 2, 1},
	} {
		if got := take(step.n, step.now); got != step.want {
			t.Errorf("at %v: got %d of %d, want %d", step.now, got, step.n, step.want)
		}
	}
}

func TestConfig(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	ok := []func(*Config){
		func(c *Config) { c.Upstream = "/var/run/datadog/dsd.socket" },
		func(c *Config) { c.Upstream = "unix:///var/run/datadog/dsd.socket" },
		func(c *Config) { c.Upstream = "metrics.internal:8125" },
		func(c *Config) { c.Upstream = "localhost:9125" },
		func(c *Config) { c.Upstream = "[::1]:8125" },
		func(c *Config) { c.Listen, c.Port = []netip.Addr{netip.MustParseAddr("127.0.0.1")}, 8126 },
		func(c *Config) { c.Socket = "" },
		func(c *Config) { c.ContainerTags = []string{"team=com.example.team", "container_id"} },
		func(c *Config) { c.Mode, c.Strip = ModeTags, true },
	}
	for i, change := range ok {
		cfg := DefaultConfig()
		change(&cfg)
		if err := cfg.Validate(); err != nil {
			t.Errorf("case %d: %v", i, err)
		}
	}
	for want, change := range map[string]func(*Config){
		"listen[0]: 0.0.0.0":          func(c *Config) { c.Listen = []netip.Addr{netip.IPv4Unspecified()} },
		"listen[0]: 192.0.2.1":        func(c *Config) { c.Listen = []netip.Addr{netip.MustParseAddr("192.0.2.1")} },
		"listen[0]: fe80::1":          func(c *Config) { c.Listen = []netip.Addr{netip.MustParseAddr("fe80::1")} },
		"listen[1]: 127.0.0.9":        func(c *Config) { a := netip.MustParseAddr("127.0.0.9"); c.Listen = []netip.Addr{a, a} },
		"upstream: 127.0.0.1:8125":    func(c *Config) { c.Listen = []netip.Addr{netip.MustParseAddr("127.0.0.1")} },
		"upstream: /run/berth-statsd": func(c *Config) { c.Upstream = c.Socket },
		"upstream: \"nowhere\"":       func(c *Config) { c.Upstream = "nowhere" },
		"upstream: \"0.0.0.0:8125\"":  func(c *Config) { c.Upstream = "0.0.0.0:8125" },
		"upstream: \"x:0\"":           func(c *Config) { c.Upstream = "x:0" },
		"socket: \"s\"":               func(c *Config) { c.Socket = "s" },
		"socket: the path":            func(c *Config) { c.Socket = "/" + strings.Repeat("x", 120) },
		"payload: 100B":               func(c *Config) { c.Payload = 100 },
		"payload: 64KiB":              func(c *Config) { c.Payload = 64 << 10 },
		"buffer: 1KiB":                func(c *Config) { c.Buffer = 1 << 10 },
		"receive_buffer: 1KiB":        func(c *Config) { c.ReceiveBuffer = 1 << 10 },
		"linger: 1s":                  func(c *Config) { c.Linger = 1e9 },
		"container_tags[0]: \"x\"":    func(c *Config) { c.ContainerTags = []string{"x"} },
		"container_tags[0]: the tag":  func(c *Config) { c.ContainerTags = []string{"host=com.example.host"} },
		"tags[0]: the tag host":       func(c *Config) { c.Tags = []string{"host:me"} },
		"tags[0]: the tag dd.":        func(c *Config) { c.Tags = []string{"dd.internal.entity_id:x"} },
		"tags[0]: the tag env":        func(c *Config) { c.Tags = []string{"env:prod"} },
		"tags[0]: \"a,b:c\"":          func(c *Config) { c.Tags = []string{"a,b:c"} },
		"tags[0]: \"plain\"":          func(c *Config) { c.Tags = []string{"plain"} },
		"strip: it removes":           func(c *Config) { c.Strip, c.Mode = true, ModeCID },
		"rate_limit: -1":              func(c *Config) { c.RateLimit = -1 },
	} {
		cfg := DefaultConfig()
		change(&cfg)
		err := cfg.Validate()
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want one that begins with %q", err, want)
		}
	}
}
