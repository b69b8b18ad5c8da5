package admin

import (
	"net/netip"
	"time"

	"github.com/berthd/berth/agent"
)

// Status is the answer to GET /v1/status: one screen about this host.
type Status struct {
	Version    string            `json:"version"`
	PID        int               `json:"pid"`
	Started    time.Time         `json:"started"`
	Ready      bool              `json:"ready"`
	NotReady   string            `json:"not_ready,omitempty"` // why not
	DryRun     bool              `json:"dry_run"`
	Node       Node              `json:"node"`
	Engine     Engine            `json:"engine"`
	Config     ConfigStatus      `json:"config"`
	Conditions []agent.Condition `json:"conditions"`
	Components []Component       `json:"components"`
}

// Node is who this host is.
type Node struct {
	ID           string     `json:"id"`
	Settled      bool       `json:"settled"`
	Source       string     `json:"source"`
	Hostname     string     `json:"hostname"`
	IPv4         netip.Addr `json:"ipv4,omitzero"`
	IPv6         netip.Addr `json:"ipv6,omitzero"`
	InstanceID   string     `json:"instance_id,omitempty"`
	Account      string     `json:"account,omitempty"`
	Region       string     `json:"region,omitempty"`
	Zone         string     `json:"zone,omitempty"`
	InstanceType string     `json:"instance_type,omitempty"`
}

// NodeOf returns what the API says of a node.
func NodeOf(n agent.Node) Node {
	return Node{
		ID: n.ID, Settled: n.Settled, Source: n.Source, Hostname: n.Hostname, IPv4: n.IPv4, IPv6: n.IPv6,
		InstanceID: n.InstanceID, Account: n.Account, Region: n.Region, Zone: n.Zone, InstanceType: n.InstanceType,
	}
}

// Engine is the container engine and what is known of it.
type Engine struct {
	Host       string          `json:"host"`
	ID         string          `json:"id"`
	Version    string          `json:"version"`
	Connected  bool            `json:"connected"`
	Complete   bool            `json:"complete"`
	Containers int             `json:"containers"` // in every state
	Running    int             `json:"running"`
	Networks   int             `json:"networks"`
	Snapshot   uint64          `json:"snapshot"`    // its number
	SnapshotAt time.Time       `json:"snapshot_at"` // when it was made
	Asked      agent.LoopStats `json:"asked"`
}

// ConfigStatus says which config is in force.
type ConfigStatus struct {
	Files  []string  `json:"files"` // in the order of merging; empty when all are defaults
	Loaded time.Time `json:"loaded"`
	// Error is why the last reload was refused; the config of Loaded is in force.
	Error string `json:"error,omitempty"`
}

// Component is one component and its key figures.
type Component struct {
	agent.ComponentStatus
	Summary string `json:"summary,omitempty"` // one line
}

// ReloadResult is the answer to POST /v1/reload.
type ReloadResult struct {
	Error   string   `json:"error,omitempty"` // nothing was changed, and why
	Changed []string `json:"changed"`         // components that were run anew, started or stopped
}

// ContainerInfo is what the API says of a container.
type ContainerInfo struct {
	ID            string             `json:"id"`
	Name          string             `json:"name"`
	Image         string             `json:"image"`
	State         agent.State        `json:"state"`
	Health        agent.HealthStatus `json:"health,omitempty"`
	StartedAt     time.Time          `json:"started_at,omitzero"`
	FinishedAt    time.Time          `json:"finished_at,omitzero"`
	StoppingSince time.Time          `json:"stopping_since,omitzero"`
	ExitCode      int                `json:"exit_code"`
	PID           int                `json:"pid,omitempty"`
	NetworkMode   string             `json:"network_mode"`
	Addresses     []netip.Addr       `json:"addresses"`
	Ports         []PortInfo         `json:"ports"`
}

// PortInfo is one container port and where it is published.
type PortInfo struct {
	Container uint16         `json:"container"`
	Proto     string         `json:"proto"`
	Host      netip.AddrPort `json:"host,omitzero"`
}

// Containers returns what the API says of a snapshot's containers. Labels and
// environment are left out: they may hold what is nobody's business.
func Containers(snap *agent.Snapshot) []ContainerInfo {
	out := make([]ContainerInfo, 0, len(snap.Containers))
	for _, c := range snap.Containers {
		info := ContainerInfo{
			ID: c.ID, Name: c.Name, Image: c.Image, State: c.State, Health: c.Health,
			StartedAt: c.StartedAt, FinishedAt: c.FinishedAt, StoppingSince: c.StoppingSince,
			ExitCode: c.ExitCode, PID: c.PID, NetworkMode: c.NetworkMode,
			Addresses: []netip.Addr{}, Ports: []PortInfo{},
		}
		for _, e := range c.Endpoints {
			for _, a := range [...]netip.Addr{e.IPv4, e.IPv6} {
				if a.IsValid() {
					info.Addresses = append(info.Addresses, a)
				}
			}
		}
		for _, p := range c.Ports {
			pi := PortInfo{Container: p.Container, Proto: p.Proto}
			if p.Published() {
				pi.Host = p.Host
			}
			info.Ports = append(info.Ports, pi)
		}
		out = append(out, info)
	}
	return out
}
