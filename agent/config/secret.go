package config

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Secret refers to a secret that is kept elsewhere: "file:/etc/berth/token" or
// "env:BERTH_TOKEN". The secret itself is refused in a config file: configs are
// read, copied and attached to tickets by more people than should know it.
// The empty Secret refers to nothing.
//
// A Secret holds the reference only, and even that is printed by Reference
// alone; every other way of printing one gives "<redacted>".
type Secret struct{ ref string }

// redacted is what stands for a secret.
const redacted = "<redacted>"

// maxSecret is the largest file, in bytes, that is taken for a secret: a mistake
// such as file:/dev/zero must not fill the memory.
const maxSecret = 64 << 10

// IsZero reports whether the Secret refers to nothing.
func (s Secret) IsZero() bool { return s.ref == "" }

// Reference returns where the secret is kept: "file:…", "env:…" or "".
func (s Secret) Reference() string { return s.ref }

// String returns "<redacted>", or "" for the empty Secret.
func (s Secret) String() string {
	if s.ref == "" {
		return ""
	}
	return redacted
}

// GoString returns what String does, so that %#v prints no more.
func (s Secret) GoString() string { return s.String() }

// Format prints what String does, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue returns what String does.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText returns what String does.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText accepts a reference, or nothing.
func (s *Secret) UnmarshalText(text []byte) error {
	ref := string(text)
	kind, where, _ := strings.Cut(ref, ":")
	switch {
	case ref == "":
	case kind == "file" && !filepath.IsAbs(where):
		return &hintError{msg: "the file of a secret needs an absolute path", hint: "write file:/path"}
	case kind == "file":
	case kind == "env" && (where == "" || strings.ContainsAny(where, "= \t\n\x00")):
		return &hintError{msg: "the name of an environment variable is missing or invalid", hint: "write env:NAME"}
	case kind == "env":
	default:
		// Never quote it: it is the secret itself.
		return &hintError{msg: "a secret must not be in the config itself", hint: "put it into a file with mode 0600 and write file:/path, or write env:NAME"}
	}
	s.ref = ref
	return nil
}

// ConfigType implements Describer.
func (Secret) ConfigType() (name, example string) {
	return "a reference to a secret", "file:/etc/berth/secret or env:NAME"
}

// Value reads the secret, without the newline at its end. The empty Secret's
// value is "". It reads anew with each call, so that a secret can be rotated.
// Errors name the file or variable and never quote what is in it; a file that
// everyone may read or write is one.
func (s Secret) Value() (string, error) {
	kind, where, _ := strings.Cut(s.ref, ":")
	switch kind {
	case "":
		return "", nil
	case "env":
		v, ok := os.LookupEnv(where)
		if !ok || v == "" {
			return "", fmt.Errorf("read secret: the environment variable %s is not set", where)
		}
		return v, nil
	}
	v, err := readSecret(where)
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	return v, nil
}

func readSecret(path string) (string, error) {
	// Non-blocking, so that a named pipe does not hang the daemon.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	mode := info.Mode()
	switch {
	case !mode.IsRegular():
		return "", fmt.Errorf("%s is not a regular file", path)
	case mode.Perm()&0o007 != 0:
		return "", fmt.Errorf("%s has mode %04o: others can access it: chmod o= %s", path, mode.Perm(), path)
	case info.Size() > maxSecret:
		return "", fmt.Errorf("%s has %d bytes: more than %d are no secret", path, info.Size(), maxSecret)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	switch {
	case err != nil:
		return "", err
	case len(b) > maxSecret:
		return "", fmt.Errorf("%s has more than %d bytes", path, maxSecret)
	}
	v := strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	if v == "" {
		return "", errors.New(path + " is empty")
	}
	return v, nil
}
