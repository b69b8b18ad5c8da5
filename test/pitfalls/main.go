// Command pitfalls lists the known pitfalls, which pitfalls.txt names, with the
// tests that cover each. Its status is 1 when one that is due has no test, or a
// test is named after one that is not in the list. It runs in the root of the
// checkout.
package main

import (
	_ "embed"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

//go:embed pitfalls.txt
var list string

// pitfall is a line of the list.
type pitfall struct {
	id    string // such as discovery07
	later string // why nothing can cover it yet; "" when it is due
	text  string
}

var (
	entry    = regexp.MustCompile(`^([a-z]+[0-9]{2})(?: \(later: ([^)]+)\))?: (.+)$`)
	testName = regexp.MustCompile(`^TestPitfall_([a-z]+[0-9]{2})_.`)
)

func main() {
	ok, err := run(os.Stdout, list, os.DirFS("."))
	if err != nil {
		fmt.Fprintln(os.Stderr, "pitfalls:", err)
	}
	if !ok || err != nil {
		os.Exit(1)
	}
}

// run writes the report on the tree to w, and tells whether nothing is missing.
func run(w io.Writer, list string, tree fs.FS) (bool, error) {
	pitfalls, err := parse(list)
	if err != nil {
		return false, err
	}
	tests, err := find(tree)
	if err != nil {
		return false, err
	}
	return report(w, pitfalls, tests), nil
}

func parse(list string) ([]pitfall, error) {
	var all []pitfall
	n := 0
	for line := range strings.Lines(list) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		m := entry.FindStringSubmatch(line)
		if m == nil {
			return nil, fmt.Errorf("pitfalls.txt:%d: not an entry: %q", n, line)
		}
		if slices.ContainsFunc(all, func(p pitfall) bool { return p.id == m[1] }) {
			return nil, fmt.Errorf("pitfalls.txt:%d: %s is there twice", n, m[1])
		}
		all = append(all, pitfall{id: m[1], later: m[2], text: m[3]})
	}
	return all, nil
}

// find returns the pitfalls' tests of a tree, by the pitfall's identifier: the
// functions of that name in test files, not mentions of them.
func find(tree fs.FS) (map[string][]string, error) {
	tests := map[string][]string{}
	err := fs.WalkDir(tree, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || path != "." && strings.HasPrefix(d.Name(), ".")) {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		source, err := fs.ReadFile(tree, path)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, source, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Recv != nil {
				continue
			}
			if m := testName.FindStringSubmatch(f.Name.Name); m != nil {
				tests[m[1]] = append(tests[m[1]], filepath.Dir(path)+"."+f.Name.Name)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("find tests: %w", err)
	}
	return tests, nil
}

func report(w io.Writer, pitfalls []pitfall, tests map[string][]string) bool {
	var missing, covered, later int
	for _, p := range pitfalls {
		found := tests[p.id]
		delete(tests, p.id)
		switch {
		case len(found) > 0:
			covered++
			fmt.Fprintf(w, "%s  covered  %s\n", p.id, p.text)
		case p.later != "":
			later++
			fmt.Fprintf(w, "%s  later    %s (%s)\n", p.id, p.text, p.later)
		default:
			missing++
			fmt.Fprintf(w, "%s  MISSING  %s\n", p.id, p.text)
		}
		slices.Sort(found)
		for _, name := range found {
			fmt.Fprintf(w, "             %s\n", name)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(tests)) {
		names := tests[id]
		missing += len(names)
		fmt.Fprintf(w, "%s  UNKNOWN  not in pitfalls.txt: %s\n", id, strings.Join(names, ", "))
	}
	fmt.Fprintf(w, "pitfalls: %d covered, %d later, %d missing\n", covered, later, missing)
	return missing == 0
}
