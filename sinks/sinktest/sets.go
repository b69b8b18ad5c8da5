package sinktest

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"

	"github.com/berthd/berth/agent"
)

// Zone is the domain that the suite's records lie in.
const Zone = "sinktest.example."

// services is how many services the suite knows.
const services = 6

// Node returns the host that the suite's records belong to.
func Node() agent.Node {
	return agent.Node{
		ID:       "host1",
		Settled:  true,
		Source:   "config",
		Hostname: "host1.example",
		IPv4:     netip.MustParseAddr("192.0.2.1"),
		IPv6:     netip.MustParseAddr("2001:db8::1"),
	}
}

// Names returns every name that occurs in a set of the suite.
func Names() []string {
	names := []string{target()}
	for i := range services {
		names = append(names, serviceName(i), plainName(i))
	}
	return names
}

func target() string { return Node().Label() + "." + Zone }

func serviceName(i int) string { return fmt.Sprintf("_svc%d._tcp.%s", i, Zone) }

func plainName(i int) string { return fmt.Sprintf("svc%d.%s", i, Zone) }

// srv returns one SRV record of service i.
func srv(i int, port uint16) agent.Record {
	return agent.Record{
		Name: serviceName(i), Type: agent.TypeSRV, TTL: 10,
		Priority: 1, Weight: 1, Port: port, Target: target(),
	}
}

// address returns an address record.
func address(name, addr string) agent.Record {
	a := netip.MustParseAddr(addr)
	r := agent.Record{Name: name, Type: agent.TypeA, TTL: 10, Addr: a}
	if a.Is6() {
		r.Type = agent.TypeAAAA
	}
	return r
}

// set returns a complete set of these records.
func set(records ...agent.Record) agent.RecordSet {
	return agent.NewRecordSet(Zone, Node(), records, false)
}

// partial returns a partial set of these records.
func partial(records ...agent.Record) agent.RecordSet {
	return agent.NewRecordSet(Zone, Node(), records, true)
}

// random returns a complete set of up to forty records. The records of one
// name and type have one TTL, as RFC 2181 §5.2 demands of what it calls a set.
func random(rng *rand.Rand) agent.RecordSet {
	var records []agent.Record
	add := func(n int, makeOne func() agent.Record) {
		ttl := uint32(1 + rng.IntN(3)*10)
		for range n {
			r := makeOne()
			r.TTL = ttl
			records = append(records, r)
		}
	}
	for i := range services {
		if rng.IntN(3) == 0 {
			continue // a service that does not run
		}
		add(rng.IntN(5), func() agent.Record {
			r := srv(i, uint16(32768+rng.IntN(6)))
			r.Priority, r.Weight = uint16(rng.IntN(2)), uint16(rng.IntN(3))
			return r
		})
		add(rng.IntN(2), func() agent.Record { return address(plainName(i), "192.0.2.1") })
		add(rng.IntN(2), func() agent.Record { return address(plainName(i), "2001:db8::1") })
	}
	add(rng.IntN(2), func() agent.Record { return address(target(), "192.0.2.1") })
	add(rng.IntN(2), func() agent.Record { return address(target(), "2001:db8::1") })
	return set(records...)
}

// difference describes how got differs from want, or returns "".
func difference(got, want []agent.Record) string {
	ch := agent.Diff(got, want)
	if ch.Empty() {
		return ""
	}
	var b strings.Builder
	for _, r := range ch.Delete {
		fmt.Fprintf(&b, "\n  held, but not wanted: %s", r)
	}
	for _, r := range ch.Create {
		fmt.Fprintf(&b, "\n  wanted, but not held: %s", r)
	}
	return b.String()
}
