package config

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

func testDocs(t *testing.T) Docs {
	t.Helper()
	docs, err := DocsFromSource(map[string]string{reflect.TypeFor[daemon]().PkgPath(): "."})
	if err != nil {
		t.Fatal(err)
	}
	return docs
}

func TestSample(t *testing.T) {
	sample := Sample(defaults(), testDocs(t))
	golden(t, "sample.yaml", sample)
	for line := range strings.Lines(string(sample)) {
		if text := strings.TrimSpace(line); strings.HasPrefix(text, "# ") && len(line) > sampleWidth+1 {
			t.Errorf("got a comment of %d bytes, want at most %d: %s", len(line)-1, sampleWidth, line)
		}
	}
}

func TestSampleMeansTheDefaults(t *testing.T) {
	sample := Sample(defaults(), testDocs(t))
	got, _ := mustLoad(t, string(sample))
	if diff := equal(got, defaults()); diff != "" {
		t.Errorf("as shipped: got (-), want (+):\n%s", diff)
	}
	got, res := mustLoad(t, string(Uncomment(sample)))
	if diff := equal(got, defaults()); diff != "" {
		t.Errorf("uncommented: got (-), want (+):\n%s", diff)
	}
	for _, k := range Keys(defaults(), nil) {
		if k.Item || k.Section || k.Default[0] == '{' {
			continue
		}
		if res.Origin(k.Path) == (Origin{}) {
			t.Errorf("the sample lacks %s", k.Path)
		}
	}
}

func TestReference(t *testing.T) {
	golden(t, "reference.md", Reference(defaults(), testDocs(t)))
}

func TestUndocumented(t *testing.T) {
	if got := Undocumented(defaults(), testDocs(t)); len(got) != 0 {
		t.Errorf("got %q, want none", got)
	}
	got := Undocumented(defaults(), nil)
	for _, want := range []string{"log_level", "discovery", "discovery.tls.key", "prune.rules[].keep", "buckets.<name>.region"} {
		if !slices.Contains(got, want) {
			t.Errorf("got %q, want %q among them", got, want)
		}
	}
}

func TestDocsFromSourceErrors(t *testing.T) {
	if _, err := DocsFromSource(map[string]string{"x": t.TempDir()}); err == nil {
		t.Error("a folder without source: got no error")
	}
}
