package dnsserver

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/berthd/berth/agent"
)

// The numbers of the zone's SOA record, in seconds. The time for which a
// resolver remembers that a name does not exist is the lower of the record's
// own TTL and its minimum (RFC 2308 §5): a service that has just started must
// not stay hidden behind the answer from before. Nobody transfers the zone, so
// that the others merely are what checkers expect.
const (
	negativeTTL = 5
	soaRefresh  = 60
	soaRetry    = 10
	soaExpire   = 86400
)

// table is all that the server serves at one moment. It is immutable but for
// the packed answers, which are made when first asked for.
type table struct {
	zone     []byte // lower-case wire name
	seq      uint64 // of the record set
	serial   uint32
	count    int              // records that are served
	nodes    map[string]*node // by lower-case wire name
	negative []byte           // the SOA record, without its owner
	young    bool             // no whole set has come yet: what is missing may exist
}

// node is one name. A name without records is one that others lie below.
type node struct {
	name string // lower-case wire name
	sets [kinds]*rrset
}

// kind is the index of a record type within a node.
type kind uint8

const (
	kindSRV kind = iota
	kindA
	kindAAAA
	kindSOA
	kindNS
	kinds // the number of them, and "none"
)

// kindOf returns the index of a type of the wire.
func kindOf(qtype uint16) kind {
	switch qtype {
	case typeA:
		return kindA
	case typeSRV:
		return kindSRV
	case typeAAAA:
		return kindAAAA
	case typeSOA:
		return kindSOA
	case typeNS:
		return kindNS
	}
	return kinds
}

// recordKind returns the index and the wire number of a record's type.
func recordKind(t agent.RecordType) (kind, uint16) {
	switch t {
	case agent.TypeA:
		return kindA, typeA
	case agent.TypeAAAA:
		return kindAAAA, typeAAAA
	case agent.TypeSRV:
		return kindSRV, typeSRV
	}
	return kinds, 0
}

// rrset is the records of one name and type.
type rrset struct {
	qtype   uint16
	records []agent.Record // of A, AAAA and SRV
	data    []byte         // of SOA and NS: the data of the one record
	target  string         // of NS: the lower-case wire name in data

	packed atomic.Pointer[packed]
}

// get returns the set of this type at a name, or nil. For ANY it is any one of
// the name's sets, which is all that RFC 8482 §4.1 asks for.
func (n *node) get(qtype uint16) *rrset {
	if k := kindOf(qtype); k < kinds {
		return n.sets[k]
	}
	if qtype == typeANY {
		for _, s := range n.sets {
			if s != nil {
				return s
			}
		}
	}
	return nil
}

// empty reports whether a name has no records of its own.
func (n *node) empty() bool { return n.sets == [kinds]*rrset{} }

// newTable makes the table of a set of records. Records that cannot be served
// are left out, each with an error; without a usable zone there is no table.
func newTable(set agent.RecordSet, seq uint64, serial uint32) (*table, []error) {
	zone, err := appendName(nil, set.Zone)
	if err != nil {
		return nil, []error{fmt.Errorf("parse zone: %w", err)}
	}
	t := &table{
		zone: zone, seq: seq, serial: serial,
		nodes: make(map[string]*node, len(set.Records)),
	}
	var errs []error
	for records := range runs(set.Records) {
		n, bad := t.add(records)
		errs = append(errs, bad...)
		t.count += n
	}
	if err := t.addApex(set); err != nil {
		return nil, append(errs, err)
	}
	return t, errs
}

// runs yields the records of each name and type together, from sorted ones.
func runs(records []agent.Record) func(yield func([]agent.Record) bool) {
	return func(yield func([]agent.Record) bool) {
		for len(records) > 0 {
			first, n := records[0], 1
			for n < len(records) && records[n].Type == first.Type && records[n].Name == first.Name {
				n++
			}
			if !yield(records[:n:n]) {
				return
			}
			records = records[n:]
		}
	}
}

// add adds the records of one name and type, and returns how many it took.
func (t *table) add(records []agent.Record) (int, []error) {
	var scratch [maxName]byte
	first := records[0]
	name, err := appendName(scratch[:0], first.Name)
	if err != nil {
		return 0, []error{err}
	}
	if !within(name, t.zone) {
		return 0, []error{fmt.Errorf("name %q: not in the zone", first.Name)}
	}
	k, qtype := recordKind(first.Type)
	if k == kinds {
		return 0, []error{fmt.Errorf("name %q: type %q is not served", first.Name, first.Type)}
	}
	var errs []error
	good := records
	for i, r := range records {
		if err := servable(r); err != nil {
			if len(errs) == 0 {
				good = slices.Clone(records[:i])
			}
			errs = append(errs, err)
		} else if len(errs) > 0 {
			good = append(good, r)
		}
	}
	if len(good) > 0 {
		t.node(name).sets[k] = &rrset{qtype: qtype, records: good}
	}
	return len(good), errs
}

// servable returns why a record's data cannot be put on the wire, or nil.
func servable(r agent.Record) error {
	var scratch [maxName]byte
	ok := true
	switch r.Type {
	case agent.TypeA:
		ok = r.Addr.Is4()
	case agent.TypeAAAA:
		ok = r.Addr.Is6()
	case agent.TypeSRV:
		if _, err := appendName(scratch[:0], r.Target); err != nil {
			return fmt.Errorf("name %q: target: %w", r.Name, err)
		}
	}
	if !ok {
		return fmt.Errorf("name %q: %s is no address for %s", r.Name, r.Addr, r.Type)
	}
	return nil
}

// node returns the node of a lower-case wire name in the zone, and makes it and
// the empty ones above it where there is none yet.
func (t *table) node(name []byte) *node {
	if n := t.nodes[string(name)]; n != nil {
		return n
	}
	n := &node{name: string(name)}
	t.nodes[n.name] = n
	if len(name) > len(t.zone) {
		for parent := range parents(name, t.zone) {
			if t.nodes[string(parent)] != nil {
				break
			}
			p := &node{name: string(parent)}
			t.nodes[p.name] = p
		}
	}
	return n
}

// addApex adds the zone's own records. The one name server is this host.
func (t *table) addApex(set agent.RecordSet) error {
	server, err := t.child(set.Node.Label())
	if err != nil {
		return err
	}
	mailbox, err := t.child("hostmaster")
	if err != nil {
		return err
	}
	soa := append(slices.Clone(server), mailbox...)
	for _, n := range []uint32{t.serial, soaRefresh, soaRetry, soaExpire, negativeTTL} {
		soa = binary.BigEndian.AppendUint32(soa, n)
	}
	t.negative = appendRecord(nil, typeSOA, negativeTTL, soa)
	apex := t.node(t.zone)
	apex.sets[kindSOA] = &rrset{qtype: typeSOA, data: soa}
	apex.sets[kindNS] = &rrset{qtype: typeNS, data: server, target: string(server)}
	t.node(server) // its name exists, whether or not its address is known
	return nil
}

// child returns the wire name of a label below the apex.
func (t *table) child(label string) ([]byte, error) {
	name, err := appendName(nil, strings.ToLower(label))
	if err != nil {
		return nil, err
	}
	name = append(name[:len(name)-1], t.zone...)
	if len(name) > maxName {
		return nil, fmt.Errorf("name %q in the zone: %w", label, errNameTooLong)
	}
	return name, nil
}

// lookup returns the records at a name, in the order of a RecordSet.
func (t *table) lookup(name string) []agent.Record {
	wire, err := appendName(nil, name)
	if err != nil {
		return nil
	}
	n := t.nodes[string(wire)]
	if n == nil {
		return nil
	}
	var out []agent.Record
	for _, s := range n.sets {
		if s != nil {
			out = append(out, s.records...)
		}
	}
	slices.SortFunc(out, agent.Record.Compare)
	return out
}
