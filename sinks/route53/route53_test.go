package route53

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/test/fakeaws"
)

// TestShapes is what each mode writes.
func TestShapes(t *testing.T) {
	records := []agent.Record{
		addr("host1", "192.0.2.1"), addr("host1", "2001:db8::1"), addr("0123456789ab.host1", "10.0.0.7"),
		srv("_calc._tcp", 2), srv("_calc._tcp", 1), srv("calc", 1), srv("calc", 2), addr("calc", "192.0.2.1"),
	}
	node := []string{
		"0123456789ab.host1.svc.test.|A||simple|10|10.0.0.7",
		"host1.svc.test.|A||simple|10|192.0.2.1", "host1.svc.test.|AAAA||simple|10|2001:db8::1",
	}
	for mode, services := range map[Mode][]string{
		Multivalue: {
			"_calc._tcp.svc.test.|SRV|host1|multivalue|10|1 1 1 host1.svc.test.,1 1 2 host1.svc.test.",
			"calc.svc.test.|A|host1|multivalue|10|192.0.2.1",
			"calc.svc.test.|SRV|host1|multivalue|10|1 1 1 host1.svc.test.,1 1 2 host1.svc.test.",
		},
		Weighted: {
			"_calc._tcp.svc.test.|SRV|host1|weighted 2|10|1 1 1 host1.svc.test.,1 1 2 host1.svc.test.",
			"calc.svc.test.|A|host1|weighted 2|10|192.0.2.1",
			"calc.svc.test.|SRV|host1|weighted 2|10|1 1 1 host1.svc.test.,1 1 2 host1.svc.test.",
		},
		Simple: {
			"_calc._tcp.svc.test.|SRV||simple|10|1 1 1 host1.svc.test.,1 1 2 host1.svc.test.",
			"calc.svc.test.|A||simple|10|192.0.2.1",
			"calc.svc.test.|SRV||simple|10|1 1 1 host1.svc.test.,1 1 2 host1.svc.test.",
		},
	} {
		r := newRig(t)
		r.cfg.Mode = mode
		r.start()
		r.apply(records...)
		got := r.lines()
		slices.Sort(got)
		want := slices.Concat(node, services)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s:\n%s\nwant:\n%s", mode, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		r.stop()
	}
}

// TestMoves is what happens to what was written when the config changes.
func TestMoves(t *testing.T) {
	for name, move := range map[string]func(*rig){
		"zone":     func(r *rig) { r.zone = r.fake.AddZone(fakeaws.Zone{Name: domain}); r.cfg.ZoneID = r.zone },
		"cluster":  func(r *rig) { r.cfg.Cluster = "other" },
		"mode":     func(r *rig) { r.cfg.Mode = Weighted },
		"simple":   func(r *rig) { r.cfg.Mode = Simple },
		"identity": func(r *rig) { r.host.node.Account = "999999999999" },
	} {
		r := newRig(t)
		old := r.zone
		r.start()
		r.apply(srv("_a._tcp", 1), addr("host1", "192.0.2.1"))
		r.stop()
		move(r)
		r.start()
		r.apply(srv("_a._tcp", 1), addr("host1", "192.0.2.1"))
		r.stop()
		if n := len(r.lines()); n != 2 {
			t.Errorf("%s: %d sets, want 2:\n%s", name, n, strings.Join(r.lines(), "\n"))
		}
		if old != r.zone && len(r.fake.Sets(old)) != 0 {
			t.Errorf("%s: left in the old zone: %v", name, r.fake.Sets(old))
		}
	}
}

// TestOldZoneInTheWay wants an old zone that refuses, or is gone, to hold up
// nothing.
func TestOldZoneInTheWay(t *testing.T) {
	r := newRig(t).start()
	r.apply(srv("_a._tcp", 1))
	r.stop()
	old := r.zone
	r.fake.Put(old, fakeaws.RRSet{Name: "_a._tcp." + domain, Type: "SRV", SetIdentifier: newIdentity(r.host.Node(), "default").String()})
	r.zone = r.fake.AddZone(fakeaws.Zone{Name: domain})
	r.cfg.ZoneID = r.zone
	r.fake.Inject(actionChange, fakeaws.Internal)
	r.start()
	r.apply(srv("_a._tcp", 1))
	if n := len(r.lines()); n != 1 {
		t.Errorf("%d sets, want 1", n)
	}
}

// TestZoneDeleted wants the sink to forget a zone that is gone.
func TestZoneDeleted(t *testing.T) {
	r := newRig(t)
	r.cfg.ZoneID = ""
	r.start()
	r.apply(srv("_a._tcp", 1))
	r.fake.RemoveZone(r.zone)
	seq := r.want(srv("_a._tcp", 2))
	r.awaitCondition(condZone, "0 public zones")
	r.zone = r.fake.AddZone(fakeaws.Zone{Name: domain})
	r.await("the new zone to be used", func() bool { return r.sink.Applied() >= seq })
	r.holds("_a._tcp.svc.test.|SRV|host1|multivalue|10|1 1 2 host1.svc.test.")
}

// TestLeftovers is a host whose disk is new and whose records are not.
func TestLeftovers(t *testing.T) {
	r := newRig(t).start()
	others := r.foreign("_a._tcp")
	r.apply(srv("_a._tcp", 1), srv("_b._tcp", 1), addr("a", "192.0.2.1"), addr("b", "192.0.2.1"), addr("host1", "192.0.2.1"), addr("host1", "2001:db8::1"))
	r.stop()
	r.dir = t.TempDir()
	r.timing.adoptWithin = 1
	r.start()
	records := []agent.Record{srv("_a._tcp", 2), srv("b", 1), addr("host1", "192.0.2.1")}
	r.apply(records...)
	// b's A record and the host's AAAA are at names that are wanted; _b._tcp and a
	// are not found.
	r.await("the leftovers to go", func() bool { return len(r.lines()) == len(others)+5 })
	r.checkForeign(others)
	r.want(append(records, srv("_b._tcp", 1))...)
	r.awaitCondition(condIdentity, "") // it held what it should, but nobody knew
	r.apply(append(records, srv("_b._tcp", 2))...)
	r.apply()
	if n := len(r.lines()); n != len(others)+1 {
		t.Errorf("%d sets are left, want those of others and a's A:\n%s", n, strings.Join(r.lines(), "\n"))
	}
}

// TestWhoseState is a sink that does not know yet which host this is, and one
// that learns that its state is another host's.
func TestWhoseState(t *testing.T) {
	r := newRig(t).start()
	r.apply(srv("_a._tcp", 1), srv("_b._tcp", 1))
	r.stop()
	unknown := newHost("host1")
	unknown.state = ""
	r.host = unknown
	r.start()
	seq := r.want(srv("_b._tcp", 1), srv("_c._tcp", 1))
	r.await("what is new", func() bool { return len(r.lines()) == 3 })
	if got := r.sink.Applied(); got >= seq {
		t.Errorf("applied is %d while the host is not certain", got)
	}
	r.host.setState("host1")
	r.await("what must go", func() bool { return r.sink.Applied() >= seq && len(r.lines()) == 2 })
	r.stop()

	r.host = newHost("host2") // the disk was cloned
	r.start()
	r.apply(srv("_z._tcp", 1))
	r.stop()

	r.host = newHost("host3") // and once more, and berth learns it late
	r.host.state = ""
	r.start()
	seq = r.want(srv("_z._tcp", 1))
	r.await("what is new", func() bool { return len(r.lines()) == 4 })
	r.host.setState("host3")
	r.await("the state to be settled", func() bool { return r.sink.Applied() >= seq })
	if n := len(r.lines()); n != 4 {
		t.Errorf("%d sets, want those of three hosts:\n%s", n, strings.Join(r.lines(), "\n"))
	}
}

// TestUnsettled wants nothing to be written before the host is certain.
func TestUnsettled(t *testing.T) {
	r := newRig(t)
	w := newWorker(r.open())
	if !w.open(t.Context()) {
		t.Fatal("not opened")
	}
	defer w.close()
	records := new(agent.Records)
	feed := records.Subscribe()
	defer feed.Close()
	node := r.host.Node()
	for _, n := range []agent.Node{{}, {ID: "host1"}, {Settled: true}} {
		records.Publish(agent.NewRecordSet(domain, n, []agent.Record{srv("_a._tcp", 1)}, false))
		w.turn(t.Context(), feed)
	}
	if calls := r.fake.Calls(); len(calls) != 0 || !w.wake.IsZero() {
		t.Errorf("calls = %v, wakes at %v, want neither", calls, w.wake)
	}
	records.Publish(agent.NewRecordSet(domain, node, []agent.Record{srv("_a._tcp", 1)}, false))
	w.turn(t.Context(), feed)
	if len(r.lines()) != 1 {
		t.Errorf("settled: %v", r.lines())
	}
}

// TestDenied tells a zone that may not be written from one name that may not.
func TestDenied(t *testing.T) {
	r := newRig(t)
	r.fake.Always(actionChange, fakeaws.Denied)
	r.timing.firstRetry, r.timing.firstDenied, r.timing.lastDenied = time.Hour, time.Hour, time.Hour
	r.start()
	r.want(services(64)...)
	r.await("the worker to give way", func() bool { return r.fake.Calls()[actionChange] >= 8 })
	r.stop()
	if n := r.fake.Calls()[actionChange]; n > 14 {
		t.Errorf("%d calls to find out that nothing is allowed", n)
	}
	r.fake.Heal()
	r.fake.ResetCalls()
	r.fake.Deny("_s005._tcp."+domain, "_s040._tcp."+domain)
	r.start()
	r.want(services(64)...)
	r.awaitCondition(condRefused, "_s005._tcp.svc.test. SRV (berth/v1/123456789012/eu-central-1/default/host1): AccessDenied")
	r.await("what is allowed", func() bool { return len(r.lines()) == 62 })
}

// TestSync follows a change to the name servers.
func TestSync(t *testing.T) {
	r := newRig(t)
	r.timing.sync = []time.Duration{time.Millisecond, 2 * time.Millisecond, 3 * time.Millisecond}
	metric := func(name string) float64 {
		for s := range r.sink.Metrics {
			if s.Name == "berth_route53_"+name {
				return s.Value
			}
		}
		t.Fatalf("no metric %s", name)
		return 0
	}
	r.fake.SetSync(2, 0)
	r.start()
	r.apply(srv("_a._tcp", 1))
	r.await("the change to be in sync", func() bool { return metric("insync_total") == 1 && metric("pending") == 0 })
	if n := r.fake.Calls()["GetChange"]; n != 2 {
		t.Errorf("asked %d times, want 2", n)
	}
	r.fake.SetSync(100, 0)
	r.apply(srv("_a._tcp", 2))
	r.await("the sink to stop asking", func() bool { return metric("insync_unknown_total") == 1 })
	if n := r.fake.Calls()["GetChange"]; n != 5 {
		t.Errorf("asked %d times, want 5", n)
	}
	r.fake.Always("GetChange", fakeaws.Denied)
	r.apply(srv("_a._tcp", 3))
	r.awaitCondition(condSync, "not allowed")
	r.apply(srv("_a._tcp", 4))
	if n := r.fake.Calls()["GetChange"]; n != 6 {
		t.Errorf("asked %d times, want 6", n)
	}
	if got := r.sink.Summary(); got != fmt.Sprintf("1 record sets in svc.test. (%s)", r.zone) {
		t.Errorf("summary = %q", got)
	}
}

// TestJournalTrouble wants nothing to be written that is not in the journal, and
// damaged state to be survived.
func TestJournalTrouble(t *testing.T) {
	r := newRig(t).start()
	r.apply(srv("_a._tcp", 1))
	r.stop()
	s := r.open()
	w := newWorker(s)
	if !w.open(t.Context()) {
		t.Fatal("not opened")
	}
	w.shaper = shaper{zone: w.ledger.Zone, mode: Multivalue, id: "x", node: "host1." + domain}
	w.close() // from now on each append fails
	r.fake.ResetCalls()
	err := w.change(t.Context(), r.zone, []unit{{key: key{Zone: r.zone, Name: "x." + domain, Type: "SRV", ID: "x"}, want: &value{Policy: Multivalue, Data: []string{"1 1 1 x."}}}})
	if !errors.Is(err, errJournal) || len(r.fake.Calls()) != 0 {
		t.Errorf("a change without a journal: %v, calls %v", err, r.fake.Calls())
	}
	path := filepath.Join(r.dir, "route53.journal")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, damage := range [][]byte{nil, []byte("rubbish"), data[:len(data)/2]} {
		if err := os.WriteFile(path, damage, 0o600); err != nil {
			t.Fatal(err)
		}
		r.start()
		r.apply(srv("_a._tcp", 2))
		r.apply(srv("_a._tcp", 1))
		r.stop()
		r.holds("_a._tcp.svc.test.|SRV|host1|multivalue|10|1 1 1 host1.svc.test.")
	}
}

// TestLargeJournal wants a long life to leave a small file.
func TestLargeJournal(t *testing.T) {
	r := newRig(t).start()
	for i := range 300 {
		r.apply(srv("_a._tcp", uint16(i)))
	}
	r.stop()
	info, err := os.Stat(filepath.Join(r.dir, "route53.journal"))
	if err != nil || info.Size() > 128<<10 {
		t.Errorf("journal: %v, %v", info.Size(), err)
	}
}
