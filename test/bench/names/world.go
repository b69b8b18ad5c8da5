package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/berthd/berth/test/bench/rig"
	"github.com/berthd/berth/test/dnsservers"
	"github.com/berthd/berth/test/fakeaws"
)

const (
	domain = "berth.example" // of all names, and the zone of both servers
	host   = "host1"         // the node ID, which BIND has a key for
)

// world is the engine, both servers, and the berth that is measured.
type world struct {
	settings
	*rig.World

	fake     *fakeaws.Route53
	zone     string // its hosted zone's ID
	arrivals arrivals
	bind     *dnsservers.Server
	asked    *net.UDPConn // connected to BIND
	berth    *rig.Berth
	state    string   // of the berth that writes to Route 53
	ids      []string // of the containers that start and stop together
}

// open starts the servers.
func (w *world) open(ctx context.Context) (err error) {
	if err := w.Open(ctx); err != nil {
		return err
	}
	if w.fake, err = fakeaws.StartRoute53(); err != nil {
		return err
	}
	w.zone = w.fake.AddZone(fakeaws.Zone{Name: domain})
	w.fake.Observe(w.arrivals.note)
	dir := filepath.Join(w.Dir, "bind")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if w.bind, err = dnsservers.OpenBIND(ctx, dir, domain+"."); err != nil {
		return err
	}
	w.asked, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(w.bind.Addr()))
	w.state = filepath.Join(w.Dir, "state")
	return err
}

// clear ends and removes everything.
func (w *world) clear() error {
	err := w.berth.Stop()
	if w.asked != nil {
		w.asked.Close()
	}
	if w.bind != nil {
		err = errors.Join(err, w.bind.Close())
	}
	if w.fake != nil {
		w.fake.Close()
	}
	return errors.Join(err, w.Close())
}

// run starts a berth, in place of the one that ran before.
func (w *world) run(ctx context.Context, o rig.Options) (err error) {
	if err := w.berth.Stop(); err != nil {
		return err
	}
	o.Set = append(o.Set, "node.id="+host, "node.ec2=off", "node.account=123456789012", "node.region=eu-central-1", "discovery.domain="+domain)
	w.berth, err = w.StartBerth(ctx, o)
	return err
}

// toRoute53 is a berth that writes to the fake, as the AWS environment says.
func (w *world) toRoute53(state string) rig.Options {
	return rig.Options{
		Dir: state,
		Set: []string{"route53.enabled=true", "route53.zone_id=" + w.zone},
		Env: []string{
			"AWS_ENDPOINT_URL_ROUTE_53=" + w.fake.URL(), "AWS_ACCESS_KEY_ID=key", "AWS_SECRET_ACCESS_KEY=secret", "AWS_SESSION_TOKEN=",
			"AWS_PROFILE=", "AWS_CONFIG_FILE=" + os.DevNull, "AWS_SHARED_CREDENTIALS_FILE=" + os.DevNull, "AWS_EC2_METADATA_DISABLED=true",
		},
	}
}

// toBIND is a berth that writes to BIND.
func (w *world) toBIND() (rig.Options, error) {
	secret := filepath.Join(w.Dir, "tsig")
	key := w.bind.Key(host)
	if err := os.WriteFile(secret, []byte(key.Secret), 0o600); err != nil {
		return rig.Options{}, err
	}
	return rig.Options{Set: []string{
		"rfc2136.enabled=true", fmt.Sprintf("rfc2136.servers=[%q]", w.bind.Addr()), "rfc2136.key=" + key.Name, "rfc2136.secret=file:" + secret,
	}}, nil
}

// sets returns how many services the hosted zone has, by their names with the
// protocol: each has a plain name, too.
func (w *world) sets() int {
	n := 0
	for _, s := range w.fake.Sets(w.zone) {
		if s.Type == "SRV" && strings.HasPrefix(s.Name, "_") {
			n++
		}
	}
	return n
}

// awaitSets waits until the hosted zone has so many services.
func (w *world) awaitSets(ctx context.Context, want int) error {
	return rig.Until(ctx, fmt.Sprintf("Route 53 has %d services", want), func() error {
		if n := w.sets(); n != want {
			return fmt.Errorf("it has %d", n)
		}
		return nil
	})
}

// quiet waits until Route 53 has not been called for a while, and returns the
// calls so far.
func (w *world) quiet(ctx context.Context, while time.Duration) (map[string]int, error) {
	last, since := fmt.Sprint(w.fake.Calls()), time.Now()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for time.Since(since) < while {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
		if now := fmt.Sprint(w.fake.Calls()); now != last {
			last, since = now, time.Now()
		}
	}
	return w.fake.Calls(), nil
}

// arrivals waits for the changes of names.
type arrivals struct {
	mu      sync.Mutex
	awaited map[string]chan time.Time // by the change's beginning, such as "DELETE _a._tcp.berth.example. SRV"
}

func (a *arrivals) note(got fakeaws.Arrival) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range got.Changes {
		action, rest, _ := strings.Cut(c, " ")
		if action == "UPSERT" {
			action = "CREATE"
		}
		if ch := a.awaited[action+" "+rest]; ch != nil {
			ch <- got.At
			delete(a.awaited, action+" "+rest)
		}
	}
}

// expect returns a channel that gets when the first such change arrives: CREATE,
// which an UPSERT is too, or DELETE of a service.
func (a *arrivals) expect(action, service string) <-chan time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.awaited == nil {
		a.awaited = make(map[string]chan time.Time)
	}
	ch := make(chan time.Time, 1)
	a.awaited[action+" "+srvName(service)+" SRV"] = ch
	return ch
}

// srvName returns the name that a service's SRV record has.
func srvName(service string) string { return "_" + service + "._tcp." + domain + "." }
