package config

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
)

// TestBroken compares what is said of every file of testdata/broken.
func TestBroken(t *testing.T) {
	paths, err := filepath.Glob("testdata/broken/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(paths) < 20 {
		t.Fatalf("got %d broken configs, want at least 20", len(paths))
	}
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".yaml")
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			cfg := defaults()
			_, err = Load(&cfg, File{Name: name + ".yaml", Data: data})
			bad, ok := errors.AsType[*Errors](err)
			if !ok {
				t.Fatalf("got %v, want *Errors", err)
			}
			var b bytes.Buffer
			if err := bad.Format(&b, false); err != nil {
				t.Fatal(err)
			}
			golden(t, filepath.Join("broken", name+".golden"), b.Bytes())
			for _, e := range bad.List {
				if e.Line < 1 || e.Column < 1 {
					t.Errorf("%v has no place", e)
				}
			}
		})
	}
}

func TestFormatInColour(t *testing.T) {
	_, _, err := load("lisen: x\n", "log_level: 3\n\ttabs: x\n")
	bad, ok := errors.AsType[*Errors](err)
	if !ok {
		t.Fatalf("got %v, want *Errors", err)
	}
	var b bytes.Buffer
	if err := bad.Format(&b, true); err != nil {
		t.Fatal(err)
	}
	golden(t, "colour.golden", b.Bytes())
}

// Every place is exact: the caret is below what is meant.
func TestPlaces(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"x: 1\n", "a.yaml:1:1"},
		{"\ufeffx: 1\n", "a.yaml:1:1"},
		{"statsd:\r\n  x: 1\r\n", "a.yaml:2:3"},
		{"statsd: {rate: 'a', thread: 1}\n", "a.yaml:1:16 a.yaml:1:21"},
		{"tags: {é: é}\nlog_level: é\n", "a.yaml:2:12"},
		{"tags: {é: é, ü: [x]}\n", "a.yaml:1:17"},
		{"statsd:\n  rate: x   \n \n", "a.yaml:2:9"},
		{"statsd:\n  rate: \"\\u0041\"   # c\n", "a.yaml:2:9"},
		{"statsd:\n  threads: -1 \n \n", "a.yaml:2:12"},
		{"buckets:\n  1: 1 \n \n", "a.yaml:2:6"},
		{"statsd:\n\n  # c\n\n  rate:    x\n", "a.yaml:5:12"},
		{"prune:\n  rules:\n  - match: /a\n    keep: 1\n  -   keep: 2\n      match: /b\n", "a.yaml:4:11 a.yaml:5:13"},
		{"log_level: |\n  a\n  b\nstatsd: []\n", "a.yaml:1:12 a.yaml:4:9"},
		{"statsd:\n  rate: 'a\n    b'\n  threads: c\n", "a.yaml:2:9 a.yaml:4:12"},
	} {
		_, _, err := load(tt.text)
		bad, ok := errors.AsType[*Errors](err)
		if !ok {
			t.Errorf("%q: got %v, want *Errors", tt.text, err)
			continue
		}
		var got []string
		for _, e := range bad.List {
			got = append(got, strings.TrimSuffix(e.place(), ": "))
		}
		if got := strings.Join(got, " "); got != tt.want {
			t.Errorf("%q: got %s, want %s\n%v", tt.text, got, tt.want, err)
		}
	}
}

func TestErrorsOfAllFilesAreSorted(t *testing.T) {
	_, _, err := load("prune: 1\nx: 1\n", "[\n", "discovery: {ttl: 3, tls: {}}\n")
	var got []string
	bad, _ := errors.AsType[*Errors](err)
	for _, e := range bad.List {
		got = append(got, e.place()+e.Path)
	}
	want := []string{"a.yaml:1:8: prune", "a.yaml:2:1: ", "b.yaml:1:1: ", "c.yaml:1:18: discovery.ttl"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestValidateUsesTheMergedOutcome(t *testing.T) {
	if _, _, err := load("discovery: {ttl: 2h}\n", "discovery: {ttl: 1s}\n"); err != nil {
		t.Errorf("the bad value is overridden: got %v, want no error", err)
	}
	_, _, err := load("discovery:\n  zone: fast.\n", "\n\ndiscovery: {ttl: 0}\n")
	if got, want := err.Error(), "b.yaml:3:1: discovery: a fast zone needs a ttl"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	cfg := defaults()
	cfg.Discovery.Zone = "x"
	_, err = Load(&cfg)
	if got, want := err.Error(), `defaults: discovery.zone: "x" does not end with a dot: write "x."`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	var fe *FieldError
	if !errors.As(err, &fe) || fe.Field != "zone" {
		t.Errorf("got %v, want it to wrap a *FieldError of zone", err)
	}
}

func TestReadDir(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	confd := filepath.Join(dir, "conf.d")
	if err := os.Mkdir(confd, 0o755); err != nil {
		t.Fatal(err)
	}
	write("berth.yaml", "log_level: debug\n")
	for _, name := range []string{"20-b.yaml", "10-a.yaml", "10-a.yaml.dpkg-dist", "x.yaml~", ".hidden.yaml", "README", "off.yaml.disabled"} {
		write("conf.d/"+name, "tags: {"+strings.Trim(name, ".~")+": x}\n")
	}
	files, err := ReadDir(filepath.Join(dir, "berth.yaml"), confd)
	if err != nil {
		t.Fatal(err)
	}
	cfg := defaults()
	res, err := Load(&cfg, files...)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(cfg.Tags), 3; got != want {
		t.Errorf("tags: got %v, want those of two files and the default", cfg.Tags)
	}
	var order []string
	for _, f := range files {
		if f.Skipped == "" {
			order = append(order, filepath.Base(f.Name))
		}
	}
	if want := []string{"berth.yaml", "10-a.yaml", "20-b.yaml"}; !slices.Equal(order, want) {
		t.Errorf("got %q, want %q", order, want)
	}
	if got, want := len(res.Warnings), 5; got != want {
		t.Errorf("warnings: got %q, want %d", res.Warnings, want)
	}

	write("conf.d/extra.yml", "")
	write("conf.d/extra.json", "")
	if err := os.Mkdir(filepath.Join(confd, "more"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/zero", filepath.Join(confd, "zero.yaml")); err != nil {
		t.Fatal(err)
	}
	files, err = ReadDir(filepath.Join(dir, "missing.yaml"), confd)
	if len(files) != 7 {
		t.Errorf("got %d files, want the 7 that can be read or skipped", len(files))
	}
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want fs.ErrNotExist for the main file", err)
	}
	for _, want := range []string{"extra.yml does not end in .yaml", "extra.json does not", "more is a folder", "zero.yaml is not a regular file"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if files, err := ReadDir("", filepath.Join(dir, "missing.d")); len(files) != 0 || err != nil {
		t.Errorf("missing conf.d: got %v, %v, want nothing", files, err)
	}
}

func TestLimits(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"# " + strings.Repeat("x", maxBytes), "larger than"},
		{strings.Repeat("[", 1000), "levels deep"},
		{strings.Repeat("{a: ", 1000), "levels deep"},
		{strings.Repeat("- ", 1000), "levels deep"},
		{strings.Repeat("? ", 1000), "levels deep"},
		{strings.Repeat("!a ", 1000), "levels deep"},
		{"log_level: \"\x01\"", "U+0001"},
		{"log_level: \xff", "UTF-8"},
		{"log_level: debug\rstatsd: x", "U+000D"},
		{"log_level: \u0085", "U+0085"},
		{"log_level: \ufeff", "U+FEFF"},
	} {
		_, _, err := load(tt.text)
		if err == nil || !strings.Contains(err.Error(), tt.want) || len(err.Error()) > 300 {
			t.Errorf("%.40q: got %v, want a short error with %q", tt.text, err, tt.want)
		}
	}
}

// A number means the same to every reader of the file, or is refused.
func TestNumbers(t *testing.T) {
	for text, want := range map[string]uint16{"0": 0, "7": 7, "65535": 65535} {
		got, _, err := load("statsd: {threads: " + text + "}")
		if err != nil || got.Statsd.Threads != want {
			t.Errorf("%s: got %d, %v, want %d", text, got.Statsd.Threads, err, want)
		}
	}
	for _, text := range []string{"017", "00", "+7", "0x11", "0o17", "0b11", "1_000", "1e3", "1.0", "-1", "65536", "99999999999999999999", "~"} {
		if got, _, err := load("statsd: {threads: " + text + "}"); err == nil {
			t.Errorf("threads: %s: got %d, want an error", text, got.Statsd.Threads)
		}
	}
	for text, want := range map[string]float64{"1": 1, "0.25": 0.25, "-1.5": -1.5, "1e-3": 0.001, "0": 0} {
		if got, _, err := load("statsd: {rate: " + text + "}"); err != nil || got.Statsd.Rate != want {
			t.Errorf("%s: got %v, %v, want %v", text, got.Statsd.Rate, err, want)
		}
	}
	for _, text := range []string{".nan", "-.inf", "NaN", "infinity", "1_0.5", "0x1p4", "01.5", "1e999"} {
		if got, _, err := load("statsd: {rate: " + text + "}"); err == nil {
			t.Errorf("rate: %s: got %v, want an error", text, got.Statsd.Rate)
		}
	}
}

// What the parser drops is found by comparing its tokens with its tree.
func TestCheckComplete(t *testing.T) {
	s := newSource(File{Name: "a.yaml", Data: []byte("a: b\nc: [d, 'e']\n")}, 0, nil)
	tokens := lexer.Tokenize(s.text)
	f, err := parser.Parse(tokens, 0)
	if err != nil {
		t.Fatal(err)
	}
	body := f.Docs[0].Body.(*ast.MappingNode)
	if err := checkComplete(s, tokens, body); err != nil {
		t.Errorf("whole tree: got %v, want no error", err)
	}
	list := body.Values[1].Value.(*ast.SequenceNode)
	list.Values = list.Values[:1]
	if err := checkComplete(s, tokens, body); err == nil || err.at.line != 2 || err.at.col != 8 {
		t.Errorf("without 'e': got %v, want an error at 2:8", err)
	}
}

func TestLoadPanicsOnTypesThatCannotBeConfigured(t *testing.T) {
	type self struct {
		Next *self `yaml:"next"`
	}
	for name, dst := range map[string]any{
		"no tag": &struct{ A int }{},
		"channel": &struct {
			A chan int `yaml:"a"`
		}{},
		"interface": &struct {
			A any `yaml:"a"`
		}{},
		"int keys": &struct {
			A map[int]string `yaml:"a"`
		}{},
		"itself": &self{},
		"same tags": &struct {
			A int `yaml:"a"`
			B int `yaml:"a"`
		}{},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: got no panic", name)
				}
			}()
			_, _ = Load(dst)
		}()
	}
}

func TestNearest(t *testing.T) {
	keys := []string{"listen", "log_level", "ttl", "zone", "min_version"}
	for word, want := range map[string]string{
		"lisen": "listen", "lsiten": "listen", "Listen": "listen", "log-level": "log_level", "loglevel": "log_level",
		"tll": "ttl", "zoen": "zone", "minversion": "min_version", "x": "", "": "", "password": "", "listeners": "listen",
	} {
		if got := nearest(word, keys); got != want {
			t.Errorf("nearest(%q): got %q, want %q", word, got, want)
		}
	}
}
