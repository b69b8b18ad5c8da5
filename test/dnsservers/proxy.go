package dnsservers

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"
)

// Mode is what a Proxy does to the messages of a connection.
type Mode int32

// Pass hands on both ways. Cut ends the connection before the server sees the
// question; CutReply after the server has answered, so that the answer is lost;
// Hold keeps question and connection until Release. ServFail and Forge answer in
// the server's place, without a signature: that it is in trouble, and that all is
// well.
const (
	Pass Mode = iota
	Cut
	CutReply
	Hold
	ServFail
	Forge
)

// Proxy stands between a server and those who ask it over TCP. Its methods are
// safe for concurrent use.
type Proxy struct {
	listener *net.TCPListener
	server   netip.AddrPort
	mode     atomic.Int32
	troubled atomic.Int64
	work     sync.WaitGroup

	mu    sync.Mutex
	held  *hold
	conns map[net.Conn]bool
}

// NewProxy returns a proxy in front of a server, which ends with the test.
func NewProxy(t testing.TB, server netip.AddrPort) *Proxy {
	t.Helper()
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	must(t, err)
	p := &Proxy{listener: l, server: server, held: newHold(), conns: make(map[net.Conn]bool)}
	p.work.Go(p.accept)
	t.Cleanup(func() {
		l.Close()
		p.mu.Lock()
		for c := range p.conns {
			c.Close()
		}
		p.mu.Unlock()
		p.Release()
		p.work.Wait()
	})
	return p
}

// Addr returns where to ask.
func (p *Proxy) Addr() netip.AddrPort { return p.listener.Addr().(*net.TCPAddr).AddrPort() }

// Set changes the mode, from the next message on.
func (p *Proxy) Set(m Mode) { p.mode.Store(int32(m)) }

// Troubled returns how many messages were not simply passed.
func (p *Proxy) Troubled() int { return int(p.troubled.Load()) }

// hold is the messages that the next Release hands on.
type hold struct {
	release  chan struct{}
	messages sync.WaitGroup
}

func newHold() *hold { return &hold{release: make(chan struct{})} }

// Release hands all messages that are held to the server, though nobody may wait
// for their answers any more, and returns when the server has answered them.
func (p *Proxy) Release() {
	p.mu.Lock()
	h := p.held
	p.held = newHold()
	p.mu.Unlock()
	close(h.release)
	h.messages.Wait()
}

func (p *Proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		p.mu.Lock()
		p.conns[c] = true
		p.mu.Unlock()
		p.work.Go(func() {
			p.serve(c)
			c.Close()
			p.mu.Lock()
			delete(p.conns, c)
			p.mu.Unlock()
		})
	}
}

// serve handles the messages of one connection until something ends it.
func (p *Proxy) serve(client net.Conn) {
	for {
		question, err := readMessage(client)
		if err != nil {
			return
		}
		mode := Mode(p.mode.Load())
		if mode != Pass && mode != Hold {
			p.troubled.Add(1)
		}
		var answer []byte
		switch mode {
		case Cut:
			return
		case ServFail:
			answer = bare(question, dns.RcodeServerFailure)
		case Forge:
			answer = bare(question, dns.RcodeSuccess)
		default:
			if mode == Hold {
				answer, err = p.askLater(question)
			} else {
				answer, err = p.ask(question)
			}
			if err != nil || mode == CutReply {
				return
			}
		}
		if _, err := client.Write(answer); err != nil {
			return
		}
	}
}

// askLater passes one message on after the next Release.
func (p *Proxy) askLater(question []byte) ([]byte, error) {
	p.mu.Lock()
	h := p.held
	h.messages.Add(1)
	p.mu.Unlock()
	defer h.messages.Done()
	p.troubled.Add(1) // it belongs to a Release from here on
	<-h.release
	return p.ask(question)
}

// ask passes one message on and returns the answer.
func (p *Proxy) ask(question []byte) ([]byte, error) {
	server, err := net.Dial("tcp", p.server.String())
	if err != nil {
		return nil, err
	}
	defer server.Close()
	if _, err := server.Write(question); err != nil {
		return nil, err
	}
	return readMessage(server)
}

// bare returns the header of a message as an answer with this code.
func bare(question []byte, code byte) []byte {
	answer := make([]byte, 2+12)
	binary.BigEndian.PutUint16(answer, 12)
	copy(answer[2:], question[2:6])
	answer[4] |= 0x80 // QR
	answer[5] = code  // RCODE
	return answer
}

// readMessage reads one DNS message with the length in front of it (RFC 1035
// §4.2.2).
func readMessage(r io.Reader) ([]byte, error) {
	message := make([]byte, 2)
	if _, err := io.ReadFull(r, message); err != nil {
		return nil, err
	}
	message = append(message, make([]byte, binary.BigEndian.Uint16(message))...)
	if _, err := io.ReadFull(r, message[2:]); err != nil {
		return nil, err
	}
	return message, nil
}
