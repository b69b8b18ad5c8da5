package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// nearest returns the candidate that a person most likely meant by word, or "".
// It allows for one slip in three letters, at most three, or for the beginning
// of a word, after it has forgiven case and the difference between "-" and "_".
func nearest(word string, candidates []string) string {
	fold := strings.NewReplacer("-", "_").Replace
	word = fold(strings.ToLower(word))
	best, bestSlips := "", min(len(word)/3, 3)+1
	for _, c := range candidates {
		if slips := slips(word, fold(strings.ToLower(c))); slips < bestSlips {
			best, bestSlips = c, slips
		}
	}
	for _, c := range candidates {
		if best == "" && len(word) >= 3 && strings.HasPrefix(c, word) {
			best = c
		}
	}
	return best
}

// slips counts the letters to insert, delete, replace, or swap with their
// neighbour to turn a into b (the optimal string alignment distance).
func slips(a, b string) int {
	row := func() []int { return make([]int, len(b)+1) }
	before, above, here := row(), row(), row()
	for j := range above {
		above[j] = j
	}
	for i := 1; i <= len(a); i++ {
		here[0] = i
		for j := 1; j <= len(b); j++ {
			replaced := above[j-1]
			if a[i-1] != b[j-1] {
				replaced++
			}
			here[j] = min(replaced, above[j]+1, here[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				here[j] = min(here[j], before[j-2]+1)
			}
		}
		before, above, here = above, here, before
	}
	return above[len(b)]
}

// unknownKey says what to do about a key that section t does not have: the
// nearest key, or the place where the whole config has one of that name, or
// all of the section's keys.
func unknownKey(root, t reflect.Type, key string) (hint string) {
	keys := keysOf(t)
	if near := nearest(key, keys); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	var elsewhere []string
	for path, f := range allFields(root) {
		if f.key == key && len(elsewhere) < 3 {
			elsewhere = append(elsewhere, fmt.Sprintf("%q", path))
		}
	}
	if len(elsewhere) > 0 {
		return fmt.Sprintf("there is a key %s: is the indentation right?", strings.Join(elsewhere, " and a key "))
	}
	if len(keys) == 0 {
		return "this section has no keys"
	}
	slices.Sort(keys)
	return "the keys here are " + strings.Join(keys, ", ")
}
