// Package node finds out who this host is, and keeps the answer stable.
//
// # Identity
//
// Records and objects that berth writes outside are owned by this host's ID, so
// two hosts must never have the same one, and a host must not lose its own:
//
//   - node.id in the config is taken as it is.
//   - On EC2 it is the instance ID, from the instance metadata service (IMDSv2,
//     never v1) and from nowhere else. Until the service answers, the ID that it
//     gave last time is used for this host's own view, but is not settled:
//     /var/lib/berth may have come with a disk image or a clone. Writes that
//     leave the host wait. The service is asked again for ever.
//   - Elsewhere it is the host's name and a hash, such as web1-3fa40c1e, of the
//     machine ID, the product UUID, the hardware address of the first network
//     card and the name, as far as they are known. It is derived once and
//     then remembered, so that a host that is renamed or gets another address
//     stays the same host. Cloned machines get different ones even if their
//     machine ID is the same, because a hypervisor gives each its own UUID and
//     hardware address.
//
// # When state is another host's
//
// Only what is positively different counts; what is unknown contradicts nothing.
// On EC2 that is a different instance ID. Elsewhere it is a different machine ID
// or product UUID, or, where either side has no product UUID to compare, a
// different hostname together with a different hardware address. Then the
// remembered identity is discarded and a new one derived. Owners of other state
// compare [Source.StateHost] with what their journal says.
//
// # Addresses
//
// The host's addresses are those that its default routes send from (never
// 127.0.1.1, which many hosts' names resolve to), or on EC2 the metadata's. They
// are looked up again every 30 s. A route that is lost for a while does not take
// the address away; another address replaces it.
//
// # Start-up
//
// New reads files alone and returns at once; Run asks the metadata service.
package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"time"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/journal"
)

const (
	interval   = 30 * time.Second // between looks at addresses and hostname
	minBackoff = time.Second      // between questions to a silent metadata service
	maxBackoff = 30 * time.Second
	imdsBudget = 3 * time.Second // for one round of questions
)

// Source knows who this host is. It is an agent.NodeSource.
type Source struct {
	cfg     Config
	log     *slog.Logger
	health  *agent.Scope
	host    host
	ec2     bool
	imds    fetcher
	path    string // of the journal
	pause   func(ctx context.Context, d time.Duration) bool
	refresh chan struct{}

	// The following belong to New, and then to Run's goroutine.
	journal *journal.Journal // nil while it cannot be opened
	saved   memory           // what the journal holds
	facts   facts

	mu        sync.Mutex
	node      agent.Node // made from the facts
	stateHost string
	changed   chan struct{}
}

// facts are what is known.
type facts struct {
	hostname  string
	route     addresses // of the default routes
	inst      instance  // on EC2: from the metadata service, or remembered
	confirmed bool      // inst is from the metadata service
	id        identity  // elsewhere
	settled   bool      // elsewhere: no memory can contradict id any more
}

// Option changes where a Source looks.
type Option func(*Source)

// WithRoot makes the source read the files of /etc, /proc and /sys below
// another directory, for tests.
func WithRoot(dir string) Option {
	return func(s *Source) { s.host.root = dir }
}

// New returns a source that knows what files and the journal in env.StateDir
// say; it asks nothing of the network. It fails if the config is wrong, or when
// another process uses the state directory. env.Node is not used.
func New(cfg Config, env agent.Env, opts ...Option) (*Source, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure node: %w", err)
	}
	s := &Source{
		cfg:     cfg,
		log:     env.Log.With("component", "node"),
		health:  env.Health.Scope("node"),
		host:    host{root: "/", routes: defaultRoutes},
		imds:    metadata{NewIMDS(cfg)},
		path:    filepath.Join(env.StateDir, "node.journal"),
		pause:   pause,
		refresh: make(chan struct{}, 1),
		changed: make(chan struct{}),
	}
	for _, opt := range opts {
		opt(s)
	}
	s.health.Declare("imds", agent.SeverityError, 5*time.Second)
	s.health.Declare("state", agent.SeverityError, 0)
	s.health.Declare("address", agent.SeverityWarning, interval)

	s.ec2 = cfg.EC2 == EC2On || cfg.EC2 != EC2Off && s.host.onEC2()
	s.look()
	if err := s.openState(); err != nil {
		return nil, fmt.Errorf("start node: %w", err)
	}
	s.saveState()
	s.publish()
	return s, nil
}

// Node returns what is known now.
func (s *Source) Node() agent.Node {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.node
}

// Changed returns a channel that is closed when Node's answer next changes.
func (s *Source) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// EC2 reports whether this host is taken for an EC2 instance.
func (s *Source) EC2() bool { return s.ec2 }

// StateHost returns the identity that durable state belongs to, for
// journal.Options.Host and Journal.Claim: what the platform calls this host,
// whatever the config calls it. It is empty until that is certain; Changed tells
// when it is.
func (s *Source) StateHost() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stateHost
}

// Refresh makes Run look at addresses and hostname now. Safe for concurrent use.
func (s *Source) Refresh() {
	select {
	case s.refresh <- struct{}{}:
	default:
	}
}

// Close unlocks the state directory. Call it when Run has returned or was never
// called.
func (s *Source) Close() error {
	if s.journal == nil {
		return nil
	}
	return s.journal.Close()
}

// Run keeps the answer current until ctx ends. It is called once.
func (s *Source) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	confirmed := make(chan instance, 1)
	if s.ec2 {
		wg.Go(func() { s.ask(ctx, confirmed) })
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case inst := <-confirmed:
			s.confirm(inst)
		case <-tick.C:
			s.look()
		case <-s.refresh:
			s.look()
		}
		s.saveState()
		s.publish()
	}
}

const imdsHint = "writes that leave this host wait for it: check that the instance's metadata service is enabled " +
	"(HttpEndpoint), that nothing blocks 169.254.169.254, that the hop limit is at least 2 if berth runs in a " +
	"container, and that AWS_EC2_METADATA_DISABLED is not set; if this host is not on EC2, set node.ec2: off"

// ask asks the metadata service until it answers.
func (s *Source) ask(ctx context.Context, answer chan<- instance) {
	for backoff := minBackoff; ; backoff = min(2*backoff, maxBackoff) {
		round, cancel := context.WithTimeout(ctx, imdsBudget)
		inst, err := s.imds.fetch(round)
		cancel()
		if ctx.Err() != nil {
			return
		}
		s.health.Set("imds", err, imdsHint)
		if err == nil {
			answer <- inst
			return
		}
		// Jitter, for a thousand hosts that boot at once.
		if !s.pause(ctx, backoff/2+rand.N(backoff/2)) {
			return
		}
	}
}

// pause waits for d, and reports false if ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// confirm takes over what the metadata service said.
func (s *Source) confirm(inst instance) {
	if was := s.facts.inst.ID; was != "" && was != inst.ID {
		s.log.Warn("state of another instance is discarded", "was", was, "is", inst.ID)
		s.saved = memory{}
	}
	s.facts.inst, s.facts.confirmed = inst, true
}

// look reads what may change while the host runs. What cannot be found just now
// stays as it was: a route that flaps is no reason to leave DNS.
func (s *Source) look() {
	f := &s.facts
	f.hostname = cmp.Or(s.host.hostname(), f.hostname)
	now := s.host.routes()
	f.route = addresses{cmp.Or(now.v4, f.route.v4), cmp.Or(now.v6, f.route.v6)}
}

// publish makes the node from the facts, and tells who waits if it changed.
func (s *Source) publish() {
	node := s.facts.node(s.cfg, s.ec2)
	stateHost := ""
	switch {
	case s.ec2 && s.facts.confirmed:
		stateHost = s.facts.inst.ID
	case !s.ec2 && s.facts.settled:
		stateHost = s.facts.id.ID
	}
	var err error
	if !node.IPv4.IsValid() && !node.IPv6.IsValid() {
		err = errors.New("this host has no default route")
	}
	s.health.Set("address", err, "records need an address to point at: set node.ipv4 or node.ipv6, or check the host's routes")

	s.mu.Lock()
	defer s.mu.Unlock()
	if node == s.node && stateHost == s.stateHost {
		return
	}
	s.log.Info("this host", "id", node.ID, "settled", node.Settled, "source", node.Source,
		"hostname", node.Hostname, "ipv4", node.IPv4, "ipv6", node.IPv6)
	s.node, s.stateHost = node, stateHost
	close(s.changed)
	s.changed = make(chan struct{})
}

// node says who the facts make this host, where the config does not say it.
func (f facts) node(cfg Config, ec2 bool) agent.Node {
	n := agent.Node{ID: f.id.ID, Source: f.id.Source, Settled: f.settled && f.id.ID != ""}
	if ec2 {
		n = agent.Node{
			ID:           f.inst.ID,
			Settled:      f.confirmed,
			Source:       "imds",
			InstanceID:   f.inst.ID,
			Account:      f.inst.Account,
			Region:       f.inst.Region,
			Zone:         f.inst.Zone,
			InstanceType: f.inst.Type,
			IPv4:         f.inst.IPv4,
			IPv6:         f.inst.IPv6,
		}
		if !f.confirmed {
			n.Source = ""
			if n.ID != "" {
				n.Source = "journal"
			}
		}
	}
	if cfg.ID != "" {
		n.ID, n.Source, n.Settled = cfg.ID, "config", true
	}
	n.Hostname = cmp.Or(cfg.Hostname, f.hostname)
	n.IPv4 = cmp.Or(cfg.IPv4, n.IPv4, f.route.v4)
	n.IPv6 = cmp.Or(cfg.IPv6, n.IPv6, f.route.v6)
	n.Account = cmp.Or(cfg.Account, n.Account)
	n.Region = cmp.Or(cfg.Region, n.Region)
	n.Zone = cmp.Or(cfg.Zone, n.Zone)
	return n
}
