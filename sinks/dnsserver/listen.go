package dnsserver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berthd/berth/agent"
)

// The pauses between two tries to listen on an address, and how often the
// host's own addresses are looked at.
const (
	minRetry = 250 * time.Millisecond
	maxRetry = 30 * time.Second
	refresh  = 30 * time.Second
)

// receiveBuffer is the kernel's buffer for questions that wait, in bytes; some
// 2,000 of them.
const receiveBuffer = 1 << 20

// addresses is what Addrs and Listening return.
type addresses struct{ wanted, open []netip.AddrPort }

// Addrs returns the addresses that are meant to be served now, sorted. Where
// the configured port is 0, the port of an address that is not served is 0.
func (s *Server) Addrs() []netip.AddrPort { return slices.Clone(s.addrs.Load().wanted) }

// Listening returns the addresses that are served now, sorted, with their
// actual ports. UDP and TCP have the same.
func (s *Server) Listening() []netip.AddrPort { return slices.Clone(s.addrs.Load().open) }

// listeners follows the addresses to serve. It belongs to one goroutine.
type listeners struct {
	server *Server
	wanted []netip.Addr // at the last call of follow
	open   map[netip.Addr]*endpoint
	failed map[netip.Addr]*failure
	ended  chan *endpoint // those which broke
}

// failure is an address that cannot be served.
type failure struct {
	err   error
	pause time.Duration
	next  time.Time // of the next try
}

// listen serves the addresses of the configuration and the feed until ctx ends.
func (s *Server) listen(ctx context.Context, feed agent.Feed) {
	l := &listeners{
		server: s,
		open:   make(map[netip.Addr]*endpoint),
		failed: make(map[netip.Addr]*failure),
		ended:  make(chan *endpoint),
	}
	defer l.closeAll()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-feed.Changed():
		case <-timer.C:
		case e := <-l.ended:
			l.fail(e.addr, e.close())
		}
		snap := feed.Snapshot()
		if s.cfg.Forward {
			s.clients.Store(newClients(snap.Networks))
		}
		timer.Reset(l.follow(ctx, s.wanted(snap)))
	}
}

// wanted returns the addresses to serve, sorted. While the snapshot is not the
// whole truth, a network that is missing from it is no reason to stop serving.
func (s *Server) wanted(snap *agent.Snapshot) []netip.Addr {
	var addrs []netip.Addr
	for _, a := range slices.Concat(s.cfg.Listen, snap.Bridges()) {
		if bindable(a) == nil { // a bridge may have public addresses, too
			addrs = append(addrs, a.Unmap())
		}
	}
	if !snap.Complete {
		for _, a := range s.addrs.Load().wanted {
			addrs = append(addrs, a.Addr())
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs)
}

// follow opens what is wanted and not open, closes what is open and not wanted,
// and returns when to be called again at the latest.
func (l *listeners) follow(ctx context.Context, wanted []netip.Addr) time.Duration {
	for a, e := range l.open {
		if !slices.Contains(wanted, a) {
			e.close()
			delete(l.open, a)
		}
	}
	if !slices.Equal(l.wanted, wanted) {
		l.wanted = wanted
		l.server.retain(wanted)
	}
	maps.DeleteFunc(l.failed, func(a netip.Addr, _ *failure) bool { return !slices.Contains(wanted, a) })
	for _, a := range wanted {
		if f := l.failed[a]; l.open[a] != nil || f != nil && time.Now().Before(f.next) {
			continue
		}
		e, err := l.server.open(ctx, a)
		if err != nil {
			l.fail(a, err)
			continue
		}
		delete(l.failed, a)
		l.open[a] = e
		e.serve(ctx, l.server, l.ended)
	}
	l.report(wanted)
	next := refresh
	for _, f := range l.failed {
		next = min(next, time.Until(f.next))
	}
	return next
}

// retain gives up the sockets of addresses that are not to be served any longer,
// which may be those of a configuration before.
func (s *Server) retain(wanted []netip.Addr) {
	s.sockets.Retain(func(_, address string) bool {
		at, err := netip.ParseAddrPort(address)
		return err == nil && slices.Contains(wanted, at.Addr()) && (s.cfg.Port == 0 || at.Port() == s.cfg.Port)
	})
}

// fail notes that an address cannot be served.
func (l *listeners) fail(a netip.Addr, err error) {
	delete(l.open, a)
	f := l.failed[a]
	if f == nil {
		f = &failure{pause: minRetry / 2}
		l.failed[a] = f
	}
	f.err = err
	f.pause = min(2*f.pause, maxRetry)
	f.next = time.Now().Add(f.pause)
}

// report tells everyone what is served and what is not.
func (l *listeners) report(wanted []netip.Addr) {
	now := new(addresses)
	var errs []error
	for _, a := range wanted {
		at := netip.AddrPortFrom(a, l.server.cfg.Port)
		if e := l.open[a]; e != nil {
			at = e.at
			now.open = append(now.open, at)
		}
		now.wanted = append(now.wanted, at)
		if f := l.failed[a]; f != nil {
			errs = append(errs, f.err)
		}
	}
	l.server.addrs.Store(now)
	l.server.health.Set(condListen, summary(errs),
		"stop the process that has the port, or take the address out of dns.listen; the other addresses are served")
}

func (l *listeners) closeAll() {
	for _, e := range l.open {
		e.close()
	}
	l.server.addrs.Store(new(addresses))
}

// endpoint is one address that is served.
type endpoint struct {
	addr  netip.Addr
	at    netip.AddrPort
	udp   *net.UDPConn
	tcp   net.Listener
	conns connections

	wg      sync.WaitGroup
	closing chan struct{}
	once    sync.Once
	err     error // why it broke
}

// open binds both sockets of an address. With port 0 the kernel finds a free
// one for UDP, which somebody else may have for TCP: then another is tried.
func (s *Server) open(ctx context.Context, a netip.Addr) (*endpoint, error) {
	const tries = 20
	at := netip.AddrPortFrom(a, s.cfg.Port)
	for try := 1; ; try++ {
		e, err := s.bind(ctx, at)
		if err == nil {
			return e, nil
		}
		if s.cfg.Port != 0 || try == tries || !errors.Is(err, unix.EADDRINUSE) {
			return nil, err
		}
		s.sockets.Retain(func(_, address string) bool { return address != at.String() })
	}
}

func (s *Server) bind(ctx context.Context, at netip.AddrPort) (*endpoint, error) {
	family := "4"
	if at.Addr().Is6() {
		family = "6"
	}
	pc, err := s.sockets.ListenPacket(ctx, "udp"+family, at.String(), socketOptions)
	if err != nil {
		return nil, explainBind("udp", at, err)
	}
	udp := pc.(*net.UDPConn)
	at = netip.AddrPortFrom(at.Addr(), udp.LocalAddr().(*net.UDPAddr).AddrPort().Port())
	tcp, err := s.sockets.Listen(ctx, "tcp"+family, at.String(), socketOptions)
	if err != nil {
		udp.Close()
		return nil, explainBind("tcp", at, err)
	}
	return &endpoint{addr: at.Addr(), at: at, udp: udp, tcp: tcp, closing: make(chan struct{})}, nil
}

// ownSockets opens sockets that live no longer than their duplicates, for a
// server whose environment has none that do.
type ownSockets struct{}

func (ownSockets) ListenPacket(ctx context.Context, network, address string, control agent.SocketControl) (net.PacketConn, error) {
	lc := net.ListenConfig{Control: control}
	return lc.ListenPacket(ctx, network, address)
}

func (ownSockets) Listen(ctx context.Context, network, address string, control agent.SocketControl) (net.Listener, error) {
	lc := net.ListenConfig{Control: control}
	return lc.Listen(ctx, network, address)
}

func (ownSockets) Retain(func(string, string) bool) {}

// explainBind adds to an error of bind who has the port.
func explainBind(network string, at netip.AddrPort, err error) error {
	if errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("listen on %s/%s: %w by %s", at, network, unix.EADDRINUSE, holder("/proc", network, at))
	}
	return fmt.Errorf("listen on %s/%s: %w", at, network, err)
}

// socketOptions lets a socket be bound to an address that no interface has yet,
// as that of a bridge which comes up with its first container.
func socketOptions(network, _ string, raw syscall.RawConn) error {
	var err error
	ctlErr := raw.Control(func(fd uintptr) {
		if err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1); err != nil {
			return
		}
		if network == "udp6" || network == "tcp6" {
			if err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_FREEBIND, 1); err != nil {
				return
			}
		}
		if network == "udp4" || network == "udp6" {
			if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
				// Without CAP_NET_ADMIN: as much as the host allows.
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
			}
		}
	})
	return errors.Join(ctlErr, err)
}

// serve starts the endpoint's goroutines. The first error is sent to ended.
func (e *endpoint) serve(ctx context.Context, s *Server, ended chan<- *endpoint) {
	broke := func(err error) {
		e.once.Do(func() {
			e.err = fmt.Errorf("serve %s: %w", e.at, err)
			select {
			case ended <- e:
			case <-e.closing:
			}
		})
	}
	e.wg.Go(func() { broke(s.serveUDP(ctx, e.udp)) })
	e.wg.Go(func() { broke(s.serveTCP(ctx, e.tcp, &e.conns)) })
}

// close ends the endpoint and its goroutines, and returns why it broke, if it
// did.
func (e *endpoint) close() error {
	close(e.closing)
	e.udp.Close()
	e.tcp.Close()
	e.conns.closeAll()
	e.wg.Wait()
	return e.err
}
