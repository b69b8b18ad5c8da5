package dogstatsd

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func gauge(name string, value float64, labels ...agent.Label) agent.Sample {
	return agent.Sample{Name: name, Help: "A level.", Value: value, Labels: labels}
}

func counter(name string, value float64, labels ...agent.Label) agent.Sample {
	return agent.Sample{Name: name, Help: "A total.", Kind: agent.Counter, Value: value, Labels: labels}
}

func label(name, value string) agent.Label { return agent.Label{Name: name, Value: value} }

// receiver is a server that a sink sends to.
type receiver struct {
	net.PacketConn
	addr string
}

func listen(t *testing.T, network, address string) receiver {
	t.Helper()
	conn, err := new(net.ListenConfig).ListenPacket(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return receiver{conn, conn.LocalAddr().String()}
}

// end is a packet that no sink sends.
const end = "end"

// lines returns all lines that have been received, sorted. When Write returns,
// the kernel has queued its packets here, and a last one comes after them.
func (r receiver) lines(t *testing.T) []string {
	t.Helper()
	conn, err := net.Dial(r.LocalAddr().Network(), r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(end)); err != nil {
		t.Fatal(err)
	}
	lines := []string{}
	for buf := make([]byte, 1<<16); ; {
		n, _, err := r.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		packet := string(buf[:n])
		if packet == end {
			slices.Sort(lines)
			return lines
		}
		lines = append(lines, strings.Split(strings.TrimRight(packet, "\n"), "\n")...)
	}
}

func newSink(t *testing.T, address string, change func(*Config)) (*Sink, *agent.Health) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	env := agent.Env{Log: log, Health: agent.NewHealth(log)}
	cfg := DefaultConfig()
	cfg.Enabled, cfg.Address = true, address
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg, env)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: got %v, want nil", err)
		}
	})
	return s, env.Health
}

func write(t *testing.T, s *Sink, samples ...agent.Sample) {
	t.Helper()
	if err := s.Write(t.Context(), samples); err != nil {
		t.Fatalf("Write: got %v, want nil", err)
	}
}

func equal(t *testing.T, what string, got, want []string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: want (-), got (+):\n%s", what, diff)
	}
}

func TestSamples(t *testing.T) {
	batch := func(queries float64) []agent.Sample {
		return []agent.Sample{
			gauge("berth_calc_records", 3),
			gauge("berth_calc_ratio", 0.125, label("path", "a,b|c\nd:e")),
			counter("berth_calc_queries_total", queries, label("rcode", "NOERROR"), label("transport", "udp")),
			gauge("other", -1),
		}
	}
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   []string
	}{
		{"defaults", nil, []string{
			"berth.calc_queries_total:5|c|#rcode:NOERROR,transport:udp",
			"berth.calc_ratio:0.125|g|#path:a_b_c_d:e",
			"berth.calc_records:3|g",
			"other:-1|g",
		}},
		{"same names", func(c *Config) { c.Prefix = "" }, []string{
			"berth_calc_queries_total:5|c|#rcode:NOERROR,transport:udp",
			"berth_calc_ratio:0.125|g|#path:a_b_c_d:e",
			"berth_calc_records:3|g",
			"other:-1|g",
		}},
		{"prefix and tags", func(c *Config) { c.Prefix, c.Tags = "hosts.berth.", []string{"env:prod", "rack"} }, []string{
			"hosts.berth.calc_queries_total:5|c|#env:prod,rack,rcode:NOERROR,transport:udp",
			"hosts.berth.calc_ratio:0.125|g|#env:prod,rack,path:a_b_c_d:e",
			"hosts.berth.calc_records:3|g|#env:prod,rack",
			"other:-1|g|#env:prod,rack",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := listen(t, "udp", "127.0.0.1:0")
			s, _ := newSink(t, r.addr, tt.change)
			write(t, s, batch(37)...)
			r.lines(t)
			write(t, s, batch(42)...)
			equal(t, "the second batch", r.lines(t), tt.want)
		})
	}
}

func TestCountersAreSentAsGrowth(t *testing.T) {
	r := listen(t, "udp", "127.0.0.1:0")
	s, _ := newSink(t, r.addr, nil)
	udp, tcp := label("transport", "udp"), label("transport", "tcp")
	for i, step := range []struct {
		batch []agent.Sample
		want  []string
	}{
		// What it has counted before the first batch is not sent.
		{[]agent.Sample{counter("berth_a_total", 100, udp)}, []string{}},
		{[]agent.Sample{counter("berth_a_total", 107, udp)}, []string{"berth.a_total:7|c|#transport:udp"}},
		// Nothing has happened.
		{[]agent.Sample{counter("berth_a_total", 107, udp)}, []string{}},
		// A series that appears has grown from 0.
		{
			[]agent.Sample{counter("berth_a_total", 4, tcp), counter("berth_a_total", 108, udp)},
			[]string{"berth.a_total:1|c|#transport:udp", "berth.a_total:4|c|#transport:tcp"},
		},
		// So has one whose component was started anew.
		{
			[]agent.Sample{counter("berth_a_total", 4, tcp), counter("berth_a_total", 9, udp)},
			[]string{"berth.a_total:9|c|#transport:udp"},
		},
		// One that went and comes back is another one.
		{[]agent.Sample{counter("berth_a_total", 9, udp)}, []string{}},
		{
			[]agent.Sample{counter("berth_a_total", 5, tcp), counter("berth_a_total", 9, udp)},
			[]string{"berth.a_total:5|c|#transport:tcp"},
		},
	} {
		write(t, s, step.batch...)
		if got := r.lines(t); !slices.Equal(got, step.want) {
			t.Errorf("batch %d: got %q, want %q", i, got, step.want)
		}
	}
}

// No fraction of a counter is lost, however small its steps are.
func TestFractionsAddUp(t *testing.T) {
	var totals totals
	var sum int64
	for i := range 1001 {
		sum += totals.growth([]agent.Sample{counter("berth_seconds_total", float64(i)*0.03125)})[0]
	}
	if want := int64(31); sum != want { // 1000 · 0.03125 = 31.25
		t.Errorf("got %d sent in all, want %d", sum, want)
	}
}

func TestCountersThatAreNoCounts(t *testing.T) {
	for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), -1, 1e300} {
		var totals totals
		totals.growth(nil)
		if got := totals.growth([]agent.Sample{counter("berth_a_total", bad)}); got[0] != 0 {
			t.Errorf("%v: got a growth of %d, want 0", bad, got[0])
		}
	}
}

func TestRejectedSamples(t *testing.T) {
	r := listen(t, "udp", "127.0.0.1:0")
	s, _ := newSink(t, r.addr, nil)
	write(
		t, s,
		gauge("berth_nan", math.NaN()),
		gauge("berth_inf", math.Inf(1)),
		gauge("berth_long", 1, label("path", strings.Repeat("x", 2000))),
		gauge("berth_good", 1),
	)
	equal(t, "received", r.lines(t), []string{"berth.good:1|g"})
	if got := s.rejected.Load(); got != 3 {
		t.Errorf("got %d rejected, want 3", got)
	}
	if got := s.samples.Load(); got != 1 {
		t.Errorf("got %d sent, want 1", got)
	}
}

// A batch of many packets arrives whole, and none is larger than fits into an
// Ethernet frame.
func TestManyPackets(t *testing.T) {
	r := listen(t, "udp", "127.0.0.1:0")
	s, _ := newSink(t, r.addr, nil)
	var batch []agent.Sample
	for i := range 500 {
		batch = append(batch, gauge("berth_calc_records", float64(i), label("container", strings.Repeat("c", i%100))))
	}
	write(t, s, batch...)
	if got := r.lines(t); len(got) != len(batch) {
		t.Errorf("got %d samples, want %d", len(got), len(batch))
	}
	if got := s.unsent.Load() + s.overflow.Load(); got != 0 {
		t.Errorf("got %d packets lost, want 0", got)
	}
}

// A receiver on a Unix socket may come later, go, and come back.
func TestUnixSocketThatComesAndGoes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dsd.socket")
	for _, address := range []string{path, "unix://" + path} {
		s, health := newSink(t, address, nil)
		refused := func(when string) {
			t.Helper()
			before := s.unsent.Load()
			if err := s.Write(t.Context(), []agent.Sample{gauge("berth_a", 1)}); err == nil {
				t.Errorf("%s: got no error", when)
			}
			if got := s.unsent.Load() - before; got != 1 {
				t.Errorf("%s: got %d packets lost, want 1", when, got)
			}
			if err := health.Err(Name); err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("%s: got condition %v, want one about %s", when, err, path)
			}
		}
		refused("nobody is there")
		r := listen(t, "unixgram", path)
		for range calm {
			write(t, s, gauge("berth_a", 2))
		}
		equal(t, "received", r.lines(t), []string{"berth.a:2|g", "berth.a:2|g"})
		if err := health.Err(Name); err != nil {
			t.Errorf("got condition %v, want none", err)
		}
		r.Close()
		refused("it has gone")
		os.Remove(path)
		r = listen(t, "unixgram", path)
		write(t, s, gauge("berth_a", 3))
		equal(t, "received after it has come back", r.lines(t), []string{"berth.a:3|g"})
		r.Close()
		os.Remove(path)
	}
}

// The kernel reports a refused datagram instead of sending the next: the
// condition must stand although every other batch seems to go well.
func TestRefusedDatagrams(t *testing.T) {
	r := listen(t, "udp", "127.0.0.1:0")
	s, health := newSink(t, r.addr, nil)
	r.Close()
	lost := func() bool { return s.unsent.Load() > 0 }
	for i := 0; !lost() && i < 100; i++ {
		_ = s.Write(t.Context(), []agent.Sample{gauge("berth_a", 1)})
	}
	if !lost() {
		t.Fatal("100 batches to a closed port: got no packet lost")
	}
	for range 10 {
		_ = s.Write(t.Context(), []agent.Sample{gauge("berth_a", 1)})
		if health.Err(Name) == nil {
			t.Fatal("got no condition while packets are refused")
		}
	}
}

// A receiver that does not read holds up one batch for a bounded time.
func TestReceiverThatDoesNotRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dsd.socket")
	listen(t, "unixgram", path)
	s, health := newSink(t, path, nil)
	var batch []agent.Sample
	for range 100 {
		batch = append(batch, gauge("berth_a", 1, label("path", strings.Repeat("x", 1000))))
	}
	// 100 kB are 13 packets of 8 kB; the queue of a Unix socket has room for a
	// few (net.unix.max_dgram_qlen), whatever it is.
	for i := 0; s.unsent.Load() == 0; i++ {
		if i == 100 {
			t.Fatal("100 batches to a receiver that does not read: got no packet lost")
		}
		_ = s.Write(t.Context(), batch)
	}
	_ = s.Write(t.Context(), batch[:1])
	if health.Err(Name) == nil {
		t.Error("got no condition")
	}
}

func TestWriteEndsWithItsContext(t *testing.T) {
	r := listen(t, "udp", "127.0.0.1:0")
	s, health := newSink(t, r.addr, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Write(ctx, []agent.Sample{gauge("berth_a", 1)}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if err := health.Err(Name); err != nil {
		t.Errorf("got condition %v, want none", err)
	}
}

// Close ends the client, and the next Write goes on where the last one was.
func TestWriteAfterClose(t *testing.T) {
	r := listen(t, "udp", "127.0.0.1:0")
	s, _ := newSink(t, r.addr, nil)
	write(t, s, counter("berth_a_total", 1))
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	write(t, s, counter("berth_a_total", 3))
	equal(t, "received", r.lines(t), []string{"berth.a_total:2|c"})
}

// A name that cannot be resolved loses no count.
func TestUnresolvableAddress(t *testing.T) {
	r := listen(t, "udp", "127.0.0.1:0")
	s, health := newSink(t, r.addr, nil)
	write(t, s, counter("berth_a_total", 1))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s.target = "no such host:8125"
	if err := s.Write(t.Context(), []agent.Sample{counter("berth_a_total", 3)}); err == nil || health.Err(Name) == nil {
		t.Errorf("got error %v, condition %v, want both", err, health.Err(Name))
	}
	s.target = r.addr
	write(t, s, counter("berth_a_total", 4))
	equal(t, "received", r.lines(t), []string{"berth.a_total:3|c"})
}

func TestOwnFigures(t *testing.T) {
	s, _ := newSink(t, "127.0.0.1:8125", nil)
	s.samples.Store(1)
	s.rejected.Store(2)
	s.overflow.Store(3)
	s.unsent.Store(4)
	s.lostEvents.Store(5)
	want := []agent.Sample{
		{Name: "berth_dogstatsd_samples_total", Value: 1},
		{Name: "berth_dogstatsd_rejected_samples_total", Value: 2},
		{Name: "berth_dogstatsd_lost_packets_total", Value: 3, Labels: []agent.Label{label("reason", "queue")}},
		{Name: "berth_dogstatsd_lost_packets_total", Value: 4, Labels: []agent.Label{label("reason", "send")}},
		{Name: "berth_dogstatsd_lost_events_total", Value: 5},
	}
	i := 0
	for got := range s.Metrics {
		if got.Kind != agent.Counter || got.Help == "" {
			t.Errorf("%s: got kind %v, help %q, want a counter with help", got.Name, got.Kind, got.Help)
		}
		got.Kind, got.Help = agent.Gauge, ""
		if diff := cmp.Diff(want[i], got); diff != "" {
			t.Errorf("want (-), got (+):\n%s", diff)
		}
		i++
	}
	for range s.Metrics {
		break // must not panic
	}
	if got, want := s.Summary(), "1 samples sent to 127.0.0.1:8125, 7 packets lost"; got != want {
		t.Errorf("got summary %q, want %q", got, want)
	}
}

func TestValidate(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   []string // the fields that are wrong
	}{
		{"defaults", func(*Config) {}, nil},
		{"name", func(c *Config) { c.Address = "datadog.internal:8125" }, nil},
		{"IPv6", func(c *Config) { c.Address = "[::1]:8125" }, nil},
		{"socket", func(c *Config) { c.Address = "/var/run/datadog/dsd.socket" }, nil},
		{"socket as URL", func(c *Config) { c.Address = "unix:///var/run/datadog/dsd.socket" }, nil},
		{"relative socket", func(c *Config) { c.Address = "unix://dsd.socket" }, []string{"address"}},
		{"no port", func(c *Config) { c.Address = "127.0.0.1" }, []string{"address"}},
		{"no host", func(c *Config) { c.Address = ":8125" }, []string{"address"}},
		{"port 0", func(c *Config) { c.Address = "127.0.0.1:0" }, []string{"address"}},
		{"no address", func(c *Config) { c.Address = "" }, []string{"address"}},
		{"no prefix", func(c *Config) { c.Prefix = "" }, nil},
		{"bad prefix", func(c *Config) { c.Prefix = "1berth|" }, []string{"prefix"}},
		{"tags", func(c *Config) { c.Tags = []string{"env:prod", "a b", "rack"} }, nil},
		{"bad tags", func(c *Config) { c.Tags = []string{"env:prod", "", "a,b", "a|b"} }, []string{"tags[1]", "tags[2]", "tags[3]"}},
		{"often", func(c *Config) { c.Interval = config.Duration(time.Second - 1) }, []string{"interval"}},
		{"all", func(c *Config) { *c = Config{Prefix: "."} }, []string{"address", "prefix", "interval"}},
	} {
		cfg := DefaultConfig()
		tt.change(&cfg)
		var got []string
		err := cfg.Validate()
		if many, ok := err.(interface{ Unwrap() []error }); ok {
			for _, err := range many.Unwrap() {
				if fe, ok := errors.AsType[*config.FieldError](err); ok {
					got = append(got, fe.Field)
				}
			}
		}
		if !slices.Equal(got, tt.want) || (err == nil) != (tt.want == nil) {
			t.Errorf("%s: got %q (%v), want %q", tt.name, got, err, tt.want)
		}
	}
	if _, err := New(Config{}, agent.Env{}); err == nil {
		t.Error("New with a bad config: got no error")
	}
}
