package route53

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/sinks/sinktest"
	"github.com/berthd/berth/test/fakeaws"
)

func TestConformance(t *testing.T) {
	for _, mode := range []Mode{Multivalue, Weighted, Simple} {
		for name, fault := range map[string]fakeaws.Fault{"throttled": fakeaws.Throttled, "cut": fakeaws.CutAfter} {
			if mode != Multivalue && fault != fakeaws.CutAfter {
				continue
			}
			t.Run(string(mode)+"/"+name, func(t *testing.T) {
				sinktest.RecordSink(t, func(t *testing.T) sinktest.Fixture {
					r := newRig(t)
					r.zone = r.fake.AddZone(fakeaws.Zone{Name: sinktest.Zone})
					r.cfg.ZoneID, r.cfg.Mode = r.zone, mode
					return sinktest.Fixture{
						Sink:   r.open(),
						Held:   func(context.Context) ([]agent.Record, error) { return r.held() },
						Reopen: func(*testing.T) agent.RecordSink { return r.open() },
						Fail: func(failing bool) {
							if !failing {
								r.fake.Heal()
								return
							}
							r.fake.Always("ChangeResourceRecordSets", fault)
						},
						Failures: r.fake.Failures,
					}
				})
			})
		}
	}
}

// held returns what the zone holds as records.
func (r *rig) held() ([]agent.Record, error) {
	var out []agent.Record
	for _, s := range r.fake.Sets(r.zone) {
		for _, v := range s.Values {
			rec := agent.Record{Name: s.Name, Type: agent.RecordType(s.Type), TTL: uint32(s.TTL)}
			if rec.Type == agent.TypeSRV {
				if _, err := fmt.Sscanf(v, "%d %d %d %s", &rec.Priority, &rec.Weight, &rec.Port, &rec.Target); err != nil {
					return nil, err
				}
			} else {
				a, err := netip.ParseAddr(v)
				if err != nil {
					return nil, err
				}
				rec.Addr = a
			}
			out = append(out, rec)
		}
	}
	return out, nil
}
