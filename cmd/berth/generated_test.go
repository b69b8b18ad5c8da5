package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/config"
	"github.com/berthd/berth/collectors/discovery"
	"github.com/berthd/berth/collectors/usage"
	"github.com/berthd/berth/sinks/openmetrics"
)

//go:generate go test . -run ^TestGenerated$ -update

var update = flag.Bool("update", false, "write what is generated instead of comparing it")

const (
	module       = "github.com/berthd/berth"
	repository   = "../.." // as tests run in their package's folder
	generatedIn  = "packaging/config"
	generatedFor = "<!-- Written by make generate from the code: do not edit. -->\n\n"
)

// What people read of the configuration, the metrics and the labels is made of
// the code itself, so that it cannot be about another version.
func TestGenerated(t *testing.T) {
	t.Setenv("DOCKER_HOST", "") // it would be the default
	docs := configDocs(t)
	for name, content := range map[string][]byte{
		"berth.yaml":   config.Sample(DefaultConfig(), docs),
		"REFERENCE.md": reference(docs),
		"METRICS.md":   metricsTable(t),
		"LABELS.md":    labelsTable(),
	} {
		file := filepath.Join(repository, generatedIn, name)
		if *update {
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, content, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		committed, err := os.ReadFile(file)
		if err != nil {
			t.Errorf("%v: run make generate", err)
			continue
		}
		if diff := cmp.Diff(string(committed), string(content)); diff != "" {
			t.Errorf("%s is out of date, run make generate: as it is (-), as it should be (+):\n%s", name, diff)
		}
	}
}

// configDocs returns the comments of all types in the Config.
func configDocs(t *testing.T) config.Docs {
	t.Helper()
	dirs := map[string]string{}
	var visit func(typ reflect.Type)
	visit = func(typ reflect.Type) {
		if rest, ours := strings.CutPrefix(typ.PkgPath(), module); ours {
			dirs[typ.PkgPath()] = filepath.Join(repository, filepath.FromSlash(rest))
		}
		switch typ.Kind() {
		case reflect.Struct:
			for f := range typ.Fields() {
				visit(f.Type)
			}
		case reflect.Pointer, reflect.Slice, reflect.Map:
			visit(typ.Elem())
		}
	}
	visit(reflect.TypeFor[Config]())
	docs, err := config.DocsFromSource(dirs)
	if err != nil {
		t.Fatal(err)
	}
	// At the top of a file nobody looks for a type called Config.
	top := reflect.TypeFor[Config]().PkgPath() + ".Config"
	docs[top] = "This" + strings.TrimPrefix(docs[top], "Config")
	return docs
}

func TestEveryKeyIsDocumented(t *testing.T) {
	if got := config.Undocumented(DefaultConfig(), configDocs(t)); len(got) > 0 {
		t.Errorf("these keys have no comment in their Config: %q", got)
	}
}

// The shipped sample says the defaults, as it is and with every key set.
func TestSampleMeansTheDefaults(t *testing.T) {
	t.Setenv("DOCKER_HOST", "")
	sample, err := os.ReadFile(filepath.Join(repository, generatedIn, "berth.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"as shipped": sample, "uncommented": config.Uncomment(sample)} {
		got := DefaultConfig()
		res, err := config.Load(&got, config.File{Name: "berth.yaml", Data: data})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(res.Warnings) > 0 {
			t.Errorf("%s: got warnings %q, want none", name, res.Warnings)
		}
		// What is in force is what counts: an empty list may be nil or not.
		if diff := cmp.Diff(string(config.JSON(DefaultConfig(), nil)), string(config.JSON(got, nil))); diff != "" {
			t.Errorf("%s: the defaults (-), the sample (+):\n%s", name, diff)
		}
	}
	if bytes.Equal(sample, config.Uncomment(sample)) {
		t.Error("the sample has no key commented out")
	}
}

func reference(docs config.Docs) []byte {
	intro := generatedFor + `# The configuration

berth reads /etc/berth/berth.yaml, then /etc/berth/conf.d/*.yaml in the order of
their names; later files win, key by key. All of it is optional. berth check
tells what is wrong with it, berth config show what is in force and why.
[berth.yaml](berth.yaml) has every key with its default.

`
	return append([]byte(intro), escape(config.Reference(DefaultConfig(), docs))...)
}

// escape keeps Markdown from taking what is in angle brackets for tags, where it
// is not quoted as code.
func escape(markdown []byte) []byte {
	parts := bytes.Split(markdown, []byte("`"))
	for i := 0; i < len(parts); i += 2 {
		parts[i] = bytes.ReplaceAll(parts[i], []byte("<"), []byte("&lt;"))
	}
	return bytes.Join(parts, []byte("`"))
}

func labelsTable() []byte {
	var b bytes.Buffer
	b.WriteString(generatedFor + `# Labels and variables of containers

What berth reads from the labels and environment variables of containers. A label
comes before a variable, and a key with a port before one without; the prefix
SERVICE_ is case-sensitive, what follows it is not. Of the variables, only those
that engine.env allows are read at all. berth explain tells what became of them.

The words with a dot in front are what discovery.name_template may use.

| Key | Where | Example | What it does |
|---|---|---|---|
`)
	for _, k := range discovery.Keys() {
		example := "`" + strings.ReplaceAll(k.Example, ", or ", "`, or `") + "`"
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", k.Name, k.Where, example, k.Doc)
	}
	b.WriteString(`
## Usage, metrics and pruning

| Label | Variable | Example | What it says |
|---|---|---|---|
`)
	for _, k := range usage.Keys() {
		fmt.Fprintf(&b, "| `%s` | `%s` | `%s` | %s |\n", k.Label, k.Variable, k.Example, k.Doc)
	}
	for _, exempt := range DefaultConfig().Prune.ExemptLabels {
		label, value, _ := strings.Cut(exempt, "=")
		fmt.Fprintf(&b, "| `%s` | | `%s` | Keeps the container's log folder after its end, by prune.exempt_labels. |\n", label, value)
	}
	return b.Bytes()
}

func metricsTable(t *testing.T) []byte {
	var b bytes.Buffer
	b.WriteString(generatedFor + `# Metrics

berth's own figures, at http://127.0.0.1:19469/metrics (section openmetrics of the
configuration) and, with dogstatsd.enabled, sent to a Datadog agent with
dogstatsd.prefix in place of berth_. With cloudwatch.enabled, those that
cloudwatch.metrics names are sent to Amazon CloudWatch. The page also has
process_* and go_*, which client_golang tells of the process.

| Name | Kind | Labels | What it is |
|---|---|---|---|
`)
	for _, f := range everyMetric(t) {
		labels := make([]string, 0, 4)
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, "`"+l.GetName()+"`")
		}
		kind := strings.ToLower(f.GetType().String())
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.GetName(), kind, strings.Join(labels, ", "), f.GetHelp())
	}
	return b.Bytes()
}

// everyMetric returns what a daemon with everything enabled shows of itself. All
// components are real, and none runs.
func everyMetric(t *testing.T) []*dto.MetricFamily {
	t.Helper()
	d := idleDaemon(t)
	sections := reflect.ValueOf(&d.cfg.Config).Elem()
	for _, section := range sections.Fields() {
		if section.Kind() == reflect.Struct {
			if on := section.FieldByName("Enabled"); on.IsValid() {
				on.SetBool(true)
			}
		}
	}
	built, err := d.build(d.cfg.Config)
	if err != nil {
		t.Fatal(err)
	}
	var page *openmetrics.Server
	for _, c := range built {
		d.running[c.name] = c
		if p, ok := c.part.(*openmetrics.Server); ok {
			page = p
		}
	}
	d.parts.Start(t.Context(), "idle", func(ctx context.Context) error { <-ctx.Done(); return nil })
	d.env.Health.Scope("idle").Set("bored", os.ErrDeadlineExceeded, "")
	d.agent.Store().Publish(&agent.Snapshot{Seq: 1, At: time.Unix(0, 0)})
	d.meter()
	// Figures of containers are there when containers are.
	sources := slices.Clone(d.sources())
	for i := range sources {
		if sources[i].Name == usage.Name {
			sources[i].Metered = usage.Example()
		}
	}
	d.metered.Store(&sources)

	families, err := page.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.env.Health.Err(openmetrics.Name); err != nil {
		t.Errorf("got condition %v, want none", err)
	}
	return slices.DeleteFunc(families, func(f *dto.MetricFamily) bool { return !strings.HasPrefix(f.GetName(), "berth_") })
}

// idleDaemon returns a daemon that touches nothing of this host, and runs
// nothing. It is closed when the test ends.
func idleDaemon(t *testing.T) *daemon {
	t.Helper()
	cfg := DefaultConfig()
	cfg.StateDir = t.TempDir()
	cfg.Engine.Host = "unix://" + filepath.Join(cfg.StateDir, "no.sock")
	cfg.Node.ID, cfg.Node.EC2 = "host", "off"
	cfg.Log.Level = "error"
	d, err := newDaemon(new(configFiles), &loaded{Config: cfg}, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.parts.StopAll()
		d.sockets.Close()
		if err := errors.Join(d.engine.Close(), d.node.Close()); err != nil {
			t.Error(err)
		}
	})
	return d
}

// boundedLabels are the labels that metrics may have: each takes few values, and
// none that people or the network choose.
var boundedLabels = []string{
	"component", "condition", "measured", "rcode", "reason", "request", "reserved_source", "result", "severity", "state", "transport", "version",
	// As many as containers run, and 500 at most.
	"container", "container_id", "environment", "instance_type", "service",
}

var sentence = regexp.MustCompile(`^[A-Z][^.\n|]*\.$`)

func TestMetricsAreWellNamed(t *testing.T) {
	families := everyMetric(t)
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	for _, f := range families {
		name := f.GetName()
		if !sentence.MatchString(f.GetHelp()) {
			t.Errorf("%s: the help %q is not one sentence", name, f.GetHelp())
		}
		if got, want := f.GetType() == dto.MetricType_COUNTER, strings.HasSuffix(name, "_total"); got != want {
			t.Errorf("%s: got a counter: %v, want %v by its name", name, got, want)
		}
		for _, l := range f.GetMetric()[0].GetLabel() {
			if !slices.Contains(boundedLabels, l.GetName()) {
				t.Errorf("%s: the label %q is not among those known to be bounded", name, l.GetName())
			}
		}
		if n := len(f.GetMetric()); n > 50 {
			t.Errorf("%s: got %d series of an idle daemon, want a few", name, n)
		}
	}
	// That the daemon is there, and each of its components that has figures.
	for _, prefix := range []string{"berth_build_info", "berth_condition", "berth_component_", "berth_engine_", "berth_discovery_", "berth_dnsserver_", "berth_statsd_", "berth_prune_", "berth_openmetrics_", "berth_dogstatsd_", "berth_cloudwatch_", "berth_usage_", "berth_node_", "berth_container_"} {
		if !slices.ContainsFunc(families, func(f *dto.MetricFamily) bool { return strings.HasPrefix(f.GetName(), prefix) }) {
			t.Errorf("got no metric that begins with %s", prefix)
		}
	}
}
