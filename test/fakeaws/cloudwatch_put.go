package fakeaws

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// The limits of PutMetricData (API reference, "PutMetricData", "MetricDatum" and
// "Dimension"; CloudWatch service quotas).
const (
	maxMetrics    = 1000
	maxDimensions = 30
	maxUnique     = 150 // different values of one data point
	maxName       = 255 // characters, of namespaces, metrics and dimensions
	maxDimension  = 1024
	maxPast       = 14 * 24 * time.Hour
	maxFuture     = 2 * time.Hour
)

var (
	// The magnitude of a value is at most 2^360. Values that are not 0 and smaller
	// than 2^-360 are "too small".
	maxValue = math.Ldexp(1, 360)
	minValue = math.Ldexp(1, -360)
)

var units = map[string]bool{
	"Seconds": true, "Microseconds": true, "Milliseconds": true,
	"Bytes": true, "Kilobytes": true, "Megabytes": true, "Gigabytes": true, "Terabytes": true,
	"Bits": true, "Kilobits": true, "Megabits": true, "Gigabits": true, "Terabits": true,
	"Percent": true, "Count": true,
	"Bytes/Second": true, "Kilobytes/Second": true, "Megabytes/Second": true, "Gigabytes/Second": true, "Terabytes/Second": true,
	"Bits/Second": true, "Kilobits/Second": true, "Megabits/Second": true, "Gigabits/Second": true, "Terabits/Second": true,
	"Count/Second": true, "None": true,
}

// members reads the members of a structure. The first thing that is wrong stays
// in err; all that is read afterwards is empty.
type members struct {
	path   string
	fields map[string]any
	err    *cwError
}

func (m *members) fail(err *cwError) {
	if m.err == nil {
		m.err = err
	}
}

// take returns a member of a type and removes it; ok is whether it was there.
func take[T any](m *members, name string) (v T, ok bool) {
	raw, there := m.fields[name]
	delete(m.fields, name)
	if !there || m.err != nil {
		return v, false
	}
	if v, ok = raw.(T); !ok {
		m.fail(malformed("%s%s: a %T cannot be read", m.path, name, raw))
	}
	return v, ok
}

// number returns a member that is a double. CBOR may write it as an integer.
func (m *members) number(name string) (float64, bool) {
	if n, ok := m.fields[name].(int64); ok {
		m.fields[name] = float64(n)
	}
	return take[float64](m, name)
}

// structure returns a member that is a structure.
func (m *members) structure(name string) (*members, bool) {
	f, ok := take[map[string]any](m, name)
	return &members{path: m.path + name + ".", fields: f, err: m.err}, ok
}

// list calls f with each element of a list of structures.
func (m *members) list(name string, f func(*members)) int {
	list, _ := take[[]any](m, name)
	for i, e := range list {
		fields, ok := e.(map[string]any)
		if !ok {
			m.fail(malformed("%s%s[%d]: a %T cannot be read", m.path, name, i, e))
			return 0
		}
		sub := &members{path: fmt.Sprintf("%s%s.member.%d.", m.path, name, i+1), fields: fields}
		f(sub)
		sub.done()
		if sub.err != nil {
			m.fail(sub.err)
			return 0
		}
	}
	return len(list)
}

// numbers returns a list of doubles.
func (m *members) numbers(name string) ([]float64, bool) {
	list, ok := take[[]any](m, name)
	out := make([]float64, len(list))
	for i, e := range list {
		switch e := e.(type) {
		case float64:
			out[i] = e
		case int64:
			out[i] = float64(e)
		default:
			m.fail(malformed("%s%s: a %T cannot be read", m.path, name, e))
		}
	}
	return out, ok
}

// done refuses members that were not read.
func (m *members) done() {
	for name := range m.fields {
		m.fail(malformed("%s%s is not known here", m.path, name))
	}
}

// text returns a required string that obeys the rules for names.
func (m *members) text(name string, most int) string {
	s, ok := take[string](m, name)
	switch {
	case m.err != nil:
	case !ok || s == "":
		m.fail(missing(m.path + name))
	case len(s) > most:
		m.fail(invalidValue("The value for parameter %s%s is longer than %d characters.", m.path, name, most))
	case strings.TrimSpace(s) == "":
		m.fail(invalidValue("The parameter %s%s must contain at least one non-whitespace character.", m.path, name))
	case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }):
		m.fail(invalidValue("The value %q for parameter %s%s contains non-ASCII or control characters.", s, m.path, name))
	}
	return s
}

// namespaceText returns a namespace (User Guide, "Namespaces").
func (m *members) namespaceText(name string) string {
	s := m.text(name, maxName)
	if m.err == nil && (strings.HasPrefix(s, ":") || strings.ContainsFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune(".-_/#: ", r))
	})) {
		m.fail(invalidValue("The value %s for parameter %s%s is invalid.", s, m.path, name))
	}
	return s
}

// dimensions reads a list of dimensions.
func (m *members) dimensions() string {
	found := map[string]string{}
	n := m.list("Dimensions", func(d *members) {
		name, value := d.text("Name", maxName), d.text("Value", maxDimension)
		if d.err == nil && strings.HasPrefix(name, ":") {
			d.fail(invalidValue("The value %s for parameter %sName is invalid.", name, d.path))
		}
		if _, twice := found[name]; twice {
			d.fail(invalidValue("The dimension %s is there twice.", name))
		}
		found[name] = value
	})
	if n > maxDimensions {
		m.fail(invalidValue("The collection %sDimensions must not have a size greater than %d.", m.path, maxDimensions))
	}
	return dimensionsOf(found)
}

// valid checks a value of a metric.
func (m *members) valid(name string, v float64) {
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		m.fail(invalidValue("The value %v for parameter %s%s is invalid.", v, m.path, name))
	case math.Abs(v) > maxValue, v != 0 && math.Abs(v) < minValue:
		m.fail(invalidValue("The value %v for parameter %s%s is out of range.", v, m.path, name))
	}
}

// parsePut reads a PutMetricData request, which is taken whole or not at all.
func parsePut(m *members, now time.Time) ([]Datum, *cwError) {
	namespace := m.namespaceText("Namespace")
	if m.err == nil && strings.HasPrefix(strings.ToUpper(namespace), "AWS/") {
		m.fail(invalidValue("The value %s for parameter Namespace is invalid: it is reserved.", namespace))
	}
	var data []Datum
	n := m.list("MetricData", func(d *members) {
		data = append(data, parseDatum(d, namespace, now))
	})
	switch {
	case n > maxMetrics:
		m.fail(invalidValue("The collection MetricData must not have a size greater than %d.", maxMetrics))
	case n == 0:
		m.fail(missing("MetricData"))
	}
	m.done()
	return data, m.err
}

func parseDatum(m *members, namespace string, now time.Time) Datum {
	d := Datum{Namespace: namespace, Name: m.text("MetricName", maxName), Dimensions: m.dimensions(), Unit: "None", Resolution: 60}
	if u, ok := take[string](m, "Unit"); ok {
		if d.Unit = u; !units[u] {
			m.fail(invalidValue("The parameter %sUnit must be a value in the set of units, not %q.", m.path, u))
		}
	}
	if r, ok := take[int64](m, "StorageResolution"); ok {
		if d.Resolution = int(r); r != 1 && r != 60 {
			m.fail(invalidValue("The parameter %sStorageResolution must be 1 or 60.", m.path))
		}
	}
	d.Time = now
	if at, ok := take[time.Time](m, "Timestamp"); ok {
		d.Time = at
		if at.Before(now.Add(-maxPast)) || at.After(now.Add(maxFuture)) {
			m.fail(invalidValue("The parameter %sTimestamp must specify a time within the past two weeks, and at most two hours in the future.", m.path))
		}
	}
	m.values(&d)
	return d
}

// values reads one value, a list of values, or a set of statistics.
func (m *members) values(d *Datum) {
	value, hasValue := m.number("Value")
	values, hasValues := m.numbers("Values")
	counts, hasCounts := m.numbers("Counts")
	set, hasSet := m.structure("StatisticValues")
	forms := 0
	for _, has := range []bool{hasValue, hasValues, hasSet} {
		if has {
			forms++
		}
	}
	switch {
	case m.err != nil:
	case forms == 0:
		m.fail(missing(m.path + "Value"))
	case forms > 1:
		m.fail(invalidCombination("The parameters %sValue, Values and StatisticValues are mutually exclusive.", m.path))
	case hasCounts && !hasValues:
		m.fail(invalidCombination("The parameter %sCounts needs Values.", m.path))
	case hasValue:
		m.valid("Value", value)
		d.Count, d.Sum, d.Min, d.Max = 1, value, value, value
	case hasSet:
		set.statistics(d)
		m.err = set.err
	default:
		m.valuesAndCounts(d, values, counts, hasCounts)
	}
}

func (m *members) valuesAndCounts(d *Datum, values, counts []float64, hasCounts bool) {
	unique := map[float64]bool{}
	for _, v := range values {
		m.valid("Values", v)
		unique[v] = true
	}
	switch {
	case len(values) == 0:
		m.fail(missing(m.path + "Values"))
	case len(unique) != len(values) || len(values) > maxUnique:
		m.fail(invalidValue("The parameter %sValues must have at most %d values, each once.", m.path, maxUnique))
	case hasCounts && len(counts) != len(values):
		m.fail(invalidValue("The parameters %sValues and Counts must be of the same size.", m.path))
	}
	d.Min, d.Max = math.Inf(1), math.Inf(-1)
	for i, v := range values {
		n := 1.0
		if hasCounts && i < len(counts) {
			n = counts[i]
			m.valid("Counts", n)
			if !(n > 0) {
				m.fail(invalidValue("The parameter %sCounts must be greater than 0.", m.path))
			}
		}
		d.Count, d.Sum = d.Count+n, d.Sum+n*v
		d.Min, d.Max = min(d.Min, v), max(d.Max, v)
	}
}

// statistics reads a set of statistics, which must be that of some values.
func (m *members) statistics(d *Datum) {
	read := func(name string) float64 {
		v, ok := m.number(name)
		if !ok {
			m.fail(missing(m.path + name))
		}
		m.valid(name, v)
		return v
	}
	d.Count, d.Sum, d.Min, d.Max = read("SampleCount"), read("Sum"), read("Minimum"), read("Maximum")
	m.done()
	slack := 1e-9 * (math.Abs(d.Sum) + d.Count*(math.Abs(d.Min)+math.Abs(d.Max)))
	switch {
	case m.err != nil:
	case !(d.Count > 0):
		m.fail(invalidValue("The parameter %sSampleCount must be greater than 0.", m.path))
	case d.Min > d.Max:
		m.fail(invalidValue("The parameter %sMaximum must be at least Minimum.", m.path))
	case d.Sum < d.Count*d.Min-slack || d.Sum > d.Count*d.Max+slack:
		m.fail(invalidValue("The parameter %sSum is not that of %v values from Minimum to Maximum.", m.path, d.Count))
	}
}
