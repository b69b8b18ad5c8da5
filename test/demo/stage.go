package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"
	"github.com/docker/go-connections/nat"
	"github.com/miekg/dns"

	"github.com/berthd/berth/test/apps"
)

// label is on every container of a demo.
const label = "berth.demo"

// stage is what the demo plays on, and what it has to clear away.
type stage struct {
	story

	engine  *client.Client
	gateway netip.Addr     // of the default bridge
	domain  string         // of all names
	server  netip.AddrPort // which is asked for them
	bind    *fleet         // nil unless the names are in a zone of BIND
	metrics *receiver      // of what berth relays
	run     string         // the value of label
	bin     string
	dir     string
	agent   *exec.Cmd
	ended   chan struct{} // closed when the agent has
	fresh   []string      // images that were not there before

	calc   string // the first calc's container ID
	portal string // where the portal answers
	made   int

	starts, stops latencies

	mu     sync.Mutex
	events map[string]time.Time // "container action" → when a subscriber of our own saw it
}

func newStage(out *os.File, bind bool) *stage {
	s := &stage{story: newStory(out), domain: "berth.internal", run: fmt.Sprint(os.Getpid()), events: make(map[string]time.Time)}
	if bind {
		s.domain, s.bind = "berth.example", new(fleet)
	}
	return s
}

// open finds the engine, starts the agent, and subscribes to events.
func (s *stage) open(ctx context.Context, bin string) (err error) {
	if s.bin, err = filepath.Abs(bin); err != nil {
		return err
	}
	if s.engine, err = client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation()); err != nil {
		return fmt.Errorf("reach the engine: %w", err)
	}
	version, err := s.engine.ServerVersion(ctx)
	if err != nil {
		return fmt.Errorf("reach the engine: %w (make demo starts one where none is; as root?)", err)
	}
	if s.gateway, err = s.bridge(ctx); err != nil {
		return err
	}
	s.server = netip.AddrPortFrom(s.gateway, dnsPort)
	if err := s.removeOrphans(ctx); err != nil {
		return err
	}
	if err := s.subscribe(ctx); err != nil {
		return err
	}
	s.title("Setting up")
	s.say("The engine is Docker %s. Building three small services from our own code …", version.Version)
	needed := []string{apps.Calc, apps.Time, apps.Portal, apps.Sleeper}
	if s.bind != nil {
		needed = slices.DeleteFunc(needed, func(app string) bool { return app == apps.Portal }) // it is on the host
	}
	for _, app := range needed {
		if _, err := s.image(ctx, app); err != nil {
			return err
		}
	}
	if s.dir, err = os.MkdirTemp("", "berth-demo-"); err != nil {
		return err
	}
	if err := s.receive(); err != nil {
		return err
	}
	if s.bind != nil {
		if err := s.startBIND(ctx); err != nil {
			return err
		}
	}
	return s.startAgent(ctx)
}

func (s *stage) bridge(ctx context.Context) (netip.Addr, error) {
	n, err := s.engine.NetworkInspect(ctx, network.NetworkBridge, network.InspectOptions{})
	if err != nil {
		return netip.Addr{}, fmt.Errorf("look at the default bridge: %w", err)
	}
	// The engine does not always tell the gateway of this network; its
	// interface has it.
	if iface, err := net.InterfaceByName(n.Options["com.docker.network.bridge.name"]); err == nil {
		addrs, _ := iface.Addrs()
		for _, addr := range addrs {
			if p, err := netip.ParsePrefix(addr.String()); err == nil && p.Addr().Is4() {
				return p.Addr(), nil
			}
		}
	}
	return netip.Addr{}, errors.New("the default bridge has no IPv4 gateway")
}

// subscribe notes when each event is seen, by a stream that is not berth's.
func (s *stage) subscribe(ctx context.Context) error {
	msgs, errs := s.engine.Events(ctx, events.ListOptions{Filters: filters.NewArgs(filters.Arg("type", "container"))})
	go func() {
		for {
			select {
			case m := <-msgs:
				s.mu.Lock()
				s.events[m.Actor.ID+" "+string(m.Action)] = time.Now()
				s.mu.Unlock()
			case <-errs:
				return // the engine went away, or the demo is over: the next call tells
			}
		}
	}()
	return nil
}

// image makes sure that the engine has the image of an application. Once asked
// for, it is awaited, also after Ctrl-C: what the engine makes for a client that
// has gone away would be found by nobody who clears up.
func (s *stage) image(ctx context.Context, app string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	ctx = context.WithoutCancel(ctx)
	before, err := s.engine.ImageList(ctx, image.ListOptions{})
	if err != nil {
		return "", fmt.Errorf("list images: %w", err)
	}
	ref, err := apps.Ensure(ctx, s.engine, "berth-demo", app)
	if err != nil {
		return "", err
	}
	had := slices.ContainsFunc(before, func(i image.Summary) bool { return slices.Contains(i.RepoTags, ref) })
	if !had && !slices.Contains(s.fresh, ref) {
		s.fresh = append(s.fresh, ref)
	}
	return ref, nil
}

// spec is what container to start.
type spec struct {
	app    string
	args   []string
	labels map[string]string
	dns    string
	health *container.HealthConfig
}

// start starts a container with its port 8080 published, and returns its ID. It
// is not cut short by Ctrl-C, as image is not.
func (s *stage) start(ctx context.Context, name string, sp spec) (string, error) {
	ref, err := s.image(ctx, sp.app)
	if err != nil {
		return "", err
	}
	ctx = context.WithoutCancel(ctx)
	labels := map[string]string{label: s.run}
	for k, v := range sp.labels {
		labels[k] = v
	}
	host := &container.HostConfig{PortBindings: nat.PortMap{"8080/tcp": {{}}}}
	if sp.dns != "" {
		host.DNS = []string{sp.dns}
	}
	made, err := s.engine.ContainerCreate(ctx, &container.Config{
		Image: ref, Cmd: sp.args, Labels: labels, Healthcheck: sp.health, ExposedPorts: nat.PortSet{"8080/tcp": {}},
	}, host, nil, nil, s.containerName(name))
	if err != nil {
		return "", fmt.Errorf("create %s: %w", name, err)
	}
	s.made++
	if err := s.engine.ContainerStart(ctx, made.ID, container.StartOptions{}); err != nil {
		return "", fmt.Errorf("start %s: %w", name, err)
	}
	return made.ID, nil
}

// containerName is the name of the demo's container that is called so.
func (s *stage) containerName(name string) string {
	return fmt.Sprintf("berth-demo-%s-%s", s.run, name)
}

// address returns where the container's port is published on this host.
func (s *stage) address(ctx context.Context, id string) (string, error) {
	c, err := s.engine.ContainerInspect(ctx, id)
	if err != nil {
		return "", fmt.Errorf("look at the portal: %w", err)
	}
	for _, b := range c.NetworkSettings.Ports["8080/tcp"] {
		return "127.0.0.1:" + b.HostPort, nil
	}
	return "", errors.New("the portal's port is not published")
}

func (s *stage) exec(ctx context.Context, id string, command ...string) error {
	made, err := s.engine.ContainerExecCreate(ctx, id, container.ExecOptions{Cmd: command})
	if err == nil {
		err = s.engine.ContainerExecStart(ctx, made.ID, container.ExecStartOptions{})
	}
	if err != nil {
		return fmt.Errorf("run %s in a container: %w", strings.Join(command, " "), err)
	}
	return nil
}

// lookup asks the server for the targets of an SRV name, as "host:port".
func (s *stage) lookup(ctx context.Context, name string) ([]string, error) {
	m := new(dns.Msg).SetQuestion(name, dns.TypeSRV).SetEdns0(1232, false)
	c := dns.Client{Timeout: time.Second}
	reply, _, err := c.ExchangeContext(ctx, m, s.server.String())
	if err != nil {
		return nil, fmt.Errorf("ask %s for %s: %w", s.server, name, err)
	}
	if reply.Rcode != dns.RcodeSuccess && reply.Rcode != dns.RcodeNameError {
		return nil, fmt.Errorf("ask %s for %s: %s", s.server, name, dns.RcodeToString[reply.Rcode])
	}
	var targets []string
	for _, rr := range reply.Answer {
		if srv, ok := rr.(*dns.SRV); ok {
			targets = append(targets, fmt.Sprintf("%s port %d", strings.TrimSuffix(srv.Target, "."), srv.Port))
		}
	}
	slices.SortFunc(targets, cmp.Compare)
	return targets, nil
}

// await asks DNS over and over until the answer is right, and returns how long
// after the container's event that was. It began to ask before the event.
func (s *stage) await(ctx context.Context, id, action, name string, right func([]string) bool) (took time.Duration, targets []string, err error) {
	var at time.Time
	err = s.until(ctx, fmt.Sprintf("%s has the right answer after %q", name, action), func() (err error) {
		if at.IsZero() {
			if targets, err = s.lookup(ctx, name); err != nil {
				return err
			}
			if !right(targets) {
				return fmt.Errorf("it is %q", targets)
			}
			at = time.Now()
		}
		s.mu.Lock()
		seen := s.events[id+" "+action]
		delete(s.events, id+" "+action)
		s.mu.Unlock()
		if seen.IsZero() {
			return errors.New("the event has not been seen")
		}
		took = max(0, at.Sub(seen))
		return nil
	})
	return took, targets, err
}

// hopeless is an error that no waiting cures.
type hopeless struct{ error }

func (h hopeless) Unwrap() error { return h.error }

// until calls ok until it returns nil, or an error that is hopeless.
func (s *stage) until(ctx context.Context, what string, ok func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(300 * time.Microsecond)
	defer tick.Stop()
	for {
		err := ok()
		if err == nil {
			return nil
		}
		if _, ok := errors.AsType[hopeless](err); ok {
			return fmt.Errorf("not so: %s: %w", what, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not so: %s: %w", what, err)
		case <-tick.C:
		}
	}
}

// clear removes all that the demo has made, whatever state it is in.
func (s *stage) clear() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var errs []error
	errs = append(errs, s.stopAgent())
	if s.bind != nil {
		errs = append(errs, s.bind.close())
	}
	if s.metrics != nil {
		errs = append(errs, s.metrics.close())
	}
	if s.engine != nil {
		errs = append(errs, s.remove(ctx, label+"="+s.run, func(string) bool { return true }))
		for _, ref := range s.fresh {
			if _, err := s.engine.ImageRemove(ctx, ref, image.RemoveOptions{PruneChildren: true}); err != nil {
				errs = append(errs, fmt.Errorf("remove image %s: %w", ref, err))
			}
		}
		errs = append(errs, s.engine.Close())
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}

// removeOrphans removes what a demo has left that was killed: it has the names
// which are to be shown.
func (s *stage) removeOrphans(ctx context.Context) error {
	self, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		return fmt.Errorf("look at this process: %w", err)
	}
	return s.remove(ctx, label, func(run string) bool {
		comm, err := os.ReadFile(filepath.Join("/proc", run, "comm"))
		return err != nil || !bytes.Equal(comm, self)
	})
}

// remove removes the containers that match a label, of those runs that are chosen.
func (s *stage) remove(ctx context.Context, match string, chosen func(run string) bool) error {
	all, err := s.engine.ContainerList(ctx, container.ListOptions{
		All: true, Filters: filters.NewArgs(filters.Arg("label", match)),
	})
	if err != nil {
		return fmt.Errorf("list the demo's containers: %w", err)
	}
	var errs []error
	for _, c := range all {
		if !chosen(c.Labels[label]) {
			continue
		}
		if err := s.engine.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true}); err != nil {
			errs = append(errs, fmt.Errorf("remove %s: %w", c.Names[0], err))
		}
	}
	return errors.Join(errs...)
}
