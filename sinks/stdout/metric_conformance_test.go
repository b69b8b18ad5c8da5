package stdout

import (
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/sinks/sinktest"
)

func TestMetricConformance(t *testing.T) {
	sinktest.MetricSink(t, func(*testing.T) sinktest.MetricFixture {
		w := new(screen)
		samples := func(kind agent.SampleKind) (out []agent.Sample) {
			for text := range strings.Lines(w.text()) {
				var line sampleLine
				if json.Unmarshal([]byte(text), &line) != nil || line.Kind != kind.String() {
					continue
				}
				s := agent.Sample{Name: line.Name}
				s.Value, _ = line.Value.(float64) // or a text, as NaN
				for k, v := range line.Labels {
					s.Labels = append(s.Labels, agent.Label{Name: k, Value: v})
				}
				out = append(out, s)
			}
			return out
		}
		return sinktest.MetricFixture{
			Sink:   New(w, agent.Env{Health: agent.NewHealth(slog.New(slog.DiscardHandler))}),
			Gauges: func() ([]agent.Sample, error) { return samples(agent.Gauge), nil },
			// It prints totals, of which a reader makes the growth.
			Growth: func(name string) (sum float64, _ error) {
				var last float64
				for i, s := range samples(agent.Counter) {
					if grown := s.Value - last; i > 0 && grown >= 0 {
						sum += grown
					} else if i > 0 {
						sum += s.Value
					}
					last = s.Value
				}
				return sum, nil
			},
			Fail: w.fail,
		}
	})
}
