package config

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// daemon is a realistic root of a config: what a command would compose of its
// components' Config structs.
type daemon struct {
	// LogLevel is how much berth logs.
	LogLevel level `yaml:"log_level"`
	// Discovery publishes containers in DNS.
	Discovery discovery `yaml:"discovery"`
	// Statsd relays metrics.
	Statsd statsd `yaml:"statsd"`
	// Prune deletes log folders of containers that are gone.
	Prune prune `yaml:"prune"`
	// Tags are added to every metric.
	Tags map[string]string `yaml:"tags"`
	// Buckets are the places that logs are shipped to, by name.
	Buckets map[string]bucket `yaml:"buckets"`

	// Ignored is no setting.
	Ignored int `yaml:"-"`
}

type level string

func (level) Values() []string { return []string{"debug", "info", "warning", "error"} }

type discovery struct {
	// Zone is the domain that every name lies in. It ends with a dot.
	Zone string `yaml:"zone"`
	// TTL is how long resolvers may keep an answer.
	TTL Duration `yaml:"ttl"`
	// Host overrides the address that is published; without it, berth finds
	// the address of the default route.
	Host *netip.Addr `yaml:"host"`
	// DNS is the embedded server.
	DNS dns `yaml:"dns"`
	// TLS protects the zone transfer. Without it there is none.
	TLS *tls `yaml:"tls"`
}

func (d *discovery) Validate() error {
	var errs []error
	if !strings.HasSuffix(d.Zone, ".") {
		errs = append(errs, Fieldf("zone", "%q does not end with a dot: write %q", d.Zone, d.Zone+"."))
	}
	if d.TTL.Std() > time.Hour {
		errs = append(errs, Fieldf("ttl", "more than 1h keeps the dead alive"))
	}
	if d.TTL == 0 && d.Zone == "fast." {
		errs = append(errs, errors.New("a fast zone needs a ttl"))
	}
	return errors.Join(errs...)
}

type dns struct {
	// Listen are the addresses that the server answers on.
	Listen []netip.AddrPort `yaml:"listen"`
	// Networks may ask.
	Networks []netip.Prefix `yaml:"networks"`
	// Recurse forwards other names.
	Recurse bool `yaml:"recurse"`
}

type tls struct {
	// Cert is the path of the certificate.
	Cert string `yaml:"cert"`
	// Key is the private key.
	Key Secret `yaml:"key"`
	// MinVersion is the oldest version that is spoken.
	MinVersion int8 `yaml:"min_version"`
}

func (t *tls) SetDefaults() { t.MinVersion = 12 }

func (t tls) Validate() error {
	if t.Cert == "" {
		return Fieldf("cert", "missing: write the path of a certificate")
	}
	return nil
}

type statsd struct {
	// Listen is where packets come in.
	Listen netip.AddrPort `yaml:"listen"`
	// Buffer is how much may wait.
	Buffer Size `yaml:"buffer"`
	// Rate is the part of packets that is kept.
	Rate float64 `yaml:"rate"`
	// Threads receive.
	Threads uint16 `yaml:"threads"`
	// Token is sent along with every batch.
	Token Secret `yaml:"token"`
}

type prune struct {
	// Enabled deletes for real; otherwise berth only says what it would
	// delete.
	Enabled bool `yaml:"enabled"`
	// High is how full the disk may get.
	High Percent `yaml:"high"`
	// Rules are tried in order.
	Rules []rule `yaml:"rules"`
}

type rule struct {
	// Match is a pattern of folders.
	Match string `yaml:"match"`
	// Keep is how long a folder stays after its container is gone.
	Keep Duration `yaml:"keep"`
}

func (r *rule) SetDefaults() { r.Keep = Duration(7 * day) }

func (r *rule) Validate() error {
	if !strings.HasPrefix(r.Match, "/") {
		return Fieldf("match", "must be an absolute path")
	}
	return nil
}

type bucket struct {
	// Region is where the bucket is.
	Region string `yaml:"region"`
	// Password opens it.
	Password Secret `yaml:"password"`
}

func defaults() daemon {
	return daemon{
		LogLevel: "info",
		Discovery: discovery{
			Zone: "service.internal.", TTL: Duration(10 * time.Second),
			DNS: dns{Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}},
		},
		Statsd: statsd{Listen: netip.MustParseAddrPort("127.0.0.1:8125"), Buffer: 4 << 20, Rate: 1, Threads: 2},
		Prune:  prune{High: 85, Rules: []rule{{Match: "/var/log/containers/*", Keep: Duration(day)}}},
		Tags:   map[string]string{"agent": "berth"},
	}
}

// load parses texts as files a.yaml, b.yaml, … on top of the defaults.
func load(texts ...string) (daemon, *Result, error) {
	var files []File
	for i, text := range texts {
		files = append(files, File{Name: string(rune('a'+i)) + ".yaml", Data: []byte(text)})
	}
	cfg := defaults()
	res, err := Load(&cfg, files...)
	return cfg, res, err
}

func mustLoad(t *testing.T, texts ...string) (daemon, *Result) {
	t.Helper()
	cfg, res, err := load(texts...)
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	return cfg, res
}

// equal compares configs; an empty list and none are the same to their users.
func equal(a, b any) string {
	return cmp.Diff(a, b, cmp.Comparer(func(a, b Secret) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
		cmp.FilterValues(bothEmpty, cmp.Ignore()))
}

func bothEmpty(a, b any) bool { return isEmpty(a) && isEmpty(b) }

func isEmpty(v any) bool {
	switch v := v.(type) {
	case []netip.AddrPort:
		return len(v) == 0
	case []netip.Prefix:
		return len(v) == 0
	case []rule:
		return len(v) == 0
	case map[string]string:
		return len(v) == 0
	case map[string]bucket:
		return len(v) == 0
	}
	return false
}

func TestLoadEverything(t *testing.T) {
	got, _ := mustLoad(t, `
log_level: debug
discovery:
  zone: "example."
  ttl: 1m
  host: 192.0.2.7
  dns: {listen: ["127.0.0.1:5300", "[::1]:5300"], networks: [10.0.0.0/8], recurse: true}
  tls:
    cert: /etc/cert.pem
    key: env:TLS_KEY
statsd:
  listen: 127.0.0.1:9125
  buffer: 8MiB
  rate: 0.5
  threads: 4
  token: file:/etc/berth/token
prune:
  enabled: true
  high: 90%
  rules:
    - match: /a
    - {match: /b, keep: 2d}
tags: {env: prod, shard: 7, canary: true}
buckets:
  main:
    region: eu-central-1
`)
	host := netip.MustParseAddr("192.0.2.7")
	want := daemon{
		LogLevel: "debug",
		Discovery: discovery{
			Zone: "example.", TTL: Duration(time.Minute), Host: &host,
			DNS: dns{
				Listen:   []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:5300"), netip.MustParseAddrPort("[::1]:5300")},
				Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Recurse: true,
			},
			TLS: &tls{Cert: "/etc/cert.pem", Key: Secret{"env:TLS_KEY"}, MinVersion: 12},
		},
		Statsd: statsd{Listen: netip.MustParseAddrPort("127.0.0.1:9125"), Buffer: 8 << 20, Rate: 0.5, Threads: 4, Token: Secret{"file:/etc/berth/token"}},
		Prune: prune{Enabled: true, High: 90, Rules: []rule{
			{Match: "/a", Keep: Duration(7 * day)}, {Match: "/b", Keep: Duration(2 * day)},
		}},
		Tags:    map[string]string{"agent": "berth", "env": "prod", "shard": "7", "canary": "true"},
		Buckets: map[string]bucket{"main": {Region: "eu-central-1"}},
	}
	if diff := equal(got, want); diff != "" {
		t.Errorf("got (-), want (+):\n%s", diff)
	}
}

func TestLoadNothing(t *testing.T) {
	for _, text := range []string{
		"", "\n", "# only a comment\n", "---\n", "\ufeff", "{}\n",
		"discovery:\n  # zone: x.\n  dns:\n    # listen: []\ntags:\nbuckets:\n",
	} {
		got, _ := mustLoad(t, text)
		if diff := equal(got, defaults()); diff != "" {
			t.Errorf("%q: got (-), want (+):\n%s", text, diff)
		}
	}
}

// All ways of YAML to write the same.
func TestYAMLForms(t *testing.T) {
	want, _ := mustLoad(t, "tags: {a: one two, b: \"x\\ny\\n\", c: \"x y\", d: \"true\"}\nlog_level: debug\nprune: {rules: [{match: /a}]}\n")
	for _, text := range []string{
		"---\ntags:\n  a: one\n    two\n  b: |\n    x\n    y\n  c: >-\n    x\n    y\n  d: true\nlog_level: debug\nprune:\n  rules:\n  - match: /a\n...\n",
		"# c\n\"log_level\" : 'debug' # c\n\n'tags': # c\n  # c\n  a: 'one\n    two'\n  b: \"x\\ny\\n\"\n\n  c: 'x y'\n  d: 'true'\nprune:\n    rules:\n        -\n          # c\n          match: /a # c\n",
		"{log_level: debug, tags: {a: one two, b: \"x\\u000Ay\\x0A\",\n c: 'x y', # c\n d: true},\n prune: {rules: [\n  {match: /a}, # c\n ]}}\n",
		"tags:\r\n  a: one two\r\n  b: |\r\n    x\r\n    y\r\n  c: x y\r\n  d: true\r\nlog_level: debug\r\nprune:\r\n  rules:\r\n    - match: /a\r\n",
	} {
		got, _, err := load(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
		} else if diff := equal(got, want); diff != "" {
			t.Errorf("%q: got (-), want (+):\n%s", text, diff)
		}
	}
}

func TestMerge(t *testing.T) {
	host := "discovery: {host: 192.0.2.1}"
	got, res := mustLoad(t,
		"log_level: debug\nprune:\n  rules: [{match: /a}, {match: /b}]\ntags: {x: 1, y: 1}\nbuckets: {m: {region: r, password: env:P}}\n"+host,
		"discovery:\n  ttl: 3s\nprune:\n  rules:\n  - match: /c\n    keep: 1h\ntags: {y: 2}\nbuckets: {m: {region: q}}\n",
		"log_level: error\ndiscovery: {host: null}\n")
	want := defaults()
	want.LogLevel = "error"
	want.Discovery.TTL = Duration(3 * time.Second)
	want.Prune.Rules = []rule{{Match: "/c", Keep: Duration(time.Hour)}}
	want.Tags = map[string]string{"agent": "berth", "x": "1", "y": "2"}
	want.Buckets = map[string]bucket{"m": {Region: "q", Password: Secret{"env:P"}}}
	if diff := equal(got, want); diff != "" {
		t.Errorf("got (-), want (+):\n%s", diff)
	}
	for path, want := range map[string]string{
		"log_level": "c.yaml:1", "discovery.ttl": "b.yaml:2", "discovery.zone": "default", "discovery.host": "c.yaml:2",
		"prune.rules": "b.yaml:4", "prune.rules[0].keep": "b.yaml:6", "prune.rules[1].match": "default",
		"tags.x": "a.yaml:4", "tags.y": "b.yaml:7", "tags.agent": "default", "buckets.m.password": "a.yaml:5", "buckets.m.region": "b.yaml:8",
	} {
		if got := res.Origin(path).String(); got != want {
			t.Errorf("origin of %s: got %s, want %s", path, got, want)
		}
	}
}

// Defaults are often package variables: loading must not change what they
// share with the struct.
func TestLoadLeavesDefaultsAlone(t *testing.T) {
	shared := defaults()
	addr := netip.MustParseAddr("192.0.2.9")
	shared.Discovery.Host = &addr
	shared.Discovery.TLS = &tls{Cert: "/x"}
	cfg := shared
	if _, err := Load(&cfg, File{Name: "a", Data: []byte(
		"discovery: {host: 192.0.2.1, tls: {cert: /y}, dns: {listen: ['127.0.0.2:53']}}\ntags: {agent: x}\nprune: {rules: [{match: /z}]}\n",
	)}); err != nil {
		t.Fatal(err)
	}
	want := defaults()
	want.Discovery.Host, want.Discovery.TLS = &addr, &tls{Cert: "/x"}
	if addr != netip.MustParseAddr("192.0.2.9") {
		t.Errorf("the default address is now %s", addr)
	}
	if diff := equal(shared, want); diff != "" {
		t.Errorf("the defaults changed: got (-), want (+):\n%s", diff)
	}
}

func TestOverride(t *testing.T) {
	cfg := defaults()
	res, err := Load(&cfg,
		File{Name: "a.yaml", Data: []byte("log_level: debug\n")},
		Override("flag --log-level", "log_level", "error"),
		Override("env BERTH_ZONE", "discovery.zone", "a: b # c."),
		Override("flag --listen", "discovery.dns.listen", "[127.0.0.9:53]"),
		Override("flag --cert", "discovery.tls.cert", "/c"),
		Override("flag --tag", "tags.env", "prod"),
		Override("flag --prune", "prune.enabled", "true"))
	if err != nil {
		t.Fatal(err)
	}
	want := defaults()
	want.LogLevel, want.Discovery.Zone, want.Prune.Enabled = "error", "a: b # c.", true
	want.Discovery.DNS.Listen = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.9:53")}
	want.Discovery.TLS = &tls{Cert: "/c", MinVersion: 12}
	want.Tags["env"] = "prod"
	if diff := equal(cfg, want); diff != "" {
		t.Errorf("got (-), want (+):\n%s", diff)
	}
	for path, want := range map[string]string{"log_level": "flag --log-level", "discovery.zone": "env BERTH_ZONE", "discovery.tls.cert": "flag --cert", "discovery.tls.key": "default", "tags.env": "flag --tag"} {
		if got := res.Origin(path).String(); got != want {
			t.Errorf("origin of %s: got %s, want %s", path, got, want)
		}
	}
}

func TestOverrideErrors(t *testing.T) {
	cfg := defaults()
	_, err := Load(&cfg,
		Override("flag --a", "log_lvl", "x"), Override("flag --b", "statsd.rate", "fast"),
		Override("flag --c", "statsd.rate.x", "1"), Override("flag --d", "statsd.threads", ""),
		Override("flag --e", "prune.enabled", "[ }"), Override("flag --f", "discovery.ttl", "2d"))
	if err == nil {
		t.Fatal("no error")
	}
	want := []string{
		`flag --a: unknown key "log_lvl": did you mean "log_level"?`,
		`flag --b: statsd.rate: "fast" is not a number: write a number, such as 0.5`,
		`flag --c: statsd.rate: there is no key "x" below`,
		`flag --d: statsd.threads: there is no value: write a whole number from 0, such as 10`,
		`flag --e: prune.enabled: syntax error: `,
		`flag --f: discovery.ttl: more than 1h keeps the dead alive`,
	}
	got := strings.Split(err.Error(), "\n")
	if !slices.EqualFunc(got, want, strings.HasPrefix) {
		t.Errorf("got:\n%s\nwant:\n%s", err, strings.Join(want, "\n"))
	}
}
