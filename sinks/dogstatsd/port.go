package dogstatsd

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/berthd/berth/agent"
)

const (
	// batchSize is how many datagrams one system call sends at most: enough to
	// make its cost small, and few enough for an upstream with the kernel's
	// default receive buffer, which holds 92 full datagrams of UDP.
	batchSize = 32
	// segmented is the most bytes that the kernel cuts datagrams from: what fits
	// an IPv4 packet (65,507 bytes of payload).
	segmented = 65000
	// backlog is how many waiting datagrams a Send sends at most, so that an
	// upstream which is back is not overrun at once.
	backlog = 2 * batchSize
	// tryFirst is when to send again what an upstream had no room for: a Unix
	// socket holds but eleven datagrams where the kernel's default of
	// net.unix.max_dgram_qlen is in force, which one that reads is through with in
	// less. tryMost bounds how long the pauses get for one that does not read, and
	// tryLater is the pause when there is none.
	tryFirst = 100 * time.Microsecond
	tryMost  = 10 * time.Millisecond
	tryLater = 100 * time.Millisecond
	// closeTick is how often a port that is being closed tries.
	closeTick = 2 * time.Millisecond
)

// mmsghdr is struct mmsghdr of sendmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// Port sends packets to the upstream of Lines. Make it with Lines.Open; its
// methods are called from one goroutine, but for Stats.
type Port struct {
	sink    *Lines
	current *upstream // nil while there is none
	ring    *ring
	segment bool // as long as the kernel can
	pause   time.Duration

	next    atomic.Pointer[upstream] // that of the keeper, if it has a new one
	broken  chan struct{}            // tells the keeper that the current one is of no use
	cancel  context.CancelFunc
	keeping sync.WaitGroup

	msgs    [batchSize]mmsghdr
	iovs    [2 * batchSize]unix.Iovec // data and padding by turns
	packed  [batchSize]agent.Packet   // of the ring
	one     unix.Msghdr               // of a segmented send
	control [32]byte                  // its UDP_SEGMENT: a header of 16 bytes and a uint16
	padding [MaxPayload]byte

	lines, packets, bytes    atomic.Uint64
	dropped, failed, waiting atomic.Uint64
	connects                 atomic.Uint64
	troubles                 atomic.Uint64 // errors of sends
	errno                    atomic.Uint32 // of the last one
}

var _ agent.LinePort = (*Port)(nil)

// prepare sets what the kernel is told of every send.
func (p *Port) prepare() {
	for i := range p.padding {
		p.padding[i] = '\n'
	}
	head := (*unix.Cmsghdr)(unsafe.Pointer(&p.control[0]))
	head.Level, head.Type = unix.SOL_UDP, unix.UDP_SEGMENT
	head.SetLen(unix.CmsgLen(2))
	p.one.Iov = &p.iovs[0]
	p.one.Control = &p.control[0]
	p.one.SetControllen(unix.CmsgSpace(2))
}

// MaxPayload is the most bytes of a packet.
func (p *Port) MaxPayload() int { return p.sink.cfg.Payload }

// Stats says what became of all packets. It is exact between two calls of Send.
func (p *Port) Stats() agent.LineStats {
	return agent.LineStats{
		Lines: p.lines.Load(), Packets: p.packets.Load(), Bytes: p.bytes.Load(),
		Dropped: p.dropped.Load(), Failed: p.failed.Load(), Waiting: p.waiting.Load(),
		Connects: p.connects.Load(),
	}
}

// Send implements agent.LinePort.
func (p *Port) Send(packets []agent.Packet) time.Duration {
	p.adopt()
	if p.ring.empty() {
		packets = packets[p.transmit(packets):]
	}
	for _, packet := range packets {
		if lost := p.ring.push(packet); lost > 0 {
			p.dropped.Add(lost)
		}
	}
	if p.ring.empty() {
		return 0
	}
	before := p.packets.Load()
	p.catchUp(backlog)
	p.waiting.Store(p.ring.lines)
	switch {
	case p.ring.empty():
		return 0
	case p.current == nil:
		return tryLater
	case p.packets.Load() > before:
		p.pause = tryFirst
	default:
		p.pause = min(max(2*p.pause, tryFirst), tryMost)
	}
	return p.pause
}

// adopt takes over a new connection from the keeper.
func (p *Port) adopt() {
	if p.next.Load() == nil {
		return
	}
	u := p.next.Swap(nil)
	if p.current != nil {
		unix.Close(p.current.fd)
	}
	p.current = u
	p.connects.Add(1)
}

// abandon gives up a connection.
func (p *Port) abandon() {
	unix.Close(p.current.fd)
	p.current = nil
	select {
	case p.broken <- struct{}{}:
	default:
	}
}

// catchUp sends up to most packets of the ring.
func (p *Port) catchUp(most int) {
	for most > 0 && !p.ring.empty() {
		n := p.ring.fill(p.packed[:min(most, batchSize)])
		done := p.transmit(p.packed[:n])
		for range done {
			p.ring.pop()
		}
		if done < n {
			return
		}
		most -= n
	}
}

// transmit sends packets until the kernel takes no more, and returns how many
// are done with: sent, or lost because they cannot be sent.
func (p *Port) transmit(packets []agent.Packet) int {
	done := 0
	retried := false
	for done < len(packets) && p.current != nil {
		n, errno := p.kernel(packets[done:])
		if n > 0 {
			p.sent(packets[done : done+n])
			done += n
			retried = false
			continue
		}
		switch errno {
		case unix.EINTR:
			continue
		case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM:
			return done
		}
		p.errno.Store(uint32(errno))
		p.troubles.Add(1)
		switch errno {
		case unix.ECONNREFUSED, unix.ECONNRESET, unix.ENOTCONN, unix.EPIPE:
			if p.sink.unix { // nobody listens any longer
				p.abandon()
				return done
			}
			// The answer to an earlier datagram: this one has not been sent.
			if !retried {
				retried = true
				continue
			}
		}
		retried = false
		p.failed.Add(uint64(packets[done].Lines))
		done++
	}
	return done
}

// kernel hands packets to the kernel and returns how many it took; none if it
// returns an error.
func (p *Port) kernel(packets []agent.Packet) (int, unix.Errno) {
	if p.segment && len(packets) > 1 {
		n, errno := p.sendSegmented(packets)
		switch errno {
		case unix.EIO, unix.EINVAL, unix.EMSGSIZE, unix.EOPNOTSUPP, unix.ENOPROTOOPT:
			// No check sums by the hardware, an old kernel, a smaller MTU.
			p.segment = false
		default:
			return n, errno
		}
	}
	packets = packets[:min(len(packets), batchSize)]
	for i, packet := range packets {
		p.iovs[i].Base = unsafe.SliceData(packet.Data)
		p.iovs[i].SetLen(len(packet.Data))
		p.msgs[i].hdr.Iov = &p.iovs[i]
		p.msgs[i].hdr.SetIovlen(1)
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(p.current.fd),
		uintptr(unsafe.Pointer(&p.msgs[0])), uintptr(len(packets)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// sendSegmented sends packets in one go. All but the last are padded to the
// length of the longest.
func (p *Port) sendSegmented(packets []agent.Packet) (int, unix.Errno) {
	n, longest := 0, 0
	for n < min(len(packets), batchSize) {
		grown := max(longest, len(packets[n].Data))
		if (n+1)*grown > segmented {
			break
		}
		longest = grown
		n++
	}
	iovs := 0
	add := func(data []byte) {
		p.iovs[iovs].Base = unsafe.SliceData(data)
		p.iovs[iovs].SetLen(len(data))
		iovs++
	}
	for i, packet := range packets[:n] {
		add(packet.Data)
		if pad := longest - len(packet.Data); pad > 0 && i < n-1 {
			add(p.padding[:pad])
		}
	}
	p.one.SetIovlen(iovs)
	*(*uint16)(unsafe.Pointer(&p.control[unix.CmsgLen(0)])) = uint16(longest)
	_, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(p.current.fd),
		uintptr(unsafe.Pointer(&p.one)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	if errno != 0 {
		return 0, errno
	}
	return n, 0
}

// sent counts what the kernel took.
func (p *Port) sent(packets []agent.Packet) {
	lines, bytes := 0, 0
	for _, packet := range packets {
		lines += packet.Lines
		bytes += len(packet.Data)
	}
	p.lines.Add(uint64(lines))
	p.packets.Add(uint64(len(packets)))
	p.bytes.Add(uint64(bytes))
}

// Close implements agent.LinePort.
func (p *Port) Close(ctx context.Context) error {
	tick := time.NewTicker(closeTick)
	defer tick.Stop()
	for p.Send(nil) > 0 && ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	p.cancel()
	p.keeping.Wait()
	p.adopt()
	if p.current != nil {
		unix.Close(p.current.fd)
		p.current = nil
	}
	lost := p.ring.lines
	p.dropped.Add(lost)
	p.waiting.Store(0)
	p.ring.close()
	if lost > 0 {
		return fmt.Errorf("close the port to %s: %d lines that waited are lost", p.sink.cfg.Address, lost)
	}
	return nil
}
