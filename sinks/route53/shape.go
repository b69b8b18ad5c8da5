package route53

import (
	"fmt"
	"maps"
	"slices"
	"unicode/utf8"

	"github.com/berthd/berth/agent"
)

// The limits of one record set. Route 53 takes 400 values; the characters are
// bounded so that replacing a set, which takes its old and its new values in one
// batch, always fits into one (see maxCharacters).
const (
	maxValues        = 400
	maxSetCharacters = maxCharacters / 2
	maxWeight        = 255
)

// key identifies a record set.
type key struct {
	Zone string           `json:"z"` // its ID
	Name string           `json:"n"` // with the final dot
	Type agent.RecordType `json:"t"`
	ID   string           `json:"i,omitempty"` // SetIdentifier; empty for a simple one
}

func (k key) String() string {
	if k.ID == "" {
		return fmt.Sprintf("%s %s", k.Name, k.Type)
	}
	return fmt.Sprintf("%s %s (%s)", k.Name, k.Type, k.ID)
}

// value is what a record set holds.
type value struct {
	Policy Mode     `json:"p"`
	TTL    int64    `json:"ttl"`
	Weight int64    `json:"w,omitempty"` // of a weighted one
	Data   []string `json:"v"`           // sorted
}

func (v value) equal(o value) bool {
	return v.Policy == o.Policy && v.TTL == o.TTL && v.Weight == o.Weight && slices.Equal(v.Data, o.Data)
}

// same reports whether two values are equal or both absent.
func same(a, b *value) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.equal(*b)
}

// shaper turns records into record sets.
type shaper struct {
	zone hostedZone
	mode Mode
	who  identity
	id   string // the SetIdentifier of who
	node string // name of the host itself
}

// own reports whether a name says by itself that it is this host's.
func (s shaper) own(name string) bool { return s.node != "" && within(name, s.node) }

// key returns the key of the set that a record belongs to.
func (s shaper) key(r agent.Record) key {
	k := key{Zone: s.zone.ID, Name: r.Name, Type: r.Type}
	if s.mode != Simple && (r.Type == agent.TypeSRV || !s.own(r.Name)) {
		k.ID = s.id
	}
	return k
}

// shape returns the sets of all records, and what cannot be written: names
// outside the zone, and values beyond a limit.
func (s shaper) shape(records []agent.Record) (map[key]value, []error) {
	sets := make(map[key]value)
	instances := make(map[string]int64) // SRV records by name
	var errs []error
	for _, r := range records {
		if !within(r.Name, s.zone.Name) {
			errs = append(errs, fmt.Errorf("%s is not in the hosted zone %s", r.Name, s.zone.Name))
			continue
		}
		if r.Type == agent.TypeSRV {
			instances[r.Name]++
		}
		k := s.key(r)
		v, ok := sets[k]
		if !ok || int64(r.TTL) < v.TTL {
			v.TTL = int64(r.TTL)
		}
		v.Data = append(v.Data, r.Value())
		sets[k] = v
	}
	for _, k := range slices.SortedFunc(maps.Keys(sets), key.compare) {
		v := sets[k]
		v.Policy = Simple
		if k.ID != "" {
			v.Policy = s.mode
		}
		if v.Policy == Weighted {
			v.Weight = min(max(instances[k.Name], 1), maxWeight)
		}
		slices.Sort(v.Data)
		v.Data = slices.Compact(v.Data)
		if n := fit(v.Data); n < len(v.Data) {
			errs = append(errs, fmt.Errorf("%s has %d values, of which %d fit: Route 53 takes %d values in a set and %d characters in a batch",
				k, len(v.Data), n, maxValues, maxCharacters))
			v.Data = v.Data[:n]
		}
		sets[k] = v
	}
	return sets, errs
}

// fit returns how many of the values one set can hold.
func fit(data []string) int {
	characters := 0
	for i, d := range data {
		if characters += utf8.RuneCountInString(d); i == maxValues || characters > maxSetCharacters {
			return i
		}
	}
	return len(data)
}
