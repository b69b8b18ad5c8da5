package discovery

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/berthd/berth/agent"
	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files")

// TestGolden applies the rules to containers of every network mode and
// orchestrator. testdata/<mode>.json holds the containers as an inspect gives
// them, testdata/<mode>.golden what DNS and `berth explain` say.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) < 25 {
		t.Fatalf("fixtures: %d, %v", len(files), err)
	}
	r := mustRules(t, func(c *Config) { c.NameTemplate = "{{label .Service}}.{{label .Cluster}}" })
	r.checks = func(key checkKey) (checkState, bool) {
		switch key.port {
		case 80:
			return checkState{word: CheckPassing, since: epoch, last: finding{at: testNow, took: time.Millisecond}}, true
		case 81:
			return checkState{word: CheckFailing, since: epoch, last: finding{at: testNow, took: time.Millisecond, why: "connection refused"}}, true
		}
		return checkState{}, false
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			var containers []*agent.Container
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(data, &containers); err != nil {
				t.Fatal(err)
			}
			snap := snapshot(containers...)
			v := r.evaluate(snap, testNow, new(memo))
			golden := strings.TrimSuffix(file, ".json") + ".golden"
			got := tell(v)
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("want, got (-update to accept):\n%s", diff)
			}
		})
	}
}

// tell writes the records and the explanation of every container.
func tell(v *view) string {
	var b strings.Builder
	for _, r := range v.set.Records {
		fmt.Fprintln(&b, r)
	}
	for _, c := range v.snap.Containers {
		e := v.explain(c)
		fmt.Fprintf(&b, "\n%s: %d registered", e.Container, e.Registered)
		if e.Origin != (Origin{}) {
			fmt.Fprintf(&b, ", %v", e.Origin)
		}
		b.WriteByte('\n')
		for _, reason := range e.Reasons {
			fmt.Fprintf(&b, "  %s: %s: %s\n", reason.Subject, reason.Verdict, reason.Rule)
			if reason.Fix != "" {
				fmt.Fprintf(&b, "    → %s\n", reason.Fix)
			}
		}
	}
	return b.String()
}
