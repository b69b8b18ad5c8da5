package cloudwatch

import (
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math"
	"math/rand/v2"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/sinks/sinktest"
	"github.com/berthd/berth/test/fakeaws"
)

func TestConformance(t *testing.T) {
	sinktest.MetricSink(t, func(t *testing.T) sinktest.MetricFixture {
		r := newRig(t, func(c *Config) { c.Metrics, c.MaxSeries = []string{"berth_sinktest_*"}, 1000 })
		switching := func(f fakeaws.Fault) func(bool) {
			return func(on bool) {
				if r.fake.Heal(); on {
					r.fake.Always("PutMetricData", f)
				}
			}
		}
		return sinktest.MetricFixture{
			Sink: r.sink,
			Gauges: func() (out []agent.Sample, _ error) {
				for _, d := range r.fake.Data() {
					if d.Unit == "Count" {
						continue
					}
					s := agent.Sample{Name: d.Name, Value: d.Sum}
					for part := range strings.SplitSeq(d.Dimensions, ",") {
						if k, v, ok := strings.Cut(part, "="); ok {
							s.Labels = append(s.Labels, agent.Label{Name: k, Value: v})
						}
					}
					out = append(out, s)
				}
				return out, nil
			},
			Growth: func(name string) (sum float64, _ error) {
				for _, d := range r.fake.Data() {
					if d.Name == name {
						sum += d.Sum
					}
				}
				return sum, nil
			},
			Fail: switching(fakeaws.Denied),
			Hang: switching(fakeaws.HangAfter),
		}
	})
}

// Whatever samples there are, CloudWatch refuses nothing, and what it has plus
// what is lost is what was written.
func TestAnySamples(t *testing.T) {
	seed := rand.Uint64()
	if s := os.Getenv("BERTH_CLOUDWATCH_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seed = n
	}
	defer func() {
		if t.Failed() {
			t.Logf("replay: BERTH_CLOUDWATCH_SEED=%d", seed)
		}
	}()
	rng := rand.New(rand.NewPCG(seed, 0))
	values := []float64{0, 1, -1, 0.1, math.NaN(), math.Inf(1), math.Inf(-1), math.MaxFloat64, math.SmallestNonzeroFloat64, 1e109, -1e108, 2e108, 1e-109, 1e15}
	texts := []string{"", " ", "a", "ä", "\x00", "\xff", ":x", strings.Repeat("é", 600), strings.Repeat("v", 1500), "a=b,c", "日本", "\n", "~"}
	times := []time.Duration{0, time.Hour, 13 * 24 * time.Hour, 15 * 24 * time.Hour, -time.Hour, -3 * time.Hour, 100 * 365 * 24 * time.Hour}
	for range 10 {
		r := newRig(t, func(c *Config) { c.MaxSeries = 20 + rng.IntN(3000); c.Tags = []string{"env:prod"} })
		written := 0
		for range 3 {
			var batch []agent.Sample
			for range rng.IntN(1500) {
				s := agent.Sample{Name: fmt.Sprint("berth_", rng.IntN(40)), Value: values[rng.IntN(len(values))]}
				if rng.IntN(3) == 0 {
					s.Kind, s.Name = agent.Counter, s.Name+"_total"
				}
				for _, l := range []string{"component", "other", "state"} {
					if rng.IntN(2) == 0 {
						s.Labels = append(s.Labels, agent.Label{Name: l, Value: texts[rng.IntN(len(texts))]})
					}
				}
				if rng.IntN(4) == 0 {
					s.Time = time.Now().Add(-times[rng.IntN(len(times))])
				}
				batch = append(batch, s)
			}
			if r.sink.totals.sent == nil {
				r.sink.totals.sent = map[string]sentTotal{} // counters have a first batch behind them
			}
			r.write(batch...)
			written += len(batch)
		}
		if got := int(r.figure("berth_cloudwatch_samples_total")) + int(r.sink.lostSamples()); got != written {
			t.Errorf("%d samples are accounted for, of %d", got, written)
		}
	}
}

// A company's own certificate authority, as AWS_CA_BUNDLE names it, is believed;
// without it, the connection is not made.
func TestPitfall_cloudwatch01_CABundle(t *testing.T) {
	r := newRig(t)
	to, err := url.Parse(r.fake.URL())
	if err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewUnstartedServer(&httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(to) }})
	proxy.Config.ErrorLog = log.New(io.Discard, "", 0)
	proxy.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	proxy.StartTLS()
	t.Cleanup(proxy.Close)
	bundle := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(bundle, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: proxy.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	stranger := newRig(t, func(c *Config) { c.Endpoint = proxy.URL })
	if c := stranger.fails(gauge("berth_a", 1)); !strings.Contains(c.Why, "certificate") {
		t.Errorf("without the bundle: %q", c.Why)
	}
	t.Setenv("AWS_CA_BUNDLE", bundle)
	friend := newRig(t, func(c *Config) { c.Endpoint = proxy.URL })
	friend.write(gauge("berth_a", 1))
	if n := len(r.got()); n != 1 {
		t.Errorf("%d data points arrived, want 1", n)
	}
}
