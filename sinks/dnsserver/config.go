package dnsserver

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/berthd/berth/agent/config"
	"github.com/berthd/berth/agent/sockets"
)

// Config is the section of berth's configuration for the embedded DNS server.
// The zone is that of the records, and set where they are made.
type Config struct {
	// Enabled turns the server on.
	Enabled bool `yaml:"enabled"`

	// Listen is the addresses to serve on, besides the gateways of all of the
	// engine's bridge networks, which are always served and followed as
	// networks come and go. Only loopback, private, link-local and
	// carrier-grade NAT addresses are accepted.
	Listen []netip.Addr `yaml:"listen"`

	// Port is the UDP and TCP port on every address. 0 takes any free port.
	Port uint16 `yaml:"port"`

	// Forward sends questions about other zones to the host's resolvers, so
	// that a container can have this server as its only one. It serves
	// containers on bridge networks and the host itself; anyone else is refused.
	Forward bool `yaml:"forward"`

	// ForwardMisses also sends questions about names of the zone that have no
	// records on this host to the resolvers: for a zone of the same name which
	// all hosts share. The resolvers must not ask this server for the zone.
	ForwardMisses bool `yaml:"forward_misses"`

	// Upstreams is the resolvers to forward to, as address:port, instead of
	// those in /etc/resolv.conf.
	Upstreams []netip.AddrPort `yaml:"upstreams"`
}

// DefaultConfig returns the configuration that works with no settings at all.
func DefaultConfig() Config {
	return Config{Enabled: true, Listen: []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}, Port: 53}
}

// Validate returns an error that names every setting which cannot be used.
func (c Config) Validate() error {
	var errs []error
	for i, a := range c.Listen {
		if err := bindable(a); err != nil {
			errs = append(errs, config.Fieldf("listen", "%w", err))
		}
		if slices.Contains(c.Listen[:i], a) {
			errs = append(errs, config.Fieldf("listen", "%s is listed twice", a))
		}
	}
	if c.ForwardMisses && !c.Forward {
		errs = append(errs, config.Fieldf("forward_misses", "it needs forward: true"))
	}
	for _, up := range c.Upstreams {
		switch {
		case !up.IsValid() || up.Port() == 0 || up.Addr().IsUnspecified():
			errs = append(errs, config.Fieldf("upstreams", "%s is no address and port of a resolver", up))
		case up.Port() == c.Port && slices.Contains(c.Listen, up.Addr()):
			errs = append(errs, config.Fieldf("upstreams", "%s is this server itself", up))
		}
	}
	return errors.Join(errs...)
}

// bindable returns why a must not be listened on, or nil. A DNS server on a
// public address is found within hours and used to flood others, as answers
// are larger than questions and the source of a question can be forged.
func bindable(a netip.Addr) error {
	return sockets.Bindable(a, "serve", "this server answers whoever asks, and would be used to flood others")
}
