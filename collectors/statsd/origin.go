package statsd

import (
	"bytes"
	"sync/atomic"
	"time"
)

// tag is one tag as it is sent, with the length of its key.
type tag struct {
	text string // "service:web"
	key  int    // bytes before the colon
}

// origin is a sender of lines, and what is put into them. It is immutable, but
// for the counters and the bucket.
type origin struct {
	id, name string // of the container; the ID is empty for what is no container
	tags     []tag
	account  *account

	field []byte    // "|#service:web,env:prod": where a line has no tags
	first []byte    // "service:web,env:prod,": in front of the tags that it has
	cid   []byte    // "|c:3fa4…": the container's ID as a field
	keys  [4]uint64 // a set of the first two bytes of the keys, by their hash
}

// newOrigin renders the tags.
func newOrigin(id, name string, tags []tag, acct *account) *origin {
	o := &origin{id: id, name: name, tags: tags, account: acct}
	if len(tags) > 0 {
		o.field = append(o.field, "|#"...)
		for i, t := range tags {
			if i > 0 {
				o.field = append(o.field, ',')
			}
			o.field = append(o.field, t.text...)
			h := hashKey(t.text[0], t.text[1])
			o.keys[h>>6] |= 1 << (h & 63)
		}
		o.first = append(append(o.first, o.field[len("|#"):]...), ',')
	}
	if id != "" {
		o.cid = []byte("|c:" + id)
	}
	return o
}

// without writes the tags whose keys the client's own tags do not have to dst,
// each followed by a comma, and returns how long they are; -1 if the client's have
// none of them, as is usual. A client's word counts: some upstreams would
// keep both values, others the last.
func (o *origin) without(dst, own []byte) int {
	found := false
	for rest := own; len(rest) > 0 && !found; {
		t := rest
		if i := bytes.IndexByte(rest, ','); i >= 0 {
			t, rest = rest[:i], rest[i+1:]
		} else {
			rest = nil
		}
		found = o.mayHave(t) && o.has(t)
	}
	if !found {
		return -1
	}
	n := 0
	for _, t := range o.tags {
		if !hasKey(own, t.text[:t.key]) {
			n += copy(dst[n:], t.text)
			n += copy(dst[n:], comma)
		}
	}
	return n
}

var comma = []byte{','}

// hashKey is of the first two bytes of a tag, the second of which may be the colon.
// The first alone would be the same for too many.
func hashKey(a, b byte) byte { return 31*a + b }

// mayHave reports whether it is worth to look for the key of a client's tag among
// the tags.
func (o *origin) mayHave(own []byte) bool {
	if len(own) == 0 {
		return false
	}
	second := byte(':')
	if len(own) > 1 {
		second = own[1]
	}
	h := hashKey(own[0], second)
	return o.keys[h>>6]&(1<<(h&63)) != 0
}

// has reports whether one of the tags has the key of a client's tag.
func (o *origin) has(own []byte) bool {
	for _, t := range o.tags {
		if sameKey(own, t.text[:t.key]) {
			return true
		}
	}
	return false
}

// sameKey reports whether a tag is a key alone, or a key with a value.
func sameKey(own []byte, key string) bool {
	return len(own) >= len(key) && string(own[:len(key)]) == key && (len(own) == len(key) || own[len(key)] == ':')
}

// hasKey reports whether one of a client's tags has the key.
func hasKey(own []byte, key string) bool {
	for len(own) > 0 {
		var t []byte
		t, own, _ = bytes.Cut(own, comma)
		if sameKey(t, key) {
			return true
		}
	}
	return false
}

// account is what one sender has sent so far. It is written by the receiving
// goroutine alone and read by any.
type account struct {
	datagrams, lines, bytes         atomic.Uint64
	malformed, tooLong, rateLimited atomic.Uint64
	untagged                        atomic.Uint64 // lines that had no room for tags
	rate                            atomic.Uint64 // bits of a float64: lines a second

	bucket bucket // of the receiving goroutine

	// What follows belongs to the goroutine that follows the snapshots.
	seen     uint64    // lines, when the rate was last computed
	lastSeen time.Time // when the sender was last known to live
}

// dropped is how many lines were not passed on.
func (a *account) dropped() uint64 {
	return a.malformed.Load() + a.tooLong.Load() + a.rateLimited.Load()
}

// bucket limits the rate of a sender's lines: a token for each, which come back
// at the rate, up to those of one second.
type bucket struct {
	tokens float64
	last   time.Duration // when they were counted
	begun  bool
}

// refill adds what has come back by now, a time that never goes back.
func (b *bucket) refill(rate float64, now time.Duration) {
	if !b.begun {
		b.begun, b.tokens, b.last = true, rate, now
	}
	b.tokens = min(rate, b.tokens+rate*(now-b.last).Seconds())
	b.last = now
}

// take takes a token, and reports whether there was one.
func (b *bucket) take() bool {
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
