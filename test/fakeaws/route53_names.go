package fakeaws

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// parseName returns a domain name in lower case, with the final dot and with
// escapes (\052) resolved, or why Route 53 would not take it (Developer Guide,
// "DNS domain name format").
func parseName(s string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '\\' {
			n, err := strconv.ParseUint(s[i+1:min(i+4, len(s))], 8, 8)
			if err != nil || i+4 > len(s) {
				return "", refusef("FATAL problem: BadEscape encountered with '%s'", s)
			}
			c, i = byte(n), i+3
		} else if c <= ' ' || c >= 0x7f {
			return "", refusef("FATAL problem: UnsupportedCharacter (Value contains unsupported characters) encountered with '%s'", s)
		}
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		b.WriteByte(c)
	}
	name := strings.TrimSuffix(b.String(), ".")
	if len(name) > 253 {
		return "", refusef("FATAL problem: DomainNameTooLong (Domain name is too long) encountered with '%s'", s)
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" {
			return "", refusef("FATAL problem: DomainLabelEmpty (Domain label is empty) encountered with '%s'", s)
		}
		if len(label) > 63 {
			return "", refusef("FATAL problem: DomainLabelTooLong (Domain label is too long) encountered with '%s'", s)
		}
	}
	return name + ".", nil
}

// escapeName returns a name as Route 53 answers it: what is not a letter, a
// digit, a hyphen or an underscore as three octal digits.
func escapeName(name string) string {
	var b strings.Builder
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_', c == '.':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "\\%03o", c)
		}
	}
	return b.String()
}

// reverse turns the labels of a name around: com.example.www.
func reverse(name string) string {
	labels := strings.Split(strings.TrimSuffix(name, "."), ".")
	slices.Reverse(labels)
	return strings.Join(labels, ".") + "."
}

// parseSRV returns why a value is no SRV record's, or nil: priority, weight and
// port from 0 to 65535, and a target (RFC 2782).
func parseSRV(value string) error {
	fields := strings.Split(value, " ")
	if len(fields) != 4 {
		return refusef("FATAL problem: SRVRRDATANotFourFields (Value must have four fields) encountered with '%s'", value)
	}
	for _, f := range fields[:3] {
		if _, err := strconv.ParseUint(f, 10, 16); err != nil || f != "0" && f[0] == '0' {
			return refusef("FATAL problem: SRVRRDATAIllegalNumber (Value is not a number from 0 to 65535) encountered with '%s'", value)
		}
	}
	if _, err := parseName(fields[3]); err != nil && fields[3] != "." {
		return err
	}
	return nil
}

// parseValue returns why a value cannot be one of this type, or nil.
func parseValue(rrtype, value string) error {
	switch rrtype {
	case "SRV":
		return parseSRV(value)
	case "A":
		if a, err := netip.ParseAddr(value); err != nil || !a.Is4() {
			return refusef("FATAL problem: ARRDATAIllegalIPv4Address (Value is not a valid IPv4 address) encountered with '%s'", value)
		}
	case "AAAA":
		if a, err := netip.ParseAddr(value); err != nil || !a.Is6() || a.Zone() != "" {
			return refusef("FATAL problem: AAAARRDATAIllegalIPv6Address (Value is not a valid IPv6 address) encountered with '%s'", value)
		}
	case "CNAME", "NS", "PTR":
		if _, err := parseName(value); err != nil {
			return err
		}
	case "TXT":
		if len(value) < 2 || value[0] != '"' || value[len(value)-1] != '"' {
			return refusef("FATAL problem: InvalidCharacterString (Value should be enclosed in quotation marks) encountered with '%s'", value)
		}
	}
	return nil
}

// refusal is what Route 53 says of a change, in its own words.
type refusal string

func (r refusal) Error() string { return string(r) }

func refusef(format string, args ...any) error { return refusal(fmt.Sprintf(format, args...)) }
