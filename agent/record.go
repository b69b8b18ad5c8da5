package agent

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// RecordType is the type of a DNS record, by its name in zone files.
type RecordType string

// The types that berth writes.
const (
	TypeA    RecordType = "A"
	TypeAAAA RecordType = "AAAA"
	TypeSRV  RecordType = "SRV"
)

// Record is one DNS resource record that this host wants to exist. Records are
// comparable: two are the same record when all of their fields are equal.
type Record struct {
	Name string // fully qualified, with the final dot, lower case
	Type RecordType
	TTL  uint32 // seconds

	// Priority, Weight, Port and Target belong to SRV (RFC 2782).
	Priority uint16
	Weight   uint16
	Port     uint16
	Target   string // fully qualified, with the final dot, lower case

	// Addr belongs to A and AAAA.
	Addr netip.Addr
}

// Value returns the record's data as zone files write it (RFC 1035 §5.1).
func (r Record) Value() string {
	if r.Type == TypeSRV {
		return fmt.Sprintf("%d %d %d %s", r.Priority, r.Weight, r.Port, r.Target)
	}
	return r.Addr.String()
}

// String returns the record as a line of a zone file.
func (r Record) String() string {
	return fmt.Sprintf("%s %d IN %s %s", r.Name, r.TTL, r.Type, r.Value())
}

// Compare orders records by name, type and data, which is the order of a
// RecordSet.
func (r Record) Compare(o Record) int {
	return cmp.Or(
		strings.Compare(r.Name, o.Name),
		strings.Compare(string(r.Type), string(o.Type)),
		cmp.Compare(r.Priority, o.Priority),
		strings.Compare(r.Target, o.Target),
		cmp.Compare(r.Port, o.Port),
		cmp.Compare(r.Weight, o.Weight),
		r.Addr.Compare(o.Addr),
		cmp.Compare(r.TTL, o.TTL),
	)
}

// RecordSet is all that this host wants in DNS. It is immutable.
type RecordSet struct {
	// Zone is the domain that every name lies in, with the final dot.
	Zone string
	// Node is the host that the records belong to.
	Node Node
	// Records are sorted by Record.Compare, without repeats.
	Records []Record
	// Partial is set while not everything is known yet (berth has just
	// started, or a container could not be looked at). A sink adds and changes
	// what a partial set holds, and removes only what it added itself since it
	// was started: the record that is missing may be that of a live container.
	Partial bool
}

// NewRecordSet sorts records and removes repeats. It takes ownership of the
// slice.
func NewRecordSet(zone string, node Node, records []Record, partial bool) RecordSet {
	slices.SortFunc(records, Record.Compare)
	return RecordSet{Zone: zone, Node: node, Records: slices.Compact(records), Partial: partial}
}

// Equal reports whether two sets want the same of a sink.
func (s RecordSet) Equal(o RecordSet) bool {
	return s.Zone == o.Zone && s.Node == o.Node && s.Partial == o.Partial && slices.Equal(s.Records, o.Records)
}

// Changes is what turns one set of records into another. A record whose TTL
// alone differs is deleted and created, as the protocols have it.
type Changes struct {
	Delete []Record // sorted; to be applied first
	Create []Record // sorted
}

// Empty reports whether there is nothing to do.
func (c Changes) Empty() bool { return len(c.Delete) == 0 && len(c.Create) == 0 }

// Diff returns the changes that turn have into want. Both must be sorted and
// without repeats, as in a RecordSet. It is pure, and merges in linear time.
func Diff(have, want []Record) Changes {
	var ch Changes
	for len(have) > 0 || len(want) > 0 {
		switch {
		case len(want) == 0:
			ch.Delete = append(ch.Delete, have...)
			return ch
		case len(have) == 0:
			ch.Create = append(ch.Create, want...)
			return ch
		}
		switch c := have[0].Compare(want[0]); {
		case c < 0:
			ch.Delete = append(ch.Delete, have[0])
			have = have[1:]
		case c > 0:
			ch.Create = append(ch.Create, want[0])
			want = want[1:]
		default:
			have, want = have[1:], want[1:]
		}
	}
	return ch
}

// Apply returns the sorted set that results from applying ch to have, which it
// does not change.
func Apply(have []Record, ch Changes) []Record {
	gone := make(map[Record]bool, len(ch.Delete))
	for _, r := range ch.Delete {
		gone[r] = true
	}
	out := make([]Record, 0, len(have)+len(ch.Create))
	for _, r := range have {
		if !gone[r] {
			out = append(out, r)
		}
	}
	out = append(out, ch.Create...)
	slices.SortFunc(out, Record.Compare)
	return slices.Compact(out)
}
