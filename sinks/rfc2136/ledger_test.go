package rfc2136

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/journal"
)

// seedOf returns BERTH_SEED or a new seed, and has it printed on failure.
func seedOf(t *testing.T) uint64 {
	seed := rand.Uint64()
	if s := os.Getenv("BERTH_SEED"); s != "" {
		var err error
		seed, err = strconv.ParseUint(s, 10, 64)
		must(t, err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("replay with BERTH_SEED=%d", seed)
		}
	})
	return seed
}

// model is a zone, the network in front of it, and berth in front of that. The
// network may apply a message now, or at any time while its signature is valid;
// lose it, or its answer.
type model struct {
	rng  *rand.Rand
	now  time.Time
	zone map[key]uint32 // TTL by record of a zone
	late []lateMessage

	ledger *ledger
	log    [][]byte // of the journal
	check  []byte
	want   target
	count  map[string]int
}

type lateMessage struct {
	at time.Time
	m  message
}

func newModel(rng *rand.Rand) *model {
	return &model{
		rng: rng, now: time.Unix(1e9, 0), ledger: newLedger(),
		zone: make(map[key]uint32), count: make(map[string]int),
		want: target{zone: zone},
	}
}

// apply does what Knot does: an add of a record that is there changes nothing.
func (w *model) apply(m message) {
	for _, r := range m.Delete {
		delete(w.zone, keyOf(m.Zone, r))
	}
	for _, r := range m.Add {
		k := keyOf(m.Zone, r)
		if _, ok := w.zone[k]; !ok {
			w.zone[k] = r.TTL
		}
	}
}

// holds reports whether a message's claims are true.
func (w *model) holds(m message) bool {
	for _, c := range m.claims {
		n := 0
		for k := range w.zone {
			if k.zone != m.Zone || k.record.Name != c.name || k.record.Type != c.kind {
				continue
			}
			if n++; !slices.Contains(c.records, k.record) {
				return false
			}
		}
		if n != len(c.records) {
			return false
		}
	}
	return true
}

// pass lets time pass, in which late messages arrive.
func (w *model) pass(d time.Duration) {
	w.now = w.now.Add(d)
	slices.SortStableFunc(w.late, func(a, b lateMessage) int { return a.at.Compare(b.at) })
	for len(w.late) > 0 && !w.late[0].at.After(w.now) {
		if w.holds(w.late[0].m) {
			w.apply(w.late[0].m)
		}
		w.late = w.late[1:]
	}
}

// append adds to the journal, or fails as on a full disk.
func (w *model) append(e savedEntry) bool {
	if w.rng.IntN(12) == 0 {
		w.check, w.log = w.ledger.state(), nil
	}
	if w.rng.IntN(20) == 0 {
		w.count["disk full"]++
		return false
	}
	w.log = append(w.log, encode(e))
	return true
}

// crash starts berth anew, on what the journal holds.
func (w *model) crash() error {
	w.count["crash"]++
	var err error
	w.ledger, err = replay(journal.Replay{Checkpoint: w.check, Entries: w.log}, w.now.Add(doubtful))
	return err
}

// send is Sink.send with a network that has its moods unless it is calm. It
// reports whether there was anything to do.
func (w *model) send(calm bool) (bool, error) {
	var m message
	for _, z := range w.ledger.zones(w.want) {
		if m = w.ledger.plan(z, w.want, w.now); !m.empty() {
			break
		}
	}
	if m.empty() {
		return false, nil
	}
	m, _ = m.cut(300)
	// There is one host of this name: whatever it claims is true.
	m.claims = w.ledger.claims(m.Zone, w.want.own)
	if !w.holds(m) {
		return true, fmt.Errorf("claims %v of %v", m.claims, w.zone)
	}
	for _, c := range m.claims {
		w.count[fmt.Sprintf("claim of %d", len(c.records))]++
	}
	if !w.append(savedEntry{Send: saveMessage(m)}) {
		return true, nil
	}
	w.ledger.begin(m, w.now.Add(doubtful))
	sent := w.now
	mood := w.rng.IntN(7)
	if calm {
		mood = 0
	}
	switch mood {
	case 0, 1, 2:
		w.apply(m)
		if w.rng.IntN(10) == 0 && !calm {
			return true, w.crash()
		}
		if w.append(savedEntry{Settled: settledApplied}) && w.rng.IntN(10) == 0 && !calm {
			return true, w.crash()
		}
		w.ledger.applied(sent, time.Time{})
	case 3: // applied by one server, and hanging at another one of the same zone
		w.count["copy"]++
		w.apply(m)
		w.delay(m)
		w.ledger.applied(sent, w.now.Add(doubtful))
	case 4:
		w.count["refused"]++
		w.append(savedEntry{Settled: settledRefused})
		w.ledger.refused()
	case 5:
		w.count["answer lost"]++
		w.apply(m)
		w.ledger.doubtful(w.now.Add(doubtful))
	case 6:
		w.count["late"]++
		w.delay(m)
		if w.rng.IntN(4) == 0 {
			return true, w.crash()
		}
		w.ledger.doubtful(w.now.Add(doubtful))
	}
	return true, nil
}

func (w *model) delay(m message) {
	w.late = append(w.late, lateMessage{w.now.Add(time.Duration(w.rng.Int64N(int64(doubtful)))), m})
}

// TestLedger_AnyHistory drives a ledger and its journal through random histories.
// After each, once the doubts are over, the zone is as wanted, with nothing left
// of what was ever tried.
func TestLedger_AnyHistory(t *testing.T) {
	seed := seedOf(t)
	count := make(map[string]int)
	for run := range 1000 {
		w := newModel(rand.New(rand.NewPCG(seed, uint64(run))))
		if err := w.history(); err != nil {
			t.Fatalf("run %d: %v", run, err)
		}
		for k, n := range w.count {
			count[k] += n
		}
	}
	for _, what := range []string{"crash", "copy", "refused", "answer lost", "late", "disk full", "partial", "claim of 0", "claim of 1"} {
		if count[what] == 0 {
			t.Errorf("never happened: %s", what)
		}
	}
}

func (w *model) history() error {
	other := srv("host10", 1)
	w.zone[keyOf(zone, other)] = 10
	for range w.rng.IntN(40) {
		switch w.rng.IntN(6) {
		case 0:
			w.choose()
		case 1:
			w.pass(time.Duration(w.rng.Int64N(int64(doubtful / 4))))
		case 2:
			if w.rng.IntN(4) == 0 {
				if err := w.crash(); err != nil {
					return err
				}
			}
		default:
			if _, err := w.send(false); err != nil {
				return err
			}
		}
	}
	w.want.partial = false
	want := map[key]uint32{keyOf(zone, other): 10}
	for _, r := range w.want.records {
		want[keyOf(w.want.zone, r)] = r.TTL
	}
	for {
		for more := true; more; {
			var err error
			if more, err = w.send(true); err != nil {
				return err
			}
		}
		next := w.ledger.nextDoubt(w.now)
		if next.IsZero() {
			break
		}
		w.pass(next.Sub(w.now))
	}
	if len(w.late) > 0 {
		return fmt.Errorf("%d messages are still under way", len(w.late))
	}
	if !maps.Equal(w.zone, want) {
		return fmt.Errorf("zone is %v, want %v", w.zone, want)
	}
	if got := w.ledger.count(); got != len(w.want.records) || len(w.ledger.entries) != got {
		return fmt.Errorf("ledger has %d entries, %d records, want %d", len(w.ledger.entries), got, len(w.want.records))
	}
	return nil
}

// choose makes another set the wanted one.
func (w *model) choose() {
	var records []agent.Record
	ttl := uint32(5 + w.rng.IntN(2))
	for i := range 6 {
		if w.rng.IntN(2) == 0 {
			r := srv("host1", uint16(i))
			r.TTL = ttl
			records = append(records, r)
		}
	}
	if w.rng.IntN(3) > 0 {
		r := address("host1", fmt.Sprintf("192.0.2.%d", 1+w.rng.IntN(2)))
		r.TTL = ttl
		records = append(records, r)
	}
	slices.SortFunc(records, agent.Record.Compare)
	w.want = target{zone: zone, own: "host1." + zone, records: records, partial: w.rng.IntN(4) == 0}
	if w.want.partial {
		w.count["partial"]++
	}
	if w.rng.IntN(8) == 0 {
		w.want.zone = "other.example."
	}
}

// Only single records of the kinds that berth knows are ever named in an update:
// never the SOA, a whole RRset or a whole name (RFC 2136 §2.5).
func TestMessage_NamesSingleRecordsOnly(t *testing.T) {
	m := message{
		Zone:   zone,
		Delete: []agent.Record{address("host1", "192.0.2.1"), srv("host1", 1)},
		Add:    []agent.Record{address("host1", "192.0.2.2"), srv("host1", 2)},
		claims: []claim{
			{"host1." + zone, agent.TypeA, []agent.Record{address("host1", "192.0.2.1")}},
			{"host1." + zone, agent.TypeAAAA, nil},
		},
	}
	wire, err := m.update().Pack()
	must(t, err)
	u := new(dns.Msg)
	must(t, u.Unpack(wire))
	var got []string
	for _, rr := range slices.Concat(u.Answer, u.Ns) {
		h := rr.Header()
		got = append(got, fmt.Sprintf("%s %d %s %s %d", h.Name, h.Ttl, dns.ClassToString[h.Class], dns.TypeToString[h.Rrtype], h.Rdlength))
	}
	want := []string{
		"host1." + zone + " 0 IN A 4", // the claims: as they are, and none
		"host1." + zone + " 0 NONE AAAA 0",
		"host1." + zone + " 0 NONE A 4",
		"_calc._tcp." + zone + " 0 NONE SRV 30",
		"host1." + zone + " 10 IN A 4",
		"_calc._tcp." + zone + " 10 IN SRV 30",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// What an earlier life has written may be gone: the zone may have been restored
// from an older copy, which is no second agent. It is said again before it is
// claimed.
func TestLedger_ClaimsOnlyWhatItHasSaid(t *testing.T) {
	own, now := "host1."+zone, time.Now()
	want := target{zone: zone, own: own, records: []agent.Record{address("host1", "192.0.2.1")}}
	say := func(l *ledger) {
		l.begin(l.plan(zone, want, now), now)
		l.applied(now, time.Time{})
	}
	l := newLedger()
	if got := l.claims(zone, own); len(got) != 2 || got[0].records != nil || got[1].records != nil {
		t.Errorf("before the first message: got %v, want that there are none of either family", got)
	}
	say(l)
	if got := l.claims(zone, own); len(got) != 2 || len(got[0].records) != 1 {
		t.Errorf("after it: got %v, want one address of version 4 and none of 6", got)
	}
	again, err := replay(journal.Replay{Checkpoint: l.state()}, now)
	must(t, err)
	l.unsure(zone)
	for name, l := range map[string]*ledger{"after a restart": again, "after a denial": l} {
		if got := l.claims(zone, own); got != nil {
			t.Errorf("%s: got %v, want none", name, got)
		}
		say(l)
		if got := l.claims(zone, own); len(got) != 2 {
			t.Errorf("%s, said again: got %v, want both", name, got)
		}
	}
}

func TestReplay_UnreadableEntryKeepsWhatIsInFront(t *testing.T) {
	m := message{Zone: zone, Add: []agent.Record{srv("host1", 1)}}
	good := encode(savedEntry{Send: saveMessage(m)})
	l, err := replay(journal.Replay{Entries: [][]byte{good, []byte("{")}}, time.Now())
	if err == nil || len(l.entries) != 1 {
		t.Errorf("got %d entries, %v, want one and an error", len(l.entries), err)
	}
	if _, err := replay(journal.Replay{Checkpoint: []byte("[]")}, time.Now()); err == nil {
		t.Error("a checkpoint of another form is no error")
	}
}

func TestSaved_KeepsEveryField(t *testing.T) {
	m := message{
		Zone:   zone,
		Delete: []agent.Record{address("host1", "192.0.2.1")},
		Add: []agent.Record{
			srv("host1", 65535),
			{Name: "host1." + zone, Type: agent.TypeAAAA, TTL: 1, Addr: netip.MustParseAddr("2001:db8::1")},
		},
	}
	got := saveMessage(m).restore()
	if got.Zone != m.Zone || !slices.Equal(got.Delete, m.Delete) || !slices.Equal(got.Add, m.Add) {
		t.Errorf("got %+v, want %+v", got, m)
	}
	l := newLedger()
	l.begin(m, time.Time{})
	l.applied(time.Now(), time.Time{})
	back, err := replay(journal.Replay{Checkpoint: l.state()}, time.Time{})
	must(t, err)
	for k, e := range l.entries {
		e.held = false
		if back.entries[k] != e {
			t.Errorf("%v: got %+v, want %+v", k, back.entries[k], e)
		}
	}
}

// A message keeps to its bound, whatever is in it, and loses nothing.
func TestMessage_Cut(t *testing.T) {
	var m message
	for i := range 2000 {
		m.Delete = append(m.Delete, srv("host1", uint16(i)))
		m.Add = append(m.Add, srv("host1", uint16(10_000+i)), address("host1", "192.0.2.1"))
	}
	m.Zone = zone
	var deleted, added []agent.Record
	for rest := m; ; {
		part, more := rest.cut(maxMessage)
		wire, err := part.update().Pack()
		must(t, err)
		if part.empty() || len(wire) > maxMessage+512 {
			t.Fatalf("a message of %d bytes", len(wire))
		}
		if len(part.Add) > 0 && len(deleted)+len(part.Delete) < len(m.Delete) {
			t.Fatal("something is added before all is deleted")
		}
		deleted, added = append(deleted, part.Delete...), append(added, part.Add...)
		rest.Delete, rest.Add = rest.Delete[len(part.Delete):], rest.Add[len(part.Add):]
		if !more {
			break
		}
	}
	if !slices.Equal(deleted, m.Delete) || !slices.Equal(added, m.Add) {
		t.Errorf("got %d and %d records, want %d and %d", len(deleted), len(added), len(m.Delete), len(m.Add))
	}
}
