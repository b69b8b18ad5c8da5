package stdout

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/sinks/sinktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// screen is a writer that can fail in the middle of a line.
type screen struct {
	mu       sync.Mutex
	buf      bytes.Buffer
	failing  bool
	failures int
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failing {
		s.failures++
		n := min(len(p), 9)
		s.buf.Write(p[:n])
		return n, errors.New("disk full")
	}
	return s.buf.Write(p)
}

func (s *screen) fail(failing bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failing = failing
}

func (s *screen) failed() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failures
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// held plays back all lines. Lines that are not whole are passed over.
func (s *screen) held(context.Context) ([]agent.Record, error) {
	records := make(map[agent.Record]bool)
	lines := bufio.NewScanner(strings.NewReader(s.text()))
	for lines.Scan() {
		var line recordLine
		if json.Unmarshal(lines.Bytes(), &line) != nil {
			continue
		}
		r, err := parse(line)
		if err != nil {
			return nil, err
		}
		switch line.Op {
		case "create":
			records[r] = true
		case "delete":
			delete(records, r)
		default:
			return nil, fmt.Errorf("unknown op %q", line.Op)
		}
	}
	return slices.Collect(maps.Keys(records)), lines.Err()
}

func parse(line recordLine) (agent.Record, error) {
	r := agent.Record{Name: line.Name, Type: line.Type, TTL: line.TTL}
	var err error
	if line.Type == agent.TypeSRV {
		_, err = fmt.Sscanf(line.Value, "%d %d %d %s", &r.Priority, &r.Weight, &r.Port, &r.Target)
	} else {
		r.Addr, err = netip.ParseAddr(line.Value)
	}
	if err == nil && r.String() != line.Record {
		err = fmt.Errorf("record is %q, its parts say %q", line.Record, r)
	}
	return r, err
}

func testEnv() agent.Env {
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	return agent.Env{Log: log, Health: agent.NewHealth(log)}
}

func TestConformance(t *testing.T) {
	sinktest.RecordSink(t, func(*testing.T) sinktest.Fixture {
		w := new(screen)
		return sinktest.Fixture{Sink: New(w, testEnv()), Held: w.held, Fail: w.fail, Failures: w.failed}
	})
}

func TestRecordLines(t *testing.T) {
	w := new(screen)
	s := New(w, testEnv())
	a := agent.Record{Name: "i-1.example.", Type: agent.TypeA, TTL: 10, Addr: netip.MustParseAddr("192.0.2.1")}
	b := agent.Record{Name: "_calc._tcp.example.", Type: agent.TypeSRV, TTL: 5, Priority: 1, Weight: 2, Port: 3, Target: "i-1.example."}
	for _, records := range [][]agent.Record{{a}, {b}} {
		if err := s.reconcile(agent.NewRecordSet("example.", agent.Node{}, records, false)); err != nil {
			t.Fatal(err)
		}
	}
	want := `{"op":"create","record":"i-1.example. 10 IN A 192.0.2.1","zone":"example.","name":"i-1.example.","type":"A","ttl":10,"value":"192.0.2.1"}
{"op":"delete","record":"i-1.example. 10 IN A 192.0.2.1","zone":"example.","name":"i-1.example.","type":"A","ttl":10,"value":"192.0.2.1"}
{"op":"create","record":"_calc._tcp.example. 5 IN SRV 1 2 3 i-1.example.","zone":"example.","name":"_calc._tcp.example.","type":"SRV","ttl":5,"value":"1 2 3 i-1.example."}
`
	if got := w.text(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestSampleLines(t *testing.T) {
	w := new(screen)
	s := New(w, testEnv())
	err := s.Write(t.Context(), []agent.Sample{
		{
			Name: "berth_x_total", Kind: agent.Counter, Value: 1.5,
			Labels: []agent.Label{{Name: "a", Value: `"quoted"`}},
			Time:   time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		},
		{Name: "berth_y", Value: math.NaN()},
		{Name: "berth_z", Value: math.Inf(-1)},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"op":"sample","name":"berth_x_total","kind":"counter","value":1.5,"labels":{"a":"\"quoted\""},"time":"2026-01-02T03:04:05Z"}
{"op":"sample","name":"berth_y","kind":"gauge","value":"NaN"}
{"op":"sample","name":"berth_z","kind":"gauge","value":"-Inf"}
`
	if got := w.text(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestWriteStopsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := new(screen)
	if err := New(w, testEnv()).Write(ctx, []agent.Sample{{Name: "berth_y"}}); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v, want context.Canceled", err)
	}
	if got := w.text(); got != "" {
		t.Errorf("wrote %q", got)
	}
}
