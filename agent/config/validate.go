package config

import (
	"errors"
	"fmt"
	"reflect"
)

// Validator is implemented by structs with rules beyond the types of their
// fields. Load calls Validate after merging all files, inner structs first. It
// may return several errors with errors.Join. Each *FieldError among them is
// shown at the place where its field was set; other errors at the place of the
// struct. Where something in the struct could not be read and has its default
// still, only errors of the fields count that were set and could be read.
type Validator interface{ Validate() error }

// FieldError is an error of one field of a struct that is validated.
type FieldError struct {
	// Field is the path of the field relative to the struct, in keys:
	// "listen", "rules[1].match".
	Field string
	// Err says what is wrong with the value and, better, what would be right.
	Err error
}

// Fieldf returns a FieldError with a formatted error.
func Fieldf(field, format string, args ...any) *FieldError {
	return &FieldError{Field: field, Err: fmt.Errorf(format, args...)}
}

// Error returns "field: error".
func (e *FieldError) Error() string { return e.Field + ": " + e.Err.Error() }

// Unwrap returns the error.
func (e *FieldError) Unwrap() error { return e.Err }

// validate calls the validators in v, inner ones first.
func (d *decoder) validate(v reflect.Value, path string) {
	switch shapeOf(v.Type()) {
	case shapePointer:
		if !v.IsNil() {
			d.validate(v.Elem(), path)
		}
	case shapeList:
		for i := range v.Len() {
			d.validate(v.Index(i), fmt.Sprintf("%s[%d]", path, i))
		}
	case shapeMap:
		for k, item := range v.Seq2() {
			copied := reflect.New(item.Type()).Elem()
			copied.Set(item)
			d.validate(copied, join(path, k.String()))
		}
	case shapeSection:
		for _, f := range fieldsOf(v.Type()) {
			d.validate(v.Field(f.i), join(path, f.key))
		}
		if val, ok := v.Addr().Interface().(Validator); ok {
			d.invalid(path, val.Validate())
		}
	}
}

// invalid reports what Validate returned of the struct at path.
func (d *decoder) invalid(path string, err error) {
	if err == nil {
		return
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, err := range many.Unwrap() {
			d.invalid(path, err)
		}
		return
	}
	e := &Error{Path: path, Msg: err.Error(), Err: err}
	if fe, ok := errors.AsType[*FieldError](err); ok {
		e.Path, e.Msg = below(path, fe.Field), fe.Err.Error()
	}
	if _, set := d.marks[e.Path]; d.failed[path] && (!set || e.Path == path || d.failed[e.Path]) {
		return // it may be due to what could not be read
	}
	for p := e.Path; ; p = parent(p) {
		if m, ok := d.marks[p]; ok {
			e.at = m
			break
		}
		if p == "" {
			break
		}
	}
	d.add(e)
}

// below appends the relative path of a field to that of a struct.
func below(path, rel string) string {
	if path == "" || rel == "" {
		return path + rel
	}
	return path + "." + rel
}
