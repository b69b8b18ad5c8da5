package journal

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
)

// A journal file is a line of text that names the format, and then frames. The
// first frame is the header, the second the checkpoint, every other one an
// entry. All numbers are little-endian.
//
//	"berth journal 1\n"
//	length uint32 | CRC-32C(length, payload) uint32 | payload      header, JSON
//	length uint32 | CRC-32C(length, payload) uint32 | payload      checkpoint
//	length uint32 | CRC-32C(length, payload) uint32 | payload …    entries
//
// The checksum covers the length too, so that a run of zeros, which is what
// some file systems leave behind of an unfinished write, is not a valid frame.
const (
	magic      = "berth journal 1\n"
	frameExtra = 8 // bytes of a frame besides its payload
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	errForeign  = errors.New("not a journal of this format")
	errChecksum = errors.New("checksum mismatch")
)

// header says whose state a file holds.
type header struct {
	Owner string `json:"owner"`
	Host  string `json:"host,omitempty"`
}

// appendFrame appends the frame of payload to b.
func appendFrame(b, payload []byte) []byte {
	start := len(b)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	b = binary.LittleEndian.AppendUint32(b, checksum(b[start:start+4], payload))
	return append(b, payload...)
}

func checksum(length, payload []byte) uint32 {
	return crc32.Update(crc32.Update(0, castagnoli, length), castagnoli, payload)
}

// encodeHeader returns the beginning of a file: all of it before the checkpoint.
func encodeHeader(h header) []byte {
	payload, err := json.Marshal(h)
	if err != nil {
		panic(fmt.Sprintf("encode journal header: %v", err)) // two strings cannot fail
	}
	return appendFrame([]byte(magic), payload)
}

// nextFrame splits the first frame off data. It returns ok false when data does
// not begin with a whole and sound one.
func nextFrame(data []byte) (payload, rest []byte, ok bool) {
	if len(data) < frameExtra {
		return nil, nil, false
	}
	n := uint64(binary.LittleEndian.Uint32(data))
	if n > uint64(len(data)-frameExtra) {
		return nil, nil, false
	}
	payload, rest = data[frameExtra:frameExtra+n], data[frameExtra+n:]
	if checksum(data[:4], payload) != binary.LittleEndian.Uint32(data[4:]) {
		return nil, nil, false
	}
	return payload, rest, true
}

// decoded is what a file holds.
type decoded struct {
	header     header
	checkpoint []byte   // never nil, when the checkpoint's frame is sound
	entries    [][]byte // alias the data
	body       int      // where the checkpoint's frame begins
	base       int      // where the first entry begins
	end        int      // where the last sound entry ends
	torn       bool     // what follows end is an append that did not finish
}

// decode reads the bytes of a file. An error means that something is wrong
// beyond a torn tail; what was sound before the damage is returned with it, and
// its body is 0 if not even a checkpoint was.
func decode(data []byte) (decoded, error) {
	var d decoded
	if len(data) < len(magic) || string(data[:len(magic)]) != magic {
		return d, errForeign
	}
	head, rest, ok := nextFrame(data[len(magic):])
	if !ok {
		return d, fmt.Errorf("read header: %w", errChecksum)
	}
	if err := json.Unmarshal(head, &d.header); err != nil {
		return d, fmt.Errorf("read header: %w", err)
	}
	body := len(data) - len(rest)
	d.checkpoint, rest, ok = nextFrame(rest)
	if !ok {
		return d, fmt.Errorf("read checkpoint: %w", errChecksum)
	}
	d.body, d.base = body, len(data)-len(rest)
	for len(rest) > 0 {
		entry, after, ok := nextFrame(rest)
		if !ok {
			break
		}
		d.entries = append(d.entries, entry)
		rest = after
	}
	d.end = len(data) - len(rest)
	if len(rest) == 0 {
		return d, nil
	}
	if !isTorn(rest) {
		return d, fmt.Errorf("read entry %d at byte %d: %w", len(d.entries)+1, d.end, errChecksum)
	}
	d.torn = true
	return d, nil
}

// isTorn reports whether tail, which does not begin with a sound frame, can be
// what a crash leaves of one append: a frame that says it goes on to the end of
// the file or beyond, or a hole. Anything else was whole once and is damaged.
func isTorn(tail []byte) bool {
	if len(tail) < frameExtra {
		return true
	}
	if uint64(binary.LittleEndian.Uint32(tail)) >= uint64(len(tail)-frameExtra) {
		return true
	}
	for _, b := range tail {
		if b != 0 {
			return false
		}
	}
	return true
}
