package cloudwatch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/retry"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/config"
	"github.com/berthd/berth/test/fakeaws"
)

func TestWrite(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Tags = []string{"env:prod", "url:http://x"} })
	r.write(
		gauge("berth_component_up", 1, "component", "a"),
		gauge("berth_component_up", 0, "component", "b"),
		gauge("other_metric", 1),
		gauge("berth_x_seconds", 0.25, "component", "", "zone", "z"),
		gauge("berth_x_bytes", 1e9),
		gauge("berth_ratio", 0.5),
		gauge("berth_odd", 1, "component", "grün\n"),
		counter("berth_c_total", 100),
	)
	r.write(counter("berth_c_total", 103.5), counter("berth_new_seconds_total", 2), counter("berth_new_bytes_total", 3))
	const tags = "env=prod,url=http://x"
	want := []fakeaws.Datum{
		one("berth_component_up", "component=a,"+tags, "None", 1),
		one("berth_component_up", "component=b,"+tags, "None", 0),
		one("berth_x_seconds", tags, "Seconds", 0.25),
		one("berth_x_bytes", tags, "Bytes", 1e9),
		one("berth_ratio", tags, "None", 0.5),
		one("berth_odd", "component=gr?n?,"+tags, "None", 1),
		one("berth_c_total", tags, "Count", 3.5),
		one("berth_new_seconds_total", tags, "Seconds", 2),
		one("berth_new_bytes_total", tags, "Bytes", 3),
	}
	if got := r.got(); !reflect.DeepEqual(got, want) {
		t.Errorf("got:\n%+v\nwant:\n%+v", got, want)
	}
	for _, d := range r.fake.Data() {
		if age := time.Since(d.Time); age < 0 || age > 2*time.Minute {
			t.Errorf("%s is from %v ago", d.Name, age)
		}
	}
	if n := r.figure("berth_cloudwatch_samples_total"); n != 9 {
		t.Errorf("%v samples were sent by our own count, want 9", n)
	}
	if got, want := r.sink.Summary(), "9 samples sent to berth in eu-central-1, 9 series"; got != want {
		t.Errorf("summary %q, want %q", got, want)
	}
	r.calm()
}

// Labels that are no dimensions do not cost anything: what differs in them is one
// data point.
func TestWrite_PutsTogether(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Dimensions = nil })
	r.write(counter("berth_c_total", 1, "k", "a"), counter("berth_c_total", 5, "k", "b"))
	r.write(
		counter("berth_c_total", 4, "k", "a"), counter("berth_c_total", 6, "k", "b"), // 3 and 1
		gauge("berth_g", 2, "k", "a"), gauge("berth_g", 7, "k", "b"), gauge("berth_g", -1, "k", "c"),
	)
	want := []fakeaws.Datum{
		one("berth_c_total", "", "Count", 4),
		{Namespace: "berth", Name: "berth_g", Unit: "None", Count: 3, Sum: 8, Min: -1, Max: 7, Resolution: 60},
	}
	if got := r.got(); !reflect.DeepEqual(got, want) {
		t.Errorf("got:\n%+v\nwant:\n%+v", got, want)
	}
}

func TestWrite_Host(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Dimensions = []string{"host", "instance_type", "zone"} })
	settled := r.host.Node()
	r.host.set(agent.Node{Region: "eu-central-1"})
	r.write(gauge("berth_g", 1), gauge("other", 1))
	if n := len(r.got()); n != 0 || r.lost("waiting") != 1 {
		t.Errorf("%d data points before the host is known, %v lost by our own count, want 0 and 1", n, r.lost("waiting"))
	}
	r.host.set(settled)
	r.write(gauge("berth_g", 1), gauge("berth_h", 1, "host", "other"))
	want := []fakeaws.Datum{
		one("berth_g", "host=i-1,instance_type=m7g.large,zone=eu-central-1a", "None", 1),
		one("berth_h", "host=other,instance_type=m7g.large,zone=eu-central-1a", "None", 1),
	}
	if got := r.got(); !reflect.DeepEqual(got, want) {
		t.Errorf("got:\n%+v\nwant:\n%+v", got, want)
	}
}

// One bad sample costs that sample, and is counted.
func TestWrite_BadSamples(t *testing.T) {
	r := newRig(t)
	old, future, fine := gauge("berth_old", 1), gauge("berth_future", 1), gauge("berth_fine", 1)
	old.Time, future.Time, fine.Time = time.Now().Add(-15*24*time.Hour), time.Now().Add(3*time.Hour), time.Now().Add(-time.Hour)
	r.write(counter("berth_c_total", 1))
	r.write(
		gauge("berth_nan", math.NaN()), gauge("berth_inf", math.Inf(1)), gauge("berth_big", 1e109), counter("berth_c_total", -1),
		old, future, fine, gauge("berth_"+strings.Repeat("x", 250), 1),
		gauge("berth_tiny", 1e-200), gauge("berth_long", 1, "component", strings.Repeat("x", 2000)),
		gauge("berth_sum", 2e108, "k", "a"), gauge("berth_sum", 2e108, "k", "b"),
	)
	var names []string
	for _, d := range r.got() {
		names = append(names, fmt.Sprint(d.Name, " ", d.Sum, " ", len(d.Dimensions)))
	}
	want := []string{"berth_fine 1 0", "berth_tiny 0 0", "berth_long 1 1034"}
	if !slices.Equal(names, want) {
		t.Errorf("got %q, want %q", names, want)
	}
	if n, m, k := r.lost("number"), r.lost("time"), r.lost("name"); n != 6 || m != 2 || k != 1 {
		t.Errorf("lost %v for their numbers, %v for their times, %v for their names, want 6, 2, 1", n, m, k)
	}
	r.calm()
}

// However many samples there are, requests are within the limits.
func TestWrite_Batches(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxSeries = 5000; c.Dimensions = []string{"a", "b", "c"} })
	var small, large []agent.Sample
	for i := range 2500 {
		small = append(small, gauge(fmt.Sprint("berth_", i), 1))
	}
	for i := range 700 {
		x := strings.Repeat("x", 1000)
		large = append(large, gauge("berth_large", float64(i), "a", x, "b", x, "c", fmt.Sprint(i)))
	}
	r.write(small...)
	if got := r.fake.BatchSizes(); !slices.Equal(got, []int{1000, 1000, 500}) {
		t.Errorf("batches %v, want 1000, 1000, 500", got)
	}
	r.write(large...)
	sizes, bodies := r.fake.BatchSizes()[3:], r.fake.BodySizes()[3:]
	if len(sizes) != 2 || sizes[0]+sizes[1] != 700 || bodies[0] < maxBytes*8/10 || bodies[0] > maxBytes {
		t.Errorf("large samples went out in %v of %v bytes, want two requests, the first of nearly %d", sizes, bodies, maxBytes)
	}
	if r.fake.Gzipped() != 5 {
		t.Errorf("%d of 5 requests were compressed", r.fake.Gzipped())
	}
	r.calm()
}

// The estimate of a data point's size is from above, and not far off.
func TestSizeIsFromAbove(t *testing.T) {
	pad := func(s string, length int) string { return s + strings.Repeat("x", max(0, length-len(s))) }
	for _, n := range []int{0, 1, 30} {
		for _, length := range []int{1, 20, 255} {
			r := newRig(t, func(c *Config) { c.MaxSeries = 5000; c.Dimensions = nil })
			var samples []agent.Sample
			for d := range n {
				r.sink.cfg.Dimensions = append(r.sink.cfg.Dimensions, pad(fmt.Sprint("d", d), length))
			}
			for i := range 100 {
				for k := range 2 { // statistics are larger than values
					s := gauge(pad(fmt.Sprint("berth_", i), length), 1/3.0+float64(i), "k", fmt.Sprint(k))
					for _, d := range r.sink.cfg.Dimensions {
						s.Labels = append(s.Labels, agent.Label{Name: d, Value: strings.Repeat("v", length)})
					}
					samples = append(samples, s)
				}
			}
			estimate := 0
			for _, g := range new(totals).assemble(samples, r.sink.shape(agent.Node{}), time.Now()).groups {
				estimate += g.size()
			}
			r.write(samples...)
			real := 0
			for _, b := range r.fake.BodySizes() {
				real += b
			}
			if real > estimate || estimate > real*5/2+100*100 {
				t.Errorf("%d dimensions of %d characters: %d bytes, estimated %d", n, length, real, estimate)
			}
		}
	}
}

func TestPitfall_cloudwatch04_MaxSeries(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxSeries = 2 })
	r.write(gauge("berth_a", 1), gauge("berth_b", 1), gauge("berth_c", 1))
	if c := r.condition(condLimit); !strings.Contains(c.Hint, "max_series") {
		t.Errorf("hint %q", c.Hint)
	}
	// Those that were there first stay, whatever the order.
	r.write(gauge("berth_c", 2), gauge("berth_b", 2), gauge("berth_a", 2))
	want := []fakeaws.Datum{one("berth_a", "", "None", 1), one("berth_b", "", "None", 1), one("berth_b", "", "None", 2), one("berth_a", "", "None", 2)}
	if got := r.got(); !reflect.DeepEqual(got, want) {
		t.Errorf("got:\n%+v\nwant:\n%+v", got, want)
	}
	if n := r.lost("series"); n != 2 {
		t.Errorf("%v lost by our own count, want 2", n)
	}
	r.sink.present["berth_a"] = time.Now().Add(-holdTime) // an hour later
	r.write(gauge("berth_c", 3), gauge("berth_b", 3))
	if got := r.got()[4:]; !reflect.DeepEqual(got, []fakeaws.Datum{one("berth_c", "", "None", 3), one("berth_b", "", "None", 3)}) {
		t.Errorf("when one has gone: %+v", got)
	}
	r.calm()
}

// What goes wrong is a condition that says what to do, and passes.
func TestWrite_Conditions(t *testing.T) {
	for _, tc := range []struct {
		fault     fakeaws.Fault
		reason    string
		why, hint string
		calls     int // with the retries
	}{
		{fakeaws.Throttled, "throttled", "Throttling: Rate exceeded", "quota", 3},
		{fakeaws.Denied, "denied", "AccessDenied", "cloudwatch-policy.json", 1},
		{fakeaws.Expired, "credentials", "ExpiredToken", "instance profile", 1},
		{fakeaws.Internal, "failed", "InternalServiceError", "network", 3},
		{fakeaws.CutBefore, "unknown", "EOF", "network", 3},
	} {
		r := newRig(t)
		r.fake.Always("PutMetricData", tc.fault)
		c := r.fails(gauge("berth_a", 1), gauge("berth_b", 1))
		if !strings.Contains(c.Why, tc.why) || !strings.Contains(c.Hint, tc.hint) {
			t.Errorf("%s: %q, hint %q, want %q and %q", tc.reason, c.Why, c.Hint, tc.why, tc.hint)
		}
		if n := r.fake.Calls()["PutMetricData"]; n != tc.calls {
			t.Errorf("%s: %d calls, want %d", tc.reason, n, tc.calls)
		}
		if n := r.lost(tc.reason); n != 2 {
			t.Errorf("%s: %v lost by our own count, want 2", tc.reason, n)
		}
		r.fake.Heal()
		r.write(gauge("berth_a", 1))
		r.calm()
	}
}

func TestWrite_Unreachable(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Endpoint = "http://127.0.0.1:1" })
	r.fails(gauge("berth_a", 1))
	if n := r.lost("unreachable"); n != 1 {
		t.Errorf("%v lost by our own count, want 1", n)
	}
}

// The SDK's own retries, with its own pauses.
func TestWrite_RetriesThrottled(t *testing.T) {
	r := newRig(t)
	r.sink.aws.Retryer = nil // as New has left it
	r.fake.Inject("PutMetricData", fakeaws.Throttled, fakeaws.Internal)
	r.write(gauge("berth_a", 1))
	if n, m := len(r.got()), r.fake.Calls()["PutMetricData"]; n != 1 || m != 3 {
		t.Errorf("%d data points after %d calls, want 1 after 3", n, m)
	}
	if o := retry.NewStandard().MaxAttempts(); o != 3 {
		t.Errorf("the standard mode makes %d attempts: correct the package comment", o)
	}
}

func TestWrite_NoCredentials(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	r := newRig(t)
	c := r.fails(gauge("berth_a", 1))
	if !strings.Contains(c.Why, "no AWS credentials") || !strings.Contains(c.Hint, "instance profile") {
		t.Errorf("%q, hint %q", c.Why, c.Hint)
	}
	if n := r.fake.Calls()["PutMetricData"]; n != 0 || r.lost("credentials") != 1 {
		t.Errorf("%d calls, %v lost by our own count, want 0 and 1", n, r.lost("credentials"))
	}
}

// Credentials of an instance profile come by IMDSv2, and never by version 1, to
// which the SDK would fall back: the fake fails the test if it is asked so.
func TestPitfall_cloudwatch02_NoFallbackToIMDSv1(t *testing.T) {
	imds := fakeaws.ServeIMDS(t, fakeaws.Instance{})
	for k, v := range map[string]string{
		"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "false", "AWS_EC2_METADATA_SERVICE_ENDPOINT": imds.URL(),
	} {
		t.Setenv(k, v)
	}
	imds.Set("iam/security-credentials/berth", fmt.Sprintf(`{"Code":"Success","LastUpdated":"2026-01-02T03:04:05Z","Type":"AWS-HMAC","AccessKeyId":"ASIA","SecretAccessKey":"s","Token":"t","Expiration":%q}`,
		time.Now().Add(6*time.Hour).UTC().Format(time.RFC3339)))
	r := newRig(t)
	r.write(gauge("berth_a", 1))

	// No token is to be had, as behind a proxy. That is no reason for version 1.
	to, err := url.Parse(imds.URL())
	if err != nil {
		t.Fatal(err)
	}
	pass := &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(to) }}
	asked := 0
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodPut {
			asked++
			w.WriteHeader(http.StatusForbidden)
			return
		}
		pass.ServeHTTP(w, req)
	}))
	t.Cleanup(proxy.Close)
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", proxy.URL)
	r2 := newRig(t)
	if c := r2.fails(gauge("berth_a", 1)); !strings.Contains(c.Why, "no AWS credentials") {
		t.Errorf("without a token: %q", c.Why)
	}
	if asked == 0 {
		t.Error("no token was asked for")
	}
}

// Those who provide credentials hold up a Write no longer than it may take.
func TestWrite_CredentialsHang(t *testing.T) {
	imds := fakeaws.ServeIMDS(t, fakeaws.Instance{})
	for k, v := range map[string]string{
		"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "false", "AWS_EC2_METADATA_SERVICE_ENDPOINT": imds.URL(),
	} {
		t.Setenv(k, v)
	}
	imds.SetMode(fakeaws.Silent)
	r := newRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.sink.Write(ctx, []agent.Sample{gauge("berth_a", 1)}) }()
	await(t, "a question for credentials", func() bool { return len(imds.Requests()) > 0 })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the end of the context", err)
	}
	// The SDK goes on asking by itself, 5 s at most for an operation: wait for it.
	imds.SetMode(fakeaws.Disabled)
	if _, err := r.sink.aws.Credentials.Retrieve(t.Context()); err == nil {
		t.Error("there are credentials")
	}
}

func TestWrite_Region(t *testing.T) {
	r := newRig(t)
	r.host.set(agent.Node{ID: "i-1", Settled: true})
	if c := r.fails(gauge("berth_a", 1)); !strings.Contains(c.Why, "region") || !strings.Contains(c.Hint, "AWS_REGION") {
		t.Errorf("%q, hint %q", c.Why, c.Hint)
	}
	t.Setenv("AWS_REGION", "us-west-2")
	for want, region := range map[string]string{"us-west-2": "", "ap-south-1": "ap-south-1"} {
		r := newRig(t, func(c *Config) { c.Region = region })
		r.write(gauge("berth_a", 1))
		if got := *r.sink.place.Load(); got != want {
			t.Errorf("region %s, want %s", got, want)
		}
	}
}

// A service that takes a request and never answers holds up a Write no longer
// than it may take, and what was not answered is not sent again.
func TestPitfall_cloudwatch05_Hangs(t *testing.T) {
	r := newRig(t)
	r.write(counter("berth_c_total", 1))
	r.fake.Always("PutMetricData", fakeaws.HangAfter)
	for i, v := range []float64{3, 4} {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.sink.Write(ctx, []agent.Sample{counter("berth_c_total", v)}) }()
		await(t, "the request", func() bool { return len(r.fake.Data()) > i })
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want the end of the context", err)
		}
		if n := r.lost("unknown"); n != float64(i+1) {
			t.Errorf("%v lost by our own count, want %d", n, i+1)
		}
		r.calm() // the end of berth is no condition
	}
	r.sink.limit = 50 * time.Millisecond
	if c := r.fails(gauge("berth_g", 1)); !strings.Contains(c.Why, "deadline exceeded") {
		t.Errorf("at its own limit: %q", c.Why)
	}
	r.sink.limit = writeTime
	r.fake.Heal()
	r.write(counter("berth_c_total", 7))
	sum := 0.0
	for _, d := range r.got() {
		if d.Name == "berth_c_total" {
			sum += d.Sum
		}
	}
	if sum != 6 {
		t.Errorf("the counter grew by %v in CloudWatch, want 6", sum)
	}
	r.calm()
}

// What certainly was not accepted of a counter is sent later.
func TestPitfall_cloudwatch05_CountersSurviveOutages(t *testing.T) {
	r := newRig(t)
	r.write(counter("berth_c_total", 10))
	r.write(counter("berth_c_total", 11))
	for _, f := range []fakeaws.Fault{fakeaws.Throttled, fakeaws.Denied, fakeaws.Internal} {
		r.fake.Always("PutMetricData", f)
		r.fails(counter("berth_c_total", 13))
		r.fake.Heal()
	}
	r.write(counter("berth_c_total", 16))
	r.write(counter("berth_c_total", 4)) // started anew
	r.write(counter("berth_c_total", 4))
	var sums []float64
	for _, d := range r.got() {
		sums = append(sums, d.Sum)
	}
	if want := []float64{1, 5, 4, 0}; !slices.Equal(sums, want) {
		t.Errorf("got %v, want %v", sums, want)
	}
	r.write(gauge("berth_g", 1)) // a batch without it
	r.write(counter("berth_c_total", 4))
	if got := r.got(); got[len(got)-1].Sum != 0 {
		t.Errorf("after a batch without it, it grew by %v, want 0", got[len(got)-1].Sum)
	}
	r.fake.Always("PutMetricData", fakeaws.Throttled)
	r.fails(counter("berth_c_total", 2)) // anew once more, and not accepted
	r.fake.Heal()
	r.write(counter("berth_c_total", 5))
	if got := r.got()[6].Sum; got != 5 {
		t.Errorf("after a start during an outage it grew by %v, want 5", got)
	}
	// What has been away for long is forgotten.
	for k, v := range r.sink.totals.sent {
		v.seen = v.seen.Add(-holdTime)
		r.sink.totals.sent[k] = v
	}
	r.write(gauge("berth_g", 1))
	if n := len(r.sink.totals.sent); n != 0 {
		t.Errorf("%d counters are remembered, want none", n)
	}
}

// A data point that CloudWatch refuses is found and left out; the others arrive.
func TestPitfall_cloudwatch03_RefusedIsIsolated(t *testing.T) {
	r := newRig(t)
	var samples []agent.Sample
	for i := range 100 {
		samples = append(samples, gauge(fmt.Sprintf("berth_%03d", i), 1))
	}
	real := r.sink
	groups := real.totals.assemble(samples, real.shape(agent.Node{}), time.Now()).groups
	for _, i := range []int{3, 77} {
		groups[i].dims = []dimension{{"a", "é"}} // as if we had not looked
	}
	real.tolerance = maxRefused
	if err := real.send(t.Context(), groups, "eu-central-1"); err != nil {
		t.Fatal(err)
	}
	if n := len(r.got()); n != 98 {
		t.Errorf("%d of 98 good data points arrived", n)
	}
	if n := r.fake.Calls()["PutMetricData"]; n > 2*2*8 {
		t.Errorf("%d calls to find two bad ones in 100", n)
	}
	c := r.condition(condRefused)
	if !strings.Contains(c.Why, "berth_077") || !strings.Contains(c.Why, "non-ASCII") || !strings.Contains(c.Hint, "report") {
		t.Errorf("%q, hint %q", c.Why, c.Hint)
	}
	if n := r.lost("refused"); n != 2 {
		t.Errorf("%v lost by our own count, want 2", n)
	}
	r.write(samples...)
	if n := r.lost("refused"); n != 4 || len(r.got()) != 196 {
		t.Errorf("%v lost by our own count, want 4; %d arrived, want 196", n, len(r.got()))
	}
	for k := range real.held {
		real.held[k] = time.Now() // an hour later
	}
	r.write(samples...)
	if n := len(r.got()); n != 296 {
		t.Errorf("%d arrived, want 296", n)
	}
	r.calm()
}

func TestWrite_AllRefused(t *testing.T) {
	r := newRig(t)
	var groups []*group
	for i := range 1000 {
		groups = append(groups, &group{key: fmt.Sprint(i), name: "größe", at: time.Now(), count: 1, samples: 1})
	}
	r.sink.tolerance = maxRefused
	if err := r.sink.send(t.Context(), groups, "eu-central-1"); err == nil {
		t.Error("want an error")
	}
	if n := r.fake.Calls()["PutMetricData"]; n > 60 {
		t.Errorf("%d calls for 1000 bad data points, want few", n)
	}
	if n := r.lost("refused"); n != 1000 {
		t.Errorf("%v lost by our own count, want 1000", n)
	}
}

// The policy among the examples allows the default namespace, and no other.
func TestPolicy(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("..", "..", "packaging", "examples", policyFile))
	if err != nil {
		t.Fatal(err)
	}
	var policy struct {
		Statement []struct {
			Effect, Action, Resource string
			Condition                map[string]map[string]string
		}
	}
	if err := json.Unmarshal(raw, &policy); err != nil {
		t.Fatal(err)
	}
	want := map[string]map[string]string{"StringEquals": {"cloudwatch:namespace": DefaultConfig().Namespace}}
	if s := policy.Statement; len(s) != 1 || s[0].Effect != "Allow" || s[0].Action != "cloudwatch:PutMetricData" || !reflect.DeepEqual(s[0].Condition, want) {
		t.Errorf("%+v", policy)
	}
	r := newRig(t)
	r.fake.Allow(policy.Statement[0].Condition["StringEquals"]["cloudwatch:namespace"])
	r.write(gauge("berth_a", 1))
	r2 := newRig(t, func(c *Config) { c.Namespace = "other" })
	r2.fake.Allow("berth")
	r2.fails(gauge("berth_a", 1))
}

func TestValidate(t *testing.T) {
	on := func(change func(*Config)) Config {
		c := DefaultConfig()
		c.Enabled = true
		change(&c)
		return c
	}
	for want, c := range map[string]Config{
		"": DefaultConfig(),
		"namespace: \"AWS/berth\" belongs to AWS":   on(func(c *Config) { c.Namespace = "AWS/berth" }),
		"namespace: \"aws/berth\" belongs to AWS":   on(func(c *Config) { c.Namespace = "aws/berth" }),
		"namespace: \":x\" is no namespace":         on(func(c *Config) { c.Namespace = ":x" }),
		"namespace: \"\" is no namespace":           on(func(c *Config) { c.Namespace = "" }),
		"region: \"Frankfurt\" is no AWS region":    on(func(c *Config) { c.Region = "Frankfurt" }),
		"endpoint: \"localhost\" is no URL":         on(func(c *Config) { c.Endpoint = "localhost" }),
		"metrics: nothing would be sent":            on(func(c *Config) { c.Metrics = nil }),
		"metrics[1]: \"a*b\" is no name":            on(func(c *Config) { c.Metrics = []string{"a*", "a*b"} }),
		"dimensions[0]: \"\" is no label":           on(func(c *Config) { c.Dimensions = []string{""} }),
		"dimensions[1]: a is there already":         on(func(c *Config) { c.Dimensions = []string{"a", "a"} }),
		"tags[0]: \"prod\" is not a tag":            on(func(c *Config) { c.Tags = []string{"prod"} }),
		"tags[0]: \":x\" is not a tag":              on(func(c *Config) { c.Tags = []string{":x"} }),
		"tags[0]: \"a:é\" is not a tag":             on(func(c *Config) { c.Tags = []string{"a:é"} }),
		"tags[0]: component is a dimension already": on(func(c *Config) { c.Tags = []string{"component:x"} }),
		"dimensions: 31 with the tags are too many": on(func(c *Config) {
			for i := range 30 {
				c.Tags = append(c.Tags, fmt.Sprintf("t%d:x", i))
			}
		}),
		"max_series: 0 would send nothing":               on(func(c *Config) { c.MaxSeries = 0 }),
		"interval: 59s is finer than CloudWatch keeps":   on(func(c *Config) { c.Interval = config.Duration(59 * time.Second) }),
		"interval: 0s is finer than CloudWatch keeps: 1": on(func(c *Config) { c.Interval = 0 }),
	} {
		err := c.Validate()
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if _, err := New(on(func(c *Config) { c.MaxSeries = 0 }), agent.Env{}); err == nil {
		t.Error("New took a bad configuration")
	}
}

// Every outcome that can be counted is shown, and every reason.
func TestMetrics(t *testing.T) {
	r := newRig(t)
	for _, why := range append(slices.Clone(reasons), "accepted") {
		r.sink.lose(why, 1)
	}
	delete(r.sink.lost, "accepted")
	seen := map[string]int{}
	for s := range r.sink.Metrics {
		seen[s.Name]++
	}
	want := map[string]int{
		"berth_cloudwatch_samples_total": 1, "berth_cloudwatch_series": 1,
		"berth_cloudwatch_lost_samples_total": len(r.sink.lost), "berth_cloudwatch_requests_total": 8,
	}
	if !maps.Equal(seen, want) {
		t.Errorf("got %v, want %v", seen, want)
	}
	if n := r.sink.lostSamples(); int(n) != len(reasons) || !strings.Contains(r.sink.Summary(), fmt.Sprintf("; %d lost", n)) {
		t.Errorf("summary %q of %d", r.sink.Summary(), n)
	}
	for range r.sink.Metrics {
		break
	}
}
