package discovery

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/berthd/berth/agent"
)

// Service is one name and what claims it on this host.
type Service struct {
	Name      string     `json:"name"`            // "calc", or "_calc._tcp" where that is all that is claimed
	SRV       string     `json:"srv"`             // name of the SRV records, with the final dot
	Alias     string     `json:"alias,omitempty"` // the plain name with the domain and the final dot
	Instances []Instance `json:"instances"`       // by container name, then port, then host port
}

// Instance is one place where a container offers a service, or would.
type Instance struct {
	Container     string             `json:"container"` // its name
	ContainerID   string             `json:"container_id"`
	ContainerPort uint16             `json:"container_port"`
	Proto         string             `json:"proto"`
	State         string             `json:"state"`               // Registered or Out
	Reason        string             `json:"reason,omitempty"`    // why it is out
	Target        string             `json:"target,omitempty"`    // of the SRV record
	Addresses     []netip.Addr       `json:"addresses,omitempty"` // of the target, IPv4 first
	Port          uint16             `json:"port,omitempty"`      // of the SRV record
	Priority      uint16             `json:"priority"`
	Weight        uint16             `json:"weight"`
	TTL           uint32             `json:"ttl"` // seconds, as published
	Health        agent.HealthStatus `json:"health,omitempty"`
	Since         time.Time          `json:"since"` // start of the container's present run
	ID            string             `json:"id,omitempty"`
	Tags          []string           `json:"tags,omitempty"`
	Checks        map[string]string  `json:"checks,omitempty"` // SERVICE_<port>_CHECK_…, as written
	Check         *CheckStatus       `json:"check,omitempty"`  // of the check that is run; nil for none
	Attributes    map[string]string  `json:"attributes,omitempty"`
	Origin        Origin             `json:"origin,omitzero"`
}

// CheckStatus is what is known of the check of one port.
type CheckStatus struct {
	State   string    `json:"state"`           // CheckStarting, CheckAssumed, CheckPassing or CheckFailing
	Since   time.Time `json:"since"`           // when that began
	Kind    string    `json:"kind"`            // "http" or "tcp"
	Address string    `json:"address"`         // the URL, or the address and port; empty while it is not run
	Last    time.Time `json:"last,omitzero"`   // when it was run last
	Seconds float64   `json:"seconds"`         // how long that took
	Error   string    `json:"error,omitempty"` // why that failed
}

// Services returns the services of this host, by name, with those of their
// instances that are out, and why. It is empty before the first snapshot.
func (d *Discovery) Services() []Service {
	v := d.view.Load()
	if v == nil {
		return []Service{}
	}
	return v.services()
}

func (v *view) services() []Service {
	byName := make(map[string]*Service)
	for i := range v.apps {
		a := &v.apps[i]
		for j := range a.sites {
			s := &a.sites[j]
			svc := byName[s.claim.srv]
			if svc == nil {
				svc = &Service{Name: strings.TrimSuffix(strings.TrimSuffix(s.claim.srv, v.rules.zone), "."), SRV: s.claim.srv}
				byName[s.claim.srv] = svc
			}
			if s.claim.alias != "" {
				svc.Name, svc.Alias = s.claim.name.String(), s.claim.alias
			}
			svc.Instances = append(svc.Instances, v.instances(a, s)...)
		}
	}
	list := make([]Service, 0, len(byName))
	for _, svc := range byName {
		slices.SortFunc(svc.Instances, func(a, b Instance) int {
			return cmp.Or(
				strings.Compare(a.Container, b.Container), cmp.Compare(a.ContainerPort, b.ContainerPort),
				cmp.Compare(a.Port, b.Port), strings.Compare(a.Target, b.Target))
		})
		list = append(list, *svc)
	}
	slices.SortFunc(list, func(a, b Service) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.SRV, b.SRV))
	})
	return list
}

// instances returns a row for each place of a claim, or one for none.
func (v *view) instances(a *app, s *site) []Instance {
	o := s.claim.options
	row := Instance{
		Container: a.c.Name, ContainerID: a.c.ID, ContainerPort: s.claim.port, Proto: s.claim.proto,
		State: Out, Reason: s.out.why, Priority: o.priority, Weight: o.weight, TTL: o.ttl,
		Health: a.c.Health, Since: a.c.StartedAt, ID: o.id, Tags: o.tags,
		Checks: o.checks, Attributes: o.attributes, Origin: Identity(a.c),
	}
	if s.check != nil {
		row.Check = v.status(s.check)
	}
	if ttl, ok := ttlOf(v.set.Records, s.claim.srv, agent.TypeSRV); ok {
		row.TTL = ttl
	}
	if s.registered() {
		row.State = Registered
	}
	if len(s.spots) == 0 {
		return []Instance{row}
	}
	rows := make([]Instance, len(s.spots))
	for i, at := range s.spots {
		rows[i] = row
		rows[i].Target, rows[i].Port, rows[i].Addresses = at.target, at.port, at.addresses()
	}
	return rows
}

// addresses returns the valid addresses of a spot.
func (s spot) addresses() []netip.Addr {
	return slices.DeleteFunc([]netip.Addr{s.v4, s.v6}, func(a netip.Addr) bool { return !a.IsValid() })
}

// status tells of a check what is known by now, which may be more than at the
// time of the view.
func (v *view) status(c *checked) *CheckStatus {
	state := v.rules.latest(c)
	status := &CheckStatus{
		State: state.word, Since: state.since, Kind: "tcp",
		Last: state.last.at, Seconds: state.last.took.Seconds(), Error: state.last.why,
	}
	if c.check.path != "" {
		status.Kind = "http"
	}
	if c.target.IsValid() {
		status.Address = c.address()
	}
	return status
}
