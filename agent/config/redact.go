package config

import (
	"reflect"
	"regexp"
	"strings"
)

// secretKeys returns the names of all keys: true where a key's type is Secret.
func secretKeys(root reflect.Type) map[string]bool {
	keys := make(map[string]bool)
	for _, f := range allFields(root) {
		t := f.typ
		for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
			t = t.Elem()
		}
		keys[f.key] = keys[f.key] || t == secretType
	}
	return keys
}

var (
	keyInLine = regexp.MustCompile(`["']?([\w-]+)["']?\s*:`)
	startsKey = regexp.MustCompile(`^\s*(- +)*["']?[\w.-]+["']?\s*:(\s|$)`)
	reference = regexp.MustCompile(`^\s*["']?(file:/[^\s"',}\]]*|env:\w*)["']?\s*(#.*)?$`)
)

// mask returns the lines of a file as an excerpt may show them: whatever is
// set to a key that has the name of a secret, or nearly, is replaced, unless it
// is a proper reference. It works on text, because it must also work on files
// that cannot be parsed.
func mask(lines []string, keys map[string]bool) []string {
	out := make([]string, len(lines))
	below := -1 // the column of a secret's key, while in its value
	for i, line := range lines {
		out[i] = line
		indent := len(line) - len(strings.TrimLeft(line, " \t"))
		if indent == len(line) {
			continue
		}
		if below >= 0 && (indent > below || !startsKey.MatchString(line)) {
			out[i] = line[:indent] + redacted
			continue
		}
		below = -1
		for _, m := range keyInLine.FindAllStringSubmatchIndex(line, -1) {
			key, rest := line[m[2]:m[3]], line[m[1]:]
			if inFlow := strings.ContainsAny(line[:m[0]], "{["); inFlow {
				rest, _, _ = strings.Cut(rest, ",")
				rest = strings.TrimRight(rest, "]} ")
			}
			if !isSecret(key, keys) || reference.MatchString(rest) {
				continue
			}
			below = m[0]
			if strings.TrimSpace(rest) != "" {
				out[i] = line[:m[1]] + " " + redacted
			}
			break
		}
	}
	return out
}

// isSecret says whether a key is that of a secret, or none at all but like one.
func isSecret(key string, keys map[string]bool) bool {
	secret, known := keys[key]
	if known {
		return secret
	}
	for k, secret := range keys {
		if secret && nearest(key, []string{k}) != "" {
			return true
		}
	}
	return false
}
