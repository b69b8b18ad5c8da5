// Package config loads berth's configuration: YAML files, merged in order into
// one Go struct that already holds the defaults.
//
// # What a file may say
//
// The keys are those of the struct's yaml tags. Later files override earlier
// ones: a scalar or a list is replaced, a section or a map is merged key by
// key. Nothing is ignored: an unknown or repeated key, a second document, an
// anchor, alias, merge key, tag or directive is an error, and so is a file in
// conf.d that is neither a config nor a known kind of leftover (see ReadDir).
//
//	listen:          # a blank scalar or list is an error: remove the key to
//	                 # keep the default, write "" or [] for an empty value
//	discovery:       # a blank section or map says nothing, and is fine: its
//	  # zone: x.     # keys may all be commented out
//	tls: null        # null is only for keys that can be absent (pointers)
//	name: 123        # text is taken as written; quotes are only needed where
//	                 # YAML itself needs them
//	ttl: 90s         # durations and sizes have units; only 0 goes without
//	password: file:/etc/berth/password   # never the secret itself; see Secret
//
// # What a Config struct may hold
//
// Exported fields, each with a yaml tag (or "-"): bool, integers, floats,
// strings, types with UnmarshalText and MarshalText (netip.Addr, Duration,
// Size, Percent, Secret), structs, slices, maps from strings, and pointers to
// these. A string type with Values() []string takes only these values. A struct
// with Validate() error is checked after loading (see Validator), one with
// SetDefaults() is pre-filled wherever a file adds a new one (see Defaulter).
// Load panics on any other type: that is a mistake of the program.
//
// # Errors
//
// Load returns all errors at once as *Errors: each with its place, an excerpt
// and what would be right.
//
//	cfg := Default()
//	files, err := config.ReadDir("/etc/berth/berth.yaml", "/etc/berth/conf.d")
//	…
//	res, err := config.Load(&cfg, files...)
//	if bad, ok := errors.AsType[*config.Errors](err); ok {
//		bad.Format(os.Stderr, colour)
//	}
//
// Effective and JSON print what is in force, and where each value came from.
// Sample, Reference and Keys are for generators: they describe a struct in the
// words of its doc comments (see DocsFromSource).
package config

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// File is one source of configuration.
type File struct {
	// Name is what messages and origins call it: a path.
	Name string
	// Data is its YAML text.
	Data []byte
	// Skipped, unless empty, says why the file is not read; Load turns it into
	// a warning. See ReadDir.
	Skipped string

	override string // the key that the file sets, if it is an Override
}

// Override returns a File that sets one key, such as "discovery.zone": a value
// that came by a flag or from the environment. The name is its origin ("flag
// --zone", "env BERTH_ZONE"). The value is taken as it is where the key takes
// text, and as YAML otherwise. Pass overrides after all files.
func Override(name, key, value string) File {
	return File{Name: name, Data: []byte(value), override: key}
}

// Defaulter is implemented, on the pointer, by structs that are items of lists
// or maps, or behind pointers: SetDefaults fills one that a file adds.
type Defaulter interface{ SetDefaults() }

// Origin says where a value was set. The zero value means: nowhere, it is the
// default.
type Origin struct {
	File string // the name of a File
	Line int    // from 1; 0 for an Override
}

// String returns "file:line", the name of an override, or "default".
func (o Origin) String() string {
	switch {
	case o.File == "":
		return "default"
	case o.Line == 0:
		return o.File
	default:
		return fmt.Sprintf("%s:%d", o.File, o.Line)
	}
}

// Result is what Load found besides the values. It is immutable.
type Result struct {
	// Warnings name what was not read, one sentence each.
	Warnings []string

	marks map[string]mark
}

// Origin returns where the value at a path was set last, such as "dns.listen",
// "rules[0].match" or `tags."a.b"`. A nil Result knows defaults only.
func (r *Result) Origin(path string) Origin {
	if r == nil {
		return Origin{}
	}
	m, ok := r.marks[path]
	if !ok {
		return Origin{}
	}
	return Origin{File: m.src.name, Line: m.line}
}

// mark is a place in a file.
type mark struct {
	src       *source
	line, col int // from 1, in lines and characters; 0 in an override
	width     int // in characters
}

// Load merges the files, in order, into the struct that dst points to, which
// holds the defaults, and validates the outcome. The error, if any, is an
// *Errors; dst is then in an undefined state. Maps, slices and pointers that
// the defaults hold are replaced, never changed, so that they may be shared.
//
// Load does no I/O. It panics if dst is not a pointer to a struct that can be
// configured.
func Load(dst any, files ...File) (*Result, error) {
	root := reflect.ValueOf(dst).Elem()
	keys := secretKeys(root.Type())
	d := &decoder{
		root:   root.Type(),
		marks:  make(map[string]mark),
		failed: make(map[string]bool),
	}
	res := &Result{marks: d.marks}
	for i, f := range files {
		if f.Skipped != "" {
			res.Warnings = append(res.Warnings, fmt.Sprintf("%s is not read: %s", f.Name, f.Skipped))
			continue
		}
		d.file(root, newSource(f, i, keys))
	}
	if !d.unreadable {
		d.validate(root, "")
	}
	if len(d.errs) > 0 {
		slices.SortStableFunc(d.errs, (*Error).compare)
		return nil, &Errors{List: d.errs}
	}
	return res, nil
}

// source is a File with what it takes to show parts of it.
type source struct {
	name  string
	key   string // of an override
	order int    // among all files
	text  string
	lines []string // as they are
	shown []string // as excerpts show them: secrets masked
}

func newSource(f File, order int, keys map[string]bool) *source {
	s := &source{name: f.Name, key: f.override, order: order}
	// A byte order mark is what some editors put in front; it says nothing.
	s.text = strings.TrimPrefix(string(f.Data), "\ufeff")
	s.lines = strings.Split(strings.ReplaceAll(s.text, "\r\n", "\n"), "\n")
	s.shown = mask(s.lines, keys)
	return s
}

// mark returns a place in the source; in an override there are none.
func (s *source) mark(line, col, width int) mark {
	if s.key != "" {
		return mark{src: s}
	}
	return mark{src: s, line: line, col: col, width: width}
}

// compare orders errors by file, line and column; those of no file come last.
func (e *Error) compare(o *Error) int {
	order := func(e *Error) int {
		if e.at.src == nil {
			return int(^uint(0) >> 1)
		}
		return e.at.src.order
	}
	return cmp.Or(cmp.Compare(order(e), order(o)), cmp.Compare(e.Line, o.Line),
		cmp.Compare(e.Column, o.Column), cmp.Compare(e.Path, o.Path))
}
