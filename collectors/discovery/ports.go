package discovery

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/berthd/berth/agent"
)

// PortMapping says where one port of a container is found.
type PortMapping struct {
	Container   string   `json:"container"` // its name
	ContainerID string   `json:"container_id"`
	Port        uint16   `json:"port"` // inside the container
	Proto       string   `json:"proto"`
	Host        string   `json:"host,omitempty"`  // address and port to connect to; empty for none
	Bound       string   `json:"bound,omitempty"` // the engine's binding, such as 0.0.0.0:32768
	Services    []string `json:"services"`        // the names that are claimed for the port
	Note        string   `json:"note,omitempty"`  // how it is reachable, or why it is not
}

var (
	errNotReady  = errors.New("the engine's containers are not known yet")
	errUnread    = errors.New("it exists, but the engine fails to inspect it")
	errNotFound  = errors.New("not found on this host")
	errAmbiguous = errors.New("ambiguous")
)

// Ports returns where the ports of a container (by ID, name or beginning of an
// ID), or of all containers that claim a service (by its name), are found;
// those with one port number, or all for 0. The error says that nothing has the
// name, or that several containers may be meant.
func (d *Discovery) Ports(ref string, port uint16) ([]PortMapping, error) {
	v := d.view.Load()
	if v == nil {
		return nil, errNotReady
	}
	list, err := v.portsOf(ref)
	if err != nil {
		return nil, err
	}
	rows := []PortMapping{}
	for _, c := range list {
		rows = append(rows, v.ports(c, port)...)
	}
	return rows, nil
}

// portsOf finds the containers that ref means: an exact ID or name comes before
// a service, and that before the beginning of an ID.
func (v *view) portsOf(ref string) ([]*agent.Container, error) {
	c, err := v.find(ref)
	if err == nil && (c.ID == ref || c.Name == strings.TrimPrefix(ref, "/")) {
		return []*agent.Container{c}, nil
	}
	var list []*agent.Container
	for i := range v.apps {
		a := &v.apps[i]
		if slices.ContainsFunc(a.sites, func(s site) bool { return s.claim.isCalled(ref) }) {
			list = append(list, a.c)
		}
	}
	if len(list) == 0 && err == nil {
		list = []*agent.Container{c}
	}
	if len(list) == 0 {
		return nil, err
	}
	return list, nil
}

// isCalled reports whether a person may mean this claim by ref.
func (cl *claim) isCalled(ref string) bool {
	ref = strings.TrimSuffix(lower(ref), ".")
	return ref == cl.name.String() || ref == cl.name.plain() ||
		ref+"." == cl.srv || ref+"." == cl.alias
}

// find returns the one container that ref means.
func (v *view) find(ref string) (*agent.Container, error) {
	switch found := v.snap.Find(ref); len(found) {
	case 0:
		return nil, fmt.Errorf("find container %q: %w", ref, errNotFound)
	case 1:
		return found[0], nil
	default:
		return nil, fmt.Errorf("find container %q: %w: %s and %s begin with it", ref, errAmbiguous, found[0].ShortID(), found[1].ShortID())
	}
}

// ports returns the rows of one container.
func (v *view) ports(c *agent.Container, only uint16) []PortMapping {
	owner, problem := networkOwner(v.snap, c)
	plan := v.rules.plan(c, owner)
	listed := listedPorts(owner)
	for i := range plan.claims {
		listed = append(listed, agent.Port{Container: plan.claims[i].port, Proto: plan.claims[i].proto})
	}
	if owner.NetworkMode == "host" && only != 0 && len(listed) == 0 {
		listed = append(listed, agent.Port{Container: only, Proto: "tcp"})
	}
	slices.SortFunc(listed, comparePorts)
	listed = slices.CompactFunc(listed, func(a, b agent.Port) bool { return comparePorts(a, b) == 0 })
	var rows []PortMapping
	for _, p := range listed {
		if only != 0 && p.Container != only {
			continue
		}
		row := PortMapping{Container: c.Name, ContainerID: c.ID, Port: p.Container, Proto: p.Proto, Services: plan.names(p)}
		if problem != (verdict{}) {
			row.Note = problem.why
			rows = append(rows, row)
			continue
		}
		rows = append(rows, v.mappings(c, owner, plan, row)...)
	}
	return rows
}

// mappings completes the row of one port, once for each binding.
func (v *view) mappings(c, owner *agent.Container, plan *plan, row PortMapping) []PortMapping {
	cl := &claim{port: row.Port, proto: row.Proto, options: new(options)}
	for i := range plan.claims {
		if e := &plan.claims[i]; e.port == row.Port && e.proto == row.Proto {
			cl.options = e.options
		}
	}
	var rows []PortMapping
	for _, b := range publishedOn(owner, cl) {
		row.Bound, row.Host, row.Note = b.String(), v.place.connect(b), "published"
		if b.Addr().IsLoopback() {
			row.Note = "published on loopback: this host only"
		}
		rows = append(rows, row)
	}
	if len(rows) > 0 && cl.options.network == "" {
		return rows
	}
	row.Bound, row.Host = "", ""
	spots, out := v.place.locate(c, owner, cl)
	row.Note = out.why
	for _, s := range spots {
		row.Note = "the container's own address"
		if owner.NetworkMode == "host" {
			row.Note = "the host's network"
		}
		for _, a := range s.addresses() {
			row.Host = netip.AddrPortFrom(a, s.port).String()
			rows = append(rows, row)
		}
	}
	if len(spots) == 0 {
		rows = append(rows, row)
	}
	return rows
}

// connect returns the address to connect to for a binding: the host's own where
// it is bound to all of them and that is known.
func (p *place) connect(b netip.AddrPort) string {
	a := b.Addr()
	switch {
	case a.Is6() && a.IsUnspecified():
		a = p.v6
	case !a.IsValid() || a.IsUnspecified():
		a = p.v4
	}
	if !a.IsValid() {
		return ""
	}
	return netip.AddrPortFrom(a, b.Port()).String()
}

// names returns the names that a plan claims for one port.
func (p *plan) names(port agent.Port) []string {
	names := []string{}
	for i := range p.claims {
		if cl := &p.claims[i]; cl.port == port.Container && cl.proto == port.Proto {
			names = append(names, cl.name.String())
		}
	}
	return names
}

// listedPorts returns the ports that a container exposes or publishes, each
// once, sorted, without what they are mapped to.
func listedPorts(c *agent.Container) []agent.Port {
	var list []agent.Port
	for _, p := range c.Ports {
		list = append(list, agent.Port{Container: p.Container, Proto: p.Proto})
	}
	slices.SortFunc(list, comparePorts)
	return slices.Compact(list)
}
