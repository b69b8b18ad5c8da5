package sockets

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/berthd/berth/agent"
)

const (
	childVariable = "BERTH_SOCKETS_CHILD"
	patient       = 10 * time.Second // bounds a wait that normally ends at once
)

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		if err := child(); err != nil {
			fmt.Fprintln(os.Stderr, "child:", err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newRegistry(t *testing.T) *Registry {
	t.Helper()
	r := New(slog.New(slog.DiscardHandler))
	t.Cleanup(r.Close)
	return r
}

func packet(t *testing.T, o agent.Sockets, network, address string) net.PacketConn {
	t.Helper()
	conn, err := o.ListenPacket(t.Context(), network, address, nil)
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

func listener(t *testing.T, o agent.Sockets, network, address string) net.Listener {
	t.Helper()
	l, err := o.Listen(t.Context(), network, address, nil)
	must(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

// send sends datagrams from a new socket.
func send(t *testing.T, network, address string, texts ...string) {
	t.Helper()
	conn, err := net.Dial(network, address)
	must(t, err)
	defer conn.Close()
	for _, s := range texts {
		_, err := conn.Write([]byte(s))
		must(t, err)
	}
}

// receive reads n datagrams.
func receive(t *testing.T, conn net.PacketConn, n int) []string {
	t.Helper()
	must(t, conn.SetReadDeadline(time.Now().Add(patient)))
	var got []string
	buf := make([]byte, 100)
	for range n {
		k, _, err := conn.ReadFrom(buf)
		must(t, err)
		got = append(got, string(buf[:k]))
	}
	return got
}

func numbers(n int) (s []string) {
	for i := range n {
		s = append(s, strconv.Itoa(i))
	}
	return s
}

func TestNoDatagramIsLostBetweenOwners(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	for network, address := range map[string]string{"udp": "127.0.0.1:0", "unixgram": path} {
		t.Run(network, func(t *testing.T) {
			s := newRegistry(t).Scope("test")
			first := packet(t, s, network, address)
			local := first.LocalAddr().String()
			send(t, network, local, "before")
			if got := receive(t, first, 1); got[0] != "before" {
				t.Errorf("got %q", got)
			}
			must(t, first.Close())
			// Unix datagrams block their sender when the queue is full (max_dgram_qlen).
			want := numbers(8)
			send(t, network, local, want...)
			second := packet(t, s, network, address)
			if diff := cmp.Diff(want, receive(t, second, len(want))); diff != "" {
				t.Errorf("datagrams (-want +got):\n%s", diff)
			}
			if got := second.LocalAddr().String(); got != local {
				t.Errorf("address = %s, want %s", got, local)
			}
		})
	}
}

func TestNoConnectionIsRefusedBetweenOwners(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	for network, address := range map[string]string{"tcp": "127.0.0.1:0", "unix": path} {
		t.Run(network, func(t *testing.T) {
			s := newRegistry(t).Scope("test")
			first := listener(t, s, network, address)
			local := first.Addr().String()
			must(t, first.Close())
			conn, err := net.Dial(network, local)
			must(t, err)
			defer conn.Close()
			_, err = io.WriteString(conn, "hello\n")
			must(t, err)
			second := listener(t, s, network, address)
			peer, err := second.Accept()
			must(t, err)
			defer peer.Close()
			line, err := bufio.NewReader(peer).ReadString('\n')
			if err != nil || line != "hello\n" {
				t.Errorf("got %q, %v", line, err)
			}
		})
	}
}

// A duplicate that made the socket blocking would hang the others' readers.
func TestDuplicatesStayResponsive(t *testing.T) {
	s := newRegistry(t).Scope("test")
	first := packet(t, s, "udp", "127.0.0.1:0")
	ended := make(chan error, 1)
	go func() {
		_, _, err := first.ReadFrom(make([]byte, 1))
		ended <- err
	}()
	for range 20 {
		must(t, packet(t, s, "udp", "127.0.0.1:0").Close())
	}
	must(t, first.SetReadDeadline(time.Unix(1, 0)))
	select {
	case err := <-ended:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read = %v, want its deadline", err)
		}
	case <-time.After(patient):
		t.Fatal("the reader hangs")
	}
}

func TestScopesAndAddressesAreApart(t *testing.T) {
	r := newRegistry(t)
	a := packet(t, r.Scope("a"), "udp", "127.0.0.1:0")
	b := packet(t, r.Scope("b"), "udp", "127.0.0.1:0")
	c := packet(t, r.Scope("a"), "udp4", "127.0.0.1:0")
	if x, y, z := a.LocalAddr().String(), b.LocalAddr().String(), c.LocalAddr().String(); x == y || y == z || x == z {
		t.Errorf("addresses %s, %s, %s, want three", x, y, z)
	}
	want := []string{"a-udp-127.0.0.1%3A0", "a-udp4-127.0.0.1%3A0", "b-udp-127.0.0.1%3A0"}
	if diff := cmp.Diff(want, r.Names()); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}

func TestControlRunsBeforeTheBind(t *testing.T) {
	r := newRegistry(t)
	calls := 0
	control := func(_, _ string, c syscall.RawConn) error {
		calls++
		return c.Control(func(fd uintptr) {
			if err := unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1); err != nil {
				t.Error(err)
			}
		})
	}
	// An address that no interface has, which only IP_FREEBIND can bind.
	for range 2 {
		conn, err := r.Scope("test").ListenPacket(t.Context(), "udp4", "192.0.2.77:0", control)
		must(t, err)
		must(t, conn.Close())
	}
	if calls != 1 {
		t.Errorf("control ran %d times, want once", calls)
	}
	refuse := errors.New("no")
	_, err := r.Scope("other").Listen(t.Context(), "tcp", "127.0.0.1:0", func(string, string, syscall.RawConn) error { return refuse })
	if !errors.Is(err, refuse) {
		t.Errorf("Listen = %v, want the control function's error", err)
	}
}

func TestErrors(t *testing.T) {
	r := newRegistry(t)
	s := r.Scope("test")
	taken := listener(t, s, "tcp", "127.0.0.1:0").Addr().String()
	if _, err := s.Listen(t.Context(), "tcp", taken, nil); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("Listen on a taken address = %v", err)
	}
	if _, err := s.Listen(t.Context(), "ip", "127.0.0.1", nil); err == nil {
		t.Error("Listen on an unknown network succeeded")
	}
	if _, err := s.Listen(t.Context(), "udp", "127.0.0.1:0", nil); err == nil {
		t.Error("Listen on a datagram network succeeded")
	}
	if _, err := s.ListenPacket(t.Context(), "tcp", taken, nil); err == nil {
		t.Error("ListenPacket on a stream network succeeded")
	}
	r.Close()
	if _, err := s.Listen(t.Context(), "tcp", "127.0.0.1:0", nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Listen after Close = %v, want ErrClosed", err)
	}
}

func TestRelease(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "sock")
	s := newRegistry(t).Scope("test")
	must(t, s.Release("unix", path)) // not there
	must(t, listener(t, s, "unix", path).Close())
	must(t, s.Release("unix", path))
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
	l := listener(t, s, "tcp", "127.0.0.1:0")
	local := l.Addr().String()
	must(t, l.Close())
	must(t, s.Release("tcp", "127.0.0.1:0"))
	if conn, err := net.Dial("tcp", local); err == nil {
		conn.Close()
		t.Error("a released socket still takes connections")
	}
}

func TestAbandonedUnixSocketIsReplaced(t *testing.T) {
	for _, network := range []string{"unix", "unixgram"} {
		path := filepath.Join(t.TempDir(), "sock")
		fd, err := bindOnce(t.Context(), network, path, nil)
		must(t, err)
		open := func() error {
			r := newRegistry(t)
			if network == "unix" {
				_, err = r.Scope("x").Listen(t.Context(), network, path, nil)
			} else {
				_, err = r.Scope("x").ListenPacket(t.Context(), network, path, nil)
			}
			return err
		}
		if err := open(); !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("%s: a socket in use: %v, want EADDRINUSE", network, err)
		}
		must(t, unix.Close(fd))
		must(t, open())
	}
}

// handOver makes a registry that inherits a bound socket under a name.
func handOver(t *testing.T, name string, fd int) *Registry {
	t.Helper()
	r := newRegistry(t)
	r.inherit(os.NewFile(uintptr(fd), name))
	return r
}

func TestStoredSocketsAreChecked(t *testing.T) {
	dir := t.TempDir()
	bound := func(network, address string) int {
		fd, err := bindOnce(t.Context(), network, address, nil)
		must(t, err)
		return fd
	}
	path := filepath.Join(dir, "gone")
	gone := bound("unix", path)
	must(t, os.Remove(path))
	idle, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	for _, tc := range []struct {
		what, network, address string
		fd                     int
		ok                     bool
	}{
		{"the same", "udp", "127.0.0.1:0", bound("udp", "127.0.0.1:0"), true},
		{"every address", "udp", ":0", bound("udp", ":0"), true},
		{"the same stream", "tcp", "127.0.0.1:0", bound("tcp", "127.0.0.1:0"), true},
		{"another address", "udp", "127.0.0.1:0", bound("udp", "127.0.0.2:0"), false},
		{"another type", "udp", "127.0.0.1:0", bound("tcp", "127.0.0.1:0"), false},
		{"another port", "udp", "127.0.0.1:1", bound("udp", "127.0.0.1:0"), false},
		{"another family", "unixgram", filepath.Join(dir, "a"), bound("udp", "127.0.0.1:0"), false},
		{"not listening", "tcp", "127.0.0.1:0", idle, false},
		{"a lost file", "unix", path, gone, false},
	} {
		t.Run(tc.what, func(t *testing.T) {
			name := fdName("s", tc.network, tc.address)
			r := handOver(t, name, tc.fd)
			s, err := r.claim(name, tc.network, tc.address)
			if (s != nil) != tc.ok || (err == nil) != tc.ok {
				t.Errorf("claim = %v, %v, want ok %v", s, err, tc.ok)
			}
			if s != nil {
				unix.Close(s.fd)
			}
			if len(r.inherited) != 0 {
				t.Errorf("still there: %v", r.inherited)
			}
		})
	}
}

func TestCheckAddressIPv6(t *testing.T) {
	any6 := &unix.SockaddrInet6{Port: 53}
	one := &unix.SockaddrInet6{Port: 53, Addr: netip.MustParseAddr("fe80::1").As16(), ZoneId: 2}
	mapped := &unix.SockaddrInet6{Port: 53, Addr: netip.MustParseAddr("::ffff:10.0.0.1").As16()}
	for _, tc := range []struct {
		sa      unix.Sockaddr
		address string
		ok      bool
	}{
		{any6, ":53", true},
		{any6, "[::]:53", true},
		{any6, "0.0.0.0:domain", true},
		{any6, "[::1]:53", false},
		{one, "[fe80::1%eth0]:53", true},
		{one, "[fe80::2%eth0]:53", false},
		{one, "[fe80::1%eth0]:54", false},
		{mapped, "10.0.0.1:0", true},
		{one, "localhost:53", false},
		{one, "53", false},
		{&unix.SockaddrNetlink{}, "[::]:53", false},
	} {
		if err := checkAddress(tc.sa, "udp", tc.address); (err == nil) != tc.ok {
			t.Errorf("%v for %s: %v, want ok %v", tc.sa, tc.address, err, tc.ok)
		}
	}
}

func TestLostUnixSocketIsMadeAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	fd, err := bindOnce(t.Context(), "unix", path, nil)
	must(t, err)
	must(t, os.Remove(path)) // as when RuntimeDirectory= goes with the service
	r := handOver(t, fdName("s", "unix", path), fd)
	listener(t, r.Scope("s"), "unix", path)
	conn, err := net.Dial("unix", path)
	must(t, err)
	conn.Close()
}

func TestNames(t *testing.T) {
	for _, tc := range []struct{ scope, network, address, want string }{
		{"dns", "udp", "172.17.0.1:53", "dns-udp-172.17.0.1%3A53"},
		{"s", "unix", "/run/a b\n%ü", "s-unix-/run/a%20b%0A%25%C3%BC"},
	} {
		if got := fdName(tc.scope, tc.network, tc.address); got != tc.want {
			t.Errorf("fdName = %q, want %q", got, tc.want)
		}
	}
	a, b := fdName("s", "unix", strings.Repeat("x", 400)+"a"), fdName("s", "unix", strings.Repeat("x", 400)+"b")
	if len(a) != maxName || a == b {
		t.Errorf("long names: %d bytes, equal: %v", len(a), a == b)
	}
}

// manager is a service manager with a descriptor store.
type manager struct {
	t     *testing.T
	conn  *net.UnixConn
	names []string
	files map[string]*os.File
}

func newManager(t *testing.T) *manager {
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	must(t, err)
	m := &manager{t: t, conn: conn, files: map[string]*os.File{}}
	t.Cleanup(func() {
		conn.Close()
		for _, f := range m.files {
			f.Close()
		}
	})
	t.Setenv("NOTIFY_SOCKET", path)
	return m
}

// take receives the messages that are there, which were sent before what the
// caller has already seen.
func (m *manager) take() {
	m.t.Helper()
	buf, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4*4))
	for {
		raw, err := m.conn.SyscallConn()
		must(m.t, err)
		var n, oobn int
		must(m.t, raw.Control(func(fd uintptr) {
			n, oobn, _, _, err = unix.Recvmsg(int(fd), buf, oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		}))
		if errors.Is(err, unix.EAGAIN) {
			return
		}
		must(m.t, err)
		m.message(string(buf[:n]), oob[:oobn])
	}
}

func (m *manager) message(text string, oob []byte) {
	m.t.Helper()
	fields := map[string]string{}
	for line := range strings.Lines(text) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		fields[k] = v
	}
	name := fields["FDNAME"]
	if len(name) > 255 || strings.ContainsAny(name, ": \n") {
		m.t.Errorf("name %q is not allowed", name)
	}
	switch {
	case fields["FDSTOREREMOVE"] == "1":
		if f := m.files[name]; f != nil {
			f.Close()
			delete(m.files, name)
			m.names = slices.DeleteFunc(m.names, func(s string) bool { return s == name })
		}
	case fields["FDSTORE"] == "1":
		messages, err := unix.ParseSocketControlMessage(oob)
		must(m.t, err)
		fds, err := unix.ParseUnixRights(&messages[0])
		must(m.t, err)
		if len(fds) != 1 {
			m.t.Fatalf("%d descriptors, want 1", len(fds))
		}
		m.files[name] = os.NewFile(uintptr(fds[0]), name)
		m.names = append(m.names, name)
	default:
		m.t.Errorf("message %q", text)
	}
}

// start runs the child with the stored descriptors and returns its lines.
func (m *manager) start(what string) (*exec.Cmd, *bufio.Scanner) {
	m.t.Helper()
	cmd := exec.CommandContext(m.t.Context(), "/bin/sh", "-c", `LISTEN_PID=$$ exec "$0"`, os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+what,
		"LISTEN_FDS="+strconv.Itoa(len(m.names)), "LISTEN_FDNAMES="+strings.Join(m.names, ":"))
	for _, name := range m.names {
		cmd.ExtraFiles = append(cmd.ExtraFiles, m.files[name])
	}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(m.t, err)
	must(m.t, cmd.Start())
	return cmd, bufio.NewScanner(out)
}

// child is a program that is restarted. Its first run prints its addresses and
// waits to be killed; its second prints what it receives.
func child() error {
	r := New(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	ctx := context.Background()
	conn, err := r.Scope("c").ListenPacket(ctx, "udp", "127.0.0.1:0", nil)
	if err != nil {
		return err
	}
	l, err := r.Scope("c").Listen(ctx, "tcp", "127.0.0.1:0", nil)
	if err != nil {
		return err
	}
	if os.Getenv(childVariable) == "first" {
		if _, err := r.Scope("old").Listen(ctx, "tcp", "127.0.0.1:0", nil); err != nil {
			return err
		}
		fmt.Println(conn.LocalAddr())
		fmt.Println(l.Addr())
		select {}
	}
	fmt.Println(r.Sweep(), os.Getenv("LISTEN_FDS") == "")
	buf := make([]byte, 100)
	for range 50 {
		n, _, err := conn.ReadFrom(buf)
		if err != nil {
			return err
		}
		fmt.Println(string(buf[:n]))
	}
	peer, err := l.Accept()
	if err != nil {
		return err
	}
	_, err = io.Copy(os.Stdout, peer)
	return err
}

func TestNothingIsLostOverARestart(t *testing.T) {
	m := newManager(t)
	cmd, lines := m.start("first")
	if !lines.Scan() {
		t.Fatal(cmd.Wait())
	}
	udp := lines.Text()
	if !lines.Scan() {
		t.Fatal(cmd.Wait())
	}
	tcp := lines.Text()
	must(t, cmd.Process.Kill())
	_ = cmd.Wait() // killed
	m.take()
	want := []string{"c-udp-127.0.0.1%3A0", "c-tcp-127.0.0.1%3A0", "old-tcp-127.0.0.1%3A0"}
	if diff := cmp.Diff(want, m.names); diff != "" {
		t.Fatalf("stored (-want +got):\n%s", diff)
	}

	// The program is down.
	texts := numbers(50)
	send(t, "udp", udp, texts...)
	send(t, "tcp", tcp, "over tcp\n")

	cmd, lines = m.start("second")
	expect := append([]string{"[old-tcp-127.0.0.1%3A0] true"}, texts...)
	expect = append(expect, "over tcp")
	var got []string
	for lines.Scan() {
		got = append(got, lines.Text())
	}
	must(t, cmd.Wait())
	if diff := cmp.Diff(expect, got); diff != "" {
		t.Errorf("received (-want +got):\n%s", diff)
	}
	m.take()
	if diff := cmp.Diff(want[:2], m.names); diff != "" {
		t.Errorf("stored after the sweep (-want +got):\n%s", diff)
	}
}

func TestReleaseTellsTheManager(t *testing.T) {
	m := newManager(t)
	s := newRegistry(t).Scope("c")
	packet(t, s, "udp", "127.0.0.1:0")
	m.take()
	if len(m.names) != 1 {
		t.Fatalf("stored %q", m.names)
	}
	must(t, s.Release("udp", "127.0.0.1:0"))
	m.take()
	if len(m.names) != 0 {
		t.Errorf("still stored: %q", m.names)
	}
}

func TestUselessStoredSocketIsReplacedInTheStore(t *testing.T) {
	m := newManager(t)
	name := fdName("c", "udp", "127.0.0.1:0")
	fd, err := bindOnce(t.Context(), "tcp", "127.0.0.1:0", nil)
	must(t, err)
	must(t, store(name, fd))
	packet(t, handOver(t, name, fd).Scope("c"), "udp", "127.0.0.1:0")
	m.take()
	if diff := cmp.Diff([]string{name}, m.names); diff != "" {
		t.Fatalf("stored (-want +got):\n%s", diff)
	}
	if err := check(int(m.files[name].Fd()), "udp", "127.0.0.1:0"); err != nil {
		t.Errorf("the stored one: %v", err)
	}
}

func TestInheritedSocketsDoNotBlock(t *testing.T) {
	fd, err := bindOnce(t.Context(), "udp", "127.0.0.1:0", nil)
	must(t, err)
	must(t, unix.SetNonblock(fd, false)) // as another program may have left it
	r := handOver(t, "x", fd)
	flags, err := unix.FcntlInt(uintptr(r.inherited["x"]), unix.F_GETFL, 0)
	must(t, err)
	if flags&unix.O_NONBLOCK == 0 {
		t.Error("the socket blocks")
	}
	if flags, err = unix.FcntlInt(uintptr(r.inherited["x"]), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("the socket leaks into children: %#x, %v", flags, err)
	}
}

func TestManagerThatDoesNotAnswer(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "nobody"))
	packet(t, newRegistry(t).Scope("c"), "udp", "127.0.0.1:0") // works all the same
}

func TestRetain(t *testing.T) {
	r := newRegistry(t)
	s, other := r.Scope("dns"), r.Scope("dns2")
	packet(t, s, "udp", "127.0.0.1:0")
	kept := packet(t, s, "udp", "127.0.0.2:0")
	packet(t, other, "udp", "127.0.0.1:0")
	s.Retain(func(network, address string) bool { return network == "udp" && address == "127.0.0.2:0" })
	want := []string{"dns-udp-127.0.0.2%3A0", "dns2-udp-127.0.0.1%3A0"}
	if got := r.Names(); !slices.Equal(got, want) {
		t.Errorf("sockets %v, want %v", got, want)
	}
	again := packet(t, s, "udp", "127.0.0.2:0")
	if got, want := again.LocalAddr().String(), kept.LocalAddr().String(); got != want {
		t.Errorf("the retained socket is %s now, and was %s", got, want)
	}
}
