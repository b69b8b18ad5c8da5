package rfc2136

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/berthd/berth/agent/config"
)

// Config is the section of berth's configuration for dynamic updates.
type Config struct {
	// Enabled turns the sink on.
	Enabled bool `yaml:"enabled"`

	// Servers is where updates are sent, over TCP, as host:port: the zone's
	// primary, or several servers that all accept changes to the same zone. The
	// first that accepts an update is enough; one that failed is tried last for
	// a minute.
	Servers []string `yaml:"servers"`

	// Zone is the zone as the servers have it, where that is a parent of
	// discovery.domain. Empty: discovery.domain itself.
	Zone string `yaml:"zone"`

	// Key is the name of this host's TSIG key, as the servers know it.
	Key string `yaml:"key"`

	// Algorithm is the key's algorithm.
	Algorithm Algorithm `yaml:"algorithm"`

	// Secret is the key itself, in base64, as tsig-keygen and keymgr print it.
	// It is read anew for each update.
	Secret config.Secret `yaml:"secret"`

	// Timeout is how long one server may take to accept an update, 100ms to 1m.
	Timeout config.Duration `yaml:"timeout"`
}

// Algorithm is how messages are signed (RFC 8945 §6). MD5 and SHA-1 are not
// among them: RFC 8945 says of neither to use it.
type Algorithm string

// The algorithms that are spoken.
const (
	SHA256 Algorithm = "hmac-sha256"
	SHA384 Algorithm = "hmac-sha384"
	SHA512 Algorithm = "hmac-sha512"
)

// Values lists the algorithms.
func (Algorithm) Values() []string {
	return []string{string(SHA256), string(SHA384), string(SHA512)}
}

// The bounds of Config.Timeout.
const (
	minTimeout = 100 * time.Millisecond
	maxTimeout = time.Minute
)

// DefaultConfig returns the configuration of a host that sends no updates.
func DefaultConfig() Config {
	return Config{Algorithm: SHA256, Timeout: config.Duration(5 * time.Second)}
}

// Validate returns an error that names every setting which cannot be used. What
// is missing counts only where the sink is enabled.
func (c Config) Validate() error {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, config.Fieldf(field, format, args...))
	}
	for i, s := range c.Servers {
		if err := checkServer(s); err != nil {
			bad("servers", "%w", err)
		}
		if slices.Contains(c.Servers[:i], s) {
			bad("servers", "%s is listed twice", s)
		}
	}
	if err := checkName(c.Zone); c.Zone != "" && err != nil {
		bad("zone", "%w", err)
	}
	if err := checkName(c.Key); c.Key != "" && err != nil {
		bad("key", "%w", err)
	}
	if !slices.Contains(c.Algorithm.Values(), string(c.Algorithm)) {
		bad("algorithm", "%q is not one of %s", c.Algorithm, strings.Join(c.Algorithm.Values(), ", "))
	}
	if t := c.Timeout.Std(); t < minTimeout || t > maxTimeout {
		bad("timeout", "%v is not between %v and %v", c.Timeout, config.Duration(minTimeout), config.Duration(maxTimeout))
	}
	if !c.Enabled {
		return errors.Join(errs...)
	}
	if len(c.Servers) == 0 {
		bad("servers", "name the zone's primary, such as 192.0.2.53:53")
	}
	if c.Key == "" {
		bad("key", "a key is needed: unsigned updates can be forged by anyone")
	}
	if c.Secret.IsZero() {
		bad("secret", "a secret is needed: put it into a file with mode 0600 and write file:/path")
	}
	return errors.Join(errs...)
}

// checkServer accepts host:port.
func checkServer(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" {
		return fmt.Errorf("%q is no server: write host:port, such as 192.0.2.53:53 or [2001:db8::53]:53", s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("%q has no valid port: the port of DNS is 53", s)
	}
	return nil
}

// checkName accepts a domain name, with or without the final dot.
func checkName(name string) error {
	if _, ok := dns.IsDomainName(name); !ok || strings.ContainsAny(name, " \t\\") || name == "." {
		return fmt.Errorf("%q is not a domain name", name)
	}
	return nil
}

// zone returns the name of the zone, for records in this domain.
func (c Config) zone(domain string) string { return dns.CanonicalName(cmp.Or(c.Zone, domain)) }
