package cloudwatch

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/berthd/berth/agent/config"
	"github.com/berthd/berth/test/fakeaws"
)

// reading returns a judged reading; NaN is a missing one.
func reading(metric string, v float64) Reading {
	r := Reading{Metric: metric, Max: 75, Min: 35}
	if math.IsNaN(v) {
		r.Missing = "gone"
	} else {
		r.Percent, r.At = &v, new(time.Time)
	}
	return r
}

func TestDecide(t *testing.T) {
	gone := math.NaN()
	for _, tc := range []struct {
		cpu, memory float64
		want        Status
		why         string
	}{
		{0, 0, ScaleIn, "neither"},
		{35, 35, ScaleIn, "neither"},
		{35, 35.01, Keep, "35.01% of memory is reserved, more than 35%"},
		{35.01, 35, Keep, "35.01% of CPU is reserved, more than 35%"},
		{50, 50, Keep, "50% of CPU is reserved, more than 35%, and 50% of memory"},
		{74.99, 74.99, Keep, "more than 35%"},
		{75, 0, ScaleOut, "75% of CPU is reserved, at least 75%"},
		{0, 75, ScaleOut, "75% of memory is reserved, at least 75%"},
		{75, 50, ScaleOut, "75% of CPU"},
		{120, 90, ScaleOut, "120% of CPU is reserved, at least 75%, and 90% of memory"},
		{gone, 0, Keep, "CPUReservation is missing (gone): nothing is removed on no word"},
		{0, gone, Keep, "MemoryReservation is missing (gone)"},
		{gone, 50, Keep, "CPUReservation is missing"},
		{gone, 75, ScaleOut, "75% of memory"},
		{90, gone, ScaleOut, "90% of CPU"},
		{gone, gone, Keep, "CPUReservation and MemoryReservation are missing (gone): nothing"},
	} {
		got, why := decide(reading(cpuReservation, tc.cpu), reading(memoryReservation, tc.memory))
		if got != tc.want || !strings.Contains(why, tc.why) {
			t.Errorf("%v and %v: %v (%s), want %v (%s)", tc.cpu, tc.memory, got, why, tc.want, tc.why)
		}
	}
}

// Whatever the readings are: more reserved never makes for fewer hosts, and one
// that is missing never does.
func TestDecide_Properties(t *testing.T) {
	seed := rand.Uint64()
	if s := os.Getenv("BERTH_CLOUDWATCH_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seed = n
	}
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 20000 {
		a, b := float64(rng.IntN(120)), float64(rng.IntN(120))
		more := a + float64(rng.IntN(60))
		status := func(cpu, memory float64) Status {
			s, _ := decide(reading(cpuReservation, cpu), reading(memoryReservation, memory))
			return s
		}
		base := status(a, b)
		if status(more, b) < base || status(b, more) < status(b, a) {
			t.Fatalf("%v to %v with %v: fewer hosts for more that is reserved\nreplay: BERTH_CLOUDWATCH_SEED=%d", a, more, b, seed)
		}
		if s := status(math.NaN(), b); s == ScaleIn || s == ScaleOut && base != ScaleOut {
			t.Fatalf("without CPU, memory at %v: %v\nreplay: BERTH_CLOUDWATCH_SEED=%d", b, s, seed)
		}
	}
}

// scaleRig is a Scale on a fake CloudWatch.
type scaleRig struct {
	*testing.T
	fake  *fakeaws.CloudWatch
	scale *Scale
}

func newScaleRig(t *testing.T, changes ...func(*ScaleConfig)) *scaleRig {
	t.Helper()
	r := &scaleRig{T: t, fake: fakeaws.ServeCloudWatch(t)}
	cfg := DefaultScaleConfig()
	cfg.Cluster, cfg.Region, cfg.Endpoint = "prod", "eu-central-1", r.fake.URL()
	for _, change := range changes {
		change(&cfg)
	}
	var err error
	if r.scale, err = NewScale(cfg); err != nil {
		t.Fatal(err)
	}
	r.scale.aws.Retryer = impatient
	t.Cleanup(func() {
		if refusals := r.fake.Refusals(); len(refusals) > 0 {
			t.Errorf("refused: %q", refusals)
		}
	})
	return r
}

// put stores what ECS says of a cluster, so long ago.
func (r *scaleRig) put(cluster, metric string, ago time.Duration, v float64) {
	r.fake.Put("AWS/ECS", metric, map[string]string{"ClusterName": cluster}, time.Now().Add(-ago), v)
}

func (r *scaleRig) run(dryRun bool) *ScaleReport {
	r.Helper()
	report, err := r.scale.Run(r.Context(), dryRun)
	if err != nil {
		r.Fatal(err)
	}
	return report
}

// published returns the values that were published.
func (r *scaleRig) published() (out []float64) {
	for _, d := range r.fake.Data() {
		out = append(out, d.Sum)
	}
	return out
}

func TestPitfall_cloudwatch06_ScaleStatus(t *testing.T) {
	const gone = -1
	for _, tc := range []struct {
		what        string
		cpu, memory float64
		ago         time.Duration
		want        Status
		missing     bool
	}{
		{"empty", 10, 20, time.Minute, ScaleIn, false},
		{"between", 50, 20, time.Minute, Keep, false},
		{"CPU full", 80, 20, time.Minute, ScaleOut, false},
		{"memory full", 10, 80, time.Minute, ScaleOut, false},
		{"not quite too old", 10, 20, 3 * time.Minute, ScaleIn, false},
		{"too old", 10, 20, 7 * time.Minute, Keep, true},
		{"too old and full", 90, 90, 7 * time.Minute, Keep, true},
		{"very old", 10, 20, 100 * time.Minute, Keep, true},
		{"no CPU", gone, 20, time.Minute, Keep, true},
		{"no CPU, memory full", gone, 80, time.Minute, ScaleOut, true},
		{"no memory", 10, gone, time.Minute, Keep, true},
		{"nothing", gone, gone, time.Minute, Keep, true},
	} {
		r := newScaleRig(t)
		for metric, v := range map[string]float64{cpuReservation: tc.cpu, memoryReservation: tc.memory} {
			r.put("other", metric, time.Minute, 99)
			if v != gone {
				r.put("prod", metric, tc.ago+2*time.Minute, 50) // the newest counts
				r.put("prod", metric, tc.ago, v)
			}
		}
		dry := r.run(true)
		if dry.Published || len(r.fake.Data()) != 0 || dry.Status != tc.want {
			t.Errorf("%s: a dry run published %v, said %v", tc.what, r.fake.Data(), dry.Status)
		}
		got := r.run(false)
		if got.Status != tc.want || got.Missing != tc.missing || !got.Published || got.Why == "" || got.Meaning != tc.want.String() {
			t.Errorf("%s: %+v, want %v, missing: %v", tc.what, got, tc.want, tc.missing)
		}
		want := fakeaws.Datum{
			Namespace: "berth", Name: "ScaleStatus", Dimensions: "ClusterName=prod", Unit: "None",
			Count: 1, Sum: float64(tc.want), Min: float64(tc.want), Max: float64(tc.want), Resolution: 60,
		}
		data := r.fake.Data()
		if len(data) != 1 {
			t.Fatalf("%s: published %+v", tc.what, data)
		}
		if age := time.Since(data[0].Time); age > time.Minute || age < 0 {
			t.Errorf("%s: published for %v ago", tc.what, age)
		}
		if data[0].Time = (time.Time{}); !reflect.DeepEqual(data[0], want) {
			t.Errorf("%s: published %+v, want %+v", tc.what, data[0], want)
		}
		if n := r.fake.Calls()["GetMetricData"]; n != 2 {
			t.Errorf("%s: %d requests for readings, want one for each run", tc.what, n)
		}
	}
}

func TestScale_SaysHowOld(t *testing.T) {
	r := newScaleRig(t)
	r.put("prod", cpuReservation, 30*time.Minute, 10)
	report := r.run(true)
	if cpu := report.Readings[0]; !strings.Contains(cpu.Missing, "more than 5m") || cpu.At == nil || *cpu.Percent != 10 {
		t.Errorf("%+v, want how old it is", cpu)
	}
	if memory := report.Readings[1]; memory.Percent != nil || !strings.Contains(memory.Missing, "ECS says nothing") {
		t.Errorf("%+v", memory)
	}
}

// A result with an error has no data, and that is no word of ECS.
func TestPitfall_cloudwatch07_PartOfAnAnswer(t *testing.T) {
	for _, code := range []string{"InternalError", "Forbidden"} {
		r := newScaleRig(t)
		r.put("prod", cpuReservation, time.Minute, 10)
		r.put("prod", memoryReservation, time.Minute, 10)
		r.fake.SetStatus(memoryReservation, code)
		if got := r.run(false); got.Status != Keep || !got.Missing || !strings.Contains(got.Why, code) {
			t.Errorf("%s: %+v", code, got)
		}
	}
	// In pages, of which the first has nothing of memory.
	r := newScaleRig(t)
	for i := range 10 {
		r.put("prod", cpuReservation, time.Duration(i+1)*time.Minute, 10)
		r.put("prod", memoryReservation, time.Duration(i+1)*time.Minute, float64(80+i))
	}
	r.fake.SetPageSize(3)
	if got := r.run(false); got.Status != ScaleOut || *got.Readings[1].Percent != 80 {
		t.Errorf("in pages: %+v", got)
	}
}

func TestScale_Configured(t *testing.T) {
	r := newScaleRig(t, func(c *ScaleConfig) {
		c.Namespace, c.Metric, c.Dimension = "Company/ECS", "Fullness", "Cluster"
		c.CPUMax, c.CPUMin, c.MemoryMax, c.MemoryMin = 50, 10, 90, 80
		c.MaxAge = config.Duration(2 * time.Hour)
	})
	r.put("prod", cpuReservation, 110*time.Minute, 10)
	r.put("prod", memoryReservation, time.Minute, 80)
	if got := r.run(false); got.Status != ScaleIn {
		t.Errorf("%+v", got)
	}
	if d := r.fake.Data()[0]; d.Namespace != "Company/ECS" || d.Name != "Fullness" || d.Dimensions != "Cluster=prod" {
		t.Errorf("published %+v", d)
	}
	r.put("prod", cpuReservation, time.Minute, 50)
	if got := r.run(false); got.Status != ScaleOut {
		t.Errorf("%+v", got)
	}
}

// Where CloudWatch cannot be asked or told, nothing is published, and the error
// says what to do.
func TestScale_Errors(t *testing.T) {
	for _, tc := range []struct {
		action string
		fault  fakeaws.Fault
		want   []string
	}{
		{"GetMetricData", fakeaws.Denied, []string{"read the reservations of cluster prod", "AccessDenied", "cluster-scale-policy.json"}},
		{"GetMetricData", fakeaws.Throttled, []string{"Rate exceeded", "quota"}},
		{"GetMetricData", fakeaws.Internal, []string{"InternalServiceError", "network"}},
		{"GetMetricData", fakeaws.CutBefore, []string{"EOF", "network"}},
		{"GetMetricData", fakeaws.Expired, []string{"ExpiredToken", "instance profile"}},
		{"PutMetricData", fakeaws.Denied, []string{"publish ScaleStatus 0 (scale in) of cluster prod", "AccessDenied", "cluster-scale-policy.json"}},
		{"PutMetricData", fakeaws.Throttled, []string{"Rate exceeded"}},
	} {
		r := newScaleRig(t)
		r.put("prod", cpuReservation, time.Minute, 10)
		r.put("prod", memoryReservation, time.Minute, 10)
		r.fake.Always(tc.action, tc.fault)
		_, err := r.scale.Run(t.Context(), false)
		for _, want := range tc.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", tc.action, err, want)
			}
		}
		if got := r.published(); len(got) != 0 {
			t.Errorf("%s: published %v", tc.action, got)
		}
		// What passes within the SDK's retries is nothing to speak of.
		if tc.fault == fakeaws.Throttled {
			r.fake.Heal()
			r.fake.Inject(tc.action, tc.fault, tc.fault)
			if got := r.run(false); got.Status != ScaleIn {
				t.Errorf("%s: %+v", tc.action, got)
			}
		}
	}
}

// The region of an instance is that of its metadata.
func TestScale_Region(t *testing.T) {
	r := newScaleRig(t, func(c *ScaleConfig) { c.Region = "" })
	if _, err := r.scale.Run(t.Context(), true); !errors.Is(err, errRegion) || !strings.Contains(err.Error(), "AWS_REGION") {
		t.Errorf("without any region: %v", err)
	}
	imds := fakeaws.ServeIMDS(t, fakeaws.Instance{Region: "eu-west-3"})
	t.Setenv("AWS_EC2_METADATA_DISABLED", "false")
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", imds.URL())
	if got := r.run(true); got.Region != "eu-west-3" {
		t.Errorf("region %q", got.Region)
	}
}

func TestScaleValidate(t *testing.T) {
	on := func(change func(*ScaleConfig)) ScaleConfig {
		c := DefaultScaleConfig()
		change(&c)
		return c
	}
	for want, c := range map[string]ScaleConfig{
		"": DefaultScaleConfig(),
		"cluster: \"arn:aws:ecs:x:1:cluster/prod\"":   on(func(c *ScaleConfig) { c.Cluster = "arn:aws:ecs:x:1:cluster/prod" }),
		"namespace: \"AWS/ECS\" belongs":              on(func(c *ScaleConfig) { c.Namespace = "AWS/ECS" }),
		"region: \"x y\"":                             on(func(c *ScaleConfig) { c.Region = "x y" }),
		"metric: \"\"":                                on(func(c *ScaleConfig) { c.Metric = "" }),
		"metric: \"é\"":                               on(func(c *ScaleConfig) { c.Metric = "é" }),
		"dimension: \":x\"":                           on(func(c *ScaleConfig) { c.Dimension = ":x" }),
		"cpu_min: 80% is not less than cpu_max":       on(func(c *ScaleConfig) { c.CPUMin = 80 }),
		"memory_min: 75% is not less than memory_max": on(func(c *ScaleConfig) { c.MemoryMin = 75 }),
		"max_age: 1m cannot be used":                  on(func(c *ScaleConfig) { c.MaxAge = config.Duration(time.Minute) }),
		"max_age: 2d cannot be used":                  on(func(c *ScaleConfig) { c.MaxAge = config.Duration(48 * time.Hour) }),
	} {
		err := c.Validate()
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if _, err := NewScale(ScaleConfig{}); err == nil {
		t.Error("NewScale took a bad configuration")
	}
	// The defaults leave a cluster of two alone that has just shrunk from three, or
	// grown from one.
	d := DefaultScaleConfig()
	for _, reserved := range []float64{float64(d.CPUMin) * 3 / 2, float64(d.CPUMax) / 2} {
		if s, _ := decide(reading(cpuReservation, reserved), reading(memoryReservation, reserved)); s != Keep {
			t.Errorf("%v%% after a change: %v", reserved, s)
		}
	}
}

// What people are given besides fits what the command does.
func TestScaleExamples(t *testing.T) {
	read := func(name string) string {
		t.Helper()
		raw, err := os.ReadFile(filepath.Join("..", "..", "packaging", "examples", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	d := DefaultScaleConfig()
	var policy struct {
		Statement []struct {
			Effect, Action string
			Condition      map[string]map[string]string
		}
	}
	if err := json.Unmarshal([]byte(read(scalePolicyFile)), &policy); err != nil {
		t.Fatal(err)
	}
	actions := map[string]string{}
	for _, s := range policy.Statement {
		actions[s.Action] = s.Effect + " " + s.Condition["StringEquals"]["cloudwatch:namespace"]
	}
	if want := map[string]string{"cloudwatch:GetMetricData": "Allow ", "cloudwatch:PutMetricData": "Allow " + d.Namespace}; !reflect.DeepEqual(actions, want) {
		t.Errorf("policy %q, want %q", actions, want)
	}
	tf := strings.Join(strings.Fields(read("cluster-scale.tf")), " ")
	for _, want := range []string{
		fmt.Sprintf("default = %q", d.Namespace),
		fmt.Sprintf("metric_name = %q", d.Metric),
		fmt.Sprintf("%s = var.cluster", d.Dimension),
		fmt.Sprintf(`comparison_operator = "GreaterThanOrEqualToThreshold" threshold = %d`, ScaleOut),
		fmt.Sprintf(`comparison_operator = "LessThanOrEqualToThreshold" threshold = %d`, ScaleIn),
	} {
		if !strings.Contains(tf, want) {
			t.Errorf("cluster-scale.tf lacks %s", want)
		}
	}
	if n := strings.Count(tf, `treat_missing_data = "notBreaching"`); n != 2 {
		t.Errorf("%d alarms of cluster-scale.tf act on nothing but data, want 2", n)
	}
	if n := strings.Count(tf, `statistic = "Maximum"`); n != 3 {
		t.Errorf("%d alarms of cluster-scale.tf are on the maximum, want 3", n)
	}
}
