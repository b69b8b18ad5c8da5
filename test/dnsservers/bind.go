package dnsservers

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// BIND starts BIND's named with one zone (its name with the final dot), and ends
// it with the test.
func BIND(t testing.TB, zone string) *Server {
	t.Helper()
	s, dir, installed := newServer(t, "BIND", "named", zone)
	// A copy: AppArmor confines Debian's named, by its path, to folders that are
	// not the test's.
	named := filepath.Join(dir, "named")
	binary, err := os.ReadFile(installed)
	must(t, err)
	must(t, os.WriteFile(named, binary, 0o700))

	conf := filepath.Join(dir, "named.conf")
	write(t, conf, fmt.Sprintf(`options {
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
`, dir, s.addr.Port(), s.addr.Addr())+s.fill(example(t, "bind-berth.conf"), "/var/lib/bind/berth.example.zone"))
	return s.run(named, "-g", "-n", "1", "-c", conf)
}
