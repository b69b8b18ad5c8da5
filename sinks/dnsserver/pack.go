package dnsserver

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"

	"github.com/berthd/berth/agent"
)

// packed is the answer to a question about one set, ready to be copied behind
// any question for it. The owners of its records are pointers into the question
// (RFC 1035 §4.1.4), which stands at the same place in every message: so they
// come back in the case in which they were asked. Nothing points into the
// answers, so that these can be turned around.
type packed struct {
	orders []order // at least one; the same records, shuffled
	extra  []byte  // additional records
	groups []group // where the sets within extra end
}

// order is the records of a set in one order.
type order struct {
	answers []byte
	ends    []uint32 // where each record ends in answers
}

// group is the end of one set of additional records.
type group struct {
	end     uint32 // offset in extra
	records uint16 // all of those up to end
}

// pointer to the question's name, which follows the header.
const questionName = 0xC000 | headerSize

// shuffles is how many orders of a set are kept. Each answer is one of these,
// turned to begin with any of its records: every record is first equally often,
// and the second one, which a client tries when the first is dead, varies too.
const shuffles = 4

// appendRecord appends the part of a record that follows its owner.
func appendRecord(dst []byte, qtype uint16, ttl uint32, data []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, qtype)
	dst = binary.BigEndian.AppendUint16(dst, classIN)
	dst = binary.BigEndian.AppendUint32(dst, ttl)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(data)))
	return append(dst, data...)
}

// pack returns the packed form of one set of a node, and makes it where there
// is none yet. Two goroutines may make one at a time; both are right.
func (t *table) pack(n *node, s *rrset) *packed {
	if p := s.packed.Load(); p != nil {
		return p
	}
	p := &packed{}
	if s.data != nil {
		one := binary.BigEndian.AppendUint16(nil, questionName)
		one = appendRecord(one, s.qtype, negativeTTL, s.data)
		p.orders = []order{{answers: one, ends: []uint32{uint32(len(one))}}}
		if s.target != "" {
			p.addExtra(t, n, []byte(s.target))
		}
	} else {
		p.addOrders(s)
		if s.qtype == typeSRV {
			var scratch [maxName]byte
			seen := make(map[string]bool)
			for _, r := range s.records {
				if target, err := appendName(scratch[:0], r.Target); err == nil && !seen[r.Target] {
					seen[r.Target] = true
					p.addExtra(t, n, target)
				}
			}
		}
	}
	s.packed.Store(p)
	return p
}

// addOrders packs the records in several orders. Turning around gives all the
// orders that one or two records have.
func (p *packed) addOrders(s *rrset) {
	n := 1
	if len(s.records) > 2 {
		n = shuffles
	}
	ttl := lowestTTL(s.records)
	records := slices.Clone(s.records)
	for range n {
		rand.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
		o := order{
			answers: make([]byte, 0, len(records)*recordSize(records[0])),
			ends:    make([]uint32, 0, len(records)),
		}
		for _, r := range records {
			o.answers = binary.BigEndian.AppendUint16(o.answers, questionName)
			o.answers = appendData(o.answers, r, ttl)
			o.ends = append(o.ends, uint32(len(o.answers)))
		}
		p.orders = append(p.orders, o)
	}
}

// addExtra adds the addresses of a name in the zone, if it has any. The name is
// written as its labels below the zone and a pointer to the zone's name at the
// end of the question.
func (p *packed) addExtra(t *table, asked *node, target []byte) {
	n := t.nodes[string(target)]
	if n == nil {
		return
	}
	for _, k := range []kind{kindA, kindAAAA} {
		s := n.sets[k]
		if s == nil {
			continue
		}
		ttl := lowestTTL(s.records)
		for _, r := range s.records {
			if n.name != asked.name {
				p.extra = append(p.extra, target[:len(target)-len(t.zone)]...)
			}
			at := headerSize
			if n.name != asked.name {
				at += len(asked.name) - len(t.zone)
			}
			p.extra = binary.BigEndian.AppendUint16(p.extra, 0xC000|uint16(at))
			p.extra = appendData(p.extra, r, ttl)
		}
		before := uint16(0)
		if len(p.groups) > 0 {
			before = p.groups[len(p.groups)-1].records
		}
		p.groups = append(p.groups, group{uint32(len(p.extra)), before + uint16(len(s.records))})
	}
}

// additional returns the number of all additional records.
func (p *packed) additional() uint16 {
	if len(p.groups) == 0 {
		return 0
	}
	return p.groups[len(p.groups)-1].records
}

// appendData appends a record without its owner. The target of SRV must not be
// compressed (RFC 2782).
func appendData(dst []byte, r agent.Record, ttl uint32) []byte {
	var scratch [6 + maxName]byte
	switch r.Type {
	case agent.TypeA:
		a := r.Addr.As4()
		return appendRecord(dst, typeA, ttl, a[:])
	case agent.TypeAAAA:
		a := r.Addr.As16()
		return appendRecord(dst, typeAAAA, ttl, a[:])
	}
	data := binary.BigEndian.AppendUint16(scratch[:0], r.Priority)
	data = binary.BigEndian.AppendUint16(data, r.Weight)
	data = binary.BigEndian.AppendUint16(data, r.Port)
	data, _ = appendName(data, r.Target) // servable has seen it
	return appendRecord(dst, typeSRV, ttl, data)
}

// recordSize estimates the packed size of a record.
func recordSize(r agent.Record) int { return 2 + 10 + 16 + 2 + len(r.Target) }

// lowestTTL returns the TTL of a set: where its records differ, which RFC 2181
// §5.2 forbids on the wire, the lowest one.
func lowestTTL(records []agent.Record) uint32 {
	const most = 1<<31 - 1 // RFC 2181 §8
	ttl := uint32(most)
	for _, r := range records {
		ttl = min(ttl, r.TTL)
	}
	return ttl
}
