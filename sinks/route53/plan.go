package route53

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/service/route53/types"
)

// The limits of one ChangeResourceRecordSets request (Developer Guide, "Quotas").
// What an UPSERT carries counts twice.
const (
	maxElements   = 1000
	maxCharacters = 32000
)

func (k key) compare(o key) int {
	return cmp.Or(strings.Compare(k.Zone, o.Zone), strings.Compare(k.Name, o.Name),
		strings.Compare(string(k.Type), string(o.Type)), strings.Compare(k.ID, o.ID))
}

// unit is one step of a plan: what turns one record set into what it should be.
// It is never divided, so that a set is replaced in one transaction.
type unit struct {
	key  key
	old  *value // what it holds; nil for nothing
	want *value // what it should hold; nil for nothing
	// look is set when nobody knows what the set holds and it must be looked up
	// before anything else.
	look bool
	// upsert is set when nobody knows what the set holds and it does not matter.
	upsert bool
}

// change is one change of a batch.
type change struct {
	action types.ChangeAction
	value  value
}

// changes returns the changes of a unit. Replacing by DELETE and CREATE costs as
// much as an UPSERT does, and fails when the set is not what was written.
func (u unit) changes() []change {
	var out []change
	switch {
	case u.upsert:
		return []change{{types.ChangeActionUpsert, *u.want}}
	case u.old != nil:
		out = append(out, change{types.ChangeActionDelete, *u.old})
	}
	if u.want != nil {
		out = append(out, change{types.ChangeActionCreate, *u.want})
	}
	return out
}

// size returns what a unit counts against the limits of a batch.
func (u unit) size() (elements, characters int) {
	for _, c := range u.changes() {
		times := 1
		if c.action == types.ChangeActionUpsert {
			times = 2
		}
		for _, d := range c.value.Data {
			elements += times
			characters += times * utf8.RuneCountInString(d)
		}
	}
	return elements, characters
}

// plan returns the units that turn what the ledger holds into what is wanted:
// first what goes, then what changes, then what comes. exclusive says that a key
// is of a name which somebody else may have; keep, that nothing may go.
func plan(l *ledger, want map[key]value, exclusive func(key) bool, keep bool) []unit {
	var gone, changed, added []unit
	for _, k := range slices.SortedFunc(maps.Keys(l.Sets), key.compare) {
		e := l.Sets[k]
		w, wanted := want[k]
		switch {
		case !wanted && keep:
		case !wanted:
			gone = append(gone, unit{key: k, old: e.Have, look: e.Unsure})
		case e.Unsure:
			changed = append(changed, unit{key: k, want: &w, look: exclusive(k), upsert: !exclusive(k)})
		case e.Have == nil || !e.Have.equal(w):
			changed = append(changed, unit{key: k, old: e.Have, want: &w})
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(want), key.compare) {
		if l.Sets[k] == nil {
			w := want[k]
			added = append(added, unit{key: k, want: &w, upsert: !l.Adopted && !exclusive(k)})
		}
	}
	return slices.Concat(gone, changed, added)
}

// pack divides units, in their order, into batches that keep within the limits.
func pack(units []unit) [][]unit {
	var out [][]unit
	var elements, characters int
	start := 0
	for i, u := range units {
		e, c := u.size()
		if i > start && (elements+e > maxElements || characters+c > maxCharacters) {
			out = append(out, units[start:i])
			start, elements, characters = i, 0, 0
		}
		elements += e
		characters += c
	}
	if start < len(units) {
		out = append(out, units[start:])
	}
	return out
}
