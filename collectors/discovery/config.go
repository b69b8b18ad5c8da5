package discovery

import (
	"errors"
	"fmt"
	"math"
	"net/url"
	"path"
	"strings"
	"text/template"
	"time"

	"github.com/berthd/berth/agent/config"
)

// maxTTL is the highest TTL that is accepted: one day. A longer one would keep
// a name alive in caches for longer than anyone waits for a host to leave.
const maxTTL = 24 * time.Hour

// maxDomain is the longest domain, in bytes, under which every target still
// fits into the 253 bytes of a name (RFC 1035 §2.3.4): an expanded IPv6 address
// (39), the node's label (63) and two dots come in front of it.
const maxDomain = maxName - 39 - 63 - 2

// Config is the section `discovery` of berth's configuration.
type Config struct {
	// Enabled turns discovery on.
	Enabled bool `yaml:"enabled"`

	// Domain is what the names of services and hosts end in. Every host of a
	// fleet may use the same one.
	Domain string `yaml:"domain"`

	// TTL is how long resolvers may keep a record, 0s to 24h, in whole seconds.
	// SERVICE_<port>_TTL overrides it for one service. Where several containers
	// of a host give one name different TTLs, the lowest holds for all of them.
	TTL config.Duration `yaml:"ttl"`

	// Priority is the SRV priority of services that do not set
	// SERVICE_<port>_PRIORITY. Clients use the lowest priority that answers.
	Priority uint16 `yaml:"priority"`

	// Weight is the SRV weight of services that do not set
	// SERVICE_<port>_WEIGHT. Clients spread over targets of one priority in
	// proportion to it.
	Weight uint16 `yaml:"weight"`

	// AllowNames are the names that containers may claim, as glob patterns
	// ("web-*"), compared with the name both as "calc" and as "_calc._tcp".
	// Every valid name is allowed where the list is empty.
	AllowNames []string `yaml:"allow_names"`

	// NameTemplate names the ports of containers which have the label
	// berth.discovery=true and claim no name of their own. It is a Go template
	// over .Orchestrator, .Cluster, .Service, .Task, .Container (the name in
	// the task or compose file) and .Name (docker's name), with the function
	// "label", which makes a DNS label of any text:
	// "{{label .Service}}.{{label .Cluster}}". Empty: no such names.
	NameTemplate string `yaml:"name_template"`

	// ECSIntrospection is where the ECS agent of this host tells the addresses
	// of tasks in network mode awsvpc. It is asked only if there are such tasks.
	ECSIntrospection string `yaml:"ecs_introspection"`

	// Checks is how ports are checked whose labels ask for it.
	Checks ChecksConfig `yaml:"checks"`
}

// ChecksConfig is the section `discovery.checks`.
type ChecksConfig struct {
	// Enabled runs the checks that SERVICE_<port>_CHECK_HTTP and
	// SERVICE_<port>_CHECK_TCP ask for. Otherwise they are shown only.
	Enabled bool `yaml:"enabled"`

	// Concurrency is how many checks may be under way at once, 1 to 1024.
	Concurrency int `yaml:"concurrency"`

	// Interval is how often a port is checked that does not set
	// SERVICE_<port>_CHECK_INTERVAL. A container that has not passed yet is
	// checked every second in its first minute.
	Interval config.Duration `yaml:"interval"`

	// MinInterval is the shortest interval that a label may set, at least 100ms.
	MinInterval config.Duration `yaml:"min_interval"`

	// Timeout is how long a check may take that does not set
	// SERVICE_<port>_CHECK_TIMEOUT, at most the interval.
	Timeout config.Duration `yaml:"timeout"`

	// Rise is after how many passes in a row a port is in DNS that does not set
	// SERVICE_<port>_CHECK_RISE, 1 to 100.
	Rise int `yaml:"rise"`

	// Fall is after how many failures in a row a port is out of DNS that does not
	// set SERVICE_<port>_CHECK_FALL, 1 to 100.
	Fall int `yaml:"fall"`
}

// The bounds of ChecksConfig: one goroutine and one socket for each check under
// way, ten checks of a port a second, and one an hour.
const (
	maxConcurrency   = 1024
	shortestInterval = 100 * time.Millisecond
	maxInterval      = time.Hour
)

// DefaultConfig returns the configuration that works on any host.
func DefaultConfig() Config {
	return Config{
		Enabled:  true,
		Domain:   "berth.internal",
		TTL:      config.Duration(5 * time.Second),
		Priority: 1,
		Weight:   1,

		ECSIntrospection: "http://127.0.0.1:51678",

		Checks: ChecksConfig{
			Enabled:     true,
			Concurrency: 64,
			Interval:    config.Duration(10 * time.Second),
			MinInterval: config.Duration(time.Second),
			Timeout:     config.Duration(2 * time.Second),
			Rise:        1,
			Fall:        3,
		},
	}
}

// Validate returns everything that is wrong with the configuration but for the
// sections in it, joined, or nil. Each error begins with the key that it is
// about.
func (c Config) Validate() error {
	var errs []error
	if err := checkDomain(c.Domain); err != nil {
		errs = append(errs, config.Fieldf("domain", "%w", err))
	}
	switch {
	case c.TTL < 0 || c.TTL.Std() > maxTTL:
		errs = append(errs, config.Fieldf("ttl", "%v is not between 0s and %v", c.TTL, config.Duration(maxTTL)))
	case c.TTL.Std()%time.Second != 0:
		errs = append(errs, config.Fieldf("ttl", "%v is not a whole number of seconds", c.TTL))
	}
	for i, pattern := range c.AllowNames {
		if _, err := path.Match(pattern, ""); err != nil {
			errs = append(errs, config.Fieldf(fmt.Sprintf("allow_names[%d]", i), "%q is not a glob pattern: %w", pattern, err))
		}
	}
	if _, err := parseTemplate(c.NameTemplate); err != nil {
		errs = append(errs, config.Fieldf("name_template", "%s: the fields are .Orchestrator, .Cluster, .Service, .Task, .Container and .Name", strings.ReplaceAll(err.Error(), " in type discovery.templateData", "")))
	}
	if u, err := url.Parse(c.ECSIntrospection); err != nil || u.Scheme != "http" || u.Host == "" {
		errs = append(errs, config.Fieldf("ecs_introspection", "%q is not the address of an HTTP server: write it as http://127.0.0.1:51678", c.ECSIntrospection))
	}
	return errors.Join(errs...)
}

// Validate returns everything that is wrong with the section, joined, or nil.
func (c ChecksConfig) Validate() error {
	var errs []error
	if c.Concurrency < 1 || c.Concurrency > maxConcurrency {
		errs = append(errs, config.Fieldf("concurrency", "%d is not between 1 and %d", c.Concurrency, maxConcurrency))
	}
	if c.MinInterval.Std() < shortestInterval || c.MinInterval.Std() > maxInterval {
		errs = append(errs, config.Fieldf("min_interval", "%v is not between %v and %v", c.MinInterval, shortestInterval, config.Duration(maxInterval)))
	}
	if c.Interval < c.MinInterval || c.Interval.Std() > maxInterval {
		errs = append(errs, config.Fieldf("interval", "%v is not between min_interval, which is %v, and %v", c.Interval, c.MinInterval, config.Duration(maxInterval)))
	}
	if c.Timeout <= 0 || c.Timeout > c.Interval {
		errs = append(errs, config.Fieldf("timeout", "%v is not between 1ns and the interval, which is %v", c.Timeout, c.Interval))
	}
	for _, n := range []struct {
		key   string
		value int
	}{{"rise", c.Rise}, {"fall", c.Fall}} {
		if n.value < 1 || n.value > maxCounts {
			errs = append(errs, config.Fieldf(n.key, "%d is not between 1 and %d", n.value, maxCounts))
		}
	}
	return errors.Join(errs...)
}

// checkDomain accepts a lower-case domain without the final dot.
func checkDomain(domain string) error {
	if domain == "" {
		return errors.New("is empty: names need a domain to live in, such as berth.internal")
	}
	if len(domain) > maxDomain {
		return fmt.Errorf("%q is longer than %d bytes: no room is left for hosts and services", domain, maxDomain)
	}
	for label := range strings.SplitSeq(domain, ".") {
		if err := checkLabel(label, maxLabel); err != nil {
			return fmt.Errorf("%q %w", domain, err)
		}
	}
	if lower(domain) != domain {
		return fmt.Errorf("%q is not in lower case", domain)
	}
	return nil
}

// parseTemplate returns nil for an empty template, and tries any other on a
// sample, so that a misspelt field is an error of the configuration and not of
// a container.
func parseTemplate(text string) (*template.Template, error) {
	if text == "" {
		return nil, nil
	}
	t, err := template.New("name").Funcs(template.FuncMap{"label": Label}).Parse(text)
	if err != nil {
		return nil, err
	}
	sample := templateData{Origin: Origin{Orchestrator: "ecs", Cluster: "prod", Service: "calc", Task: "1", Container: "calc"}, Name: "calc"}
	if err := t.Execute(new(strings.Builder), sample); err != nil {
		return nil, err
	}
	return t, nil
}

// templateData is what a name template sees of a container.
type templateData struct {
	Origin
	Name string // docker's name
}

// seconds returns a valid TTL in whole seconds.
func seconds(d time.Duration) uint32 {
	return uint32(min(max(d/time.Second, 0), math.MaxInt32))
}

// Zone returns the domain that all names lie in, with the final dot.
func (c Config) Zone() string { return c.Domain + "." }
