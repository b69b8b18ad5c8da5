package dogstatsd

import (
	"errors"
	"fmt"
	"net"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/berthd/berth/agent/config"
)

// Config is the section `dogstatsd` of berth's configuration.
type Config struct {
	// Enabled turns the sending of berth's own figures on.
	Enabled bool `yaml:"enabled"`

	// Address is where the Datadog agent, or another server that speaks
	// DogStatsD, receives: host:port for UDP, or the path of a Unix socket.
	Address string `yaml:"address"`

	// Prefix takes the place of "berth_" at the beginning of each name:
	// berth_dnsserver_records becomes berth.dnsserver_records. Empty: the names
	// stay as they are on the page of metrics.
	Prefix string `yaml:"prefix"`

	// Tags are added to everything that is sent, as "env:prod".
	Tags []string `yaml:"tags"`

	// Interval is how often figures are sent, at least 1s. Datadog keeps one
	// point for each 10s.
	Interval config.Duration `yaml:"interval"`
}

// DefaultConfig returns the configuration of a Datadog agent on this host.
func DefaultConfig() Config {
	return Config{Address: "127.0.0.1:8125", Prefix: "berth.", Interval: config.Duration(10 * time.Second)}
}

// prefixForm is what Datadog accepts at the beginning of a metric's name.
var prefixForm = regexp.MustCompile(`^([a-zA-Z][a-zA-Z0-9_.]*)?$`)

// Validate returns all that is wrong with the section, as *config.FieldError.
func (c Config) Validate() error {
	var errs []error
	if _, err := c.target(); err != nil {
		errs = append(errs, config.Fieldf("address", "%w", err))
	}
	if !prefixForm.MatchString(c.Prefix) {
		errs = append(errs, config.Fieldf("prefix", "%q cannot begin a name: write a letter, then letters, digits, _ and dots", c.Prefix))
	}
	for i, tag := range c.Tags {
		if tag == "" || tag != clean(tag) {
			errs = append(errs, config.Fieldf(fmt.Sprintf("tags[%d]", i), "%q is not a tag: write it as name:value, without commas, bars and newlines", tag))
		}
	}
	if c.Interval.Std() < time.Second {
		errs = append(errs, config.Fieldf("interval", "%v is too often: once a second is the most, and every 10s is enough", c.Interval))
	}
	return errors.Join(errs...)
}

// target returns the address as the client wants it.
func (c Config) target() (string, error) {
	if file, ok := strings.CutPrefix(c.Address, "unix://"); ok || path.IsAbs(c.Address) {
		if !path.IsAbs(file) {
			return "", fmt.Errorf("%q is not an absolute path of a socket: write it as /var/run/datadog/dsd.socket", c.Address)
		}
		return "unix://" + file, nil
	}
	host, port, err := net.SplitHostPort(c.Address)
	if n, perr := strconv.ParseUint(port, 10, 16); err != nil || host == "" || perr != nil || n == 0 {
		return "", fmt.Errorf("%q is neither host:port nor the path of a socket: write it as 127.0.0.1:8125 or /var/run/datadog/dsd.socket", c.Address)
	}
	return c.Address, nil
}

// clean replaces what separates the parts of a DogStatsD message.
func clean(tag string) string {
	return strings.Map(func(r rune) rune {
		if r == ',' || r == '|' || r == '\n' || r == '\r' {
			return '_'
		}
		return r
	}, tag)
}
