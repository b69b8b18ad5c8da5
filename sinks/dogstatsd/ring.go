package dogstatsd

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/berthd/berth/agent"
)

// A record of a ring is a header (the data's length and its number of lines, 32
// bits each), the data, and padding to a multiple of the header's size. Records
// do not wrap around: where one does not fit before the end, the length skip
// stands in place of it.
const (
	ringHeader = 8
	ringSkip   = 1<<32 - 1
	// ringKeep is how many bytes of an empty ring's memory are kept for the next
	// time; what is beyond goes back to the host.
	ringKeep = 256 << 10
)

// ring holds packets that wait, the oldest of which make room for new ones. Its
// memory is its own mapping, of which a ring that was never full has touched but
// the beginning. It belongs to one goroutine.
type ring struct {
	mem        []byte
	head, tail uint64 // positions; they grow without end
	lines      uint64 // in it
	high       uint64 // most bytes that were touched since memory went back
}

// newRing returns a ring of size bytes, rounded up to whole pages.
func newRing(size int64) (*ring, error) {
	page := int64(unix.Getpagesize())
	mem, err := unix.Mmap(-1, 0, int((size+page-1)/page*page), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes: %w", size, err)
	}
	return &ring{mem: mem}, nil
}

func (r *ring) close() { _ = unix.Munmap(r.mem) }

func (r *ring) empty() bool { return r.head == r.tail }

// push appends a packet and returns how many lines had to go for it: those of
// the oldest packets, or its own if it is larger than the ring.
func (r *ring) push(p agent.Packet) (lost uint64) {
	size := uint64(len(r.mem))
	need := (ringHeader + uint64(len(p.Data)) + ringHeader - 1) / ringHeader * ringHeader
	if need > size {
		return uint64(p.Lines)
	}
	waste := uint64(0)
	if at := r.tail % size; at+need > size {
		waste = size - at
	}
	for r.tail+waste+need-r.head > size {
		lost += r.pop()
		if r.empty() { // and so at the beginning
			waste = 0
		}
	}
	if waste > 0 {
		binary.NativeEndian.PutUint32(r.mem[r.tail%size:], ringSkip)
		r.tail += waste
	}
	at := r.mem[r.tail%size:]
	binary.NativeEndian.PutUint32(at, uint32(len(p.Data)))
	binary.NativeEndian.PutUint32(at[4:], uint32(p.Lines))
	copy(at[ringHeader:], p.Data)
	r.tail += need
	r.lines += uint64(p.Lines)
	r.high = max(r.high, min(r.tail, size))
	return lost
}

// at returns the packet at a position, and the position of the next one.
func (r *ring) at(pos uint64) (agent.Packet, uint64) {
	size := uint64(len(r.mem))
	head := r.mem[pos%size:]
	n := uint64(binary.NativeEndian.Uint32(head))
	if n == ringSkip {
		pos += size - pos%size
		head = r.mem
		n = uint64(binary.NativeEndian.Uint32(head))
	}
	p := agent.Packet{Data: head[ringHeader : ringHeader+n], Lines: int(binary.NativeEndian.Uint32(head[4:]))}
	return p, pos + (ringHeader+n+ringHeader-1)/ringHeader*ringHeader
}

// fill puts the oldest packets into list, and returns how many. They stay in the
// ring, and their data is valid until the next push.
func (r *ring) fill(list []agent.Packet) int {
	n := 0
	for pos := r.head; n < len(list) && pos != r.tail; n++ {
		list[n], pos = r.at(pos)
	}
	return n
}

// pop removes the oldest packet and returns its number of lines. An empty ring
// begins anew at its beginning, which is in the caches.
func (r *ring) pop() uint64 {
	p, next := r.at(r.head)
	r.head = next
	r.lines -= uint64(p.Lines)
	if r.empty() {
		r.head, r.tail = 0, 0
		if r.high > ringKeep {
			_ = unix.Madvise(r.mem[ringKeep:], unix.MADV_DONTNEED) // page-aligned, as both are
			r.high = 0
		}
	}
	return uint64(p.Lines)
}
