package cloudwatch

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/berthd/berth/agent/config"
)

// ScaleConfig is the section `cluster_scale` of berth's configuration, for the
// command berth cluster-scale. The daemon does nothing with it.
type ScaleConfig struct {
	// Cluster is the name of the ECS cluster.
	Cluster string `yaml:"cluster"`

	// Region is the AWS region of the cluster. Empty is what the AWS environment
	// says, or the region that this machine is in.
	Region string `yaml:"region"`

	// Endpoint is the URL of a service to use in place of CloudWatch's, such as
	// that of an interface endpoint in a VPC.
	Endpoint string `yaml:"endpoint"`

	// Namespace is where the status is published. It must not begin with AWS/,
	// which is AWS's own.
	Namespace string `yaml:"namespace"`

	// Metric is the name that the status is published under.
	Metric string `yaml:"metric"`

	// Dimension is the name of the dimension that has the cluster's name as its
	// value. It is the one that ECS's own metrics of clusters have.
	Dimension string `yaml:"dimension"`

	// CPUMax is the part of the cluster's CPU from which on hosts are to be added
	// when tasks have reserved it.
	CPUMax config.Percent `yaml:"cpu_max"`

	// CPUMin is the part of the cluster's CPU up to which a host may be removed, if
	// of memory no more than memory_min is reserved, either. What n hosts have
	// reserved makes n/(n-1) times as much on one less, so that a cluster of two
	// goes up and down for ever if this is more than half of cpu_max.
	CPUMin config.Percent `yaml:"cpu_min"`

	// MemoryMax is for memory what cpu_max is for CPU.
	MemoryMax config.Percent `yaml:"memory_max"`

	// MemoryMin is for memory what cpu_min is for CPU.
	MemoryMin config.Percent `yaml:"memory_min"`

	// MaxAge is how old what ECS says may be, at least 2m. ECS says it every
	// minute, and CloudWatch shows it one or two minutes later. What is older is
	// missing.
	MaxAge config.Duration `yaml:"max_age"`
}

// DefaultScaleConfig returns thresholds that leave a cluster of two hosts alone
// after it has shrunk from three, or grown from one: cpu_min and memory_min are
// less than half of the others.
func DefaultScaleConfig() ScaleConfig {
	return ScaleConfig{
		Namespace: "berth", Metric: "ScaleStatus", Dimension: "ClusterName",
		CPUMax: 75, CPUMin: 35, MemoryMax: 75, MemoryMin: 35,
		MaxAge: config.Duration(5 * time.Minute),
	}
}

var (
	clusterForm = regexp.MustCompile(`^[A-Za-z0-9_-]{1,255}$`) // ECS, "CreateCluster"
	nameForm    = regexp.MustCompile(`^[!-9;-~][!-~]{0,254}$`)
)

// Validate returns an error that names every setting which cannot be used. That
// there is no cluster is for the command to say.
func (c ScaleConfig) Validate() error {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, config.Fieldf(field, format, args...))
	}
	place(c.Namespace, c.Region, c.Endpoint, bad)
	if c.Cluster != "" && !clusterForm.MatchString(c.Cluster) {
		bad("cluster", "%q is no name of an ECS cluster: write the name, not the ARN, such as prod", c.Cluster)
	}
	if !nameForm.MatchString(c.Metric) {
		bad("metric", "%q is no name of a metric: write it as ScaleStatus", c.Metric)
	}
	if !nameForm.MatchString(c.Dimension) {
		bad("dimension", "%q is no name of a dimension: write it as ClusterName", c.Dimension)
	}
	for _, t := range []struct {
		field    string
		min, max config.Percent
	}{{"cpu_min", c.CPUMin, c.CPUMax}, {"memory_min", c.MemoryMin, c.MemoryMax}} {
		if t.min >= t.max {
			bad(t.field, "%v is not less than %s, which is %v: hosts would be added and removed by turns", t.min, strings.Replace(t.field, "min", "max", 1), t.max)
		}
	}
	if c.MaxAge.Std() < 2*time.Minute || c.MaxAge.Std() > 24*time.Hour {
		bad("max_age", "%v cannot be used: write 2m at least, because CloudWatch is a minute or two late, and 24h at most", c.MaxAge)
	}
	return errors.Join(errs...)
}

// Status is what the size of a cluster is to become: the value that is published.
type Status int

// The values are ordered so that one alarm on at least 2 and one on at most 0 are
// all that a cluster needs.
const (
	ScaleIn  Status = 0
	Keep     Status = 1
	ScaleOut Status = 2
)

// String returns the status in a word.
func (s Status) String() string {
	return [...]string{"scale in", "keep", "scale out"}[s]
}

// The metrics of ECS that are read, of the namespace AWS/ECS, with the dimension
// ClusterName (Amazon ECS Developer Guide, "CloudWatch metrics").
const (
	cpuReservation    = "CPUReservation"
	memoryReservation = "MemoryReservation"
)

// Reading is what ECS says of one resource of a cluster.
type Reading struct {
	// Metric is CPUReservation or MemoryReservation.
	Metric string `json:"metric"`
	// Percent is the part that tasks have reserved, At the minute it is of. Both
	// are nil where there is none.
	Percent *float64   `json:"percent,omitempty"`
	At      *time.Time `json:"at,omitempty"`
	// Missing is why the reading cannot be used; "" if it can.
	Missing string `json:"missing,omitempty"`
	// Max and Min are the thresholds that it is held against, in percent.
	Max float64 `json:"max"`
	Min float64 `json:"min"`
}

// judge marks a reading as missing that is too old, or no percentage.
func (r *Reading) judge(now time.Time, maxAge time.Duration) {
	switch {
	case r.Missing != "":
	case r.Percent == nil || r.At == nil:
		r.Missing = "ECS says nothing: is the name right, and are there hosts?"
	case math.IsNaN(*r.Percent) || math.IsInf(*r.Percent, 0) || *r.Percent < 0:
		r.Missing = fmt.Sprintf("%v is no percentage", *r.Percent)
		r.Percent = nil
	case now.Sub(*r.At) > maxAge:
		r.Missing = fmt.Sprintf("the newest is %s old, more than %v", now.Sub(*r.At).Round(time.Second), config.Duration(maxAge))
	}
}

// resource returns what the reading is about, for people.
func (r Reading) resource() string {
	if r.Metric == cpuReservation {
		return "CPU"
	}
	return "memory"
}

func (r Reading) value() string { return strconv.FormatFloat(*r.Percent, 'g', 6, 64) + "%" }

// decide returns the status for the readings, and why. It is ScaleOut if one is
// at its maximum or above, ScaleIn if all are at their minimum or below, else
// Keep. One that is missing may be anything: it never makes for ScaleIn, and
// keeps none from ScaleOut.
func decide(readings ...Reading) (Status, string) {
	var full, missing, between, gone []string
	for _, r := range readings {
		switch {
		case r.Missing != "":
			missing = append(missing, fmt.Sprintf("%s is missing (%s)", r.Metric, r.Missing))
			if gone = append(gone, r.Missing); len(gone) > 1 && gone[0] == r.Missing {
				missing = []string{fmt.Sprintf("%s and %s are missing (%s)", readings[0].Metric, r.Metric, r.Missing)}
			}
		case *r.Percent >= r.Max:
			full = append(full, fmt.Sprintf("%s of %s is reserved, at least %v%%", r.value(), r.resource(), r.Max))
		case *r.Percent > r.Min:
			between = append(between, fmt.Sprintf("%s of %s is reserved, more than %v%%", r.value(), r.resource(), r.Min))
		}
	}
	switch {
	case len(full) > 0:
		return ScaleOut, strings.Join(full, ", and ")
	case len(missing) > 0:
		return Keep, strings.Join(missing, ", and ") + ": nothing is removed on no word"
	case len(between) > 0:
		return Keep, strings.Join(between, ", and ")
	}
	return ScaleIn, "neither of CPU nor of memory is more than the minimum reserved"
}
