package dnsserver

import (
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/berthd/berth/agent"
)

// transport is how a question came.
type transport uint8

const (
	overUDP transport = iota
	overTCP
	transports
)

func (t transport) String() string { return [...]string{"udp", "tcp"}[t] }

// rcodes is one more than the highest response code that is sent or passed on
// and counted by itself.
const rcodes = rcodeBadVers + 1

// tally is what one responder has counted since it last reported. It needs no
// atomic operations while a batch is answered.
type tally struct {
	rcode     [transports][rcodes]uint64
	malformed uint64
	truncated uint64
}

// meters is what the server has counted since it was made.
type meters struct {
	rcode      [transports][rcodes]atomic.Uint64
	malformed  atomic.Uint64 // messages that must not be answered
	unsent     atomic.Uint64 // answers that the kernel refused to send
	busy       atomic.Uint64 // connections over the limit
	truncated  atomic.Uint64
	forwarded  atomic.Uint64 // questions answered by an upstream resolver
	overloaded atomic.Uint64 // questions not forwarded: too many under way
	unanswered atomic.Uint64 // questions that no upstream resolver answered

	publishNanos atomic.Int64 // how long the last publication took
}

// add moves the counts of a tally to the meters.
func (m *meters) add(t *tally) {
	for tr := range t.rcode {
		for code := range t.rcode[tr] {
			if n := t.rcode[tr][code]; n > 0 {
				m.rcode[tr][code].Add(n)
				t.rcode[tr][code] = 0
			}
		}
	}
	if t.malformed > 0 {
		m.malformed.Add(t.malformed)
		t.malformed = 0
	}
	if t.truncated > 0 {
		m.truncated.Add(t.truncated)
		t.truncated = 0
	}
}

// rcodeName returns the mnemonic of a response code (IANA's DNS RCODEs).
func rcodeName(code int) string {
	names := [...]string{
		"NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED",
		"YXDOMAIN", "YXRRSET", "NXRRSET", "NOTAUTH", "NOTZONE",
	}
	switch {
	case code < len(names):
		return names[code]
	case code == rcodeBadVers:
		return "BADVERS"
	}
	return strconv.Itoa(code)
}

// Summary returns the key figures in one line, for people.
func (s *Server) Summary() string {
	var answered, records uint64
	for tr := range s.meters.rcode {
		for code := range s.meters.rcode[tr] {
			answered += s.meters.rcode[tr][code].Load()
		}
	}
	if t := s.table.Load(); t != nil {
		records = uint64(t.count)
	}
	addrs := make([]string, 0, 4)
	for _, a := range s.Listening() {
		addrs = append(addrs, a.String())
	}
	where := "nowhere"
	if len(addrs) > 0 {
		where = strings.Join(addrs, ", ")
	}
	return fmt.Sprintf("%d records on %s; %d answers", records, where, answered)
}

// Metrics yields the server's figures.
func (s *Server) Metrics(yield func(agent.Sample) bool) {
	const (
		queries   = "DNS messages answered, by transport and response code."
		dropped   = "DNS messages and answers given up, by reason."
		forwarded = "DNS questions passed to the upstream resolvers, by result."
	)
	counter := func(name, help string, v *atomic.Uint64, labels ...agent.Label) bool {
		return yield(agent.Sample{
			Name: name, Help: help, Kind: agent.Counter, Value: float64(v.Load()), Labels: labels,
		})
	}
	m := &s.meters
	for tr := range m.rcode {
		for code := range m.rcode[tr] {
			v := &m.rcode[tr][code]
			if v.Load() == 0 && code != rcodeNoError {
				continue // most codes never occur
			}
			if !counter("berth_dnsserver_queries_total", queries, v,
				agent.Label{Name: "rcode", Value: rcodeName(code)},
				agent.Label{Name: "transport", Value: transport(tr).String()}) {
				return
			}
		}
	}
	for _, d := range []struct {
		reason string
		v      *atomic.Uint64
	}{{"malformed", &m.malformed}, {"unsent", &m.unsent}, {"connections", &m.busy}} {
		if !counter("berth_dnsserver_dropped_total", dropped, d.v, agent.Label{Name: "reason", Value: d.reason}) {
			return
		}
	}
	for _, f := range []struct {
		result string
		v      *atomic.Uint64
	}{{"answered", &m.forwarded}, {"overloaded", &m.overloaded}, {"unanswered", &m.unanswered}} {
		if !counter("berth_dnsserver_forwarded_total", forwarded, f.v, agent.Label{Name: "result", Value: f.result}) {
			return
		}
	}
	if !counter("berth_dnsserver_truncated_total", "DNS answers cut short, with TC set.", &m.truncated) {
		return
	}
	var records, serial float64
	if t := s.table.Load(); t != nil {
		records, serial = float64(t.count), float64(t.serial)
	}
	took := time.Duration(m.publishNanos.Load()).Seconds()
	_ = yield(agent.Sample{Name: "berth_dnsserver_records", Help: "Records that are served.", Value: records}) &&
		yield(agent.Sample{Name: "berth_dnsserver_zone_serial", Help: "Serial number of the zone.", Value: serial}) &&
		yield(agent.Sample{Name: "berth_dnsserver_publish_seconds", Help: "How long the newest set of records took to be published.", Value: took})
}
