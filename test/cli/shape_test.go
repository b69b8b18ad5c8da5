package cli

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// field is one line of JSON.md: `path  kind` with an optional "?" behind the
// kind.
type field struct {
	kind     string
	optional bool
}

var documentedField = regexp.MustCompile(`^    (\S+) +(string|number|boolean|time|object|array|any)(\??)( |$)`)

// documented reads a section of JSON.md.
func documented(section string) (map[string]field, error) {
	raw, err := os.ReadFile("JSON.md")
	if err != nil {
		return nil, err
	}
	fields := make(map[string]field)
	in := false
	for line := range strings.Lines(string(raw)) {
		line = strings.TrimRight(line, "\n")
		if title, ok := strings.CutPrefix(line, "## "); ok {
			in = title == "berth "+section
		}
		if m := documentedField.FindStringSubmatch(line); in && m != nil {
			fields[m[1]] = field{kind: m[2], optional: m[3] == "?"}
		}
	}
	return fields, nil
}

// cmdShape compares standard output with what JSON.md says of a command: every
// field must be documented, of the kind that it says, and there unless it is
// optional.
func cmdShape(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: shape NAME")
	}
	fields, err := documented(strings.Join(args, " "))
	ts.Check(err)
	if len(fields) == 0 {
		ts.Fatalf("JSON.md has no section for berth %s", strings.Join(args, " "))
	}
	dec := json.NewDecoder(strings.NewReader(ts.ReadFile("stdout")))
	var v any
	ts.Check(dec.Decode(&v))
	var wrong []string
	check(fields, ".", v, &wrong)
	slices.Sort(wrong)
	if wrong = slices.Compact(wrong); len(wrong) > 0 {
		ts.Fatalf("not as JSON.md has it:\n  %s", strings.Join(wrong, "\n  "))
	}
}

// check appends to wrong what is wrong with v, the value at path.
func check(fields map[string]field, path string, v any, wrong *[]string) {
	f, ok := fields[path]
	if !ok {
		*wrong = append(*wrong, path+" is not documented")
		return
	}
	if f.kind == "any" {
		return
	}
	if kind := kindOf(v); kind != f.kind && (f.kind != "string" || kind != "time") {
		*wrong = append(*wrong, path+" is documented as "+f.kind+" and is "+kind)
		return
	}
	join := strings.TrimSuffix(path, ".")
	switch v := v.(type) {
	case []any:
		for _, sub := range v {
			check(fields, path+"[]", sub, wrong)
		}
	case map[string]any:
		_, free := fields[join+".*"]
		for k, sub := range v {
			if free {
				k = "*"
			}
			check(fields, join+"."+k, sub, wrong)
		}
		for name, f := range fields {
			key, below := strings.CutPrefix(name, join+".")
			if !below || key == "" || key == "*" || strings.ContainsAny(key, ".[") || f.optional {
				continue
			}
			if _, ok := v[key]; !ok {
				*wrong = append(*wrong, name+" is missing")
			}
		}
	}
}

func kindOf(v any) string {
	switch v := v.(type) {
	case string:
		if timestamp.FindString(v) == v && v != "" {
			return "time"
		}
		return "string"
	case float64:
		return "number"
	case bool:
		return "boolean"
	case []any:
		return "array"
	case map[string]any:
		return "object"
	}
	return "null"
}
