package cloudwatch

import (
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"go.uber.org/goleak"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/test/fakeaws"
)

func TestMain(m *testing.M) {
	for k, v := range map[string]string{
		"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "", "AWS_PROFILE": "",
		"AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull, "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_CA_BUNDLE": "", "AWS_REGION": "", "AWS_DEFAULT_REGION": "", "AWS_MAX_ATTEMPTS": "", "AWS_RETRY_MODE": "",
		"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "", "AWS_CONTAINER_CREDENTIALS_FULL_URI": "", "AWS_WEB_IDENTITY_TOKEN_FILE": "",
	} {
		os.Setenv(k, v)
	}
	goleak.VerifyTestMain(m)
}

// host is a NodeSource that a test can change.
type host struct {
	mu   sync.Mutex
	node agent.Node
}

func (h *host) Node() agent.Node {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.node
}

func (h *host) set(n agent.Node) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.node = n
}

func (h *host) StateHost() string        { return "i-1" }
func (h *host) Changed() <-chan struct{} { return nil }

// impatient is the SDK's standard way to try again, without the waiting.
func impatient() aws.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.Backoff = retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) { return 0, nil })
	})
}

// rig is a sink on a fake CloudWatch.
type rig struct {
	*testing.T
	fake   *fakeaws.CloudWatch
	cfg    Config
	host   *host
	health *agent.Health
	sink   *Sink
}

func newRig(t *testing.T, changes ...func(*Config)) *rig {
	t.Helper()
	r := &rig{T: t, fake: fakeaws.ServeCloudWatch(t), cfg: DefaultConfig()}
	r.host = &host{node: agent.Node{ID: "i-1", Settled: true, Region: "eu-central-1", InstanceType: "m7g.large", Zone: "eu-central-1a"}}
	r.cfg.Enabled, r.cfg.Endpoint = true, r.fake.URL()
	r.cfg.Metrics, r.cfg.Dimensions = []string{"berth_*"}, []string{"component", "state"}
	for _, change := range changes {
		change(&r.cfg)
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	r.health = agent.NewHealth(log)
	var err error
	r.sink, err = New(r.cfg, agent.Env{Log: log, Health: r.health, Node: r.host, StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	r.sink.aws.Retryer = impatient
	t.Cleanup(func() {
		// That this client checks its own requests is what keeps the rest of a
		// batch from being lost with one bad sample.
		if refusals := r.fake.Refusals(); len(refusals) > 0 && !strings.Contains(t.Name(), "Refused") {
			t.Errorf("refused: %q", refusals)
		}
	})
	return r
}

// write sends a batch, which must succeed.
func (r *rig) write(samples ...agent.Sample) {
	r.Helper()
	if err := r.sink.Write(r.Context(), samples); err != nil {
		r.Fatal(err)
	}
}

// fails sends a batch that must fail, and returns its condition.
func (r *rig) fails(samples ...agent.Sample) agent.Condition {
	r.Helper()
	if err := r.sink.Write(r.Context(), samples); err == nil {
		r.Fatal("it was sent, want an error")
	}
	return r.condition(condWrite)
}

// condition returns a condition that must be there.
func (r *rig) condition(name string) agent.Condition {
	r.Helper()
	for _, c := range r.health.Conditions() {
		if c.Name == name {
			return c
		}
	}
	r.Fatalf("there is no condition %q in %+v", name, r.health.Conditions())
	return agent.Condition{}
}

// calm checks that nothing is wrong.
func (r *rig) calm() {
	r.Helper()
	if c := r.health.Conditions(); len(c) > 0 {
		r.Errorf("conditions: %+v", c)
	}
}

// got returns what arrived, without times.
func (r *rig) got() []fakeaws.Datum {
	data := r.fake.Data()
	for i := range data {
		data[i].Time = time.Time{}
	}
	return data
}

// figure returns one of the sink's own figures.
func (r *rig) figure(name string, labels ...agent.Label) float64 {
	r.Helper()
	for s := range r.sink.Metrics {
		if s.Name == name && slices.Equal(s.Labels, labels) {
			return s.Value
		}
	}
	r.Fatalf("there is no figure %s %v", name, labels)
	return 0
}

func (r *rig) lost(reason string) float64 {
	r.Helper()
	return r.figure("berth_cloudwatch_lost_samples_total", agent.Label{Name: "reason", Value: reason})
}

func gauge(name string, value float64, labels ...string) agent.Sample {
	s := agent.Sample{Name: name, Value: value}
	for i := 0; i < len(labels); i += 2 {
		s.Labels = append(s.Labels, agent.Label{Name: labels[i], Value: labels[i+1]})
	}
	return s
}

func counter(name string, value float64, labels ...string) agent.Sample {
	s := gauge(name, value, labels...)
	s.Kind = agent.Counter
	return s
}

// one is the data point of one value.
func one(name, dims, unit string, v float64) fakeaws.Datum {
	return fakeaws.Datum{Namespace: "berth", Name: name, Dimensions: dims, Unit: unit, Count: 1, Sum: v, Min: v, Max: v, Resolution: 60}
}

// await waits until a condition holds, 2 minutes at most.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s has not come", what)
		}
	}
}
