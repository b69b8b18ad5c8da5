// Package dnsservers runs real name servers for tests: BIND and Knot, as child
// processes on loopback addresses, each with its config and zone in a folder of
// the test. Make them with [BIND] and [Knot]:
//
//	s := dnsservers.BIND(t, "berth.example.")
//	… s.Addr(), s.Key("host1") …
//	s.Kill()  // as a power cut
//	s.Start() // the same zone, on the same address
//
// The zone's rules are those of packaging/examples/{bind,knot}-berth.conf, which
// are the configs in use, with other names and secrets: the keys of two [Hosts]
// may change what belongs to their hosts. [NewProxy] stands between a server and its
// clients and does to their connections what networks do. A program that is no
// test has [OpenBIND].
//
// The servers come with Debian's packages bind9 and knot; a test that needs one
// which is not there fails and says so.
package dnsservers

import (
	"bytes"
	"context"
	crand "crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// patience bounds each wait for a server: its start, its end, a transfer.
const patience = 2 * time.Minute

// Key is a TSIG key with the algorithm hmac-sha256.
type Key struct {
	Name   string // fully qualified, with the final dot
	Secret string // base64, 32 bytes
}

// NewKey returns a key with a random secret.
func NewKey(name string) Key {
	secret := make([]byte, 32)
	_, _ = crand.Read(secret) // never fails
	return Key{Name: name, Secret: base64.StdEncoding.EncodeToString(secret)}
}

// Hosts are those that have a key for each server's zone. One name begins with
// the other, for those who compare only beginnings.
func Hosts() []string { return []string{"host1", "host10"} }

// Server is one running name server. Its methods are for the goroutine of the
// test; a program uses only Addr, Key, Records and Close.
type Server struct {
	t     testing.TB // nil for a program
	kind  string
	addr  netip.AddrPort
	zone  string
	keys  map[string]Key // by host
	argv  []string
	log   string // path
	proc  *exec.Cmd
	ended chan struct{} // closed when proc has ended
}

// Addr returns where the server answers, over UDP and TCP; it stays when the
// server is stopped and started.
func (s *Server) Addr() netip.AddrPort { return s.addr }

// Key returns the key of one of the Hosts.
func (s *Server) Key(host string) Key { return s.keys[host] }

// Start starts the server and waits until it answers for its zone.
func (s *Server) Start() {
	s.t.Helper()
	must(s.t, s.start(s.t.Context()))
}

func (s *Server) start(ctx context.Context) error {
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	s.proc = exec.Command(s.argv[0], s.argv[1:]...)
	s.proc.Dir = filepath.Dir(s.log)
	s.proc.Stdout, s.proc.Stderr = log, log
	// Ctrl-C is for a program, which ends the server in its own time.
	s.proc.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := s.proc.Start(); err != nil {
		return fmt.Errorf("start %s: %w", s.kind, err)
	}
	ended := make(chan struct{})
	s.ended = ended
	go func(p *exec.Cmd) {
		_ = p.Wait() // however it ended: the log says why
		close(ended)
	}(s.proc)
	return s.awaitAnswer(ctx)
}

// awaitAnswer asks for the zone's SOA until there is one.
func (s *Server) awaitAnswer(ctx context.Context) error {
	question := new(dns.Msg).SetQuestion(s.zone, dns.TypeSOA)
	client := dns.Client{Net: "tcp", Timeout: time.Second}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); ; {
		answer, _, err := client.Exchange(question, s.addr.String())
		if err == nil && len(answer.Answer) == 1 {
			return nil
		}
		select {
		case <-s.ended:
			return fmt.Errorf("%s ended by itself:\n%s", s.kind, s.readLog())
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s does not answer on %s: %w\n%s", s.kind, s.addr, err, s.readLog())
		}
	}
}

func (s *Server) readLog() string {
	data, _ := os.ReadFile(s.log) // best effort: it is for a failure's message
	return string(data)
}

// Stop ends the server in order.
func (s *Server) Stop() {
	s.t.Helper()
	must(s.t, s.end(syscall.SIGTERM))
}

// Kill ends the server as a crash does.
func (s *Server) Kill() {
	s.t.Helper()
	must(s.t, s.end(syscall.SIGKILL))
}

// Pause makes the server hang, until Resume. It returns when all of the server's
// threads have stopped, which they do one by one, and late on a busy machine.
func (s *Server) Pause() {
	must(s.t, s.proc.Process.Signal(syscall.SIGSTOP))
	for end := time.Now().Add(patience); !Stopped(s.proc.Process.Pid); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			must(s.t, fmt.Errorf("%s does not stop", s.kind))
		}
	}
}

// Stopped reports whether all threads of a process are stopped by a signal: the
// state "T" behind the name, which is in parentheses, of proc_pid_stat(5).
func Stopped(pid int) bool {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil {
		return false
	}
	for _, file := range files {
		stat, err := os.ReadFile(file)
		if err != nil {
			return false
		}
		_, state, _ := strings.Cut(string(stat), ") ")
		if !strings.HasPrefix(state, "T") {
			return false
		}
	}
	return len(files) > 0
}

// Resume ends a Pause.
func (s *Server) Resume() { must(s.t, s.proc.Process.Signal(syscall.SIGCONT)) }

func (s *Server) end(sig syscall.Signal) error {
	if err := s.proc.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end %s: %w", s.kind, err)
	}
	select {
	case <-s.ended:
		return nil
	case <-time.After(patience):
		_ = s.proc.Process.Kill()
		return fmt.Errorf("%s does not end:\n%s", s.kind, s.readLog())
	}
}

// Records returns all records of the zone but the server's own (those of the zone
// itself and of its name server), by a whole transfer.
func (s *Server) Records(ctx context.Context) ([]dns.RR, error) {
	question := new(dns.Msg).SetAxfr(s.zone)
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.addr.String())
	if err != nil {
		return nil, fmt.Errorf("transfer %s: %w", s.zone, err)
	}
	defer conn.Close()
	envelopes, err := (&dns.Transfer{Conn: &dns.Conn{Conn: conn}, ReadTimeout: patience}).In(question, s.addr.String())
	if err != nil {
		return nil, fmt.Errorf("transfer %s: %w", s.zone, err)
	}
	var all []dns.RR
	for e := range envelopes {
		if e.Error != nil {
			err = e.Error // the rest is read all the same, so that its goroutine ends
			continue
		}
		for _, rr := range e.RR {
			if name := rr.Header().Name; name != s.zone && name != "ns."+s.zone {
				all = append(all, rr)
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("transfer %s: %w", s.zone, err)
	}
	return all, nil
}

// Serial returns the zone's serial number, which grows with each change.
func (s *Server) Serial() uint32 {
	s.t.Helper()
	client := dns.Client{Net: "tcp", Timeout: patience}
	answer, _, err := client.Exchange(new(dns.Msg).SetQuestion(s.zone, dns.TypeSOA), s.addr.String())
	must(s.t, err)
	for _, rr := range answer.Answer {
		if soa, ok := rr.(*dns.SOA); ok {
			return soa.Serial
		}
	}
	s.t.Fatalf("no SOA of %s in %v", s.zone, answer)
	return 0
}

// newServer fills a server's folder with its zone, and chooses its address. It
// also returns the path of the server's binary.
func newServer(dir, kind, binary, zone string) (s *Server, path string, err error) {
	if path, err = find(kind, binary); err != nil {
		return nil, "", err
	}
	s = &Server{kind: kind, zone: zone, keys: make(map[string]Key), log: filepath.Join(dir, "log")}
	if s.addr, err = freeAddr(); err != nil {
		return nil, "", err
	}
	for _, host := range Hosts() {
		s.keys[host] = NewKey(host + "." + zone)
	}
	text, err := example("bind-berth.zone")
	if err != nil {
		return nil, "", err
	}
	text = strings.ReplaceAll(text, "berth.example.", zone)
	return s, path, os.WriteFile(filepath.Join(dir, "zone"), []byte(text), 0o600)
}

// find returns the path of a server's binary: Debian's users do not have sbin
// where they look.
func find(kind, binary string) (string, error) {
	for dir := range strings.SplitSeq(os.Getenv("PATH")+":/usr/sbin:/usr/local/sbin", ":") {
		path := filepath.Join(dir, binary)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed (%s): run make setup", kind, binary)
}

// freeAddr returns 127.0.0.1 (BIND listens on no loopback address that no
// interface has) with a port that is free for UDP and TCP, and that the kernel
// does not hand out by itself.
func freeAddr() (netip.AddrPort, error) {
	var err error
	for range 100 {
		addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(10_000+rand.IntN(20_000)))
		var tcp *net.TCPListener
		var udp *net.UDPConn
		if tcp, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr)); err != nil {
			continue
		}
		udp, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
		tcp.Close()
		if err != nil {
			continue
		}
		udp.Close()
		return addr, nil
	}
	return netip.AddrPort{}, fmt.Errorf("find a free port: %w", err)
}

// example returns a file of packaging/examples.
func example(name string) (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir != "/" {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		dir = filepath.Dir(dir)
	}
	text, err := os.ReadFile(filepath.Join(dir, "packaging", "examples", name))
	return string(text), err
}

// fill returns an example config with the server's zone, keys and zone file.
func (s *Server) fill(name, file string) (string, error) {
	text, err := example(name)
	replace := func(old, new string) {
		if err == nil && !strings.Contains(text, old) {
			err = fmt.Errorf("%s has no %q", name, old)
		}
		text = strings.ReplaceAll(text, old, new)
	}
	replace(file, filepath.Join(filepath.Dir(s.log), "zone"))
	replace("berth.example", strings.TrimSuffix(s.zone, "."))
	for _, host := range slices.Backward(Hosts()) { // the longer name first
		replace("REPLACE-"+host, s.keys[host].Secret)
	}
	return text, err
}

// serve starts the server and ends it with the test.
func (s *Server) serve(t testing.TB) *Server {
	t.Helper()
	s.t = t
	s.Start()
	s.t.Cleanup(func() {
		s.Kill()
		if s.t.Failed() {
			s.t.Logf("log of %s:\n%s", s.kind, tail(s.readLog(), 30))
		}
	})
	return s
}

// tail returns the last n lines.
func tail(text string, n int) string {
	lines := bytes.Split([]byte(strings.TrimSpace(text)), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-n):], []byte("\n")))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
