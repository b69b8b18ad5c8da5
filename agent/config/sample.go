package config

import (
	"bytes"
	"fmt"
	"reflect"
	"regexp"
	"strings"
)

// sampleWidth is how long the lines of a sample's comments may be.
const sampleWidth = 78

// Sample returns a complete sample of a configuration that holds its defaults:
// every key with its documentation above it, commented out with its default
// behind it ("#ttl: 10s"). Sections are not commented out, so that removing
// one "#" is all it takes to set a key. The sample is valid as it is, and
// changes nothing; so is what Uncomment makes of it. Root is the struct or a
// pointer to it; the doc comment of its type comes first.
func Sample(root any, docs Docs) []byte {
	w := &sampleWriter{}
	w.doc("", docs.typeDoc(reflect.Indirect(reflect.ValueOf(root)).Type()))
	keys := Keys(root, docs)
	for i, k := range keys {
		if k.Item {
			continue // told in the comment of what contains it
		}
		indent := strings.Repeat("  ", depth(keys, k))
		w.gap()
		w.doc(indent, k.Doc)
		if k.Section {
			fmt.Fprintf(&w.b, "%s%s:\n", indent, k.Name)
			continue
		}
		w.items(indent, k, keys[i+1:])
		fmt.Fprintf(&w.b, "%s#%s: %s\n", indent, k.Name, k.Default)
	}
	return w.b.Bytes()
}

// depth counts the sections around a key.
func depth(keys []Key, k Key) int {
	n := 0
	for p := k.Parent; p != ""; n++ {
		p = parent(p)
	}
	return n
}

type sampleWriter struct{ b bytes.Buffer }

// gap separates a key from what is above it.
func (w *sampleWriter) gap() {
	if w.b.Len() > 0 {
		w.b.WriteByte('\n')
	}
}

// doc writes a doc comment.
func (w *sampleWriter) doc(indent, doc string) {
	for i, p := range paragraphs(doc) {
		if i > 0 && !strings.HasPrefix(p, " ") {
			fmt.Fprintf(&w.b, "%s#\n", indent)
		}
		w.wrapped(indent, p, "")
	}
}

func (w *sampleWriter) wrapped(indent, text, hanging string) {
	for _, line := range wrap(text, sampleWidth-len(indent)-2, hanging) {
		fmt.Fprintf(&w.b, "%s# %s\n", indent, line)
	}
}

// items describes the keys within a list's items, a map's entries or an absent
// section; they come first in rest.
func (w *sampleWriter) items(indent string, k Key, rest []Key) {
	for i, item := range rest {
		if !item.Item || !strings.HasPrefix(item.Path, k.Path) {
			return
		}
		if i == 0 {
			what := "Its keys are:"
			if item.Parent != k.Path {
				what = "The keys of each are:"
			}
			w.wrapped(indent, what, "")
		}
		name := strings.TrimPrefix(strings.TrimPrefix(item.Path, rest[0].Parent), ".")
		text := fmt.Sprintf("  %s (%s", name, item.Type)
		if !item.Section {
			text += "; default " + item.Default
		}
		w.wrapped(indent, text+"): "+strings.Join(paragraphs(item.Doc), " "), "    ")
	}
}

var commentedOut = regexp.MustCompile(`(?m)^( *)#(\S.*)$`)

// Uncomment removes the "#" in front of every key of a sample; comments, which
// have a space behind theirs, stay. It is for tests: the result must load, and
// must mean the defaults, too.
func Uncomment(sample []byte) []byte {
	return commentedOut.ReplaceAll(sample, []byte("$1$2"))
}
