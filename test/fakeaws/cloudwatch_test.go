package fakeaws

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"
	"github.com/aws/smithy-go"
)

// cwClient returns the real client for a service. A smallest size to compress of
// 0 compresses all.
func cwClient(c *CloudWatch, compressFrom int64) *cloudwatch.Client {
	return cloudwatch.New(cloudwatch.Options{
		Region: "eu-central-1", BaseEndpoint: aws.String(c.URL()), Retryer: aws.NopRetryer{}, RequestMinCompressSizeBytes: compressFrom,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "key", SecretAccessKey: "secret", SessionToken: "token"}, nil
		}),
	})
}

// datum returns a plain data point, changed by changes.
func datum(changes ...func(*types.MetricDatum)) types.MetricDatum {
	d := types.MetricDatum{MetricName: aws.String("m"), Value: aws.Float64(1)}
	for _, change := range changes {
		change(&d)
	}
	return d
}

func dims(n int) []types.Dimension {
	out := make([]types.Dimension, n)
	for i := range out {
		out[i] = types.Dimension{Name: aws.String(fmt.Sprint("d", i)), Value: aws.String("v")}
	}
	return out
}

func TestCloudWatch_Put(t *testing.T) {
	c := ServeCloudWatch(t)
	client := cwClient(c, 0)
	type change = func(*types.MetricDatum)
	value := func(v float64) change { return func(d *types.MetricDatum) { d.Value = &v } }
	name := func(s string) change { return func(d *types.MetricDatum) { d.MetricName = &s } }
	dim := func(name, value string) change {
		return func(d *types.MetricDatum) { d.Dimensions = []types.Dimension{{Name: &name, Value: &value}} }
	}
	at := func(ago time.Duration) change {
		return func(d *types.MetricDatum) { d.Timestamp = aws.Time(time.Now().Add(-ago)) }
	}
	values := func(values, counts []float64) change {
		return func(d *types.MetricDatum) { d.Value, d.Values, d.Counts = nil, values, counts }
	}
	set := func(n, sum, low, high float64) change {
		return func(d *types.MetricDatum) {
			d.Value, d.StatisticValues = nil, &types.StatisticSet{SampleCount: &n, Sum: &sum, Minimum: &low, Maximum: &high}
		}
	}
	upTo := func(n int) []float64 {
		out := make([]float64, n)
		for i := range out {
			out[i] = float64(i)
		}
		return out
	}
	long := strings.Repeat("x", 255)
	for _, tc := range []struct {
		what, namespace string
		change          change
		want            string // "" is accepted
	}{
		{"plain", "berth", func(*types.MetricDatum) {}, ""},
		{"all characters of a namespace", "aZ09.-_/#: x", func(*types.MetricDatum) {}, ""},
		{"longest namespace", long, func(*types.MetricDatum) {}, ""},
		{"namespace too long", long + "x", func(*types.MetricDatum) {}, "longer than 255"},
		{"reserved namespace", "AWS/ECS", func(*types.MetricDatum) {}, "reserved"},
		{"reserved namespace in small letters", "aws/ECS", func(*types.MetricDatum) {}, "reserved"},
		{"not quite reserved", "AWSome", func(*types.MetricDatum) {}, ""},
		{"colon in front", ":x", func(*types.MetricDatum) {}, "is invalid"},
		{"asterisk in a namespace", "a*", func(*types.MetricDatum) {}, "is invalid"},
		{"blank namespace", "  ", func(*types.MetricDatum) {}, "non-whitespace"},
		{"longest name", "berth", name(long), ""},
		{"name too long", "berth", name(long + "x"), "longer than 255"},
		{"empty name", "berth", name(""), "MissingParameter"},
		{"blank name", "berth", name(" "), "non-whitespace"},
		{"name not ASCII", "berth", name("größe"), "non-ASCII"},
		{"control character in a name", "berth", name("a\tb"), "control"},
		{"dimension", "berth", dim("host", "i-1"), ""},
		{"empty value of a dimension", "berth", dim("host", ""), "MissingParameter"},
		{"blank value of a dimension", "berth", dim("host", " "), "non-whitespace"},
		{"value of a dimension not ASCII", "berth", dim("host", "é"), "non-ASCII"},
		{"colon before a dimension", "berth", dim(":host", "x"), "is invalid"},
		{"longest value of a dimension", "berth", dim(long, strings.Repeat("x", 1024)), ""},
		{"value of a dimension too long", "berth", dim("d", strings.Repeat("x", 1025)), "longer than 1024"},
		{"30 dimensions", "berth", func(d *types.MetricDatum) { d.Dimensions = dims(30) }, ""},
		{"31 dimensions", "berth", func(d *types.MetricDatum) { d.Dimensions = dims(31) }, "greater than 30"},
		{"a dimension twice", "berth", func(d *types.MetricDatum) { d.Dimensions = append(dims(1), dims(1)...) }, "twice"},
		{"largest value", "berth", value(math.Ldexp(-1, 360)), ""},
		{"value too large", "berth", value(math.Ldexp(1.0001, 360)), "out of range"},
		{"value too small", "berth", value(math.Ldexp(1, -361)), "out of range"},
		{"zero", "berth", value(0), ""},
		{"NaN", "berth", value(math.NaN()), "is invalid"},
		{"infinity", "berth", value(math.Inf(-1)), "is invalid"},
		{"unit", "berth", func(d *types.MetricDatum) { d.Unit = types.StandardUnitTerabitsSecond }, ""},
		{"no unit of theirs", "berth", func(d *types.MetricDatum) { d.Unit = "Cores" }, "set of units"},
		{"high resolution", "berth", func(d *types.MetricDatum) { d.StorageResolution = aws.Int32(1) }, ""},
		{"resolution of 10 s", "berth", func(d *types.MetricDatum) { d.StorageResolution = aws.Int32(10) }, "1 or 60"},
		{"two weeks ago", "berth", at(14*24*time.Hour - time.Minute), ""},
		{"older", "berth", at(14*24*time.Hour + time.Minute), "two weeks"},
		{"in two hours", "berth", at(-2*time.Hour + time.Minute), ""},
		{"later", "berth", at(-2*time.Hour - time.Minute), "two hours"},
		{"no value", "berth", func(d *types.MetricDatum) { d.Value = nil }, "MissingParameter"},
		{"values", "berth", values([]float64{1, 2}, nil), ""},
		{"values and counts", "berth", values([]float64{1, 2}, []float64{3, 1}), ""},
		{"150 values", "berth", values(upTo(150), nil), ""},
		{"151 values", "berth", values(upTo(151), nil), "at most 150"},
		{"a value twice", "berth", values([]float64{1, 1}, nil), "each once"},
		{"no values", "berth", values([]float64{}, nil), "MissingParameter"},
		{"too few counts", "berth", values([]float64{1, 2}, []float64{3}), "same size"},
		{"count of 0", "berth", values([]float64{1}, []float64{0}), "greater than 0"},
		{"NaN among the values", "berth", values([]float64{math.NaN()}, nil), "is invalid"},
		{"counts alone", "berth", func(d *types.MetricDatum) { d.Counts = []float64{1} }, "needs Values"},
		{"value and values", "berth", func(d *types.MetricDatum) { d.Values = []float64{1} }, "mutually exclusive"},
		{"statistics", "berth", set(3, 6, 1, 3), ""},
		{"statistics of nothing", "berth", set(0, 0, 0, 0), "greater than 0"},
		{"minimum above maximum", "berth", set(2, 3, 2, 1), "at least Minimum"},
		{"sum of other values", "berth", set(2, 30, 1, 2), "is not that of"},
		{"NaN in statistics", "berth", set(1, math.NaN(), 1, 1), "is invalid"},
		{"statistics and value", "berth", func(d *types.MetricDatum) {
			set(1, 1, 1, 1)(d)
			d.Value = aws.Float64(1)
		}, "mutually exclusive"},
	} {
		before, refusals := len(c.Data()), len(c.Refusals())
		_, err := client.PutMetricData(t.Context(), &cloudwatch.PutMetricDataInput{
			Namespace: aws.String(tc.namespace), MetricData: []types.MetricDatum{datum(), datum(tc.change)},
		})
		wants(t, tc.what, err, tc.want)
		got, want := len(c.Data())-before, 2
		if tc.want != "" {
			want = 0 // whole or not at all
		}
		if got != want {
			t.Errorf("%s: %d data points were stored, want %d", tc.what, got, want)
		}
		if got := len(c.Refusals()) > refusals; got != (tc.want != "") {
			t.Errorf("%s: counted as refused: %v", tc.what, got)
		}
	}
	for _, n := range []int{0, 1000, 1001} {
		want := map[int]string{0: "MetricData", 1001: "greater than 1000"}[n]
		_, err := client.PutMetricData(t.Context(), &cloudwatch.PutMetricDataInput{
			Namespace: aws.String("berth"), MetricData: slices.Repeat([]types.MetricDatum{datum()}, n),
		})
		wants(t, fmt.Sprint(n, " data points"), err, want)
	}
	if c.Gzipped() != c.Calls()["PutMetricData"] {
		t.Errorf("%d of %v calls were compressed, want all", c.Gzipped(), c.Calls())
	}
	_, err := client.PutMetricData(t.Context(), &cloudwatch.PutMetricDataInput{
		Namespace: aws.String("berth"), EntityMetricData: []types.EntityMetricData{{}}, MetricData: []types.MetricDatum{datum()},
	})
	wants(t, "entities", err, "not known here")
}

func TestCloudWatch_BodySize(t *testing.T) {
	c := ServeCloudWatch(t)
	for _, compressFrom := range []int64{0, 10 << 20} {
		for n, want := range map[int]string{900: "", 990: "RequestEntityTooLarge"} {
			data := slices.Repeat([]types.MetricDatum{datum(func(d *types.MetricDatum) {
				d.Dimensions = []types.Dimension{{Name: aws.String("d"), Value: aws.String(strings.Repeat("x", 960))}}
			})}, n)
			_, err := cwClient(c, compressFrom).PutMetricData(t.Context(), &cloudwatch.PutMetricDataInput{Namespace: aws.String("berth"), MetricData: data})
			wants(t, fmt.Sprint(n, " large data points, compressed from ", compressFrom), err, want)
		}
	}
	if got := c.BatchSizes(); !slices.Equal(got, []int{900, 900}) {
		t.Errorf("batches %v, want two of 900", got)
	}
	if got := c.BodySizes(); len(got) != 2 || got[0] != got[1] || got[0] < 900_000 {
		t.Errorf("bodies of %v bytes, want two of the same size", got)
	}
}

// What is stored is what was sent.
func TestCloudWatch_Stored(t *testing.T) {
	c := ServeCloudWatch(t)
	at := time.Now().Add(-time.Minute).Truncate(time.Millisecond)
	_, err := cwClient(c, 0).PutMetricData(t.Context(), &cloudwatch.PutMetricDataInput{
		Namespace: aws.String("berth"), MetricData: []types.MetricDatum{
			{MetricName: aws.String("a"), Value: aws.Float64(0.25), Timestamp: &at, Unit: "Bytes", Dimensions: []types.Dimension{
				{Name: aws.String("z"), Value: aws.String("1")}, {Name: aws.String("b"), Value: aws.String("2")},
			}},
			{MetricName: aws.String("b"), Values: []float64{1, 5}, Counts: []float64{3, 1}, Timestamp: &at, StorageResolution: aws.Int32(1)},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []Datum{
		{Namespace: "berth", Name: "a", Dimensions: "b=2,z=1", Unit: "Bytes", Time: at.UTC(), Count: 1, Sum: .25, Min: .25, Max: .25, Resolution: 60},
		{Namespace: "berth", Name: "b", Unit: "None", Time: at.UTC(), Count: 4, Sum: 8, Min: 1, Max: 5, Resolution: 1},
	}
	if got := c.Data(); !reflect.DeepEqual(got, want) {
		t.Errorf("stored:\n%+v\nwant:\n%+v", got, want)
	}
}

// ask returns the request for the averages of some metrics of AWS/ECS.
func ask(start, end time.Time, metrics ...string) *cloudwatch.GetMetricDataInput {
	in := &cloudwatch.GetMetricDataInput{StartTime: &start, EndTime: &end}
	for i, m := range metrics {
		in.MetricDataQueries = append(in.MetricDataQueries, types.MetricDataQuery{
			Id: aws.String(fmt.Sprint("m", i)),
			MetricStat: &types.MetricStat{Period: aws.Int32(60), Stat: aws.String("Average"), Metric: &types.Metric{
				Namespace: aws.String("AWS/ECS"), MetricName: aws.String(m), Dimensions: []types.Dimension{{Name: aws.String("ClusterName"), Value: aws.String("prod")}},
			}},
		})
	}
	return in
}

func TestCloudWatch_Get(t *testing.T) {
	c := ServeCloudWatch(t)
	client := cwClient(c, 0)
	now := time.Now().Truncate(time.Minute)
	prod := map[string]string{"ClusterName": "prod"}
	for i, v := range []float64{10, 20, 30} {
		c.Put("AWS/ECS", "CPUReservation", prod, now.Add(time.Duration(i-4)*time.Minute), v)
	}
	c.Put("AWS/ECS", "CPUReservation", prod, now.Add(-2*time.Minute+30*time.Second), 50) // in one minute with 30
	c.Put("AWS/ECS", "CPUReservation", prod, now.Add(-16*24*time.Hour), 99)              // gone
	c.Put("AWS/ECS", "CPUReservation", map[string]string{"ClusterName": "test"}, now.Add(-time.Minute), 99)
	c.Put("AWS/ECS", "MemoryReservation", prod, now.Add(-time.Minute), 7)

	get := func(in *cloudwatch.GetMetricDataInput) map[string][]float64 {
		t.Helper()
		got := map[string][]float64{}
		for p := cloudwatch.NewGetMetricDataPaginator(client, in); p.HasMorePages(); {
			out, err := p.NextPage(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range out.MetricDataResults {
				if len(r.Timestamps) != len(r.Values) {
					t.Fatalf("%d times of %d values", len(r.Timestamps), len(r.Values))
				}
				got[aws.ToString(r.Label)] = append(got[aws.ToString(r.Label)], r.Values...)
			}
		}
		return got
	}
	want := map[string][]float64{"CPUReservation": {40, 20, 10}, "MemoryReservation": {7}}
	if got := get(ask(now.Add(-20*24*time.Hour), now, "CPUReservation", "MemoryReservation")); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	c.SetPageSize(2)
	if got := get(ask(now.Add(-time.Hour), now, "CPUReservation", "MemoryReservation")); !reflect.DeepEqual(got, want) {
		t.Errorf("in pages: got %v, want %v", got, want)
	}
	c.SetPageSize(0)
	in := ask(now.Add(-3*time.Minute), now.Add(-2*time.Minute), "CPUReservation") // the end is not in it
	in.ScanBy = types.ScanByTimestampAscending
	if got := get(in)["CPUReservation"]; !slices.Equal(got, []float64{20}) {
		t.Errorf("one minute: %v, want 20 alone", got)
	}
	out, err := client.GetMetricData(t.Context(), ask(now.Add(-time.Hour), now, "Nothing"))
	if err != nil || len(out.MetricDataResults) != 1 || len(out.MetricDataResults[0].Values) != 0 || out.MetricDataResults[0].StatusCode != "Complete" {
		t.Errorf("no such metric: %+v, %v", out, err)
	}
	c.SetStatus("CPUReservation", "InternalError")
	out, err = client.GetMetricData(t.Context(), ask(now.Add(-time.Hour), now, "CPUReservation", "MemoryReservation"))
	if err != nil || out.MetricDataResults[0].StatusCode != "InternalError" || len(out.MetricDataResults[0].Values) != 0 || len(out.MetricDataResults[1].Values) != 1 {
		t.Errorf("one of two failed: %+v, %v", out, err)
	}

	for what, tc := range map[string]struct {
		change func(*cloudwatch.GetMetricDataInput)
		want   string
	}{
		"times the wrong way": {func(in *cloudwatch.GetMetricDataInput) { in.EndTime = in.StartTime }, "less than"},
		"no query":            {func(in *cloudwatch.GetMetricDataInput) { in.MetricDataQueries = []types.MetricDataQuery{} }, "MetricDataQueries"},
		"ID twice":            {func(in *cloudwatch.GetMetricDataInput) { in.MetricDataQueries[1].Id = in.MetricDataQueries[0].Id }, "twice"},
		"ID in capitals":      {func(in *cloudwatch.GetMetricDataInput) { in.MetricDataQueries[0].Id = aws.String("CPU") }, "lower-case"},
		"odd period":          {func(in *cloudwatch.GetMetricDataInput) { in.MetricDataQueries[0].MetricStat.Period = aws.Int32(90) }, "multiple of 60"},
		"odd statistic":       {func(in *cloudwatch.GetMetricDataInput) { in.MetricDataQueries[0].MetricStat.Stat = aws.String("Avg") }, "Stat is invalid"},
		"expression": {func(in *cloudwatch.GetMetricDataInput) {
			in.MetricDataQueries[0].MetricStat, in.MetricDataQueries[0].Expression = nil, aws.String("m1*2")
		}, "MissingParameter"},
		"nothing to return": {func(in *cloudwatch.GetMetricDataInput) {
			in.MetricDataQueries = in.MetricDataQueries[:1]
			in.MetricDataQueries[0].ReturnData = aws.Bool(false)
		}, "MetricDataQueries"},
		"wrong token":     {func(in *cloudwatch.GetMetricDataInput) { in.NextToken = aws.String("x") }, "InvalidNextToken"},
		"wrong order":     {func(in *cloudwatch.GetMetricDataInput) { in.ScanBy = "Up" }, "ScanBy"},
		"too many points": {func(in *cloudwatch.GetMetricDataInput) { in.MaxDatapoints = aws.Int32(100801) }, "MaxDatapoints"},
	} {
		in := ask(now.Add(-time.Hour), now, "CPUReservation", "MemoryReservation")
		tc.change(in)
		_, err := client.GetMetricData(t.Context(), in)
		wants(t, what, err, tc.want)
	}
}

func TestCloudWatch_Faults(t *testing.T) {
	c := ServeCloudWatch(t)
	client := cwClient(c, 0)
	put := func(ctx context.Context) error {
		_, err := client.PutMetricData(ctx, &cloudwatch.PutMetricDataInput{Namespace: aws.String("berth"), MetricData: []types.MetricDatum{datum()}})
		return err
	}
	c.Inject("PutMetricData", Throttled, Internal, Denied, Expired, CutBefore)
	for _, want := range []string{"Throttling: Rate exceeded", "InternalService", "AccessDenied", "ExpiredToken", "EOF"} {
		wants(t, want, put(t.Context()), want)
	}
	if n := len(c.Data()); n != 0 {
		t.Errorf("%d data points after nothing but failures", n)
	}
	c.Inject("PutMetricData", CutAfter)
	wants(t, "cut after", put(t.Context()), "EOF")
	c.Always("PutMetricData", HangAfter)
	ctx, cancel := context.WithCancel(t.Context())
	hanging := make(chan error, 1)
	go func() { hanging <- put(ctx) }()
	for deadline := time.Now().Add(2 * time.Minute); len(c.Data()) < 2 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-hanging; !errors.Is(err, context.Canceled) {
		t.Errorf("hanging: %v", err)
	}
	if n := len(c.Data()); n != 2 {
		t.Errorf("%d data points after two without an answer, want 2", n)
	}
	c.Heal()
	wants(t, "healed", put(t.Context()), "")
	c.Allow("other")
	wants(t, "another namespace", put(t.Context()), "AccessDenied")
	c.Allow("other", "berth")
	wants(t, "an allowed namespace", put(t.Context()), "")
	c.SetRate(1e-9, 2)
	wants(t, "first", put(t.Context()), "")
	wants(t, "second", put(t.Context()), "")
	wants(t, "third", put(t.Context()), "Throttling")
	c.SetRate(0, 0)
	c.SetNow(func() time.Time { return time.Now().Add(16 * time.Minute) })
	wants(t, "a wrong clock", put(t.Context()), "Signature expired")
	if r := c.Refusals(); len(r) != 0 { // none was for what it had in it
		t.Errorf("refusals: %q", r)
	}
}

// What no SDK sends.
func TestCloudWatch_Protocol(t *testing.T) {
	c := ServeCloudWatch(t)
	valid := cborEncode(map[string]any{"Namespace": "berth", "MetricData": []any{map[string]any{"MetricName": "m", "Value": 1}}})
	send := func(operation string, body []byte, header ...string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "POST", c.URL()+"/service/GraniteServiceVersion20100801/operation/"+operation, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		date := time.Now().UTC().Format("20060102T150405Z")
		for i := 0; i < len(header)-1; i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		for k, v := range map[string]string{
			"Smithy-Protocol": "rpc-v2-cbor", "Content-Type": "application/cbor", "Accept": "application/cbor", "X-Amz-Date": date,
			"Authorization": "AWS4-HMAC-SHA256 Credential=k/20260102/x/monitoring/aws4_request, SignedHeaders=host;x-amz-date, Signature=0",
		} {
			if _, set := req.Header[k]; !set {
				req.Header.Set(k, v)
			}
		}
		resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	for what, tc := range map[string]struct {
		got, want int
	}{
		"all right":          {send("PutMetricData", valid), 200},
		"unknown operation":  {send("PutDashboard", valid), 404},
		"another protocol":   {send("PutMetricData", valid, "Smithy-Protocol", "rpc-v2-json"), 400},
		"another type":       {send("PutMetricData", valid, "Content-Type", "application/json"), 400},
		"unsigned":           {send("PutMetricData", valid, "Authorization", ""), 403},
		"of another service": {send("PutMetricData", valid, "Authorization", "AWS4-HMAC-SHA256 Credential=k/20260102/x/route53/aws4_request, SignedHeaders=x-amz-date, Signature=0"), 403},
		"no gzip":            {send("PutMetricData", valid, "Content-Encoding", "gzip"), 400},
		"other encoding":     {send("PutMetricData", valid, "Content-Encoding", "br"), 400},
		"no CBOR":            {send("PutMetricData", []byte(`{"Namespace":"berth"}`)), 400},
		"half of it":         {send("PutMetricData", valid[:len(valid)-3]), 400},
		"more behind it":     {send("PutMetricData", append(slices.Clone(valid), 0)), 400},
		"a list":             {send("PutMetricData", cborEncode([]any{})), 400},
		"unknown member":     {send("PutMetricData", cborEncode(map[string]any{"Namespace": "berth", "Colour": "red", "MetricData": []any{map[string]any{"MetricName": "m", "Value": 1}}})), 400},
		"wrong type":         {send("PutMetricData", cborEncode(map[string]any{"Namespace": 1})), 400},
		"text as a value":    {send("PutMetricData", cborEncode(map[string]any{"Namespace": "berth", "MetricData": []any{map[string]any{"MetricName": "m", "Value": "1"}}})), 400},
	} {
		if tc.got != tc.want {
			t.Errorf("%s: %d, want %d", what, tc.got, tc.want)
		}
	}
	if n := len(c.Data()); n != 1 {
		t.Errorf("%d data points, want 1", n)
	}
	var api smithy.APIError
	_, err := cwClient(c, 0).PutMetricData(t.Context(), &cloudwatch.PutMetricDataInput{Namespace: aws.String("AWS/x"), MetricData: []types.MetricDatum{datum()}})
	var bad *types.InvalidParameterValueException
	if !errors.As(err, &bad) || !errors.As(err, &api) || api.ErrorCode() != "InvalidParameterValue" {
		t.Errorf("a modelled error: %v, of type %T", err, err)
	}
}

func TestCBOR(t *testing.T) {
	at := time.UnixMilli(1767366245123).UTC()
	in := map[string]any{
		"text": strings.Repeat("é", 300), "numbers": []any{1.5, math.Inf(1)}, "at": at,
		"small": 23, "byte": 255, "short": 65535, "word": 1 << 31, "long": 1 << 40, "negative": -25, "list": []any{}, "map": map[string]any{},
	}
	want := map[string]any{
		"text": in["text"], "numbers": in["numbers"], "at": at,
		"small": int64(23), "byte": int64(255), "short": int64(65535), "word": int64(1) << 31, "long": int64(1) << 40, "negative": int64(-25), "list": []any{}, "map": map[string]any{},
	}
	got, err := cborDecode(cborEncode(in))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	for in, want := range map[string]any{
		"\xbf\x61a\x01\xff":                    map[string]any{"a": int64(1)}, // indefinite
		"\x9f\x01\x9f\xff\xff":                 []any{int64(1), []any{}},
		"\xfa\x3f\x80\x00\x00":                 1.0, // a float32
		"\xf5":                                 true,
		"\xf6":                                 nil,
		"\xc1\x1a\x51\x4b\x67\xb0":             time.Unix(1363896240, 0).UTC(), // RFC 8949, appendix A
		"\x3b\x7f\xff\xff\xff\xff\xff\xff\xff": int64(math.MinInt64),
	} {
		if got, err := cborDecode([]byte(in)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%x: got %v, %v, want %v", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", "\x18", "\x1c", "\x61", "\x61\xff", "\x82\x01", "\x9f\x01", "\xff", "\xa1\x01\x01", "\xa2\x61a\x01\x61a\x01", "\xa1\x61a",
		"\xc2\x01", "\xc1\x61a", "\xc1\xfb\x7f\xf0\x00\x00\x00\x00\x00\x00", "\x40", "\xf7", "\xf9\x00\x00", "\x01\x01",
		"\x1b\xff\xff\xff\xff\xff\xff\xff\xff", "\x7f\x61a\xff", strings.Repeat("\x81", 40) + "\x01",
		"\x9b\x7f\xff\xff\xff\xff\xff\xff\xff",
	} {
		if got, err := cborDecode([]byte(in)); err == nil {
			t.Errorf("%x: got %v, want an error", in, got)
		}
	}
}
