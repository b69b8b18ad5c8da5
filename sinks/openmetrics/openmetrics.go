// Package openmetrics serves berth's figures to Prometheus and everything else
// that reads its format, as http://127.0.0.1:19469/metrics.
//
// # What is on the page
//
// The samples of every [Source], asked for at the moment of each scrape; how
// long each took to answer (berth_collector_seconds); and of the process what
// client_golang tells on Linux (process_*) and a few figures of the Go runtime
// (go_*). The names, kinds and labels are in METRICS.md. The sources are asked
// for anew each time, so that components may come and go with a reload.
//
// # What is left out
//
// A sample that breaks the rules of [agent.Sample], contradicts another one of
// its name or repeats it is left out, counted by
// berth_openmetrics_rejected_samples_total and named by the health condition
// "samples". So is what is left of a source that panics. The rest of the page is
// served: the figures of one component must not cost those of all others.
//
// # Where
//
// On loopback alone, without TLS and passwords. If the port is taken, the
// condition "listen" says so, and it is tried again for ever. The socket outlives
// a restart of berth where the service manager keeps it, so that a scrape in
// between waits and is not refused.
package openmetrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"

	"github.com/berthd/berth/agent"
)

// Name is the component's name in logs, health conditions and metrics.
const Name = "openmetrics"

// The names of the health conditions.
const (
	condListen  = "listen"
	condSamples = "samples"
)

const (
	// maxScrapes is how many scrapes are answered at once; others are told to
	// come back later (503). One scraper has one under way.
	maxScrapes = 8
	// writeTimeout bounds a scrape by a client that does not read on.
	writeTimeout = 30 * time.Second
	// stopTimeout bounds how long a stop waits for scrapes that are under way.
	stopTimeout = time.Second
	// firstPause and lastPause bound the pause between two tries to listen.
	firstPause, lastPause = time.Second, 30 * time.Second
)

// Source is a component whose samples are on the page.
type Source struct {
	Name    string // of the component
	Metered agent.Metered
}

// Server serves the page. Make it with New; its exported methods are safe for
// concurrent use, but Run is called once at a time.
type Server struct {
	cfg     Config
	log     *slog.Logger
	health  *agent.Scope
	sockets agent.Sockets // nil to open one's own
	sources func() []Source
	now     func() time.Time // for how long a source takes

	registry *prometheus.Registry
	handler  http.Handler
	addr     atomic.Pointer[netip.AddrPort]

	scrapes  atomic.Uint64
	rejected atomic.Uint64
	series   atomic.Int64 // on the newest page
}

var (
	_ agent.Metered       = (*Server)(nil)
	_ prometheus.Gatherer = (*Server)(nil)
)

// New returns a server, which listens on nothing until Run. It calls sources for
// each scrape, concurrently where scrapes are; the call must not block.
func New(cfg Config, env agent.Env, sources func() []Source) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure %s: %w", Name, err)
	}
	s := &Server{
		cfg:      cfg,
		log:      env.Log.With("component", Name),
		health:   env.Health.Scope(Name),
		sockets:  env.Sockets,
		sources:  sources,
		now:      time.Now,
		registry: prometheus.NewRegistry(),
	}
	s.health.Declare(condListen, agent.SeverityWarning, 0)
	s.health.Declare(condSamples, agent.SeverityWarning, 0)
	s.registry.MustRegister(
		collector{s},
		ownProcess{collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})},
		// Of the runtime's hundreds of figures, those which tell a leak.
		collectors.NewGoCollector(collectors.WithGoCollectorMemStatsMetricsDisabled()),
	)
	s.handler = s.routes()
	return s, nil
}

// Name returns "openmetrics".
func (s *Server) Name() string { return Name }

// Gather returns what a scrape would, as client_golang has it.
func (s *Server) Gather() ([]*dto.MetricFamily, error) { return s.registry.Gather() }

// Addr returns where the page is served now; it is not valid while it is not.
func (s *Server) Addr() netip.AddrPort {
	if a := s.addr.Load(); a != nil {
		return *a
	}
	return netip.AddrPort{}
}

// Summary returns the key figures in one line, for people.
func (s *Server) Summary() string {
	addr := s.Addr()
	if !addr.IsValid() {
		return "not listening"
	}
	return fmt.Sprintf("http://%s/metrics, %d series, %d scrapes", addr, s.series.Load(), s.scrapes.Load())
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{
		ErrorLog:            logger{s.log},
		ErrorHandling:       promhttp.ContinueOnError,
		DisableCompression:  true, // on loopback it only costs time
		MaxRequestsInFlight: maxScrapes,
		EnableOpenMetrics:   true,
	}))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintln(w, "berth's metrics are at /metrics.")
	})
	return mux
}

// logger is promhttp's way to our log.
type logger struct{ log *slog.Logger }

// Println implements promhttp.Logger.
func (l logger) Println(v ...any) { l.log.Warn("scrape failed", "err", fmt.Sprint(v...)) }

// Run serves until ctx ends. Its only errors are health conditions.
func (s *Server) Run(ctx context.Context) error {
	defer func() {
		s.health.Set(condListen, nil, "")
		s.health.Set(condSamples, nil, "")
	}()
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		ln, err := s.listen(ctx)
		if err == nil {
			s.health.Set(condListen, nil, "")
			pause = firstPause
			err = s.serve(ctx, ln)
		}
		if ctx.Err() != nil {
			return nil
		}
		s.health.Set(condListen, err, "see what else uses the port (ss -ltnp), or set openmetrics.listen to another one")
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
}

// listen opens the socket, one that outlives the server where there are such.
func (s *Server) listen(ctx context.Context) (net.Listener, error) {
	address := s.cfg.Listen.String()
	if s.sockets == nil {
		return new(net.ListenConfig).Listen(ctx, "tcp", address)
	}
	// Give up that of a configuration before, which may be in the way.
	s.sockets.Retain(func(_, kept string) bool { return kept == address })
	return s.sockets.Listen(ctx, "tcp", address, nil)
}

// serve answers on ln, and closes it when ctx ends.
func (s *Server) serve(ctx context.Context, ln net.Listener) error {
	addr := ln.Addr().(*net.TCPAddr).AddrPort()
	s.addr.Store(&addr)
	defer s.addr.Store(nil)
	srv := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: 5 * time.Second,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       2 * time.Minute, // longer than the usual interval of scrapes
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve metrics: %w", errors.Join(err, srv.Close()))
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if srv.Shutdown(end) != nil {
		_ = srv.Close()
	}
	<-served
	return nil
}
