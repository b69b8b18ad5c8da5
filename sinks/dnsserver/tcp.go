package dnsserver

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"
)

// The limits of connections (RFC 7766 §6).
const (
	maxConns     = 128 // of the server
	idleTimeout  = 10 * time.Second
	writeTimeout = 5 * time.Second
	acceptPause  = 100 * time.Millisecond // after an error
)

// connections are the open ones of one listener.
type connections struct {
	mu     sync.Mutex
	open   map[net.Conn]struct{}
	closed bool
	wg     sync.WaitGroup
}

// add registers a connection, unless all have been closed already.
func (c *connections) add(conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	if c.open == nil {
		c.open = make(map[net.Conn]struct{})
	}
	c.open[conn] = struct{}{}
	return true
}

func (c *connections) remove(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, conn)
}

// closeAll closes the connections and those that would follow.
func (c *connections) closeAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for conn := range c.open {
		conn.Close()
	}
}

// serveTCP accepts connections until the listener is closed, and returns after
// the last of them has ended.
func (s *Server) serveTCP(ctx context.Context, l net.Listener, conns *connections) error {
	defer conns.wg.Wait()
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil { // no descriptor is free, mostly: some will be
			select {
			case <-ctx.Done():
				return err
			case <-time.After(acceptPause):
			}
			continue
		}
		select {
		case s.slots <- struct{}{}:
		default:
			s.meters.busy.Add(1)
			conn.Close()
			continue
		}
		if !conns.add(conn) {
			conn.Close()
			<-s.slots
			continue
		}
		conns.wg.Go(func() {
			s.serveConn(ctx, conn)
			conn.Close()
			conns.remove(conn)
			<-s.slots
		})
	}
}

// tcpWriter writes whole messages to a connection, from several goroutines.
type tcpWriter struct {
	mu   sync.Mutex
	conn net.Conn
	buf  *bufio.Writer
}

// write writes one message, and flushes when no more is about to follow.
func (w *tcpWriter) write(msg []byte, flush bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	var size [2]byte
	binary.BigEndian.PutUint16(size[:], uint16(len(msg)))
	w.buf.Write(size[:])
	_, err := w.buf.Write(msg)
	if flush {
		err = w.buf.Flush()
	}
	return err
}

func (w *tcpWriter) flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.Flush()
}

// serveConn answers the questions of one connection, in order but for those
// that are forwarded, until the client closes it, is idle for too long or sends
// what is no message.
func (s *Server) serveConn(ctx context.Context, conn net.Conn) {
	var forwards sync.WaitGroup
	defer forwards.Wait()
	client := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	in := bufio.NewReader(conn)
	w := &tcpWriter{conn: conn, buf: bufio.NewWriter(conn)}
	r := newResponder(rand.Uint32())
	for {
		conn.SetReadDeadline(time.Now().Add(s.idle))
		var size [2]byte
		if _, err := io.ReadFull(in, size[:]); err != nil {
			return
		}
		msg := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(in, msg); err != nil {
			return
		}
		if err := s.answerTCP(ctx, w, &forwards, r, client, msg); err != nil {
			return
		}
		if in.Buffered() == 0 { // the client waits for what it has asked
			if err := w.flush(); err != nil {
				return
			}
		}
	}
}

var errNoAnswer = errors.New("message that must not be answered")

// answerTCP answers one message, or sets out to forward it.
func (s *Server) answerTCP(ctx context.Context, w *tcpWriter, forwards *sync.WaitGroup, r *responder, client netip.Addr, msg []byte) error {
	defer s.meters.add(&r.tally)
	c := terms{
		table: s.table.Load(), transport: overTCP, forwardMisses: s.cfg.ForwardMisses,
		forward: s.cfg.Forward && s.clients.Load().trust(client),
	}
	out := s.buffers.Get().(*[maxTCP]byte)
	defer s.buffers.Put(out)
	n, act := r.respond(c, msg, out[:])
	switch act {
	case actDrop:
		return errNoAnswer
	case actForward:
		if s.forwarder.admit() {
			forwards.Go(func() {
				defer s.forwarder.leave()
				w.write(s.forward(ctx, c, msg), true)
			})
			return nil
		}
		s.meters.overloaded.Add(1)
		n = r.fail(c, msg, out[:], rcodeServFail)
	}
	return w.write(out[:n], false)
}
