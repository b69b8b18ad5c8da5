package rfc2136

import (
	"context"
	"errors"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/sinks/sinktest"
	"github.com/berthd/berth/test/dnsservers"
)

func TestConformance(t *testing.T) {
	for _, kind := range servers {
		t.Run(kind.name, func(t *testing.T) {
			sinktest.RecordSink(t, func(t *testing.T) sinktest.Fixture {
				s := kind.start(t)
				proxy := dnsservers.NewProxy(t, s.Addr())
				h := newHost(t, "host1", s, proxy.Addr())
				return sinktest.Fixture{
					Sink:   h.open(),
					Held:   func(ctx context.Context) ([]agent.Record, error) { return held(ctx, s) },
					Reopen: func(*testing.T) agent.RecordSink { return h.open() },
					Fail: func(failing bool) {
						mode := dnsservers.Pass
						if failing {
							mode = dnsservers.Cut
						}
						proxy.Set(mode)
					},
					Failures: proxy.Troubled,
					Patience: patience,
				}
			})
		})
	}
}

// Two hosts whose names begin alike share names, and leave each other's records
// alone, whatever becomes of one of them.
func TestHosts_LeaveEachOtherAlone(t *testing.T) {
	each(t, func(t *testing.T, s *dnsservers.Server) {
		one, ten := newHost(t, "host1", s), newHost(t, "host10", s)
		one.start()
		ten.start()
		ofOne := []agent.Record{srv("host1", 1), address("host1", "192.0.2.1"), address("svc0", "192.0.2.1")}
		ofTen := []agent.Record{srv("host10", 1), address("host10", "192.0.2.10"), address("svc0", "192.0.2.10")}
		one.apply(ofOne...)
		ten.apply(ofTen...)
		holds(t, s, slices.Concat(ofOne, ofTen)...)
		one.apply()
		holds(t, s, ofTen...)
		one.apply(ofOne...)
		ten.apply()
		holds(t, s, ofOne...)
	})
}

// TestHosts_OfDifferentTTLs: an RRset has one TTL; each host's records are there
// all the same, and go.
func TestHosts_OfDifferentTTLs(t *testing.T) {
	each(t, func(t *testing.T, s *dnsservers.Server) {
		one, ten := newHost(t, "host1", s), newHost(t, "host10", s)
		one.start()
		ten.start()
		slow := srv("host10", 1)
		slow.TTL = 60
		one.apply(srv("host1", 1))
		ten.apply(slow)
		all, err := held(t.Context(), s)
		must(t, err)
		if len(all) != 2 || all[0].TTL != all[1].TTL {
			t.Errorf("got %v, want both with one TTL", all)
		}
		t.Logf("TTL 10, then 60 of another host: the set has %d", all[0].TTL)
		one.apply()
		ten.apply()
		holds(t, s)
	})
}

// What changes in a burst goes out together; very many changes take several
// messages.
func TestRun_Messages(t *testing.T) {
	each(t, func(t *testing.T, s *dnsservers.Server) {
		h := newHost(t, "host1", s)
		h.prepare = func(s *Sink) { s.pace = coalesce }
		h.start()
		before := s.Serial()
		var all []agent.Record
		for i := range 100 {
			all = append(all, srv("host1", uint16(i)))
			h.want(slices.Clone(all)...)
		}
		h.await(100)
		if got := h.sink.meters.snapshot()["applied"]; got > 4 {
			t.Errorf("100 sets took %d messages, want at most 4", got)
		}
		if got := s.Serial() - before; got > 4 {
			t.Errorf("100 sets changed the zone %d times, want at most 4", got)
		}
		for i := range 900 {
			all = append(all, srv("host1", uint16(1000+i)))
		}
		h.apply(all...)
		holds(t, s, all...)
		h.apply()
		holds(t, s)
	})
}

// An idle host sends nothing; one that restarts says all once more, which changes
// nothing.
func TestRun_RestartChangesNothing(t *testing.T) {
	each(t, func(t *testing.T, s *dnsservers.Server) {
		h := newHost(t, "host1", s)
		h.start()
		h.apply(srv("host1", 1))
		h.stop()
		before := s.Serial()
		h.start()
		h.apply(srv("host1", 1))
		if got := h.sink.meters.snapshot()["applied"]; got != 1 || s.Serial() != before {
			t.Errorf("%d messages and %d changes after a restart, want 1 and 0", got, s.Serial()-before)
		}
	})
}

// TestEventToAnswer measures how long after a change of what is wanted the server
// answers accordingly. It prints, and decides nothing.
func TestEventToAnswer(t *testing.T) {
	s := dnsservers.BIND(t, zone)
	h := newHost(t, "host1", s)
	h.prepare = func(s *Sink) { s.pace = 0 } // a change of its own each time
	h.start()
	client := dns.Client{Timeout: time.Second}
	question := new(dns.Msg).SetQuestion("_calc._tcp."+zone, dns.TypeSRV)
	var took []time.Duration
	for i := range 100 {
		start := time.Now()
		h.want(srv("host1", uint16(i+1)))
		for {
			answer, _, err := client.Exchange(question, s.Addr().String())
			if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
				continue // a lost datagram
			}
			must(t, err)
			if len(answer.Answer) == 1 && answer.Answer[0].(*dns.SRV).Port == uint16(i+1) {
				break
			}
		}
		took = append(took, time.Since(start))
		h.await(uint64(i + 1))
	}
	slices.Sort(took)
	t.Logf("event to BIND's answer: p50 %v, p99 %v, max %v", took[50], took[98], took[99])
}
