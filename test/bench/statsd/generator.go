package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// The shape of the load.
const (
	lineSize    = 80 // bytes of a line, without its newline
	stampDigits = 15 // of a line's value: nanoseconds since the bench began, up to eleven days
	// burst is how many datagrams one source sends at a time at most. All numbers
	// up to that come equally often: a container sends many when it has been asked
	// something, and single ones otherwise. It matters to a relay which is woken by
	// each datagram, as the baseline is: by bursts of 16 it takes a quarter less CPU
	// time at 20,000 lines/s than by these, by single datagrams twice as much.
	burst = 16
	// longBurst is burst from manyDatagrams a second on, so that the generator is
	// not the first to be at its limit.
	longBurst     = 64
	manyDatagrams = 400_000
	nap           = 20 * time.Microsecond // the generator's rest when nothing is due
)

// lineOf returns the line of a source whose value is a stamp: what is sent when,
// and what must come out but for the tags that are added. It is a gauge with
// three tags of its own; statsd_exporter keeps gauges with the least work.
//
//	bench.checkout.s03.latency:000123456789012|g|#path:/v1/items,code:200,shard:aaaa
func lineOf(source int, stamp int64) []byte {
	b := fmt.Appendf(nil, "bench.checkout.s%02d.latency:%0*d|g|#path:/v1/items,code:200,shard:", source, stampDigits, stamp)
	for len(b) < lineSize {
		b = append(b, 'a')
	}
	return b
}

// stampAt is where a line's value begins.
const stampAt = len("bench.checkout.s00.latency:")

// source is one sender: an address of its own.
type source struct {
	fd     int
	lines  []byte // what it sends at a time at most: longBurst datagrams
	stamps []int  // where the values are in it
	size   int    // bytes of a datagram
}

// generator sends lines from several addresses to a relay.
type generator struct {
	sources []*source
	perDgr  int // lines of a datagram
	next    int // the source whose turn it is
	sizes   *rand.Rand
}

// newGenerator opens a socket on each address, connected to the relay. inside
// runs a function where the source with this number is.
func newGenerator(from []netip.Addr, relay netip.AddrPort, perDatagram int, inside func(int, func() error) error) (*generator, error) {
	g := &generator{perDgr: perDatagram, sizes: rand.New(rand.NewPCG(1, 2))} // the same each time
	for i, addr := range from {
		s := &source{size: perDatagram*(lineSize+1) - 1}
		for range longBurst {
			for range perDatagram {
				s.stamps = append(s.stamps, len(s.lines)+stampAt)
				s.lines = append(append(s.lines, lineOf(i, 0)...), '\n')
			}
			s.lines = s.lines[:len(s.lines)-1] // as clients do: a newline between lines
		}
		err := inside(i, func() (err error) {
			s.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err == nil {
				g.sources = append(g.sources, s)
				err = unix.Bind(s.fd, &unix.SockaddrInet4{Addr: addr.As4()})
			}
			if err == nil {
				err = unix.Connect(s.fd, &unix.SockaddrInet4{Addr: relay.Addr().As4(), Port: int(relay.Port())})
			}
			if err == nil {
				// One call of the kernel for a burst, which the receiver's socket
				// takes apart again: it sees datagrams like any others.
				err = unix.SetsockoptInt(s.fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT, s.size)
			}
			return err
		})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("send from %s: %w", addr, err), g.close())
		}
	}
	return g, nil
}

func (g *generator) close() error {
	var errs []error
	for _, s := range g.sources {
		errs = append(errs, unix.Close(s.fd))
	}
	g.sources = nil
	return errors.Join(errs...)
}

// sent is what a generator did.
type sent struct {
	lines, datagrams int
	took             time.Duration
}

// rate is in lines a second.
func (s sent) rate() float64 { return float64(s.lines) / s.took.Seconds() }

// send sends at a rate, in lines a second, for a time. It keeps a thread to
// itself, which makes up for what the kernel or a rest took from it; what it
// cannot send in time it does not send at all.
func (g *generator) send(rate float64, length time.Duration) (sent, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// Rests are otherwise lengthened by 50 µs (prctl(2)).
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		return sent{}, fmt.Errorf("set the timer slack: %w", err)
	}
	var done sent
	rest := unix.NsecToTimespec(int64(nap))
	perNano := rate / float64(g.perDgr) / 1e9 // datagrams
	most := burst
	if perNano*1e9 >= manyDatagrams {
		most = longBurst
	}
	began := clock()
	for {
		now := clock()
		elapsed := now - began
		if elapsed >= int64(length) {
			done.took = time.Duration(elapsed)
			return done, nil
		}
		if int(perNano*float64(elapsed)) < done.datagrams {
			_ = unix.Nanosleep(&rest, nil)
			continue
		}
		n := 1 + g.sizes.IntN(most)
		if err := g.burst(n, now); err != nil {
			return done, err
		}
		done.datagrams += n
		done.lines += n * g.perDgr
	}
}

// burst sends n datagrams from the next source, stamped with the time.
func (g *generator) burst(n int, now int64) error {
	s := g.sources[g.next]
	g.next = (g.next + 1) % len(g.sources)
	var room [stampDigits]byte
	stamp := decimal(&room, now)
	for _, at := range s.stamps[:n*g.perDgr] {
		copy(s.lines[at:], stamp)
	}
	for {
		_, err := unix.Write(s.fd, s.lines[:n*s.size])
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			// The first tells that an earlier datagram found nobody.
		default:
			return fmt.Errorf("send: %w", err)
		}
	}
}

// decimal writes v with all its digits.
func decimal(room *[stampDigits]byte, v int64) []byte {
	for i := range room {
		room[len(room)-1-i] = byte('0' + v%10)
		v /= 10
	}
	return room[:]
}

// addresses returns n addresses from first on.
func addresses(first netip.Addr, n int) []netip.Addr {
	out := make([]netip.Addr, n)
	for i := range out {
		out[i], first = first, first.Next()
	}
	return out
}

// freePort returns a port of an address that was free for UDP just now.
func freePort(at netip.Addr) (netip.AddrPort, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("find a free port: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: at.As4()}); err != nil {
		return netip.AddrPort{}, fmt.Errorf("find a free port of %s: %w", at, err)
	}
	return boundTo(fd)
}

func boundTo(fd int) (netip.AddrPort, error) {
	name, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("find a free port: %w", err)
	}
	in4, ok := name.(*unix.SockaddrInet4)
	if !ok {
		return netip.AddrPort{}, errors.New("find a free port: not an IPv4 socket")
	}
	return netip.AddrPortFrom(netip.AddrFrom4(in4.Addr), uint16(in4.Port)), nil
}

// stampOf reads a line's value, or returns false.
func stampOf(line []byte) (int64, bool) {
	if len(line) < stampAt+stampDigits {
		return 0, false
	}
	v, err := strconv.ParseInt(string(line[stampAt:stampAt+stampDigits]), 10, 64)
	return v, err == nil
}
