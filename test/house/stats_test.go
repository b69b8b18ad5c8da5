package house

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// statistics are the calls by which the engine's client asks for them.
var statistics = regexp.MustCompile(`\.ContainerStats(OneShot)?\(`)

// askers returns the files of the product that ask the engine for statistics.
func askers(t *testing.T, root string) (found []string, read int) {
	t.Helper()
	for _, dir := range []string{"agent", "cmd", "collectors", "sinks"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(file string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
				return err
			}
			content, err := os.ReadFile(file)
			read++
			if statistics.Match(content) {
				found = append(found, file)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found, read
}

// The engine's statistics may be all zeros with status 200, when hierarchies were
// attached that are not mounted; and each call takes up to a second. What cannot be
// asked for cannot be believed, nor waited for: usage is read from the kernel.
func TestPitfall_usage01_StatisticsOfTheEngineAreNotBelieved(t *testing.T) {
	found, read := askers(t, "../..")
	for _, file := range found {
		t.Errorf("%s asks the engine for statistics", file)
	}
	if read < 100 {
		t.Errorf("looked at %d files only", read)
	}
}

func TestPitfall_usage02_NothingWaitsForStatisticsOfTheEngine(t *testing.T) {
	if !statistics.MatchString("cli.ContainerStatsOneShot(ctx, id)") || !statistics.MatchString("cli.ContainerStats(ctx, id, false)") {
		t.Fatal("the calls are not known by their names")
	}
	if found, _ := askers(t, "../.."); len(found) > 0 {
		t.Errorf("%q wait for statistics", found)
	}
}
