package fakedocker

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Spec says what container to make, in the words of docker run.
type Spec struct {
	Name    string
	Image   string
	Labels  map[string]string
	Env     []string // "KEY=value"
	Network string   // "" is the default bridge; "host", "none", "container:<name>", or a network
	Publish []string // "8080", "80:8080", "127.0.0.1:80:8080", each with "/udp" at will
	Expose  []string // "7000", "7000/udp"
	// Health is the verdict of a HEALTHCHECK; "" means that there is none.
	Health string
	// StopSignal is a name such as SIGINT; "" is the default.
	StopSignal string
	// Ago is how long ago the container was made and started.
	Ago time.Duration
}

type container struct {
	spec     Spec
	id, name string
	created  time.Time
	started  time.Time
	finished time.Time
	status   string // created, running, paused, exited
	exit     int
	pid      int
	health   string
	ports    []binding
	ip       netip.Addr
}

// binding is one port inside the container, and where it is published.
type binding struct {
	port  int
	proto string
	// hostIP and hostPort are zero where the port is exposed only.
	hostIP   netip.Addr
	hostPort int
}

type network struct {
	id, name, driver string
	subnet           netip.Prefix
}

func newNetwork(name, driver, subnet string) *network {
	n := &network{id: hash("network", name), name: name, driver: driver}
	if subnet != "" {
		n.subnet = netip.MustParsePrefix(subnet)
	}
	return n
}

// hash makes an ID that is the same in each run.
func hash(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "/")))
	return hex.EncodeToString(sum[:])
}

func (c *container) alive() bool { return c.status == "running" || c.status == "paused" }

// AddNetwork makes a bridge network.
func (e *Engine) AddNetwork(name, subnet string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := newNetwork(name, "bridge", subnet)
	e.networks = append(e.networks, n)
	e.emitNetwork(n, "create", nil)
}

// Run makes a container and starts it, and returns its ID. It panics on a spec
// that makes no sense: that is a mistake of the test.
func (e *Engine) Run(s Spec) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if slices.ContainsFunc(e.containers, func(c *container) bool { return c.name == s.Name }) {
		panic("fakedocker: the name " + s.Name + " is in use")
	}
	e.made++
	c := &container{
		spec: s, name: s.Name, id: hash("container", s.Name, strconv.Itoa(e.made)),
		created: time.Now().Add(-s.Ago), status: "created",
	}
	e.containers = append(e.containers, c)
	e.emit(c, "create")
	e.start(c, time.Now().Add(-s.Ago))
	return c.id
}

// Start starts a container that has ended; ephemeral ports are new ones.
func (e *Engine) Start(ref string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.start(e.must(ref), time.Now())
}

func (e *Engine) start(c *container, at time.Time) {
	c.ports = nil
	if c.spec.Network != "host" && !strings.HasPrefix(c.spec.Network, "container:") { // they have none of their own
		for _, p := range c.spec.Expose {
			c.ports = append(c.ports, parseInside(p))
		}
		for _, p := range c.spec.Publish {
			c.ports = append(c.ports, e.publish(p)...)
		}
	}
	if n := e.networkOf(c); n != nil {
		c.ip = e.freeAddress(n)
		e.emitNetwork(n, "connect", c)
	}
	c.status, c.started, c.health, c.exit, c.pid = "running", at, c.spec.Health, 0, e.nextPID
	e.nextPID++
	e.emit(c, "start")
}

// Stop ends a container as docker stop does, with exit code 0.
func (e *Engine) Stop(ref string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.must(ref)
	e.emit(c, "kill", "signal", "15")
	e.end(c, 0)
	e.emit(c, "stop")
}

// Signal sends a signal which the container survives, as docker kill does.
func (e *Engine) Signal(ref string, signal int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.emit(e.must(ref), "kill", "signal", strconv.Itoa(signal))
}

// Die ends a container by itself.
func (e *Engine) Die(ref string, exit int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.end(e.must(ref), exit)
}

func (e *Engine) end(c *container, exit int) {
	if !c.alive() {
		return
	}
	c.status, c.exit, c.finished, c.pid, c.ip, c.ports = "exited", exit, time.Now(), 0, netip.Addr{}, nil
	e.emit(c, "die", "exitCode", strconv.Itoa(exit))
	if n := e.networkOf(c); n != nil {
		e.emitNetwork(n, "disconnect", c)
	}
}

// Remove removes a container; one that runs is killed first.
func (e *Engine) Remove(ref string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.must(ref)
	if c.alive() {
		e.emit(c, "kill", "signal", "9")
		e.end(c, 137)
	}
	e.containers = slices.DeleteFunc(e.containers, func(o *container) bool { return o == c })
	e.emit(c, "destroy")
}

// Pause freezes a container.
func (e *Engine) Pause(ref string) { e.become(ref, "paused", "pause") }

// Unpause ends Pause.
func (e *Engine) Unpause(ref string) { e.become(ref, "running", "unpause") }

func (e *Engine) become(ref, status, action string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.must(ref)
	c.status = status
	e.emit(c, action)
}

// SetHealth is the verdict of a health check: starting, healthy or unhealthy.
func (e *Engine) SetHealth(ref, status string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.must(ref)
	c.health = status
	e.emit(c, "health_status: "+status)
}

// find returns a container by ID, name, or beginning of an ID.
func (e *Engine) find(ref string) *container {
	for _, c := range e.containers {
		if c.id == ref || c.name == ref || len(ref) >= 4 && strings.HasPrefix(c.id, ref) {
			return c
		}
	}
	return nil
}

// must panics where there is no such container: a mistake of the test.
func (e *Engine) must(ref string) *container {
	c := e.find(ref)
	if c == nil {
		panic("fakedocker: there is no container " + ref)
	}
	return c
}

// networkOf returns the network that a container is attached to, or nil for one
// that shares another's.
func (e *Engine) networkOf(c *container) *network {
	name := c.spec.Network
	switch {
	case name == "":
		name = "bridge"
	case strings.HasPrefix(name, "container:"):
		return nil
	}
	for _, n := range e.networks {
		if n.name == name {
			return n
		}
	}
	panic("fakedocker: there is no network " + name)
}

// freeAddress returns the lowest address of a network that nobody has; the
// first is the gateway's.
func (e *Engine) freeAddress(n *network) netip.Addr {
	if !n.subnet.IsValid() {
		return netip.Addr{}
	}
	a := n.gateway().Next()
	for slices.ContainsFunc(e.containers, func(c *container) bool { return c.ip == a }) {
		a = a.Next()
	}
	return a
}

func (n *network) gateway() netip.Addr { return n.subnet.Addr().Next() }

// publish reads a "-p" and returns its bindings: one for each family where no
// address is given.
func (e *Engine) publish(text string) []binding {
	parts := strings.Split(text, ":")
	b := parseInside(parts[len(parts)-1])
	if len(parts) > 1 {
		b.hostPort = number(parts[len(parts)-2])
	}
	if b.hostPort == 0 {
		b.hostPort = e.nextPort
		e.nextPort++
	}
	if len(parts) > 2 {
		b.hostIP = netip.MustParseAddr(parts[0])
		return []binding{b}
	}
	v4, v6 := b, b
	v4.hostIP, v6.hostIP = netip.IPv4Unspecified(), netip.IPv6Unspecified()
	return []binding{v4, v6}
}

func parseInside(text string) binding {
	port, proto, ok := strings.Cut(text, "/")
	if !ok {
		proto = "tcp"
	}
	return binding{port: number(port), proto: proto}
}

func number(text string) int {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		panic(fmt.Sprintf("fakedocker: %q is no port", text))
	}
	return int(n)
}
