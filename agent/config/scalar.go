package config

import (
	"encoding"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// scalar is a single value as a file has it.
type scalar struct {
	text   string // unquoted, otherwise as written
	kind   string // what YAML takes it for, for messages
	quoted bool
}

// scalarOf returns the scalar of a node, and false if the node is none.
func scalarOf(n ast.Node) (scalar, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		t := n.Token.Type
		return scalar{text: n.Value, kind: "text", quoted: t == token.SingleQuoteType || t == token.DoubleQuoteType}, true
	case *ast.LiteralNode:
		return scalar{text: n.Value.Value, kind: "text", quoted: true}, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return scalar{text: n.GetToken().Value, kind: "a number"}, true
	case *ast.BoolNode:
		return scalar{text: n.Token.Value, kind: n.Token.Value}, true
	case *ast.NullNode:
		if n.Token.Type == token.ImplicitNullType {
			return scalar{kind: "blank"}, true
		}
		return scalar{text: n.Token.Value, kind: "null"}, true
	}
	return scalar{}, false
}

// scalar decodes a scalar into a dst of one of the scalar shapes.
func (d *decoder) scalar(dst reflect.Value, s scalar, path string, at mark) {
	typ := dst.Type()
	if shapeOf(typ) == shapeText {
		d.text(dst, s.text, path, at)
		return
	}
	if s.quoted && plainWouldDo(typ, s.text) {
		d.fail(path, at, "this is text", "remove the quotes")
		return
	}
	var err error
	switch shapeOf(typ) {
	case shapeBool:
		switch strings.ToLower(s.text) {
		case "true":
			dst.SetBool(true)
		case "false":
			dst.SetBool(false)
		default:
			err = errSyntax
		}
	case shapeInt:
		var i int64
		if i, err = strconv.ParseInt(decimal(s.text), 10, typ.Bits()); err == nil {
			dst.SetInt(i)
		}
	case shapeUint:
		var u uint64
		if u, err = strconv.ParseUint(decimal(s.text), 10, typ.Bits()); err == nil {
			dst.SetUint(u)
		}
	case shapeFloat:
		var f float64
		if f, err = strconv.ParseFloat(decimal(s.text), typ.Bits()); err == nil && (math.IsNaN(f) || math.IsInf(f, 0)) {
			err = errSyntax
		}
		if err == nil {
			dst.SetFloat(f)
		}
	}
	if err != nil {
		d.badScalar(typ, s, path, at, err)
	}
}

var errSyntax = errors.New("invalid syntax")

// decimal returns text if it is a decimal number as people write them, and
// otherwise something that is none: 0x1f, 0o17, 1_000 and 017 are numbers to
// one YAML parser and not, or other ones, to the next.
func decimal(text string) string {
	digits := strings.TrimLeft(text, "+-")
	if strings.ContainsAny(digits, "xXoO_pP") || len(digits) > 1 && digits[0] == '0' && digits[1] != '.' {
		return ""
	}
	return text
}

// plainWouldDo says whether text is a value of a type that is not text.
func plainWouldDo(typ reflect.Type, text string) bool {
	if shapeOf(typ) == shapeBool {
		return text == "true" || text == "false"
	}
	_, err := strconv.ParseFloat(decimal(text), 64)
	return err == nil
}

// badScalar says why a scalar is not a value of the type.
func (d *decoder) badScalar(typ reflect.Type, s scalar, path string, at mark, err error) {
	name, _ := describe(typ)
	msg, hint := s.show()+" is not "+name, want(typ)
	lower := strings.ToLower(s.text)
	sh := shapeOf(typ)
	if sh == shapeBool {
		msg = s.show() + " is neither true nor false"
	}
	switch {
	case errors.Is(err, strconv.ErrRange) && (sh == shapeInt || sh == shapeUint):
		lo, hi := limits(typ)
		msg, hint = s.show()+" is out of range", fmt.Sprintf("write a whole number from %s to %s", lo, hi)
	case errors.Is(err, strconv.ErrRange):
		msg = s.show() + " is out of range"
	case sh == shapeBool && slices.Contains([]string{"yes", "on", "y", "1", "enabled"}, lower):
		hint = "write true"
	case sh == shapeBool && slices.Contains([]string{"no", "off", "n", "0", "disabled"}, lower):
		hint = "write false"
	case sh != shapeBool && s.kind == "a number" && decimal(s.text) == "":
		hint = "write it in decimal, without leading zeros or underscores"
	case sh == shapeUint && strings.HasPrefix(s.text, "-"):
		msg = s.show() + " is negative"
	}
	d.fail(path, at, msg, hint)
}

// limits returns the smallest and the largest number of a type.
func limits(typ reflect.Type) (lo, hi string) {
	bits := typ.Bits()
	if shapeOf(typ) == shapeUint {
		return "0", strconv.FormatUint(math.MaxUint64>>(64-bits), 10)
	}
	return strconv.FormatInt(math.MinInt64>>(64-bits), 10), strconv.FormatInt(math.MaxInt64>>(64-bits), 10)
}

// show returns the scalar as messages quote it: numbers and booleans bare, text
// in quotes and cut short.
func (s scalar) show() string {
	if s.kind != "text" && s.kind != "blank" {
		return s.text
	}
	return quoteShort(s.text)
}

// quoteShort quotes text for a message, and cuts it short.
func quoteShort(text string) string {
	if r := []rune(text); len(r) > 60 {
		text = string(r[:59]) + "…"
	}
	return strconv.Quote(text)
}

// text decodes text into a dst of shapeText.
func (d *decoder) text(dst reflect.Value, text, path string, at mark) {
	typ := dst.Type()
	u, ok := dst.Addr().Interface().(encoding.TextUnmarshaler)
	if !ok {
		if e, ok := dst.Addr().Interface().(enum); ok && !slices.Contains(e.Values(), text) {
			d.badEnum(e.Values(), text, path, at)
			return
		}
		dst.SetString(text)
		return
	}
	err := u.UnmarshalText([]byte(text))
	if err == nil {
		if e, ok := u.(enum); ok && !slices.Contains(e.Values(), text) {
			d.badEnum(e.Values(), text, path, at)
		}
		return
	}
	e := &Error{at: at, Path: path, Msg: err.Error(), Hint: want(typ), Err: err}
	var he *hintError
	switch u.(type) {
	case *netip.Addr, *netip.AddrPort, *netip.Prefix:
		// The package's own errors speak of its functions.
		name, _ := describe(typ)
		e.Msg = quoteShort(text) + " is not " + name
		if _, err := netip.ParseAddr(text); err == nil && typ == reflect.TypeFor[netip.AddrPort]() {
			e.Hint = "add the port, such as " + netip.AddrPortFrom(netip.MustParseAddr(text), 53).String()
		}
	default:
		if errors.As(err, &he) {
			e.Msg, e.Hint = he.msg, he.hint
		}
	}
	d.failWith(e)
}

func (d *decoder) badEnum(values []string, text, path string, at mark) {
	hint := "write one of " + strings.Join(values, ", ")
	if near := nearest(text, values); near != "" {
		hint = fmt.Sprintf("did you mean %q? %s", near, hint)
	}
	d.fail(path, at, quoteShort(text)+" is not a known value", hint)
}

// hintError is an error of one of this package's types, with what would be
// right.
type hintError struct{ msg, hint string }

func (e *hintError) Error() string { return e.msg + ": " + e.hint }
