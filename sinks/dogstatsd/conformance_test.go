package dogstatsd

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/sinks/sinktest"
)

// parseLine reads a line of DogStatsD, and returns the type that it has.
func parseLine(text string) (agent.Sample, string, error) {
	parts := strings.Split(text, "|")
	name, value, ok := strings.Cut(parts[0], ":")
	if !ok || len(parts) < 2 || len(parts) > 3 {
		return agent.Sample{}, "", fmt.Errorf("%q is no line of DogStatsD", text)
	}
	s := agent.Sample{Name: "berth_" + strings.TrimPrefix(name, "berth.")}
	var err error
	if s.Value, err = strconv.ParseFloat(value, 64); err != nil {
		return s, "", err
	}
	if len(parts) == 3 {
		for tag := range strings.SplitSeq(strings.TrimPrefix(parts[2], "#"), ",") {
			k, v, _ := strings.Cut(tag, ":")
			s.Labels = append(s.Labels, agent.Label{Name: k, Value: v})
		}
	}
	return s, parts[1], nil
}

func TestConformance(t *testing.T) {
	sinktest.MetricSink(t, func(t *testing.T) sinktest.MetricFixture {
		server := listen(t, "udp", "127.0.0.1:0")
		sink, _ := newSink(t, server.addr, nil)
		var all []string
		received := func(kind string) (out []agent.Sample, err error) {
			all = append(all, server.lines(t)...)
			for _, text := range all {
				s, k, err := parseLine(text)
				if err != nil {
					return nil, err
				}
				if k == kind {
					out = append(out, s)
				}
			}
			return out, nil
		}
		return sinktest.MetricFixture{
			Sink:   sink,
			Gauges: func() ([]agent.Sample, error) { return received("g") },
			Growth: func(name string) (sum float64, err error) {
				counts, err := received("c")
				for _, s := range counts {
					if s.Name == name {
						sum += s.Value
					}
				}
				return sum, err
			},
		}
	})
}
