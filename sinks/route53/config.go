package route53

import (
	"errors"
	"regexp"
	"strings"

	"github.com/berthd/berth/agent/config"
)

// Mode is the routing policy of the records of services.
type Mode string

// The modes. The host's own addresses are simple records in each of them.
const (
	// Multivalue gives a client up to eight healthy sets of all hosts.
	Multivalue Mode = "multivalue"
	// Weighted gives a client the set of one host, which is drawn by the number
	// of instances that each host runs.
	Weighted Mode = "weighted"
	// Simple is for services of which one host alone has instances.
	Simple Mode = "simple"
)

// Values returns all modes.
func (Mode) Values() []string { return []string{string(Multivalue), string(Weighted), string(Simple)} }

// Config is the section of berth's configuration for Route 53.
type Config struct {
	// Enabled turns the sink on.
	Enabled bool `yaml:"enabled"`

	// ZoneID is the ID of the hosted zone, such as Z0123456789ABCDEFGHIJ. It
	// leaves no doubt, and needs the fewest permissions.
	ZoneID string `yaml:"zone_id"`

	// ZoneName is the exact name of the hosted zone, where zone_id is not set.
	// When both are empty it is the domain of the records. Where several zones
	// have the name, private and vpc_id must leave one; else nothing is written.
	ZoneName string `yaml:"zone_name"`

	// Private says that the zone that zone_name means is a private one.
	Private bool `yaml:"private"`

	// VPCID is a VPC that the private zone is associated with.
	VPCID string `yaml:"vpc_id"`

	// Region is the AWS region whose endpoint and credentials are used. Empty
	// is what the AWS environment says, or us-east-1, which serves all regions
	// of the partition.
	Region string `yaml:"region"`

	// Endpoint is the URL of a service to use in place of AWS's, for tests.
	Endpoint string `yaml:"endpoint"`

	// Mode is the routing policy of the records of services: multivalue,
	// weighted (by the number of local instances) or simple (for services that
	// run on one host only). All hosts of a zone need the same one.
	Mode Mode `yaml:"mode"`

	// Cluster is part of the identity of what this host writes. Two fleets that
	// share a zone need different ones if their hosts can have the same IDs.
	Cluster string `yaml:"cluster"`

	// CallsPerSecond bounds this host's calls of the Route 53 API, which allows
	// a whole account ten a second.
	CallsPerSecond float64 `yaml:"calls_per_second"`

	// ChangesPerSecond bounds this host's single changes of records, for which
	// accounts have a quota, too. One batch may be larger; what follows it waits.
	ChangesPerSecond float64 `yaml:"changes_per_second"`
}

// DefaultConfig returns the configuration that is off, and would write
// multivalue records into the public zone of the records' name.
func DefaultConfig() Config {
	return Config{Mode: Multivalue, Cluster: "default", CallsPerSecond: 5, ChangesPerSecond: 100}
}

var (
	zoneIDForm  = regexp.MustCompile(`^(/hostedzone/)?[A-Z0-9]{1,32}$`)
	vpcForm     = regexp.MustCompile(`^vpc-[0-9a-z]+$`)
	clusterForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,254}$`)
)

// Validate returns an error that names every setting which cannot be used.
func (c Config) Validate() error {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, config.Fieldf(field, format, args...))
	}
	if c.ZoneID != "" && !zoneIDForm.MatchString(c.ZoneID) {
		bad("zone_id", "%q is no ID of a hosted zone, such as Z0123456789ABCDEFGHIJ", c.ZoneID)
	}
	if c.ZoneID != "" && c.ZoneName != "" {
		bad("zone_name", "zone_id says which zone; leave one of them out")
	}
	if strings.ContainsAny(c.ZoneName, " /*\\") || strings.HasPrefix(c.ZoneName, ".") {
		bad("zone_name", "%q is no name of a hosted zone", c.ZoneName)
	}
	if c.VPCID != "" && !vpcForm.MatchString(c.VPCID) {
		bad("vpc_id", "%q is no ID of a VPC, such as vpc-0123456789abcdef0", c.VPCID)
	}
	if c.VPCID != "" && !c.Private {
		bad("vpc_id", "only private zones have VPCs: set private: true")
	}
	if c.Mode != Multivalue && c.Mode != Weighted && c.Mode != Simple {
		bad("mode", "%q is none of %s", c.Mode, strings.Join(Mode("").Values(), ", "))
	}
	if !clusterForm.MatchString(c.Cluster) {
		bad("cluster", "%q must be letters, digits, dots, hyphens and underscores", c.Cluster)
	}
	if !(c.CallsPerSecond > 0) {
		bad("calls_per_second", "it must be more than 0")
	}
	if !(c.ChangesPerSecond > 0) {
		bad("changes_per_second", "it must be more than 0")
	}
	return errors.Join(errs...)
}

// selector is what the config says about which zone is meant, as a string that
// changes with it. A zone once found is remembered by it.
func (c Config) selector(records string) string {
	if c.ZoneID != "" {
		return strings.TrimPrefix(c.ZoneID, "/hostedzone/")
	}
	name := cmpName(c.ZoneName)
	if name == "" {
		name = records
	}
	if !c.Private {
		return name + " public"
	}
	return name + " private " + c.VPCID
}
