package config

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// flow returns a value as YAML in one line, which Load reads back as the same.
func flow(v reflect.Value) string {
	switch shapeOf(v.Type()) {
	case shapePointer:
		if v.IsNil() {
			return "null"
		}
		return flow(v.Elem())
	case shapeList:
		var items []string
		for i := range v.Len() {
			items = append(items, flow(v.Index(i)))
		}
		return "[" + strings.Join(items, ", ") + "]"
	case shapeMap:
		var entries []string
		for _, k := range sortedKeys(v) {
			entries = append(entries, quote(k.String(), true)+": "+flow(v.MapIndex(k)))
		}
		return "{" + strings.Join(entries, ", ") + "}"
	case shapeSection:
		var entries []string
		for _, f := range fieldsOf(v.Type()) {
			entries = append(entries, f.key+": "+flow(v.Field(f.i)))
		}
		return "{" + strings.Join(entries, ", ") + "}"
	case shapeText:
		return quote(textOf(v), true)
	default:
		return plain(v)
	}
}

// inline returns a value as what follows "key: " in one line.
func inline(v reflect.Value) string {
	switch shapeOf(v.Type()) {
	case shapePointer:
		if !v.IsNil() {
			return inline(v.Elem())
		}
	case shapeText:
		return quote(textOf(v), false)
	}
	return flow(v)
}

// plain returns a boolean or a number, which look the same in YAML and JSON.
func plain(v reflect.Value) string {
	switch shapeOf(v.Type()) {
	case shapeBool:
		return strconv.FormatBool(v.Bool())
	case shapeInt:
		return strconv.FormatInt(v.Int(), 10)
	case shapeUint:
		return strconv.FormatUint(v.Uint(), 10)
	default:
		f := v.Float()
		if f >= 1e15 || f <= -1e15 || f != 0 && f < 1e-6 && f > -1e-6 {
			return strconv.FormatFloat(f, 'e', -1, v.Type().Bits())
		}
		return strconv.FormatFloat(f, 'f', -1, v.Type().Bits())
	}
}

// textOf returns the text of a value of shapeText. Of a secret, it is where the
// secret is kept.
func textOf(v reflect.Value) string {
	switch t := v.Interface().(type) {
	case Secret:
		return t.Reference()
	case encoding.TextMarshaler:
		return marshal(t)
	}
	if v.Kind() == reflect.String {
		return v.String()
	}
	// UnmarshalText is declared on the pointer; so may MarshalText be.
	p := reflect.New(v.Type())
	p.Elem().Set(v)
	if t, ok := p.Interface().(encoding.TextMarshaler); ok {
		return marshal(t)
	}
	panic(fmt.Sprintf("config: type %s has UnmarshalText but not MarshalText", v.Type()))
}

func marshal(t encoding.TextMarshaler) string {
	b, err := t.MarshalText()
	if err != nil {
		return fmt.Sprintf("<%v>", err)
	}
	return string(b)
}

// sortedKeys returns the keys of a map in their order as strings.
func sortedKeys(m reflect.Value) []reflect.Value {
	return slices.SortedFunc(slices.Values(m.MapKeys()), func(a, b reflect.Value) int {
		return strings.Compare(a.String(), b.String())
	})
}

// quote returns text as a YAML scalar: bare when every YAML parser reads it as
// this very text, in double quotes otherwise. Within brackets or braces,
// colons need quotes, too.
func quote(text string, inFlow bool) string {
	if isBare(text, inFlow) {
		return text
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range text {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r != utf8.RuneError && unicode.IsPrint(r):
			b.WriteRune(r)
		case r <= 0xFFFF:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			fmt.Fprintf(&b, `\U%08X`, r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// reserved are the words that some version of YAML takes for no text.
var reserved = []string{"true", "false", "null", "yes", "no", "on", "off", "y", "n", "inf", "nan", "infinity"}

func isBare(text string, inFlow bool) bool {
	if text == "" || slices.Contains(reserved, strings.ToLower(text)) || strings.HasSuffix(text, ":") || strings.ContainsAny(text[:1], "-.:@%+=*~") {
		return false
	}
	for _, r := range text {
		if r == ':' && inFlow || !isASCIIAlnum(r) && !strings.ContainsRune("_/.:@%+=-*~", r) {
			return false
		}
	}
	// "1e3", "0x1f" and "1_000" are numbers, "10s" and "1.2.3.4" are not, and
	// YAML 1.1 reads 12:30 as a number in base 60.
	if _, err := strconv.ParseFloat(text, 64); err == nil {
		return false
	}
	if _, err := strconv.ParseInt(text, 0, 64); err == nil {
		return false
	}
	return strings.Trim(text, "0123456789:._") != "" || strings.Count(text, ".") == 3
}

func isASCIIAlnum(r rune) bool {
	return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
}
