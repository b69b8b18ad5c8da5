package rfc2136

import (
	"context"
	"testing"
	"time"

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
				h.prepare = func(s *Sink) { s.pace = 20 * time.Millisecond } // many sets, one after the other
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
