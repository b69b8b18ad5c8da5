package dnsserver

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/berthd/berth/agent"
)

// The limits of forwarding. A stub resolver asks again, or another server, after
// five seconds (resolv.conf(5)): by then there must be an answer.
const (
	maxForwards     = 512 // questions at a time
	upstreamTimeout = 1500 * time.Millisecond
	forwardTimeout  = 4500 * time.Millisecond
	forwardPasses   = 2 // over all upstreams
)

var errNoUpstream = errors.New("there is none")

// forwarder asks the upstream resolvers. Safe for concurrent use.
type forwarder struct {
	upstreams func() ([]netip.AddrPort, error)
	self      func() []netip.AddrPort
	health    *agent.Scope
	slots     chan struct{}
	timeout   time.Duration // for one try

	// best is the upstream that answered last, which is asked first: one that
	// is dead must not delay every question.
	best atomic.Pointer[netip.AddrPort]
}

// newForwarder returns a forwarder to these upstreams, or to those of
// /etc/resolv.conf where there are none. It never asks the addresses that self
// returns.
func newForwarder(upstreams []netip.AddrPort, self func() []netip.AddrPort, health *agent.Scope) *forwarder {
	f := &forwarder{
		self: self, health: health,
		slots: make(chan struct{}, maxForwards), timeout: upstreamTimeout,
	}
	f.upstreams = (&resolvConf{path: "/etc/resolv.conf"}).servers
	if len(upstreams) > 0 {
		f.upstreams = func() ([]netip.AddrPort, error) { return upstreams, nil }
	}
	return f
}

// admit takes a place among the questions under way, if one is free; who got
// one calls leave.
func (f *forwarder) admit() bool {
	select {
	case f.slots <- struct{}{}:
		return true
	default:
		return false
	}
}

func (f *forwarder) leave() { <-f.slots }

// forwardUDP sets out to forward a question, and returns 0; or it writes a
// failure into out, and returns its length.
func (s *Server) forwardUDP(ctx context.Context, conn *net.UDPConn, r *responder, c terms, msg, out []byte, client netip.AddrPort) int {
	if !s.forwarder.admit() {
		s.meters.overloaded.Add(1)
		return r.fail(c, msg, out, rcodeServFail)
	}
	msg = slices.Clone(msg)
	s.forwards.Go(func() {
		defer s.forwarder.leave()
		if _, err := conn.WriteToUDPAddrPort(s.forward(ctx, c, msg), client); err != nil {
			s.meters.unsent.Add(1)
		}
	})
	return 0
}

// forward asks the upstream resolvers, and returns the reply for the client.
func (s *Server) forward(ctx context.Context, c terms, msg []byte) []byte {
	r := newResponder(mathrand.Uint32())
	defer func() { s.meters.add(&r.tally) }()
	r.query.parse(msg)
	reply, err := s.forwarder.ask(ctx, &r.query, msg)
	if err != nil {
		s.meters.unanswered.Add(1)
		out := make([]byte, maxUDP)
		return out[:r.fail(c, msg, out, rcodeServFail)]
	}
	s.meters.forwarded.Add(1)
	return r.relay(c, msg, reply)
}

// relay turns the reply of an upstream into that for the client.
func (r *responder) relay(c terms, msg, reply []byte) []byte {
	rcode := int(reply[3] & 0xf)
	nothing := rcode == rcodeNXDomain || rcode == rcodeNoError && binary.BigEndian.Uint16(reply[6:]) == 0
	if nothing && c.table != nil && within(r.query.lower, c.table.zone) {
		// A name of the zone that nobody has yet: the upstream may say that
		// this is so for the next fifteen minutes.
		out := make([]byte, maxUDP)
		return out[:r.negative(c, msg, out, rcode)]
	}
	limit := r.limit(c)
	if r.query.edns {
		limit += optSize // the upstream's OPT is part of its reply
	}
	if len(reply) > limit {
		out := make([]byte, maxUDP)
		i := r.begin(c, msg, out, flagTC, rcode)
		counts(out, 0, 0, 0)
		r.tally.truncated++
		return out[:r.finish(out, i, 0)]
	}
	r.tally.rcode[c.transport][rcode]++
	copy(reply, msg[:2])                                  // the client's ID
	copy(reply[headerSize:], msg[headerSize:r.query.end]) // its question, in its case
	reply[2] = reply[2]&^(flagRD|flagTC) | msg[2]&flagRD
	reply[3] |= flagRA
	return reply
}

// ask returns the first useful reply of an upstream: its message, which matches
// the question and is whole. A failure of one upstream is a reason to ask the
// next; if all fail, the last failure that one of them reported is the reply.
func (f *forwarder) ask(ctx context.Context, q *query, msg []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, forwardTimeout)
	defer cancel()
	var failure []byte
	upstreams, err := f.candidates()
	for range forwardPasses {
		for _, up := range upstreams {
			if ctx.Err() != nil {
				break
			}
			reply, askErr := f.askOne(ctx, up, q, msg)
			if askErr != nil {
				err = fmt.Errorf("ask %s: %w", up, askErr)
				continue
			}
			f.health.Set(condUpstream, nil, "")
			if rcode := reply[3] & 0xf; rcode == rcodeNoError || rcode == rcodeNXDomain {
				f.best.Store(&up)
				return reply, nil
			}
			failure = reply
		}
		if failure != nil {
			return failure, nil
		}
	}
	if err == nil {
		err = ctx.Err()
	}
	if !errors.Is(ctx.Err(), context.Canceled) { // the end of the server is not their fault
		f.health.Set(condUpstream, fmt.Errorf("no upstream resolver answers: %w", err),
			"check the name servers in /etc/resolv.conf, or set dnsserver.upstreams")
	}
	return nil, err
}

// candidates returns the upstreams in the order in which to ask them.
func (f *forwarder) candidates() ([]netip.AddrPort, error) {
	list, err := f.upstreams()
	if err != nil {
		return nil, err
	}
	self := f.self()
	list = slices.DeleteFunc(slices.Clone(list), func(up netip.AddrPort) bool { return slices.Contains(self, up) })
	if len(list) == 0 {
		return nil, errNoUpstream
	}
	if best := f.best.Load(); best != nil {
		if i := slices.Index(list, *best); i > 0 {
			list = slices.Insert(slices.Delete(list, i, i+1), 0, *best)
		}
	}
	return list, nil
}

// askOne asks one upstream, over TCP when its answer over UDP is cut short.
func (f *forwarder) askOne(ctx context.Context, up netip.AddrPort, q *query, msg []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	question := upstreamQuery(q, msg)
	reply, err := exchange(ctx, "udp", up, question)
	if err == nil && reply[2]&flagTC != 0 {
		return exchange(ctx, "tcp", up, question)
	}
	return reply, err
}

// upstreamQuery returns a message of our own that asks the client's question:
// with an ID that cannot be guessed, and none of the client's options, which are
// between it and us.
func upstreamQuery(q *query, msg []byte) []byte {
	out := make([]byte, headerSize, q.end+optSize)
	rand.Read(out[:2])
	out[2] = flagRD
	out[3] = msg[3] & (flagAD | flagCD)
	counts(out, 0, 0, 0)
	out = append(out, msg[headerSize:q.end]...)
	if !q.edns {
		return out
	}
	out[11] = 1
	opt := [optSize]byte{2: typeOPT, 3: maxUDP >> 8, 4: maxUDP & 0xff}
	if q.dnssec {
		opt[7] = 0x80
	}
	return append(out, opt[:]...)
}

// exchange sends a question and waits for the reply to it; others are passed
// over.
func exchange(ctx context.Context, network string, up netip.AddrPort, question []byte) ([]byte, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, up.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if network == "tcp" {
		return exchangeTCP(conn, question)
	}
	if _, err := conn.Write(question); err != nil {
		return nil, err
	}
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, err
		}
		if matches(buf[:n], question) {
			return buf[:n], nil
		}
	}
}

func exchangeTCP(conn net.Conn, question []byte) ([]byte, error) {
	framed := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(question)), uint16(len(question)))
	if _, err := conn.Write(append(framed, question...)); err != nil {
		return nil, err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	reply := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, reply); err != nil {
		return nil, err
	}
	if !matches(reply, question) {
		return nil, errors.New("reply to another question")
	}
	return reply, nil
}

// matches reports whether reply answers question: same ID, same question, which
// some servers return in another case.
func matches(reply, question []byte) bool {
	if len(reply) < headerSize || reply[2]&flagQR == 0 || string(reply[:2]) != string(question[:2]) {
		return false
	}
	var sent, got query
	sent.parse(question)
	back := slices.Clone(reply)
	back[2] &^= flagQR // as if it were a question, to be parsed
	got.parse(back)
	return got.end > headerSize && string(got.lower) == string(sent.lower) &&
		got.qtype == sent.qtype && got.class == sent.class
}
