package openmetrics

import (
	"net/netip"

	"github.com/berthd/berth/agent/config"
)

// defaultPort lies outside the ranges from which exporters for Prometheus take
// theirs (9100 to 9999, all of it given away, and on from 10000 in order), and
// below the ports that Linux gives to outgoing connections (32768 to 60999).
const defaultPort = 19469

// Config is the section `openmetrics` of berth's configuration.
type Config struct {
	// Enabled turns the page of metrics on.
	Enabled bool `yaml:"enabled"`

	// Listen is where http://<listen>/metrics is served. Only loopback addresses
	// are accepted: the page tells whoever asks what runs on this host. Port 0
	// takes any free port.
	Listen netip.AddrPort `yaml:"listen"`
}

// DefaultConfig returns the configuration that works on any host.
func DefaultConfig() Config {
	return Config{Enabled: true, Listen: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), defaultPort)}
}

// Validate returns what is wrong with the section, as *config.FieldError.
func (c Config) Validate() error {
	switch {
	case !c.Listen.IsValid():
		return config.Fieldf("listen", "an address and port are missing: write 127.0.0.1:%d", defaultPort)
	case !c.Listen.Addr().IsLoopback():
		return config.Fieldf("listen", "%s is not a loopback address: the page needs no password and tells what runs on this host; "+
			"to scrape it from elsewhere, put a collector or a proxy that asks who it is in front of 127.0.0.1:%d", c.Listen.Addr(), defaultPort)
	}
	return nil
}
