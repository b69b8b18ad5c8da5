package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/berthd/berth/agent/config"
)

// documents are the pages for people, relative to the root of the checkout.
func documents(t *testing.T) map[string]string {
	t.Helper()
	pages := make(map[string]string)
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && len(d.Name()) > 2) {
			return filepath.SkipDir
		}
		if strings.HasSuffix(path, ".md") {
			raw, err := os.ReadFile(path)
			pages[path] = string(raw)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return pages
}

// block is a fenced block of a page.
type block struct{ language, text string }

var fence = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$")

func blocks(page string) []block {
	var out []block
	for _, m := range fence.FindAllStringSubmatch(page, -1) {
		out = append(out, block{m[1], m[2]})
	}
	return out
}

var (
	command  = regexp.MustCompile(`(?:^|[ /(])berth( [^#|&;>]*)?`)
	inline   = regexp.MustCompile("`berth ([^`]*)`")
	argument = regexp.MustCompile(`<[^>]*>`)
)

// TestDocumentedCommands parses every command line of berth in a page: its
// command, its flags and the number of its arguments must make sense.
func TestDocumentedCommands(t *testing.T) {
	found := 0
	for path, page := range documents(t) {
		var lines []string
		for _, b := range blocks(page) {
			if b.language != "console" && b.language != "sh" && b.language != "bash" {
				continue
			}
			for line := range strings.Lines(b.text) {
				line = strings.TrimPrefix(strings.TrimSpace(line), "$ ")
				if strings.HasPrefix(line, "sudo ") || strings.HasPrefix(line, "berth ") || strings.HasPrefix(line, "bin/berth ") {
					if m := command.FindStringSubmatch(line); m != nil {
						lines = append(lines, m[1])
					}
				}
			}
		}
		for _, m := range inline.FindAllStringSubmatch(page, -1) {
			lines = append(lines, m[1])
		}
		for _, line := range lines {
			found++
			if err := parses(argument.ReplaceAllString(line, "x")); err != nil {
				t.Errorf("%s: berth %s: %v", path, strings.TrimSpace(line), err)
			}
		}
	}
	if found < 6 {
		t.Errorf("found %d commands only: are they looked for in the right places?", found)
	}
}

// parses returns what is wrong with a command line, without running it.
func parses(line string) error {
	root := newRoot(io.Discard, io.Discard)
	cmd, rest, err := root.Find(strings.Fields(line))
	if err != nil {
		return err
	}
	if cmd == root && len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
		return errors.New("there is no such command")
	}
	cmd.InitDefaultHelpFlag()
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	if len(cmd.Flags().Args()) == 0 && cmd.Flags().NFlag() == 0 {
		return nil // a mention of the command, as in: what berth explain says
	}
	return cmd.ValidateArgs(cmd.Flags().Args())
}

// TestExamplesParse parses the examples in the help texts.
func TestExamplesParse(t *testing.T) {
	var check func(cmd *cobra.Command)
	check = func(cmd *cobra.Command) {
		for line := range strings.Lines(cmd.Example) {
			line, ok := strings.CutPrefix(strings.TrimSpace(line), "berth ")
			if !ok {
				continue
			}
			line = strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune("|&>#", r) })[0]
			line, _, _ = strings.Cut(line, "   ") // what it does
			if err := parses(line); err != nil {
				t.Errorf("%s: example %q: %v", cmd.CommandPath(), line, err)
			}
		}
		for _, sub := range cmd.Commands() {
			check(sub)
		}
	}
	check(newRoot(io.Discard, io.Discard))
}

var execLine = regexp.MustCompile(`(?m)^Exec[A-Z][A-Za-z]*=[-@:+!]*/usr/bin/berth ?(.*)$`)

// TestUnitsParse parses the command lines of all units, the examples among them.
func TestUnitsParse(t *testing.T) {
	found := map[string]int{}
	for _, pattern := range []string{"../../systemd/*.service", "../../packaging/examples/*.service"} {
		units, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, unit := range units {
			raw, err := os.ReadFile(unit)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range execLine.FindAllStringSubmatch(string(raw), -1) {
				found[pattern]++
				if err := parses(m[1]); err != nil {
					t.Errorf("%s: berth %s: %v", unit, m[1], err)
				}
			}
		}
		if found[pattern] == 0 {
			t.Errorf("found no command of berth in %s", pattern)
		}
	}
}

// TestDocumentedConfig loads every YAML block of a page as strictly as berth
// does.
func TestDocumentedConfig(t *testing.T) {
	found := 0
	for path, page := range documents(t) {
		for _, b := range blocks(page) {
			if b.language != "yaml" || strings.HasPrefix(path, filepath.Join("../..", "test")) {
				continue
			}
			found++
			cfg := DefaultConfig()
			if _, err := config.Load(&cfg, config.File{Name: path, Data: []byte(b.text)}); err != nil {
				t.Errorf("%s:\n%s\n%v", path, b.text, err)
			}
		}
	}
	if found == 0 {
		t.Error("found no YAML: is it looked for in the right places?")
	}
}

var link = regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`)

// TestDocumentedFiles follows every link of a page to a file.
func TestDocumentedFiles(t *testing.T) {
	found := 0
	for path, page := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(page, -1) {
			found++
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), m[1])); err != nil {
				t.Errorf("%s links to %s, which is not there", path, m[1])
			}
		}
	}
	if found < 10 {
		t.Errorf("found %d links only", found)
	}
}
