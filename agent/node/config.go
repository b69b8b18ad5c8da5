package node

import (
	"errors"
	"net/netip"
	"net/url"
	"regexp"

	"github.com/berthd/berth/agent/config"
)

// Config says who this host is, where berth cannot or should not find out by
// itself. All of it is optional.
type Config struct {
	// ID is this host's name in records and object names: one DNS label in lower
	// case, different on every host. By default the instance ID on EC2; elsewhere
	// the hostname and a hash, derived once and then kept.
	ID string `yaml:"id"`

	// Hostname is shown to people. By default what the kernel says.
	Hostname string `yaml:"hostname"`

	// IPv4 is the address at which other hosts reach this one. By default the one
	// that the default route sends from, on EC2 the instance's private address.
	IPv4 netip.Addr `yaml:"ipv4"`

	// IPv6 is as ipv4.
	IPv6 netip.Addr `yaml:"ipv6"`

	// EC2 says whether this host is an EC2 instance: auto (ask the firmware), on
	// or off. On EC2 nothing leaves the host before the instance metadata service
	// has said which instance this is.
	EC2 EC2Mode `yaml:"ec2"`

	// IMDSEndpoint is where the instance metadata service answers, such as
	// http://[fd00:ec2::254]. By default as AWS_EC2_METADATA_SERVICE_ENDPOINT
	// says, or http://169.254.169.254.
	IMDSEndpoint string `yaml:"imds_endpoint"`

	// Account is the AWS account ID. By default as the metadata service says.
	Account string `yaml:"account"`

	// Region is the AWS region. By default as the metadata service says.
	Region string `yaml:"region"`

	// Zone is the availability zone. By default as the metadata service says.
	Zone string `yaml:"zone"`
}

// EC2Mode is a value of Config.EC2.
type EC2Mode string

// EC2Auto goes by the firmware, the others settle it.
const (
	EC2Auto EC2Mode = "auto"
	EC2On   EC2Mode = "on"
	EC2Off  EC2Mode = "off"
)

// Values returns the values that Config.EC2 may have.
func (EC2Mode) Values() []string { return []string{"auto", "on", "off"} }

// DefaultConfig returns the config of a host that finds out everything itself.
func DefaultConfig() Config { return Config{EC2: EC2Auto} }

var labelForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Validate returns all that is wrong with the config, as *config.FieldError.
func (c Config) Validate() error {
	var errs []error
	if c.ID != "" && !labelForm.MatchString(c.ID) {
		errs = append(errs, config.Fieldf("id", "%q is not a DNS label in lower case: want 1 to 63 of a-z, 0-9 and -, not beginning or ending with -", c.ID))
	}
	if c.IPv4.IsValid() && (!c.IPv4.Is4() || !usable(c.IPv4)) {
		errs = append(errs, config.Fieldf("ipv4", "other hosts cannot reach %s: want an IPv4 address of this host", c.IPv4))
	}
	if c.IPv6.IsValid() && (!c.IPv6.Is6() || c.IPv6.Is4In6() || c.IPv6.Zone() != "" || !usable(c.IPv6)) {
		errs = append(errs, config.Fieldf("ipv6", "other hosts cannot reach %s: want an IPv6 address of this host", c.IPv6))
	}
	switch c.EC2 {
	case "", EC2Auto, EC2On, EC2Off:
	default:
		errs = append(errs, config.Fieldf("ec2", "%q is none of auto, on, off", c.EC2))
	}
	if c.IMDSEndpoint != "" {
		u, err := url.Parse(c.IMDSEndpoint)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			errs = append(errs, config.Fieldf("imds_endpoint", "%q is not a URL such as http://169.254.169.254", c.IMDSEndpoint))
		}
	}
	return errors.Join(errs...)
}
