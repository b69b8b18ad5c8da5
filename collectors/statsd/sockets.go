package statsd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/berthd/berth/agent"
)

// socketMode lets every user of every container send.
const socketMode = 0o666

// socket is one socket that is read. Its descriptor is its own.
type socket struct {
	fd      int
	unix    bool
	network string
	address string         // as it was asked for
	at      netip.AddrPort // over UDP, with the actual port
	buffer  int            // bytes that the kernel holds at most, as it counts them
	queue   int            // datagrams that a Unix socket holds at most
	errors  atomic.Uint64
	indexed bool // the kernel tells each datagram's interface; of the receiver

	mu     sync.Mutex
	closed bool
	last   uint32 // datagrams that were dropped until it was closed
}

// drops returns how many datagrams the kernel had no room for since the socket
// was made, which may have been in an earlier life of berth.
func (s *socket) drops() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.readDrops()
	}
	return uint64(s.last)
}

func (s *socket) readDrops() {
	var info [unix.SK_MEMINFO_VARS]uint32
	size := uint32(len(info) * 4)
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(s.fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno == 0 {
		s.last = info[unix.SK_MEMINFO_DROPS]
	}
}

func (s *socket) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.readDrops()
	s.closed = true
	unix.Close(s.fd)
}

// opener opens sockets, by the configuration.
type opener struct {
	sockets agent.Sockets
	buffer  int // bytes of lines that the kernel is to hold
}

// udp opens the socket of an address.
func (o *opener) udp(ctx context.Context, at netip.AddrPort) (*socket, error) {
	network := "udp4"
	if at.Addr().Is6() {
		network = "udp6"
	}
	s, err := o.open(ctx, network, at.String(), freebind)
	if err != nil {
		if errors.Is(err, unix.EADDRINUSE) {
			return nil, fmt.Errorf("listen on %s/udp: %w", at, unix.EADDRINUSE)
		}
		return nil, fmt.Errorf("listen on %s/udp: %w", at, err)
	}
	return s, nil
}

// unixgram opens the Unix socket. Its folder is made if it is not there, and
// otherwise left alone.
func (o *opener) unixgram(ctx context.Context, path string) (*socket, error) {
	if err := os.Mkdir(filepath.Dir(path), 0o755); err == nil {
		_ = os.Chmod(filepath.Dir(path), 0o755) // whatever the umask
	} else if !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("make the folder of %s: %w", path, err)
	}
	s, err := o.open(ctx, "unixgram", path, nil)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := os.Chmod(path, socketMode); err != nil {
		s.close()
		return nil, fmt.Errorf("open %s to all users: %w", path, err)
	}
	return s, nil
}

// freebind lets a socket be bound to an address that no interface has yet, as
// that of a bridge which comes up with its first container. The option is that of
// IPv6 as well.
func freebind(_, _ string, raw syscall.RawConn) error {
	var err error
	ctlErr := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1)
	})
	return errors.Join(ctlErr, err)
}

func (o *opener) open(ctx context.Context, network, address string, control agent.SocketControl) (*socket, error) {
	conn, err := o.sockets.ListenPacket(ctx, network, address, control)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &socket{network: network, address: address, unix: network == "unixgram"}
	ctlErr := raw.Control(func(fd uintptr) {
		// 3: not one of the standard streams, should one of them be closed.
		s.fd, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3)
	})
	if err := errors.Join(ctlErr, err); err != nil {
		return nil, err
	}
	if udp, ok := conn.LocalAddr().(*net.UDPAddr); ok {
		s.at = udp.AddrPort()
	}
	if err := s.configure(o.buffer); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// configure sets the options of a socket, which may be one of an earlier life.
func (s *socket) configure(buffer int) error {
	if s.unix {
		s.queue = queueLength()
		if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	} else if err := s.index(false); err != nil {
		return err
	}
	if unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer) != nil {
		// Without CAP_NET_ADMIN: as much as the host allows.
		if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	// The kernel doubles what it is asked for, to cover its own overhead
	// (socket(7)).
	doubled, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	s.buffer = doubled / 2
	return os.NewSyscallError("getsockopt", err)
}

// index makes the kernel tell the interface of each datagram over UDP, or not. It
// takes a tenth of what receiving one costs. Those that are in the queue already
// have none.
func (s *socket) index(on bool) error {
	level, option := unix.SOL_IP, unix.IP_PKTINFO
	if s.network == "udp6" {
		level, option = unix.SOL_IPV6, unix.IPV6_RECVPKTINFO
	}
	value := 0
	if on {
		value = 1
	}
	s.indexed = on
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(s.fd, level, option, value))
}

// queueLength returns how many datagrams a Unix socket that is made now holds.
func queueLength() int {
	const kernels = 10 // without systemd, which sets 512
	text, err := os.ReadFile("/proc/sys/net/unix/max_dgram_qlen")
	if err != nil {
		return kernels
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return kernels
	}
	return n
}

// ownSockets opens sockets that live no longer than their duplicates, for a relay
// whose environment has none that do.
type ownSockets struct{}

// ListenPacket implements agent.Sockets.
func (ownSockets) ListenPacket(ctx context.Context, network, address string, control agent.SocketControl) (net.PacketConn, error) {
	lc := net.ListenConfig{Control: control}
	return lc.ListenPacket(ctx, network, address)
}

// Listen implements agent.Sockets.
func (ownSockets) Listen(ctx context.Context, network, address string, control agent.SocketControl) (net.Listener, error) {
	lc := net.ListenConfig{Control: control}
	return lc.Listen(ctx, network, address)
}

// Retain implements agent.Sockets.
func (ownSockets) Retain(func(string, string) bool) {}
