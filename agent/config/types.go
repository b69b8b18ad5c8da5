package config

import (
	"fmt"
	"math"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Duration is a length of time as people write it: "90s", "1h30m", "7d". It is
// never negative. A bare number has no unit, and is an error, except 0.
type Duration time.Duration

// day is exact: a Duration measures elapsed time, not calendars.
const day = 24 * time.Hour

var durationUnits = map[string]time.Duration{
	"ns": time.Nanosecond, "us": time.Microsecond, "µs": time.Microsecond, "ms": time.Millisecond,
	"s": time.Second, "m": time.Minute, "h": time.Hour, "d": day,
}

var durationPart = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?)([a-zµ]+)`)

// Std returns the duration as the standard library has it.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String returns the canonical form, the largest units first: "1d12h", "1m30s",
// "250ms", "0s".
func (d Duration) String() string {
	t := time.Duration(d)
	if t < day {
		return trimZeroUnits(t.String())
	}
	s := fmt.Sprintf("%dd", t/day)
	if t%day != 0 {
		s += trimZeroUnits((t % day).String())
	}
	return s
}

// trimZeroUnits turns the standard library's "1h0m0s" into "1h".
func trimZeroUnits(s string) string {
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// MarshalText returns the canonical form.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText accepts numbers with the units ns, us, ms, s, m, h and d (24
// hours), and sums of these.
func (d *Duration) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	name, example := d.ConfigType()
	bad := &hintError{msg: quoteShort(s) + " is not a duration", hint: "write " + name + ", such as " + example}
	if s == "0" {
		*d = 0
		return nil
	}
	if _, err := strconv.ParseFloat(s, 64); err == nil && s[0] >= '0' && s[0] <= '9' {
		return &hintError{msg: fmt.Sprintf("the duration %s has no unit", s), hint: fmt.Sprintf("write %ss for seconds, %sm for minutes, or another of ms, h, d", s, s)}
	}
	if strings.HasPrefix(s, "-") {
		return &hintError{msg: "a duration cannot be negative", hint: bad.hint}
	}
	if s == "" {
		return bad
	}
	sum := new(big.Rat)
	for s != "" {
		part := durationPart.FindStringSubmatch(s)
		if part == nil {
			return bad
		}
		unit, ok := durationUnits[part[2]]
		if !ok {
			return &hintError{msg: fmt.Sprintf("%q is not a unit of time", part[2]), hint: "the units are ns, us, ms, s, m, h, d"}
		}
		n, _ := new(big.Rat).SetString(part[1])
		sum.Add(sum, n.Mul(n, new(big.Rat).SetInt64(int64(unit))))
		s = s[len(part[0]):]
	}
	if !sum.IsInt() {
		return &hintError{msg: "a duration cannot be finer than 1ns", hint: bad.hint}
	}
	if !sum.Num().IsInt64() {
		return &hintError{msg: "the duration is too long", hint: "the longest is " + Duration(math.MaxInt64).String()}
	}
	*d = Duration(sum.Num().Int64())
	return nil
}

// ConfigType implements Describer.
func (Duration) ConfigType() (name, example string) { return "a duration", "30s, 1h30m or 7d" }

// Size is a number of bytes as people write it: "64MiB", "1GB", "512B". It is
// never negative. A bare number is an error, except 0: too many have meant
// kilobytes by one.
type Size int64

// The units, binary ones (IEC 80000-13) and decimal ones (SI), largest first.
var sizeUnits = []struct {
	name  string
	bytes int64
}{
	{"TiB", 1 << 40},
	{"TB", 1e12},
	{"GiB", 1 << 30},
	{"GB", 1e9},
	{"MiB", 1 << 20},
	{"MB", 1e6},
	{"KiB", 1 << 10},
	{"kB", 1e3},
	{"B", 1},
}

var sizeForm = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)$`)

// Bytes returns the number of bytes.
func (s Size) Bytes() int64 { return int64(s) }

// String returns the canonical form: a whole number of the largest unit that
// gives one.
func (s Size) String() string {
	for _, u := range sizeUnits {
		if s != 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	return "0B"
}

// MarshalText returns the canonical form.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText accepts a number with one of the units B, kB, MB, GB, TB (powers
// of 1000) and KiB, MiB, GiB, TiB (powers of 1024), in any case.
func (s *Size) UnmarshalText(text []byte) error {
	in := strings.TrimSpace(string(text))
	name, example := s.ConfigType()
	hint := "write " + name + ", such as " + example
	m := sizeForm.FindStringSubmatch(in)
	if m == nil {
		if strings.HasPrefix(in, "-") {
			return &hintError{msg: "a size cannot be negative", hint: hint}
		}
		return &hintError{msg: quoteShort(in) + " is not a size", hint: hint}
	}
	number, unit := m[1], m[2]
	switch strings.ToUpper(unit) {
	case "":
		if number == "0" {
			*s = 0
			return nil
		}
		return &hintError{msg: fmt.Sprintf("the size %s has no unit", in), hint: fmt.Sprintf("write %sB if you mean bytes; other units are kB, MB, GB, TB, KiB, MiB, GiB, TiB", number)}
	case "K", "M", "G", "T":
		u := strings.ToUpper(unit)
		return &hintError{msg: fmt.Sprintf("the unit %q is ambiguous", unit), hint: fmt.Sprintf("write %s%siB (powers of 1024) or %s%sB (powers of 1000)", number, u, number, strings.Replace(u, "K", "k", 1))}
	}
	for _, u := range sizeUnits {
		if !strings.EqualFold(u.name, unit) {
			continue
		}
		n, _ := new(big.Rat).SetString(number)
		n.Mul(n, new(big.Rat).SetInt64(u.bytes))
		if !n.IsInt() {
			return &hintError{msg: in + " is not a whole number of bytes", hint: hint}
		}
		if !n.Num().IsInt64() {
			return &hintError{msg: "the size is too large", hint: "the largest is " + Size(math.MaxInt64).String()}
		}
		*s = Size(n.Num().Int64())
		return nil
	}
	return &hintError{msg: fmt.Sprintf("%q is not a unit of size", unit), hint: "the units are B, kB, MB, GB, TB, KiB, MiB, GiB, TiB"}
}

// ConfigType implements Describer.
func (Size) ConfigType() (name, example string) { return "a size", "64MiB or 1GB" }

// Percent is a part of a whole, from 0 to 100: "85%".
type Percent float64

// Ratio returns the part as a number from 0 to 1.
func (p Percent) Ratio() float64 { return float64(p) / 100 }

// String returns the canonical form, such as "85%" or "99.5%".
func (p Percent) String() string { return strconv.FormatFloat(float64(p), 'f', -1, 64) + "%" }

// MarshalText returns the canonical form.
func (p Percent) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

var percentForm = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) ?(%?)$`)

// UnmarshalText accepts a number with a percent sign. A bare number is an error,
// except 0: 0.85 could be meant as either.
func (p *Percent) UnmarshalText(text []byte) error {
	in := strings.TrimSpace(string(text))
	m := percentForm.FindStringSubmatch(in)
	switch {
	case m == nil:
		return &hintError{msg: quoteShort(in) + " is not a percentage", hint: "write a percentage from 0% to 100%, such as 85%"}
	case m[2] == "" && in != "0":
		hint := fmt.Sprintf("write %s%%", m[1])
		if f, err := strconv.ParseFloat(m[1], 64); err == nil && f <= 1 {
			hint = fmt.Sprintf("write %s if you mean a part of the whole", Percent(math.Round(f*1e6)/1e4))
		}
		return &hintError{msg: in + " has no percent sign", hint: hint}
	}
	f, err := strconv.ParseFloat(m[1], 64)
	if err != nil || f > 100 {
		return &hintError{msg: in + " is more than 100%", hint: "write a percentage from 0% to 100%"}
	}
	*p = Percent(f)
	return nil
}

// ConfigType implements Describer.
func (Percent) ConfigType() (name, example string) { return "a percentage", "85%" }
