package discovery

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/berthd/berth/agent"
)

// AddressFunc returns the address of a container whose network the engine does
// not manage, such as that of an ECS task in mode awsvpc. It is called with
// each evaluation, must not block, and must be safe for concurrent use.
type AddressFunc func(*agent.Container) (netip.Addr, bool)

// spot is one place where a claim is reachable: a port, at a target with at
// least one address.
type spot struct {
	target string // with the final dot
	v4, v6 netip.Addr
	port   uint16
}

// verdict is why something is not registered, and what would change it. Its
// zero value means that nothing is wrong.
type verdict struct{ why, fix string }

// place is what addresses depend on besides the container: the host and its
// networks, as one snapshot has them.
type place struct {
	rules    *rules
	snap     *agent.Snapshot
	label    string // the node's label
	target   string // the node's name, with the final dot
	v4, v6   netip.Addr
	stand    bool // v4 and v6 are those of a bridge: the host's own are unknown
	networks map[string]*agent.Network
}

// newPlace finds the addresses of the host: those of its default route, or else
// the first gateway of its bridges, which its own containers can reach.
func (r *rules) newPlace(snap *agent.Snapshot) *place {
	p := &place{
		rules: r, snap: snap, label: lower(snap.Node.Label()),
		v4: snap.Node.IPv4.Unmap(), v6: snap.Node.IPv6,
		networks: make(map[string]*agent.Network, 2*len(snap.Networks)),
	}
	p.target = p.label + "." + r.zone
	for i := range snap.Networks {
		n := &snap.Networks[i]
		p.networks[n.Name] = n
		p.networks[n.ID] = n
	}
	if p.v4.IsValid() || p.v6.IsValid() {
		return p
	}
	p.stand = true
	for _, a := range snap.Bridges() {
		switch {
		case a.Is4() && !p.v4.IsValid():
			p.v4 = a
		case a.Is6() && !a.IsLinkLocalUnicast() && !p.v6.IsValid():
			p.v6 = a
		}
	}
	return p
}

// known reports whether the host has any address.
func (p *place) known() bool { return p.v4.IsValid() || p.v6.IsValid() }

// node is the spot at the host's own name.
func (p *place) node(port uint16) spot { return spot{p.target, p.v4, p.v6, port} }

// host is the spot at one address of the host.
func (p *place) host(a netip.Addr, port uint16) spot {
	return at(addrLabel(a)+"."+p.target, a, port)
}

// at makes a spot of one address.
func at(target string, a netip.Addr, port uint16) spot {
	if a.Is4() {
		return spot{target: target, v4: a, port: port}
	}
	return spot{target: target, v6: a, port: port}
}

// addrLabel writes an address as a label: 10-0-0-5. IPv6 is written out in
// full, because a short form may end in a hyphen or look like an IDNA label.
func addrLabel(a netip.Addr) string {
	return strings.NewReplacer(".", "-", ":", "-").Replace(a.StringExpanded())
}

// networkOwner returns the container whose network c uses: itself, or at the
// end of a chain of container:<id> modes another one, which must be up, and
// whose present run must be the one that c joined.
func networkOwner(snap *agent.Snapshot, c *agent.Container) (*agent.Container, verdict) {
	owner := c
	for range len(snap.Containers) + 1 {
		ref, shares := strings.CutPrefix(owner.NetworkMode, "container:")
		if !shares {
			return owner, verdict{}
		}
		found := snap.Find(ref)
		if len(found) != 1 {
			return c, verdict{
				fmt.Sprintf("it shares the network of container %s, which does not exist", agent.ShortID(ref)),
				"start that container, then this one again",
			}
		}
		next := found[0]
		switch {
		case !next.Alive():
			return c, verdict{
				fmt.Sprintf("it shares the network of container %s, which is %s", next.Name, next.State),
				"start that container, then this one again",
			}
		case !next.StoppingSince.IsZero():
			return c, verdict{fmt.Sprintf("it shares the network of container %s, which is being stopped", next.Name), ""}
		case owner.Alive() && next.StartedAt.After(owner.StartedAt):
			return c, verdict{
				fmt.Sprintf("it still has the network of an earlier run of container %s, which was started again", next.Name),
				"restart " + owner.Name,
			}
		}
		owner = next
	}
	return c, verdict{"the containers whose networks it shares share each other's in a circle", "give one of them a network"}
}

// locate returns where a claim of container c is reachable, or why nowhere.
// The network is that of owner.
func (p *place) locate(c, owner *agent.Container, cl *claim) ([]spot, verdict) {
	mode, want := owner.NetworkMode, cl.options.network
	switch {
	case mode == "host" && (want == "" || want == mode):
		if !p.known() {
			return nil, p.addressless()
		}
		return []spot{p.node(cl.port)}, verdict{}
	case mode == "none" && (want == "" || want == mode):
		return p.unmanaged(c, owner, cl)
	case want != "":
		return p.onNetwork(c, owner, cl, want)
	}
	if bindings := publishedOn(owner, cl); len(bindings) > 0 && !p.allInternal(owner) {
		return p.published(cl, bindings)
	}
	if direct := p.directEndpoint(owner); direct != nil {
		return p.container(c, cl, direct)
	}
	return nil, p.unpublished(owner, cl)
}

// onNetwork is the container's own address on a network that the claim names.
func (p *place) onNetwork(c, owner *agent.Container, cl *claim, network string) ([]spot, verdict) {
	var names []string
	for i, e := range owner.Endpoints {
		if e.Network == network || e.NetworkID == network {
			return p.container(c, cl, &owner.Endpoints[i])
		}
		names = append(names, e.Network)
	}
	v := verdict{fmt.Sprintf("SERVICE_%d_NETWORK asks for network %s, and the container is not on it", cl.port, network), "connect it to that network"}
	if len(names) > 0 {
		v.fix = "use one of its networks: " + strings.Join(names, ", ")
	}
	return nil, v
}

// container is the container's own address, with the container's port.
func (p *place) container(c *agent.Container, cl *claim, e *agent.Endpoint) ([]spot, verdict) {
	if !e.IPv4.IsValid() && !e.IPv6.IsValid() {
		return nil, verdict{fmt.Sprintf("it has no address on network %s yet", e.Network), ""}
	}
	return []spot{{p.containerTarget(c), e.IPv4.Unmap(), e.IPv6, cl.port}}, verdict{}
}

func (p *place) containerTarget(c *agent.Container) string { return c.ShortID() + "." + p.target }

// unmanaged is a container without any network of the engine's.
func (p *place) unmanaged(c, owner *agent.Container, cl *claim) ([]spot, verdict) {
	if p.rules.addresses != nil {
		for _, who := range []*agent.Container{c, owner} {
			if a, ok := p.rules.addresses(who); ok && a.IsValid() {
				return []spot{at(p.containerTarget(c), a.Unmap(), cl.port)}, verdict{}
			}
		}
	}
	if c.OfECS() || owner.OfECS() {
		return nil, verdict{
			"ECS gave its task a network interface of its own (awsvpc), whose address the engine does not know: unsupported",
			"use the network mode bridge or host in the task definition",
		}
	}
	return nil, verdict{"its network mode is none: nothing can reach it", "give it a network"}
}

// directEndpoint returns the endpoint whose address others reach without a
// published port, or nil: on a network that is not a bridge (macvlan, ipvlan,
// overlay, a plugin's), or failing that on an internal bridge.
func (p *place) directEndpoint(owner *agent.Container) *agent.Endpoint {
	var internal *agent.Endpoint
	for i := range owner.Endpoints {
		e := &owner.Endpoints[i]
		n := p.network(e)
		switch {
		case n == nil, !e.IPv4.IsValid() && !e.IPv6.IsValid():
		case n.Driver == "overlay" && n.Name == "ingress": // Swarm's load balancer alone uses it
		case n.Driver != "bridge" && n.Driver != "host" && n.Driver != "null":
			return e
		case n.Internal && internal == nil:
			internal = e
		}
	}
	return internal
}

// allInternal reports whether every network of the container is known to be
// internal, where the engine maps no ports.
func (p *place) allInternal(owner *agent.Container) bool {
	for i := range owner.Endpoints {
		if n := p.network(&owner.Endpoints[i]); n == nil || !n.Internal {
			return false
		}
	}
	return len(owner.Endpoints) > 0
}

func (p *place) network(e *agent.Endpoint) *agent.Network {
	if n := p.networks[e.NetworkID]; n != nil && e.NetworkID != "" {
		return n
	}
	return p.networks[e.Network]
}

// publishedOn returns the host's addresses and ports that are mapped to the
// claim's port, by port, then address.
func publishedOn(owner *agent.Container, cl *claim) []netip.AddrPort {
	var list []netip.AddrPort
	for _, port := range owner.Ports {
		if port.Container == cl.port && port.Proto == cl.proto && port.Published() {
			list = append(list, netip.AddrPortFrom(port.Host.Addr().Unmap(), port.Host.Port()))
		}
	}
	slices.SortFunc(list, func(a, b netip.AddrPort) int {
		return cmp.Or(cmp.Compare(a.Port(), b.Port()), a.Addr().Compare(b.Addr()))
	})
	return list
}

// published turns bindings, sorted by port, into spots. Bindings that cover
// every address family of the host give one spot at the host's own name; one
// that covers IPv4 or IPv6 alone gives a spot at that address, so that no
// client is sent to a port which is not open in its family. Where the families
// have different ports, as the engine sometimes assigns them, IPv4 counts:
// containers seldom have IPv6, and a client that has it has IPv4, too. Other
// addresses of the host give a spot each. Of several ports at one place the
// lowest counts.
func (p *place) published(cl *claim, bindings []netip.AddrPort) ([]spot, verdict) {
	var spots []spot
	var port4, port6 uint16 // at the host's own address of the family
	var family, scoped bool
	for _, b := range bindings {
		a := b.Addr()
		every := !a.IsValid() // the engine did not say: all addresses
		switch {
		case every, a.IsUnspecified(), a == p.v4, a == p.v6:
			family = true
			if port4 == 0 && p.v4.IsValid() && (every || a.Is4()) {
				port4 = b.Port()
			}
			if port6 == 0 && p.v6.IsValid() && (every || a.Is6()) {
				port6 = b.Port()
			}
		case a.IsLoopback():
		case a.Is6() && a.IsLinkLocalUnicast():
			scoped = true
		case !slices.ContainsFunc(spots, func(s spot) bool { return s.v4 == a || s.v6 == a }):
			spots = append(spots, p.host(a, b.Port()))
		}
	}
	switch {
	case port4 != 0 && (port4 == port6 || !p.v6.IsValid()), port6 != 0 && !p.v4.IsValid():
		spots = append(spots, p.node(max(port4, port6)))
	case port4 != 0:
		spots = append(spots, p.host(p.v4, port4))
	case port6 != 0:
		spots = append(spots, p.host(p.v6, port6))
	}
	switch {
	case len(spots) > 0:
		return spots, verdict{}
	case family && !p.known():
		return nil, p.addressless()
	case family:
		return nil, verdict{
			"it is published in one address family, and the host's address is of the other one",
			fmt.Sprintf("publish it on all addresses: -p %d:%s", bindings[0].Port(), portName(cl.port, cl.proto)),
		}
	case scoped:
		return nil, verdict{
			"it is published on a link-local IPv6 address, which means nothing without an interface",
			"publish it on another address of the host",
		}
	}
	return nil, verdict{
		fmt.Sprintf("it is published on %s only, which nothing but the host itself reaches", bindings[0].Addr()),
		fmt.Sprintf("publish it on an address of the host: -p %d:%s", bindings[0].Port(), portName(cl.port, cl.proto)),
	}
}

// addressless is the verdict of a host without any address.
func (p *place) addressless() verdict {
	return verdict{"no address of this host is known", "see the condition `address` in `berth status`"}
}

// unpublished says why a port on a bridge cannot be reached.
func (p *place) unpublished(owner *agent.Container, cl *claim) verdict {
	port := portName(cl.port, cl.proto)
	fix := fmt.Sprintf("publish it: -p %s", port)
	if len(owner.Endpoints) > 0 {
		fix += fmt.Sprintf(", or set SERVICE_%d_NETWORK=%s for clients on that network", cl.port, owner.Endpoints[0].Network)
	}
	listed := slices.ContainsFunc(owner.Ports, func(o agent.Port) bool { return comparePorts(o, agent.Port{Container: cl.port, Proto: cl.proto}) == 0 })
	if !listed {
		return verdict{fmt.Sprintf("the container has no port %s: the number is that of the port inside of it", port), fix}
	}
	return verdict{fmt.Sprintf("port %s is exposed but not published", port), fix}
}
