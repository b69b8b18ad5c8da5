package dnsserver

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// The limits of RFC 1035 §2.3.4, in bytes. A name's include the length bytes.
const (
	maxLabel = 63
	maxName  = 255
)

var errNameTooLong = errors.New("longer than 255 bytes")

// appendName appends the wire form (RFC 1035 §3.1) of a name, in lower case and
// uncompressed. The final dot may be missing.
func appendName(dst []byte, name string) ([]byte, error) {
	start := len(dst)
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		switch {
		case label == "" && name == ".":
			return append(dst, 0), nil
		case label == "":
			return dst[:start], fmt.Errorf("name %q: empty label", name)
		case len(label) > maxLabel:
			return dst[:start], fmt.Errorf("name %q: label longer than %d bytes", name, maxLabel)
		}
		dst = append(dst, byte(len(label)))
		for _, c := range []byte(label) {
			if c == '\\' || c <= ' ' || c > '~' {
				return dst[:start], fmt.Errorf("name %q: character %q", name, c)
			}
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			dst = append(dst, c)
		}
	}
	if dst = append(dst, 0); len(dst)-start > maxName {
		return dst[:start], fmt.Errorf("name %q: %w", name, errNameTooLong)
	}
	return dst, nil
}

// lowerName is a name in lower case, with room for the last whole word.
type lowerName [maxName + 1]byte

// set makes l the lower case of a wire name, and returns its bytes. It goes
// over the length bytes too: they are at most 63, which is less than 'A'.
func (l *lowerName) set(name []byte) []byte {
	const ones = 0x0101010101010101
	n := copy(l[:], name)
	for i := 0; i < n; i += 8 {
		word := binary.LittleEndian.Uint64(l[i : i+8])
		// Eight bytes at a time: adding to the low seven bits carries into the
		// top bit of those from 'A' on, and of those beyond 'Z'.
		low := word & (0x7f * ones)
		upper := (low + (0x80-'A')*ones) &^ (low + (0x7f-'Z')*ones) &^ word & (0x80 * ones)
		binary.LittleEndian.PutUint64(l[i:i+8], word|upper>>2)
	}
	return l[:n]
}

// within reports whether name lies in zone or is its apex. Both are lower-case
// wire names.
func within(name, zone []byte) bool {
	at := len(name) - len(zone)
	if at < 0 || string(name[at:]) != string(zone) {
		return false
	}
	i := 0
	for i < at { // the zone must begin where a label does
		i += int(name[i]) + 1
	}
	return i == at
}

// parents yields the wire names above a wire name that lie in zone, without the
// zone itself.
func parents(name, zone []byte) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for {
			name = name[int(name[0])+1:]
			if len(name) <= len(zone) || !yield(name) {
				return
			}
		}
	}
}
