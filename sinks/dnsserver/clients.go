package dnsserver

import (
	"net"
	"net/netip"

	"github.com/berthd/berth/agent"
)

// clients says who may have questions forwarded. It is immutable.
type clients struct {
	subnets []netip.Prefix // of the bridge networks
	own     map[netip.Addr]bool
}

// newClients returns the clients of a host with these networks.
func newClients(networks []agent.Network) *clients {
	c := &clients{own: make(map[netip.Addr]bool)}
	for _, n := range networks {
		if n.Driver == "bridge" {
			c.subnets = append(c.subnets, n.Subnets...)
		}
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return c // the host itself comes from loopback, mostly
	}
	for _, a := range addrs {
		if ipnet, ok := a.(*net.IPNet); ok {
			if a, ok := netip.AddrFromSlice(ipnet.IP); ok {
				c.own[a.Unmap()] = true
			}
		}
	}
	return c
}

// trust reports whether a client is no stranger: the host itself, or a container
// on one of its bridge networks.
func (c *clients) trust(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if a.IsLoopback() || c.own[a] {
		return true
	}
	for _, p := range c.subnets {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
