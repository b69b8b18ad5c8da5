package statsd

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/berthd/berth/agent"
)

const (
	// lateFor is how long the lines of a container that ended are still booked to
	// it: they may wait in a socket's queue when it dies.
	lateFor = 2 * time.Second
	// rememberFor is how long the account of a container that ended is shown.
	rememberFor = 10 * time.Minute
)

// What senders are called that are no container of a bridge network.
const (
	unknownName = "(unknown)" // nothing is known of the source
	sharedName  = "(host)"    // the source is the host's own address, which many share
)

// place is where a datagram came from: the interface by its number, and the source
// address, an IPv4 one in its IPv6 form. The number is 0 where the kernel was not
// asked for it, and in a table for a network of which it is not known.
type place struct {
	index uint32
	addr  [16]byte
}

// table says who the senders are. It is immutable.
type table struct {
	places  map[place]*origin
	byAddr  map[[16]byte]*origin // nil for an address that several have
	byID    map[string]*origin
	own     map[[16]byte]bool // the host's addresses
	unknown *origin
	shared  *origin
	// indexed tells that an address alone does not say who sent a datagram: two
	// networks have the same ones, and the kernel is to be asked for the interface.
	indexed bool
}

// lookup returns who sent a datagram over UDP.
func (t *table) lookup(p place) *origin {
	o := t.byAddr[p.addr]
	if p.index != 0 {
		if o = t.places[p]; o == nil {
			o = t.places[place{addr: p.addr}]
		}
	}
	if o != nil {
		return o
	}
	a := netip.AddrFrom16(p.addr).Unmap()
	if t.own[p.addr] || a.IsLoopback() {
		return t.shared
	}
	return t.unknown
}

// String returns the address.
func (p place) String() string { return netip.AddrFrom16(p.addr).Unmap().String() }

// registrar makes a table of each snapshot. It belongs to one goroutine.
type registrar struct {
	cfg             Config
	unknown, shared *origin
	origins         map[string]*origin // of the last table, by the IDs of their containers
	known           map[string]*origin // the same, and those that ended not long ago
	places          graveyard[place]
	ids             graveyard[string]
}

func newRegistrar(cfg Config) *registrar {
	fixed := cfg.fixedTags()
	return &registrar{
		cfg:     cfg,
		unknown: newOrigin("", unknownName, fixed, new(account)),
		shared:  newOrigin("", sharedName, fixed, new(account)),
		origins: make(map[string]*origin),
		known:   make(map[string]*origin),
	}
}

// build returns the table of a snapshot, and when to build another one at the
// latest; zero for never. indexes are the numbers of the host's interfaces.
func (r *registrar) build(snap *agent.Snapshot, indexes map[string]uint32, now time.Time) (*table, time.Time) {
	t := &table{
		places: make(map[place]*origin), byID: make(map[string]*origin), own: ownAddresses(snap),
		unknown: r.unknown, shared: r.shared,
	}
	bridges := make(map[string]uint32)
	for _, n := range snap.Networks {
		if n.Driver == "bridge" {
			bridges[n.ID] = indexes[n.Bridge]
		}
	}
	guests := guestsOf(snap)
	origins := make(map[string]*origin)
	for _, c := range snap.Containers {
		if !c.Alive() {
			continue
		}
		t.byID[c.ID] = r.origin(origins, now, c)
		o := t.byID[c.ID]
		if g := guests[c.ID]; len(g) > 0 {
			o = r.origin(origins, now, append([]*agent.Container{c}, g...)...)
		}
		for _, e := range c.Endpoints {
			index, ok := bridges[e.NetworkID]
			if !ok && slices.ContainsFunc(snap.Networks, func(n agent.Network) bool { return n.ID == e.NetworkID }) {
				continue // not a network whose containers reach us by their own address
			}
			for _, a := range [...]netip.Addr{e.IPv4, e.IPv6} {
				if a.IsValid() {
					t.places[place{index, a.As16()}] = o
				}
			}
		}
	}
	r.origins = origins
	r.remember(now)
	t.byAddr, t.indexed = byAddress(t.places)
	next := r.places.bury(t.places, now)
	late, _ := byAddress(t.places)
	for a, o := range late { // where nobody else has the address now
		if _, taken := t.byAddr[a]; !taken {
			t.byAddr[a] = o
		}
	}
	if n := r.ids.bury(t.byID, now); next.IsZero() || !n.IsZero() && n.Before(next) {
		next = n
	}
	return t, next
}

// byAddress returns who has an address, nil where several have, and whether there is
// one that several have.
func byAddress(places map[place]*origin) (addrs map[[16]byte]*origin, several bool) {
	addrs = make(map[[16]byte]*origin, len(places))
	for p, o := range places {
		if other, taken := addrs[p.addr]; taken && other != o {
			several = true
			o = nil
		}
		addrs[p.addr] = o
	}
	return addrs, several
}

// origin returns what is put into the lines of a container, or of several that
// share one network: then only the tags that they have in common, as nobody can
// say which of them sent a line.
func (r *registrar) origin(into map[string]*origin, now time.Time, cs ...*agent.Container) *origin {
	var ids, names []string
	var tags [][]tag
	for _, c := range cs {
		ids, names, tags = append(ids, c.ID), append(names, c.Name), append(tags, r.cfg.tagsOf(c))
	}
	key := strings.Join(ids, "+")
	a := new(account)
	if before := r.known[key]; before != nil {
		a = before.account
	}
	a.lastSeen = now
	o := newOrigin(ids[0], strings.Join(names, "+"), common(tags), a)
	if len(cs) > 1 {
		o.cid = nil
	}
	if old := r.origins[key]; old != nil && old.name == o.name && slices.Equal(old.tags, o.tags) {
		o = old
	}
	into[key], r.known[key] = o, o
	return o
}

// remember forgets the accounts of those that ended long ago.
func (r *registrar) remember(now time.Time) {
	for key, o := range r.known {
		if now.Sub(o.account.lastSeen) > rememberFor {
			delete(r.known, key)
		}
	}
}

// senders returns all whose account is known, by name and ID; with live, without
// those that ended.
func (r *registrar) senders(live bool) []*origin {
	from := r.known
	if live {
		from = r.origins
	}
	list := append(slices.Collect(maps.Values(from)), r.shared, r.unknown)
	slices.SortFunc(list, func(a, b *origin) int {
		return cmp.Or(strings.Compare(a.name, b.name), strings.Compare(a.id, b.id))
	})
	return list
}

// guestsOf returns the live containers that are in the network of another one,
// by the ID of the one that has it.
func guestsOf(snap *agent.Snapshot) map[string][]*agent.Container {
	guests := make(map[string][]*agent.Container)
	for _, c := range snap.Containers {
		if !c.Alive() {
			continue
		}
		host := c
		for range 8 { // a guest may have guests; Docker allows no circle
			ref, ok := strings.CutPrefix(host.NetworkMode, "container:")
			if !ok {
				break
			}
			found := snap.Find(ref)
			if len(found) != 1 {
				break
			}
			host = found[0]
		}
		if host != c {
			guests[host.ID] = append(guests[host.ID], c)
		}
	}
	return guests
}

// ownAddresses are those from which the host itself sends, and containers in its
// network, and Docker's proxy in the name of others.
func ownAddresses(snap *agent.Snapshot) map[[16]byte]bool {
	own := make(map[[16]byte]bool)
	for _, n := range snap.Networks {
		for _, a := range n.Gateways {
			own[a.As16()] = true
		}
	}
	for _, a := range [...]netip.Addr{snap.Node.IPv4, snap.Node.IPv6} {
		if a.IsValid() {
			own[a.As16()] = true
		}
	}
	return own
}

// graveyard keeps what is gone from a table for a while, unless something else
// has taken its place.
type graveyard[K comparable] struct {
	live map[K]*origin
	late map[K]grave
}

type grave struct {
	*origin
	until time.Time
}

// bury adds to a table what is gone since the last call, and returns when the
// first of it is to go.
func (g *graveyard[K]) bury(table map[K]*origin, now time.Time) (next time.Time) {
	if g.late == nil {
		g.late = make(map[K]grave)
	}
	for k, o := range g.live {
		if table[k] == nil {
			g.late[k] = grave{o, now.Add(lateFor)}
		}
	}
	g.live = make(map[K]*origin, len(table))
	for k, o := range table {
		g.live[k] = o
		delete(g.late, k)
	}
	for k, dead := range g.late {
		if !now.Before(dead.until) {
			delete(g.late, k)
			continue
		}
		table[k] = dead.origin
		if next.IsZero() || dead.until.Before(next) {
			next = dead.until
		}
	}
	return next
}
