package cloudwatch

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/berthd/berth/agent/config"
)

// The limits of CloudWatch (API reference, "MetricDatum" and "Dimension"; User
// Guide, "Namespaces"), in characters where nothing else is said.
const (
	maxName       = 255
	maxValue      = 1024
	maxDimensions = 30
)

// Config is the section `cloudwatch` of berth's configuration.
type Config struct {
	// Enabled turns the sending of metrics to CloudWatch on.
	Enabled bool `yaml:"enabled"`

	// Namespace is where the metrics are found in CloudWatch. It must not begin
	// with AWS/, which is AWS's own.
	Namespace string `yaml:"namespace"`

	// Region is the AWS region to send to. Empty is what the AWS environment
	// says, or the region that this host is in.
	Region string `yaml:"region"`

	// Endpoint is the URL of a service to use in place of AWS's, such as that of
	// an interface endpoint in a VPC.
	Endpoint string `yaml:"endpoint"`

	// Metrics are those to send, by the names that METRICS.md lists; an asterisk
	// at the end stands for any end. Each name costs money, about 0.30 USD a month
	// for each combination of dimensions.
	Metrics []string `yaml:"metrics"`

	// Dimensions are the labels of a metric that become its dimensions in
	// CloudWatch. What differs in other labels only is put together: counters are
	// added up, of gauges there are the average, the sum, the least and the most.
	// Besides labels there are "host", "instance_type" and "zone": "host" makes
	// metrics of each host's own out of metrics of the fleet, and multiplies their
	// price by the number of hosts.
	Dimensions []string `yaml:"dimensions"`

	// Tags are further dimensions that everything gets, as "env:prod".
	Tags []string `yaml:"tags"`

	// MaxSeries is how many combinations of name and dimensions this host sends in
	// an hour at most, so that no label can run up a bill. What exceeds it is not
	// sent, and counted.
	MaxSeries int `yaml:"max_series"`

	// Interval is how often metrics are sent, at least 1m, the resolution of
	// CloudWatch. Each time is one request for every thousand series, at about 0.01
	// USD for a thousand requests: 0.44 USD a month for each host with 1m.
	Interval config.Duration `yaml:"interval"`
}

// DefaultConfig returns the configuration that is off, and would send what tells
// whether the hosts of a fleet are well, without telling them apart: some ten
// metrics for the whole fleet.
func DefaultConfig() Config {
	return Config{
		Namespace:  "berth",
		Metrics:    []string{"berth_component_up", "berth_condition", "berth_engine_connected"},
		Dimensions: []string{"component"},
		MaxSeries:  100,
		Interval:   config.Duration(time.Minute),
	}
}

var (
	namespaceForm = regexp.MustCompile(`^[A-Za-z0-9._/#-][A-Za-z0-9._/#: -]{0,254}$`)
	regionForm    = regexp.MustCompile(`^([a-z0-9]+(-[a-z0-9]+)+)?$`)
	metricForm    = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*\*?$`)
	labelForm     = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)
	tagForm       = regexp.MustCompile(`^[a-zA-Z_][!-9;-~]*:[!-~][ -~]*$`)
)

// Validate returns an error that names every setting which cannot be used.
func (c Config) Validate() error {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, config.Fieldf(field, format, args...))
	}
	place(c.Namespace, c.Region, c.Endpoint, bad)
	for i, m := range c.Metrics {
		if !metricForm.MatchString(m) || len(m) > maxName {
			bad(fmt.Sprintf("metrics[%d]", i), "%q is no name of a metric: write it as in METRICS.md, or its beginning and an asterisk", m)
		}
	}
	if c.Enabled && len(c.Metrics) == 0 {
		bad("metrics", "nothing would be sent: name what to send, or set enabled: false")
	}
	seen := map[string]bool{}
	for i, d := range c.Dimensions {
		switch {
		case !labelForm.MatchString(d) || len(d) > maxName:
			bad(fmt.Sprintf("dimensions[%d]", i), "%q is no label: write one that METRICS.md lists, or host, instance_type or zone", d)
		case seen[d]:
			bad(fmt.Sprintf("dimensions[%d]", i), "%s is there already: leave one of them out", d)
		}
		seen[d] = true
	}
	for i, tag := range c.Tags {
		name, value, _ := strings.Cut(tag, ":")
		switch {
		case !tagForm.MatchString(tag) || len(name) > maxName || len(value) > maxValue:
			bad(fmt.Sprintf("tags[%d]", i), "%q is not a tag: write it as name:value, in ASCII", tag)
		case seen[name]:
			bad(fmt.Sprintf("tags[%d]", i), "%s is a dimension already: leave one of them out", name)
		}
		seen[name] = true
	}
	if n := len(c.Dimensions) + len(c.Tags); n > maxDimensions {
		bad("dimensions", "%d with the tags are too many: CloudWatch takes %d", n, maxDimensions)
	}
	if c.MaxSeries < 1 {
		bad("max_series", "%d would send nothing: set 1 at least", c.MaxSeries)
	}
	if c.Interval.Std() < time.Minute {
		bad("interval", "%v is finer than CloudWatch keeps: 1m is the least", c.Interval)
	}
	return errors.Join(errs...)
}

// place checks where metrics are, for both sections.
func place(namespace, region, endpoint string, bad func(field, format string, args ...any)) {
	switch {
	case strings.HasPrefix(strings.ToUpper(namespace), "AWS/"):
		bad("namespace", "%q belongs to AWS: write another one, such as berth", namespace)
	case !namespaceForm.MatchString(namespace) || strings.TrimSpace(namespace) == "":
		bad("namespace", "%q is no namespace: write letters, digits and . _ / # -, up to %d", namespace, maxName)
	}
	if !regionForm.MatchString(region) {
		bad("region", "%q is no AWS region: write it as eu-central-1", region)
	}
	if u, err := url.Parse(endpoint); endpoint != "" && (err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http") {
		bad("endpoint", "%q is no URL: write it as https://vpce-….monitoring.eu-central-1.vpce.amazonaws.com", endpoint)
	}
}
