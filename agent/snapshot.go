package agent

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Snapshot is everything that berth knows of its host at one moment. It is
// immutable, so that any number of goroutines may read one without locks, and
// level-triggered: who misses a snapshot misses an intermediate state, never a
// final one.
type Snapshot struct {
	// Seq counts publications; it grows by one with each, from 1.
	Seq uint64
	// At is when the snapshot was published.
	At time.Time

	// Connected is whether the event stream is up.
	Connected bool
	// Complete is whether this is the whole truth: the stream is up, a full
	// list has succeeded since it came up, and every container of it has been
	// inspected or refused to be. Nothing may be deleted on the word of an
	// incomplete snapshot: what is not in it may well be alive.
	Complete bool
	// EngineID is the engine's own ID. Knowledge of one engine's containers
	// says nothing of another's.
	EngineID string
	// EngineVersion is the engine's release, for people, and EngineRoot the
	// folder in which it keeps its data.
	EngineVersion, EngineRoot string

	Node       Node
	Containers []*Container // sorted by ID; in every state, created and exited too
	Networks   []Network    // sorted by Name, then ID
	// Unread holds the IDs of containers that exist, but that the engine would
	// not let us inspect. Sorted.
	Unread []string

	// Dead holds every run that ended within the retention time, oldest
	// first: those of containers that exited, and of those that were removed.
	Dead []DeadRun

	// Drain is nil, or the state of the drain that is under way.
	Drain *Drain

	lookups sync.Once
	byName  map[string]*Container
	byAddr  map[netip.Addr]*Container
}

// Drain says that this host is going away.
type Drain struct {
	Reason   string
	Since    time.Time
	Deadline time.Time
}

// ByID returns the container with this full ID, or nil.
func (s *Snapshot) ByID(id string) *Container {
	i, ok := slices.BinarySearchFunc(s.Containers, id, func(c *Container, id string) int {
		return strings.Compare(c.ID, id)
	})
	if !ok {
		return nil
	}
	return s.Containers[i]
}

func byID(a, b *Container) int { return strings.Compare(a.ID, b.ID) }

// ByName returns the container with this name, or nil. Names are unique within
// an engine.
func (s *Snapshot) ByName(name string) *Container {
	s.lookups.Do(s.index)
	return s.byName[strings.TrimPrefix(name, "/")]
}

// ByAddr returns the live container that has this address on one of its
// networks, or nil. Containers that share the host's or another container's
// network are not found by it: an address says nothing of which one it is.
func (s *Snapshot) ByAddr(a netip.Addr) *Container {
	s.lookups.Do(s.index)
	return s.byAddr[a.Unmap()]
}

// Find returns the containers that a person may mean by ref: a full ID, a
// name, or an unambiguous beginning of an ID. More than one result means that
// the beginning is ambiguous.
func (s *Snapshot) Find(ref string) []*Container {
	if c := s.ByID(ref); c != nil {
		return []*Container{c}
	}
	if c := s.ByName(ref); c != nil {
		return []*Container{c}
	}
	var found []*Container
	if ref != "" {
		for _, c := range s.Containers {
			if strings.HasPrefix(c.ID, ref) {
				found = append(found, c)
			}
		}
	}
	return found
}

// Bridges returns the gateway addresses of the host's bridge networks: the
// addresses at which containers reach the host, sorted and without repeats.
func (s *Snapshot) Bridges() []netip.Addr {
	var addrs []netip.Addr
	for _, n := range s.Networks {
		if n.Driver == "bridge" {
			addrs = append(addrs, n.Gateways...)
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs)
}

// index builds the maps behind ByName and ByAddr, on the first use: most
// snapshots are superseded before anyone asks.
func (s *Snapshot) index() {
	s.byName = make(map[string]*Container, len(s.Containers))
	s.byAddr = make(map[netip.Addr]*Container, len(s.Containers))
	for _, c := range s.Containers {
		s.byName[c.Name] = c
		if !c.Alive() {
			continue
		}
		for _, e := range c.Endpoints {
			for _, a := range [...]netip.Addr{e.IPv4, e.IPv6} {
				if a.IsValid() {
					s.byAddr[a] = c
				}
			}
		}
	}
}

// Node is who this host is. Its zero value means that nothing is known yet.
type Node struct {
	// ID is the host's identity in records and object names: the instance ID
	// on EC2, elsewhere one derived from what does not change. It is a valid
	// DNS label. Empty while the host is known to be an EC2 instance whose ID
	// is not known yet.
	ID string
	// Settled is whether ID is certain. Writes that leave this host wait for it.
	Settled bool
	// Source says where ID comes from: "config", "imds", "journal", "machine-id",
	// "hostname" or "address".
	Source string

	Hostname string
	IPv4     netip.Addr // source address of the default route
	IPv6     netip.Addr

	// The following are known on EC2 only, and empty elsewhere.
	InstanceID   string
	Account      string
	Region       string
	Zone         string
	InstanceType string
}

// Label returns the DNS label that names this host in records which stay on
// it: ID where known, otherwise "node".
func (n Node) Label() string {
	if n.ID == "" {
		return "node"
	}
	return n.ID
}
