package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/berthd/berth/agent/admin"
	"github.com/berthd/berth/sinks/rfc2136"
	"github.com/berthd/berth/test/apps"
	"github.com/berthd/berth/test/apps/portal"
	"github.com/berthd/berth/test/dnsservers"
)

// The hosts that have a key for the zone: the one that the demo's berth is, and
// another one.
const (
	self     = "host1"
	stranger = "host10"
)

// fleet is a name server that many hosts would share, and what asks it.
type fleet struct {
	*dnsservers.Server
	config  string // berth's
	target  string // of its services, as BIND has it
	address string // of that
	portal  *http.Server
}

// close ends the server and the portal, as far as they were started.
func (f *fleet) close() error {
	var err error
	if f.portal != nil {
		err = f.portal.Close()
	}
	if f.Server != nil {
		err = errors.Join(err, f.Server.Close())
	}
	return err
}

// startBIND starts the server, and writes the configuration with which berth
// uses it.
func (s *stage) startBIND(ctx context.Context) (err error) {
	dir := filepath.Join(s.dir, "bind")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if s.bind.Server, err = dnsservers.OpenBIND(ctx, dir, s.domain+"."); err != nil {
		return err
	}
	s.server = s.bind.Addr()
	key, secret := s.bind.Key(self), filepath.Join(s.dir, "tsig")
	if err := os.WriteFile(secret, []byte(key.Secret), 0o600); err != nil {
		return err
	}
	s.bind.config = fmt.Sprintf(`node:
  id: %s
discovery:
  domain: %s
dns:
  enabled: false
rfc2136:
  enabled: true
  servers: ["%s"]
  key: %s
  secret: file:%s
`, self, s.domain, s.server, strings.TrimSuffix(key.Name, "."), secret)
	s.say("A BIND of the demo's own answers for %s at %s. berth's configuration:", s.domain, s.server)
	s.quote(s.bind.config)
	return nil
}

// reached returns nil when berth has its part for BIND, and no trouble with it.
func (f *fleet) reached(st admin.Status) error {
	if !slices.ContainsFunc(st.Components, func(c admin.Component) bool { return c.Name == rfc2136.Name }) {
		return hopeless{errors.New("it has no component " + rfc2136.Name)}
	}
	for _, c := range st.Conditions {
		if c.Component == rfc2136.Name {
			return fmt.Errorf("%s: %s", c.Name, c.Why)
		}
	}
	return nil
}

// startPortal serves the portal on loopback, and returns where. Its resolver asks
// one server, and no other.
func (f *fleet) startPortal(domain string, server netip.AddrPort) (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("start the portal: %w", err)
	}
	p := &portal.Portal{
		Domain: domain + ".",
		Resolver: &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, server.String())
		}},
		Client: &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}},
	}
	f.portal = &http.Server{Handler: p.Handler(), ReadHeaderTimeout: time.Second}
	go func() { _ = f.portal.Serve(listener) }()
	return listener.Addr().String(), nil
}

// dig shows what everybody sees who asks BIND.
func (s *stage) dig(ctx context.Context) error {
	s.title("Who asks BIND finds them")
	targets, err := s.lookup(ctx, s.srv(apps.Calc))
	if err != nil {
		return err
	}
	answer, err := s.runDig(ctx, s.srv(apps.Calc), "SRV")
	if err != nil {
		return err
	}
	f := strings.Fields(answer)
	if len(f) != 4 || len(targets) != 1 || strings.TrimSuffix(f[3], ".")+" port "+f[2] != targets[0] {
		return fmt.Errorf("dig says %q, and the SRV record leads to %q", answer, targets)
	}
	address, err := s.runDig(ctx, f[3], "A")
	if err != nil {
		return err
	}
	if a, err := netip.ParseAddr(address); err != nil || !a.Is4() {
		return fmt.Errorf("dig says %q: want this host's address", address)
	}
	s.bind.target, s.bind.address = f[3], address
	return nil
}

// runDig runs dig, shows its command and output, and returns the output.
func (s *stage) runDig(ctx context.Context, name, kind string) (string, error) {
	args := []string{"@" + s.server.Addr().String(), "-p", fmt.Sprint(s.server.Port()), strings.TrimSuffix(name, "."), kind, "+short"}
	out, err := exec.CommandContext(ctx, "dig", args...).Output()
	if err != nil {
		return "", fmt.Errorf("dig %s: %w", strings.Join(args, " "), err)
	}
	s.say("dig %s", strings.Join(args, " "))
	s.quote(string(out))
	return strings.TrimSpace(string(out)), nil
}

// strangers shows that a host's key changes nothing of another host.
func (s *stage) strangers(ctx context.Context) error {
	s.title("A host's address is its own")
	name, key := self+"."+s.domain+".", s.bind.Key(stranger)
	forged, err := dns.NewRR(name + " 5 A 192.0.2.66")
	if err != nil {
		return err
	}
	m := new(dns.Msg).SetUpdate(s.domain + ".")
	m.RemoveRRset([]dns.RR{forged})
	m.Insert([]dns.RR{forged})
	m.SetTsig(key.Name, dns.HmacSHA256, 300, time.Now().Unix())
	c := dns.Client{Net: "tcp", Timeout: patience, TsigSecret: map[string]string{key.Name: key.Secret}}
	reply, _, err := c.ExchangeContext(ctx, m, s.server.String())
	if err != nil {
		return fmt.Errorf("send an update: %w", err)
	}
	if reply.Rcode != dns.RcodeRefused {
		return fmt.Errorf("%s, with its own key, changed the address of %s: BIND says %s", stranger, self, dns.RcodeToString[reply.Rcode])
	}
	s.say("%s tries to send the clients of %s elsewhere. BIND says %s, and still:", stranger, self, dns.RcodeToString[reply.Rcode])
	address, err := s.runDig(ctx, name, "A")
	if err == nil && address != s.bind.address {
		err = fmt.Errorf("the address of %s was %s and is %s", self, s.bind.address, address)
	}
	return err
}

// restart ends berth and starts it again.
func (s *stage) restart(ctx context.Context) error {
	s.title("A restart of berth is invisible")
	before, err := s.bind.records(ctx)
	if err != nil {
		return err
	}
	if err := s.stopAgent(); err != nil {
		return err
	}
	if err := s.unchanged(ctx, before); err != nil {
		return err
	}
	s.say("berth is stopped: the zone has the demo's %d records all the same.", len(before))
	if err := s.startAgent(ctx); err != nil {
		return err
	}
	// What comes and goes now is written after all that berth had to say at its
	// start.
	if err := s.comeAndGo(ctx, "late"); err != nil {
		return err
	}
	if err := s.unchanged(ctx, before); err != nil {
		return err
	}
	s.say("Another container has come and gone since: the zone is as it was.")
	return nil
}

// unchanged returns an error unless the zone has exactly these records of the
// demo.
func (s *stage) unchanged(ctx context.Context, want []string) error {
	got, err := s.bind.records(ctx)
	if err == nil && (len(want) == 0 || !slices.Equal(got, want)) {
		err = fmt.Errorf("the zone has %q, want %q as before", got, want)
	}
	return err
}

// records returns the records of the zone that are the demo's: other containers
// on this engine may have names, too.
func (f *fleet) records(ctx context.Context) (out []string, err error) {
	all, err := f.Records(ctx)
	for _, rr := range all {
		name := rr.Header().Name
		label, _, _ := strings.Cut(strings.TrimPrefix(name, "_"), ".")
		if name == f.target || slices.Contains([]string{self, apps.Calc, apps.Time, "sick", "late"}, label) {
			out = append(out, rr.String())
		}
	}
	slices.Sort(out)
	return out, err
}

// comeAndGo starts a service, and stops it when it has its name.
func (s *stage) comeAndGo(ctx context.Context, service string) error {
	c, err := s.start(ctx, service, spec{app: apps.Calc, labels: map[string]string{"SERVICE_8080_NAME": service}})
	if err != nil {
		return err
	}
	if _, _, err := s.await(ctx, c, "start", s.srv(service), func(targets []string) bool { return len(targets) == 1 }); err != nil {
		return err
	}
	if err := s.engine.ContainerKill(ctx, c, "SIGTERM"); err != nil {
		return fmt.Errorf("stop %s: %w", service, err)
	}
	_, _, err = s.await(ctx, c, "kill", s.srv(service), func(targets []string) bool { return len(targets) == 0 })
	return err
}

// leave takes the host out of the zone.
func (s *stage) leave(ctx context.Context) error {
	s.title("A host that leaves takes its names with it")
	if err := s.stopAgent(); err != nil {
		return err
	}
	out, err := s.berth(ctx, append([]string{"deregister"}, s.flags()...)...)
	if err != nil {
		return err
	}
	left, err := s.bind.Records(ctx)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("berth deregister says %q, and the zone still has %v", out, left)
	}
	s.say("berth deregister")
	s.quote(out)
	return nil
}
