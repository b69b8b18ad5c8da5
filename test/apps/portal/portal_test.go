package portal

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/berthd/berth/test/apps/calc"
	clock "github.com/berthd/berth/test/apps/time"
)

// fakeDNS has the records of a zone: SRV by service, addresses by host.
type fakeDNS struct {
	srv   map[string][]*net.SRV
	hosts map[string][]string
}

func (f fakeDNS) LookupSRV(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
	srvs := f.srv["_"+service+"._"+proto+"."+name]
	if len(srvs) == 0 {
		return "", nil, errors.New("no such name")
	}
	return "", srvs, nil
}

func (f fakeDNS) LookupHost(_ context.Context, host string) ([]string, error) {
	return f.hosts[host], nil
}

// serveOn serves h on a loopback port, and returns the port.
func serveOn(t *testing.T, h http.Handler) uint16 {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return uint16(srv.Listener.Addr().(*net.TCPAddr).Port)
}

// closedPort returns a loopback port that nothing listens on.
func closedPort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

func ask(t *testing.T, dns fakeDNS, target string) (int, Answer) {
	t.Helper()
	p := &Portal{Domain: "test.internal", Resolver: dns, Client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
	w := httptest.NewRecorder()
	p.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, nil))
	var ans Answer
	if err := json.Unmarshal(w.Body.Bytes(), &ans); err != nil {
		t.Fatalf("decode %q: %v", w.Body, err)
	}
	return w.Code, ans
}

func TestPortal(t *testing.T) {
	dead := closedPort(t)
	dns := fakeDNS{
		srv: map[string][]*net.SRV{
			"_calc._tcp.test.internal": {
				{Target: "gone.test.internal.", Port: 1},
				{Target: "host.test.internal.", Port: dead},
				{Target: "host.test.internal.", Port: serveOn(t, calc.Handler())},
			},
			"_time._tcp.test.internal": {{Target: "host.test.internal.", Port: serveOn(t, clock.Handler())}},
		},
		hosts: map[string][]string{"host.test.internal.": {"127.0.0.1"}},
	}
	status, ans := ask(t, dns, "/?a=20&b=22")
	if status != http.StatusOK || len(ans.Errors) > 0 {
		t.Fatalf("got %d with errors %q", status, ans.Errors)
	}
	if ans.Calc == nil || ans.Calc.Sum != 42 || ans.Calc.Instance == "" {
		t.Errorf("calc: got %+v", ans.Calc)
	}
	if ans.Time == nil || ans.Time.Now.IsZero() {
		t.Errorf("time: got %+v", ans.Time)
	}
	found := ans.Found[0]
	if len(found.Targets) != 3 || found.Targets[0] != "gone.test.internal:1" {
		t.Errorf("targets: got %q", found.Targets)
	}
	if want := hostPort("127.0.0.1", dns.srv["_calc._tcp.test.internal"][2].Port); found.Used != want {
		t.Errorf("used: got %s, want %s", found.Used, want)
	}
}

func TestPortal_Failures(t *testing.T) {
	dns := fakeDNS{
		srv: map[string][]*net.SRV{
			"_calc._tcp.test.internal": {{Target: "host.test.internal.", Port: serveOn(t, calc.Handler())}},
			"_time._tcp.test.internal": {{Target: "host.test.internal.", Port: serveOn(t, clock.Handler())}},
		},
		hosts: map[string][]string{"host.test.internal.": {"127.0.0.1"}},
	}
	for name, tt := range map[string]struct {
		dns    fakeDNS
		target string
		errors []string // how each begins
	}{
		"no records":    {fakeDNS{}, "/", []string{"calc: no such name", "time: no such name"}},
		"no addresses":  {fakeDNS{srv: dns.srv}, "/", []string{"calc: no instance answers", "time: no instance answers"}},
		"bad arguments": {dns, "/?a=x", []string{"calc: no instance answers\nget http://127.0.0.1:"}},
	} {
		t.Run(name, func(t *testing.T) {
			status, ans := ask(t, tt.dns, tt.target)
			if status != http.StatusBadGateway || !slices.EqualFunc(ans.Errors, tt.errors, strings.HasPrefix) {
				t.Errorf("got %d with errors %q, want 502 with %q", status, ans.Errors, tt.errors)
			}
		})
	}
}
