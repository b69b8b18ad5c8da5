package rig

import (
	"fmt"
	"net"
	"time"

	"github.com/miekg/dns"
)

// LookUp asks the server at the other end for the SRV record of a name, and
// returns its port, or 0 if there is none.
func LookUp(server *net.UDPConn, name string) (uint16, error) {
	m := new(dns.Msg).SetQuestion(name, dns.TypeSRV)
	question, err := m.Pack()
	if err != nil {
		return 0, fmt.Errorf("ask for %s: %w", name, err)
	}
	if err := server.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return 0, err
	}
	if _, err := server.Write(question); err != nil {
		return 0, fmt.Errorf("ask for %s: %w", name, err)
	}
	answer, err := readAnswer(server, m.Id)
	if err != nil {
		return 0, fmt.Errorf("ask for %s: %w", name, err)
	}
	switch answer.Rcode {
	case dns.RcodeNameError:
		return 0, nil
	case dns.RcodeSuccess:
		for _, rr := range answer.Answer {
			if srv, ok := rr.(*dns.SRV); ok {
				return srv.Port, nil
			}
		}
		return 0, nil
	}
	return 0, fmt.Errorf("ask for %s: %s", name, dns.RcodeToString[answer.Rcode])
}

// readAnswer reads until the answer to one question comes.
func readAnswer(conn *net.UDPConn, id uint16) (*dns.Msg, error) {
	var buf [1500]byte
	for {
		n, err := conn.Read(buf[:])
		if err != nil {
			return nil, err
		}
		m := new(dns.Msg)
		if err := m.Unpack(buf[:n]); err != nil {
			return nil, err
		}
		if m.Id == id {
			return m, nil
		}
	}
}
