package dogstatsd

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/berthd/berth/agent"
)

// A ring holds as many bytes as it has, to the last one, wherever it begins.
func TestRingIsFilledToTheEnd(t *testing.T) {
	r, err := newRing(1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	const records = 8
	data := make([]byte, len(r.mem)/records-ringHeader)
	for i := range 3 * records {
		want := uint64(0)
		if i >= records {
			want = 1 // the oldest one
		}
		if lost := r.push(agent.Packet{Data: data, Lines: 1}); lost != want {
			t.Errorf("packet %d: %d lines had to go, want %d", i, lost, want)
		}
	}
}

// A packet for which all others have to go begins where the ring does.
func TestRingMakesRoomForAPacketOfItsSize(t *testing.T) {
	r, err := newRing(1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	small, whole := make([]byte, len(r.mem)/2-ringHeader), bytes.Repeat([]byte{'x'}, len(r.mem)-ringHeader)
	r.push(agent.Packet{Data: small, Lines: 3})
	if lost := r.push(agent.Packet{Data: whole, Lines: 1}); lost != 3 || r.lines != 1 {
		t.Errorf("%d lines had to go, and %d are there, want 3 and 1", lost, r.lines)
	}
	var list [2]agent.Packet
	if n := r.fill(list[:]); n != 1 || !bytes.Equal(list[0].Data, whole) {
		t.Errorf("got %d packets, the first of %d bytes", n, len(list[0].Data))
	}
}

// What a backlog has touched goes back to the host once, when it is gone; the
// beginning, which is used next, stays.
func TestRingGivesItsMemoryBack(t *testing.T) {
	r, err := newRing(4 * ringKeep)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	data := bytes.Repeat([]byte{'x'}, 1000)
	for r.tail < 2*ringKeep {
		r.push(agent.Packet{Data: data, Lines: 1})
	}
	for !r.empty() {
		r.pop()
	}
	if r.tail != 0 {
		t.Errorf("an empty ring goes on at %d, want its beginning", r.tail)
	}
	if r.mem[ringHeader] != 'x' {
		t.Error("the beginning was given back")
	}
	beyond := r.mem[ringKeep:]
	if n := bytes.Count(beyond, []byte{0}); n != len(beyond) {
		t.Errorf("%d bytes were not given back", len(beyond)-n)
	}
	beyond[0] = 'y'
	r.push(agent.Packet{Data: data, Lines: 1})
	r.pop()
	if beyond[0] != 'y' {
		t.Error("a ring that was nearly empty gave its memory back once more")
	}
}

// A ring that is closed leaves no mapping behind.
func TestRingIsUnmapped(t *testing.T) {
	r, err := newRing(64 << 20)
	if err != nil {
		t.Fatal(err)
	}
	r.close()
	if err := unix.Madvise(r.mem, unix.MADV_NORMAL); err != unix.ENOMEM {
		t.Errorf("got %v, want %v: nothing is mapped there", err, unix.ENOMEM)
	}
}
