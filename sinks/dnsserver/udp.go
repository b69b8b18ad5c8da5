package dnsserver

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The shape of a batch. A question is read into a buffer of its own; one that
// is larger is cut short, and malformed then.
const (
	batchSize    = 32
	questionSize = 1024
)

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// batch is the memory for one round of reading and writing: every question has
// its buffer, its sender's address and its answer's buffer. The headers that
// the kernel works on point to them for good.
type batch struct {
	in, out         [batchSize]mmsghdr
	inIov, outIov   [batchSize]unix.Iovec
	names           [batchSize]unix.RawSockaddrInet6 // has room for both families
	questions       [batchSize][questionSize]byte
	answers         [batchSize][maxUDP]byte
	nameSize        uint32
	received, ready int   // questions in, answers out
	sent            int   // answers that are done with
	err             error // of the last call
}

func newBatch(nameSize uint32) *batch {
	b := &batch{nameSize: nameSize}
	for i := range b.in {
		b.inIov[i].Base = &b.questions[i][0]
		b.inIov[i].SetLen(questionSize)
		b.in[i].hdr.Iov = &b.inIov[i]
		b.in[i].hdr.SetIovlen(1)
		b.in[i].hdr.Name = (*byte)(unsafe.Pointer(&b.names[i]))
		b.out[i].hdr.Iov = &b.outIov[i]
		b.out[i].hdr.SetIovlen(1)
	}
	return b
}

// reply queues the first n bytes of the i-th answer for the i-th sender.
func (b *batch) reply(i, n int) {
	b.outIov[b.ready].Base = &b.answers[i][0]
	b.outIov[b.ready].SetLen(n)
	hdr := &b.out[b.ready].hdr
	hdr.Name = b.in[i].hdr.Name
	hdr.Namelen = b.in[i].hdr.Namelen
	b.ready++
}

// receive reads what is there, and reports whether there was anything.
func (b *batch) receive(fd uintptr) bool {
	for i := range b.in {
		b.in[i].hdr.Namelen = b.nameSize
	}
	n, errno := mmsg(unix.SYS_RECVMMSG, fd, b.in[:])
	if errno == unix.EAGAIN {
		return false
	}
	b.received, b.err = n, nil
	if errno != 0 {
		b.received, b.err = 0, errno
	}
	return true
}

// send writes the queued answers, and reports whether all are done with. An
// answer that cannot be sent (a firewall's EPERM, a network that is gone) is
// passed over.
func (b *batch) send(fd uintptr) bool {
	for b.sent < b.ready {
		n, errno := mmsg(unix.SYS_SENDMMSG, fd, b.out[b.sent:b.ready])
		switch errno {
		case 0:
			b.sent += n
		case unix.EAGAIN:
			return false
		case unix.EINTR:
		default:
			b.sent++
			b.err = errno
		}
	}
	return true
}

// mmsg calls recvmmsg or sendmmsg, without waiting.
func mmsg(call, fd uintptr, hdrs []mmsghdr) (int, syscall.Errno) {
	n, _, errno := unix.Syscall6(call, fd, uintptr(unsafe.Pointer(&hdrs[0])), uintptr(len(hdrs)), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

// serveUDP answers the questions that come to a socket until it is closed. One
// goroutine reads a batch, answers it and writes the answers: under load, two
// system calls carry up to batchSize questions.
func (s *Server) serveUDP(ctx context.Context, conn *net.UDPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("serve udp: %w", err)
	}
	nameSize := uint32(unix.SizeofSockaddrInet4)
	if conn.LocalAddr().(*net.UDPAddr).IP.To4() == nil {
		nameSize = unix.SizeofSockaddrInet6
	}
	b := newBatch(nameSize)
	r := newResponder(rand.Uint32())
	receive, send := b.receive, b.send // once, as each conversion allocates
	for {
		if err := raw.Read(receive); err != nil {
			return fmt.Errorf("read questions: %w", err)
		}
		if b.err == unix.EINTR {
			continue
		}
		if b.err != nil {
			return fmt.Errorf("read questions: %w", b.err)
		}
		s.answerBatch(ctx, conn, r, b)
		if b.ready == 0 {
			continue
		}
		if err := raw.Write(send); err != nil {
			return fmt.Errorf("write answers: %w", err)
		}
		if b.err != nil {
			s.meters.unsent.Add(1)
		}
	}
}

// answerBatch answers the questions that have been received.
func (s *Server) answerBatch(ctx context.Context, conn *net.UDPConn, r *responder, b *batch) {
	b.ready, b.sent = 0, 0
	c := terms{table: s.table.Load(), transport: overUDP, forwardMisses: s.cfg.ForwardMisses}
	for i := range b.received {
		msg := b.questions[i][:min(b.in[i].len, questionSize)]
		if s.cfg.Forward {
			c.forward = s.clients.Load().trust(b.sender(i).Addr())
		}
		n, act := r.respond(c, msg, b.answers[i][:])
		if act == actForward {
			n = s.forwardUDP(ctx, conn, r, c, msg, b.answers[i][:], b.sender(i))
		}
		if n > 0 {
			b.reply(i, n)
		}
	}
	s.meters.add(&r.tally)
}

// sender returns where the i-th question came from.
func (b *batch) sender(i int) netip.AddrPort {
	name := &b.names[i]
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&name.Port))[:])
	if name.Family == unix.AF_INET {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), port)
	}
	a := netip.AddrFrom16(name.Addr)
	if name.Scope_id != 0 {
		a = a.WithZone(strconv.Itoa(int(name.Scope_id)))
	}
	return netip.AddrPortFrom(a, port)
}
