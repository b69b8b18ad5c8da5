package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"unicode/utf8"
)

// Effective returns the whole configuration as YAML, every key in the order of
// its struct, with a comment behind each value that says where it came from.
// Of secrets it shows where they are kept. Load reads it back as the same
// configuration. Root is the struct or a pointer to it; res is what Load
// returned, or nil.
func Effective(root any, res *Result) []byte {
	w := &yamlWriter{res: res}
	v := reflect.Indirect(reflect.ValueOf(root))
	w.section(v, "", "")
	return w.bytes()
}

// yamlWriter collects lines, to align their comments in the end.
type yamlWriter struct {
	res   *Result
	lines []commented
}

type commented struct{ text, comment string }

// Where comments start, unless all lines are shorter, and how long a list may
// be in one line; in characters.
const (
	maxComment = 56
	maxFlow    = 60
)

func (w *yamlWriter) line(text, comment string) {
	w.lines = append(w.lines, commented{text, comment})
}

func (w *yamlWriter) bytes() []byte {
	col := 0
	for _, l := range w.lines {
		if n := utf8.RuneCountInString(l.text); l.comment != "" && n <= maxComment {
			col = max(col, n)
		}
	}
	var b bytes.Buffer
	for _, l := range w.lines {
		b.WriteString(l.text)
		if l.comment != "" {
			pad := max(0, col-utf8.RuneCountInString(l.text))
			fmt.Fprintf(&b, "%s  # %s", strings.Repeat(" ", pad), l.comment)
		}
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// origin returns what the comment behind a value says.
func (w *yamlWriter) origin(path string) string {
	return printable(w.res.Origin(path).String())
}

func (w *yamlWriter) section(v reflect.Value, path, indent string) {
	for _, f := range fieldsOf(v.Type()) {
		w.value(f.key, v.Field(f.i), join(path, f.key), indent)
	}
}

// value writes one "key: value", in as many lines as it takes.
func (w *yamlWriter) value(key string, v reflect.Value, path, indent string) {
	for shapeOf(v.Type()) == shapePointer && !v.IsNil() {
		v = v.Elem()
	}
	head := indent + key + ":"
	deeper := indent + "  "
	switch s := shapeOf(v.Type()); {
	case s == shapeSection && len(fieldsOf(v.Type())) > 0:
		w.line(head, "")
		w.section(v, path, deeper)
	case s == shapeMap && v.Len() > 0:
		w.line(head, "")
		for _, k := range sortedKeys(v) {
			w.value(quote(k.String(), true), v.MapIndex(k), join(path, k.String()), deeper)
		}
	case s == shapeList && !fitsLine(v):
		w.line(head, w.origin(path))
		for i := range v.Len() {
			w.item(v.Index(i), fmt.Sprintf("%s[%d]", path, i), deeper)
		}
	default:
		w.line(head+" "+inline(v), w.origin(path))
	}
}

// item writes one item of a list.
func (w *yamlWriter) item(v reflect.Value, path, indent string) {
	for shapeOf(v.Type()) == shapePointer && !v.IsNil() {
		v = v.Elem()
	}
	if shapeOf(v.Type()) != shapeSection || len(fieldsOf(v.Type())) == 0 {
		w.line(indent+"- "+flow(v), "")
		return
	}
	start := len(w.lines)
	w.section(v, path, indent+"  ")
	first := &w.lines[start].text
	*first = indent + "- " + strings.TrimPrefix(*first, indent+"  ")
}

// fitsLine says whether a list is written in brackets: a short one of scalars.
func fitsLine(v reflect.Value) bool {
	if v.Len() == 0 {
		return true
	}
	switch shapeOf(v.Type().Elem()) {
	case shapeSection, shapeMap, shapeList, shapePointer:
		return false
	}
	return utf8.RuneCountInString(flow(v)) <= maxFlow
}

// JSON returns the whole configuration as one JSON object with the members
//
//   - "config": the configuration, in the shape and with the keys of the YAML
//     form; durations, sizes, addresses and the like are strings, and secrets
//     are where they are kept,
//   - "origins": where each value that is not a default was set, by its path:
//     {"dns.listen": "/etc/berth/berth.yaml:3"}. List items of scalars have
//     the origin of their list.
//
// Root and res are as in Effective.
func JSON(root any, res *Result) []byte {
	var b bytes.Buffer
	b.WriteString(`{"config":`)
	writeJSON(&b, reflect.Indirect(reflect.ValueOf(root)))
	b.WriteString(`,"origins":{`)
	n := 0
	leaves(reflect.Indirect(reflect.ValueOf(root)), "", func(path string) {
		o := res.Origin(path)
		if o == (Origin{}) {
			return
		}
		if n++; n > 1 {
			b.WriteByte(',')
		}
		b.WriteString(jsonString(path) + ":" + jsonString(o.String()))
	})
	b.WriteString("}}")
	var out bytes.Buffer
	// What was written above is JSON, so that Indent cannot fail.
	_ = json.Indent(&out, b.Bytes(), "", "  ")
	out.WriteByte('\n')
	return out.Bytes()
}

func writeJSON(b *bytes.Buffer, v reflect.Value) {
	comma := func(i int) {
		if i > 0 {
			b.WriteByte(',')
		}
	}
	switch shapeOf(v.Type()) {
	case shapePointer:
		if v.IsNil() {
			b.WriteString("null")
			return
		}
		writeJSON(b, v.Elem())
	case shapeSection:
		b.WriteByte('{')
		for i, f := range fieldsOf(v.Type()) {
			comma(i)
			b.WriteString(jsonString(f.key) + ":")
			writeJSON(b, v.Field(f.i))
		}
		b.WriteByte('}')
	case shapeMap:
		b.WriteByte('{')
		for i, k := range sortedKeys(v) {
			comma(i)
			b.WriteString(jsonString(k.String()) + ":")
			writeJSON(b, v.MapIndex(k))
		}
		b.WriteByte('}')
	case shapeList:
		b.WriteByte('[')
		for i := range v.Len() {
			comma(i)
			writeJSON(b, v.Index(i))
		}
		b.WriteByte(']')
	case shapeText:
		b.WriteString(jsonString(textOf(v)))
	default:
		b.WriteString(plain(v))
	}
}

// jsonString quotes a string; the encoder cannot fail on one.
func jsonString(s string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s)
	return strings.TrimSuffix(b.String(), "\n")
}

// leaves calls yield with the path of every value that has an origin of its
// own, in the order of the structs.
func leaves(v reflect.Value, path string, yield func(string)) {
	switch s := shapeOf(v.Type()); {
	case s == shapePointer && !v.IsNil():
		leaves(v.Elem(), path, yield)
	case s == shapeSection:
		for _, f := range fieldsOf(v.Type()) {
			leaves(v.Field(f.i), join(path, f.key), yield)
		}
	case s == shapeMap:
		for _, k := range sortedKeys(v) {
			leaves(v.MapIndex(k), join(path, k.String()), yield)
		}
	case s == shapeList:
		yield(path)
		if fitsLine(v) || shapeOf(v.Type().Elem()) != shapeSection {
			return
		}
		for i := range v.Len() {
			leaves(v.Index(i), fmt.Sprintf("%s[%d]", path, i), yield)
		}
	default:
		yield(path)
	}
}
