package discovery

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/config"
)

// started returns a Discovery that has seen one snapshot.
func started(t testing.TB, snap *agent.Snapshot) *Discovery {
	t.Helper()
	d := mustNew(t, DefaultConfig(), testEnv())
	d.rules.began = testNow // as if all of it ran before
	d.update(snap, new(memo))
	return d
}

// get decodes an answer of the HTTP API and returns its status.
func get(t *testing.T, h http.Handler, target string, into any) int {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, target, nil))
	if got := w.Header().Get("Content-Type"); got != "application/json" {
		t.Errorf("%s: content type %q", target, got)
	}
	if err := json.Unmarshal(w.Body.Bytes(), into); err != nil {
		t.Errorf("%s: %v in %q", target, err, w.Body)
	}
	return w.Code
}

func TestServicesOverHTTP(t *testing.T) {
	in := container("a", named("SERVICE_80_NAME=calc", "SERVICE_80_TAGS=blue, eu", "SERVICE_80_ID=one", "SERVICE_80_CHECK_HTTP=/", "SERVICE_80_REGION=eu", "SERVICE_80_WEIGHT=9", "SERVICE_80_PRIORITY=0", "SERVICE_80_TTL=1m"), both("80/tcp=8080")...)
	out := with(container("b", named("SERVICE_80_NAME=calc"), both("80/tcp=8081")...), func(c *agent.Container) { c.Health = agent.HealthUnhealthy })
	d := started(t, snapshot(in, out))
	var got []Service
	if status := get(t, d, "/v1/discovery/services", &got); status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	if got[0].Instances[0].Check == nil {
		t.Fatalf("got no check of %+v", got[0])
	}
	both := addrs("10.0.0.5", "2001:db8::5")
	want := []Service{{
		Name: "calc", SRV: "_calc._tcp.berth.internal.", Alias: "calc.berth.internal.",
		Instances: []Instance{{
			Container: "ca", ContainerID: in.ID, ContainerPort: 80, Proto: "tcp", State: Registered,
			Target: "n1.berth.internal.", Addresses: both, Port: 8080, Priority: 0, Weight: 9, TTL: 60, Since: epoch,
			ID: "one", Tags: []string{"blue", "eu"}, Checks: named("http=/"),
			Check:      &CheckStatus{State: CheckAssumed, Since: got[0].Instances[0].Check.Since, Kind: "http", Address: "http://10.0.0.5:8080/"},
			Attributes: named("region=eu"),
		}, {
			Container: "cb", ContainerID: out.ID, ContainerPort: 80, Proto: "tcp", State: Out, Reason: "its health check fails",
			Target: "n1.berth.internal.", Addresses: both, Port: 8081, Priority: 1, Weight: 1, TTL: 60, Since: epoch,
			Health: agent.HealthUnhealthy,
		}},
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestExplainOverHTTP(t *testing.T) {
	c := container("a", nil, port("8080/tcp"))
	gone := container("d", named(web))
	gone.ExitCode = 3
	snap := snapshot(c, container("b", nil))
	snap.Dead = []agent.DeadRun{{Container: gone, FinishedAt: testNow}}
	d := started(t, snap)
	var got Explanation
	if status := get(t, d, "/explain?container=ca", &got); status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	want := Explanation{
		Container: "ca", ContainerID: c.ID, Image: "image:1", State: agent.StateRunning,
		Reasons: []agent.Reason{{
			Subject: "container", Verdict: Ignored, Rule: "no SERVICE_… label or variable",
			Fix: "add a label: docker run --label SERVICE_8080_NAME=ca",
		}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if get(t, d, "/explain?container="+gone.ShortID(), &got); !strings.Contains(got.Reasons[0].Rule, "exit code 3, and is gone") {
		t.Errorf("of a removed container: %+v", got)
	}
	if reasons := d.Explain("nobody"); len(reasons) != 1 || !strings.Contains(reasons[0].Rule, "not found") {
		t.Errorf("of nobody: %+v", reasons)
	}
	if reasons := d.Explain(c.ID); !reflect.DeepEqual(reasons, want.Reasons) {
		t.Errorf("Explain: %+v", reasons)
	}
}

func TestPorts(t *testing.T) {
	bridge := container("a", named("SERVICE_80_NAME=web"), append(both("80/tcp=32768"), ports("5555/tcp=127.0.0.1:5555", "9000/tcp")...)...)
	host := with(container("b", named("SERVICE_80_NAME=web")), func(c *agent.Container) { c.NetworkMode = "host" })
	lan := with(container("c", nil, port("554/tcp")), func(c *agent.Container) {
		c.NetworkMode, c.Endpoints = "lan", []agent.Endpoint{{Network: "lan", NetworkID: "net-lan", IPv4: netip.MustParseAddr("192.168.1.50")}}
	})
	lost := with(container("d", nil, port("1/tcp")), func(c *agent.Container) { c.NetworkMode = "container:gone" })
	sharer := with(container("e", nil), func(c *agent.Container) { c.NetworkMode = "container:ca" })
	d := started(t, snapshot(bridge, host, lan, lost, sharer))
	for _, test := range []struct {
		ref  string
		port uint16
		want []string
	}{
		{"ca", 0, []string{
			"ca 80/tcp 10.0.0.5:32768 0.0.0.0:32768 [web] published",
			"ca 80/tcp [2001:db8::5]:32768 [::]:32768 [web] published",
			"ca 5555/tcp 127.0.0.1:5555 127.0.0.1:5555 [] published on loopback: this host only",
			"ca 9000/tcp   [] port 9000/tcp is exposed but not published",
		}},
		{"ca", 9000, []string{"ca 9000/tcp   [] port 9000/tcp is exposed but not published"}},
		{"ca", 81, nil},
		{"cb", 0, []string{"cb 80/tcp 10.0.0.5:80  [web] the host's network", "cb 80/tcp [2001:db8::5]:80  [web] the host's network"}},
		{"cc", 554, []string{"cc 554/tcp 192.168.1.50:554  [] the container's own address"}},
		{"ce", 5555, []string{"ce 5555/tcp 127.0.0.1:5555 127.0.0.1:5555 [] published on loopback: this host only"}},
		{"_web._tcp.berth.internal", 80, []string{
			"ca 80/tcp 10.0.0.5:32768 0.0.0.0:32768 [web] published",
			"ca 80/tcp [2001:db8::5]:32768 [::]:32768 [web] published",
			"cb 80/tcp 10.0.0.5:80  [web] the host's network",
			"cb 80/tcp [2001:db8::5]:80  [web] the host's network",
		}},
	} {
		rows, err := d.Ports(test.ref, test.port)
		if err != nil {
			t.Errorf("%s: %v", test.ref, err)
		}
		var got []string
		for _, r := range rows {
			got = append(got, strings.Join([]string{r.Container, portName(r.Port, r.Proto), r.Host, r.Bound, "[" + strings.Join(r.Services, " ") + "]", r.Note}, " "))
		}
		checkLines(t, got, test.want...)
	}
	rows, err := d.Ports("cd", 0)
	if err != nil || len(rows) != 1 || !strings.Contains(rows[0].Note, "does not exist") {
		t.Errorf("of a container without a network: %+v, %v", rows, err)
	}
	var over []PortMapping
	if status := get(t, d, "/v1/discovery/ports?ref=ca&port=9000", &over); status != http.StatusOK || len(over) != 1 {
		t.Errorf("over HTTP: %d, %+v", status, over)
	}
}

func TestHTTPErrors(t *testing.T) {
	a := container("a", nil)
	b := with(container("b", nil), func(c *agent.Container) { c.ID = "a" + strings.Repeat("b", 63) })
	snap := snapshot(a, b)
	snap.Unread = []string{strings.Repeat("e", 64)}
	d := started(t, snap)
	for target, want := range map[string]int{
		"/v1/discovery/":                        http.StatusNotFound,
		"/v1/discovery/nothing":                 http.StatusNotFound,
		"/v1/discovery/explain":                 http.StatusBadRequest,
		"/v1/discovery/explain?container=x":     http.StatusNotFound,
		"/v1/discovery/explain?container=a":     http.StatusConflict,
		"/v1/discovery/explain?container=ee":    http.StatusServiceUnavailable,
		"/v1/discovery/ports?port=80":           http.StatusBadRequest,
		"/v1/discovery/ports?ref=ca&port=70000": http.StatusBadRequest,
		"/v1/discovery/ports?ref=x":             http.StatusNotFound,
	} {
		var body struct{ Error string }
		if status := get(t, d, target, &body); status != want || body.Error == "" {
			t.Errorf("%s: %d %q, want %d", target, status, body.Error, want)
		}
	}
	fresh := mustNew(t, DefaultConfig(), testEnv())
	for _, target := range []string{"/services", "/explain?container=a", "/ports?ref=a"} {
		var body struct{ Error string }
		if status := get(t, fresh, target, &body); status != http.StatusServiceUnavailable {
			t.Errorf("%s before the first snapshot: %d", target, status)
		}
	}
	w := httptest.NewRecorder()
	d.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/services", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", w.Code)
	}
}

func TestMetrics(t *testing.T) {
	in := container("a", named("SERVICE_80_NAME=calc,*", "SERVICE_80_CHECK_TCP=1"), both("80/tcp=8080")...)
	out := with(container("b", named("SERVICE_80_NAME=calc"), both("80/tcp=8081")...), func(c *agent.Container) { c.State = agent.StatePaused })
	got := make(map[string]float64)
	started(t, snapshot(in, out)).Metrics(func(s agent.Sample) bool {
		key := s.Name
		for _, l := range s.Labels {
			key += " " + l.Value
		}
		got[key] = s.Value
		return true
	})
	delete(got, "berth_discovery_evaluation_seconds_total")
	want := map[string]float64{
		"berth_discovery_instances registered": 1, "berth_discovery_instances out": 1, "berth_discovery_records": 6,
		"berth_discovery_claims_refused": 1, "berth_discovery_held_down": 0,
		"berth_discovery_evaluations_total": 1, "berth_discovery_publications_total": 1,
		"berth_discovery_checks starting": 0, "berth_discovery_checks assumed": 1, "berth_discovery_checks passing": 0, "berth_discovery_checks failing": 0,
		"berth_discovery_check_runs_total passed": 0, "berth_discovery_check_runs_total failed": 0,
		"berth_discovery_check_seconds_total": 0, "berth_discovery_check_delay_seconds_total": 0,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestUseAddresses(t *testing.T) {
	c := with(container("a", named(web)), func(c *agent.Container) {
		c.NetworkMode, c.Endpoints = "none", nil
		c.Labels[ecsPrefix+"task-arn"] = "arn:aws:ecs:eu-central-1:1:task/prod/7"
	})
	d := mustNew(t, DefaultConfig(), testEnv())
	d.UseAddresses(func(c *agent.Container) (netip.Addr, bool) { return netip.MustParseAddr("10.9.9.9"), c.OfECS() })
	d.update(snapshot(c), new(memo))
	set, _ := d.Records().Load()
	checkLines(t, linesOf(set),
		"_web._tcp.berth.internal. 5 IN SRV 1 1 80 aaaaaaaaaaaa.n1.berth.internal.",
		"aaaaaaaaaaaa.n1.berth.internal. 5 IN A 10.9.9.9")
}

func TestHostWithoutAddressUsesItsBridge(t *testing.T) {
	snap := snapshot(container("a", named(web), both("80/tcp=8080")...))
	snap.Node = agent.Node{}
	set := mustRules(t, nil).evaluate(snap, testNow, new(memo)).set
	var got []string
	for _, r := range set.Records {
		got = append(got, r.String())
	}
	checkLines(t, got, "_web._tcp.berth.internal. 5 IN SRV 1 1 8080 node.berth.internal.", "node.berth.internal. 5 IN A 172.17.0.1")
}

func TestNameOfTheHostIsRefused(t *testing.T) {
	snap := snapshot(container("a", named("SERVICE_80_NAME=n1,x.n1,_n1._tcp"), both("80/tcp=8080")...))
	v := mustRules(t, nil).evaluate(snap, testNow, new(memo))
	checkLines(t, linesOf(v.set), "_n1._tcp.berth.internal. 5 IN SRV 1 1 8080 n1.berth.internal.")
	if len(v.refused) != 2 {
		t.Errorf("%d refused, want 2", len(v.refused))
	}
}

func TestAllowNames(t *testing.T) {
	r := mustRules(t, func(c *Config) { c.AllowNames = []string{"web-*", "_calc._udp"} })
	c := container("a", named("SERVICE_80_NAME=web-1,_web-2._tcp,calc,_calc._tcp,other"), append(both("80/tcp=80"), both("80/udp=80")...)...)
	v := r.evaluate(snapshot(c), testNow, new(memo))
	var got []string
	for _, svc := range v.services() {
		got = append(got, svc.SRV)
	}
	checkLines(t, got, "_web-2._tcp.berth.internal.", "_calc._udp.berth.internal.", "_web-1._tcp.berth.internal.", "_web-1._udp.berth.internal.")
}

func TestConfigValidate(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("the default: %v", err)
	}
	for want, change := range map[string]func(*Config){
		"domain: is empty":           func(c *Config) { c.Domain = "" },
		"domain: \"a..b\" has an em": func(c *Config) { c.Domain = "a..b" },
		"domain: \"Berth\" is not":   func(c *Config) { c.Domain = "Berth" },
		"domain: \"b.\" has an empt": func(c *Config) { c.Domain = "b." },
		"is longer than 149 bytes":   func(c *Config) { c.Domain = strings.Repeat("a.", 80) + "a" },
		"ttl: -1s is not between":    func(c *Config) { c.TTL = config.Duration(-time.Second) },
		"ttl: 1d1s is not between":   func(c *Config) { c.TTL = config.Duration(maxTTL + time.Second) },
		"ttl: 1.5s is not a whole":   func(c *Config) { c.TTL = config.Duration(1500 * time.Millisecond) },
		"allow_names[1]: \"[\" is n": func(c *Config) { c.AllowNames = []string{"ok", "["} },
		"name_template: template":    func(c *Config) { c.NameTemplate = "{{.Sevice}}" },
		"name_template: template: n": func(c *Config) { c.NameTemplate = "{{" },
	} {
		cfg := DefaultConfig()
		change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
		if _, err := New(cfg, testEnv()); err == nil {
			t.Errorf("New accepts what Validate refuses: %q", want)
		}
	}
	bad := DefaultConfig()
	bad.Domain, bad.TTL = "", -1
	if err := bad.Validate(); err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("two errors at once: %v", err)
	}
}

func TestLabelsOfNodesFit(t *testing.T) {
	// The longest target in the longest domain is still a name.
	r := mustRules(t, func(c *Config) {
		c.Domain = strings.Repeat("d", 63) + "." + strings.Repeat("d", 63) + "." + strings.Repeat("d", 21)
	})
	if len(r.cfg.Domain) != maxDomain {
		t.Fatalf("domain of %d bytes, want %d", len(r.cfg.Domain), maxDomain)
	}
	snap := snapshot(container("a", named(web), port("80/tcp=[fd00::9]:80")))
	snap.Node.ID = strings.Repeat("n", 63)
	for _, record := range r.evaluate(snap, testNow, new(memo)).set.Records {
		if len(record.Name)-1 > maxName || len(record.Target)-1 > maxName {
			t.Errorf("too long: %v", record)
		}
	}
}
