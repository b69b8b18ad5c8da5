// Package sockets keeps listening sockets open for longer than the components
// that use them: over a reload, and with systemd's help over a restart or an
// upgrade of the program. What the kernel receives meanwhile waits in the
// socket's own queue; nothing is refused and, within the queue's size, nothing
// is lost.
//
//	reg := sockets.New(log)              // takes over what systemd kept
//	conn, err := reg.Scope("dns").ListenPacket(ctx, "udp", "172.17.0.1:53", nil)
//	…                                    // read from conn; closing it is harmless
//	reg.Sweep()                          // everybody has started: drop the rest
//	reg.Scope("dns").Release("udp", "172.17.0.1:53") // the bridge is gone
//
// # Rules
//
//   - A socket is named by scope, network and address, as they were asked for.
//     Asking again for the same name returns another duplicate of the same
//     socket. Two duplicates in use at once share its queue: each datagram or
//     connection goes to one of them.
//   - Closing a duplicate leaves the socket open and bound. Release closes it.
//   - An address with port 0 gets a port of the kernel's choice once, and keeps it.
//   - The control function sets options before the bind. It runs for new sockets
//     only; what has to follow a reload is set on the duplicate.
//   - A stored socket that is not what is asked for (another type, another
//     address, a Unix socket whose file is gone) is dropped and made anew.
//
// # systemd
//
// With NOTIFY_SOCKET set, each new socket goes to the service manager's
// descriptor store (FileDescriptorStoreMax= of the unit must cover them all),
// and comes back as an inherited descriptor with its name when the service
// starts again. See sd_notify(3) and sd_listen_fds(3). Without it, sockets last
// as long as the process.
package sockets

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"

	"github.com/berthd/berth/agent"
)

// Registry owns the sockets of a process. Its methods are safe for concurrent
// use.
type Registry struct {
	log *slog.Logger

	mu        sync.Mutex
	open      map[string]*socket // by name
	inherited map[string]int     // descriptors that nobody has asked for yet
	closed    bool
}

// socket is one open socket. The descriptor is the registry's own duplicate. It
// is not kept as an os.File, whose Fd method may make the socket blocking, which
// would be felt by all of its duplicates.
type socket struct {
	fd      int
	network string
	address string
}

// New returns a registry which holds the sockets that the service manager has
// kept from the last run. It clears the environment variables of the protocol.
func New(log *slog.Logger) *Registry {
	r := &Registry{
		log:       log.With("component", "sockets"),
		open:      make(map[string]*socket),
		inherited: make(map[string]int),
	}
	for _, f := range activation.Files(true) {
		r.inherit(f)
	}
	return r
}

// inherit takes over one inherited descriptor.
func (r *Registry) inherit(f *os.File) {
	defer f.Close()
	name := f.Name()
	if _, ok := r.inherited[name]; ok {
		return // stored twice; the first one will do
	}
	fd, err := duplicate(int(f.Fd()))
	if err == nil {
		if err = unix.SetNonblock(fd, true); err != nil {
			unix.Close(fd)
		}
	}
	if err != nil {
		r.log.Warn("cannot take over a stored socket", "name", name, "err", err)
		return
	}
	r.inherited[name] = fd
}

// Scope returns an agent.Sockets whose names begin with name, so that components do
// not get each other's sockets.
func (r *Registry) Scope(name string) *Scope { return &Scope{r, name} }

// Scope is one component's view of a registry.
type Scope struct {
	registry *Registry
	name     string
}

var _ agent.Sockets = (*Scope)(nil)

// ListenPacket implements agent.Sockets.
func (s *Scope) ListenPacket(ctx context.Context, network, address string, control agent.SocketControl) (net.PacketConn, error) {
	f, err := s.registry.get(ctx, s.name, network, address, control)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	conn, err := net.FilePacketConn(f)
	if err != nil {
		return nil, fmt.Errorf("listen on %s %s: %w", network, address, err)
	}
	return conn, nil
}

// Listen implements agent.Sockets.
func (s *Scope) Listen(ctx context.Context, network, address string, control agent.SocketControl) (net.Listener, error) {
	f, err := s.registry.get(ctx, s.name, network, address, control)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("listen on %s %s: %w", network, address, err)
	}
	return l, nil
}

// Release closes a socket for good. One that is not there is no error.
func (s *Scope) Release(network, address string) error {
	return s.registry.release(fdName(s.name, network, address))
}

// Retain implements agent.Sockets. It is how a component whose addresses are configured
// anew gets rid of the old ones.
func (s *Scope) Retain(keep func(network, address string) bool) {
	r := s.registry
	r.mu.Lock()
	var drop []*socket
	for name, sock := range r.open {
		if name == fdName(s.name, sock.network, sock.address) && !keep(sock.network, sock.address) {
			drop = append(drop, sock)
		}
	}
	r.mu.Unlock()
	for _, sock := range drop {
		if err := s.Release(sock.network, sock.address); err != nil {
			r.log.Warn("cannot release a socket", "network", sock.network, "address", sock.address, "err", err)
		}
	}
}

// get returns a duplicate of a socket, to be closed by the caller.
func (r *Registry) get(ctx context.Context, scope, network, address string, control agent.SocketControl) (*os.File, error) {
	name := fdName(scope, network, address)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, fmt.Errorf("listen on %s %s: %w", network, address, net.ErrClosed)
	}
	s := r.open[name]
	if s == nil {
		var err error
		if s, err = r.claim(name, network, address); err != nil {
			r.log.Warn("a stored socket is of no use", "name", name, "err", err)
		}
	}
	if s == nil {
		fd, err := bind(ctx, network, address, control)
		if err != nil {
			return nil, err
		}
		s = &socket{fd, network, address}
		if err := store(name, fd); err != nil {
			r.log.Warn("a socket will not outlive this process", "name", name, "err", err)
		}
	}
	r.open[name] = s
	fd, err := duplicate(s.fd)
	if err != nil {
		return nil, fmt.Errorf("listen on %s %s: %w", network, address, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// claim takes an inherited socket, or drops it with an error if it is not what
// its name says. It returns nil if there is none.
func (r *Registry) claim(name, network, address string) (*socket, error) {
	fd, ok := r.inherited[name]
	if !ok {
		return nil, nil
	}
	delete(r.inherited, name)
	if err := check(fd, network, address); err != nil {
		unix.Close(fd)
		return nil, errors.Join(err, unstore(name))
	}
	return &socket{fd, network, address}, nil
}

func (r *Registry) release(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.open[name]
	if s == nil {
		return nil
	}
	delete(r.open, name)
	unix.Close(s.fd)
	err := unstore(name)
	if path, ok := socketPath(s.network, s.address); ok {
		if e := os.Remove(path); e != nil && !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	if err != nil {
		return fmt.Errorf("release %s %s: %w", s.network, s.address, err)
	}
	return nil
}

// Sweep drops the sockets that the last run left and that nobody has asked for,
// and returns their names. Call it when all components have started.
func (r *Registry) Sweep() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var names []string
	for name, fd := range r.inherited {
		unix.Close(fd)
		if err := unstore(name); err != nil {
			r.log.Warn("cannot drop a stored socket", "name", name, "err", err)
		}
		names = append(names, name)
	}
	clear(r.inherited)
	slices.Sort(names)
	return names
}

// Names returns the names of the open sockets, sorted.
func (r *Registry) Names() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := make([]string, 0, len(r.open))
	for name := range r.open {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Close closes the registry's descriptors, at the end of the process. What is
// in the service manager's store stays there, for the next one.
func (r *Registry) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for _, s := range r.open {
		unix.Close(s.fd)
	}
	for _, fd := range r.inherited {
		unix.Close(fd)
	}
	clear(r.open)
	clear(r.inherited)
}

func duplicate(fd int) (int, error) {
	// 3: not one of the standard streams, should one of them be closed.
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return -1, os.NewSyscallError("dup", err)
	}
	return n, nil
}

// bind opens a new socket and returns its descriptor.
func bind(ctx context.Context, network, address string, control agent.SocketControl) (int, error) {
	fd, err := bindOnce(ctx, network, address, control)
	if path, ok := socketPath(network, address); ok && errors.Is(err, unix.EADDRINUSE) && abandoned(network, path) {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return -1, fmt.Errorf("remove abandoned socket: %w", err)
		}
		fd, err = bindOnce(ctx, network, address, control)
	}
	return fd, err
}

func bindOnce(ctx context.Context, network, address string, control agent.SocketControl) (int, error) {
	lc := net.ListenConfig{Control: control}
	switch network {
	case "udp", "udp4", "udp6", "unixgram":
		conn, err := lc.ListenPacket(ctx, network, address)
		if err != nil {
			return -1, err
		}
		defer conn.Close()
		return descriptor(conn)
	case "tcp", "tcp4", "tcp6", "unix":
		l, err := lc.Listen(ctx, network, address)
		if err != nil {
			return -1, err
		}
		if u, ok := l.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false)
		}
		defer l.Close()
		return descriptor(l)
	}
	return -1, fmt.Errorf("listen on %s %s: %w", network, address, net.UnknownNetworkError(network))
}

// descriptor returns a duplicate of a connection's descriptor.
func descriptor(conn any) (int, error) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return -1, fmt.Errorf("duplicate %T: %w", conn, errors.ErrUnsupported)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return -1, err
	}
	dup := -1
	var dupErr error
	if err := raw.Control(func(fd uintptr) { dup, dupErr = duplicate(int(fd)) }); err != nil {
		return -1, err
	}
	return dup, dupErr
}

// socketPath returns the file of a Unix socket that has one.
func socketPath(network, address string) (string, bool) {
	ok := strings.HasPrefix(network, "unix") && address != "" && address[0] != '@' && address[0] != 0
	return address, ok
}

// abandoned reports whether path is a socket that no process has open.
func abandoned(network, path string) bool {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != os.ModeSocket {
		return false
	}
	conn, err := net.Dial(network, path)
	if err != nil {
		return errors.Is(err, unix.ECONNREFUSED)
	}
	conn.Close()
	return false
}

// check returns an error unless fd is the socket that a bind to network and
// address would make.
func check(fd int, network, address string) error {
	wantType := unix.SOCK_DGRAM
	if strings.HasPrefix(network, "tcp") || network == "unix" {
		wantType = unix.SOCK_STREAM
	}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	if kind != wantType {
		return fmt.Errorf("socket type is %d, want %d", kind, wantType)
	}
	if wantType == unix.SOCK_STREAM {
		if listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || listening == 0 {
			return errors.New("socket is not listening")
		}
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	return checkAddress(sa, network, address)
}

func checkAddress(sa unix.Sockaddr, network, address string) error {
	var local netip.AddrPort
	switch sa := sa.(type) {
	case *unix.SockaddrUnix:
		if sa.Name != address || !strings.HasPrefix(network, "unix") {
			return fmt.Errorf("socket is bound to %q", sa.Name)
		}
		if path, ok := socketPath(network, address); ok {
			if _, err := os.Lstat(path); err != nil {
				return fmt.Errorf("nobody can reach the socket: %w", err)
			}
		}
		return nil
	case *unix.SockaddrInet4:
		local = netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		local = netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port))
	}
	hostText, portText, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	port, err := net.LookupPort(network, portText)
	if err != nil {
		return err
	}
	want := netip.IPv6Unspecified() // as ":53" is
	if hostText != "" {
		if want, err = netip.ParseAddr(hostText); err != nil {
			return err
		}
	}
	want = want.Unmap().WithZone("")
	sameHost := local.Addr() == want || want.IsUnspecified() && local.Addr().IsUnspecified()
	if !sameHost || port != 0 && port != int(local.Port()) {
		return fmt.Errorf("socket is bound to %s", local)
	}
	return nil
}
