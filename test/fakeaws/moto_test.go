package fakeaws

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/route53"
	"github.com/aws/aws-sdk-go-v2/service/route53/types"
	"github.com/aws/smithy-go"
	"github.com/google/go-cmp/cmp"
)

// startMoto starts moto's server, which ends with the test, and returns its URL.
// It is nothing that berth's tests install: where it is not there, the test says
// so and is skipped.
func startMoto(t *testing.T) string {
	t.Helper()
	binary, err := exec.LookPath("moto_server")
	if err != nil {
		t.Skip("NOT RUN: the fake is not held against moto, because moto_server is not installed (pip install 'moto[server]')")
	}
	cmd := exec.Command(binary, "-H", "127.0.0.1", "-p", "0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	url := make(chan string, 1)
	var said strings.Builder
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(url)
		running := regexp.MustCompile(`Running on (http://127\.0\.0\.1:\d+)`)
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			fmt.Fprintln(&said, lines.Text())
			if m := running.FindStringSubmatch(lines.Text()); m != nil {
				url <- m[1]
				break
			}
		}
		_, _ = io.Copy(io.Discard, stderr) // until its end
	})
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		reading.Wait()
		_ = cmd.Wait() // it was killed
	})
	select {
	case u, ok := <-url:
		if !ok {
			t.Fatalf("moto has ended by itself:\n%s", said.String())
		}
		return u
	case <-time.After(2 * time.Minute):
		t.Fatal("moto does not start")
		return ""
	}
}

// TestRoute53_AsMoto holds the fake against moto, a fake of other people, where
// all goes well: one sequence of calls by the real client, and what is answered.
//
// What is not compared, because moto 5.2 is wrong there: it lets CREATE replace a
// set, lets DELETE remove a SetIdentifier under every name and without a look at
// the values, knows no PENDING, and lists the sets of one name in the order of
// their creation. Nor are quotas, of which it has few.
func TestRoute53_AsMoto(t *testing.T) {
	url := startMoto(t)
	theirs := clientOf(url)
	made, err := theirs.CreateHostedZone(t.Context(), &route53.CreateHostedZoneInput{Name: aws.String("svc.test"), CallerReference: aws.String("once")})
	if err != nil {
		t.Fatal(err)
	}
	r := ServeRoute53(t)
	ours := r.AddZone(Zone{Name: "svc.test"})

	want := transcript(t, theirs, strings.TrimPrefix(aws.ToString(made.HostedZone.Id), "/hostedzone/"))
	got := transcript(t, client(r), ours)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("moto (-) and the fake (+) answer differently:\n%s", diff)
	}
	if len(got) < 20 {
		t.Errorf("only %d answers were compared", len(got))
	}
}

// transcript makes the calls, and returns what was answered, without what
// differs from one service to the next: IDs, times, and the name servers.
func transcript(t *testing.T, c *route53.Client, zone string) (out []string) {
	t.Helper()
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	list := func(in route53.ListResourceRecordSetsInput) {
		in.HostedZoneId = &zone
		got, err := c.ListResourceRecordSets(t.Context(), &in)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range got.ResourceRecordSets {
			say("  %s", line(s))
		}
		say("  truncated: %t, next: %q %q %q", got.IsTruncated, aws.ToString(got.NextRecordName), got.NextRecordType, aws.ToString(got.NextRecordIdentifier))
	}
	change := func(changes ...any) {
		in := &route53.ChangeResourceRecordSetsInput{HostedZoneId: &zone, ChangeBatch: &types.ChangeBatch{}}
		for i := 0; i < len(changes); i += 2 {
			s := changes[i+1].(types.ResourceRecordSet)
			in.ChangeBatch.Changes = append(in.ChangeBatch.Changes, types.Change{Action: types.ChangeAction(changes[i].(string)), ResourceRecordSet: &s})
		}
		got, err := c.ChangeResourceRecordSets(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(aws.ToString(got.ChangeInfo.Id), "/change/C") || got.ChangeInfo.SubmittedAt == nil {
			t.Errorf("change: %+v", got.ChangeInfo)
		}
		asked, err := c.GetChange(t.Context(), &route53.GetChangeInput{Id: got.ChangeInfo.Id})
		if err != nil {
			t.Fatal(err)
		}
		say("changed %d: %s; zone:", len(in.ChangeBatch.Changes), asked.ChangeInfo.Status)
		list(route53.ListResourceRecordSetsInput{})
	}

	zones, err := c.ListHostedZonesByName(t.Context(), &route53.ListHostedZonesByNameInput{DNSName: aws.String("svc.test")})
	if err != nil {
		t.Fatal(err)
	}
	for _, z := range zones.HostedZones {
		say("zone %s, private: %t, ID as made: %t", aws.ToString(z.Name), z.Config.PrivateZone, aws.ToString(z.Id) == "/hostedzone/"+zone)
	}
	got, err := c.GetHostedZone(t.Context(), &route53.GetHostedZoneInput{Id: &zone})
	if err != nil {
		t.Fatal(err)
	}
	say("zone %s, private: %t", aws.ToString(got.HostedZone.Name), got.HostedZone.Config.PrivateZone)

	one, two := "1 1 80 h1.svc.test.", "1 1 81 h1.svc.test."
	change("UPSERT", multi("_a._tcp.svc.test", "h1", one), "UPSERT", simple("h1.svc.test", "A", "192.0.2.1"))
	change("UPSERT", multi("_a._tcp.svc.test", "h2", "1 1 80 h2.svc.test."), "CREATE", simple("h1.svc.test", "AAAA", "2001:db8::1"))
	change("UPSERT", multi("_a._tcp.svc.test", "h1", one, two))
	change("UPSERT", weighted("_w._tcp.svc.test", "w1", 10, one), "UPSERT", weighted("_w._tcp.svc.test", "w2", 10, two))
	heavier := weighted("_w._tcp.svc.test", "w1", 10, one)
	heavier.Weight = aws.Int64(7)
	change("UPSERT", heavier)
	say("from a name on, two at a time:")
	list(route53.ListResourceRecordSetsInput{StartRecordName: aws.String("_w._tcp.svc.test"), StartRecordType: "SRV", MaxItems: aws.Int32(2)})
	say("the last one:")
	list(route53.ListResourceRecordSetsInput{StartRecordName: aws.String("h1.svc.test"), StartRecordType: "AAAA", MaxItems: aws.Int32(1)})
	change("DELETE", multi("_a._tcp.svc.test", "h2", "1 1 80 h2.svc.test."), "CREATE", multi("_a._tcp.svc.test", "h2", "1 1 82 h2.svc.test."))
	change("DELETE", multi("_a._tcp.svc.test", "h1", one, two), "DELETE", heavier)
	change("DELETE", multi("_a._tcp.svc.test", "h2", "1 1 82 h2.svc.test."), "DELETE", weighted("_w._tcp.svc.test", "w2", 10, two),
		"DELETE", simple("h1.svc.test", "A", "192.0.2.1"), "DELETE", simple("h1.svc.test", "AAAA", "2001:db8::1"))

	_, err = c.GetHostedZone(t.Context(), &route53.GetHostedZoneInput{Id: aws.String("ZNONE")})
	say("no such zone: %s", code(err))
	lost := simple("lost.svc.test", "SRV", one)
	_, err = c.ChangeResourceRecordSets(t.Context(), &route53.ChangeResourceRecordSetsInput{HostedZoneId: aws.String("ZNONE"), ChangeBatch: &types.ChangeBatch{
		Changes: []types.Change{{Action: "UPSERT", ResourceRecordSet: &lost}},
	}})
	say("a change of no zone: %s", code(err))
	return out
}

// line returns a set in one line, with its values sorted. Those of the zone's own
// sets are left out.
func line(s types.ResourceRecordSet) string {
	var values []string
	for _, v := range s.ResourceRecords {
		values = append(values, aws.ToString(v.Value))
	}
	slices.Sort(values)
	if s.Type == "NS" || s.Type == "SOA" {
		return fmt.Sprintf("%s %s", aws.ToString(s.Name), s.Type)
	}
	return fmt.Sprintf("%s %s id %q weight %v multivalue %v ttl %d %q", aws.ToString(s.Name), s.Type, aws.ToString(s.SetIdentifier),
		aws.ToInt64(s.Weight), aws.ToBool(s.MultiValueAnswer), aws.ToInt64(s.TTL), values)
}

// code returns the code of an error of the API.
func code(err error) string {
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		return fmt.Sprint(err)
	}
	return api.ErrorCode()
}
