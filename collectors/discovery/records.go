package discovery

import (
	"net/netip"
	"slices"

	"github.com/berthd/berth/agent"
)

// records returns what the view wants in DNS, sorted, without repeats, and with
// one TTL in each RRset.
func (v *view) records() []agent.Record {
	rs := recordList{list: make([]agent.Record, 0, 2+4*len(v.apps)), node: v.place.target}
	rs.addresses(v.place.target, v.place.v4, v.place.v6, v.rules.ttl)
	for i := range v.apps {
		for j := range v.apps[i].sites {
			if site := &v.apps[i].sites[j]; site.registered() {
				rs.site(site, v.rules.ttl)
			}
		}
	}
	slices.SortFunc(rs.list, agent.Record.Compare)
	levelTTLs(rs.list)
	return slices.Compact(rs.list)
}

type recordList struct {
	list []agent.Record
	node string // the host's own target, whose addresses are in the list already
}

// site adds the records of one claim: SRV at its name, addresses at its
// targets, and for a plain name both at the alias, so that a client finds the
// service there whichever of the two it asks for.
func (rs *recordList) site(s *site, targetTTL uint32) {
	cl := s.claim
	for _, at := range s.spots {
		srv := agent.Record{
			Name: cl.srv, Type: agent.TypeSRV, TTL: cl.options.ttl,
			Priority: cl.options.priority, Weight: cl.options.weight, Port: at.port, Target: at.target,
		}
		rs.list = append(rs.list, srv)
		if at.target != rs.node {
			rs.addresses(at.target, at.v4, at.v6, targetTTL)
		}
		if cl.alias != "" {
			srv.Name = cl.alias
			rs.list = append(rs.list, srv)
			rs.addresses(cl.alias, at.v4, at.v6, cl.options.ttl)
		}
	}
}

func (rs *recordList) addresses(name string, v4, v6 netip.Addr, ttl uint32) {
	if v4.IsValid() {
		rs.list = append(rs.list, agent.Record{Name: name, Type: agent.TypeA, TTL: ttl, Addr: v4})
	}
	if v6.IsValid() {
		rs.list = append(rs.list, agent.Record{Name: name, Type: agent.TypeAAAA, TTL: ttl, Addr: v6})
	}
}

// levelTTLs gives all records of one name and type the lowest TTL among them,
// because an RRset has one (RFC 2181 §5.2). The records are sorted; what
// differs in TTL alone is equal afterwards, so that they stay sorted.
func levelTTLs(list []agent.Record) {
	for len(list) > 0 {
		n, ttl := 0, list[0].TTL
		for n < len(list) && list[n].Name == list[0].Name && list[n].Type == list[0].Type {
			ttl = min(ttl, list[n].TTL)
			n++
		}
		for i := range list[:n] {
			list[i].TTL = ttl
		}
		list = list[n:]
	}
}

// ttlOf returns the TTL of the RRset of this name and type in a sorted list.
func ttlOf(list []agent.Record, name string, t agent.RecordType) (uint32, bool) {
	i, _ := slices.BinarySearchFunc(list, agent.Record{Name: name, Type: t}, agent.Record.Compare)
	if i < len(list) && list[i].Name == name && list[i].Type == t {
		return list[i].TTL, true
	}
	return 0, false
}
