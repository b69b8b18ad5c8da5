package statsd

import (
	"bytes"
	"time"

	"github.com/berthd/berth/agent"
)

// packets is how many datagrams are filled before they are handed on: what one
// system call sends.
const packets = 32

// packer gathers lines into datagrams for the upstream.
type packer struct {
	port    agent.LinePort
	payload int
	buf     []byte
	list    []agent.Packet // the finished ones
	data    []byte         // the unfinished one, with no more capacity than a datagram has
	lines   int            // in it
	again   time.Duration  // what the port said last
}

func newPacker(port agent.LinePort) *packer {
	p := &packer{port: port, payload: port.MaxPayload(), list: make([]agent.Packet, 0, packets)}
	p.buf = make([]byte, packets*p.payload)
	p.rewind()
	return p
}

// rewind begins the next datagram in the next part of the buffer.
func (p *packer) rewind() {
	at := len(p.list) * p.payload
	p.data, p.lines = p.buf[at:at:at+p.payload], 0
}

// room makes sure that n bytes fit into the unfinished datagram.
func (p *packer) room(n int) {
	if len(p.data)+n > p.payload {
		p.finish()
	}
}

// finish ends the unfinished datagram, and hands all on if there is no room for
// another.
func (p *packer) finish() {
	if p.lines == 0 {
		return
	}
	p.list = append(p.list, agent.Packet{Data: p.data, Lines: p.lines})
	if len(p.list) == packets {
		p.again = p.port.Send(p.list)
		p.list = p.list[:0]
	}
	p.rewind()
}

// flush hands on what there is, and makes the port try what waits.
func (p *packer) flush() {
	p.finish()
	if len(p.list) > 0 || p.again > 0 {
		p.again = p.port.Send(p.list)
		p.list = p.list[:0]
		p.rewind()
	}
}

// rewriter puts what is known of a sender into its lines. It belongs to one
// goroutine.
type rewriter struct {
	mode   Mode
	strip  bool
	pass   bool    // malformed lines
	limit  float64 // lines a second for each container; 0 for none
	out    *packer
	tally  tally
	bare   [slotSize]byte // a stripped line
	picked [slotSize]byte // the tags that a line does not have yet
}

// tally is what a rewriter counted since it was last taken over by the meters.
type tally struct {
	datagrams, lines, bytes                    uint64
	malformed, tooLong, rateLimited, truncated uint64 // lines that were dropped
	passed                                     uint64 // malformed lines that were passed on
	untagged                                   uint64 // lines that had no room for tags
	unknown, shared                            uint64 // lines of senders that cannot be told
	cut                                        uint64 // datagrams
	reads                                      uint64 // of the receiver
}

// datagram rewrites all lines of one datagram. cut is whether the kernel had no
// room for all of it: then its last line is but a part of one.
func (r *rewriter) datagram(data []byte, cut bool, o *origin, now time.Duration) {
	r.tally.datagrams++
	r.tally.bytes += uint64(len(data))
	a, size, lines := o.account, uint64(len(data)), uint64(0)
	limited := r.limit > 0 && o.id != ""
	if limited {
		a.bucket.refill(r.limit, now)
	}
	for len(data) > 0 {
		line := data
		end := bytes.IndexByte(data, '\n')
		if end >= 0 {
			line, data = data[:end], data[end+1:]
		} else {
			data = nil
		}
		if len(line) == 0 || len(line) == 1 && line[0] == '\r' {
			continue
		}
		lines++
		switch {
		case cut && end < 0:
			r.tally.truncated++
			a.malformed.Add(1)
		case limited && !a.bucket.take():
			r.tally.rateLimited++
			a.rateLimited.Add(1)
		default:
			r.line(line, o)
		}
	}
	if cut {
		r.tally.cut++
	}
	r.tally.lines += lines
	a.datagrams.Add(1)
	a.lines.Add(lines)
	a.bytes.Add(size)
	if o.id == "" {
		r.strangers(o, lines)
	}
}

func (r *rewriter) strangers(o *origin, lines uint64) {
	if o.name == sharedName {
		r.tally.shared += lines
	} else {
		r.tally.unknown += lines
	}
}

// line rewrites one line, which is not empty and may end in a carriage return.
func (r *rewriter) line(line []byte, o *origin) {
	body := trimReturn(line)
	var s shape
	s.find(body)
	if s.kind == malformed {
		if !r.pass {
			r.tally.malformed++
			o.account.malformed.Add(1)
			return
		}
		if r.copy(line, o) {
			r.tally.passed++
		}
		return
	}
	if r.strip {
		n := strip(r.bare[:], body, &s)
		n += copy(r.bare[n:], line[len(body):])
		line = r.bare[:n]
		body = trimReturn(line)
		s = shape{}
		s.find(body)
	}
	at, extra := s.end, o.field
	switch {
	case r.mode == ModeCID:
		extra = o.cid
		if s.told || s.tags >= 0 && bytes.Contains(body[s.tags:s.last], entity) {
			extra = nil
		}
	case r.mode == ModeNone:
		extra = nil
	case s.tags >= 0:
		at, extra = s.tags, o.first
		own := body[s.tags:s.last]
		if len(own) == 0 && len(extra) > 0 {
			extra = extra[:len(extra)-1] // no comma
		} else if n := o.without(r.picked[:], own); n >= 0 {
			extra = r.picked[:n]
		}
	}
	if len(extra) == 0 {
		r.copy(line, o)
		return
	}
	need := len(line) + len(extra) + 1
	if need > r.out.payload {
		if r.copy(line, o) {
			r.tally.untagged++
			o.account.untagged.Add(1)
		}
		return
	}
	out := r.out
	out.room(need)
	out.data = append(out.data, line[:at]...)
	out.data = append(out.data, extra...)
	out.data = append(out.data, line[at:]...)
	out.data = append(out.data, '\n')
	out.lines++
}

// copy passes a line on as it is, or drops it if no datagram has room for it. It
// reports whether it was passed on.
func (r *rewriter) copy(line []byte, o *origin) bool {
	out := r.out
	if len(line)+1 > out.payload {
		r.tally.tooLong++
		o.account.tooLong.Add(1)
		return false
	}
	out.room(len(line) + 1)
	out.data = append(out.data, line...)
	out.data = append(out.data, '\n')
	out.lines++
	return true
}

func trimReturn(line []byte) []byte {
	if len(line) > 0 && line[len(line)-1] == '\r' {
		return line[:len(line)-1]
	}
	return line
}
