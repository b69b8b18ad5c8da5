package sinktest

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berthd/berth/agent"
)

// server is an upstream in memory, and a sink that sends to it.
type server struct {
	mu    sync.Mutex
	lines []string
	down  bool
	wrong string // what its ports do wrong
}

func (s *server) Name() string { return "memory" }

func (s *server) Open() (agent.LinePort, error) { return &memoryPort{server: s}, nil }

func (s *server) set(down bool) func() error {
	return func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.down = down
		return nil
	}
}

func (s *server) received() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string{}, s.lines...)
}

// memoryPort keeps what it cannot send, without bounds.
type memoryPort struct {
	*server
	waiting [1 << 14][]byte
	queued  int
	stats   agent.LineStats
}

func (p *memoryPort) MaxPayload() int { return 1000 }

func (p *memoryPort) Send(list []agent.Packet) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.wrong == "blocks" && p.down {
		p.mu.Unlock()
		time.Sleep(20 * time.Millisecond)
		p.mu.Lock()
	}
	for _, packet := range list {
		p.stats.Waiting += uint64(packet.Lines)
		if p.wrong == "keeps" {
			p.waiting[p.queued] = packet.Data
		} else {
			p.waiting[p.queued] = []byte(strings.Clone(string(packet.Data)))
		}
		p.queued++
		switch {
		case p.wrong == "miscounts":
			p.stats.Waiting--
		case p.wrong == "swaps" && p.queued > 1:
			p.waiting[p.queued-1], p.waiting[p.queued-2] = p.waiting[p.queued-2], p.waiting[p.queued-1]
		}
	}
	if p.wrong == "keeps" && len(list) > 0 || p.down || p.wrong == "never sends" {
		return time.Millisecond
	}
	for _, data := range p.waiting[:p.queued] {
		if p.wrong != "loses" || len(p.lines) != 5 {
			p.lines = append(p.lines, strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")...)
		} else {
			p.lines = append(p.lines, "?")
		}
	}
	p.stats.Lines += p.stats.Waiting
	p.stats.Waiting, p.queued = 0, 0
	if p.wrong == "restless" {
		return time.Second
	}
	return 0
}

func (p *memoryPort) Close(context.Context) error {
	if p.wrong != "forgets what waits" {
		p.Send(nil)
	}
	return nil
}

func (p *memoryPort) Stats() agent.LineStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stats
}

// The suite finds what is wrong with a sink, and nothing with one that is right.
// (Any of these allocates: that check is for real ones.)
func TestLineSuite(t *testing.T) {
	for wrong, check := range map[string]string{
		"":            "",
		"loses":       "Delivers",
		"swaps":       "Delivers",
		"miscounts":   "Delivers",
		"never sends": "Delivers",
		"keeps":       "BorrowsData",
		"restless":    "NothingToSend",
		"blocks":      "UpstreamGone",
	} {
		failed := ""
		for _, c := range lineChecks {
			if c.name == "DoesNotAllocate" {
				continue
			}
			s := &server{wrong: wrong}
			f := LineFixture{Sink: s, Received: s.received, Down: s.set(true), Up: s.set(false), Patience: 300 * time.Millisecond}
			if wrong == "" {
				f.Patience = time.Minute
			}
			if err := runLineCheck(c, f); err != nil {
				failed += c.name + " "
				if wrong == "" {
					t.Errorf("%s: %v", c.name, err)
				}
			}
		}
		if check != "" && !strings.Contains(failed, check+" ") {
			t.Errorf("a sink that %s: %q failed, want %s among them", wrong, failed, check)
		}
	}
	s := new(server)
	c := lineChecks[len(lineChecks)-1]
	if err := runLineCheck(c, LineFixture{Sink: s, Received: s.received}); c.name != "DoesNotAllocate" || err == nil {
		t.Errorf("%s: got no error of a sink that allocates", c.name)
	}
}
