package discovery

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berthd/berth/agent"
)

// Each letter of marks is a finding, p for passed and f for failed; the words
// behind it are the states that follow, by their first letters.
func TestCheckState(t *testing.T) {
	tests := map[string]struct {
		start       string
		rise, fall  int
		marks, want string
	}{
		"in with the first pass":             {CheckStarting, 1, 3, "p", "p"},
		"out until it has risen":             {CheckStarting, 3, 3, "pppp", "sspp"},
		"a failure breaks the rise":          {CheckStarting, 2, 3, "pfpfpp", "sssssp"},
		"never passed":                       {CheckStarting, 1, 3, "ffff", "ssff"},
		"in until it has fallen":             {CheckPassing, 1, 3, "ffff", "ppff"},
		"a pass breaks the fall":             {CheckPassing, 1, 3, "ffpffpfff", "ppppppppf"},
		"back after one pass":                {CheckFailing, 1, 3, "fp", "fp"},
		"back after two passes":              {CheckFailing, 2, 3, "pfpp", "fffp"},
		"out with the first failure":         {CheckPassing, 1, 1, "fpfp", "fpfp"},
		"in until proven otherwise":          {CheckAssumed, 1, 3, "fff", "aaf"},
		"proven right":                       {CheckAssumed, 2, 3, "fpp", "aap"},
		"proven right by the second of both": {CheckAssumed, 2, 2, "fpfpff", "aaaaaf"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := &check{rise: test.rise, fall: test.fall}
			s := checkState{word: test.start, since: epoch}
			var got strings.Builder
			for i, mark := range test.marks {
				f := finding{at: epoch.Add(time.Duration(i+1) * time.Second)}
				if mark == 'f' {
					f.why = "no"
				}
				before := s
				s = s.after(f, c)
				got.WriteByte(s.word[0])
				if s.last != f {
					t.Errorf("finding %d: got last %v, want %v", i, s.last, f)
				}
				since := before.since
				if s.word != before.word {
					since = f.at
				}
				if !s.since.Equal(since) {
					t.Errorf("finding %d: got %s since %v, want %v", i, s.word, s.since, since)
				}
			}
			if got.String() != test.want {
				t.Errorf("%s after %s: got %s, want %s", test.start, test.marks, got.String(), test.want)
			}
		})
	}
}

func TestCheckStateIsIn(t *testing.T) {
	for word, want := range map[string]bool{CheckStarting: false, CheckAssumed: true, CheckPassing: true, CheckFailing: false} {
		if got := (checkState{word: word}).in(); got != want {
			t.Errorf("%s: got in %v, want %v", word, got, want)
		}
	}
}

func TestPause(t *testing.T) {
	slow, quick := &check{interval: time.Minute}, &check{interval: 200 * time.Millisecond}
	for _, test := range []struct {
		name  string
		check *check
		state checkState
		age   time.Duration
		want  time.Duration
	}{
		{"new", slow, checkState{word: CheckStarting}, 0, time.Second},
		{"new and never right", slow, checkState{word: CheckFailing}, 59 * time.Second, time.Second},
		{"new for too long", slow, checkState{word: CheckFailing}, time.Minute, time.Minute},
		{"new and quick anyway", quick, checkState{word: CheckStarting}, 0, 200 * time.Millisecond},
		{"in", slow, checkState{word: CheckPassing, once: true}, 0, time.Minute},
		{"in by the benefit of the doubt", slow, checkState{word: CheckAssumed}, 0, time.Minute},
		{"out again", slow, checkState{word: CheckFailing, once: true}, 0, time.Minute},
	} {
		if got := test.state.pause(test.check, test.age); got != test.want {
			t.Errorf("%s: got %v, want %v", test.name, got, test.want)
		}
	}
}

const checkedWeb = "SERVICE_80_CHECK_HTTP=/health"

func TestCheckDefaults(t *testing.T) {
	c := container("a", named(web, checkedWeb), both("80/tcp=8080")...)
	got := mustRules(t, nil).plan(c, c).claims[0].options.check
	want := check{
		path: "/health", from: "label SERVICE_80_CHECK_HTTP",
		interval: 10 * time.Second, timeout: 2 * time.Second, rise: 1, fall: 3,
	}
	if *got != want {
		t.Errorf("got  %+v\nwant %+v", *got, want)
	}
	brief := with(c, func(c *agent.Container) { c.Labels["SERVICE_CHECK_INTERVAL"] = "1s" })
	if got := mustRules(t, nil).plan(brief, brief).claims[0].options.check; got.interval != time.Second || got.timeout != time.Second {
		t.Errorf("got %v within %v, want the time-out to fit into the interval of 1s", got.timeout, got.interval)
	}
}

func TestChecksAreOff(t *testing.T) {
	r := mustRules(t, func(c *Config) { c.Checks.Enabled = false })
	c := container("a", named(web, checkedWeb), both("80/tcp=8080")...)
	v := r.evaluate(snapshot(c), testNow, new(memo))
	checkLines(t, linesOf(v.set), "_web._tcp.berth.internal. 5 IN SRV 1 1 8080 n1.berth.internal.")
	if len(v.checks()) != 0 {
		t.Errorf("got %d checks, want none", len(v.checks()))
	}
	if e := v.explain(c); !slices.ContainsFunc(e.Reasons, func(r agent.Reason) bool { return r.Rule == "checks are off on this host" }) {
		t.Errorf("got %v, want it said", e.Reasons)
	}
}

// A path is part of a request, and nothing more.
func TestCheckPath(t *testing.T) {
	for value, want := range map[string]bool{
		"/": true, "/health": true, "/health?deep=1": true, "/a%20b": true, "//health": false,
		"health": false, "http://other/": false, "//other/": false, "/a b": true, "/a\r\nHost: other": false, "/\x00": false, "*": false,
	} {
		if got := isPath(value); got != want {
			t.Errorf("%q: got %v, want %v", value, got, want)
		}
	}
}

// Runs that began before berth did may be in DNS: a restart must not change that.
func TestNewCheckState(t *testing.T) {
	r := mustRules(t, nil)
	r.began = epoch
	for _, test := range []struct {
		name    string
		started time.Time
		labels  []string
		want    string
		lines   int
	}{
		{"older than berth", epoch.Add(-time.Hour), nil, CheckAssumed, 1},
		{"as old as berth", epoch, nil, CheckAssumed, 1},
		{"started under its eyes", epoch.Add(time.Nanosecond), nil, CheckStarting, 0},
		{"trusted", epoch.Add(time.Second), []string{"SERVICE_CHECK_INITIAL_STATUS=passing"}, CheckAssumed, 1},
	} {
		c := with(container("a", named(append(test.labels, web, checkedWeb)...), both("80/tcp=8080")...), func(c *agent.Container) { c.StartedAt = test.started })
		v := r.evaluate(snapshot(c), testNow, new(memo))
		if got := v.checks()[0].state.word; got != test.want {
			t.Errorf("%s: got %s, want %s", test.name, got, test.want)
		}
		if got, want := v.checks()[0].key, (checkKey{c.Run(), 80}); got != want {
			t.Errorf("%s: got key %v, want %v, as each run is judged anew", test.name, got, want)
		}
		if got := len(linesOf(v.set)); got != test.lines {
			t.Errorf("%s: got %d records, want %d", test.name, got, test.lines)
		}
	}
}

// What is being stopped, is paused or drained, or has no place, is not checked,
// but not forgotten either; what ended is.
func TestWhenChecksRest(t *testing.T) {
	r := mustRules(t, nil)
	c := container("a", named(web, checkedWeb), both("80/tcp=8080")...)
	for _, test := range []struct {
		name   string
		change func(*agent.Container)
		want   string
	}{
		{"running", func(*agent.Container) {}, "10.0.0.5:8080"},
		{"unhealthy", func(c *agent.Container) { c.Health = agent.HealthUnhealthy }, "10.0.0.5:8080"},
		{"IPv6 only", func(c *agent.Container) { c.Ports = ports("80/tcp=[2001:db8::5]:8080") }, "[2001:db8::5]:8080"},
		{"on its own network", func(c *agent.Container) { c.Labels = named(web, checkedWeb, "SERVICE_80_NETWORK=bridge") }, "172.17.0.2:80"},
		{"paused", func(c *agent.Container) { c.State = agent.StatePaused }, "invalid AddrPort"},
		{"stopping", func(c *agent.Container) { c.StoppingSince = testNow }, "invalid AddrPort"},
		{"not published", func(c *agent.Container) { c.Ports = ports("80/tcp") }, "invalid AddrPort"},
		{"exited", func(c *agent.Container) { c.State = agent.StateExited }, ""},
	} {
		var got string
		for _, ck := range r.evaluate(snapshot(with(c, test.change)), testNow, new(memo)).checks() {
			got += ck.target.String()
		}
		if got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
	snap := snapshot(c)
	snap.Drain = &agent.Drain{Reason: "test"}
	if got := r.evaluate(snap, testNow, new(memo)).checks(); len(got) != 1 || got[0].target.IsValid() {
		t.Errorf("drained: got %+v, want one that rests", got)
	}
}

func TestChecksConfigValidate(t *testing.T) {
	if err := DefaultConfig().Checks.Validate(); err != nil {
		t.Errorf("the default: %v", err)
	}
	for want, change := range map[string]func(*ChecksConfig){
		"concurrency: 0 is not between 1 and 1024":               func(c *ChecksConfig) { c.Concurrency = 0 },
		"concurrency: 1025 is not between 1 and 1024":            func(c *ChecksConfig) { c.Concurrency = 1025 },
		"min_interval: 0s is not between 100ms and 1h":           func(c *ChecksConfig) { c.MinInterval = 0 },
		"interval: 10s is not between min_interval, which is 1m": func(c *ChecksConfig) { c.MinInterval *= 60 },
		"interval: 1d is not between min_interval":               func(c *ChecksConfig) { c.Interval *= 8640 },
		"timeout: 0s is not between":                             func(c *ChecksConfig) { c.Timeout = 0 },
		"timeout: 20s is not between":                            func(c *ChecksConfig) { c.Timeout *= 10 },
		"rise: 0 is not between 1 and 100":                       func(c *ChecksConfig) { c.Rise = 0 },
		"fall: 101 is not between 1 and 100":                     func(c *ChecksConfig) { c.Fall = 101 },
	} {
		cfg := DefaultConfig()
		change(&cfg.Checks)
		if err := cfg.Checks.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got error %v, want %q", err, want)
		}
		if _, err := New(cfg, testEnv()); err == nil {
			t.Errorf("New accepts what Validate refuses: %q", want)
		}
	}
}
