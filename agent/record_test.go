package agent

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

// randomSeed returns a new seed, or that of BERTH_SEED, to replay a failure.
func randomSeed(t *testing.T) uint64 {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("BERTH_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("BERTH_SEED: %v", err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("replay with BERTH_SEED=%d", seed)
		}
	})
	return seed
}

// randomRecords draws from few values, so that two sets have much in common.
func randomRecords(rng *rand.Rand) []Record {
	var out []Record
	for range rng.IntN(12) {
		r := Record{Name: fmt.Sprintf("%c.z.", 'a'+rng.IntN(3)), TTL: uint32(5 + rng.IntN(2))}
		if rng.IntN(2) == 0 {
			r.Type, r.Addr = TypeA, netip.AddrFrom4([4]byte{192, 0, 2, byte(rng.IntN(3))})
		} else {
			r.Type, r.Port, r.Target = TypeSRV, uint16(rng.IntN(3)), fmt.Sprintf("n%d.z.", rng.IntN(2))
			r.Priority, r.Weight = uint16(rng.IntN(2)), uint16(rng.IntN(2))
		}
		out = append(out, r)
	}
	return NewRecordSet("z.", Node{}, out, false).Records
}

func TestDiff_AppliedGivesWhatIsWanted(t *testing.T) {
	rng := rand.New(rand.NewPCG(randomSeed(t), 0))
	for range 5000 {
		have, want := randomRecords(rng), randomRecords(rng)
		before := slices.Clone(have)
		ch := Diff(have, want)
		if got := Apply(have, ch); !slices.Equal(got, want) {
			t.Fatalf("from %v\nto %v\nby %+v\ngot %v", have, want, ch, got)
		}
		if !slices.Equal(have, before) {
			t.Fatalf("have was changed: %v to %v", before, have)
		}
		for _, r := range ch.Delete {
			if !slices.Contains(have, r) || slices.Contains(want, r) {
				t.Fatalf("from %v\nto %v\nno reason to delete %v", have, want, r)
			}
		}
		for _, r := range ch.Create {
			if slices.Contains(have, r) || !slices.Contains(want, r) {
				t.Fatalf("from %v\nto %v\nno reason to create %v", have, want, r)
			}
		}
		if !slices.IsSortedFunc(ch.Delete, Record.Compare) || !slices.IsSortedFunc(ch.Create, Record.Compare) {
			t.Fatalf("not sorted: %+v", ch)
		}
		if ch.Empty() != slices.Equal(have, want) {
			t.Fatalf("Empty: got %v for %v and %v", ch.Empty(), have, want)
		}
		// Applied twice, as after a lost answer, it is as good as once.
		if got := Apply(Apply(have, ch), ch); !slices.Equal(got, want) {
			t.Fatalf("applied twice: got %v, want %v", got, want)
		}
	}
}

// Compare is an order: total, and equal only for the same record.
func TestRecord_CompareIsATotalOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(randomSeed(t), 0))
	var all []Record
	for range 20 {
		all = append(all, randomRecords(rng)...)
	}
	for _, a := range all {
		for _, b := range all {
			if ab, ba := a.Compare(b), b.Compare(a); ab != -ba || (ab == 0) != (a == b) {
				t.Fatalf("%v and %v: got %d and %d", a, b, ab, ba)
			}
		}
	}
}

func TestRecord_String(t *testing.T) {
	for want, r := range map[string]Record{
		"_calc._tcp.z. 5 IN SRV 1 2 8080 n.z.": {Name: "_calc._tcp.z.", Type: TypeSRV, TTL: 5, Priority: 1, Weight: 2, Port: 8080, Target: "n.z."},
		"n.z. 0 IN A 192.0.2.1":                {Name: "n.z.", Type: TypeA, Addr: netip.MustParseAddr("192.0.2.1")},
		"n.z. 5 IN AAAA 2001:db8::1":           {Name: "n.z.", Type: TypeAAAA, TTL: 5, Addr: netip.MustParseAddr("2001:db8::1")},
	} {
		if got := r.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestRecordSet_SortsAndRemovesRepeats(t *testing.T) {
	a, b := Record{Name: "a.", Type: TypeSRV, Port: 1}, Record{Name: "a.", Type: TypeSRV, Port: 2}
	s := NewRecordSet("z.", Node{}, []Record{b, a, b}, true)
	if !slices.Equal(s.Records, []Record{a, b}) || !s.Partial {
		t.Errorf("got %+v", s)
	}
	for i, o := range []RecordSet{
		{Zone: "y.", Records: s.Records, Partial: true},
		{Zone: "z.", Records: s.Records},
		{Zone: "z.", Records: s.Records[:1], Partial: true},
		{Zone: "z.", Records: s.Records, Partial: true, Node: Node{ID: "n"}},
	} {
		if s.Equal(o) || o.Equal(s) {
			t.Errorf("set %d is called equal", i)
		}
	}
}
