package logprune

import (
	"encoding/binary"
	"encoding/hex"

	"github.com/berthd/berth/agent"
)

// The lengths of a container's ID, and of its short form, in hexadecimal digits:
// what `docker ps --no-trunc` and the host name of a container show.
const (
	longDigits  = 64
	shortDigits = 12
)

// containerID is the name of a folder that may be a container's: its full ID, or
// the first twelve digits of it. It is small, because there may be 100,000.
type containerID struct {
	raw   [longDigits / 2]byte
	short bool
}

// parseID reads a name. Only lower-case digits are an ID: the engine writes no
// others.
func parseID[T string | []byte](name T) (id containerID, ok bool) {
	if len(name) != longDigits && len(name) != shortDigits {
		return id, false
	}
	for i := range len(name) {
		var digit byte
		switch c := name[i]; {
		case '0' <= c && c <= '9':
			digit = c - '0'
		case 'a' <= c && c <= 'f':
			digit = c - 'a' + 10
		default:
			return containerID{}, false
		}
		id.raw[i/2] |= digit << (4 * (1 - i%2))
	}
	id.short = len(name) == shortDigits
	return id, true
}

// String returns the name that was parsed.
func (id containerID) String() string {
	if id.short {
		return hex.EncodeToString(id.raw[:shortDigits/2])
	}
	return hex.EncodeToString(id.raw[:])
}

// key returns the first sixteen digits, or all of a short form: enough to tell the
// folders of a host apart.
func (id containerID) key() uint64 { return binary.BigEndian.Uint64(id.raw[:]) }

// shortened returns the short form.
func (id containerID) shortened() containerID {
	s := containerID{short: true}
	copy(s.raw[:shortDigits/2], id.raw[:])
	return s
}

// decimal reports whether all digits of a short form are decimal ones: then it
// may as well be a date or a number of somebody's own. One in 281 of the real ones
// is.
func (id containerID) decimal() bool {
	if !id.short {
		return false
	}
	for _, b := range id.raw[:shortDigits/2] {
		if b>>4 > 9 || b&15 > 9 {
			return false
		}
	}
	return true
}

// index finds the containers of a snapshot by either form of their IDs.
type index map[containerID]int32

func newIndex(containers []*agent.Container) index {
	x := make(index, 2*len(containers))
	for i, c := range containers {
		if id, ok := parseID(c.ID); ok {
			x[id], x[id.shortened()] = int32(i), int32(i)
		}
	}
	return x
}
