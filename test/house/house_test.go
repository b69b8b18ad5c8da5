// Package house holds the tests of the house rules: who may import whom, how
// long a file may be, what must have a comment, which dependencies there are.
//
// Each rule is a function from a checkout's folder to the list of what breaks
// it. TestTree wants that list to be empty for this checkout; TestBadTree wants
// it to be known for the small checkout in testdata, where every rule is broken.
package house

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/berthd/berth"

// The limits of the design, in lines.
const (
	maxFile = 500
	maxMain = 60
)

// rules are all rules by name.
var rules = map[string]func(root string) ([]string, error){
	"imports":      imports,
	"dependencies": dependencies,
	"lengths":      lengths,
	"comments":     comments,
	"words":        words,
}

func TestTree(t *testing.T) {
	for name, rule := range rules {
		t.Run(name, func(t *testing.T) {
			broken, err := rule("../..")
			if err != nil {
				t.Fatal(err)
			}
			for _, b := range broken {
				t.Error(b)
			}
		})
	}
}

func TestBadTree(t *testing.T) {
	root := t.TempDir()
	if err := os.CopyFS(root, os.DirFS("testdata/bad")); err != nil {
		t.Fatal(err)
	}
	// What would break the rules for this checkout, too.
	write(t, root, "agent/long.go", "package agent\n"+strings.Repeat("\n", maxFile))
	write(t, root, "agent/long_test.go", "package agent\n"+strings.Repeat("\n", maxFile))
	write(t, root, "cmd/berth/main.go", "// Command berth is bad.\npackage main\n\nfunc main() {}\n"+strings.Repeat("\n", maxMain))
	write(t, root, "agent/testdata/golden", "one\nsee /"+"work/x\n")

	want := map[string][]string{
		"imports": {
			"agent imports agent/docker: agent imports nothing of ours",
			"agent imports github.com/docker/docker/client: only agent/docker may",
			"agent/docker imports sinks/stdout: agent/* imports agent/* only",
			"agent/docker imports test/apps: only tests and test/ may",
			"collectors/a imports collectors/b: a collector imports agent/* only",
			"collectors/a imports github.com/aws/aws-sdk-go-v2/aws: only agent/aws, agent/node, sinks/cloudwatch, sinks/route53, sinks/s3 may",
			"collectors/a imports sinks/stdout: a collector imports agent/* only",
			"collectors/a imports testing: only tests may",
			"sinks/stdout imports cmd/berth: a sink imports agent/* only",
			"sinks/stdout imports collectors/b: a sink imports agent/* only",
		},
		"dependencies": {
			"README.md: github.com/gone/gone is in the table, and nothing imports it",
			"README.md: github.com/miekg/dns is imported, and not in the table",
			"go.mod: github.com/aws/aws-sdk-go-v2 is imported: it must not be marked // indirect",
			"go.mod: github.com/spf13/cobra is not imported: it must be marked // indirect, or go",
		},
		"lengths": {
			"agent/long.go: 501 lines, at most 500",
			"cmd/berth/main.go: 64 lines, at most 60",
		},
		"comments": {
			"agent/bad.go:11: Func has no comment",
			"agent/bad.go:13: Type has no comment",
			"agent/bad.go:15: Type.Method has no comment",
			"agent/bad.go:17: Const has no comment",
			"agent/bad.go:19: Generic.Method has no comment",
			"agent/bad.go:22: InGroup has no comment",
			"collectors/b: the package has no comment",
		},
		"words": {
			"agent/testdata/golden:2: a path of somebody's machine",
		},
	}
	for name, rule := range rules {
		t.Run(name, func(t *testing.T) {
			got, err := rule(root)
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(got)
			if !slices.Equal(got, want[name]) {
				t.Errorf("got:\n\t%s\nwant:\n\t%s", strings.Join(got, "\n\t"), strings.Join(want[name], "\n\t"))
			}
		})
	}
}

func write(t *testing.T, root, name, content string) {
	t.Helper()
	file := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// pkg is what `go list -json` says of a package.
type pkg struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

// list returns the packages of a checkout. What they import need not be there.
func list(root string) ([]pkg, error) {
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Imports,TestImports,XTestImports", "./...")
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w: %s", err, stderr.String())
	}
	var all []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		switch err := dec.Decode(&p); {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, fmt.Errorf("go list: %w", err)
		}
		all = append(all, p)
	}
}

// confined are the imports that belong to some packages alone: the Docker
// client behind agent.Engine, and the AWS SDK where AWS is spoken.
var confined = []struct {
	prefix string
	to     []string
}{
	{"github.com/docker/", []string{"agent/docker"}},
	{"github.com/aws/", []string{"agent/aws", "agent/node", "sinks/cloudwatch", "sinks/route53", "sinks/s3"}},
}

// imports is the import rule: cmd/berth → {collectors/*, sinks/*} → agent/* →
// agent. Tests, and all below test/, are free of it.
func imports(root string) ([]string, error) {
	all, err := list(root)
	if err != nil {
		return nil, err
	}
	var broken []string
	for _, p := range all {
		from := own(p.ImportPath)
		if strings.HasPrefix(from, "test/") {
			continue
		}
		for _, imported := range p.Imports {
			name := imported
			if to := own(imported); to != "" {
				name = to
			}
			if why := forbidden(from, imported); why != "" {
				broken = append(broken, fmt.Sprintf("%s imports %s: %s", from, name, why))
			}
		}
	}
	return broken, nil
}

// own returns the path of one of our packages in the checkout, "" for others.
func own(importPath string) string {
	if rest, ok := strings.CutPrefix(importPath, module+"/"); ok {
		return rest
	}
	return ""
}

// forbidden returns why a package must not import another, or "".
func forbidden(from, imported string) string {
	if imported == "testing" && from != "sinks/sinktest" {
		return "only tests may"
	}
	for _, c := range confined {
		if strings.HasPrefix(imported, c.prefix) && !slices.Contains(c.to, from) {
			return "only " + strings.Join(c.to, ", ") + " may"
		}
	}
	to := own(imported)
	if to == "" {
		return ""
	}
	if strings.HasPrefix(to, "test/") {
		return "only tests and test/ may"
	}
	isAgent := to == "agent" || strings.HasPrefix(to, "agent/")
	layer, _, below := strings.Cut(from, "/")
	switch {
	case layer == "agent" && !below:
		return "agent imports nothing of ours"
	case layer == "agent" && !isAgent:
		return "agent/* imports agent/* only"
	case layer == "collectors" && !isAgent:
		return "a collector imports agent/* only"
	case layer == "sinks" && !isAgent:
		return "a sink imports agent/* only"
	}
	return ""
}

// row is a line of the dependency table: its first cell is a module path.
var row = regexp.MustCompile("(?m)^\\| `([a-z0-9.-]+\\.[a-z]+/[^`]+)`")

// dependencies wants go.mod to tell what we import from what others import for
// us, and the README's table to justify each of the former.
func dependencies(root string) ([]string, error) {
	cmd := exec.Command("go", "mod", "edit", "-json")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go mod edit: %w", err)
	}
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
	}
	if err := json.Unmarshal(out, &mod); err != nil {
		return nil, fmt.Errorf("go mod edit: %w", err)
	}
	all, err := list(root)
	if err != nil {
		return nil, err
	}
	imported := map[string]bool{}
	for _, p := range all {
		for _, name := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			best := ""
			for _, r := range mod.Require {
				if (name == r.Path || strings.HasPrefix(name, r.Path+"/")) && len(r.Path) > len(best) {
					best = r.Path
				}
			}
			imported[best] = true
		}
	}
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		return nil, err
	}
	table := map[string]bool{}
	for _, m := range row.FindAllStringSubmatch(string(readme), -1) {
		table[m[1]] = true
	}
	var broken []string
	for _, r := range mod.Require {
		switch {
		case imported[r.Path] && r.Indirect:
			broken = append(broken, fmt.Sprintf("go.mod: %s is imported: it must not be marked // indirect", r.Path))
		case !imported[r.Path] && !r.Indirect:
			broken = append(broken, fmt.Sprintf("go.mod: %s is not imported: it must be marked // indirect, or go", r.Path))
		}
		if imported[r.Path] && !table[r.Path] {
			broken = append(broken, fmt.Sprintf("README.md: %s is imported, and not in the table", r.Path))
		}
	}
	for name := range table {
		if !imported[name] {
			broken = append(broken, fmt.Sprintf("README.md: %s is in the table, and nothing imports it", name))
		}
	}
	return broken, nil
}

// files calls f with each file of a checkout, by its path in it.
func files(root string, f func(name string, content []byte) error) error {
	return filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		if name == ".git" && !d.IsDir() { // of a linked worktree
			return nil
		}
		if d.IsDir() && slices.Contains([]string{".git", ".cache", "bin", "dist"}, name) {
			return fs.SkipDir
		}
		if !d.Type().IsRegular() {
			return nil
		}
		content, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // some test's, that has gone
		}
		if err != nil {
			return err
		}
		return f(name, content)
	})
}

// sources calls f with each of our Go files that is not a test's.
func sources(root string, f func(name string, content []byte) error) error {
	return files(root, func(name string, content []byte) error {
		if path.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") || strings.Contains(name, "testdata/") {
			return nil
		}
		return f(name, content)
	})
}

// lengths keeps files short enough to be read at one go.
func lengths(root string) ([]string, error) {
	var broken []string
	err := sources(root, func(name string, content []byte) error {
		limit := maxFile
		if ok, _ := path.Match("cmd/*/main.go", name); ok {
			limit = maxMain
		}
		if n := bytes.Count(content, []byte("\n")); n > limit {
			broken = append(broken, fmt.Sprintf("%s: %d lines, at most %d", name, n, limit))
		}
		return nil
	})
	return broken, err
}

// comments wants one on each package and each exported name.
func comments(root string) ([]string, error) {
	var broken []string
	documented := map[string]bool{} // by the package's folder
	err := sources(root, func(name string, content []byte) error {
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, name, content, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir := path.Dir(name)
		documented[dir] = documented[dir] || file.Doc != nil
		for _, decl := range file.Decls {
			for _, n := range undocumented(decl) {
				broken = append(broken, fmt.Sprintf("%s:%d: %s has no comment", name, fset.Position(n.pos).Line, n.name))
			}
		}
		return nil
	})
	for dir, ok := range documented {
		if !ok {
			broken = append(broken, dir+": the package has no comment")
		}
	}
	return broken, err
}

// named is a name and where it is.
type named struct {
	name string
	pos  token.Pos
}

// undocumented returns the exported names of a declaration which no comment
// speaks of. That of a group of constants or variables speaks of all in it.
func undocumented(decl ast.Decl) []named {
	var found []named
	switch d := decl.(type) {
	case *ast.FuncDecl:
		receiver := receiverOf(d)
		if d.Doc == nil && d.Name.IsExported() && (receiver == "" || ast.IsExported(receiver)) {
			found = append(found, named{strings.TrimPrefix(receiver+"."+d.Name.Name, "."), d.Pos()})
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				// A group's comment is no manual of each of its types.
				if s.Name.IsExported() && s.Doc == nil && (d.Lparen.IsValid() || d.Doc == nil) {
					found = append(found, named{s.Name.Name, s.Pos()})
				}
			case *ast.ValueSpec:
				if d.Doc == nil && s.Doc == nil && s.Comment == nil {
					for _, n := range s.Names {
						if n.IsExported() {
							found = append(found, named{n.Name, n.Pos()})
						}
					}
				}
			}
		}
	}
	return found
}

// receiverOf returns the name of the type that a method belongs to, or "".
func receiverOf(d *ast.FuncDecl) string {
	if d.Recv == nil || len(d.Recv.List) == 0 {
		return ""
	}
	t := d.Recv.List[0].Type
	for {
		switch x := t.(type) {
		case *ast.StarExpr:
			t = x.X
		case *ast.IndexExpr:
			t = x.X
		case *ast.IndexListExpr:
			t = x.X
		case *ast.Ident:
			return x.Name
		default:
			return "?"
		}
	}
}

// machinePaths are where people and machines keep checkouts and caches: no file
// of ours has business with them. Written in two parts, to be none themselves.
var machinePaths = []string{"/" + "work/", "/root/" + "go/", "/home/" + "runner/"}

// words looks for what must not be in any file.
func words(root string) ([]string, error) {
	var broken []string
	err := files(root, func(name string, content []byte) error {
		n := 0
		for line := range bytes.Lines(content) {
			n++
			for _, word := range machinePaths {
				if bytes.Contains(line, []byte(word)) {
					broken = append(broken, fmt.Sprintf("%s:%d: a path of somebody's machine", name, n))
				}
			}
		}
		return nil
	})
	return broken, err
}
