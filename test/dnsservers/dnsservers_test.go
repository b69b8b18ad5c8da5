package dnsservers

import (
	"errors"
	"testing"

	"github.com/miekg/dns"
)

const zone = "test.example."

// each runs f with either server.
func each(t *testing.T, f func(t *testing.T, s *Server)) {
	t.Run("BIND", func(t *testing.T) { f(t, BIND(t, zone)) })
	t.Run("Knot", func(t *testing.T) { f(t, Knot(t, zone, "web")) })
}

// update sends one signed UPDATE, and returns its answer's code.
func update(t *testing.T, s *Server, host string, change func(m *dns.Msg)) int {
	t.Helper()
	m := new(dns.Msg).SetUpdate(zone)
	change(m)
	key := s.Key(host)
	m.SetTsig(key.Name, dns.HmacSHA256, 300, 0)
	client := dns.Client{Net: "tcp", Timeout: patience, TsigSecret: map[string]string{key.Name: key.Secret}}
	answer, _, err := client.Exchange(m, s.Addr().String())
	if !errors.Is(err, dns.ErrAuth) { // NOTAUTH, which nobody signs
		must(t, err)
	}
	return answer.Rcode
}

func rr(t *testing.T, text string) []dns.RR {
	t.Helper()
	r, err := dns.NewRR(text)
	must(t, err)
	return []dns.RR{r}
}

func add(t *testing.T, text string) func(*dns.Msg) {
	r := rr(t, text)
	return func(m *dns.Msg) { m.Insert(r) }
}

func remove(t *testing.T, text string) func(*dns.Msg) {
	r := rr(t, text)
	return func(m *dns.Msg) { m.Remove(r) }
}

// The rules of the examples: what a host's key may change, and what not.
func TestExamples_AHostChangesWhatIsItsOwn(t *testing.T) {
	each(t, func(t *testing.T, s *Server) {
		allowed := []string{
			"host1.test.example. 5 A 192.0.2.1",
			"host1.test.example. 5 AAAA 2001:db8::1",
			"_web._tcp.test.example. 5 SRV 1 1 80 host1.test.example.",
			"_dns._udp.test.example. 5 SRV 1 1 53 host1.test.example.",
			"web.test.example. 5 A 192.0.2.1",
			"web.test.example. 5 SRV 1 1 80 host1.test.example.",
		}
		for _, text := range allowed {
			if got := update(t, s, "host1", add(t, text)); got != dns.RcodeSuccess {
				t.Errorf("host1 adds %s: got %s", text, dns.RcodeToString[got])
			}
		}
		if got := update(t, s, "host10", add(t, "host10.test.example. 5 A 192.0.2.10")); got != dns.RcodeSuccess {
			t.Errorf("host10 adds its address: got %s", dns.RcodeToString[got])
		}
		before := s.Serial()
		for _, refused := range []struct {
			host   string
			change func(*dns.Msg)
		}{
			{"host10", remove(t, "host1.test.example. 5 A 192.0.2.1")},
			{"host10", add(t, "host1.test.example. 5 A 192.0.2.66")},
			{"host10", add(t, "host1.test.example. 5 SRV 1 1 80 host10.test.example.")},
			{"host1", remove(t, "host10.test.example. 5 A 192.0.2.10")},
			{"host1", add(t, "host10.test.example. 5 AAAA 2001:db8::66")},
			{"host1", add(t, "_web._tcp.test.example. 5 TXT x")},
			{"host1", add(t, "test.example. 5 NS host1.test.example.")},
		} {
			// Knot calls it NOTAUTH.
			if got := update(t, s, refused.host, refused.change); got != dns.RcodeRefused && got != dns.RcodeNotAuth {
				t.Errorf("%s: got %s, want REFUSED", refused.host, dns.RcodeToString[got])
			}
		}
		if got := s.Serial(); got != before {
			t.Errorf("serial: got %d, want %d as before what was refused", got, before)
		}
		all, err := s.Records(t.Context())
		must(t, err)
		if len(all) != len(allowed)+1 {
			t.Errorf("got %d records, want %d: %v", len(all), len(allowed)+1, all)
		}
	})
}

func TestServer_KeepsItsZoneOverACrash(t *testing.T) {
	each(t, func(t *testing.T, s *Server) {
		update(t, s, "host1", add(t, "host1.test.example. 5 A 192.0.2.1"))
		for _, end := range []func(){s.Kill, s.Stop} {
			end()
			if _, err := s.Records(t.Context()); err == nil {
				t.Error("it answers after its end")
			}
			s.Start()
			if all, err := s.Records(t.Context()); err != nil || len(all) != 1 {
				t.Errorf("after a start: got %v, %v, want one record", all, err)
			}
		}
	})
}
