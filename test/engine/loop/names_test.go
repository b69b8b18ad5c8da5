package loop

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/network"
	"github.com/miekg/dns"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/admin"
	"github.com/berthd/berth/test/engine/enginetest"
)

// checkInterval is the interval of health checks.
const checkInterval = 100 * time.Millisecond

// A restart gives an ephemeral port a new number under the same container ID:
// the old one is not answered beside it.
func TestPitfall_discovery09_EphemeralPortIsReplaced(t *testing.T) {
	e := enginetest.Outer(t)
	b := startBerth(t, e.Host)
	name, labels := service(e, "moves")
	c := e.StartContainer(t, web(labels))
	old := at(t, c)
	b.awaitSRV(t, name, old)
	c.Restart(t)
	if at(t, c) == old {
		t.Fatalf("the port is still %d, so this test shows nothing", old)
	}
	b.awaitSRV(t, name, at(t, c))
}

// A container with a health check has a name while it is healthy: not before
// the first check, and not after one that failed.
func TestPitfall_discovery10_OnlyWhileHealthy(t *testing.T) {
	e := enginetest.Outer(t)
	b := startBerth(t, e.Host)
	name, labels := service(e, "checked")
	spec := web(labels)
	spec.Health = enginetest.HealthFile(checkInterval)
	c := e.StartContainer(t, spec)
	b.awaitHealth(t, c.ID, agent.HealthUnhealthy)
	b.wantNone(t, e, name)
	c.SetHealthy(t, true)
	b.awaitSRV(t, name, at(t, c))
	c.SetHealthy(t, false)
	b.awaitSRV(t, name)

	starting, labels := service(e, "starting")
	spec = web(labels)
	spec.Health = enginetest.HealthFile(time.Hour)
	c = e.StartContainer(t, spec)
	b.awaitHealth(t, c.ID, agent.HealthStarting)
	b.wantNone(t, e, starting)

	without, labels := service(e, "without")
	c = e.StartContainer(t, web(labels))
	b.awaitSRV(t, without, at(t, c))
}

func (b *berth) awaitHealth(t *testing.T, id string, want agent.HealthStatus) {
	t.Helper()
	enginetest.Await(t, limit, "the container is "+string(want), func(ctx context.Context) error {
		known, err := b.containers(ctx)
		if err == nil && known[id].Health != want {
			err = fmt.Errorf("it is %q", known[id].Health)
		}
		return err
	})
}

func TestPitfall_discovery11_PauseTakesOutUnpauseRestores(t *testing.T) {
	e := enginetest.Outer(t)
	b := startBerth(t, e.Host)
	name, labels := service(e, "paused")
	c := e.StartContainer(t, web(labels))
	b.awaitSRV(t, name, at(t, c))
	c.Pause(t)
	b.awaitSRV(t, name)
	c.Unpause(t)
	b.awaitSRV(t, name, at(t, c))
}

// Which port of which address a name leads to, in every kind of network.
func TestPitfall_discovery12_PortsAndNetworks(t *testing.T) {
	e := enginetest.Outer(t)
	b := startBerth(t, e.Host)

	t.Run("published on loopback only", func(t *testing.T) {
		name, labels := service(e, "loopback")
		spec := web(labels)
		spec.Ports = []string{"127.0.0.1::8080"}
		e.StartContainer(t, spec)
		b.wantNone(t, e, name)
	})
	t.Run("not published", func(t *testing.T) {
		name, labels := service(e, "unpublished")
		spec := web(labels)
		spec.Ports = nil
		e.StartContainer(t, spec)
		b.wantNone(t, e, name)
	})
	t.Run("both families are one service", func(t *testing.T) {
		name, labels := service(e, "dual")
		spec := web(labels)
		port := unusedPort(t)
		spec.Ports = []string{fmt.Sprintf("%d:8080", port)}
		c := e.StartContainer(t, spec)
		if n := len(c.Inspect(t).NetworkSettings.Ports["8080/tcp"]); n != 2 {
			t.Fatalf("bindings: got %d, want one for each family", n)
		}
		b.awaitSRV(t, name, port)
		if got, want := b.addresses(t, name), []string{"192.0.2.1", "2001:db8::1"}; !slices.Equal(got, want) {
			t.Errorf("addresses: got %q, want %q", got, want)
		}
	})
	t.Run("tcp and udp on one port", func(t *testing.T) {
		name, labels := service(e, "both")
		spec := web(labels)
		port := unusedPort(t)
		spec.Ports = []string{fmt.Sprintf("0.0.0.0:%d:8080/tcp", port), fmt.Sprintf("0.0.0.0:%d:8080/udp", port)}
		e.StartContainer(t, spec)
		b.awaitSRV(t, name, port)
		b.awaitSRV(t, strings.TrimSuffix(name, "tcp")+"udp", port)
	})
	t.Run("the host's network", func(t *testing.T) {
		name, labels := service(e, "host")
		spec := web(labels)
		spec.Ports, spec.Network = nil, "host"
		e.StartContainer(t, spec)
		b.awaitSRV(t, name, 8080)
	})
	t.Run("another container's network", func(t *testing.T) {
		owner := e.StartContainer(t, web(nil))
		name, labels := service(e, "guest")
		spec := web(labels)
		spec.Ports, spec.Network = nil, "container:"+owner.ID
		guest := e.StartContainer(t, spec)
		b.awaitSRV(t, name, at(t, owner))
		owner.Stop(t)
		b.awaitSRV(t, name)
		owner.Start(t)
		guest.Restart(t) // into the new network
		b.awaitSRV(t, name, at(t, owner))
	})
	t.Run("a network of the user's", func(t *testing.T) {
		name, labels := service(e, "user")
		spec := web(labels)
		spec.Network = e.CreateNetwork(t, "user", "")
		c := e.StartContainer(t, spec)
		b.awaitSRV(t, name, at(t, c))
	})
	t.Run("an internal network", func(t *testing.T) {
		internal := "berth-test-" + e.Run + "-internal"
		// The label has it removed with the rest.
		if _, err := e.Client.NetworkCreate(t.Context(), internal, network.CreateOptions{
			Driver: "bridge", Internal: true, Labels: map[string]string{enginetest.LabelRun: e.Run},
		}); err != nil {
			t.Fatal(err)
		}
		name, labels := service(e, "internal")
		spec := web(labels)
		spec.Network = internal
		c := e.StartContainer(t, spec)
		b.awaitSRV(t, name, 8080)
		if got, want := b.addresses(t, name), []string{c.IP(t, internal)}; !slices.Equal(got, want) {
			t.Errorf("addresses: got %q, want the container's own %q", got, want)
		}
	})
}

// unusedPort returns a TCP port that nobody has on any address of this host.
func unusedPort(t *testing.T) uint16 {
	t.Helper()
	ln, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).AddrPort().Port()
}

// addresses returns where the targets of a service are, sorted, as questions
// about them are answered.
func (b *berth) addresses(t *testing.T, service string) []string {
	t.Helper()
	answer, err := b.ask(t.Context(), service, dns.TypeSRV)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, rr := range answer.Answer {
		target := strings.TrimSuffix(rr.(*dns.SRV).Target, "."+b.domain+".")
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
			answer, err := b.ask(t.Context(), target, qtype)
			if err != nil {
				t.Fatal(err)
			}
			for _, rr := range answer.Answer {
				switch rr := rr.(type) {
				case *dns.A:
					got = append(got, rr.A.String())
				case *dns.AAAA:
					got = append(got, rr.AAAA.String())
				}
			}
		}
	}
	slices.Sort(got)
	return slices.Compact(got)
}

// A name that is none is refused by itself, and says so; a label beats a
// variable of the same key.
func TestPitfall_discovery13_BadNamesAlone(t *testing.T) {
	e := enginetest.Outer(t)
	b := startBerth(t, e.Host)
	good := e.Run + "-good"
	for _, bad := range []string{"a..b", "*", strings.Repeat("x", 64), "under_score", "-dash"} {
		c := e.StartContainer(t, web(map[string]string{"SERVICE_8080_NAME": bad + "," + good}))
		b.awaitSRV(t, "_"+good+"._tcp", at(t, c))
		b.awaitStatus(t, "the condition about "+bad, func(st admin.Status) error {
			if !slices.ContainsFunc(st.Conditions, func(cond agent.Condition) bool {
				return cond.Component == "discovery" && strings.Contains(cond.Why, c.Name)
			}) {
				return fmt.Errorf("conditions are %+v", st.Conditions)
			}
			return nil
		})
		if got, err := b.srv(t.Context(), "_"+strings.ReplaceAll(bad, "..", `\..`)+"._tcp"); err == nil && len(got) > 0 {
			t.Errorf("%s: got %d, want no answer", bad, got)
		}
		c.Remove(t)
		b.awaitSRV(t, "_"+good+"._tcp")
	}

	byLabel, labels := service(e, "label")
	byEnv, _ := service(e, "env")
	spec := web(labels)
	spec.Env = []string{"SERVICE_8080_NAME=" + e.Run + "-env", "SECRET=not for berth"}
	c := e.StartContainer(t, spec)
	b.awaitSRV(t, byLabel, at(t, c))
	b.wantSRV(t, "beside the label's", byEnv)
}

// A network that is made while berth runs is served at its gateway, to those
// who are on it: the container's own question is the proof.
func TestContainersAskTheirGateway(t *testing.T) {
	e := enginetest.Private(t)
	b := newBerth(t, e.Host, "dns.port=53", "dns.listen=[127.0.0.1]")
	enter := e.Command(t.Context(), program).Args
	b.within = enter[:len(enter)-1]
	b.start(t)
	b.awaitReady(t)
	_, labels := service(e.Engine, "calc")
	calc := web(labels)
	calc.Args = []string{"calc"}
	c := e.StartContainer(t, calc)
	for _, subnet := range []string{"", "10.211.0.0/24"} {
		name, gateway := "bridge", "172.17.0.1"
		if subnet != "" {
			name, gateway = e.CreateNetwork(t, "late", subnet), "10.211.0.1"
		}
		enginetest.Await(t, limit, "an answer at "+gateway+" of "+name, func(ctx context.Context) error {
			conn, err := e.Dial(ctx, "tcp", netip.AddrPortFrom(netip.MustParseAddr(gateway), 53).String())
			if err != nil {
				return err
			}
			defer conn.Close()
			q := new(dns.Msg)
			q.SetQuestion("_"+e.Run+"-calc._tcp."+b.domain+".", dns.TypeSRV)
			client := dns.Client{Net: "tcp", Timeout: 5 * time.Second}
			answer, _, err := client.ExchangeWithConnContext(ctx, q, &dns.Conn{Conn: conn})
			if err != nil {
				return err
			}
			if len(answer.Answer) != 1 {
				return fmt.Errorf("got %v", answer)
			}
			if got := answer.Answer[0].(*dns.SRV).Port; got != at(t, c) {
				return fmt.Errorf("got port %d, want %d", got, at(t, c))
			}
			return nil
		})
	}
}
