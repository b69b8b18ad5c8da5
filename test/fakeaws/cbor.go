package fakeaws

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
	"unicode/utf8"
)

// What CBOR (RFC 8949) is to the Smithy RPC v2 protocol: numbers, strings,
// lists, maps with strings as keys, booleans, null, and times as tag 1 around
// seconds since 1970. It is written anew here, and not taken from the SDK, so
// that the fake and the client cannot share a mistake.
//
// Decoded, they are int64, float64, string, []any, map[string]any, bool, nil and
// time.Time.

// The major types of RFC 8949, section 3.1.
const (
	cborUint = iota
	cborNegative
	cborBytes
	cborText
	cborList
	cborMap
	cborTag
	cborSimple
)

// maxDepth is far deeper than any request nests.
const maxDepth = 32

var errShort = errors.New("cbor: unexpected end")

// cborDecode returns the one item that data holds, and nothing behind it.
func cborDecode(data []byte) (any, error) {
	d := &cborDecoder{data: data}
	v, err := d.item(0)
	if err == nil && len(d.data) > 0 {
		err = fmt.Errorf("cbor: %d bytes behind the item", len(d.data))
	}
	return v, err
}

type cborDecoder struct{ data []byte }

// next returns the next n bytes.
func (d *cborDecoder) next(n uint64) ([]byte, error) {
	if n > uint64(len(d.data)) {
		return nil, errShort
	}
	b := d.data[:n]
	d.data = d.data[n:]
	return b, nil
}

// head reads an item's first byte and its argument. The length of an
// indefinite item is its items, up to a break.
func (d *cborDecoder) head() (major, info byte, arg uint64, err error) {
	b, err := d.next(1)
	if err != nil {
		return 0, 0, 0, err
	}
	major, info = b[0]>>5, b[0]&0x1f
	switch {
	case info < 24:
		return major, info, uint64(info), nil
	case info <= 27:
		b, err := d.next(1 << (info - 24))
		if err != nil {
			return 0, 0, 0, err
		}
		var wide [8]byte
		copy(wide[8-len(b):], b)
		return major, info, binary.BigEndian.Uint64(wide[:]), nil
	case info == 31 && (major == cborList || major == cborMap):
		return major, info, 0, nil
	}
	return 0, 0, 0, fmt.Errorf("cbor: byte %#x does not begin an item", b[0])
}

func (d *cborDecoder) item(depth int) (any, error) {
	if depth > maxDepth {
		return nil, errors.New("cbor: nested too deeply")
	}
	major, info, arg, err := d.head()
	if err != nil {
		return nil, err
	}
	switch major {
	case cborUint, cborNegative:
		if arg > math.MaxInt64 {
			return nil, errors.New("cbor: integer out of range")
		}
		if major == cborNegative {
			return -1 - int64(arg), nil
		}
		return int64(arg), nil
	case cborText:
		b, err := d.next(arg)
		if err == nil && !utf8.Valid(b) {
			err = errors.New("cbor: text is not UTF-8")
		}
		return string(b), err
	case cborList:
		list := []any{}
		for n := uint64(0); d.more(info, arg, n, &err); n++ {
			v, err := d.item(depth + 1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, err
	case cborMap:
		return d.fields(info, arg, depth)
	case cborTag:
		return d.time(arg, depth)
	case cborSimple:
		return simpleValue(info, arg)
	}
	return nil, fmt.Errorf("cbor: items of major type %d are not used here", major)
}

// more reports whether a list or map goes on after n items.
func (d *cborDecoder) more(info byte, arg, n uint64, err *error) bool {
	if info != 31 {
		return n < arg
	}
	if len(d.data) == 0 {
		*err = errShort
		return false
	}
	if d.data[0] == 0xff {
		d.data = d.data[1:]
		return false
	}
	return true
}

func (d *cborDecoder) fields(info byte, arg uint64, depth int) (map[string]any, error) {
	m := map[string]any{}
	var err error
	for n := uint64(0); d.more(info, arg, n, &err); n++ {
		k, err := d.item(depth + 1)
		if err != nil {
			return nil, err
		}
		key, ok := k.(string)
		if _, twice := m[key]; !ok || twice {
			return nil, fmt.Errorf("cbor: key %v is no string, or there twice", k)
		}
		if m[key], err = d.item(depth + 1); err != nil {
			return nil, err
		}
	}
	return m, err
}

// time reads what tag 1 is around.
func (d *cborDecoder) time(tag uint64, depth int) (any, error) {
	if tag != 1 {
		return nil, fmt.Errorf("cbor: tag %d is not used here", tag)
	}
	v, err := d.item(depth + 1)
	if err != nil {
		return nil, err
	}
	switch v := v.(type) {
	case int64:
		return time.Unix(v, 0).UTC(), nil
	case float64:
		if !(math.Abs(v) < 1e11) {
			return nil, fmt.Errorf("cbor: time %v is out of range", v)
		}
		// The protocol has milliseconds; a float64 of today's seconds has no more
		// than some tenths of microseconds.
		return time.UnixMilli(int64(math.Round(v * 1000))).UTC(), nil
	}
	return nil, errors.New("cbor: tag 1 is not around a number")
}

func simpleValue(info byte, arg uint64) (any, error) {
	switch info {
	case 20, 21:
		return info == 21, nil
	case 22:
		return nil, nil
	case 26:
		return float64(math.Float32frombits(uint32(arg))), nil
	case 27:
		return math.Float64frombits(arg), nil
	}
	return nil, fmt.Errorf("cbor: simple value %d is not used here", info)
}

// cborEncode returns an item. Maps are in the order of their keys.
func cborEncode(v any) []byte { return cborAppend(nil, v) }

func cborAppend(b []byte, v any) []byte {
	switch v := v.(type) {
	case string:
		return append(cborHead(b, cborText, uint64(len(v))), v...)
	case int:
		if v < 0 {
			return cborHead(b, cborNegative, uint64(-1-v))
		}
		return cborHead(b, cborUint, uint64(v))
	case float64:
		return binary.BigEndian.AppendUint64(append(b, cborSimple<<5|27), math.Float64bits(v))
	case time.Time:
		return cborAppend(append(b, cborTag<<5|1), float64(v.UnixMilli())/1000)
	case []any:
		b = cborHead(b, cborList, uint64(len(v)))
		for _, e := range v {
			b = cborAppend(b, e)
		}
		return b
	case map[string]any:
		b = cborHead(b, cborMap, uint64(len(v)))
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			b = cborAppend(cborAppend(b, k), v[k])
		}
		return b
	}
	panic(fmt.Sprintf("cbor: no encoding of %T", v))
}

func cborHead(b []byte, major byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(b, major<<5|byte(n))
	case n <= math.MaxUint8:
		return append(b, major<<5|24, byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(b, major<<5|25), uint16(n))
	case n <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(b, major<<5|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, major<<5|27), n)
}
