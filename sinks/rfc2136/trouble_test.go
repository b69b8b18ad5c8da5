package rfc2136

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/config"
	"github.com/berthd/berth/test/dnsservers"
)

// impatient makes a host give up on a server soon. A server that is slower than
// that because the machine is costs only another try.
func impatient(h *host) {
	h.cfg.Timeout = config.Duration(500 * time.Millisecond)
}

func TestPitfall_discovery25_ClockSkew(t *testing.T) {
	each(t, func(t *testing.T, s *dnsservers.Server) {
		for skew, want := range map[time.Duration]string{
			time.Hour:         "1h0m",
			-90 * time.Minute: "1h30m",
		} {
			h := newHost(t, "host1", s)
			h.prepare = func(s *Sink) { s.client.clock = func() time.Time { return time.Now().Add(skew) } }
			h.start()
			h.want(srv("host1", 1))
			side := "ahead"
			if skew < 0 {
				side = "behind"
			}
			h.condition(condUpdate, "BADTIME", side, want, "NTP")
			holds(t, s)
			h.stop()
		}
		h := newHost(t, "host1", s) // the clock is right again
		h.start()
		h.apply(srv("host1", 1))
		holds(t, s, srv("host1", 1))
	})
}

func TestPitfall_discovery25_ClockIsWarnedOf(t *testing.T) {
	each(t, func(t *testing.T, s *dnsservers.Server) {
		h := newHost(t, "host1", s)
		h.prepare = func(s *Sink) { s.client.clock = func() time.Time { return time.Now().Add(200 * time.Second) } }
		h.start()
		h.apply(srv("host1", 1))
		h.condition(condClock, "3m2", "ahead", "5m0s")
	})
}

func TestPitfall_discovery25_LostReply(t *testing.T) {
	each(t, func(t *testing.T, s *dnsservers.Server) {
		proxy := dnsservers.NewProxy(t, s.Addr())
		h := newHost(t, "host1", s, proxy.Addr())
		proxy.Set(dnsservers.CutReply)
		h.start()
		seq := h.want(srv("host1", 1), srv("host1", 2))
		eventually(t, func() error {
			if proxy.Troubled() < 2 {
				return errors.New("not yet tried twice")
			}
			return nil
		})
		holds(t, s, srv("host1", 1), srv("host1", 2))
		if h.sink.Applied() >= seq {
			t.Error("claimed without an answer")
		}
		h.condition(condUpdate, "closed")
		h.want(srv("host1", 2), srv("host1", 3))
		proxy.Set(dnsservers.Pass)
		h.await(2)
		holds(t, s, srv("host1", 2), srv("host1", 3))
		h.healthy()
	})
}

// A message that hung in the network arrives after a newer one has undone it. What
// it did is put right when no copy of it can be left.
func TestPitfall_discovery25_LateMessage(t *testing.T) {
	each(t, func(t *testing.T, s *dnsservers.Server) {
		proxy := dnsservers.NewProxy(t, s.Addr())
		h := newHost(t, "host1", s, proxy.Addr(), s.Addr())
		impatient(h)
		var later atomic.Int64
		h.prepare = func(s *Sink) {
			s.now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
		}
		proxy.Set(dnsservers.Hold)
		h.start()
		h.apply(srv("host1", 1)) // by the second server, with a copy that hangs
		h.apply()
		holds(t, s)
		if proxy.Troubled() == 0 {
			t.Fatal("no copy hangs")
		}
		proxy.Set(dnsservers.Pass)
		proxy.Release()
		holds(t, s, srv("host1", 1))
		later.Store(int64(doubtful))
		h.apply(srv("host1", 2))
		holds(t, s, srv("host1", 2))
	})
}

// What the servers refuse is told apart.
func TestConditions_SayWhatIsWrong(t *testing.T) {
	each(t, func(t *testing.T, s *dnsservers.Server) {
		proxy := dnsservers.NewProxy(t, s.Addr())
		proxy.Set(dnsservers.ServFail)
		forger := dnsservers.NewProxy(t, s.Addr())
		forger.Set(dnsservers.Forge)
		silent := func(h *host) { h.cfg.Servers = []string{"127.0.0.1:1"} }
		unknown := dnsservers.NewKey("host3." + zone)
		tests := []struct {
			name   string
			change func(h *host)
			record agent.Record
			texts  []string
		}{
			{"unreachable", silent, srv("host1", 1), []string{"connection refused", "rfc2136.servers"}},
			{"key", func(h *host) { h.cfg.Key, h.cfg.Secret = unknown.Name, secret(t, unknown.Secret) }, srv("host1", 1), []string{"BADKEY", "host3"}},
			{"secret", func(h *host) { h.cfg.Secret = secret(t, unknown.Secret) }, srv("host1", 1), []string{"BADSIG", "rfc2136.secret"}},
			{"no base64", func(h *host) { h.cfg.Secret = secret(t, "!?") }, srv("host1", 1), []string{"base64"}},
			{"zone", func(h *host) { h.cfg.Zone = "example." }, srv("host1", 1), []string{"NOTAUTH", "rfc2136.zone"}},
			{"trouble", func(h *host) { h.cfg.Servers = []string{proxy.Addr().String()} }, srv("host1", 1), []string{"SERVFAIL", "log"}},
			{"forged", func(h *host) { h.cfg.Servers = []string{forger.Addr().String()} }, srv("host1", 1), []string{"not signed", "only signed answers"}},
			{"other host", func(*host) {}, address("host10", "192.0.2.66"), []string{"acl"}},
		}
		for _, tt := range tests {
			h := newHost(t, "host1", s)
			tt.change(h)
			h.start()
			h.want(tt.record)
			h.condition(condUpdate, tt.texts...)
			if h.sink.Applied() != 0 {
				t.Errorf("%s: claimed", tt.name)
			}
			h.stop()
		}
		holds(t, s)
	})
}

func TestConditions_RecordsOutsideOfTheZone(t *testing.T) {
	s := dnsservers.BIND(t, zone)
	h := newHost(t, "host1", s)
	h.cfg.Zone = "sub." + zone
	h.start()
	h.want(srv("host1", 1))
	h.condition(condZone, "is not in the zone sub."+zone)
	holds(t, s)
}

func TestServer_RestartsInTheMiddle(t *testing.T) {
	each(t, func(t *testing.T, s *dnsservers.Server) {
		h := newHost(t, "host1", s)
		h.start()
		h.apply(srv("host1", 1))
		for i, end := range []func(){s.Stop, s.Kill} {
			end()
			h.want(srv("host1", uint16(10+i)))
			h.condition(condUpdate, "connection refused")
			s.Start()
			h.await(uint64(2 + i))
			holds(t, s, srv("host1", uint16(10+i)))
			h.healthy()
		}
	})
}

func TestServer_Hangs(t *testing.T) {
	each(t, func(t *testing.T, s *dnsservers.Server) {
		h := newHost(t, "host1", s)
		impatient(h)
		h.start()
		h.apply(srv("host1", 1))
		s.Pause()
		h.want(srv("host1", 2))
		h.condition(condUpdate, "timed out")
		s.Resume()
		h.await(2)
		holds(t, s, srv("host1", 2))
	})
}

func TestServers_TheSecondTakesOver(t *testing.T) {
	each(t, func(t *testing.T, s *dnsservers.Server) {
		proxy := dnsservers.NewProxy(t, s.Addr())
		proxy.Set(dnsservers.Cut)
		h := newHost(t, "host1", s, proxy.Addr(), s.Addr())
		h.start()
		h.apply(srv("host1", 1))
		h.apply(srv("host1", 2))
		holds(t, s, srv("host1", 2))
		h.condition(condServer, proxy.Addr().String(), "another server")
		if got := proxy.Troubled(); got != 1 {
			t.Errorf("the first server was tried %d times, want once: it had failed", got)
		}
	})
}

func TestRemove(t *testing.T) {
	each(t, func(t *testing.T, s *dnsservers.Server) {
		other := newHost(t, "host10", s)
		other.start()
		other.apply(srv("host10", 1), address("host10", "192.0.2.10"))
		h := newHost(t, "host1", s)
		h.start()
		h.apply(srv("host1", 1), address("host1", "192.0.2.1"))
		h.stop()
		must(t, h.open().Remove(t.Context()))
		holds(t, s, srv("host10", 1), address("host10", "192.0.2.10"))
		must(t, h.open().Remove(t.Context())) // again

		other.stop()
		s.Stop()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := other.open().Remove(ctx); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("without a server: got %v, want why", err)
		}
	})
}

func TestState_BelongsToOneHost(t *testing.T) {
	s := dnsservers.BIND(t, zone)
	h := newHost(t, "host1", s)
	h.start()
	h.apply(srv("host1", 1))
	h.stop()

	// A host that was cloned from this one's disk.
	clone := newHost(t, "host10", s)
	clone.env.StateDir = h.env.StateDir
	clone.env.Node = identity{""} // not known yet
	clone.start()
	clone.want(srv("host10", 1))
	clone.stop()
	holds(t, s, srv("host1", 1))
	clone.env.Node = identity{"host10"}
	clone.start()
	clone.apply(srv("host10", 1))
	holds(t, s, srv("host1", 1), srv("host10", 1))
}

// watched counts how often the sink has looked at what is wanted.
type watched struct {
	agent.Desired
	looks atomic.Int32
}

func (w *watched) Records() (agent.RecordSet, uint64) {
	defer w.looks.Add(1)
	return w.Desired.Records()
}

func TestRun_UnsettledHostWritesNothing(t *testing.T) {
	s := dnsservers.BIND(t, zone)
	h := newHost(t, "host1", s)
	before := s.Serial()
	h.records, h.sink = new(agent.Records), h.open()
	n := node("host1")
	n.Settled = false
	h.records.Publish(agent.NewRecordSet(zone, n, []agent.Record{srv("host1", 1)}, false))
	feed := h.records.Subscribe()
	defer feed.Close()
	want := &watched{Desired: feed}
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { _ = h.sink.Run(ctx, want) })
	defer run.Wait()
	defer cancel()
	eventually(t, func() error {
		if want.looks.Load() == 0 {
			return errors.New("the sink has not looked yet")
		}
		return nil
	})
	h.apply(srv("host1", 2)) // the next set, which is settled
	holds(t, s, srv("host1", 2))
	if got := s.Serial(); got != before+1 {
		t.Errorf("zone changed %d times, want once", got-before)
	}
}

func TestJournal_InUseIsACondition(t *testing.T) {
	s := dnsservers.BIND(t, zone)
	h, second := newHost(t, "host1", s), newHost(t, "host1", s)
	second.env.StateDir = h.env.StateDir
	h.start()
	h.apply(srv("host1", 1))
	second.start()
	second.want(srv("host1", 2))
	second.condition(condJournal, "in use", "another berth")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := second.open().Remove(ctx); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("Remove beside a running agent: got %v, want why not", err)
	}
	h.stop()
	second.await(1)
	holds(t, s, srv("host1", 2))
	second.healthy()
}
