package dnsserver

import (
	"encoding/binary"

	"github.com/berthd/berth/agent"
)

// The sizes of answers, in bytes.
const (
	minUDP = 512   // RFC 1035 §4.2.1: what every client takes
	maxUDP = 1232  // fits in one packet of IPv6's least MTU, so that none is fragmented
	maxTCP = 65535 // what the length in front of a message can say
)

// action is what to do after a message has been looked at.
type action uint8

const (
	actReply   action = iota // send the reply that was written
	actDrop                  // send nothing
	actForward               // ask the upstream resolvers
)

// responder answers messages for one goroutine.
type responder struct {
	query query
	tally tally
	rng   uint32 // xorshift32's state, never 0
}

func newResponder(seed uint32) *responder { return &responder{rng: seed | 1} }

// terms are what an answer depends on besides the message.
type terms struct {
	table         *table // nil before the first set of records
	transport     transport
	forward       bool // forwarding is on, and the client no stranger
	forwardMisses bool
}

// respond writes the reply to msg into out, and returns its length. The buffer
// must hold maxUDP or maxTCP bytes. It allocates nothing, unless a set is asked
// for the first time since it was published.
func (r *responder) respond(c terms, msg, out []byte) (int, action) {
	q := &r.query
	switch q.parse(msg) {
	case verdictDrop:
		r.tally.malformed++
		return 0, actDrop
	case verdictFormErr:
		return r.fail(c, msg, out, rcodeFormErr), actReply
	case verdictNotImp:
		return r.fail(c, msg, out, rcodeNotImp), actReply
	}
	t := c.table
	switch {
	case q.edns && q.version != 0:
		return r.fail(c, msg, out, rcodeBadVers), actReply
	case t == nil:
		return r.fail(c, msg, out, rcodeServFail), actReply
	case q.class != classIN, q.qtype == typeAXFR, q.qtype == typeIXFR:
		return r.fail(c, msg, out, rcodeRefused), actReply
	}
	n := t.nodes[string(q.lower)]
	if n == nil || n.empty() {
		if action := r.missing(c, n); action != actReply {
			return 0, action
		}
		if n == nil && !within(q.lower, t.zone) {
			return r.fail(c, msg, out, rcodeRefused), actReply
		}
		if t.young {
			return r.fail(c, msg, out, rcodeServFail), actReply
		}
		rcode := rcodeNXDomain
		if n != nil {
			rcode = rcodeNoError
		}
		return r.negative(c, msg, out, rcode), actReply
	}
	s := n.get(q.qtype)
	if s == nil {
		return r.negative(c, msg, out, rcodeNoError), actReply
	}
	return r.positive(c, msg, out, t.pack(n, s)), actReply
}

// missing returns whether a question about a name without records is to be
// forwarded. The node n is nil unless names lie below it.
func (r *responder) missing(c terms, n *node) action {
	switch {
	case !c.forward:
		return actReply
	case c.forwardMisses:
		return actForward
	case n == nil && !within(r.query.lower, c.table.zone):
		return actForward
	}
	return actReply
}

// limit returns the greatest size of the reply's records and everything before
// them: without OPT, if there will be one.
func (r *responder) limit(c terms) int {
	size := maxTCP
	if c.transport == overUDP {
		size = minUDP
		if r.query.edns {
			size = min(max(int(r.query.size), minUDP), maxUDP)
		}
	}
	if r.query.edns {
		size -= optSize
	}
	return size
}

// positive writes an answer.
func (r *responder) positive(c terms, msg, out []byte, p *packed) int {
	x := r.random()
	o := &p.orders[int(x>>16)%len(p.orders)]
	turn := int(x&0xffff) % len(o.ends)
	start := uint32(0)
	if turn > 0 {
		start = o.ends[turn-1]
	}
	i := r.begin(c, msg, out, flagAA, rcodeNoError)
	if i+len(o.answers)+len(p.extra) > r.limit(c) {
		return r.cut(c, out, p, o, turn)
	}
	i += copy(out[i:], o.answers[start:])
	i += copy(out[i:], o.answers[:start])
	i += copy(out[i:], p.extra)
	counts(out, len(o.ends), 0, int(p.additional()))
	return r.finish(out, i, 0)
}

// cut writes an answer that is too large as a whole. First it leaves out sets
// of additional records, which a client can ask for. Where the answers alone
// are too many it keeps as many whole ones as there is room for and sets TC: a
// client that cannot ask again over TCP has something to work with.
func (r *responder) cut(c terms, out []byte, p *packed, o *order, turn int) int {
	i, limit := r.query.end, r.limit(c)
	kept := 0
	for n := range o.ends {
		rr := o.record((turn + n) % len(o.ends))
		if i+len(rr) > limit {
			break
		}
		i += copy(out[i:], rr)
		kept++
	}
	extra := group{}
	if kept == len(o.ends) {
		for _, g := range p.groups {
			if i+int(g.end) > limit {
				break
			}
			extra = g
		}
		i += copy(out[i:], p.extra[:extra.end])
	} else {
		out[2] |= flagTC
		r.tally.truncated++
	}
	counts(out, kept, 0, int(extra.records))
	return r.finish(out, i, 0)
}

// record returns the n-th record of an order.
func (o *order) record(n int) []byte {
	start := uint32(0)
	if n > 0 {
		start = o.ends[n-1]
	}
	return o.answers[start:o.ends[n]]
}

// negative writes an answer that says that there is nothing (RFC 2308 §2): the
// zone's SOA record tells for how long that may be remembered.
func (r *responder) negative(c terms, msg, out []byte, rcode int) int {
	t := c.table
	i := r.begin(c, msg, out, flagAA, rcode)
	if i+2+len(t.negative) > r.limit(c) {
		out[2] |= flagTC // names of 255 bytes, three times
		r.tally.truncated++
		counts(out, 0, 0, 0)
		return r.finish(out, i, 0)
	}
	zone := headerSize + len(r.query.name) - len(t.zone)
	binary.BigEndian.PutUint16(out[i:], 0xC000|uint16(zone))
	i += 2
	i += copy(out[i:], t.negative)
	counts(out, 0, 1, 0)
	return r.finish(out, i, 0)
}

// fail writes a reply with a response code and, where there is one, the
// question.
func (r *responder) fail(c terms, msg, out []byte, rcode int) int {
	i := r.begin(c, msg, out, 0, rcode)
	counts(out, 0, 0, 0)
	if i == headerSize {
		out[5] = 0 // no question
	}
	return r.finish(out, i, byte(rcode>>4))
}

// begin writes the header, but for its counts, and the question as it was
// asked. It returns the offset behind them.
func (r *responder) begin(c terms, msg, out []byte, flags byte, rcode int) int {
	r.tally.rcode[c.transport][rcode]++
	i := copy(out, msg[:r.query.end])
	out[2] = flagQR | msg[2]&(maskOpcode|flagRD) | flags
	out[3] = byte(rcode & 0xf)
	if c.forward {
		out[3] |= flagRA
	}
	return i
}

// finish adds OPT, if the client sent one (RFC 6891 §6.1.1), and returns the
// reply's length.
func (r *responder) finish(out []byte, i int, extendedRcode byte) int {
	if !r.query.edns {
		return i
	}
	out[11]++
	if out[11] == 0 {
		out[10]++
	}
	opt := out[i : i+optSize]
	clear(opt)
	opt[2] = typeOPT
	binary.BigEndian.PutUint16(opt[3:], maxUDP)
	opt[5] = extendedRcode
	if r.query.dnssec {
		opt[7] = 0x80
	}
	return i + optSize
}

// counts writes the header's counts.
func counts(out []byte, answers, authority, additional int) {
	binary.BigEndian.PutUint16(out[4:], 1)
	binary.BigEndian.PutUint16(out[6:], uint16(answers))
	binary.BigEndian.PutUint16(out[8:], uint16(authority))
	binary.BigEndian.PutUint16(out[10:], uint16(additional))
}

// random returns the next number of a sequence that is good enough to spread
// load (Marsaglia, "Xorshift RNGs", 2003). It is no secret.
func (r *responder) random() uint32 {
	x := r.rng
	x ^= x << 13
	x ^= x >> 17
	x ^= x << 5
	r.rng = x
	return x
}

// Lookup returns the records that are served at a name, in the order of a
// RecordSet; nil when there are none. Safe for concurrent use.
func (s *Server) Lookup(name string) []agent.Record {
	if t := s.table.Load(); t != nil {
		return t.lookup(name)
	}
	return nil
}
