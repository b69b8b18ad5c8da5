// Package resolvers tests that the resolvers which containers have understand
// berth's answers: Go's, that of glibc (in a container with Debian's files), that
// of musl, and the engine's own on 127.0.0.11, which stands before any of them
// on user-defined networks; with and without forwarding to an outside resolver,
// which is a real BIND. And dig sees what the tests say.
//
// Each test has a host of its own: an engine in a network namespace, where berth
// has port 53 of the bridges.
//
// # What resolvers do
//
// With berth as the only server and forwarding on, all of them find everything.
// With forwarding off and another server after berth, all go on to that one when
// berth refuses a name of another zone: REFUSED is no final answer for any of
// them. (Where there is no other server, Go and glibc fail at once and musl after
// five seconds, as it passes over a refusal and waits.) But they are asked differently: glibc, Go and the engine ask the second
// server when the first one fails, musl asks all at once and takes the first
// answer that says whether the name exists. A second server that denies names of
// berth's zone (and does not refuse them) makes them come and go for musl, so
// that forwarding is the way for containers of Alpine. Besides, musl before
// 1.2.4 has no TCP: of an answer that does not fit it takes what is there.
package resolvers

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/berthd/berth/test/engine/enginetest"
)

func TestMain(m *testing.M) {
	code, err := buildAndRun(m)
	if err == nil && code == 0 {
		err = goleak.Find()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "berth-resolvers-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if err := build(dir); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// web is a container whose published port has the name web, so that web has
// the addresses of the host.
func (w *world) startWeb(t *testing.T) (srv string) {
	t.Helper()
	c := w.StartContainer(t, enginetest.Spec{
		Name: "web", Ports: []string{"8080"},
		Labels: map[string]string{"SERVICE_8080_NAME": "web"},
	})
	w.awaitCount(t, "_web._tcp."+domain, dns.TypeSRV, 1)
	return fmt.Sprintf("here.%s:%d", domain, c.HostPort(t, "8080/tcp"))
}

// inZone is what there is to be asked about web, which is at srv.
func inZone(srv string) map[string]string {
	return map[string]string{
		"a/web." + domain:             hostIPv4,
		"aaaa/web." + domain:          hostIPv6,
		"addr/web." + domain:          hostIPv4 + " " + hostIPv6,
		"srv/_web._tcp." + domain:     srv,
		"srv/web." + domain:           srv,
		"addr/WEB.Test.Internal":      hostIPv4 + " " + hostIPv6,
		"addr/here." + domain:         hostIPv4 + " " + hostIPv6,
		"addr/missing." + domain:      "!nxdomain",
		"srv/_missing._tcp." + domain: "!nxdomain",
		"srv/here." + domain:          "!nodata",
		"txt/web." + domain:           "!nodata",
		"addr/_web._tcp." + domain:    "!nodata",
	}
}

// elsewhere is what the outside resolver says.
func elsewhere(k *kind) map[string]string {
	want := map[string]string{
		"a/www.outside.test":        "192.0.2.80",
		"addr/www.outside.test":     "192.0.2.80 2001:db8::80",
		"srv/www.outside.test":      "!nodata",
		"addr/missing.outside.test": "!nxdomain",
		"txt/text.outside.test":     longText,
	}
	if k.udpOnly {
		want["txt/text.outside.test"] = "!nodata" // cut short to nothing
	}
	return want
}

func TestOnlyServer(t *testing.T) {
	// What the README says of daemon.json, here as a flag.
	w := newWorld(t, kinds, "--dns="+docker0)
	w.startBIND(t, rootZone)
	berth := w.startBerth(t, "dns.forward=true", "dns.upstreams=["+outsideLoop+":53]")
	gateway := w.createNetwork(t, "own", "10.77.0.0/24")[0]
	srv := w.startWeb(t)

	specs := map[string]enginetest.Spec{
		"on the default bridge":                    {DNS: []string{docker0}},
		"on a user-defined network":                {Network: "own", DNS: []string{gateway}},
		"on a user-defined network by daemon.json": {Network: "own"},
	}
	var debian client
	for where, spec := range specs {
		for _, k := range kinds {
			t.Run(k.name+" "+where, func(t *testing.T) {
				c := w.startClient(t, k, spec)
				c.check(t, inZone(srv))
				c.check(t, elsewhere(k))
				if spec.Network != "" {
					// The engine's own names go on working.
					c.check(t, map[string]string{"a/" + c.Name: c.IP(t, spec.Network)})
				}
				if k == glibc {
					debian = c
				}
			})
		}
	}
	t.Run("getent", func(t *testing.T) {
		// It leaves IPv6 out where the container has none (AI_ADDRCONFIG).
		for name, want := range map[string]string{"web." + domain: hostIPv4, "www.outside.test": "192.0.2.80"} {
			for line := range strings.Lines(debian.Exec(t, "getent", "ahosts", name)) {
				if got := strings.Fields(line)[0]; got != want {
					t.Errorf("getent ahosts %s: got %q, want %q", name, got, want)
				}
			}
		}
	})
	t.Run("musl believes who answers first", func(t *testing.T) {
		// Any other server than berth denies its names: here it has won the race.
		c := w.startClient(t, musl, enginetest.Spec{DNS: []string{docker0, outside}})
		berth.signal(t, syscall.SIGSTOP)
		berth.awaitStopped(t)
		defer berth.signal(t, syscall.SIGCONT)
		c.check(t, map[string]string{"addr/web." + domain: "!nxdomain"})
	})
	t.Run("upstream of resolv.conf", func(t *testing.T) {
		berth.stop(t)
		w.useResolvConf(t, "nameserver "+outsideLoop+"\n")
		w.startBerth(t, "dns.forward=true")
		debian.check(t, inZone(srv))
		debian.check(t, elsewhere(glibc))
	})
}

// TestSecondServer has forwarding off: names of other zones are refused, and
// each resolver goes on to the next server.
func TestSecondServer(t *testing.T) {
	w := newWorld(t, kinds)
	w.startBIND(t, "") // refuses what it does not know
	w.startBerth(t)
	gateway := w.createNetwork(t, "own", "10.77.0.0/24")[0]
	srv := w.startWeb(t)
	refused, err := w.exchange(t.Context(), docker0, "www.outside.test", dns.TypeA)
	if err != nil || refused.Rcode != dns.RcodeRefused {
		t.Fatalf("a name of another zone: got %v, %v, want REFUSED", refused, err)
	}
	for where, spec := range map[string]enginetest.Spec{
		"on the default bridge":     {DNS: []string{docker0, outside}},
		"on a user-defined network": {Network: "own", DNS: []string{gateway, outside}},
	} {
		for _, k := range kinds {
			t.Run(k.name+" "+where, func(t *testing.T) {
				c := w.startClient(t, k, spec)
				c.check(t, inZone(srv))
				c.check(t, elsewhere(k))
			})
		}
	}
	t.Run("no second server", func(t *testing.T) {
		for _, k := range kinds {
			c := w.startClient(t, k, enginetest.Spec{DNS: []string{docker0}})
			c.check(t, map[string]string{"srv/_web._tcp." + domain: srv})
			if got := c.ask(t, "a/www.outside.test")["a/www.outside.test"]; got != "!failure" {
				t.Errorf("%s, asked for a name of another zone: got %q, want !failure", k.name, got)
			}
		}
	})
}

func TestPitfall_discovery24_EveryResolverGetsAllTargets(t *testing.T) {
	const containers, ports = 12, 3
	w := newWorld(t, kinds)
	w.startBerth(t)
	gateway := w.createNetwork(t, "own", "10.77.0.0/24")[0]
	all := w.StartContainers(t, containers, func(i int) enginetest.Spec {
		labels := make(map[string]string)
		for port := range ports {
			labels[fmt.Sprintf("SERVICE_%d_NAME", 8080+port)] = "many"
			labels[fmt.Sprintf("SERVICE_%d_NETWORK", 8080+port)] = "bridge"
		}
		return enginetest.Spec{Name: fmt.Sprint("many-", i), Labels: labels}
	})
	w.awaitCount(t, "_many._tcp."+domain, dns.TypeSRV, containers*ports)
	var addrs, targets []string
	for _, c := range all {
		addrs = append(addrs, c.IP(t, "bridge"))
		for port := range ports {
			targets = append(targets, fmt.Sprintf("%s.here.%s:%d", c.ID[:12], domain, 8080+port))
		}
	}
	slices.Sort(addrs)
	slices.Sort(targets)
	for where, spec := range map[string]enginetest.Spec{
		"on the default bridge":     {DNS: []string{docker0}},
		"on a user-defined network": {Network: "own", DNS: []string{gateway}},
	} {
		for _, k := range kinds {
			t.Run(k.name+" "+where, func(t *testing.T) {
				c := w.startClient(t, k, spec)
				want := map[string]string{
					"a/many." + domain:    strings.Join(addrs, " "),
					"aaaa/many." + domain: "!nodata",
				}
				if !k.udpOnly {
					want["srv/_many._tcp."+domain] = strings.Join(targets, " ")
				}
				c.check(t, want)
				if k.udpOnly {
					wantSome(t, c, "srv/_many._tcp."+domain, targets)
				}
			})
		}
	}
}

// wantSome asserts that a resolver which has no TCP gets as much as 512 bytes
// hold, and nothing else.
func wantSome(t *testing.T, c client, question string, all []string) {
	t.Helper()
	const fit = 8 // (512 − 12 − 35) / 56
	got := strings.Fields(c.ask(t, question)[question])
	if len(got) < fit {
		t.Errorf("%s, asked for %s: got %d targets, want %d or more", c.kind.name, question, len(got), fit)
	}
	for _, target := range got {
		if !slices.Contains(all, target) {
			t.Errorf("%s, asked for %s: got %s, which is none of the targets", c.kind.name, question, target)
		}
	}
}

// TestPitfall_discovery23_ResolversFindWhatWasMissing asks for a service before
// it exists. Once berth has it, every resolver finds it with the next question;
// one that remembers what does not exist has forgotten that within seconds.
func TestPitfall_discovery23_ResolversFindWhatWasMissing(t *testing.T) {
	w := newWorld(t, kinds)
	w.startBIND(t, rootZone+berthZone)
	w.startBerth(t)
	gateway := w.createNetwork(t, "own", "10.77.0.0/24")[0]
	missing := map[string]string{
		"addr/web." + domain:      "!nxdomain",
		"srv/_web._tcp." + domain: "!nxdomain",
	}
	var clients []client
	for _, k := range kinds {
		clients = append(clients,
			w.startClient(t, k, enginetest.Spec{DNS: []string{docker0}}),
			w.startClient(t, k, enginetest.Spec{Network: "own", DNS: []string{gateway}}))
	}
	remembers := w.startClient(t, glibc, enginetest.Spec{DNS: []string{outside}})
	for _, c := range append(clients, remembers) {
		c.check(t, missing)
	}
	denied, err := w.exchange(t.Context(), outside, "web."+domain, dns.TypeA)
	if err != nil || denied.Rcode != dns.RcodeNameError || len(denied.Ns) != 1 {
		t.Fatalf("the resolver that remembers: got %v, %v, want NXDOMAIN", denied, err)
	}
	if ttl := denied.Ns[0].Header().Ttl; ttl > 5 {
		t.Fatalf("the resolver that remembers does so for %d s, want at most 5", ttl)
	}

	srv := w.startWeb(t)
	found := map[string]string{
		"addr/web." + domain:      hostIPv4 + " " + hostIPv6,
		"srv/_web._tcp." + domain: srv,
	}
	for _, c := range clients {
		c.check(t, found)
	}
	enginetest.Await(t, limit, "the resolver that remembers forgets", func(ctx context.Context) error {
		reply, err := w.exchange(ctx, outside, "web."+domain, dns.TypeA)
		if err == nil && len(reply.Answer) == 0 {
			err = fmt.Errorf("got %s", dns.RcodeToString[reply.Rcode])
		}
		return err
	})
	remembers.check(t, map[string]string{"a/web." + domain: hostIPv4})
}
