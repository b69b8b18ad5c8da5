package dnsservers

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// BIND starts BIND's named with one zone (its name with the final dot), and ends
// it with the test.
func BIND(t testing.TB, zone string) *Server {
	t.Helper()
	s, err := prepareBIND(t.TempDir(), zone)
	must(t, err)
	return s.serve(t)
}

// OpenBIND starts BIND as for a test, with all its files in a folder that exists.
// Close it.
func OpenBIND(ctx context.Context, dir, zone string) (*Server, error) {
	s, err := prepareBIND(dir, zone)
	if err != nil {
		return nil, fmt.Errorf("prepare BIND: %w", err)
	}
	if err := s.start(ctx); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

// Close ends a server that OpenBIND has started.
func (s *Server) Close() error {
	if s.ended == nil {
		return nil // it never began
	}
	return s.end(syscall.SIGKILL)
}

// prepareBIND makes all that BIND needs for its start.
func prepareBIND(dir, zone string) (*Server, error) {
	s, installed, err := newServer(dir, "BIND", "named", zone)
	if err != nil {
		return nil, err
	}
	// A copy: AppArmor confines Debian's named, by its path, to folders that are
	// not the test's.
	named := filepath.Join(dir, "named")
	binary, err := os.ReadFile(installed)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(named, binary, 0o700); err != nil {
		return nil, err
	}
	text, err := s.fill("bind-berth.conf", "/var/lib/bind/berth.example.zone")
	if err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "named.conf")
	s.argv = []string{named, "-g", "-n", "1", "-c", conf}
	return s, os.WriteFile(conf, fmt.Appendf(nil, `options {
	directory "%s";
	pid-file none;
	session-keyfile none;
	lock-file none;
	listen-on port %d { %s; };
	listen-on-v6 { none; };
	recursion no;
	dnssec-validation no;
	notify no;
	allow-transfer { 127.0.0.0/8; };
};
controls { };
%s`, dir, s.addr.Port(), s.addr.Addr(), text), 0o600)
}
