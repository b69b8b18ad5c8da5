package statsd

import "bytes"

// kind is what a line is.
type kind uint8

const (
	malformed kind = iota
	metric
	event
	check
)

// shape says where the parts of a line are. The optional fields of a line, each
// of which begins with a bar, are line[fields:end]; what follows end, the message
// of a service check, must stay last. The zero value is that of a malformed line.
type shape struct {
	kind   kind
	fields int
	end    int
	tags   int  // where the tags begin, behind the last "|#" that counts; -1 for none
	last   int  // where they end
	told   bool // a field of the client's says where the line comes from
}

// find finds the parts of a line, which has no line end, for a shape that is zero.
// It looks at no more than is needed to know where tags belong: whether a value is
// a number, or a type known, is for the upstream to judge. The grammar is that of
// DogStatsD 1.0 to 1.6
// (https://docs.datadoghq.com/developers/dogstatsd/datagram_shell/), of which
// StatsD's own is a part.
func (s *shape) find(line []byte) {
	if len(line) > 3 && line[0] == '_' {
		switch {
		case line[1] == 'e' && line[2] == '{':
			s.event(line)
			return
		case line[1] == 's' && line[2] == 'c' && line[3] == '|':
			s.check(line)
			return
		}
	}
	s.metric(line)
}

// metric: name:value|type, with more values behind colons, and fields.
func (s *shape) metric(line []byte) {
	bar := bytes.IndexByte(line, '|')
	if bar < 0 {
		return
	}
	colon := bytes.IndexByte(line[:bar], ':')
	if colon < 1 || colon == bar-1 || bar == len(line)-1 || line[bar+1] == '|' {
		return // no name, no value or no type
	}
	s.kind = metric
	s.look(line, next(line, bar+1))
}

// check: _sc|name|status, and fields. A message, m:, ends the line whatever is in
// it.
func (s *shape) check(line []byte) {
	const name = len("_sc|")
	status := next(line, name) + 1
	if status <= name+1 || status >= len(line) || line[status] == '|' {
		return
	}
	s.kind = check
	s.look(line, next(line, status))
}

// event: _e{a,b}:title|text, of a and b bytes, and fields.
func (s *shape) event(line []byte) {
	title, at := number(line, len("_e{"))
	if at < 0 || at >= len(line) || line[at] != ',' {
		return
	}
	text, at := number(line, at+1)
	if at < 0 || at+1 >= len(line) || line[at] != '}' || line[at+1] != ':' {
		return
	}
	at += len("}:") + title
	if at >= len(line) || line[at] != '|' {
		return
	}
	at += len("|") + text
	if at > len(line) || at < len(line) && line[at] != '|' {
		return
	}
	s.kind = event
	s.look(line, at)
}

// number reads a length of an event, and returns where it ends; -1 if there is
// none, or one that no line has.
func number(line []byte, at int) (n, end int) {
	const most = 1 << 20
	begin := at
	for ; at < len(line) && line[at] >= '0' && line[at] <= '9'; at++ {
		if n = 10*n + int(line[at]-'0'); n > most {
			return 0, -1
		}
	}
	if at == begin {
		return 0, -1
	}
	return n, at
}

// next returns where the next bar is, or the end of the line.
func next(line []byte, from int) int {
	if from >= len(line) {
		return len(line)
	}
	if i := bytes.IndexByte(line[from:], '|'); i >= 0 {
		return from + i
	}
	return len(line)
}

// look goes through the fields, which begin at a place of the line.
func (s *shape) look(line []byte, at int) {
	s.fields, s.end, s.tags = at, len(line), -1
	for at < len(line) {
		end := next(line, at+1)
		switch field := line[at+1 : end]; {
		case len(field) == 0:
		case field[0] == '#':
			s.tags, s.last = at+len("|#"), end
		case originField(field):
			s.told = true
		case s.kind == check && len(field) > 1 && field[0] == 'm' && field[1] == ':':
			s.end = at
			return
		}
		at = end
	}
}

// entity is the tag by which older clients say where a line comes from.
var entity = []byte("dd.internal.entity_id:")

// originField reports whether a field says where its line comes from: the
// container's ID (c:, since 1.2), or what an admission controller injects (e:,
// since 1.5).
func originField(field []byte) bool {
	return len(field) > 1 && field[1] == ':' && (field[0] == 'c' || field[0] == 'e')
}

// foreign reports whether a field is one that plain StatsD servers choke on:
// where a line comes from, how much of it is wanted (card:, since 1.6), and a
// metric's time (T, since 1.3).
func foreign(field []byte, k kind) bool {
	return originField(field) || bytes.HasPrefix(field, []byte("card:")) || k == metric && len(field) > 0 && field[0] == 'T'
}

// strip writes a line without its foreign fields to dst, which has room for it,
// and returns how long it is then.
func strip(dst, line []byte, s *shape) int {
	n := copy(dst, line[:s.fields])
	for at := s.fields; at < s.end; {
		end := next(line[:s.end], at+1)
		if !foreign(line[at+1:end], s.kind) {
			n += copy(dst[n:], line[at:end])
		}
		at = end
	}
	return n + copy(dst[n:], line[s.end:])
}
