package discovery

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/berthd/berth/agent"
)

// keyPrefix begins every label and variable that says something of a service.
// It is case-sensitive; what follows it is not.
const keyPrefix = "SERVICE_"

// settingKey is a key without its prefix: SERVICE_80_NAME is {80, "NAME"}, and
// SERVICE_NAME is {0, "NAME"}, which holds for every port.
type settingKey struct {
	port uint16
	key  string // upper case
}

// setting is what one label or variable says.
type setting struct {
	value string
	from  string // "label SERVICE_80_NAME"
}

// settings is all that a container's labels and variables say.
type settings struct {
	values map[settingKey]setting
	notes  []agent.Reason // of keys that do not count, in the order of the keys
}

// collect reads a container's labels and environment. Where two of them set the
// same key, a label wins over a variable, and among keys that differ in case
// alone the first in byte order wins.
func collect(c *agent.Container) settings {
	var s settings
	s.add("label", c.Labels)
	s.add("variable", c.Env)
	return s
}

func (s *settings) add(kind string, pairs map[string]string) {
	var keys []string
	for k := range pairs {
		if strings.HasPrefix(k, keyPrefix) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		from := kind + " " + k
		sk, err := parseKey(k)
		if err != nil {
			s.notes = append(s.notes, agent.Reason{
				Subject: from, Verdict: Refused, Rule: err.Error(), Fix: "write SERVICE_<container port>_NAME=<name>",
			})
			continue
		}
		if winner, taken := s.values[sk]; taken {
			s.notes = append(s.notes, agent.Reason{
				Subject: from, Verdict: Ignored, Rule: winner.from + " sets the same key and comes first",
				Fix: "remove one of the two",
			})
			continue
		}
		if s.values == nil {
			s.values = make(map[settingKey]setting)
		}
		s.values[sk] = setting{strings.TrimSpace(pairs[k]), from}
	}
}

// parseKey splits a whole key into its port, 0 for none, and the rest in upper
// case.
func parseKey(k string) (settingKey, error) {
	rest := strings.ToUpper(strings.TrimPrefix(k, keyPrefix))
	digits := 0
	for digits < len(rest) && rest[digits] >= '0' && rest[digits] <= '9' {
		digits++
	}
	if digits == 0 || (digits < len(rest) && rest[digits] != '_') {
		if rest == "" {
			return settingKey{}, fmt.Errorf("nothing follows %s", keyPrefix)
		}
		return settingKey{0, rest}, nil
	}
	port, err := strconv.ParseUint(rest[:digits], 10, 16)
	if err != nil || port == 0 {
		return settingKey{}, fmt.Errorf("%s is not a port: ports are 1 to 65535", rest[:digits])
	}
	key := strings.TrimPrefix(rest[digits:], "_")
	if key == "" {
		return settingKey{}, fmt.Errorf("no key follows the port %d", port)
	}
	return settingKey{uint16(port), key}, nil
}

// lookup returns what is said of a port: by its own key, even if that is empty,
// or otherwise by the general one.
func (s *settings) lookup(port uint16, key string) (setting, bool) {
	if v, ok := s.values[settingKey{port, key}]; ok {
		return v, true
	}
	v, ok := s.values[settingKey{0, key}]
	return v, ok
}

// ports returns the ports that have keys of their own, sorted.
func (s *settings) ports() []uint16 {
	var ports []uint16
	for k := range s.values {
		if k.port != 0 {
			ports = append(ports, k.port)
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

// options is what is said of one port besides its names.
type options struct {
	id         string
	tags       []string
	network    string
	priority   uint16
	weight     uint16
	ttl        uint32
	checks     map[string]string // CHECK_HTTP and its like, as written
	check      *check            // what comes of them; nil for no check
	attributes map[string]string
}

// options reads everything that is said of a port. A value that cannot be used
// is noted, and the default of the configuration takes its place.
func (s *settings) options(port uint16, cfg *Config) options {
	o := options{priority: cfg.Priority, weight: cfg.Weight, ttl: seconds(cfg.TTL.Std())}
	for _, key := range s.keys(port) {
		v, _ := s.lookup(port, key)
		if v.value == "" {
			continue
		}
		switch key {
		case keyName, keyIgnore:
		case keyID:
			o.id = v.value
		case keyTags:
			o.tags = splitList(v.value)
		case keyNetwork:
			o.network = v.value
		case keyPriority:
			o.priority = s.number(v, cfg.Priority)
		case keyWeight:
			o.weight = s.number(v, cfg.Weight)
		case keyTTL:
			o.ttl = s.ttl(v, cfg.TTL.Std())
		default:
			if strings.HasPrefix(key, checkPrefix) {
				put(&o.checks, strings.ToLower(strings.TrimPrefix(key, checkPrefix)), v.value)
			} else {
				put(&o.attributes, strings.ToLower(key), v.value)
			}
		}
	}
	return o
}

// keys returns the keys that say something of a port, its own and the general
// ones, sorted.
func (s *settings) keys(port uint16) []string {
	var keys []string
	for k := range maps.Keys(s.values) {
		if k.port == port || k.port == 0 {
			keys = append(keys, k.key)
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

func (s *settings) number(v setting, fallback uint16) uint16 {
	n, err := strconv.ParseUint(v.value, 10, 16)
	if err != nil {
		s.refuse(v, fmt.Sprintf("%q is not a number from 0 to 65535; %d is used", v.value, fallback), "write a number")
		return fallback
	}
	return uint16(n)
}

// ttl reads whole seconds ("30") or a duration ("30s", "5m").
func (s *settings) ttl(v setting, fallback time.Duration) uint32 {
	d, err := parseSeconds(v.value)
	if err != nil || d < 0 || d > maxTTL || d%time.Second != 0 {
		s.refuse(v, fmt.Sprintf("%q is not a TTL from 0 to %d seconds; %v is used", v.value, seconds(maxTTL), fallback), "write whole seconds")
		return seconds(fallback)
	}
	return seconds(d)
}

// parseSeconds reads whole seconds or a duration.
func parseSeconds(value string) (time.Duration, error) {
	if n, err := strconv.ParseUint(value, 10, 32); err == nil {
		return time.Duration(n) * time.Second, nil
	}
	return time.ParseDuration(value)
}

// refuse notes a value that cannot be used, once, however many ports it is
// said of.
func (s *settings) refuse(v setting, rule, fix string) {
	note := agent.Reason{Subject: v.from, Verdict: Refused, Rule: rule, Fix: fix}
	if !slices.Contains(s.notes, note) {
		s.notes = append(s.notes, note)
	}
}

// splitList splits at commas, and drops blanks and empty parts.
func splitList(value string) []string {
	var list []string
	for part := range strings.SplitSeq(value, ",") {
		if part = strings.TrimSpace(part); part != "" {
			list = append(list, part)
		}
	}
	return list
}

func put(m *map[string]string, key, value string) {
	if *m == nil {
		*m = make(map[string]string)
	}
	(*m)[key] = value
}

// comparePorts orders by number, then protocol.
func comparePorts(a, b agent.Port) int {
	return cmp.Or(cmp.Compare(a.Container, b.Container), cmp.Compare(a.Proto, b.Proto))
}
