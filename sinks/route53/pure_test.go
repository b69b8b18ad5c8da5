package route53

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestIdentity(t *testing.T) {
	me := newIdentity(nodeOf("host1"), "default")
	if got, want := me.String(), "berth/v1/123456789012/eu-central-1/default/host1"; got != want {
		t.Errorf("identity = %q, want %q", got, want)
	}
	elsewhere := nodeOf("host1")
	elsewhere.Account, elsewhere.Region = "", ""
	if got, want := newIdentity(elsewhere, "c").String(), "berth/v1/-/-/c/host1"; got != want {
		t.Errorf("identity without a cloud = %q, want %q", got, want)
	}
	long := newIdentity(nodeOf("host1"), strings.Repeat("c", 100))
	longer := newIdentity(nodeOf("host10"), strings.Repeat("c", 100))
	for _, id := range []identity{me, long, longer} {
		s := id.String()
		if len(s) > 128 {
			t.Errorf("%q has %d characters", s, len(s))
		}
		if !id.owns(s) || id.owns(s+"0") || id.owns(s[:len(s)-1]) || id.owns(strings.ToUpper(s)) {
			t.Errorf("%q owns what is not its own, or not itself", s)
		}
	}
	if long.String() == longer.String() || me.owns(long.String()) || long.owns(me.String()) {
		t.Error("different hosts have one identity")
	}
	for _, s := range []string{"", "host1", "berth/v1/", "berth/v1/a/b/c", "berth/v1/a/b/c/d/e", "berth/v1/a//c/d", "berth/v2/a/b/c/d", "berth/v1/#xyz", "berth/v1/#00"} {
		if id, ok := parseIdentity(s); ok {
			t.Errorf("%q parses as %+v", s, id)
		}
	}
}

func TestNames(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "a.B": "a.b.", "a.b.": "a.b.", `\052.a.`: "*.a.", `\05`: `\05.`, `\999.a`: `\999.a.`,
	} {
		if got := cmpName(in); got != want {
			t.Errorf("cmpName(%q) = %q, want %q", in, got, want)
		}
	}
	if !within("a.b.", "b.") || !within("b.", "b.") || within("ab.", "b.") {
		t.Error("within is wrong")
	}
	s := shaper{node: "host1.svc.test."}
	if !s.own("host1.svc.test.") || !s.own("x.host1.svc.test.") || s.own("host10.svc.test.") || s.own("xhost1.svc.test.") || (shaper{}).own("a.") {
		t.Error("own is wrong")
	}
}

func TestConfig(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("default: %v", err)
	}
	for field, change := range map[string]func(*Config){
		"zone_id":            func(c *Config) { c.ZoneID = "z 1" },
		"zone_name":          func(c *Config) { c.ZoneID, c.ZoneName = "Z1", "svc.test" },
		"vpc_id":             func(c *Config) { c.VPCID = "vpc-1" },
		"mode":               func(c *Config) { c.Mode = "latency" },
		"cluster":            func(c *Config) { c.Cluster = "a/b" },
		"calls_per_second":   func(c *Config) { c.CallsPerSecond = 0 },
		"changes_per_second": func(c *Config) { c.ChangesPerSecond = -1 },
	} {
		c := DefaultConfig()
		change(&c)
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), field+": ") {
			t.Errorf("bad %s: %v", field, err)
		}
	}
}

// TestLedger wants the ledger of a checkpoint and of its entries to be the same,
// in doubt too.
func TestLedger(t *testing.T) {
	k, other := key{"Z", "a.", "SRV", "x"}, key{"Z", "b.", "A", ""}
	v1, v2 := &value{Policy: Multivalue, TTL: 1, Data: []string{"1"}}, &value{Policy: Weighted, TTL: 2, Weight: 3, Data: []string{"2"}}
	at := func(op operation, k key, v *value) record { return record{Op: op, Sets: []setRecord{{k, v}}} }
	l := newLedger()
	for _, tc := range []struct {
		r    record
		want *entry // of k
	}{
		{at(opIntent, k, v1), &entry{Unsure: true, Next: v1}},
		{at(opVoid, k, v1), nil},
		{at(opIntent, k, v1), &entry{Unsure: true, Next: v1}},
		{at(opIntent, other, v1), &entry{Unsure: true, Next: v1}},
		{at(opDone, k, v1), &entry{Have: v1}},
		{at(opIntent, k, v2), &entry{Have: v1, Unsure: true, Next: v2}},
		{at(opVoid, k, v2), &entry{Have: v1}},
		{at(opIntent, k, v2), &entry{Have: v1, Unsure: true, Next: v2}},
		{at(opIntent, k, nil), &entry{Have: v1, Unsure: true, Doubt: true}},
		{at(opVoid, k, nil), &entry{Have: v1, Unsure: true, Doubt: true}},
		{at(opFound, k, v2), &entry{Have: v2}},
		{at(opIntent, k, nil), &entry{Have: v2, Unsure: true}},
		{at(opDone, k, nil), nil},
		{at(opFound, k, v1), &entry{Have: v1}},
		{at(opForget, k, nil), nil},
		{record{Op: opZone, Zone: hostedZone{"Z", "z.", "s"}}, nil},
		{record{Op: opAdopted}, nil},
	} {
		l.apply(tc.r)
		if !reflect.DeepEqual(l.Sets[k], tc.want) {
			t.Errorf("after %+v: %+v, want %+v", tc.r, l.Sets[k], tc.want)
		}
		again, err := replay(l.encode(), nil)
		if err != nil || !reflect.DeepEqual(again, l) {
			t.Errorf("after %+v: the checkpoint holds %+v, %v", tc.r, again, err)
		}
	}
	if l.Zone.ID != "Z" || !l.Adopted || len(l.Sets) != 1 {
		t.Errorf("ledger = %+v", l)
	}
	for _, bad := range []string{"{", `{"version":9}`} {
		if _, err := replay([]byte(bad), nil); err == nil {
			t.Errorf("%s is read as a checkpoint", bad)
		}
	}
}

func TestBucket(t *testing.T) {
	b := newBucket(10)
	now := time.Now()
	if d := b.wait(now); d != 0 {
		t.Errorf("a full bucket waits %v", d)
	}
	b.take(20) // ten of them on credit
	if d := b.wait(now); d != 1100*time.Millisecond {
		t.Errorf("waits %v for 11 tokens of 10 a second, want 1.1s", d)
	}
	if d := b.wait(now.Add(1100 * time.Millisecond)); d != 0 {
		t.Errorf("still waits %v", d)
	}
	b.wait(now.Add(time.Hour))
	if b.tokens != 10 {
		t.Errorf("%v tokens after an hour, want 10", b.tokens)
	}
}
