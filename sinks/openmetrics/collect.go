package openmetrics

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/berthd/berth/agent"
)

// collector gathers the samples of all sources for one scrape.
type collector struct{ server *Server }

// Describe says nothing: which samples there are depends on the sources.
func (c collector) Describe(chan<- *prometheus.Desc) {}

// Collect asks every source.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	s := c.server
	p := newPage(func(m prometheus.Metric) { ch <- m })
	for _, src := range s.sources() {
		begin := s.now()
		p.source(src)
		p.add(Name, agent.Sample{
			Name: "berth_collector_seconds", Help: "How long a component took to tell its figures for this scrape.",
			Value: s.now().Sub(begin).Seconds(), Labels: []agent.Label{{Name: "component", Value: src.Name}},
		})
	}
	s.scrapes.Add(1)
	s.rejected.Add(p.rejected)
	s.series.Store(p.series)
	s.health.Set(condSamples, p.err(), "the rest of the page is right; please report it with the output of berth support")
}

// Metrics yields the server's own figures, as of the scrapes before this one.
func (s *Server) Metrics(yield func(agent.Sample) bool) {
	_ = yield(agent.Sample{
		Name: "berth_openmetrics_scrapes_total", Help: "Times that the page of metrics was made.",
		Kind: agent.Counter, Value: float64(s.scrapes.Load()),
	}) && yield(agent.Sample{
		Name: "berth_openmetrics_rejected_samples_total", Help: "Samples left out of the page because they broke its rules.",
		Kind: agent.Counter, Value: float64(s.rejected.Load()),
	})
}

// page is what one scrape gathers. It passes on only what the text format can
// hold, so that one wrong sample does not spoil the page.
type page struct {
	emit     func(prometheus.Metric)
	families map[string]*family
	values   values
	rejected uint64
	series   int64
	first    error // why the first sample was rejected
}

// family is all samples of one name. The first of them decides.
type family struct {
	kind   agent.SampleKind
	help   string
	labels []string
	desc   *prometheus.Desc
	seen   map[string]struct{} // label values
}

func newFamily(s agent.Sample) *family {
	f := &family{kind: s.Kind, help: s.Help, labels: make([]string, len(s.Labels)), seen: make(map[string]struct{})}
	for i, l := range s.Labels {
		f.labels[i] = l.Name
	}
	f.desc = prometheus.NewDesc(s.Name, s.Help, f.labels, nil)
	return f
}

func newPage(emit func(prometheus.Metric)) *page {
	return &page{emit: emit, families: make(map[string]*family)}
}

// source adds all samples of one source. If it panics, what it told before that
// stays.
func (p *page) source(src Source) {
	defer func() {
		if r := recover(); r != nil {
			p.reject(fmt.Errorf("%s: panic: %v", src.Name, r))
		}
	}()
	for sample := range src.Metered.Metrics {
		p.add(src.Name, sample)
	}
}

// add adds one sample of a component, or rejects it.
func (p *page) add(component string, s agent.Sample) {
	m, err := p.metric(s)
	if err != nil {
		p.reject(fmt.Errorf("%s of %s: %w", quoted(s.Name), component, err))
		return
	}
	p.series++
	p.emit(m)
}

func (p *page) reject(err error) {
	p.rejected++
	if p.first == nil {
		p.first = err
	}
}

// err sums up what was rejected.
func (p *page) err() error {
	if p.rejected == 0 {
		return nil
	}
	return fmt.Errorf("%d samples are left out of the metrics, among them %w", p.rejected, p.first)
}

// metric turns a sample into what client_golang wants.
func (p *page) metric(s agent.Sample) (prometheus.Metric, error) {
	f := p.families[s.Name]
	switch {
	case f == nil:
		if err := checkFamily(s); err != nil {
			return nil, err
		}
		f = newFamily(s)
	case f.kind != s.Kind:
		return nil, fmt.Errorf("it is a %v here and a %v elsewhere", s.Kind, f.kind)
	case f.help != s.Help:
		return nil, errors.New("its help text differs from that of another sample of the name")
	case !slices.EqualFunc(f.labels, s.Labels, func(name string, l agent.Label) bool { return name == l.Name }):
		return nil, fmt.Errorf("its labels are %q here and %q elsewhere", newFamily(s).labels, f.labels)
	}
	if s.Kind == agent.Counter && (math.IsNaN(s.Value) || s.Value < 0) {
		return nil, fmt.Errorf("%v is no value of a counter", s.Value)
	}
	if err := p.values.set(s.Labels); err != nil {
		return nil, err
	}
	p.families[s.Name] = f
	if _, dup := f.seen[p.values.key]; dup {
		return nil, fmt.Errorf("it is there twice with the label values %q", strings.Split(p.values.key, separator))
	}
	f.seen[p.values.key] = struct{}{}
	m := &metric{desc: f.desc, kind: s.Kind, value: s.Value, labels: p.values.pairs}
	if !s.Time.IsZero() {
		at := s.Time.UnixMilli()
		m.at = &at
	}
	return m, nil
}

// values are the label values of a sample. Those of one container follow each
// other and have the same ones, which are made once for all of them.
type values struct {
	of    []agent.Label
	key   string
	pairs []*dto.LabelPair // shared, and never changed
}

// separator is in no valid UTF-8.
const separator = "\xff"

func (v *values) set(labels []agent.Label) error {
	if v.pairs != nil && slices.Equal(v.of, labels) {
		return nil
	}
	for _, l := range labels {
		if !utf8.ValidString(l.Value) {
			return fmt.Errorf("the value of its label %s is not UTF-8", l.Name)
		}
	}
	v.of = append(v.of[:0], labels...)
	pairs := make([]dto.LabelPair, len(labels))
	v.pairs = make([]*dto.LabelPair, len(labels))
	text := make([]string, len(labels))
	for i, l := range labels {
		text[i] = l.Value
		pairs[i].Name, pairs[i].Value = &l.Name, &l.Value
		v.pairs[i] = &pairs[i]
	}
	v.key = strings.Join(text, separator)
	return nil
}

// metric is one sample, as client_golang wants it.
type metric struct {
	desc   *prometheus.Desc
	kind   agent.SampleKind
	value  float64
	labels []*dto.LabelPair
	at     *int64 // ms since 1970; nil for none
}

// Desc implements prometheus.Metric.
func (m *metric) Desc() *prometheus.Desc { return m.desc }

// Write implements prometheus.Metric.
func (m *metric) Write(out *dto.Metric) error {
	out.Label, out.TimestampMs = m.labels, m.at
	if m.kind == agent.Counter {
		out.Counter = &dto.Counter{Value: &m.value}
	} else {
		out.Gauge = &dto.Gauge{Value: &m.value}
	}
	return nil
}

var (
	nameForm  = regexp.MustCompile(`^berth(_[a-z0-9]+)+$`)
	labelForm = regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)
)

// reservedSuffixes and reservedLabels belong to histograms and summaries.
var (
	reservedSuffixes = []string{"_bucket", "_count", "_sum"}
	reservedLabels   = []string{"le", "quantile"}
)

// checkFamily returns how what all samples of a name share breaks the rules. It
// is asked once for each: most of a page is the same few names, again and again.
func checkFamily(s agent.Sample) error {
	switch total := strings.HasSuffix(s.Name, "_total"); {
	case !nameForm.MatchString(s.Name):
		return errors.New("its name is not in snake case with berth_ in front")
	case s.Kind != agent.Gauge && s.Kind != agent.Counter:
		return fmt.Errorf("it is of no known kind (%d)", uint8(s.Kind))
	case s.Kind == agent.Counter && !total:
		return errors.New("it is a counter, and its name does not end in _total")
	case s.Kind != agent.Counter && total:
		return errors.New("its name ends in _total, and it is no counter")
	case slices.ContainsFunc(reservedSuffixes, func(suffix string) bool { return strings.HasSuffix(s.Name, suffix) }):
		return errors.New("its name ends as those of histograms do")
	case s.Help == "" || !utf8.ValidString(s.Help):
		return errors.New("it has no help text in UTF-8")
	}
	for i, l := range s.Labels {
		switch {
		case !labelForm.MatchString(l.Name) || slices.Contains(reservedLabels, l.Name):
			return fmt.Errorf("it has a label with the name %s", quoted(l.Name))
		case i > 0 && s.Labels[i-1].Name >= l.Name:
			return fmt.Errorf("its labels %s and %s are not in order", s.Labels[i-1].Name, l.Name)
		}
	}
	return nil
}

// quoted quotes a name that may be anything, cut to a bearable length.
func quoted(name string) string { return fmt.Sprintf("%.64q", name) }

// ownProcess is client_golang's collector of a process without its traffic: what
// /proc/self/net tells is that of the whole network namespace, which on a host is
// everybody's and not berth's.
type ownProcess struct{ prometheus.Collector }

// Describe says nothing: the traffic could not be left out of it.
func (ownProcess) Describe(chan<- *prometheus.Desc) {}

// Collect passes on all but the traffic.
func (c ownProcess) Collect(ch chan<- prometheus.Metric) {
	all := make(chan prometheus.Metric)
	go func() {
		defer close(all)
		c.Collector.Collect(all)
	}()
	for m := range all {
		if !strings.Contains(m.Desc().String(), "process_network_") {
			ch <- m
		}
	}
}
