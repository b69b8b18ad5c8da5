package cloudwatch

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"

	"github.com/berthd/berth/agent"
)

// The bounds of values and times (API reference, "PutMetricData"). The times
// leave a margin for clocks that differ and for the way.
const (
	maxPast   = 14*24*time.Hour - time.Hour
	maxFuture = 2*time.Hour - 15*time.Minute
)

var (
	largest  = math.Ldexp(1, 360)
	smallest = math.Ldexp(1, -360)
)

// dimension is one name and value, in CloudWatch's form.
type dimension struct{ name, value string }

// group is one data point: the samples of one name that have the same
// dimensions.
type group struct {
	key                  string // the name and the dimensions
	name                 string
	dims                 []dimension
	unit                 types.StandardUnit
	at                   time.Time
	count, sum, min, max float64
	samples              int                // that are in it
	totals               map[string]float64 // of the counters in it, by series, once it is accepted
}

// add takes one more value in.
func (g *group) add(v float64, at time.Time) {
	if g.samples == 0 {
		g.min, g.max = v, v
	}
	g.samples++
	g.count, g.sum = g.count+1, g.sum+v
	g.min, g.max = min(g.min, v), max(g.max, v)
	if at.After(g.at) {
		g.at = at
	}
}

// addGrowth takes the growth of a counter in. All of them are one value.
func (g *group) addGrowth(v float64, at time.Time, series string, total float64) {
	g.add(v, at)
	g.count, g.min, g.max = 1, g.sum, g.sum
	if g.totals == nil {
		g.totals = make(map[string]float64)
	}
	g.totals[series] = total
}

// datum returns the data point as the API has it.
func (g *group) datum() types.MetricDatum {
	d := types.MetricDatum{MetricName: aws.String(g.name), Unit: g.unit, Timestamp: aws.Time(g.at)}
	for _, dim := range g.dims {
		d.Dimensions = append(d.Dimensions, types.Dimension{Name: aws.String(dim.name), Value: aws.String(dim.value)})
	}
	if g.count == 1 {
		d.Value = aws.Float64(g.sum)
		return d
	}
	d.StatisticValues = &types.StatisticSet{
		SampleCount: aws.Float64(g.count), Sum: aws.Float64(g.sum), Minimum: aws.Float64(g.min), Maximum: aws.Float64(g.max),
	}
	return d
}

// size is the most bytes that the data point takes in a request: the strings,
// and what the encoding adds to them, which the tests measure.
func (g *group) size() int {
	n := 280 + len(g.name)
	for _, d := range g.dims {
		n += 24 + len(d.name) + len(d.value)
	}
	return n
}

// unitOf returns the unit of a metric, which its name ends with.
func unitOf(s agent.Sample) types.StandardUnit {
	base, total := strings.CutSuffix(s.Name, "_total")
	switch {
	case strings.HasSuffix(base, "_seconds"):
		return types.StandardUnitSeconds
	case strings.HasSuffix(base, "_bytes"):
		return types.StandardUnitBytes
	case strings.HasSuffix(base, "_percent"):
		return types.StandardUnitPercent
	case total && !strings.HasSuffix(base, "_cores"):
		return types.StandardUnitCount
	}
	return types.StandardUnitNone
}

// allowed reports whether a metric is among those to send.
func allowed(name string, metrics []string) bool {
	return slices.ContainsFunc(metrics, func(m string) bool {
		if beginning, ok := strings.CutSuffix(m, "*"); ok {
			return strings.HasPrefix(name, beginning)
		}
		return name == m
	})
}

// ascii replaces what CloudWatch does not take in the value of a dimension.
func ascii(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
	return s[:min(len(s), maxValue)]
}

// shape says how samples become data points.
type shape struct {
	metrics    []string
	dimensions []string          // labels, in the order of the configuration
	fixed      map[string]string // values of dimensions which are no labels, of this host
	tags       []dimension
}

// dimensionsOf returns the dimensions of a sample, sorted by name. A label of the
// sample comes before what the host says; one without value is no dimension.
func (sh shape) dimensionsOf(s agent.Sample) []dimension {
	dims := slices.Clone(sh.tags)
	for _, name := range sh.dimensions {
		value, ok := label(s, name)
		if !ok {
			value = sh.fixed[name]
		}
		if value = ascii(value); strings.TrimSpace(value) != "" {
			dims = append(dims, dimension{name, value})
		}
	}
	slices.SortFunc(dims, func(a, b dimension) int { return cmp.Compare(a.name, b.name) })
	return dims
}

func label(s agent.Sample, name string) (string, bool) {
	for _, l := range s.Labels {
		if l.Name == name {
			return l.Value, true
		}
	}
	return "", false
}

// seriesOf identifies a sample's series with all of its labels.
func seriesOf(s agent.Sample) string {
	var b strings.Builder
	b.WriteString(s.Name)
	for _, l := range s.Labels {
		b.WriteByte(0xff) // in no valid UTF-8
		b.WriteString(l.Name)
		b.WriteByte(0xff)
		b.WriteString(l.Value)
	}
	return b.String()
}

// totals remembers of each counter how much of it has been sent. Its zero value
// has seen no batch.
type totals struct{ sent map[string]sentTotal }

// sentTotal is how much of a counter has been sent, and when it was last there.
type sentTotal struct {
	value float64
	seen  time.Time
}

// assembled is what became of a batch of samples.
type assembled struct {
	groups []*group // in the order of the batch
	lost   map[string]int
}

// assemble makes data points of those samples that are to be sent. Of counters
// it takes the growth since they were last sent: nothing in the first batch, as
// it is not known when they grew; a counter that appears later, or is smaller
// than before, has grown from 0. One that is not in a batch is remembered for an
// hour, in case that its component is only away for a moment. What has grown
// counts as sent once commit is called.
func (t *totals) assemble(samples []agent.Sample, sh shape, now time.Time) assembled {
	out := assembled{lost: make(map[string]int)}
	first := t.sent == nil
	next := make(map[string]sentTotal, len(t.sent))
	byKey := make(map[string]*group)
	for _, s := range samples {
		if !allowed(s.Name, sh.metrics) {
			continue
		}
		at := s.Time
		if at.IsZero() {
			at = now
		}
		v := s.Value
		switch {
		case math.IsNaN(v) || math.Abs(v) > largest || s.Kind == agent.Counter && v < 0:
			out.lost["number"]++
			continue
		case now.Sub(at) > maxPast || at.Sub(now) > maxFuture:
			out.lost["time"]++
			continue
		case len(s.Name) > maxName:
			out.lost["name"]++
			continue
		}
		series, base := "", 0.0
		if s.Kind == agent.Counter {
			series = seriesOf(s)
			if first {
				next[series] = sentTotal{v, now}
				continue
			}
			if base = t.sent[series].value; v < base {
				base = 0 // the component has started anew
			}
			next[series] = sentTotal{base, now} // until it is accepted
		}
		dims := sh.dimensionsOf(s)
		key := keyOf(s.Name, dims)
		g := byKey[key]
		if g == nil {
			g = &group{key: key, name: s.Name, dims: dims, unit: unitOf(s)}
			byKey[key] = g
			out.groups = append(out.groups, g)
		}
		if s.Kind == agent.Counter {
			g.addGrowth(flush(v-base), at, series, v)
		} else {
			g.add(flush(v), at)
		}
	}
	for series, last := range t.sent {
		if _, there := next[series]; !there && now.Sub(last.seen) < holdTime {
			next[series] = last
		}
	}
	t.sent = next
	out.groups = slices.DeleteFunc(out.groups, func(g *group) bool {
		over := math.Abs(g.sum) > largest
		if over {
			out.lost["number"] += g.samples
		}
		return over
	})
	return out
}

// commit counts what a group has of counters as sent.
func (t *totals) commit(g *group) {
	for series, total := range g.totals {
		t.sent[series] = sentTotal{total, t.sent[series].seen}
	}
}

// flush returns 0 for what is too small for CloudWatch.
func flush(v float64) float64 {
	if math.Abs(v) < smallest {
		return 0
	}
	return v
}

func keyOf(name string, dims []dimension) string {
	var b strings.Builder
	b.WriteString(name)
	for _, d := range dims {
		b.WriteByte(0)
		b.WriteString(d.name)
		b.WriteByte('=')
		b.WriteString(d.value)
	}
	return b.String()
}
