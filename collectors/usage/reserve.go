package usage

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/config"
)

// Labels of ours, and the variables that mean the same; a label wins.
const (
	labelCPU         = "berth.cpu"    // cores: 0.5, 2, 250m
	labelMemory      = "berth.memory" // a size: 512MiB
	labelService     = "berth.service"
	labelEnvironment = "berth.environment" // such as prod
	labelCritical    = "berth.critical"    // true or false

	variableCPU         = "BERTH_CPU"
	variableMemory      = "BERTH_MEMORY"
	variableService     = "BERTH_SERVICE"
	variableEnvironment = "BERTH_ENVIRONMENT"
	variableCritical    = "BERTH_CRITICAL"
)

// Labels and variables of Datadog's unified service tagging, which say the same
// as ours.
const (
	datadogService     = "com.datadoghq.tags.service"
	datadogEnvironment = "com.datadoghq.tags.env"

	datadogServiceVariable     = "DD_SERVICE"
	datadogEnvironmentVariable = "DD_ENV"
)

// sharesPerCore is what one core is in CPU shares, as Docker, ECS and Mesos have
// it, and the kernel's default for a cgroup.
const sharesPerCore = 1024

// ecsNone is the number of CPU shares by which the ECS agent says that nothing
// is reserved: the least that the kernel takes.
const ecsNone = 2

// most bounds what can be meant: more cores than the kernel counts (CONFIG_NR_CPUS
// is 8192 at most on the platforms that Docker knows).
const mostCores = 8192

// refusal is one setting that is not understood. It spoils that setting alone.
type refusal struct{ subject, why, fix string }

// claims reads what a container reserves. MHz is the clock rate of the host's
// cores, in which Nomad counts, 0 if not known.
func claims(c *agent.Container, mhz float64) (Reservation, []refusal) {
	r := reserving{c: c, mhz: mhz, origin: agent.OriginOf(c).Orchestrator}
	r.out.CPUSource, r.out.MemorySource = SourceNone, SourceNone
	for _, ask := range []struct {
		source string
		cores  func() float64
	}{
		{SourceOwn, r.ownCPU},
		{SourceMarathon, r.marathonCPU},
		{SourceNomad, r.nomadCPU},
		{SourceECS, r.ecsCPU},
		{SourceCPUs, func() float64 { return float64(max(0, c.Resources.NanoCPUs)) / 1e9 }},
		{SourceQuota, r.quota},
		{SourceShares, r.shares},
	} {
		if v := ask.cores(); v > 0 {
			r.out.Cores, r.out.CPUSource = v, ask.source
			break
		}
	}
	for _, ask := range []struct {
		source string
		bytes  func() uint64
	}{
		{SourceOwn, r.ownMemory},
		{SourceMarathon, func() uint64 { return r.mebibytes("MARATHON_APP_RESOURCE_MEM") }},
		{SourceNomad, func() uint64 { return r.mebibytes("NOMAD_MEMORY_LIMIT") }},
		{SourceSoft, func() uint64 { return uint64(max(0, c.Resources.MemoryLow)) }},
		{SourceLimit, func() uint64 { return uint64(max(0, c.Resources.Memory)) }},
	} {
		if v := ask.bytes(); v > 0 {
			r.out.Memory, r.out.MemorySource = v, ask.source
			break
		}
	}
	r.limits()
	return r.out, r.refused
}

type reserving struct {
	c       *agent.Container
	mhz     float64
	origin  string
	out     Reservation
	refused []refusal
}

func (r *reserving) refuse(subject, fix, format string, args ...any) {
	r.refused = append(r.refused, refusal{subject, fmt.Sprintf(format, args...), fix})
}

// own returns a setting of ours and what it is called; "" where there is none.
func own(c *agent.Container, label, variable string) (value, subject string) {
	if v := c.Labels[label]; v != "" {
		return v, "label " + label
	}
	return c.Env[variable], "variable " + variable
}

func (r *reserving) ownCPU() float64 {
	v, subject := own(r.c, labelCPU, variableCPU)
	if v == "" {
		return 0
	}
	cores, err := parseCores(v)
	if err != nil {
		r.refuse(subject, "write it as 0.5, 2 or 250m", "%v", err)
	}
	return cores
}

// parseCores reads a number of cores: 0.5, 2, or in thousandths, 250m.
func parseCores(s string) (float64, error) {
	text, milli := strings.CutSuffix(strings.TrimSpace(s), "m")
	// ParseFloat knows more forms of numbers than people mean.
	for _, r := range text {
		if (r < '0' || r > '9') && r != '.' {
			return 0, fmt.Errorf("%s is no number of cores", quote(s))
		}
	}
	v, err := strconv.ParseFloat(text, 64)
	if milli {
		v /= 1000
	}
	switch {
	case err != nil:
		return 0, fmt.Errorf("%s is no number of cores", quote(s))
	case v == 0:
		return 0, errors.New("0 cores cannot be reserved")
	case v > mostCores:
		return 0, fmt.Errorf("%s cores are more than any host has", quote(s))
	}
	return v, nil
}

// quote quotes what may be of any length.
func quote(s string) string {
	const most = 40
	if len(s) > most {
		return strconv.Quote(s[:most]) + "…"
	}
	return strconv.Quote(s)
}

// scheduled reads a variable that a scheduler sets.
func (r *reserving) scheduled(variable string) float64 {
	text := r.c.Env[variable]
	if text == "" {
		return 0
	}
	v, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if err != nil || !(v >= 0) || math.IsInf(v, 1) {
		r.refuse("variable "+variable, "", "%s is no number", quote(text))
		return 0
	}
	return v
}

func (r *reserving) marathonCPU() float64 { return r.scheduled("MARATHON_APP_RESOURCE_CPUS") }

// nomadCPU reads a set of cores, or MHz of the host's cores, which are more on a
// fast host than on a slow one.
func (r *reserving) nomadCPU() float64 {
	if set := r.c.Env["NOMAD_CPU_CORES"]; set != "" {
		if n, ok := cpus(set); ok {
			return float64(n)
		}
		r.refuse("variable NOMAD_CPU_CORES", "", "%s is no list of cores", quote(set))
	}
	mhz := r.scheduled("NOMAD_CPU_LIMIT")
	if mhz > 0 && r.mhz == 0 {
		r.refuse("variable NOMAD_CPU_LIMIT", "set usage.core_mhz to what Nomad takes for the rate of a core",
			"it is in MHz, and the clock rate of this host's cores is not known")
		return 0
	}
	if mhz == 0 {
		return 0
	}
	return mhz / r.mhz
}

func (r *reserving) ecsCPU() float64 {
	if shares := r.c.Resources.CPUShares; r.c.OfECS() && shares > ecsNone {
		return float64(shares) / sharesPerCore
	}
	return 0
}

func (r *reserving) quota() float64 {
	return quotaCores(r.c.Resources)
}

func quotaCores(res agent.Resources) float64 {
	if res.CPUQuota <= 0 {
		return 0
	}
	period := res.CPUPeriod
	if period <= 0 {
		period = 100_000 // the kernel's default, 100 ms
	}
	return float64(res.CPUQuota) / float64(period)
}

// shares are cores for who sets them by hand, or by Marathon or compose. Those of
// ECS were asked, and those of Nomad are MHz.
func (r *reserving) shares() float64 {
	if r.origin == "ecs" || r.origin == "nomad" {
		return 0
	}
	return float64(max(0, r.c.Resources.CPUShares)) / sharesPerCore
}

func (r *reserving) ownMemory() uint64 {
	v, subject := own(r.c, labelMemory, variableMemory)
	if v == "" {
		return 0
	}
	var size config.Size
	if err := size.UnmarshalText([]byte(v)); err != nil {
		r.refuse(subject, "write it as 512MiB or 2GiB", "%s is no size", quote(v))
		return 0
	}
	if size == 0 {
		r.refuse(subject, "write it as 512MiB or 2GiB", "no memory cannot be reserved")
	}
	return uint64(size)
}

// mebibytes reads a scheduler's variable that is in MiB.
func (r *reserving) mebibytes(variable string) uint64 {
	v := r.scheduled(variable) * (1 << 20)
	if v >= 1<<63 {
		r.refuse("variable "+variable, "", "%s MiB are more than any host has", quote(r.c.Env[variable]))
		return 0
	}
	return uint64(v)
}

// limits notes what the kernel will not let the container exceed.
func (r *reserving) limits() {
	res := r.c.Resources
	lower := func(v float64) {
		if v > 0 && (r.out.CPULimit == 0 || v < r.out.CPULimit) {
			r.out.CPULimit = v
		}
	}
	lower(float64(res.NanoCPUs) / 1e9)
	lower(quotaCores(res))
	if n, ok := cpus(res.Cpuset); ok {
		lower(float64(n))
	}
	r.out.MemoryLimit = uint64(max(0, res.Memory))
}

// cpus counts a list of CPUs as the kernel writes it: "0-2,7". It fails for an
// empty one.
func cpus(list string) (n int, ok bool) {
	for part := range strings.SplitSeq(strings.TrimSpace(list), ",") {
		from, to, isRange := strings.Cut(part, "-")
		a, err := strconv.ParseUint(from, 10, 16)
		b := a
		if err == nil && isRange {
			b, err = strconv.ParseUint(to, 10, 16)
		}
		if err != nil || b < a {
			return 0, false
		}
		n += int(b-a) + 1
	}
	return n, true
}

// identify says who a container is for the statistics.
func identify(c *agent.Container, environment, instanceType string) (Subject, []refusal) {
	s := Subject{ID: c.ID, Name: c.Name, InstanceType: instanceType, Environment: environment, Service: serviceOf(c)}
	if v, _ := own(c, labelEnvironment, variableEnvironment); v != "" {
		s.Environment = v
	} else if v, _ := own(c, datadogEnvironment, datadogEnvironmentVariable); v != "" {
		s.Environment = v
	}
	var refused []refusal
	if v, subject := own(c, labelCritical, variableCritical); v != "" {
		critical, err := strconv.ParseBool(v)
		if err != nil {
			refused = append(refused, refusal{subject, quote(v) + " is neither true nor false", "write true or false"})
		}
		s.Critical = critical
	}
	return s, refused
}

// serviceOf names the service that a container is one of: as its labels say, or
// its orchestrator, or its image's name. Where one service of an orchestrator has
// containers of several kinds, each kind is one.
func serviceOf(c *agent.Container) string {
	if v, _ := own(c, labelService, variableService); v != "" {
		return v
	}
	if v, _ := own(c, datadogService, datadogServiceVariable); v != "" {
		return v
	}
	o := agent.OriginOf(c)
	switch {
	case o.Orchestrator == "compose" && o.Service != "":
		return o.Cluster + "/" + o.Service
	case o.Orchestrator == "swarm" && o.Cluster != "":
		return o.Cluster + "/" + o.Service
	case o.Service != "" && o.Container != "" && o.Container != o.Service:
		return o.Service + "/" + o.Container
	case o.Service != "":
		return o.Service
	}
	if image := imageName(c.Image); image != "" {
		return image
	}
	return "unknown"
}

// imageName returns the last part of an image's name: calc for
// registry:5000/team/calc:1.2@sha256:…
func imageName(ref string) string {
	ref, _, _ = strings.Cut(ref, "@")
	ref = ref[strings.LastIndexByte(ref, '/')+1:]
	name, _, _ := strings.Cut(ref, ":")
	return name
}
