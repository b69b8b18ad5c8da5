package dnsserver

import "encoding/binary"

// The parts of the message format (RFC 1035 §4.1, RFC 6891) that are needed.
const (
	headerSize = 12
	optSize    = 11 // an OPT record without options

	typeA    = 1
	typeNS   = 2
	typeSOA  = 6
	typeAAAA = 28
	typeSRV  = 33
	typeOPT  = 41
	typeIXFR = 251
	typeAXFR = 252
	typeANY  = 255

	classIN = 1

	// The first flag byte.
	flagQR     = 0x80
	maskOpcode = 0x78
	flagAA     = 0x04
	flagTC     = 0x02
	flagRD     = 0x01
	// The second one.
	flagRA = 0x80
	flagAD = 0x20
	flagCD = 0x10

	rcodeNoError  = 0
	rcodeFormErr  = 1
	rcodeServFail = 2
	rcodeNXDomain = 3
	rcodeNotImp   = 4
	rcodeRefused  = 5
	rcodeBadVers  = 16
)

// verdict is what becomes of a message before its question is looked at.
type verdict uint8

const (
	verdictAsk     verdict = iota // a question to be answered
	verdictDrop                   // nothing may be answered
	verdictFormErr                // malformed
	verdictNotImp                 // not a query
)

// query is a parsed message. It refers to the message's bytes.
type query struct {
	name  []byte // of the question, wire form, as asked
	lower []byte // the same in lower case; in scratch
	qtype uint16
	class uint16
	end   int // where the question ends; headerSize when it could not be parsed

	edns    bool
	version uint8
	size    uint16 // what the client takes over UDP, from OPT
	dnssec  bool   // the DO bit

	scratch lowerName
}

// parse reads a message. Whatever it returns, the fields are set as far as the
// message could be read.
func (q *query) parse(msg []byte) verdict {
	q.end, q.edns, q.dnssec, q.version = headerSize, false, false, 0
	// A response is never answered, lest two servers talk for ever.
	if len(msg) < headerSize || msg[2]&flagQR != 0 {
		return verdictDrop
	}
	if msg[2]&maskOpcode != 0 {
		return verdictNotImp
	}
	if binary.BigEndian.Uint16(msg[4:]) != 1 {
		return verdictFormErr // RFC 9619
	}
	i := headerSize
	for {
		if i >= len(msg) || msg[i] > maxLabel || i-headerSize >= maxName {
			return verdictFormErr
		}
		if msg[i] == 0 {
			break
		}
		i += int(msg[i]) + 1
	}
	i++
	if i+4 > len(msg) || i-headerSize > maxName {
		return verdictFormErr
	}
	q.name = msg[headerSize:i]
	q.lower = q.scratch.set(q.name)
	q.qtype = binary.BigEndian.Uint16(msg[i:])
	q.class = binary.BigEndian.Uint16(msg[i+2:])
	q.end = i + 4
	return q.parseRecords(msg)
}

// parseRecords walks what follows the question, and looks for OPT.
func (q *query) parseRecords(msg []byte) verdict {
	i := q.end
	others := int(binary.BigEndian.Uint16(msg[6:])) + int(binary.BigEndian.Uint16(msg[8:]))
	total := others + int(binary.BigEndian.Uint16(msg[10:]))
	for n := range total {
		root := i < len(msg) && msg[i] == 0
		if i = skipName(msg, i); i < 0 || i+10 > len(msg) {
			return verdictFormErr
		}
		rr := msg[i:]
		i += 10 + int(binary.BigEndian.Uint16(rr[8:]))
		if i > len(msg) {
			return verdictFormErr
		}
		if binary.BigEndian.Uint16(rr) != typeOPT {
			continue
		}
		if n < others || q.edns || !root {
			return verdictFormErr // RFC 6891 §6.1.1: one, of the root, additional
		}
		q.edns = true
		q.size = binary.BigEndian.Uint16(rr[2:])
		q.version = rr[5]
		q.dnssec = rr[6]&0x80 != 0
	}
	if i != len(msg) {
		return verdictFormErr
	}
	return verdictAsk
}

// skipName returns the offset behind the name at i, or -1.
func skipName(msg []byte, i int) int {
	for i < len(msg) {
		switch c := msg[i]; {
		case c == 0:
			return i + 1
		case c&0xC0 == 0xC0: // a pointer ends a name
			return i + 2
		case c > maxLabel:
			return -1
		default:
			i += int(c) + 1
		}
	}
	return -1
}
