package fakeaws

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/route53"
	"github.com/aws/aws-sdk-go-v2/service/route53/types"
	"github.com/aws/smithy-go"
)

// client returns the real client for a service.
func client(r *Route53) *route53.Client { return clientOf(r.URL()) }

func clientOf(url string) *route53.Client {
	return route53.New(route53.Options{
		Region: "us-east-1", BaseEndpoint: aws.String(url), Retryer: aws.NopRetryer{},
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "key", SecretAccessKey: "secret"}, nil
		}),
	})
}

func multi(name, id string, values ...string) types.ResourceRecordSet {
	s := simple(name, "SRV", values...)
	s.SetIdentifier, s.MultiValueAnswer = aws.String(id), aws.Bool(true)
	return s
}

func weighted(name, id string, ttl int64, values ...string) types.ResourceRecordSet {
	s := simple(name, "SRV", values...)
	s.SetIdentifier, s.Weight, s.TTL = aws.String(id), aws.Int64(1), aws.Int64(ttl)
	return s
}

func simple(name string, t types.RRType, values ...string) types.ResourceRecordSet {
	s := types.ResourceRecordSet{Name: aws.String(name), Type: t, TTL: aws.Int64(10)}
	for _, v := range values {
		s.ResourceRecords = append(s.ResourceRecords, types.ResourceRecord{Value: aws.String(v)})
	}
	return s
}

// many returns n different values of about so many characters.
func many(n, characters int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("1 1 %d h.", i)
		for len(out[i])+8 <= characters {
			out[i] += "abcdef."
		}
	}
	return out
}

// sends returns a function that sends one batch, which alternates actions and
// sets, and returns the error.
func sends(t *testing.T, r *Route53, zone string) func(changes ...any) error {
	return func(changes ...any) error {
		t.Helper()
		in := &route53.ChangeResourceRecordSetsInput{HostedZoneId: &zone, ChangeBatch: &types.ChangeBatch{}}
		for i := 0; i < len(changes); i += 2 {
			s := changes[i+1].(types.ResourceRecordSet)
			in.ChangeBatch.Changes = append(in.ChangeBatch.Changes, types.Change{Action: types.ChangeAction(changes[i].(string)), ResourceRecordSet: &s})
		}
		_, err := client(r).ChangeResourceRecordSets(t.Context(), in)
		return err
	}
}

// wants checks that an error says this, or that there is none.
func wants(t *testing.T, what string, err error, part string) {
	t.Helper()
	switch {
	case part == "" && err != nil:
		t.Errorf("%s: %v", what, err)
	case part != "" && (err == nil || !strings.Contains(err.Error(), part)):
		t.Errorf("%s: got %v, want %q", what, err, part)
	}
}

func TestRoute53_Changes(t *testing.T) {
	r := ServeRoute53(t)
	zone := r.AddZone(Zone{Name: "svc.test"})
	send := sends(t, r, zone)
	v := "1 1 80 h1.svc.test."
	for _, s := range []struct {
		what    string
		changes []any
		want    string
	}{
		{"create", []any{"CREATE", multi("_a._tcp.svc.test", "x", v)}, ""},
		{"create again", []any{"CREATE", multi("_a._tcp.svc.test.", "x", v)}, "set-identifier='x'] but it already exists"},
		{"atomic", []any{"CREATE", multi("_b._tcp.svc.test.", "x", v), "DELETE", multi("_none._tcp.svc.test.", "x", v)}, "but it was not found"},
		{"nothing was left of it", []any{"DELETE", multi("_b._tcp.svc.test.", "x", v)}, "but it was not found"},
		{"delete with another TTL", []any{"DELETE", func() types.ResourceRecordSet {
			s := multi("_a._tcp.svc.test", "x", v)
			s.TTL = aws.Int64(11)
			return s
		}()}, "do not match the current values"},
		{"upsert", []any{"UPSERT", multi("_a._tcp.svc.test", "x", v, "1 1 81 h1.svc.test.")}, ""},
		{"replace", []any{"DELETE", multi("_A._tcp.svc.test", "x", "1 1 81 h1.svc.test.", v), "CREATE", multi("_a._tcp.svc.test", "x", v)}, ""},
		{"simple beside multivalue", []any{"CREATE", simple("_a._tcp.svc.test", "SRV", v)}, "other RRSets exist with the same name and type"},
		{"weighted beside multivalue", []any{"CREATE", weighted("_a._tcp.svc.test", "y", 10, v)}, "non-weighted set exists"},
		{"weighted", []any{"CREATE", weighted("_w._tcp.svc.test", "y", 10, v)}, ""},
		{"weighted with another TTL", []any{"CREATE", weighted("_w._tcp.svc.test", "z", 20, v)}, "must contain the same TTL"},
		{"multivalue beside weighted", []any{"CREATE", multi("_w._tcp.svc.test", "x", v)}, "non multivalue answer rrset exists"},
		{"simple", []any{"CREATE", simple("h1.svc.test", "A", "192.0.2.1")}, ""},
		{"multivalue beside simple", []any{"CREATE", func() types.ResourceRecordSet {
			s := multi("h1.svc.test", "x", "192.0.2.2")
			s.Type = "A"
			return s
		}()}, "non multivalue answer rrset exists"},
		{"CNAME beside others", []any{"CREATE", simple("h1.svc.test", "CNAME", "x.test.")}, "conflicts with other records"},
		{"outside of the zone", []any{"CREATE", simple("h1.xsvc.test", "A", "192.0.2.1")}, "is not permitted in zone svc.test."},
		{"bad SRV fields", []any{"CREATE", simple("s.svc.test", "SRV", "1 1 h.")}, "must have four fields"},
		{"bad SRV port", []any{"CREATE", simple("s.svc.test", "SRV", "1 1 65536 h.")}, "0 to 65535"},
		{"bad SRV target", []any{"CREATE", simple("s.svc.test", "SRV", "1 1 1 a..b.")}, "label is empty"},
		{"bad address", []any{"CREATE", simple("s.svc.test", "A", "192.0.2.256")}, "not a valid IPv4"},
		{"bad v6 address", []any{"CREATE", simple("s.svc.test", "AAAA", "192.0.2.1")}, "not a valid IPv6"},
		{"double value", []any{"CREATE", simple("s.svc.test", "A", "192.0.2.1", "192.0.2.1")}, "Duplicate"},
		{"space in a name", []any{"CREATE", simple("a b.svc.test", "A", "192.0.2.1")}, "UnsupportedCharacter"},
		{"long label", []any{"CREATE", simple(strings.Repeat("a", 64)+".svc.test", "A", "192.0.2.1")}, "too long"},
		{"long identifier", []any{"CREATE", multi("_l._tcp.svc.test", strings.Repeat("i", 129), v)}, "SetIdentifier"},
		{"longest identifier", []any{"CREATE", multi("_l._tcp.svc.test", strings.Repeat("i", 128), v)}, ""},
		{"identifier without policy", []any{"CREATE", func() types.ResourceRecordSet {
			s := simple("s.svc.test", "A", "192.0.2.1")
			s.SetIdentifier = aws.String("x")
			return s
		}()}, "SetIdentifier if and only if"},
		{"400 values", []any{"CREATE", multi("_v._tcp.svc.test", "x", many(400, 0)...)}, ""},
		{"401 values", []any{"UPSERT", multi("_v._tcp.svc.test", "x", many(401, 0)...)}, "more than 400"},
		{"1001 elements", []any{"CREATE", simple("a.svc.test", "SRV", many(400, 0)...), "CREATE", simple("b.svc.test", "SRV", many(400, 0)...), "CREATE", simple("c.svc.test", "SRV", many(201, 0)...)}, "records limit of 1000"},
		{"1000 elements", []any{"CREATE", simple("a.svc.test", "SRV", many(400, 0)...), "CREATE", simple("b.svc.test", "SRV", many(400, 0)...), "CREATE", simple("c.svc.test", "SRV", many(200, 0)...)}, ""},
		{"501 upserted", []any{"UPSERT", simple("a.svc.test", "SRV", many(400, 0)...), "UPSERT", simple("b.svc.test", "SRV", many(101, 0)...)}, "records limit of 1000"},
		{"too many characters", []any{"UPSERT", simple("a.svc.test", "SRV", many(200, 90)...)}, "characters limit of 32000"},
		{"half as many", []any{"UPSERT", simple("a.svc.test", "SRV", many(100, 90)...)}, ""},
	} {
		wants(t, s.what, send(s.changes...), s.want)
	}
	writes := r.Writes(zone)
	if writes["y"] != 1 || writes["x"] != 5 {
		t.Errorf("writes = %v, want 1 of y and 5 of x", writes)
	}
}

func TestRoute53_SetLimit(t *testing.T) {
	r := ServeRoute53(t)
	zone := r.AddZone(Zone{Name: "svc.test"})
	send := sends(t, r, zone)
	for i := range 100 {
		r.Put(zone, RRSet{Name: "_a._tcp.svc.test.", Type: "SRV", SetIdentifier: fmt.Sprint(i), MultiValue: true, TTL: 10, Values: []string{"1 1 1 h."}})
	}
	wants(t, "101st", send("CREATE", multi("_a._tcp.svc.test", "x", "1 1 1 h.")), "Exceeded limit")
	wants(t, "one of the 100", send("UPSERT", multi("_a._tcp.svc.test", "7", "1 1 2 h.")), "")
	r.SetLimits(Limits{Sets: 100, Values: 400, ZoneSets: len(r.Sets(zone)) + 2})
	wants(t, "full zone", send("CREATE", simple("a.svc.test", "A", "192.0.2.1")), "Exceeded limit")
	r.ListErrors(true)
	var invalid *types.InvalidChangeBatch
	if err := send("CREATE", simple("a.svc.test", "A", "192.0.2.1")); !errors.As(err, &invalid) || len(invalid.Messages) != 1 {
		t.Errorf("error as a list: %v", err)
	}
}

func TestRoute53_Paging(t *testing.T) {
	r := ServeRoute53(t)
	zone := r.AddZone(Zone{Name: "svc.test"})
	for i := range 7 {
		r.Put(zone, RRSet{Name: "_a._tcp.svc.test.", Type: "SRV", SetIdentifier: fmt.Sprint(i), MultiValue: true, TTL: 10, Values: []string{"1 1 1 h."}})
	}
	r.Put(zone, RRSet{Name: "*.svc.test.", Type: "A", TTL: 10, Values: []string{"192.0.2.1"}})
	c := client(r)
	var got []string
	in := &route53.ListResourceRecordSetsInput{HostedZoneId: &zone, MaxItems: aws.Int32(2)}
	for pages := 0; ; pages++ {
		out, err := c.ListResourceRecordSets(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range out.ResourceRecordSets {
			got = append(got, aws.ToString(s.Name)+" "+string(s.Type)+" "+aws.ToString(s.SetIdentifier))
		}
		if !out.IsTruncated {
			if pages != 4 {
				t.Errorf("%d pages, want 5", pages+1)
			}
			break
		}
		in.StartRecordName, in.StartRecordType, in.StartRecordIdentifier = out.NextRecordName, out.NextRecordType, out.NextRecordIdentifier
	}
	want := []string{"svc.test. NS ", "svc.test. SOA ", `\052.svc.test. A `}
	for i := range 7 {
		want = append(want, fmt.Sprintf("_a._tcp.svc.test. SRV %d", i))
	}
	if !slices.Equal(got, want) {
		t.Errorf("got:\n%q\nwant:\n%q", got, want)
	}
	out, err := c.ListResourceRecordSets(t.Context(), &route53.ListResourceRecordSetsInput{
		HostedZoneId: &zone, StartRecordName: aws.String("_a._tcp.svc.test"), StartRecordType: "SRV", StartRecordIdentifier: aws.String("4"), MaxItems: aws.Int32(1),
	})
	if err != nil || len(out.ResourceRecordSets) != 1 || aws.ToString(out.ResourceRecordSets[0].SetIdentifier) != "4" {
		t.Errorf("from one set on: %+v, %v", out, err)
	}
	_, err = c.ListResourceRecordSets(t.Context(), &route53.ListResourceRecordSetsInput{HostedZoneId: &zone, StartRecordType: "SRV"})
	wants(t, "type without name", err, "InvalidInput")
}

func TestRoute53_Zones(t *testing.T) {
	r := ServeRoute53(t)
	public := r.AddZone(Zone{Name: "svc.test"})
	private := r.AddZone(Zone{Name: "svc.test", Private: true, VPCs: []string{"vpc-1"}})
	r.AddZone(Zone{Name: "a.svc.test"})
	r.AddZone(Zone{Name: "zzz.example"})
	c := client(r)
	out, err := c.ListHostedZonesByName(t.Context(), &route53.ListHostedZonesByNameInput{DNSName: aws.String("svc.test"), MaxItems: aws.Int32(2)})
	if err != nil || len(out.HostedZones) != 2 || !out.IsTruncated {
		t.Fatalf("zones by name: %+v, %v", out, err)
	}
	for i, id := range []string{public, private} {
		if got := aws.ToString(out.HostedZones[i].Id); got != "/hostedzone/"+id {
			t.Errorf("zone %d is %s, want %s", i, got, id)
		}
	}
	got, err := c.GetHostedZone(t.Context(), &route53.GetHostedZoneInput{Id: &private})
	if err != nil || !got.HostedZone.Config.PrivateZone || len(got.VPCs) != 1 || aws.ToString(got.VPCs[0].VPCId) != "vpc-1" {
		t.Errorf("zone: %+v, %v", got, err)
	}
	_, err = c.GetHostedZone(t.Context(), &route53.GetHostedZoneInput{Id: aws.String("ZNONE")})
	wants(t, "no zone", err, "NoSuchHostedZone")
}

func TestRoute53_Faults(t *testing.T) {
	r := ServeRoute53(t)
	zone := r.AddZone(Zone{Name: "svc.test"})
	send := sends(t, r, zone)
	put := func() error { return send("UPSERT", simple("a.svc.test", "A", "192.0.2.1")) }
	r.Inject("ChangeResourceRecordSets", Throttled, PriorRequest, Internal, Denied, CutBefore)
	for _, want := range []string{"Rate exceeded", "PriorRequestNotComplete", "InternalError", "AccessDenied", "EOF"} {
		wants(t, want, put(), want)
	}
	if n := len(r.Sets(zone)); n != 0 {
		t.Errorf("%d sets after nothing but failures", n)
	}
	r.Inject("ChangeResourceRecordSets", CutAfter)
	wants(t, "cut after", put(), "EOF")
	if n := len(r.Sets(zone)); n != 1 {
		t.Errorf("%d sets after a change without answer, want 1", n)
	}
	r.SetBusy(time.Hour)
	wants(t, "not busy", put(), "")
	wants(t, "busy", put(), "PriorRequestNotComplete")
	if r.Failures() != 7 || r.Calls()["ChangeResourceRecordSets"] != 8 {
		t.Errorf("%d failures, calls %v, want 7 of 8", r.Failures(), r.Calls())
	}
}

func TestRoute53_Observe(t *testing.T) {
	r := ServeRoute53(t)
	zone := r.AddZone(Zone{Name: "svc.test"})
	send := sends(t, r, zone)
	var seen []Arrival
	r.Observe(func(a Arrival) { seen = append(seen, a) })
	began := time.Now()
	wants(t, "two", send("CREATE", simple("a.svc.test.", "A", "192.0.2.1"), "CREATE", multi("_a._tcp.svc.test.", "x", "1 1 80 h.")), "")
	wants(t, "refused", send("DELETE", simple("b.svc.test.", "A", "192.0.2.1")), "not found")
	r.Observe(nil)
	want := [][]string{{"CREATE a.svc.test. A", "CREATE _a._tcp.svc.test. SRV"}, {"DELETE b.svc.test. A"}}
	if len(seen) != 2 || !slices.Equal(seen[0].Changes, want[0]) || !slices.Equal(seen[1].Changes, want[1]) {
		t.Fatalf("got %+v, want %q", seen, want)
	}
	if at := seen[1].At; at.Before(began) || at.After(time.Now()) || at.Before(seen[0].At) {
		t.Errorf("the second was seen at %v, after %v", at, seen[0].At)
	}
}

func TestRoute53_Rates(t *testing.T) {
	r := ServeRoute53(t)
	zone := r.AddZone(Zone{Name: "svc.test"})
	send := sends(t, r, zone)
	l := DefaultLimits()
	l.CallRate, l.CallBurst = 1e-9, 2
	r.SetLimits(l)
	one := []any{"UPSERT", simple("a.svc.test", "A", "192.0.2.1")}
	wants(t, "first call", send(one...), "")
	wants(t, "second call", send(one...), "")
	wants(t, "third call", send(one...), "Throttling")
	l = DefaultLimits()
	l.ChangeRate, l.ChangeBurst = 1e-9, 3
	r.SetLimits(l)
	wants(t, "two changes", send(append(one, one...)...), "")
	wants(t, "two more", send(append(one, one...)...), "Rate exceeded")
	wants(t, "one more", send(one...), "")
	b := bucket{}
	now := time.Now()
	b.take(5, 10, 5, now)
	if b.take(2, 10, 5, now.Add(100*time.Millisecond)) || !b.take(2, 10, 5, now.Add(201*time.Millisecond)) {
		t.Errorf("a bucket of 10 a second does not fill as it should: %+v", b)
	}
}

func TestRoute53_InSync(t *testing.T) {
	r := ServeRoute53(t)
	zone := r.AddZone(Zone{Name: "svc.test"})
	r.SetSync(3, 0)
	c := client(r)
	s := simple("a.svc.test", "A", "192.0.2.1")
	out, err := c.ChangeResourceRecordSets(t.Context(), &route53.ChangeResourceRecordSetsInput{
		HostedZoneId: &zone, ChangeBatch: &types.ChangeBatch{Changes: []types.Change{{Action: "CREATE", ResourceRecordSet: &s}}},
	})
	if err != nil || out.ChangeInfo.Status != types.ChangeStatusPending {
		t.Fatalf("change: %+v, %v", out, err)
	}
	for _, want := range []types.ChangeStatus{"PENDING", "PENDING", "INSYNC"} {
		got, err := c.GetChange(t.Context(), &route53.GetChangeInput{Id: out.ChangeInfo.Id})
		if err != nil || got.ChangeInfo.Status != want {
			t.Errorf("status %v, %v, want %s", got, err, want)
		}
	}
}

func TestRoute53_Unsigned(t *testing.T) {
	r := ServeRoute53(t)
	if status, body := request(t, "GET", r.URL()+"/2013-04-01/hostedzonesbyname"); status != 403 || !strings.Contains(body, "MissingAuthenticationToken") {
		t.Errorf("unsigned: %d %s", status, body)
	}
	var api smithy.APIError
	_, err := client(r).GetChange(t.Context(), &route53.GetChangeInput{Id: aws.String("C1")})
	if !errors.As(err, &api) || api.ErrorCode() != "NoSuchChange" {
		t.Errorf("unknown change: %v", err)
	}
}
