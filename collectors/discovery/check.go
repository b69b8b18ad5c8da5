package discovery

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// check is how a port is checked. It is immutable.
type check struct {
	path     string // what to GET; empty for a check that only connects
	from     string // what asks for it: "label SERVICE_80_CHECK_HTTP"
	interval time.Duration
	timeout  time.Duration
	rise     int
	fall     int
	trusted  bool // a new run is in until it is proven wrong
}

// maxCounts is the highest rise and fall.
const maxCounts = 100

// check reads how a port is to be checked; nil stands for not at all. What is
// wrong with the kind of check spoils the check, what is wrong with a number of
// it that number.
func (b *planner) check(port uint16) *check {
	s, cfg := b.settings, &b.rules.cfg.Checks
	b.otherChecks(port)
	key, path := keyCheckHTTP, ""
	asked, _ := s.lookup(port, key)
	if path = asked.value; path == "" {
		key = keyCheckTCP
		asked, _ = s.lookup(port, key)
	}
	switch protos := b.protos(port); {
	case asked.value == "":
		return nil
	case path != "" && !isPath(path):
		s.refuse(asked, fmt.Sprintf("%q is not the path of a URL; there is no check", path), "write it as /health")
		return nil
	case !cfg.Enabled:
		b.note(asked.from, Ignored, "checks are off on this host", "set discovery.checks.enabled")
		return nil
	case len(protos) > 0 && !slices.Contains(protos, "tcp"):
		rule := fmt.Sprintf("port %d is a %s port, and a check needs tcp; there is no check", port, strings.Join(protos, " and "))
		if _, own := s.values[settingKey{port, key}]; own {
			s.refuse(asked, rule, fmt.Sprintf("publish %d/tcp, too, or remove it", port))
		} else {
			b.note(strconv.Itoa(int(port)), Ignored, asked.from+": "+rule, "")
		}
		return nil
	}
	c := &check{path: path, from: asked.from}
	c.interval = s.interval(port, cfg)
	c.timeout = s.timeout(port, c.interval, cfg)
	c.rise = s.counts(port, keyCheckRise, cfg.Rise)
	c.fall = s.counts(port, keyCheckFall, cfg.Fall)
	c.trusted = s.initial(port)
	return c
}

// otherChecks notes the checks of registrator that berth does not have.
func (b *planner) otherChecks(port uint16) {
	for _, key := range b.settings.keys(port) {
		v, _ := b.settings.lookup(port, key)
		if strings.HasPrefix(key, checkPrefix) && v.value != "" && !slices.Contains(checkKeys, key) {
			b.note(v.from, Noted, "it is shown and does nothing: the checks are CHECK_HTTP and CHECK_TCP", "")
		}
	}
}

// isPath reports whether a value can stand in a request as it is.
func isPath(value string) bool {
	u, err := url.ParseRequestURI(value)
	return err == nil && strings.HasPrefix(value, "/") && !strings.HasPrefix(value, "//") && u.Host == ""
}

func (s *settings) interval(port uint16, cfg *ChecksConfig) time.Duration {
	v, _ := s.lookup(port, keyCheckInterval)
	if v.value == "" {
		return cfg.Interval.Std()
	}
	d, err := parseSeconds(v.value)
	switch {
	case err != nil || d > maxInterval:
		s.refuse(v, fmt.Sprintf("%q is not a time up to %v; %v is used", v.value, maxInterval, cfg.Interval), "write whole seconds, or a duration such as 10s")
		return cfg.Interval.Std()
	case d < cfg.MinInterval.Std():
		s.refuse(v, fmt.Sprintf("%v is more often than discovery.checks.min_interval allows; %v is used", d, cfg.MinInterval), "write a longer time")
		return cfg.MinInterval.Std()
	}
	return d
}

func (s *settings) timeout(port uint16, interval time.Duration, cfg *ChecksConfig) time.Duration {
	fallback := min(cfg.Timeout.Std(), interval)
	v, _ := s.lookup(port, keyCheckTimeout)
	if v.value == "" {
		return fallback
	}
	d, err := parseSeconds(v.value)
	switch {
	case err != nil || d <= 0:
		s.refuse(v, fmt.Sprintf("%q is not a time; %v is used", v.value, fallback), "write whole seconds, or a duration such as 500ms")
		return fallback
	case d > interval:
		s.refuse(v, fmt.Sprintf("%v is longer than the interval; %v is used", d, interval), "write a shorter time, or a longer interval")
		return interval
	}
	return d
}

// counts reads RISE or FALL.
func (s *settings) counts(port uint16, key string, fallback int) int {
	v, _ := s.lookup(port, key)
	if v.value == "" {
		return fallback
	}
	n, err := strconv.Atoi(v.value)
	if err != nil || n < 1 || n > maxCounts {
		s.refuse(v, fmt.Sprintf("%q is not a number from 1 to %d; %d is used", v.value, maxCounts, fallback), "write a number")
		return fallback
	}
	return n
}

// initial reads INITIAL_STATUS, in Consul's words.
func (s *settings) initial(port uint16) (trusted bool) {
	switch v, _ := s.lookup(port, keyCheckInitial); strings.ToLower(v.value) {
	case "passing", "warning":
		return true
	case "", "critical":
	default:
		s.refuse(v, fmt.Sprintf("%q is not a status; critical is used", v.value), "write passing or critical")
	}
	return false
}
