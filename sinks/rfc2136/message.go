package rfc2136

import (
	"net"

	"github.com/miekg/dns"

	"github.com/berthd/berth/agent"
)

// maxMessage is the size in bytes that an UPDATE's records may have before
// compression. A message over TCP can have 65,535 (RFC 1035 §4.2.2); half of that
// leaves room for the signature, and keeps each change a small one for servers
// which hold a zone locked meanwhile.
const maxMessage = 32 << 10

// message is one UPDATE: all of it happens or nothing (RFC 2136 §3.4.2.7).
type message struct {
	Zone   string
	Delete []agent.Record // sorted; first, so that dead endpoints leave before others come
	Add    []agent.Record // sorted
	claims []claim        // without them being true, nothing happens
}

func (m message) empty() bool { return len(m.Delete) == 0 && len(m.Add) == 0 }

// cut returns m without what is more than fits into one message, and whether
// there was any.
func (m message) cut(limit int) (message, bool) {
	fits := func(records []agent.Record) int {
		for i, r := range records {
			if limit -= wireSize(r); limit < 0 {
				return i
			}
		}
		return len(records)
	}
	out := m
	out.Delete = m.Delete[:fits(m.Delete)]
	out.Add = m.Add[:fits(m.Add)]
	return out, len(out.Delete) < len(m.Delete) || len(out.Add) < len(m.Add)
}

// wireSize is the size of a record without compression: a name (its length and
// one), ten bytes, and the data (RFC 1035 §3.2.1, RFC 2782).
func wireSize(r agent.Record) int {
	switch r.Type {
	case agent.TypeSRV:
		return len(r.Name) + 1 + 10 + 6 + len(r.Target) + 1
	case agent.TypeAAAA:
		return len(r.Name) + 1 + 10 + net.IPv6len
	default:
		return len(r.Name) + 1 + 10 + net.IPv4len
	}
}

// update returns m as a DNS message without signature.
func (m message) update() *dns.Msg {
	u := new(dns.Msg).SetUpdate(m.Zone)
	for _, c := range m.claims {
		u.Answer = append(u.Answer, c.prerequisites()...)
	}
	for _, r := range m.Delete {
		rr := resource(r)
		rr.Header().Class, rr.Header().Ttl = dns.ClassNONE, 0 // RFC 2136 §2.5.4
		u.Ns = append(u.Ns, rr)
	}
	for _, r := range m.Add {
		u.Ns = append(u.Ns, resource(r))
	}
	return u
}

func resource(r agent.Record) dns.RR {
	head := dns.RR_Header{Name: r.Name, Class: dns.ClassINET, Ttl: r.TTL}
	switch r.Type {
	case agent.TypeSRV:
		head.Rrtype = dns.TypeSRV
		return &dns.SRV{Hdr: head, Priority: r.Priority, Weight: r.Weight, Port: r.Port, Target: r.Target}
	case agent.TypeAAAA:
		head.Rrtype = dns.TypeAAAA
		return &dns.AAAA{Hdr: head, AAAA: r.Addr.AsSlice()}
	default:
		head.Rrtype = dns.TypeA
		return &dns.A{Hdr: head, A: r.Addr.AsSlice()}
	}
}
