// Package loop tests berth against real Docker engines: most of it as the
// program that people run, with its admin socket and its DNS server, and where
// the process would add nothing (a reader that blocks, another engine at the
// same address) the agent alone.
//
// Every test asks the engine and berth until they agree; none decides by time.
// What must not happen is shown by a marker: something that happens after it on
// the same stream, and is awaited.
package loop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/admin"
	"github.com/berthd/berth/agent/docker"
	"github.com/berthd/berth/test/engine/enginetest"
)

// limit bounds every wait. It is for a broken test, never a measure.
const limit = 2 * time.Minute

// program is the berth under test, built once.
var program string

func TestMain(m *testing.M) {
	code, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "berth-loop-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "berth")
	build := exec.Command("go", "build", "-o", program, "github.com/berthd/berth/cmd/berth")
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build berth: %w\n%s", err, out)
	}
	return m.Run(), nil
}

// berth is a berth of one test: a state folder, sockets, and the process, which
// may be ended and started again.
type berth struct {
	*admin.Client
	domain string         // of its records, without the final dot
	dns    netip.AddrPort // where it answers
	dir    string
	within []string // a command that runs its arguments elsewhere; by default none
	args   []string
	cmd    *exec.Cmd
	exited chan struct{}
}

// startBerth starts a berth that follows an engine, with further settings
// (key=value), and waits until it is ready.
func startBerth(t *testing.T, host string, set ...string) *berth {
	t.Helper()
	b := newBerth(t, host, set...)
	b.start(t)
	b.awaitReady(t)
	return b
}

// berths numbers what must have a name of its own in this process.
var berths atomic.Uint32

// newBerth prepares a berth and does not start it.
func newBerth(t *testing.T, host string, set ...string) *berth {
	t.Helper()
	dir, err := os.MkdirTemp("", "berth-loop-") // short, for the socket's sake
	if err != nil {
		t.Fatal(err)
	}
	b := &berth{domain: "test.internal", dir: dir}
	socket := filepath.Join(dir, "s")
	b.Client = admin.NewClient(socket)
	// An address for each process and each berth of it: whoever else runs tests
	// on this machine has another one.
	b.dns = freePort(t, netip.AddrFrom4([4]byte{127, byte(64 + os.Getpid()>>8&63), byte(os.Getpid()), byte(berths.Add(1))}))
	b.args = []string{"run", "--config", filepath.Join(dir, "berth.yaml")}
	for _, kv := range slices.Concat([]string{
		"state_dir=" + filepath.Join(dir, "state"),
		"admin.socket=" + socket,
		"engine.host=" + host,
		"log.level=debug",
		"node.id=here", "node.ec2=off", "node.ipv4=192.0.2.1", "node.ipv6=2001:db8::1",
		"discovery.domain=" + b.domain,
		"dns.listen=[" + b.dns.Addr().String() + "]",
		"dns.port=" + strconv.Itoa(int(b.dns.Port())),
		"statsd.port=0", "statsd.socket=",
	}, set) {
		b.args = append(b.args, "--set", kv)
	}
	if err := os.WriteFile(filepath.Join(dir, "berth.yaml"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if b.running() {
			b.kill9(t)
		}
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Logf("berth's last words:\n%s", log[max(0, len(log)-8<<10):])
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove berth's folder: %v", err)
		}
	})
	return b
}

// freePort returns a port of addr which nobody has, over UDP and TCP.
func freePort(t *testing.T, addr netip.Addr) netip.AddrPort {
	t.Helper()
	for range 20 {
		udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
		if err != nil {
			t.Fatalf("find a free port: %v", err)
		}
		at := udp.LocalAddr().(*net.UDPAddr).AddrPort()
		tcp, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
		udp.Close()
		if err == nil {
			tcp.Close()
			return at
		}
	}
	t.Fatalf("find a free port of %s: there is none", addr)
	return netip.AddrPort{}
}

func (b *berth) start(t *testing.T, args ...string) {
	t.Helper()
	line := slices.Concat(b.within, []string{program}, b.args, args)
	b.cmd = exec.Command(line[0], line[1:]...)
	// The kernel ends it with the test, even when the test is killed.
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	for _, out := range []struct {
		name string
		set  func(*os.File)
	}{
		{"log", func(f *os.File) { b.cmd.Stderr = f }},
		{"out", func(f *os.File) { b.cmd.Stdout = f }},
	} {
		f, err := os.OpenFile(filepath.Join(b.dir, out.name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close() // the process has its own
		out.set(f)
	}
	if err := b.cmd.Start(); err != nil {
		t.Fatalf("start berth: %v", err)
	}
	b.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		cmd.Wait() // how it ended is in its log
		close(exited)
	}(b.cmd, b.exited)
}

func (b *berth) running() bool {
	if b.cmd == nil {
		return false
	}
	select {
	case <-b.exited:
		return false
	default:
		return true
	}
}

// kill9 ends berth as a crash would.
func (b *berth) kill9(t *testing.T) { t.Helper(); b.end(t, syscall.SIGKILL) }

// stop ends berth as systemd would.
func (b *berth) stop(t *testing.T) { t.Helper(); b.end(t, syscall.SIGTERM) }

func (b *berth) end(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := b.cmd.Process.Signal(sig); err != nil {
		t.Fatalf("end berth: %v", err)
	}
	select {
	case <-b.exited:
	case <-time.After(limit):
		t.Fatalf("end berth: still running after %v", sig)
	}
}

// awaitReady waits until berth knows all of the engine's containers.
func (b *berth) awaitReady(t *testing.T) {
	t.Helper()
	enginetest.Await(t, limit, "berth is ready", func(ctx context.Context) error {
		if !b.running() {
			return errors.New("it has ended")
		}
		return b.Get(ctx, "/readyz", nil, new(any))
	})
}

// status returns what berth says of itself.
func (b *berth) status(t *testing.T) admin.Status {
	t.Helper()
	var st admin.Status
	if err := b.Get(t.Context(), "/v1/status", nil, &st); err != nil {
		t.Fatalf("ask for berth's status: %v", err)
	}
	return st
}

// awaitStatus waits until ok says nil of berth's status.
func (b *berth) awaitStatus(t *testing.T, what string, ok func(admin.Status) error) admin.Status {
	t.Helper()
	var st admin.Status
	enginetest.Await(t, limit, what, func(ctx context.Context) error {
		st = admin.Status{}
		if err := b.Get(ctx, "/v1/status", nil, &st); err != nil {
			return err
		}
		return ok(st)
	})
	return st
}

// containers returns the containers that berth knows, by ID.
func (b *berth) containers(ctx context.Context) (map[string]admin.ContainerInfo, error) {
	var list []admin.ContainerInfo
	if err := b.Get(ctx, "/v1/containers", nil, &list); err != nil {
		return nil, err
	}
	known := make(map[string]admin.ContainerInfo, len(list))
	for _, c := range list {
		known[c.ID] = c
	}
	return known, nil
}

// ask sends one question about a name (without the domain) over UDP, and over TCP
// where the answer has no room there.
func (b *berth) ask(ctx context.Context, name string, qtype uint16) (*dns.Msg, error) {
	q := new(dns.Msg)
	q.SetQuestion(strings.TrimPrefix(name+"."+b.domain+".", "."), qtype)
	client := dns.Client{Timeout: time.Second}
	answer, _, err := client.ExchangeContext(ctx, q, b.dns.String())
	if err == nil && answer.Truncated {
		client.Net = "tcp"
		answer, _, err = client.ExchangeContext(ctx, q, b.dns.String())
	}
	return answer, err
}

// srv returns the ports in the answer about a service, such as "_web._tcp",
// sorted; nothing for a name that does not exist. Any other answer than that or a
// success is an error.
func (b *berth) srv(ctx context.Context, service string) ([]uint16, error) {
	answer, err := b.ask(ctx, service, dns.TypeSRV)
	if err != nil {
		return nil, err
	}
	if answer.Rcode != dns.RcodeSuccess && answer.Rcode != dns.RcodeNameError {
		return nil, fmt.Errorf("the answer is %s", dns.RcodeToString[answer.Rcode])
	}
	var got []uint16
	for _, rr := range answer.Answer {
		if srv, ok := rr.(*dns.SRV); ok {
			got = append(got, srv.Port)
		}
	}
	slices.Sort(got)
	return got, nil
}

// awaitSRV waits until the answer about a service is exactly this.
func (b *berth) awaitSRV(t *testing.T, service string, want ...uint16) {
	t.Helper()
	slices.Sort(want)
	enginetest.Await(t, limit, "the answer about "+service, func(ctx context.Context) error {
		got, err := b.srv(ctx, service)
		if err == nil && !slices.Equal(got, want) {
			err = fmt.Errorf("got %d, want %d", got, want)
		}
		return err
	})
}

// wantSRV asserts what is answered about a service now.
func (b *berth) wantSRV(t *testing.T, when, service string, want ...uint16) {
	t.Helper()
	slices.Sort(want)
	if got, err := b.srv(t.Context(), service); err != nil || !slices.Equal(got, want) {
		t.Errorf("%s, the answer about %s: got %d, %v, want %d", when, service, got, err, want)
	}
}

// settle waits until berth has handled all that the engine has said so far: a
// container that is created now is the marker.
func (b *berth) settle(t *testing.T, e *enginetest.Engine) {
	t.Helper()
	marker := e.CreateContainer(t, enginetest.Spec{Name: "marker"})
	enginetest.Await(t, limit, "the marker", func(ctx context.Context) error {
		known, err := b.containers(ctx)
		if err == nil && known[marker.ID].ID == "" {
			err = errors.New("it is not known")
		}
		return err
	})
}

// wantNone asserts that a service has no name, after all that has happened so
// far: another one, which gets a name now, is the marker.
func (b *berth) wantNone(t *testing.T, e *enginetest.Engine, name string) {
	t.Helper()
	marker, labels := service(e, fmt.Sprintf("marker%d", berths.Add(1)))
	c := e.StartContainer(t, web(labels))
	b.awaitSRV(t, marker, at(t, c))
	b.wantSRV(t, "after the marker", name)
	c.Remove(t)
}

// watch asks about a service without a pause until the returned function is
// called, which says how many answers there were and in how many the name was
// missing.
func (b *berth) watch(t *testing.T, service string) (stop func() (asked, missing int)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	asked, missing := 0, 0
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if got, err := b.srv(ctx, service); err == nil {
				asked++
				if len(got) == 0 {
					missing++
				}
			}
			select { // the other core has work to do
			case <-ctx.Done():
			case <-time.After(2 * time.Millisecond):
			}
		}
	}()
	stop = func() (int, int) {
		cancel()
		<-done
		return asked, missing
	}
	t.Cleanup(func() { stop() })
	return stop
}

// wantAlwaysThere ends a watch, and asserts that the name was never missing.
func wantAlwaysThere(t *testing.T, service string, stop func() (asked, missing int)) {
	t.Helper()
	if asked, missing := stop(); asked == 0 || missing > 0 {
		t.Errorf("%s was missing in %d of %d answers", service, missing, asked)
	}
}

// service makes a name which only this engine's test has, and the labels that
// claim it for port 8080.
func service(e *enginetest.Engine, name string) (srv string, labels map[string]string) {
	full := e.Run + "-" + name
	return "_" + full + "._tcp", map[string]string{"SERVICE_8080_NAME": full}
}

// web is a container with a published port that claims a name.
func web(labels map[string]string, flags ...string) enginetest.Spec {
	return enginetest.Spec{
		Name: "web", Labels: labels, Ports: []string{"0.0.0.0::8080"},
		Args: append([]string{"sleeper"}, flags...),
	}
}

// at is the port of this host at which a container of web is found.
func at(t *testing.T, c *enginetest.Container) uint16 {
	t.Helper()
	return c.HostPort(t, "8080/tcp")
}

// startAgent runs the agent alone on an engine, for as long as the test lasts.
func startAgent(t *testing.T, engine agent.Engine, cfg agent.LoopConfig) *agent.Agent {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	a := agent.New(engine, nil, cfg, agent.Env{Log: log, Health: agent.NewHealth(log)})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("end the agent: %v", err)
		}
	})
	return a
}

// newEngine is the engine as the agent sees it.
func newEngine(t *testing.T, host string) *docker.Engine {
	t.Helper()
	cfg := docker.DefaultConfig()
	cfg.Host = host
	e, err := docker.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

// awaitSnapshot waits until ok says nil of the newest snapshot.
func awaitSnapshot(t *testing.T, a *agent.Agent, what string, ok func(*agent.Snapshot) error) *agent.Snapshot {
	t.Helper()
	var snap *agent.Snapshot
	enginetest.Await(t, limit, what, func(context.Context) error {
		snap = a.Store().Snapshot()
		return ok(snap)
	})
	return snap
}

func complete(s *agent.Snapshot) error {
	if !s.Complete {
		return errors.New("the snapshot is incomplete")
	}
	return nil
}
