package config

import (
	"encoding"
	"fmt"
	"iter"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"
)

// shape is what a Go type looks like in YAML.
type shape int

const (
	shapeText    shape = iota // a string, or a type with UnmarshalText
	shapeBool                 // true or false
	shapeInt                  // a whole number
	shapeUint                 // a whole number from 0
	shapeFloat                // any number
	shapeList                 // a sequence
	shapeMap                  // a mapping with keys of the user's choice
	shapeSection              // a mapping with the keys of a struct
	shapePointer              // null, or what it points to
)

var (
	textType     = reflect.TypeFor[encoding.TextUnmarshaler]()
	secretType   = reflect.TypeFor[Secret]()
	durationType = reflect.TypeFor[time.Duration]()
)

// shapeOf returns the shape of a type, and panics if it has none: then a Config
// struct is wrong, not a file.
func shapeOf(t reflect.Type) shape {
	if reflect.PointerTo(t).Implements(textType) {
		return shapeText
	}
	if t == durationType {
		panic("config: time.Duration in a config struct: use config.Duration")
	}
	switch t.Kind() {
	case reflect.String:
		return shapeText
	case reflect.Bool:
		return shapeBool
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return shapeInt
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return shapeUint
	case reflect.Float32, reflect.Float64:
		return shapeFloat
	case reflect.Slice:
		return shapeList
	case reflect.Map:
		if t.Key().Kind() == reflect.String {
			return shapeMap
		}
	case reflect.Struct:
		return shapeSection
	case reflect.Pointer:
		if t.Elem().Kind() != reflect.Pointer {
			return shapePointer
		}
	}
	panic(fmt.Sprintf("config: type %s cannot be configured", t))
}

// field is one key of a section.
type field struct {
	key  string // in YAML
	name string // in Go
	typ  reflect.Type
	i    int // its index in the struct
}

// fieldsOf returns the keys of a struct in the order of its fields. Every
// exported field must have a yaml tag, so that none is forgotten; the tag "-"
// leaves one out.
func fieldsOf(t reflect.Type) []field {
	var fields []field
	for i := range t.NumField() {
		f := t.Field(i)
		if !f.IsExported() {
			continue
		}
		key, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if key == "-" {
			continue
		}
		if key == "" {
			panic(fmt.Sprintf("config: field %s.%s has no yaml tag", t, f.Name))
		}
		if slices.ContainsFunc(fields, func(f field) bool { return f.key == key }) {
			panic(fmt.Sprintf("config: two fields of %s have the yaml tag %q", t, key))
		}
		fields = append(fields, field{key: key, name: f.Name, typ: f.Type, i: i})
	}
	return fields
}

// keysOf returns the keys of a struct, in the order of its fields.
func keysOf(t reflect.Type) []string {
	var keys []string
	for _, f := range fieldsOf(t) {
		keys = append(keys, f.key)
	}
	return keys
}

// lookup finds a field by its key.
func lookup(t reflect.Type, key string) (field, bool) {
	for _, f := range fieldsOf(t) {
		if f.key == key {
			return f, true
		}
	}
	return field{}, false
}

// allFields yields every field of t and of what it contains, parents first,
// with its path: list items are "[]" and map entries "<name>". It panics on a
// type that cannot be configured, among them one that contains itself.
func allFields(t reflect.Type) iter.Seq2[string, field] {
	return func(yield func(string, field) bool) { walkType(t, "", nil, yield) }
}

func walkType(t reflect.Type, path string, above []reflect.Type, yield func(string, field) bool) bool {
	switch shapeOf(t) {
	case shapePointer:
		return walkType(t.Elem(), path, above, yield)
	case shapeList:
		return walkType(t.Elem(), path+"[]", above, yield)
	case shapeMap:
		return walkType(t.Elem(), path+".<name>", above, yield)
	case shapeSection:
		if slices.Contains(above, t) {
			panic(fmt.Sprintf("config: type %s contains itself", t))
		}
		for _, f := range fieldsOf(t) {
			p := join(path, f.key)
			if !yield(p, f) || !walkType(f.typ, p, append(above, t), yield) {
				return false
			}
		}
	}
	return true
}

// join appends a key to a path, quoted where it would not read as one.
func join(path, key string) string {
	if !isWord(key) {
		key = fmt.Sprintf("%q", key)
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

// parent returns the path of what contains the value at path: "a.b" for
// "a.b[3]" and for "a.b.c", "" for "a".
func parent(path string) string {
	quoted := false
	for i := len(path) - 1; i >= 0; i-- {
		switch c := path[i]; {
		case c == '"' && (i == 0 || path[i-1] != '\\'):
			quoted = !quoted
		case (c == '.' || c == '[') && !quoted:
			return path[:i]
		}
	}
	return ""
}

func isWord(s string) bool {
	for _, c := range s {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '_' && c != '-' {
			return false
		}
	}
	return s != ""
}

// enum is a string type with a fixed set of values.
type enum interface{ Values() []string }

// Describer is implemented by types with UnmarshalText, so that messages and
// the reference can say what they take: a name with its article ("a duration")
// and an example that it accepts ("1h30m").
type Describer interface {
	ConfigType() (name, example string)
}

// describe says in words what a type takes, with an example.
func describe(t reflect.Type) (name, example string) {
	switch v := reflect.New(t).Interface().(type) {
	case Describer:
		return v.ConfigType()
	case enum:
		values := v.Values()
		return "one of " + strings.Join(values, ", "), values[0]
	case *netip.Addr:
		return "an IP address", "192.0.2.1"
	case *netip.AddrPort:
		return "an IP address and port", "127.0.0.1:53"
	case *netip.Prefix:
		return "a network", "10.0.0.0/8"
	}
	switch shapeOf(t) {
	case shapeBool:
		return "true or false", "true"
	case shapeInt:
		return "a whole number", "10"
	case shapeUint:
		return "a whole number from 0", "10"
	case shapeFloat:
		return "a number", "0.5"
	case shapeList:
		_, item := describe(t.Elem())
		return "a list", "[" + item + "]"
	case shapeMap:
		_, value := describe(t.Elem())
		return "a map", "{name: " + value + "}"
	case shapeSection:
		keys := keysOf(t)
		if len(keys) == 0 {
			return "a section", "{}"
		}
		f, _ := lookup(t, keys[0])
		_, value := describe(f.typ)
		return "a section", "{" + keys[0] + ": " + value + "}"
	case shapePointer:
		return describe(t.Elem())
	default:
		return "text", `"some text"`
	}
}

// newValue returns an addressable new value of a type, with the defaults of
// every Defaulter in it, inner ones first.
func newValue(t reflect.Type) reflect.Value {
	v := reflect.New(t).Elem()
	setDefaults(v)
	return v
}

func setDefaults(v reflect.Value) {
	if shapeOf(v.Type()) != shapeSection {
		return
	}
	for _, f := range fieldsOf(v.Type()) {
		setDefaults(v.Field(f.i))
	}
	if d, ok := v.Addr().Interface().(Defaulter); ok {
		d.SetDefaults()
	}
}
