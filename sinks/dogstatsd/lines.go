package dogstatsd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berthd/berth/agent"
)

// The bounds of LineConfig.Payload. A Datadog agent reads into 8192 bytes
// (dogstatsd_buffer_size) and cuts off the rest without a word; 1432 is what
// Datadog's clients send over UDP, so that no datagram is fragmented on a network
// with an MTU of 1500.
const (
	MinPayload     = 512
	MaxPayload     = 8192
	payloadUDP     = 1432
	payloadUnix    = 8192
	minBuffer      = 64 << 10
	sendBuffer     = 1 << 20 // of a Unix socket, which is charged until the upstream reads
	minRedial      = 100 * time.Millisecond
	maxRedial      = 5 * time.Second
	lookAfter      = time.Second      // how often the upstream is looked after
	resolveAfter   = 30 * time.Second // how often a host's name is looked up
	resolveTimeout = 5 * time.Second
)

// The names of the health conditions of lines.
const (
	condUpstream = "upstream"
	condSlow     = "slow"
)

// LineConfig says where lines go.
type LineConfig struct {
	// Address is host:port for UDP, or the path of a Unix datagram socket.
	Address string
	// Payload is the most bytes of a datagram, MinPayload to MaxPayload; 0 is
	// 1432 for UDP and 8192 for a Unix socket.
	Payload int
	// Buffer is how many bytes may wait for the upstream, at least 64 KiB.
	Buffer int64
	// Segment lets the kernel cut several UDP datagrams from one system call.
	// Newlines at the end of them make their lengths equal: the upstream must
	// skip empty lines.
	Segment bool
}

// Validate returns all that is wrong with the config.
func (c LineConfig) Validate() error {
	var errs []error
	if _, err := (Config{Address: c.Address}).target(); err != nil {
		errs = append(errs, err)
	}
	if c.Payload != 0 && (c.Payload < MinPayload || c.Payload > MaxPayload) {
		errs = append(errs, fmt.Errorf("a payload of %d bytes is not between %d and %d", c.Payload, MinPayload, MaxPayload))
	}
	if c.Buffer < minBuffer {
		errs = append(errs, fmt.Errorf("a buffer of %d bytes is less than %d", c.Buffer, minBuffer))
	}
	return errors.Join(errs...)
}

// Lines sends StatsD lines as they are, in datagrams. Make it with NewLines. Its
// methods are safe for concurrent use.
//
// Nothing waits for an upstream that is not there or does not keep up: what
// cannot be sent waits in a buffer of LineConfig.Buffer bytes, the oldest lines of
// which go first. A Unix socket is connected to anew, after 100 ms and up to 5 s,
// when nobody listens on it, and within a second when its path leads to another
// one, which the kernel tells nobody. Of UDP, the kernel tells that an upstream
// refused a datagram when the next one is sent, which is then sent again.
type Lines struct {
	cfg    LineConfig
	unix   bool
	path   string // of a Unix socket
	health *agent.Scope
}

var _ agent.LineSink = (*Lines)(nil)

// NewLines returns a sink, which opens nothing until Open.
func NewLines(cfg LineConfig, env agent.Env) (*Lines, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure the lines of %s: %w", Name, err)
	}
	target, err := Config{Address: cfg.Address}.target()
	if err != nil {
		return nil, err
	}
	l := &Lines{cfg: cfg, health: env.Health.Scope(Name)}
	l.path, l.unix = strings.CutPrefix(target, "unix://")
	if l.cfg.Payload == 0 {
		l.cfg.Payload = payloadUDP
		if l.unix {
			l.cfg.Payload = payloadUnix
		}
	}
	l.health.Declare(condUpstream, agent.SeverityWarning, lookAfter)
	l.health.Declare(condSlow, agent.SeverityWarning, 0)
	return l, nil
}

// Name returns "dogstatsd".
func (l *Lines) Name() string { return Name }

// Open returns a port, whose goroutine connects to the upstream until it is
// closed.
func (l *Lines) Open() (agent.LinePort, error) {
	waiting, err := newRing(l.cfg.Buffer)
	if err != nil {
		return nil, fmt.Errorf("open the buffer for lines: %w", err)
	}
	p := &Port{sink: l, ring: waiting, broken: make(chan struct{}, 1), segment: l.cfg.Segment && !l.unix}
	p.prepare()
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	k := &keeper{port: p, pause: minRedial}
	if _, err := netip.ParseAddrPort(l.cfg.Address); l.unix || err == nil {
		k.dial(ctx) // which takes no time, so that the first line need not wait
	}
	p.keeping.Go(func() { k.run(ctx) })
	return p, nil
}

// upstream is a connected socket. Who has it closes it.
type upstream struct {
	fd       int
	dev, ino uint64     // of a Unix socket's file
	addr     netip.Addr // of UDP
}

// connect opens a socket to the upstream. It blocks only to look up a name.
func (l *Lines) connect(ctx context.Context) (*upstream, error) {
	if l.unix {
		return l.connectUnix()
	}
	at, err := l.resolve(ctx)
	if err != nil {
		return nil, err
	}
	u := &upstream{addr: at.Addr()}
	var sa unix.Sockaddr
	family := unix.AF_INET
	if at.Addr().Is4() {
		sa = &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}
	} else {
		family = unix.AF_INET6
		sa6 := &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
		if zone := at.Addr().Zone(); zone != "" {
			iface, err := net.InterfaceByName(zone)
			if err != nil {
				return nil, fmt.Errorf("find interface %s: %w", zone, err)
			}
			sa6.ZoneId = uint32(iface.Index)
		}
		sa = sa6
	}
	return u, u.open(family, sa)
}

func (l *Lines) connectUnix() (*upstream, error) {
	u := new(upstream)
	var err error
	// Before the connection: if the socket is replaced in between, the next look
	// sees that.
	if u.dev, u.ino, err = identify(l.path); err != nil {
		return nil, err
	}
	return u, u.open(unix.AF_UNIX, &unix.SockaddrUnix{Name: l.path})
}

func (u *upstream) open(family int, sa unix.Sockaddr) error {
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	if family == unix.AF_UNIX && unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer) // as much as the host allows
	}
	if err := unix.Connect(fd, sa); err != nil {
		unix.Close(fd)
		return os.NewSyscallError("connect", err)
	}
	u.fd = fd
	return nil
}

// identify returns which file a path leads to.
func identify(path string) (dev, ino uint64, err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, 0, os.NewSyscallError("stat", err)
	}
	return st.Dev, st.Ino, nil
}

// resolve returns the upstream's UDP address. Of several, the first.
func (l *Lines) resolve(ctx context.Context) (netip.AddrPort, error) {
	if at, err := netip.ParseAddrPort(l.cfg.Address); err == nil {
		return netip.AddrPortFrom(at.Addr().Unmap(), at.Port()), nil
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	host, port, err := net.SplitHostPort(l.cfg.Address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	number, err := net.DefaultResolver.LookupPort(ctx, "udp", port)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.AddrPortFrom(addrs[0].Unmap(), uint16(number)), nil
}

// keeper looks after the connection of a port, on a goroutine of its own, so
// that sending waits neither for a name server nor for a log.
type keeper struct {
	port  *Port
	pause time.Duration // before the next try
	have  *upstream     // a copy of what the port was given last; nil if it broke

	resolved time.Time
	calm     int // looks in a row without an error

	troubles, dropped, sent uint64 // when it was last looked
}

func (k *keeper) run(ctx context.Context) {
	health := k.port.sink.health
	defer health.Set(condUpstream, nil, "")
	defer health.Set(condSlow, nil, "")
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.port.broken:
			k.have = nil
		case <-timer.C:
		}
		k.look(ctx)
		if k.have == nil {
			timer.Reset(k.pause)
		} else {
			timer.Reset(lookAfter)
		}
	}
}

// look finds out whether the upstream is there and still the same, and connects
// if it is not.
func (k *keeper) look(ctx context.Context) {
	l := k.port.sink
	switch {
	case k.have == nil:
		k.dial(ctx)
	case l.unix:
		if dev, ino, err := identify(l.path); err == nil && (dev != k.have.dev || ino != k.have.ino) {
			k.dial(ctx)
		}
		// A path that leads nowhere is no reason to leave a socket that takes lines.
	case time.Since(k.resolved) > resolveAfter:
		if at, err := l.resolve(ctx); err == nil && at.Addr() != k.have.addr {
			k.dial(ctx)
		}
		k.resolved = time.Now()
	}
	k.judge()
}

// dial connects, and hands the port the connection.
func (k *keeper) dial(ctx context.Context) {
	p := k.port
	u, err := p.sink.connect(ctx)
	if err != nil {
		if ctx.Err() == nil {
			p.sink.health.Set(condUpstream, fmt.Errorf("connect to %s: %w: lines wait, and the oldest are dropped", p.sink.cfg.Address, err), upstreamHint)
		}
		k.pause = min(2*k.pause, maxRedial)
		return
	}
	k.have, k.pause, k.resolved = &upstream{dev: u.dev, ino: u.ino, addr: u.addr}, minRedial, time.Now()
	if late := p.next.Swap(u); late != nil {
		unix.Close(late.fd)
	}
	if p.sink.unix {
		p.sink.health.Set(condUpstream, nil, "")
	}
}

const upstreamHint = "see whether the Datadog agent, or what else takes metrics, runs and receives there, or set statsd.upstream"

// judge sets the conditions by what has happened since it was called last.
func (k *keeper) judge() {
	p := k.port
	troubles, dropped, sent := p.troubles.Load(), p.dropped.Load(), p.packets.Load()
	if k.have != nil {
		switch {
		case troubles > k.troubles:
			k.calm = 0
			p.sink.health.Set(condUpstream, fmt.Errorf("send to %s: %w", p.sink.cfg.Address, unix.Errno(p.errno.Load())), upstreamHint)
		case sent > k.sent:
			if k.calm++; k.calm >= calm {
				p.sink.health.Set(condUpstream, nil, "")
			}
		}
	}
	if dropped > k.dropped && k.have != nil {
		p.sink.health.Set(condSlow, fmt.Errorf("%s does not keep up: %d lines were dropped in the last second", p.sink.cfg.Address, dropped-k.dropped),
			"give the upstream more CPU or a larger receive buffer, or limit who sends most (berth statsd top, statsd.rate_limit)")
	} else if dropped == k.dropped {
		p.sink.health.Set(condSlow, nil, "")
	}
	k.troubles, k.dropped, k.sent = troubles, dropped, sent
}
