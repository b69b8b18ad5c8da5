package config

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"strings"
)

// Docs holds the doc comments of Go types ("path/of/package.Type") and of their
// fields ("path/of/package.Type.Field").
type Docs map[string]string

// DocsFromSource reads doc comments from source folders, which are given by the
// paths of their packages as reflect has them: "main" for a command. It is for
// generators: an installed binary has no source.
func DocsFromSource(dirs map[string]string) (Docs, error) {
	docs := make(Docs)
	for pkg, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			return nil, fmt.Errorf("read docs: %w", err)
		}
		if len(files) == 0 {
			return nil, fmt.Errorf("read docs: %s: %w", dir, os.ErrNotExist)
		}
		for _, file := range files {
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
			if err != nil {
				return nil, fmt.Errorf("read docs: %w", err)
			}
			if !strings.HasSuffix(f.Name.Name, "_test") { // another package
				docs.add(pkg, f)
			}
		}
	}
	return docs, nil
}

func (d Docs) add(pkg string, f *ast.File) {
	for _, decl := range f.Decls {
		gen, ok := decl.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, spec := range gen.Specs {
			typ, ok := spec.(*ast.TypeSpec)
			if !ok {
				continue
			}
			name := pkg + "." + typ.Name.Name
			if doc := typ.Doc; doc != nil {
				d[name] = doc.Text()
			} else if len(gen.Specs) == 1 {
				d[name] = gen.Doc.Text()
			}
			if s, ok := typ.Type.(*ast.StructType); ok {
				d.addFields(name, s)
			}
		}
	}
}

func (d Docs) addFields(typ string, s *ast.StructType) {
	for _, f := range s.Fields.List {
		doc := f.Doc.Text()
		if doc == "" {
			doc = f.Comment.Text() // behind the field
		}
		for _, name := range f.Names {
			d[typ+"."+name.Name] = doc
		}
	}
}

// typeDoc returns what is said of a struct.
func (d Docs) typeDoc(t reflect.Type) string {
	return strings.TrimSpace(d[t.PkgPath()+"."+t.Name()])
}

// fieldDoc returns what is said of a field of struct t, or of the field's type.
// A doc comment starts with the name of its field; to people who write YAML
// that name is the key.
func (d Docs) fieldDoc(t reflect.Type, f field) string {
	doc := strings.TrimSpace(d[t.PkgPath()+"."+t.Name()+"."+f.name])
	name := f.name
	if elem := structIn(f.typ); doc == "" && elem != nil {
		doc, name = d.typeDoc(elem), elem.Name()
	}
	if rest, ok := strings.CutPrefix(doc, name+" "); ok {
		return f.key + " " + rest
	}
	return doc
}

// structIn returns the struct that a type is, points to or is a list or map of,
// or nil.
func structIn(t reflect.Type) reflect.Type {
	for {
		switch shapeOf(t) {
		case shapePointer, shapeList, shapeMap:
			t = t.Elem()
		case shapeSection:
			return t
		default:
			return nil
		}
	}
}

// paragraphs splits a doc comment. Lines that are indented or start with "- "
// are paragraphs of their own, to be left as they are.
func paragraphs(doc string) []string {
	var out []string
	open := false // whether the next line continues a paragraph
	for line := range strings.Lines(doc) {
		text := strings.TrimSpace(line)
		switch {
		case text == "":
			open = false
		case line[0] == ' ' || line[0] == '\t' || strings.HasPrefix(line, "- "):
			out = append(out, "  "+text)
			open = false
		case open:
			out[len(out)-1] += " " + text
		default:
			out = append(out, text)
			open = true
		}
	}
	return out
}

// wrap breaks text into lines of at most width bytes, where words allow it. All
// lines but the first start with the hanging indent.
func wrap(text string, width int, hanging string) []string {
	start := text[:len(text)-len(strings.TrimLeft(text, " "))]
	var lines []string
	line := start
	for word := range strings.FieldsSeq(text) {
		switch {
		case strings.TrimSpace(line) == "":
			line += word
		case len(line)+1+len(word) <= width:
			line += " " + word
		default:
			lines = append(lines, line)
			line = hanging + word
		}
	}
	return append(lines, line)
}
