package config

import (
	"encoding"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// text is what all types of this package are.
type text interface {
	encoding.TextUnmarshaler
	encoding.TextMarshaler
}

func roundTripText(t *testing.T, v text, in, want string) {
	t.Helper()
	err := v.UnmarshalText([]byte(in))
	if rest, bad := strings.CutPrefix(want, "error: "); bad {
		if err == nil || !strings.Contains(err.Error(), rest) {
			t.Errorf("%q: got %v, want an error with %q", in, err, rest)
		}
		return
	}
	got, _ := v.MarshalText()
	if err != nil || string(got) != want {
		t.Errorf("%q: got %q, %v, want %q", in, got, err, want)
	}
}

func TestDuration(t *testing.T) {
	for in, want := range map[string]string{
		"0": "0s", "0s": "0s", "90s": "1m30s", "1h30m": "1h30m", "7d": "7d", "36h": "1d12h", "1.5h": "1h30m", "250ms": "250ms",
		"1h0m5s": "1h0m5s", "60m": "1h", "1us": "1µs", "1µs": "1µs", " 5s ": "5s", "2d3h4m5s": "2d3h4m5s", "24h": "1d", "1ns": "1ns", "0.5ms": "500µs",
		"106751d": "106751d",
		"":        "error: write a duration", "90": "error: write 90s", "1.5": "error: has no unit", "-5s": "error: negative", "5 s": "error: not a duration",
		"5w": "error: not a unit", "5S": "error: not a duration", "s": "error: not a duration", "5s5": "error: not a duration", "0.1ns": "error: finer",
		"106752d": "error: too long", "99999999999999999999d": "error: too long", "1e3s": "error: not a unit", "inf": "error: not a duration", "0x1": "error: not a unit",
	} {
		roundTripText(t, new(Duration), in, want)
	}
	for _, d := range []time.Duration{1, 999, time.Microsecond, time.Minute, time.Hour + time.Second, day - 1, day, day + 1, 400 * day, math.MaxInt64} {
		var back Duration
		if err := back.UnmarshalText([]byte(Duration(d).String())); err != nil || back.Std() != d {
			t.Errorf("%d printed as %s: got %d back, %v", d, Duration(d), back, err)
		}
	}
}

func TestSize(t *testing.T) {
	for in, want := range map[string]string{
		"0": "0B", "512B": "512B", "1024B": "1KiB", "1kB": "1kB", "1KB": "1kB", "64MiB": "64MiB", "64 mib": "64MiB", "1GB": "1GB", "1.5GiB": "1536MiB",
		"0.5kB": "500B", "1TiB": "1TiB", "1001B": "1001B", "2000MB": "2GB",
		"": "error: write a size", "64": "error: write 64B", "64M": "error: 64MiB (powers of 1024) or 64MB", "64k": "error: 64KiB (powers of 1024) or 64kB",
		"-1B": "error: negative", "1.5B": "error: whole number", "1XB": "error: not a unit", "8388608TiB": "error: too large", "MiB": "error: not a size",
	} {
		roundTripText(t, new(Size), in, want)
	}
	for _, n := range []int64{1, 1000, 1023, 1024, 1 << 40, 5e12, math.MaxInt64} {
		var back Size
		if err := back.UnmarshalText([]byte(Size(n).String())); err != nil || back.Bytes() != n {
			t.Errorf("%d printed as %s: got %d back, %v", n, Size(n), back, err)
		}
	}
}

func TestPercent(t *testing.T) {
	for in, want := range map[string]string{
		"0": "0%", "85%": "85%", "99.5%": "99.5%", "100 %": "100%",
		"0.85": "error: write 85%", "85": "error: write 85%", "101%": "error: more than 100%", "-1%": "error: not a percentage", "": "error: not a percentage",
	} {
		roundTripText(t, new(Percent), in, want)
	}
	if got, want := Percent(85).Ratio(), 0.85; got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestSecretValue(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return "file:" + path
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("BERTH_TEST_SET", hidden)
	t.Setenv("BERTH_TEST_EMPTY", "")
	for _, tt := range []struct{ ref, value, err string }{
		{"", "", ""},
		{"env:BERTH_TEST_SET", hidden, ""},
		{"env:BERTH_TEST_EMPTY", "", "BERTH_TEST_EMPTY is not set"},
		{file("ok", hidden+"\n", 0o640), hidden, ""},
		{file("crlf", hidden+"\r\n", 0o600), hidden, ""},
		{file("open", hidden, 0o644), "", "has mode 0644: others can access it: chmod o="},
		{file("writable", hidden, 0o602), "", "has mode 0602"},
		{file("empty", "\n", 0o600), "", "is empty"},
		{file("large", strings.Repeat(hidden, maxSecret), 0o600), "", "more than 65536"},
		{"file:" + filepath.Join(dir, "missing"), "", "missing: no such file"},
		{"file:" + dir, "", "is not a regular file"},
		{"file:" + fifo, "", "is not a regular file"},
	} {
		var s Secret
		if err := s.UnmarshalText([]byte(tt.ref)); err != nil {
			t.Errorf("%s: %v", tt.ref, err)
			continue
		}
		got, err := s.Value()
		switch {
		case tt.err == "" && (err != nil || got != tt.value):
			t.Errorf("%s: got %q, %v, want %q", tt.ref, got, err, tt.value)
		case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), hidden)):
			t.Errorf("%s: got %v, want an error with %q and without the secret", tt.ref, err, tt.err)
		}
		if got := s.IsZero(); got != (tt.ref == "") {
			t.Errorf("%s: IsZero: got %v", tt.ref, got)
		}
	}
}
