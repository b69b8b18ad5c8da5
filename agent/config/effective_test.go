package config

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares got with a file of testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s (run with -update to accept):\ngot:\n%s\nwant:\n%s", name, got, want)
	}
}

// full is a config in two files that uses every shape.
var full = []string{
	`log_level: debug
discovery:
  zone: "true."
  host: 192.0.2.7
  dns: {listen: ["127.0.0.1:5300", "[::1]:5300"]}
  tls:
    cert: /etc/cert.pem
    key: file:/etc/berth/tls.key
tags: {env: "", number: 7, odd.key: "a: b # c", lines: "one\ntwo", "ü": "\u202e"}
`, `statsd: {rate: 0.0000001, threads: 9}
prune:
  rules:
    - match: /a
    - {match: /b, keep: 2d}
buckets:
  main: {region: eu-central-1, password: env:BUCKET_PASSWORD}
`,
}

func TestEffective(t *testing.T) {
	cfg, res := mustLoad(t, full...)
	golden(t, "effective.yaml", Effective(&cfg, res))
	golden(t, "effective.json", JSON(cfg, res))
}

func TestEffectiveOfDefaults(t *testing.T) {
	got := string(Effective(defaults(), nil))
	for line := range strings.Lines(got) {
		text, comment, _ := strings.Cut(line, "  # ")
		if !strings.HasSuffix(strings.TrimSpace(text), ":") && !strings.Contains(text, "- /") && strings.TrimSpace(comment) != "default" {
			t.Errorf("got line %q, want the comment \"default\"", line)
		}
	}
}

// roundTrip fails unless the effective config loads to the same struct.
func roundTrip(t *testing.T, cfg daemon, res *Result) {
	t.Helper()
	out := Effective(cfg, res)
	again, _, err := load(string(out))
	if err != nil {
		t.Fatalf("the effective config does not load: %v\n%s", err, out)
	}
	if diff := equal(cfg, again); diff != "" {
		t.Fatalf("loaded (-), printed and loaded (+):\n%s\n%s", diff, out)
	}
}

func TestEffectiveRoundTrip(t *testing.T) {
	cfg, res := mustLoad(t, full...)
	roundTrip(t, cfg, res)
	cfg, res = mustLoad(t)
	roundTrip(t, cfg, res)
}

// Text is only bare where no YAML parser takes it for anything else.
func TestQuote(t *testing.T) {
	for text, bare := range map[string]bool{
		"a": true, "a-b_c": true, "/a/*": true, "10s": true, "1.2.3.4": true, "85%": true, "a=b": true, "x.y:z": true,
		"1": false, "1.5": false, "1e3": false, "0x1f": false, "1_000": false, "12:30": false, "true": false, "No": false, "": false,
		"a b": false, "a:": false, "-a": false, "*": false, "é": false, "a#b": false, "{a": false,
	} {
		want := text
		if !bare {
			want = `"` + text + `"`
		}
		if got := quote(text, false); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if got, want := quote("a:b", true), `"a:b"`; got != want {
		t.Errorf("in brackets: got %s, want %s", got, want)
	}
}

func TestQuoteRoundTrip(t *testing.T) {
	for _, text := range []string{
		"", " ", "a", "a b", "a: b", "a:", ":a", "a #b", "#", "-", "- a", "--- ", "...", "*a", "&a", "!a", "%a", "@a", "`", "'", `"`, `\`, `\n`,
		"\n", "a\nb\n", "\t", "\r", "\x00", "\x7f", "\u0085", "\u2028", "\ufeff", "\U0001F600", "\u202e", "null", "~", "True", "NO", "1", "-1", "1e3",
		"0x1f", "017", "0o17", "1_000", "12:30", "1.5", ".5", ".inf", "2001-01-01", "10.0.0.1", "::1", "[a]", "{a}", "a,b", "<<", "=", "?", "? a", "|", ">",
		"a\\", "é", "http://x/y?z=1", "192.0.2.1:53", "1:2:3", "0", "+1", "1.", "1__0",
	} {
		cfg, res := mustLoad(t)
		cfg.Tags = map[string]string{"k": text, text: "v"}
		cfg.Prune.Rules = []rule{{Match: "/" + text}}
		out := Effective(cfg, res)
		again := defaults()
		again.Tags = nil
		if _, err := Load(&again, File{Name: "x", Data: out}); err != nil {
			t.Errorf("%q: %v\n%s", text, err, out)
		} else if diff := equal(cfg, again); diff != "" {
			t.Errorf("%q: printed (-), loaded (+):\n%s\n%s", text, diff, out)
		}
	}
}

func TestJSON(t *testing.T) {
	cfg, res := mustLoad(t, full...)
	var got struct {
		Config  map[string]any    `json:"config"`
		Origins map[string]string `json:"origins"`
	}
	if err := json.Unmarshal(JSON(&cfg, res), &got); err != nil {
		t.Fatal(err)
	}
	if got, want := got.Config["discovery"].(map[string]any)["ttl"], "10s"; got != want {
		t.Errorf("discovery.ttl: got %v, want %v", got, want)
	}
	if got, want := got.Origins["prune.rules[1].keep"], "b.yaml:5"; got != want {
		t.Errorf("origin: got %q, want %q", got, want)
	}
}

// hidden is a secret. It must appear in nothing that is printed.
const hidden = "hunter2-is-hidden"

func TestSecretIsNeverPrinted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(hidden+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("BERTH_TEST_SECRET", hidden)
	cfg, res := mustLoad(t, "statsd: {token: env:BERTH_TEST_SECRET}\nbuckets: {b: {password: 'file:"+path+"'}}\n")
	for _, s := range []Secret{cfg.Statsd.Token, cfg.Buckets["b"].Password} {
		if v, err := s.Value(); v != hidden || err != nil {
			t.Fatalf("value: got %q, %v, want %q", v, err, hidden)
		}
	}
	var log bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(h).Info("config", "cfg", cfg, "token", cfg.Statsd.Token, "any", slog.AnyValue(&cfg.Statsd.Token))
	}
	marshalled, err := json.Marshal(map[string]any{"token": cfg.Statsd.Token, "all": cfg.Buckets})
	if err != nil {
		t.Fatal(err)
	}
	printed := fmt.Sprintf("%v %+v %#v %s %q %x %d %v", cfg, cfg, cfg, cfg.Statsd.Token, cfg.Statsd.Token, cfg.Statsd.Token, cfg.Statsd.Token, &cfg)
	for what, out := range map[string]string{
		"fmt": printed, "slog": log.String(), "json.Marshal": string(marshalled),
		"Effective": string(Effective(cfg, res)), "JSON": string(JSON(cfg, res)),
	} {
		if strings.Contains(out, hidden) {
			t.Errorf("%s prints the secret:\n%s", what, out)
		}
		out = strings.NewReplacer(`\u003c`, "<", `\u003e`, ">").Replace(out)
		if what != "Effective" && what != "JSON" && (strings.Contains(out, "BERTH_TEST_SECRET") || !strings.Contains(out, redacted)) {
			t.Errorf("%s does not redact:\n%s", what, out)
		}
	}
}

// Someone writes the secret itself into a config, in whatever way and in
// whatever broken file: no message may repeat it.
func TestSecretIsNeverPrintedByErrors(t *testing.T) {
	for _, text := range []string{
		"statsd: {token: SECRET}\n",
		"statsd: {token: file:/x, token: SECRET}\n",
		"statsd:\n  token: SECRET\n",
		"statsd:\n  token: 'SECRET'\n",
		"statsd:\n  token:SECRET\n",
		"statsd:\n  token:\n    SECRET\n",
		"statsd:\n  token: |\n    SECRET\n    SECRET\n",
		"statsd:\n  token: >-\n\n\n    SECRET\n  rate: x\n",
		"statsd:\n  token: [SECRET]\n",
		"statsd:\n  token:\n  - SECRET\n  rate: x\n",
		"statsd:\n  token: {a: SECRET}\n",
		"statsd:\n  token: !x SECRET\n",
		"statsd:\n  token: &x SECRET\n",
		"statsd:\n  tokn: SECRET\n",
		"statsd:\n  Token: SECRET\n",
		"token: SECRET\n",
		"statsd:\n  token: SECRET\n  rate: x\n",
		"statsd:\n  token: \"SECRET\n  rate: x\n",
		"statsd:\n  token: file:/ok, SECRET: [\n",
		"buckets:\n  - password: SECRET\n    region: [x\n",
		"buckets: {a: {region: x, password: SECRET, x: y}}\n",
		"buckets: {a: {\"password\": SECRET}}\n",
		"password: @SECRET\n",
		"statsd:\n  token: file:SECRET\n",
		"statsd:\n  token: env:SEC RET SECRET\n",
	} {
		_, _, err := load(strings.ReplaceAll(text, "SECRET", hidden))
		bad, ok := err.(*Errors)
		if !ok {
			t.Errorf("%q: got %v, want *Errors", text, err)
			continue
		}
		var b bytes.Buffer
		if err := bad.Format(&b, true); err != nil {
			t.Fatal(err)
		}
		for _, out := range []string{b.String(), bad.Error(), fmt.Sprintf("%+v", bad.List[0])} {
			if strings.Contains(out, hidden) {
				t.Errorf("%q: the error shows the secret:\n%s", text, out)
			}
		}
	}
	cfg := defaults()
	_, err := Load(&cfg, Override("flag --token", "statsd.token", hidden))
	if err == nil || strings.Contains(err.Error(), hidden) {
		t.Errorf("override: got %v, want an error without the secret", err)
	}
}

func FuzzLoad(f *testing.F) {
	broken, err := filepath.Glob("testdata/broken/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range broken {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, text := range full {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, res, err := load(string(data))
		if bad, ok := err.(*Errors); ok {
			if err := bad.Format(&bytes.Buffer{}, true); err != nil {
				t.Fatal(err)
			}
			return
		}
		roundTrip(t, cfg, res)
		if out := JSON(cfg, res); !json.Valid(out) {
			t.Fatalf("not JSON: %s", out)
		}
	})
}
