package dnsservers

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Knot starts Knot's knotd with one zone (its name with the final dot), and ends
// it with the test. Plain names of services which the keys may change, besides
// calc, are listed as aliases, relative to the zone.
func Knot(t testing.TB, zone string, aliases ...string) *Server {
	t.Helper()
	dir := t.TempDir()
	s, knotd, err := newServer(dir, "Knot", "knotd", zone)
	must(t, err)
	text, err := s.fill("knot-berth.conf", "/var/lib/knot/berth.example.zone")
	must(t, err)
	for _, a := range aliases {
		text = strings.ReplaceAll(text, ", calc."+zone, ", calc."+zone+", "+a+"."+zone)
	}
	// The transfer is for the test, which wants to see the whole zone.
	text = strings.Replace(text, "acl: [host1, host10]", "acl: [host1, host10, transfer]", 1)
	text = strings.Replace(text, "\nacl:\n", "\nacl:\n  - id: transfer\n    address: 127.0.0.0/8\n    action: transfer\n", 1)
	must(t, os.Mkdir(filepath.Join(dir, "db"), 0o700))
	conf := filepath.Join(dir, "knot.conf")
	must(t, os.WriteFile(conf, fmt.Appendf(nil, `server:
    rundir: %[1]s
    listen: %[2]s@%[3]d
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
log:
  - target: stderr
    any: info
database:
    storage: %[1]s/db
%[4]s`, dir, s.addr.Addr(), s.addr.Port(), text), 0o600))
	s.argv = []string{knotd, "-c", conf}
	return s.serve(t)
}
