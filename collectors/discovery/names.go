package discovery

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
)

// maxName and maxLabel are the longest name and label, in bytes, as people
// write them: without the final dot (RFC 1035 §2.3.4).
const (
	maxName  = 253
	maxLabel = 63
)

// serviceName is a valid name that a container claims, in lower case.
//
// RFC 6335 §5.1 limits registered service names to 15 characters with at least
// one letter. Most names that people give to services are not registered ones,
// and no resolver minds: this is not enforced.
type serviceName struct {
	service string // "calc", without the underscore
	proto   string // "tcp", "udp" or "sctp" of "_calc._tcp"; empty for a plain name
	below   string // further labels between service and domain: "prod", or ""
}

// parseName reads `calc`, `_calc._tcp`, either with further labels
// (`calc.prod`), and either with the domain itself (`calc.berth.internal`).
// Anything that is no valid name, or lies outside of the domain, is an error
// which says what is wrong.
func parseName(value, domain string) (serviceName, error) {
	text := lower(strings.TrimSpace(value))
	if text == "" {
		return serviceName{}, errors.New("is empty")
	}
	absolute := strings.HasSuffix(text, ".") && !strings.HasSuffix(text, "..")
	text = strings.TrimSuffix(text, ".")
	relative, inside := strings.CutSuffix(text, "."+domain)
	if absolute && !inside {
		return serviceName{}, fmt.Errorf("ends in a dot, and is not below %s", domain)
	}
	var n serviceName
	labels := strings.Split(relative, ".")
	if service, ok := strings.CutPrefix(labels[0], "_"); ok {
		if len(labels) < 2 || !knownProto(strings.TrimPrefix(labels[1], "_")) || labels[1][0] != '_' {
			return serviceName{}, errors.New("begins with an underscore but has no protocol after it: write _calc._tcp, _calc._udp, or plain calc")
		}
		n.proto, labels = labels[1][1:], append([]string{service}, labels[2:]...)
	}
	for i, label := range labels {
		limit := maxLabel
		if i == 0 {
			limit-- // for the underscore in front of it
		}
		if err := checkLabel(label, limit); err != nil {
			return serviceName{}, err
		}
	}
	n.service, n.below = labels[0], strings.Join(labels[1:], ".")
	return n, n.checkLength(domain)
}

// checkLength refuses a name that is too long with the longest protocol.
func (n serviceName) checkLength(domain string) error {
	if size := len(n.srv("sctp", domain+".")) - 1; size > maxName {
		return fmt.Errorf("is %d bytes long with its domain, and a name has at most %d", size, maxName)
	}
	return nil
}

// withPort returns the name that one of several ports gets: calc-8080.
func (n serviceName) withPort(port uint16, domain string) (serviceName, error) {
	n.service += "-" + strconv.Itoa(int(port))
	if len(n.service) > maxLabel-1 {
		return n, fmt.Errorf("has a label longer than %d bytes with the port number that tells its ports apart", maxLabel-1)
	}
	return n, n.checkLength(domain)
}

// String returns the name as its label has it: calc.prod or _calc._tcp.prod.
func (n serviceName) String() string {
	s := n.service
	if n.proto != "" {
		s = "_" + n.service + "._" + n.proto
	}
	if n.below != "" {
		s += "." + n.below
	}
	return s
}

// plain returns the name without underscores and protocol.
func (n serviceName) plain() string {
	n.proto = ""
	return n.String()
}

// srv returns the name of the SRV records: _calc._tcp.berth.internal.
func (n serviceName) srv(proto, zone string) string {
	n.proto = proto
	return n.String() + "." + zone
}

// alias returns the name under which a plain name is found, too, or "".
func (n serviceName) alias(zone string) string {
	if n.proto != "" {
		return ""
	}
	return n.String() + "." + zone
}

// hides reports whether a plain name is that of the host, or below it, where
// the addresses of targets live.
func (n serviceName) hides(nodeLabel string) bool {
	if n.proto != "" {
		return false
	}
	s := n.String()
	return s == nodeLabel || strings.HasSuffix(s, "."+nodeLabel)
}

// allowed reports whether the name matches one of the patterns, or there are
// none.
func (n serviceName) allowed(patterns []string, proto string) bool {
	if len(patterns) == 0 {
		return true
	}
	plain := n.plain()
	n.proto = proto
	full := n.String()
	for _, p := range patterns {
		if ok, _ := path.Match(p, plain); ok {
			return true
		}
		if ok, _ := path.Match(p, full); ok {
			return true
		}
	}
	return false
}

// knownProto reports whether the engine publishes ports of this protocol.
func knownProto(proto string) bool {
	return proto == "tcp" || proto == "udp" || proto == "sctp"
}

// checkLabel accepts a label of letters, digits and hyphens, with no hyphen at
// its ends (RFC 1123 §2.1).
func checkLabel(label string, limit int) error {
	if label == "" {
		return errors.New("has an empty label (a dot too many)")
	}
	if len(label) > limit {
		return fmt.Errorf("has a label of %d bytes, and at most %d are possible here", len(label), limit)
	}
	for _, r := range label {
		switch {
		case r == '*':
			return errors.New("has a wildcard, which would answer for every other name")
		case r == '_':
			return fmt.Errorf("has an underscore inside of %q: use a hyphen", label)
		case !isLDH(r):
			return fmt.Errorf("has %q in it: only letters, digits and hyphens are possible", r)
		}
	}
	if label[0] == '-' || label[len(label)-1] == '-' {
		return fmt.Errorf("has a hyphen at an end of %q", label)
	}
	return nil
}

func isLDH(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-'
}

// lower folds ASCII letters alone: strings.ToLower makes a k of the Kelvin
// sign, which would let a name in that only looks like another.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// Label makes a DNS label of any text: lower case, with a hyphen for each run
// of characters that a label cannot have, cut to 62 bytes (an underscore fits
// in front of it). It returns "" if nothing is left.
func Label(text string) string {
	var b strings.Builder
	for _, r := range lower(text) {
		if isLDH(r) && r != '-' {
			b.WriteRune(r)
		} else if b.Len() > 0 && !strings.HasSuffix(b.String(), "-") {
			b.WriteByte('-')
		}
	}
	s := b.String()
	return strings.TrimRight(s[:min(len(s), maxLabel-1)], "-")
}
