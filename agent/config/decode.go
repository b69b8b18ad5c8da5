package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// decoder merges one source after the other into a struct, and collects what is
// wrong with them.
type decoder struct {
	root reflect.Type
	src  *source // the present one
	errs []*Error

	// marks has the place where each value, section and item was set last.
	marks map[string]mark
	// failed has the paths of everything that contains an error, so that it is
	// not validated: half a section would only give errors that are not real.
	failed map[string]bool
	// unreadable is set when a whole file is missing from the outcome.
	unreadable bool
}

// file merges one source into dst.
func (d *decoder) file(dst reflect.Value, s *source) {
	d.src = s
	if s.key != "" {
		d.override(dst)
		return
	}
	body, err := parse(s)
	if err != nil {
		d.unreadable = true
		d.add(err)
		return
	}
	if body != nil {
		d.value(dst, body, "", s.place(first(body)))
	}
}

// override merges a source that is the value of one key.
func (d *decoder) override(dst reflect.Value) {
	s := d.src
	typ := d.root
	path := ""
	for key := range strings.SplitSeq(s.key, ".") {
		for typ.Kind() == reflect.Pointer {
			typ = typ.Elem()
		}
		if shapeOf(typ) == shapeMap {
			typ, path = typ.Elem(), join(path, key)
			continue
		}
		if shapeOf(typ) != shapeSection {
			d.fail(path, s.mark(0, 0, 0), fmt.Sprintf("there is no key %q below", key), "")
			return
		}
		f, ok := lookup(typ, key)
		if !ok {
			d.fail(path, s.mark(0, 0, 0), fmt.Sprintf("unknown key %q", key), unknownKey(d.root, typ, key))
			return
		}
		typ, path = f.typ, join(path, key)
	}
	if shapeOf(typ) == shapeText {
		d.reach(dst, strings.Split(s.key, "."), "", func(v reflect.Value) { d.text(v, s.text, path, s.mark(0, 0, 0)) })
		return
	}
	body, err := parse(s)
	switch {
	case err != nil:
		err.Path = path
		d.failWith(err)
	case body == nil:
		d.fail(path, s.mark(0, 0, 0), "there is no value", want(typ))
	default:
		d.reach(dst, strings.Split(s.key, "."), "", func(v reflect.Value) { d.value(v, body, path, s.mark(0, 0, 0)) })
	}
}

// reach calls set with the value below dst that keys lead to, which exists, and
// makes the pointers and map entries on the way.
func (d *decoder) reach(dst reflect.Value, keys []string, path string, set func(reflect.Value)) {
	if len(keys) == 0 {
		d.marks[path] = d.src.mark(0, 0, 0)
		set(dst)
		return
	}
	switch shapeOf(dst.Type()) {
	case shapePointer:
		d.pointee(dst, func(v reflect.Value) { d.reach(v, keys, path, set) })
	case shapeMap:
		d.entry(dst, keys[0], func(v reflect.Value) { d.reach(v, keys[1:], join(path, keys[0]), set) })
	default:
		f, _ := lookup(dst.Type(), keys[0])
		d.reach(dst.Field(f.i), keys[1:], join(path, keys[0]), set)
	}
}

// value decodes a node into dst. What is wrong with the node as a whole is
// reported at the given place: its own, or that of its key when it is blank.
func (d *decoder) value(dst reflect.Value, n ast.Node, path string, at mark) {
	typ := dst.Type()
	if null, ok := n.(*ast.NullNode); ok {
		d.null(dst, null, path, at)
		return
	}
	if msg, hint := refused(n); msg != "" {
		d.fail(path, d.src.place(first(n)), msg, hint)
		return
	}
	switch shapeOf(typ) {
	case shapePointer:
		d.pointee(dst, func(v reflect.Value) { d.value(v, n, path, at) })
	case shapeSection:
		if entries, ok := d.mapping(n, typ, path); ok {
			d.section(dst, entries, path)
		}
	case shapeMap:
		if entries, ok := d.mapping(n, typ, path); ok {
			d.table(dst, entries, path)
		}
	case shapeList:
		d.list(dst, n, path)
	default:
		sc, ok := scalarOf(n)
		if !ok {
			d.mismatch(n, typ, path)
			return
		}
		d.scalar(dst, sc, path, d.src.place(n.GetToken()))
	}
}

// null decodes a node that is blank or says null.
func (d *decoder) null(dst reflect.Value, n *ast.NullNode, path string, at mark) {
	typ := dst.Type()
	blank := n.GetToken().Type == token.ImplicitNullType
	if !blank {
		at = d.src.place(n.GetToken())
	}
	switch s := shapeOf(typ); {
	case blank && (s == shapeSection || s == shapeMap):
		// All of its keys are commented out.
	case blank && path == "":
		// So is the whole file.
	case s == shapePointer && !blank:
		dst.SetZero()
	case s == shapePointer:
		d.fail(path, at, "there is no value", "write null for none; "+want(typ)+keepDefault)
	case !blank:
		d.fail(path, at, "null is not a value here", want(typ)+keepDefault)
	case s == shapeList:
		d.fail(path, at, "there is no value", "write [] for none; "+want(typ)+keepDefault)
	default:
		d.fail(path, at, "there is no value", want(typ)+keepDefault)
	}
}

const keepDefault = "; or remove the key to keep the default"

// pointee sets dst to point to a changed copy of what it pointed to.
func (d *decoder) pointee(dst reflect.Value, change func(reflect.Value)) {
	v := newValue(dst.Type().Elem())
	if !dst.IsNil() {
		v.Set(dst.Elem())
	}
	change(v)
	dst.Set(v.Addr())
}

// entry sets dst to a copy of the map with one entry changed.
func (d *decoder) entry(dst reflect.Value, key string, change func(reflect.Value)) {
	m := reflect.MakeMap(dst.Type())
	for k, v := range dst.Seq2() {
		m.SetMapIndex(k, v)
	}
	k := reflect.ValueOf(key).Convert(dst.Type().Key())
	v := newValue(dst.Type().Elem())
	if old := m.MapIndex(k); old.IsValid() {
		v.Set(old)
	}
	change(v)
	m.SetMapIndex(k, v)
	dst.Set(m)
}

// section merges entries into a struct.
func (d *decoder) section(dst reflect.Value, entries []entry, path string) {
	for _, e := range entries {
		f, ok := lookup(dst.Type(), e.key)
		if !ok {
			d.fail(path, e.at, fmt.Sprintf("unknown key %q", e.key), unknownKey(d.root, dst.Type(), e.key))
			continue
		}
		p := join(path, e.key)
		d.marks[p] = e.at
		d.value(dst.Field(f.i), e.value, p, e.at)
	}
}

// table merges entries into a map.
func (d *decoder) table(dst reflect.Value, entries []entry, path string) {
	if len(entries) == 0 && dst.IsNil() {
		dst.Set(reflect.MakeMap(dst.Type()))
	}
	for _, e := range entries {
		p := join(path, e.key)
		d.marks[p] = e.at
		d.entry(dst, e.key, func(v reflect.Value) { d.value(v, e.value, p, e.at) })
	}
}

// list replaces a slice.
func (d *decoder) list(dst reflect.Value, n ast.Node, path string) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		d.mismatch(n, dst.Type(), path)
		return
	}
	for p := range d.marks {
		if strings.HasPrefix(p, path+"[") {
			delete(d.marks, p)
		}
	}
	items := reflect.MakeSlice(dst.Type(), len(seq.Values), len(seq.Values))
	for i, item := range seq.Values {
		p := fmt.Sprintf("%s[%d]", path, i)
		at := d.src.place(first(item))
		d.marks[p] = at
		items.Index(i).Set(newValue(dst.Type().Elem()))
		if null, ok := item.(*ast.NullNode); ok && null.GetToken().Type == token.ImplicitNullType {
			d.fail(p, at, "the item is blank", want(dst.Type().Elem())+"; or remove the item")
			continue
		}
		d.value(items.Index(i), item, p, at)
	}
	dst.Set(items)
}

// entry is one "key: value" of a mapping.
type entry struct {
	key   string
	at    mark // of the key
	value ast.Node
}

// mapping returns the entries of a mapping, without those that are wrong.
func (d *decoder) mapping(n ast.Node, typ reflect.Type, path string) ([]entry, bool) {
	var nodes []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		nodes = n.Values
	case *ast.MappingValueNode:
		nodes = []*ast.MappingValueNode{n}
	default:
		d.mismatch(n, typ, path)
		return nil, false
	}
	var entries []entry
	for _, node := range nodes {
		at := d.src.place(first(node.Key))
		key, ok := scalarOf(node.Key)
		if !ok {
			msg, hint := refused(node.Key)
			if msg == "" {
				msg = "the key is not plain text"
			}
			d.fail(path, at, msg, hint)
			continue
		}
		same := func(e entry) bool { return e.key == key.text }
		if i := slices.IndexFunc(entries, same); i >= 0 {
			d.fail(path, at, fmt.Sprintf("duplicate key %q", key.text), fmt.Sprintf("it is already in line %d: keep one of them", entries[i].at.line))
			continue
		}
		entries = append(entries, entry{key: key.text, at: at, value: node.Value})
	}
	return entries, true
}

// refused names the YAML features that are not supported: each of them makes
// the value of a key depend on some other place.
func refused(n ast.Node) (msg, hint string) {
	switch n.(type) {
	case *ast.AnchorNode:
		return "YAML anchors (&name) are not supported", `remove the anchor; text that starts with "&" goes into "double quotes"`
	case *ast.AliasNode:
		return "YAML aliases (*name) are not supported", `write the value out; text that starts with "*" goes into "double quotes"`
	case *ast.MergeKeyNode:
		return "YAML merge keys (<<) are not supported", "write the keys out"
	case *ast.TagNode:
		return "YAML tags (!name) are not supported", `remove the tag; text that starts with "!" goes into "double quotes"`
	case *ast.MappingKeyNode:
		return "YAML complex keys (? key) are not supported", `write "key: value"`
	}
	return "", ""
}

// mismatch reports a node of the wrong kind.
func (d *decoder) mismatch(n ast.Node, typ reflect.Type, path string) {
	got, hint := "a section", want(typ)
	switch n.(type) {
	case *ast.SequenceNode:
		got = "a list"
	case *ast.MappingNode, *ast.MappingValueNode:
		switch shapeOf(typ) {
		case shapeList:
			got = `a section (items of a list start with "- ")`
		case shapeText:
			// Within braces, the parser takes a:b for a mapping.
			hint += `; text with a colon goes into "double quotes" here`
		}
	default:
		sc, _ := scalarOf(n)
		got = sc.kind
		if key, _, ok := strings.Cut(sc.text, ":"); ok && !sc.quoted && isWord(key) {
			hint = fmt.Sprintf(`write "%s: …", with a space after the colon`, key)
		}
	}
	d.fail(path, d.src.place(first(n)), "this is "+got, hint)
}

// want says what a type takes.
func want(typ reflect.Type) string {
	name, example := describe(typ)
	if strings.Contains(name, example) { // true or false, one of a, b
		return "write " + name
	}
	return fmt.Sprintf("write %s, such as %s", name, example)
}

// fail reports an error of the value at path.
func (d *decoder) fail(path string, at mark, msg, hint string) {
	d.failWith(&Error{at: at, Path: path, Msg: msg, Hint: hint})
}

// failWith reports that a value could not be decoded.
func (d *decoder) failWith(e *Error) {
	d.add(e)
	for p := e.Path; ; p = parent(p) {
		d.failed[p] = true
		if p == "" {
			return
		}
	}
}

func (d *decoder) add(e *Error) {
	if e.at.src != nil {
		e.File, e.Line, e.Column = e.at.src.name, e.at.line, e.at.col
	}
	d.errs = append(d.errs, e)
}
