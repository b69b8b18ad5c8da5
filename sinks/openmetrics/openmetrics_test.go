package openmetrics

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"go.uber.org/goleak"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/config"
	"github.com/berthd/berth/agent/sockets"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// metered yields fixed samples, and panics at the end if told to.
type metered struct {
	samples []agent.Sample
	panics  bool
}

func (m metered) Metrics(yield func(agent.Sample) bool) {
	for _, s := range m.samples {
		if !yield(s) {
			return
		}
	}
	if m.panics {
		panic("out of figures")
	}
}

func gauge(name string, value float64, labels ...agent.Label) agent.Sample {
	return agent.Sample{Name: name, Help: "A level.", Value: value, Labels: labels}
}

func counter(name string, value float64, labels ...agent.Label) agent.Sample {
	return agent.Sample{Name: name, Help: "A total.", Kind: agent.Counter, Value: value, Labels: labels}
}

func label(name, value string) agent.Label { return agent.Label{Name: name, Value: value} }

// newServer returns a server whose sources each take 2 ms to answer.
func newServer(t *testing.T, sources func() []Source) (*Server, *agent.Health) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	env := agent.Env{Log: log, Health: agent.NewHealth(log)}
	cfg := DefaultConfig()
	cfg.Listen = netip.MustParseAddrPort("127.0.0.1:0")
	s, err := New(cfg, env, sources)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	clock := time.Unix(0, 0)
	s.now = func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		clock = clock.Add(2 * time.Millisecond)
		return clock
	}
	return s, env.Health
}

func fixed(sources ...Source) func() []Source { return func() []Source { return sources } }

// scrape scrapes without a network, and returns the page without what the process
// tells of itself.
func scrape(t *testing.T, s *Server, accept string) string {
	t.Helper()
	req := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	req.Header.Set("Accept", accept)
	rec := httptest.NewRecorder()
	s.handler.ServeHTTP(rec, req)
	if rec.Code != http.StatusOK {
		t.Fatalf("got status %d, want 200: %s", rec.Code, rec.Body)
	}
	return own(rec.Body.String())
}

var commentForm = regexp.MustCompile(`^# (HELP|TYPE|UNIT) `)

// own drops the families of client_golang's collectors.
func own(page string) string {
	var b strings.Builder
	for line := range strings.Lines(page) {
		name := commentForm.ReplaceAllString(line, "")
		if !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// run runs the server until the test ends, and returns its address.
func run(t *testing.T, s *Server) netip.AddrPort {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: got %v, want nil", err)
		}
	})
	await(t, "the server to listen", func() bool { return s.Addr().IsValid() })
	return s.Addr()
}

func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited 10 s for %s", what)
		}
	}
}

func get(client *http.Client, addr netip.AddrPort, path string) (int, string, error) {
	res, err := client.Get(fmt.Sprintf("http://%s%s", addr, path))
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return res.StatusCode, string(body), err
}

func TestExposition(t *testing.T) {
	s, health := newServer(t, nil)
	s.sources = fixed(
		Source{"calc", metered{samples: []agent.Sample{
			gauge("berth_calc_records", 3),
			counter("berth_calc_queries_total", 7, label("rcode", "NOERROR"), label("transport", "udp")),
			counter("berth_calc_queries_total", 1, label("rcode", "REFUSED"), label("transport", "tcp")),
			gauge("berth_calc_ratio", math.NaN(), label("quote", "a \"b\"\\\n")),
			{Name: "berth_calc_stamped", Help: "A level.", Value: 1, Time: time.Unix(1700000000, 0)},
		}}},
		Source{Name, s},
	)
	for file, accept := range map[string]string{
		"page.txt":         "text/plain",
		"page.openmetrics": "application/openmetrics-text;version=1.0.0",
	} {
		s.scrapes.Store(0)
		got := []byte(scrape(t, s, accept))
		path := filepath.Join("testdata", file)
		if *update {
			if err := os.WriteFile(path, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s (-update to accept): want (-), got (+):\n%s", file, cmp.Diff(string(want), string(got)))
		}
	}
	if got := health.Conditions(); len(got) != 0 {
		t.Errorf("got conditions %v, want none", got)
	}
}

func TestProcessFigures(t *testing.T) {
	s, _ := newServer(t, fixed())
	families, err := s.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
	}
	for _, want := range []string{"process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds", "go_goroutines"} {
		if !slices.Contains(names, want) {
			t.Errorf("got %q, want %s among them", names, want)
		}
	}
	if slices.ContainsFunc(names, func(name string) bool { return strings.Contains(name, "network") }) {
		t.Errorf("got %q, want no traffic, which is not the process's own", names)
	}
	if len(names) > 20 {
		t.Errorf("got %d families of the process, want a few: %q", len(names), names)
	}
}

// Each bad sample comes between two good ones, which must both be on the page.
func TestBadSamplesAreLeftOut(t *testing.T) {
	first := counter("berth_calc_queries_total", 1, label("rcode", "NOERROR"))
	for _, tt := range []struct {
		name   string
		bad    agent.Sample
		reason string
	}{
		{"no prefix", gauge("calc_records", 1), "snake case"},
		{"camel case", gauge("berth_calcRecords", 1), "snake case"},
		{"no name", gauge("", 1), "snake case"},
		{"newline in name", gauge("berth_calc\nberth_x", 1), "snake case"},
		{"prefix alone", gauge("berth_", 1), "snake case"},
		{"counter without total", counter("berth_calc_queries", 1), "_total"},
		{"gauge with total", gauge("berth_calc_records_total", 1), "_total"},
		{"name of a histogram", gauge("berth_calc_seconds_bucket", 1), "histograms"},
		{"unknown kind", agent.Sample{Name: "berth_calc_x", Help: "X.", Kind: 9}, "kind"},
		{"no help", agent.Sample{Name: "berth_calc_x"}, "help"},
		{"help not UTF-8", agent.Sample{Name: "berth_calc_x", Help: "\xff"}, "help"},
		{"negative counter", counter("berth_calc_x_total", -1), "no value"},
		{"counter not a number", counter("berth_calc_x_total", math.NaN()), "no value"},
		{"label not a name", gauge("berth_calc_x", 1, label("a-b", "c")), "a-b"},
		{"reserved label", gauge("berth_calc_x", 1, label("le", "1")), "le"},
		{"dunder label", gauge("berth_calc_x", 1, label("__name__", "1")), "__name__"},
		{"value not UTF-8", gauge("berth_calc_x", 1, label("a", "\xff")), "UTF-8"},
		{"labels out of order", gauge("berth_calc_x", 1, label("b", ""), label("a", "")), "order"},
		{"label twice", gauge("berth_calc_x", 1, label("a", "1"), label("a", "2")), "order"},
		{"other labels", counter(first.Name, 1, label("transport", "udp")), "elsewhere"},
		{"fewer labels", counter(first.Name, 1), "elsewhere"},
		{"other help", agent.Sample{Name: first.Name, Help: "Else.", Kind: agent.Counter, Labels: []agent.Label{label("rcode", "X")}}, "help text"},
		{"repeated", counter(first.Name, 5, label("rcode", "NOERROR")), "twice"},
		{"of the page itself", gauge("berth_collector_seconds", 1, label("component", "calc")), "help text"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ahead := Source{"ahead", metered{samples: []agent.Sample{gauge("berth_ahead", 1)}}}
			s, health := newServer(t, fixed(ahead, Source{"calc", metered{samples: []agent.Sample{first, tt.bad, gauge("berth_calc_last", 3)}}}))
			page := scrape(t, s, "text/plain")
			for _, want := range []string{
				"berth_ahead 1\n",
				"berth_calc_queries_total{rcode=\"NOERROR\"} 1\n",
				"berth_calc_last 3\n",
				"berth_collector_seconds{component=\"calc\"} 0.002\n",
			} {
				if !strings.Contains(page, want) {
					t.Errorf("the page lacks %q:\n%s", want, page)
				}
			}
			if _, err := promlint.New(strings.NewReader(page)).Lint(); err != nil {
				t.Errorf("the page cannot be read: %v\n%s", err, page)
			}
			if got := strings.Count(page, "# TYPE "); got != 4 {
				t.Errorf("got %d families, want 4:\n%s", got, page)
			}
			if got := s.rejected.Load(); got != 1 {
				t.Errorf("got %d samples rejected, want 1", got)
			}
			err := health.Err(Name)
			if err == nil || !strings.Contains(err.Error(), tt.reason) || !strings.Contains(err.Error(), "of calc") {
				t.Errorf("got condition %v, want one of calc about %q", err, tt.reason)
			}
		})
	}
}

func TestConditionPassesWithTheBadSample(t *testing.T) {
	bad := true
	s, health := newServer(t, nil)
	s.sources = func() []Source {
		name := "berth_good"
		if bad {
			name = "bad"
		}
		return []Source{{"calc", metered{samples: []agent.Sample{gauge(name, 1)}}}}
	}
	scrape(t, s, "text/plain")
	if health.Err(Name) == nil {
		t.Error("got no condition with a bad sample")
	}
	bad = false
	scrape(t, s, "text/plain")
	if err := health.Err(Name); err != nil {
		t.Errorf("got condition %v after it, want none", err)
	}
}

func TestPanickingSource(t *testing.T) {
	s, health := newServer(t, fixed(
		Source{"bad", metered{samples: []agent.Sample{gauge("berth_bad_before", 1)}, panics: true}},
		Source{"good", metered{samples: []agent.Sample{gauge("berth_good", 2)}}},
	))
	page := scrape(t, s, "text/plain")
	for _, want := range []string{"berth_bad_before 1\n", "berth_good 2\n"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q:\n%s", want, page)
		}
	}
	if err := health.Err(Name); err == nil || !strings.Contains(err.Error(), "out of figures") {
		t.Errorf("got condition %v, want one about the panic", err)
	}
}

func TestOwnFiguresPassTheLinter(t *testing.T) {
	s, _ := newServer(t, nil)
	s.sources = fixed(Source{Name, s})
	families, err := s.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("got %v, error %v, want none", problems, err)
	}
}

// Scrapes run while sources come and go, as they do in a reload: each page must
// be whole, and hold either life of the component.
func TestScrapeUnderReload(t *testing.T) {
	lives := [2][]Source{}
	for i := range lives {
		lives[i] = []Source{
			{"stays", metered{samples: []agent.Sample{gauge("berth_stays", 1)}}},
			{"comes", metered{samples: []agent.Sample{gauge("berth_life", float64(i))}}},
		}
	}
	var current atomic.Pointer[[]Source]
	current.Store(&lives[0])
	s, health := newServer(t, func() []Source { return *current.Load() })
	addr := run(t, s)

	var scrapers, reloads sync.WaitGroup
	stop := make(chan struct{})
	reloads.Go(func() {
		for i := 1; ; i++ {
			select {
			case <-stop:
				return
			default:
				current.Store(&lives[i%2])
			}
		}
	})
	for range maxScrapes / 2 {
		scrapers.Go(func() {
			transport := &http.Transport{}
			defer transport.CloseIdleConnections()
			for range 25 {
				code, page, err := get(&http.Client{Transport: transport}, addr, "/metrics")
				if err != nil || code != http.StatusOK {
					t.Errorf("got status %d, error %v", code, err)
					return
				}
				if n := strings.Count(page, "\nberth_life "); n != 1 || !strings.Contains(page, "\nberth_stays 1\n") {
					t.Errorf("got %d lives on a page, want 1:\n%s", n, own(page))
				}
			}
		})
	}
	scrapers.Wait()
	close(stop)
	reloads.Wait()
	if got, want := s.scrapes.Load(), uint64(maxScrapes/2*25); got != want {
		t.Errorf("got %d scrapes counted, want %d", got, want)
	}
	if err := health.Err(Name); err != nil {
		t.Errorf("got condition %v, want none", err)
	}
}

// blocking yields nothing until it is released.
type blocking struct{ entered, release chan struct{} }

func (b blocking) Metrics(func(agent.Sample) bool) {
	b.entered <- struct{}{}
	<-b.release
}

func TestTooManyScrapesAreRefused(t *testing.T) {
	b := blocking{make(chan struct{}), make(chan struct{})}
	s, _ := newServer(t, fixed(Source{"slow", b}))
	var wg sync.WaitGroup
	for range maxScrapes {
		wg.Go(func() {
			rec := httptest.NewRecorder()
			s.handler.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
			if rec.Code != http.StatusOK {
				t.Errorf("got status %d, want 200", rec.Code)
			}
		})
	}
	for range maxScrapes {
		<-b.entered
	}
	extra := make(chan int, 1)
	wg.Go(func() {
		rec := httptest.NewRecorder()
		s.handler.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		extra <- rec.Code
	})
	select {
	case code := <-extra:
		if code != http.StatusServiceUnavailable {
			t.Errorf("one scrape too many: got status %d, want 503", code)
		}
	case <-b.entered:
		t.Error("one scrape too many: it was let in")
	}
	close(b.release)
	wg.Wait()
}

func TestServesNothingElse(t *testing.T) {
	s, _ := newServer(t, fixed())
	for _, tt := range []struct {
		method, path string
		want         int
	}{
		{http.MethodGet, "/", http.StatusOK},
		{http.MethodGet, "/metrics", http.StatusOK},
		{http.MethodPost, "/metrics", http.StatusMethodNotAllowed},
		{http.MethodGet, "/debug/pprof/", http.StatusNotFound},
		{http.MethodGet, "/metrics/x", http.StatusNotFound},
	} {
		rec := httptest.NewRecorder()
		s.handler.ServeHTTP(rec, httptest.NewRequest(tt.method, tt.path, nil))
		if rec.Code != tt.want {
			t.Errorf("%s %s: got %d, want %d", tt.method, tt.path, rec.Code, tt.want)
		}
	}
}

// A port that is taken is a condition, not an error, and passes.
func TestTakenPort(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	s, health := newServer(t, fixed())
	s.cfg.Listen = other.Addr().(*net.TCPAddr).AddrPort()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	await(t, "the condition", func() bool { return health.Err(Name) != nil })
	if got := s.Summary(); got != "not listening" {
		t.Errorf("got summary %q, want that it does not listen", got)
	}
	other.Close()
	await(t, "the server to listen", func() bool { return s.Addr() == s.cfg.Listen })
	if err := health.Err(Name); err != nil {
		t.Errorf("got condition %v after the port was free, want none", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
}

// A stop must not wait for a scraper that hangs.
func TestStopDuringScrape(t *testing.T) {
	b := blocking{make(chan struct{}), make(chan struct{})}
	s, _ := newServer(t, fixed(Source{"slow", b}))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	await(t, "the server to listen", func() bool { return s.Addr().IsValid() })
	addr := s.Addr()
	scraped := make(chan error, 1)
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	go func() {
		_, _, err := get(&http.Client{Transport: transport}, addr, "/metrics")
		scraped <- err
	}()
	<-b.entered
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
	select {
	case err := <-scraped:
		if err == nil {
			t.Error("the scrape: got no error, want that its connection was closed")
		}
		close(b.release)
	case <-time.After(10 * time.Second):
		t.Error("the scrape: its connection is still open 10 s after the stop")
		close(b.release)
		<-scraped
	}
	if s.Addr().IsValid() {
		t.Errorf("got address %v after the stop, want none", s.Addr())
	}
}

// A scrape that comes while the server is run anew waits for it.
func TestScrapeBetweenTwoRuns(t *testing.T) {
	registry := sockets.New(slog.New(slog.DiscardHandler))
	defer registry.Close()
	s, _ := newServer(t, fixed(Source{"calc", metered{samples: []agent.Sample{gauge("berth_calc", 1)}}}))
	s.sockets = registry.Scope(Name)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	await(t, "the server to listen", func() bool { return s.Addr().IsValid() })
	addr := s.Addr()
	cancel()
	if err := <-ended; err != nil {
		t.Fatalf("Run: got %v, want nil", err)
	}

	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatalf("between the runs: %v", err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "GET /metrics HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if got := run(t, s); got != addr {
		t.Errorf("got address %v in the second run, want %v", got, addr)
	}
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.Contains(string(answer), "\nberth_calc 1\n") {
		t.Errorf("got %q, error %v, want the page", answer, err)
	}

	// Another address takes the place of the first.
	other, _ := newServer(t, fixed())
	other.sockets = s.sockets
	other.cfg.Listen = netip.MustParseAddrPort("127.0.0.2:0")
	run(t, other)
	if got := registry.Names(); len(got) != 1 || !strings.Contains(got[0], "127.0.0.2") {
		t.Errorf("got the sockets %q, want that of the other address alone", got)
	}
}

func TestValidate(t *testing.T) {
	for _, tt := range []struct {
		listen string
		want   string // in the error, "" for none
	}{
		{"127.0.0.1:19469", ""},
		{"127.1.2.3:9100", ""},
		{"[::1]:19469", ""},
		{"[::ffff:127.0.0.1]:19469", ""},
		{"0.0.0.0:19469", "loopback"},
		{"[::]:19469", "loopback"},
		{"10.0.0.1:19469", "loopback"},
		{"172.17.0.1:19469", "loopback"},
		{"192.0.2.1:19469", "loopback"},
		{"", "missing"},
	} {
		var cfg Config
		if tt.listen != "" {
			cfg.Listen = netip.MustParseAddrPort(tt.listen)
		}
		err := cfg.Validate()
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: got %v, want %q", tt.listen, err, tt.want)
		}
		if _, ok := errors.AsType[*config.FieldError](err); err != nil && !ok {
			t.Errorf("%s: got %T, want *config.FieldError", tt.listen, err)
		}
	}
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("the defaults: got %v, want nil", err)
	}
	if _, err := New(Config{}, agent.Env{}, nil); err == nil {
		t.Error("New with a bad config: got no error")
	}
}

func BenchmarkScrape(b *testing.B) {
	var samples []agent.Sample
	for i := range 100 { // containers
		labels := []agent.Label{label("container", fmt.Sprint(i)), label("environment", "prod"), label("service", "calc")}
		for j := range 20 {
			samples = append(samples, gauge(fmt.Sprint("berth_calc_x", j), 1, labels...))
		}
	}
	log := slog.New(slog.DiscardHandler)
	s, err := New(DefaultConfig(), agent.Env{Log: log, Health: agent.NewHealth(log)}, fixed(Source{"calc", metered{samples: samples}}))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		rec := httptest.NewRecorder()
		s.handler.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	}
}
