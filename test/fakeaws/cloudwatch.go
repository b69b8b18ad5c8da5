package fakeaws

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Datum is one accepted data point, as PutMetricData brought it.
type Datum struct {
	Namespace, Name string
	Dimensions      string // "a=1,b=2", sorted by name
	Unit            string // "None" where none was given
	Time            time.Time
	// The statistics of the values: one value is a set of one.
	Count, Sum, Min, Max float64
	Resolution           int // seconds: 60 or 1
}

// key identifies the metric that a data point belongs to.
func (d Datum) key() metricKey { return metricKey{d.Namespace, d.Name, d.Dimensions} }

type metricKey struct{ namespace, name, dimensions string }

// dimensionsOf returns dimensions in the form of Datum.Dimensions.
func dimensionsOf(m map[string]string) string {
	parts := make([]string, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, k+"="+m[k])
	}
	return strings.Join(parts, ",")
}

// CloudWatch is an account's CloudWatch in one region, with PutMetricData and
// GetMetricData of the Smithy RPC v2 protocol in CBOR, which is what the SDK for
// Go speaks since version 1.56 of its client. It refuses what AWS documents as
// refused, and a few things more that no client of ours has a reason to send:
// members that it does not know, dimensions that are there twice, entities,
// expressions. All methods are safe for concurrent use.
type CloudWatch struct {
	url    string
	server *http.Server
	served chan struct{}

	mu        sync.Mutex
	now       func() time.Time
	data      []Datum
	byMetric  map[metricKey][]Datum
	rate      float64
	burst     float64
	bucket    *bucket
	pageSize  int
	status    map[string]string
	namespace []string // that may be written; nil is all
	faults    map[string][]Fault
	always    map[string]Fault
	calls     map[string]int
	sizes     []int
	bodies    []int
	gzipped   int
	refused   []string
	released  chan struct{} // closed to let go of requests that hang
}

// StartCloudWatch starts a service without data. Close it.
func StartCloudWatch() (*CloudWatch, error) {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start cloudwatch: %w", err)
	}
	c := &CloudWatch{
		url:      "http://" + l.Addr().String(),
		served:   make(chan struct{}),
		now:      time.Now,
		byMetric: make(map[metricKey][]Datum),
		bucket:   new(bucket),
		status:   make(map[string]string),
		faults:   make(map[string][]Fault),
		always:   make(map[string]Fault),
		calls:    make(map[string]int),
		released: make(chan struct{}),
	}
	c.server = &http.Server{Handler: http.HandlerFunc(c.serve), ReadHeaderTimeout: 5 * time.Second}
	go func() {
		defer close(c.served)
		_ = c.server.Serve(l)
	}()
	return c, nil
}

// ServeCloudWatch starts a service that ends with the test.
func ServeCloudWatch(t testing.TB) *CloudWatch {
	t.Helper()
	c, err := StartCloudWatch()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// Close ends the service.
func (c *CloudWatch) Close() {
	c.Heal()
	c.server.Close()
	<-c.served
}

// URL returns the service's address, for an endpoint.
func (c *CloudWatch) URL() string { return c.url }

// Put stores one value behind everyone's back, as AWS's own services do: the
// namespace may begin with AWS/, and the time may be any.
func (c *CloudWatch) Put(namespace, name string, dimensions map[string]string, at time.Time, value float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := Datum{
		Namespace: namespace, Name: name, Dimensions: dimensionsOf(dimensions), Unit: "Percent", Time: at,
		Count: 1, Sum: value, Min: value, Max: value, Resolution: 60,
	}
	c.byMetric[d.key()] = append(c.byMetric[d.key()], d)
}

// Data returns every data point that PutMetricData has accepted so far, in the
// order in which they came.
func (c *CloudWatch) Data() []Datum {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.data)
}

// Calls returns how many calls there were of each action, refused ones too.
func (c *CloudWatch) Calls() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.calls)
}

// BatchSizes returns how many data points each accepted PutMetricData had.
func (c *CloudWatch) BatchSizes() []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.sizes)
}

// BodySizes returns how many bytes each accepted PutMetricData had, not
// compressed, and Gzipped how many requests were compressed.
func (c *CloudWatch) BodySizes() []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.bodies)
}

// Gzipped returns how many requests came compressed.
func (c *CloudWatch) Gzipped() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gzipped
}

// Refusals returns what was said to each request that was refused for what it
// had in it. A client that checks its own requests causes none.
func (c *CloudWatch) Refusals() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.refused)
}

// SetRate sets how many calls a second there may be, and the burst. A rate of 0
// is no limit. The bucket is full again.
func (c *CloudWatch) SetRate(rate, burst float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rate, c.burst, c.bucket = rate, burst, new(bucket)
}

// SetPageSize sets how many data points one answer of GetMetricData has at most;
// 0 is as many as were asked for.
func (c *CloudWatch) SetPageSize(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pageSize = n
}

// SetStatus sets the StatusCode of the results of one metric, such as
// "InternalError", which comes without data. "" is the normal one.
func (c *CloudWatch) SetStatus(metric, code string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status[metric] = code
}

// SetNow sets the service's clock.
func (c *CloudWatch) SetNow(now func() time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = now
}

// Allow makes PutMetricData be denied but for these namespaces, as a policy does
// that has the condition cloudwatch:namespace.
func (c *CloudWatch) Allow(namespaces ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.namespace = namespaces
}

// Inject makes the next calls of an action fail, one for each fault.
func (c *CloudWatch) Inject(action string, faults ...Fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults[action] = append(c.faults[action], faults...)
}

// Always makes every call of an action fail until Heal.
func (c *CloudWatch) Always(action string, f Fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.always[action] = f
}

// Heal ends all faults, and lets go of what hangs.
func (c *CloudWatch) Heal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.faults)
	clear(c.always)
	close(c.released)
	c.released = make(chan struct{})
}

// fault returns the fault of this call, if it has one.
func (c *CloudWatch) fault(action string) (Fault, bool) {
	if q := c.faults[action]; len(q) > 0 {
		c.faults[action] = q[1:]
		return q[0], true
	}
	f, ok := c.always[action]
	return f, ok
}

// accept stores data points.
func (c *CloudWatch) accept(data []Datum) {
	c.data = append(c.data, data...)
	for _, d := range data {
		c.byMetric[d.key()] = append(c.byMetric[d.key()], d)
	}
}

// point is one period of one metric.
type point struct {
	at                   time.Time
	count, sum, min, max float64
}

// points returns the periods of a metric from start until before end, newest
// first. Those that end after the retention of one-minute data are not there.
func (c *CloudWatch) points(k metricKey, start, end time.Time, period time.Duration) []point {
	byPeriod := map[int64]*point{}
	oldest := c.now().Add(-retention(period))
	for _, d := range c.byMetric[k] {
		at := d.Time.Truncate(period)
		if at.Before(start) || !at.Before(end) || at.Before(oldest) {
			continue
		}
		p := byPeriod[at.Unix()]
		if p == nil {
			p = &point{at: at, min: math.Inf(1), max: math.Inf(-1)}
			byPeriod[at.Unix()] = p
		}
		p.count, p.sum = p.count+d.Count, p.sum+d.Sum
		p.min, p.max = min(p.min, d.Min), max(p.max, d.Max)
	}
	return slices.SortedFunc(func(yield func(point) bool) {
		for _, p := range byPeriod {
			if !yield(*p) {
				return
			}
		}
	}, func(a, b point) int { return cmp.Compare(b.at.UnixNano(), a.at.UnixNano()) })
}

// retention is how long data points of a period are kept (API reference,
// "GetMetricStatistics").
func retention(period time.Duration) time.Duration {
	const day = 24 * time.Hour
	switch {
	case period < time.Minute:
		return 3 * time.Hour
	case period < 5*time.Minute:
		return 15 * day
	case period < time.Hour:
		return 63 * day
	}
	return 455 * day
}
