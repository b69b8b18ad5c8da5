package statsd

import (
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/config"
)

// meters is what was counted since the relay was made. The receiving goroutine
// adds to it after each round.
type meters struct {
	datagrams, lines, bytes                    atomic.Uint64
	malformed, tooLong, rateLimited, truncated atomic.Uint64
	passed, untagged, unknown, shared, cut     atomic.Uint64
	reads                                      atomic.Uint64 // system calls that read something
}

// add moves the counts of a tally to the meters.
func (m *meters) add(t *tally) {
	if t.datagrams == 0 {
		return
	}
	// The drops first, so that who reads in between sees no more lines dropped
	// than came in by less than a round.
	for _, c := range [...]struct {
		to   *atomic.Uint64
		from uint64
	}{
		{&m.datagrams, t.datagrams},
		{&m.lines, t.lines},
		{&m.bytes, t.bytes},
		{&m.malformed, t.malformed},
		{&m.tooLong, t.tooLong},
		{&m.rateLimited, t.rateLimited},
		{&m.truncated, t.truncated},
		{&m.passed, t.passed},
		{&m.untagged, t.untagged},
		{&m.unknown, t.unknown},
		{&m.shared, t.shared},
		{&m.cut, t.cut},
		{&m.reads, t.reads},
	} {
		if c.from > 0 {
			c.to.Add(c.from)
		}
	}
	*t = tally{}
}

// drops is how many datagrams the kernel had no room for.
func (v *view) drops() uint64 {
	n := v.closed
	for _, s := range v.sockets {
		n += s.drops()
	}
	return n
}

// stats is what became of the lines that were sent.
func (v *view) stats() agent.LineStats {
	if v.port == nil {
		return agent.LineStats{}
	}
	return v.port.Stats()
}

// Summary returns the key figures in one line, for people.
func (s *Statsd) Summary() string {
	v, st := s.view.Load(), s.view.Load().stats()
	m := &s.meters
	var where []string
	buffer := 0
	for _, sock := range v.sockets {
		if sock.unix {
			where = append(where, sock.address)
			continue
		}
		where = append(where, sock.at.String())
		if buffer == 0 || sock.buffer < buffer {
			buffer = sock.buffer
		}
	}
	text := "nowhere"
	if len(where) > 0 {
		text = strings.Join(where, ", ")
	}
	if buffer > 0 {
		text += fmt.Sprintf(" (buffers of %s)", config.Size(buffer))
	}
	lost := m.malformed.Load() + m.tooLong.Load() + m.rateLimited.Load() + m.truncated.Load() + st.Dropped + st.Failed
	line := fmt.Sprintf("%d lines in, %d out to %s, %d dropped", m.lines.Load(), st.Lines, s.cfg.Upstream, lost)
	if n := v.drops(); n > 0 {
		line += fmt.Sprintf(", %d datagrams dropped by the kernel", n)
	}
	return line + "; receives on " + text
}

// Metrics yields the relay's figures.
func (s *Statsd) Metrics(yield func(agent.Sample) bool) {
	v := s.view.Load()
	st, m := v.stats(), &s.meters
	const dropped = "Lines that were not passed on, by reason."
	const strangers = "Lines of senders that are not told apart, by reason."
	const containerLines = "Lines that each running container sent; (host) is the host itself and containers in its network."
	reason := func(value string) []agent.Label { return []agent.Label{{Name: "reason", Value: value}} }
	counter := func(name, help string, value uint64, labels []agent.Label) bool {
		return yield(agent.Sample{Name: name, Help: help, Kind: agent.Counter, Value: float64(value), Labels: labels})
	}
	gauge := func(name, help string, value float64) bool {
		return yield(agent.Sample{Name: name, Help: help, Value: value})
	}
	ok := counter("berth_statsd_received_datagrams_total", "Datagrams that were received.", m.datagrams.Load(), nil) &&
		counter("berth_statsd_reads_total", "System calls that read datagrams.", m.reads.Load(), nil) &&
		counter("berth_statsd_received_lines_total", "Lines that were received.", m.lines.Load(), nil) &&
		counter("berth_statsd_received_bytes_total", "Bytes that were received.", m.bytes.Load(), nil) &&
		counter("berth_statsd_sent_datagrams_total", "Datagrams that were sent to the upstream.", st.Packets, nil) &&
		counter("berth_statsd_sent_lines_total", "Lines that were sent to the upstream.", st.Lines, nil) &&
		counter("berth_statsd_sent_bytes_total", "Bytes that were sent to the upstream.", st.Bytes, nil) &&
		counter("berth_statsd_upstream_connects_total", "Times that the upstream was connected to.", st.Connects, nil) &&
		gauge("berth_statsd_waiting_lines", "Lines that wait for the upstream.", float64(st.Waiting)) &&
		counter("berth_statsd_dropped_lines_total", dropped, st.Dropped, reason("buffer")) &&
		counter("berth_statsd_dropped_lines_total", dropped, m.malformed.Load(), reason("malformed")) &&
		counter("berth_statsd_dropped_lines_total", dropped, m.rateLimited.Load(), reason("rate_limited")) &&
		counter("berth_statsd_dropped_lines_total", dropped, st.Failed, reason("send")) &&
		counter("berth_statsd_dropped_lines_total", dropped, m.tooLong.Load(), reason("too_long")) &&
		counter("berth_statsd_dropped_lines_total", dropped, m.truncated.Load(), reason("truncated")) &&
		counter("berth_statsd_kernel_dropped_datagrams_total", "Datagrams for which a socket had no room.", v.drops(), nil) &&
		counter("berth_statsd_truncated_datagrams_total", "Datagrams that were longer than is read.", m.cut.Load(), nil) &&
		counter("berth_statsd_passed_malformed_lines_total", "Malformed lines that were passed on.", m.passed.Load(), nil) &&
		counter("berth_statsd_untagged_lines_total", "Lines that went without their tags for want of room.", m.untagged.Load(), nil) &&
		counter("berth_statsd_unattributed_lines_total", strangers, m.shared.Load(), reason("host")) &&
		counter("berth_statsd_unattributed_lines_total", strangers, m.unknown.Load(), reason("unknown"))
	errs := uint64(0)
	for _, sock := range v.sockets {
		errs += sock.errors.Load()
	}
	ok = ok && counter("berth_statsd_receive_errors_total", "Errors of receiving.", errs, nil)
	for _, c := range []struct {
		name, help string
		value      func(*account) uint64
	}{
		{"berth_statsd_container_lines_total", containerLines, func(a *account) uint64 { return a.lines.Load() }},
		{"berth_statsd_container_bytes_total", "Bytes that each running container sent.", func(a *account) uint64 { return a.bytes.Load() }},
		{"berth_statsd_container_dropped_lines_total", "Lines of each running container that were malformed, too long or too many.", (*account).dropped},
	} {
		for _, o := range v.live {
			if o.id == "" || o.account.lines.Load() > 0 {
				ok = ok && counter(c.name, c.help, c.value(o.account), []agent.Label{{Name: "container", Value: o.name}})
			}
		}
	}
	_ = ok
}
