// Package discovery gives containers names in DNS: it turns each snapshot of
// the host into the records that the host wants, for the record sinks.
//
// # What gets a name
//
// Only a container that asks for one, by labels or environment variables (a
// label wins where both set a key). Nothing is named by its image.
//
//	SERVICE_<port>_NAME=calc       _calc._tcp.<domain> (or _udp, by the port's
//	                               protocol), and the plain name calc.<domain>
//	SERVICE_<port>_NAME=_calc._tcp that SRV name exactly, and no other
//	SERVICE_<port>_NAME=calc,sum   two names; a bad one does not spoil the other
//	SERVICE_NAME=calc              every published port; with several of them
//	                               the port is added, as registrator does it:
//	                               calc-80, calc-443. A port that is both tcp
//	                               and udp is one port.
//
// <port> is the port inside the container. Further keys, for one port
// (SERVICE_80_TTL) or all (SERVICE_TTL), where that of the port wins:
//
//	IGNORE      any value: no name
//	NETWORK     the container's own address on this network, not the host's
//	PRIORITY    SRV priority, 0 to 65535
//	WEIGHT      SRV weight, 0 to 65535
//	TTL         whole seconds, or a duration such as 30s
//	TAGS, ID    shown by `berth services`
//	CHECK_…     see below
//	anything    an attribute, shown
//
// The prefix SERVICE_ is case-sensitive, the rest of a key is not. An empty
// value is as good as none, but hides a general one: SERVICE_80_NAME= takes port
// 80 out of SERVICE_NAME. What is wrong with a key or a name spoils that alone.
//
// # Which address
//
// A published port is found at the address that it is bound to: the node's own
// name for 0.0.0.0 and ::, <address>.<node> for another address of the host,
// and nothing for loopback. With network=host the port is the host's. On
// networks that are no bridges (macvlan, ipvlan, overlay), on internal ones,
// and where NETWORK says so, it is the container's own address, as
// <container ID>.<node>. A container in the network of another one
// (container:X) has the ports of that one.
//
// # When
//
// While the container runs, is not paused, not being stopped, and its health
// check, if it has one, passes. A crash loop is held down for longer with each
// crash. A host that is drained wants no records.
//
// # Checks
//
// A port can be checked from the host, besides the image's HEALTHCHECK; it is in
// DNS while both pass.
//
//	SERVICE_<port>_CHECK_HTTP=/health   a GET of this path, answered with 2xx
//	SERVICE_<port>_CHECK_TCP=true       a connection (any value will do)
//	…_CHECK_INTERVAL, …_CHECK_TIMEOUT   how often, and how long at most
//	…_CHECK_RISE, …_CHECK_FALL          after how many in a row the verdict changes
//	…_CHECK_INITIAL_STATUS=passing      in before the first verdict
//
// A check connects to the address and port that clients are sent to, so that it
// fails where they would; of several the first, and IPv4 before IPv6. It follows
// redirects on that address and port alone, uses no proxy, and reads 64 KiB of
// the body. Where the engine's userland proxy accepts connections in place of the
// container (it does for IPv6 without ip6tables), CHECK_TCP passes for a container
// that does not listen: use CHECK_HTTP. A host seldom reaches its own containers
// on macvlan, ipvlan and overlay networks: use a HEALTHCHECK there.
//
// A container that starts is out until its first verdict, and is checked every
// second in its first minute until it passes. One that ran before berth did is in
// until its first verdict, because a restart of berth must not take names out of
// DNS; what keeps a port out is written to the state folder, and stays out. Each
// run of a container is judged anew, and a paused one is not checked. Other
// CHECK_ keys of registrator are shown and do nothing.
//
// # How
//
// All rules are pure functions of the configuration, a snapshot, the verdicts of
// checks and the time; Run applies them whenever there is a new snapshot or
// verdict, or when a hold-down ends, and publishes what changed. Explain, and the HTTP API below /v1/discovery/,
// apply the same rules to the same snapshot, so that they cannot tell another
// story than DNS.
package discovery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/berthd/berth/agent"
)

// name is the component's name.
const name = "discovery"

// addressGrace is how long the host's address may be unknown, as it is for a
// moment at each start, before it is a condition.
const addressGrace = 5 * time.Second

// Discovery is the collector. Make it with New. Its methods are safe for
// concurrent use, but Run is called once.
type Discovery struct {
	rules   *rules
	log     *slog.Logger
	health  *agent.Scope
	records *agent.Records
	view    atomic.Pointer[view] // the latest evaluation; nil before the first
	recheck chan struct{}        // see Recheck; capacity 1
	checks  *scheduler
	// stateDir is where the state of checks is kept; empty for nowhere.
	stateDir string
	stats    stats
}

// New returns the collector, or an error that joins all that is wrong with cfg.
func New(cfg Config, env agent.Env) (*Discovery, error) {
	r, err := newRules(cfg)
	if err != nil {
		return nil, fmt.Errorf("check discovery config: %w", err)
	}
	d := &Discovery{rules: r, records: new(agent.Records), recheck: make(chan struct{}, 1), log: env.Log, health: env.Health.Scope(name)}
	d.checks = newScheduler(cfg.Checks.Concurrency, netProber(), d.Recheck, env.Log)
	d.stateDir = env.StateDir
	r.checks = d.checks.state
	d.health.Declare("claims", agent.SeverityWarning, 0)
	d.health.Declare("address", agent.SeverityWarning, addressGrace)
	d.health.Declare("checks", agent.SeverityWarning, 0)
	return d, nil
}

// UseAddresses sets where the addresses of containers come from whose network
// the engine does not manage. Call it before Run; without it they are out.
func (d *Discovery) UseAddresses(f AddressFunc) { d.rules.addresses = f }

// Recheck makes Run apply the rules again although no snapshot has come: the
// function given to UseAddresses has new answers, or a check has a verdict.
func (d *Discovery) Recheck() { notify(d.recheck) }

// Name returns "discovery".
func (d *Discovery) Name() string { return name }

// Records returns where the desired records are published; each sink subscribes
// to it.
func (d *Discovery) Records() *agent.Records { return d.records }

// PublishTo makes the desired records go to r, which may outlive the collector:
// sinks then see one sequence of sets, whatever is reloaded. Call it before Run.
func (d *Discovery) PublishTo(r *agent.Records) { d.records = r }

// Run publishes the desired records until ctx ends. It returns nil then, and
// leaves the last records wanted.
func (d *Discovery) Run(ctx context.Context, f agent.Feed) error {
	ctx, cancel := context.WithCancel(ctx)
	var checking sync.WaitGroup
	defer checking.Wait()
	defer cancel()
	if file := d.keepChecks(); file != nil {
		checking.Go(func() { file.run(ctx) })
	}
	checking.Go(func() { d.checks.run(ctx) })
	d.rules.began = time.Now()

	var m memo
	wake := time.NewTimer(0)
	defer wake.Stop()
	defer d.clearConditions()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.Changed():
		case <-d.recheck:
		case <-wake.C:
		}
		wake.Stop()
		snap := f.Snapshot()
		if snap.Seq == 0 {
			continue // the loop has not looked at the engine yet
		}
		if next := d.update(snap, &m); !next.IsZero() {
			wake.Reset(time.Until(next))
		}
	}
}

// update evaluates one snapshot, publishes the result, and returns when to look
// at it again even if nothing happens, or zero for never.
func (d *Discovery) update(snap *agent.Snapshot, m *memo) time.Time {
	begin := time.Now()
	v := d.rules.evaluate(snap, begin, m)
	d.checks.want(v.checks(), snap.Complete, begin)
	d.view.Store(v)
	if d.records.Publish(v.set) {
		d.stats.publications.Add(1)
		d.log.Debug("records changed", "records", len(v.set.Records), "partial", v.set.Partial, "snapshot", snap.Seq)
	}
	d.reportConditions(v)
	d.stats.evaluations.Add(1)
	d.stats.nanoseconds.Add(uint64(time.Since(begin)))
	return v.next
}

func (d *Discovery) reportConditions(v *view) {
	var err error
	if n := len(v.refused); n > 0 {
		one := v.refused[0]
		err = fmt.Errorf("%d refused, such as %s of container %s: %s", n, one.note.Subject, one.c.Name, one.note.Rule)
		d.health.Set("claims", err, "see `berth explain "+one.c.Name+"`")
	} else {
		d.health.Set("claims", nil, "")
	}
	switch {
	case !v.place.stand:
		d.health.Set("address", nil, "")
	case v.place.known():
		d.health.Set("address", errors.New("the host's address is not known; that of a bridge is used, which only containers of this host reach"),
			"give the host a default route, or configure its address")
	default:
		d.health.Set("address", errors.New("no address of this host is known: published ports cannot be registered"),
			"give the host a default route, or configure its address")
	}
}

func (d *Discovery) clearConditions() {
	d.health.Set("claims", nil, "")
	d.health.Set("address", nil, "")
}
