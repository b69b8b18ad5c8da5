package config

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
)

// Key describes one key of a configuration, for generators.
type Key struct {
	// Path is the whole key: "dns.listen", "rules[].match" in the items of a
	// list, "buckets.<name>.region" in the entries of a map.
	Path string
	// Parent is the path of what contains the key: "dns", "rules[]",
	// "buckets.<name>", or "" at the top.
	Parent string
	// Name is the last part of Path, the key itself.
	Name string
	// Type says in words what the key takes, with an article: "a duration".
	Type string
	// Default is the value without a config, as YAML in one line; "" for
	// sections.
	Default string
	// Doc is the doc comment, with the key's name for that of the field.
	Doc string
	// Section is whether the key is a struct, whose keys follow.
	Section bool
	// Item is whether the key is in an item of a list, an entry of a map or a
	// section that is absent by default.
	Item bool
}

// Keys returns all keys of a configuration that holds its defaults, in the order
// of its structs, parents first. Root is the struct or a pointer to it.
func Keys(root any, docs Docs) []Key {
	var keys []Key
	v := reflect.New(reflect.Indirect(reflect.ValueOf(root)).Type()).Elem()
	v.Set(reflect.Indirect(reflect.ValueOf(root)))
	listKeys(v, "", false, docs, &keys)
	return keys
}

func listKeys(v reflect.Value, parent string, item bool, docs Docs, keys *[]Key) {
	for _, f := range fieldsOf(v.Type()) {
		path := join(parent, f.key)
		if strings.HasSuffix(parent, "[]") || strings.HasSuffix(parent, ".<name>") {
			path = parent + "." + f.key
		}
		k := Key{Path: path, Parent: parent, Name: f.key, Type: typeInWords(f.typ), Doc: docs.fieldDoc(v.Type(), f), Item: item}
		fv := v.Field(f.i)
		if shapeOf(f.typ) == shapeSection {
			k.Section = true
			*keys = append(*keys, k)
			listKeys(fv, path, item, docs, keys)
			continue
		}
		k.Default = inline(fv)
		*keys = append(*keys, k)
		elem := structIn(f.typ)
		if elem == nil {
			continue
		}
		content := newValue(elem)
		if f.typ.Kind() == reflect.Pointer && f.typ.Elem() == elem && !fv.IsNil() {
			content = fv.Elem()
		}
		listKeys(content, path+itemSuffix(f.typ), true, docs, keys)
	}
}

// itemSuffix returns what follows a key in the paths of what it contains.
func itemSuffix(t reflect.Type) string {
	switch shapeOf(t) {
	case shapePointer:
		return itemSuffix(t.Elem())
	case shapeList:
		return "[]" + itemSuffix(t.Elem())
	case shapeMap:
		return ".<name>" + itemSuffix(t.Elem())
	default:
		return ""
	}
}

// typeInWords says what a type takes, with an article.
func typeInWords(t reflect.Type) string {
	switch shapeOf(t) {
	case shapePointer:
		return typeInWords(t.Elem()) + ", or null"
	case shapeList:
		return "a list, each " + typeInWords(t.Elem())
	case shapeMap:
		return "a map, each value " + typeInWords(t.Elem())
	default:
		name, _ := describe(t)
		return name
	}
}

// Undocumented returns the paths of all keys that have no doc comment.
func Undocumented(root any, docs Docs) []string {
	var paths []string
	for _, k := range Keys(root, docs) {
		if k.Doc == "" {
			paths = append(paths, k.Path)
		}
	}
	return paths
}

// Reference returns a reference of all keys in Markdown: a heading and a table
// for each section and each kind of item. Headings start at the second level.
func Reference(root any, docs Docs) []byte {
	var b bytes.Buffer
	keys := Keys(root, docs)
	writeTable(&b, keys, "")
	for i, k := range keys {
		// What k contains, if anything, follows it.
		if i+1 == len(keys) || len(keys[i+1].Parent) <= len(k.Parent) {
			continue
		}
		parent := keys[i+1].Parent
		fmt.Fprintf(&b, "\n## `%s`\n\n", parent)
		for _, p := range paragraphs(k.Doc) {
			fmt.Fprintf(&b, "%s\n\n", p)
		}
		writeTable(&b, keys, parent)
	}
	return b.Bytes()
}

// writeTable writes the table of the keys that one parent contains.
func writeTable(b *bytes.Buffer, keys []Key, parent string) {
	b.WriteString("| Key | Type | Default | Description |\n|---|---|---|---|\n")
	for _, k := range keys {
		if k.Parent != parent {
			continue
		}
		value := "see below"
		if !k.Section {
			value = "`" + cell(k.Default) + "`"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", k.Name, cell(k.Type), value, cell(strings.Join(paragraphs(k.Doc), " ")))
	}
}

// cell escapes text for a cell of a table.
func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
