package resolvers

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/network"
	"github.com/miekg/dns"

	"github.com/berthd/berth/agent/admin"
	"github.com/berthd/berth/test/dnsservers"
	"github.com/berthd/berth/test/engine/enginetest"
)

// limit bounds every wait. It is for a broken test, never a measure.
const limit = 2 * time.Minute

// The addresses of a world.
const (
	docker0     = "172.17.0.1"  // the gateway of the default bridge
	outside     = "192.0.2.53"  // the outside resolver, for containers
	outsideLoop = "127.0.0.2"   // the same, for the host
	hostIPv4    = "192.0.2.10"  // berth's host, as it is in records
	hostIPv6    = "2001:db8::a" // (RFC 3849)
)

// domain is that of berth's records.
const domain = "test.internal"

// longText is what text.outside.test has: more than fits in any answer over UDP
// (1,232 bytes).
var longText = strings.Repeat(strings.Repeat("0123456789", 25), 6)

// world is a host of its own: an engine in a network namespace where nobody else
// has port 53, and later berth and an outside resolver.
type world struct {
	*enginetest.PrivateEngine
	images map[*kind]string
}

// newWorld starts an engine, with further flags of dockerd, which knows the
// images of these kinds.
func newWorld(t *testing.T, kinds []*kind, flags ...string) *world {
	t.Helper()
	w := &world{PrivateEngine: enginetest.Private(t, flags...), images: make(map[*kind]string)}
	for _, k := range kinds {
		w.images[k] = k.load(t, w.Engine)
	}
	return w
}

// run runs a command in the namespaces and returns its output.
func (w *world) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := w.Command(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("run %s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// process is a server of a world.
type process struct {
	name   string
	cmd    *exec.Cmd
	exited chan struct{}
}

// start starts a server in the namespaces. Its log is shown if the test fails.
func (w *world) start(t *testing.T, name string, cmd *exec.Cmd) *process {
	t.Helper()
	log, err := os.Create(filepath.Join(w.Dir, name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C is for the test
	err = cmd.Start()
	log.Close() // the process has its own
	if err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	p := &process{name, cmd, make(chan struct{})}
	go func() {
		cmd.Wait() // how it ended is in its log
		close(p.exited)
	}()
	t.Cleanup(func() {
		p.stop(t)
		if t.Failed() {
			said, _ := os.ReadFile(log.Name())
			t.Logf("the last words of %s:\n%s", name, said[max(0, len(said)-4<<10):])
		}
	})
	return p
}

// running returns an error when the process has ended.
func (p *process) running() error {
	select {
	case <-p.exited:
		return fmt.Errorf("%s has ended", p.name)
	default:
		return nil
	}
}

func (p *process) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		t.Errorf("send %v to %s: %v", sig, p.name, err)
	}
}

// awaitStopped waits until SIGSTOP has stopped all threads.
func (p *process) awaitStopped(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !dnsservers.Stopped(p.cmd.Process.Pid); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s does not stop", p.name)
		}
	}
}

// stop ends the process, and does nothing when it has ended.
func (p *process) stop(t *testing.T) {
	t.Helper()
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(limit):
		p.cmd.Process.Kill()
		t.Errorf("end %s: still running after SIGTERM", p.name)
	}
}

// startBerth starts berth in the namespaces, with further settings (key=value),
// and waits until it is ready and answers on the default bridge.
func (w *world) startBerth(t *testing.T, set ...string) *process {
	t.Helper()
	dir, err := os.MkdirTemp(w.Dir, "berth")
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "berth.yaml")
	if err := os.WriteFile(config, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"run", "--config", config}
	for _, kv := range slices.Concat([]string{
		"state_dir=" + filepath.Join(dir, "state"),
		"admin.socket=" + filepath.Join(dir, "s"),
		"engine.host=" + w.Host,
		"node.id=here", "node.ec2=off", "node.ipv4=" + hostIPv4, "node.ipv6=" + hostIPv6,
		"discovery.domain=" + domain,
		"statsd.enabled=false",
	}, set) {
		args = append(args, "--set", kv)
	}
	p := w.start(t, filepath.Base(dir), w.Command(context.Background(), programs.berth, args...))
	cli := admin.NewClient(filepath.Join(dir, "s"))
	enginetest.Await(t, limit, "berth is ready", func(ctx context.Context) error {
		if err := p.running(); err != nil {
			return err
		}
		return cli.Get(ctx, "/readyz", nil, new(any))
	})
	w.awaitServer(t, docker0)
	return p
}

// awaitServer waits until berth answers on an address.
func (w *world) awaitServer(t *testing.T, addr string) {
	t.Helper()
	enginetest.Await(t, limit, "berth answers on "+addr, func(ctx context.Context) error {
		reply, err := w.exchange(ctx, addr, domain, dns.TypeSOA)
		if err == nil && (reply.Rcode != dns.RcodeSuccess || len(reply.Answer) != 1) {
			err = fmt.Errorf("got %v", reply)
		}
		return err
	})
}

// awaitCount waits until berth has this many records of a name and type.
func (w *world) awaitCount(t *testing.T, name string, qtype uint16, count int) {
	t.Helper()
	enginetest.Await(t, limit, "records of "+name, func(ctx context.Context) error {
		reply, err := w.exchange(ctx, docker0, name, qtype)
		if err == nil && len(reply.Answer) != count {
			err = fmt.Errorf("got %d, want %d", len(reply.Answer), count)
		}
		return err
	})
}

// exchange sends a question from within the namespace, over TCP, which has room
// for any answer.
func (w *world) exchange(ctx context.Context, server, name string, qtype uint16) (*dns.Msg, error) {
	conn, err := w.Dial(ctx, "tcp", netip.AddrPortFrom(netip.MustParseAddr(server), 53).String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	question := new(dns.Msg)
	question.SetQuestion(dns.Fqdn(name), qtype)
	cli := dns.Client{Net: "tcp", Timeout: 5 * time.Second}
	reply, _, err := cli.ExchangeWithConnContext(ctx, question, &dns.Conn{Conn: conn})
	return reply, err
}

// bindConfig is that of a BIND with a zone of its own.
const bindConfig = `
options {
	directory %q;
	pid-file none;
	session-keyfile none;
	listen-on { ` + outsideLoop + `; ` + outside + `; };
	listen-on-v6 { none; };
	recursion %s;
	max-cache-size 16M;
	allow-query { any; };
	dnssec-validation no;
	empty-zones-enable no;
};
controls { };
zone "outside.test" { type primary; file "outside.zone"; };
%s
`

// The further zones of a BIND. The first says of any other name that it does not
// exist, as a resolver does which can ask the root servers; without it, the name
// is refused. The second asks berth about berth's zone, and remembers.
const (
	rootZone  = `zone "." { type primary; file "root.zone"; };` + "\n"
	berthZone = `zone "` + domain + `" { type static-stub; server-addresses { ` + docker0 + `; }; };` + "\n"
)

// startBIND starts the outside resolver, which is a real one, with its own and
// these zones.
func (w *world) startBIND(t *testing.T, zones string) {
	t.Helper()
	recursion := "no"
	if zones != "" {
		recursion = "yes"
	}
	w.run(t, "ip", "address", "add", outsideLoop+"/8", "dev", "lo")
	w.run(t, "ip", "address", "add", outside+"/32", "dev", "lo")
	dir := filepath.Join(w.Dir, "bind")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	const head = "$TTL 900\n@ SOA ns hostmaster 1 900 900 86400 900\n@ NS ns\nns A " + outside + "\n"
	quoted := ""
	for chunk := range slices.Chunk([]byte(longText), 250) {
		quoted += fmt.Sprintf(" %q", chunk)
	}
	for name, content := range map[string]string{
		"named.conf":   fmt.Sprintf(bindConfig, dir, recursion, zones),
		"root.zone":    head,
		"outside.zone": head + "www A 192.0.2.80\nwww AAAA 2001:db8::80\ntext TXT" + quoted + "\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := w.Command(context.Background(), "env", "LD_LIBRARY_PATH="+programs.namedLibs,
		programs.named, "-g", "-n", "1", "-c", filepath.Join(dir, "named.conf"))
	p := w.start(t, "named", cmd)
	enginetest.Await(t, limit, "the outside resolver answers", func(ctx context.Context) error {
		if err := p.running(); err != nil {
			return err
		}
		reply, err := w.exchange(ctx, outside, "www.outside.test", dns.TypeA)
		if err == nil && len(reply.Answer) != 1 {
			err = fmt.Errorf("got %v", reply)
		}
		return err
	})
}

// createNetwork creates a user-defined bridge network with these subnets, whose
// gateways are the first addresses, and waits until berth answers on the first
// gateway. (One of IPv6 is not there before the network's first container.) The
// engine's end is the network's.
func (w *world) createNetwork(t *testing.T, name string, subnets ...string) (gateways []string) {
	t.Helper()
	opts := network.CreateOptions{Driver: "bridge", IPAM: new(network.IPAM)}
	for _, s := range subnets {
		prefix := netip.MustParsePrefix(s)
		gateway := prefix.Addr().Next().String()
		gateways = append(gateways, gateway)
		opts.IPAM.Config = append(opts.IPAM.Config, network.IPAMConfig{Subnet: s, Gateway: gateway})
		if prefix.Addr().Is6() {
			opts.EnableIPv6 = new(true)
		}
	}
	if _, err := w.Client.NetworkCreate(t.Context(), name, opts); err != nil {
		t.Fatalf("create network %s: %v", name, err)
	}
	w.awaitServer(t, gateways[0])
	return gateways
}

// useResolvConf has the namespace's /etc/resolv.conf say this.
func (w *world) useResolvConf(t *testing.T, content string) {
	t.Helper()
	file := filepath.Join(w.Dir, "resolv.conf")
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	w.run(t, "mount", "--bind", file, "/etc/resolv.conf")
}
