package rfc2136

import (
	"slices"
	"testing"
	"time"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/test/dnsservers"
)

// twins returns two hosts of one identity, with a journal each.
func twins(t *testing.T, s *dnsservers.Server) (one, two *host) {
	one, two = newHost(t, "host1", s), newHost(t, "host1", s)
	for _, h := range []*host{one, two} {
		h.twinned = true
		h.prepare = func(s *Sink) { s.recheck = 100 * time.Millisecond }
	}
	one.start()
	one.apply(address("host1", "192.0.2.1"), srv("host1", 1))
	one.healthy()
	return one, two
}

// A clone of a machine has its identity, and an address of its own: both agents
// say so, both serve what they want, and neither removes what is the other's.
func TestPitfall_discovery26_TwoAgentsWithOneIdentity(t *testing.T) {
	each(t, func(t *testing.T, s *dnsservers.Server) {
		one, two := twins(t, s)
		two.start()
		ofTwo := []agent.Record{address("host1", "192.0.2.2"), srv("host1", 2)}
		two.apply(ofTwo...)
		two.condition(condIdentity, "host1."+zone, "one identity", "node.id")
		holds(t, s, append(ofTwo, address("host1", "192.0.2.1"), srv("host1", 1))...)

		ofOne := []agent.Record{address("host1", "192.0.2.1"), srv("host1", 3)}
		one.apply(ofOne...)
		one.condition(condIdentity, "host1."+zone)
		holds(t, s, slices.Concat(ofOne, ofTwo)...)

		two.stop()
		must(t, two.open().Remove(t.Context()))
		one.healthy() // by itself
		holds(t, s, ofOne...)
	})
}

// Two agents on one machine even have one address, which goes with the first of
// them: the other one notices, and puts it back.
func TestPitfall_discovery26_TwoAgentsWithOneAddress(t *testing.T) {
	each(t, func(t *testing.T, s *dnsservers.Server) {
		one, two := twins(t, s)
		two.start()
		two.apply(address("host1", "192.0.2.1"), srv("host1", 2))
		if two.sink.meters.snapshot()[string(denied)] == 0 {
			t.Error("the second agent has noticed nothing")
		}
		two.stop()
		must(t, two.open().Remove(t.Context()))
		holds(t, s, srv("host1", 1))
		ofOne := []agent.Record{address("host1", "192.0.2.1"), srv("host1", 3)}
		one.apply(ofOne...)
		holds(t, s, ofOne...)
		if one.sink.meters.snapshot()[string(denied)] == 0 {
			t.Error("the first agent has noticed nothing")
		}
		one.healthy()
	})
}
