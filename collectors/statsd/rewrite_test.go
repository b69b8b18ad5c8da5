package statsd

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// A rewriter as it runs, on batches read from a socket, allocates nothing.
func TestDatagramsDoNotAllocate(t *testing.T) {
	o := newOrigin(idOf(1), "web", []tag{{"service:shop", 7}, {"env:prod", 3}}, new(account))
	datagram := []byte("a.b:1|c\nc.d:2|g|#x:y,service:mine\n_e{5,4}:title|text|#q:w\n_sc|up|0|m:all|#well\ngarbage\nlong:1|c|#" + strings.Repeat("x", 1400) + "\n")
	for _, mode := range []Mode{ModeTags, ModeCID, ModeNone} {
		for _, stripped := range []bool{false, true} {
			r := &rewriter{mode: mode, strip: stripped, limit: 1e9, out: newPacker(new(discard))}
			now := time.Duration(0)
			n := testing.AllocsPerRun(100, func() {
				now += time.Millisecond
				r.datagram(datagram, false, o, now)
				r.out.flush()
			})
			if n != 0 {
				t.Errorf("mode %s, strip %v: %v allocations for a datagram, want none", mode, stripped, n)
			}
		}
	}
}

// From the kernel's queue to the port, nothing is allocated either.
func TestReceivingDoesNotAllocate(t *testing.T) {
	cfg := testConfig(t)
	r := start(t, cfg, new(memory), snapshotOf(running(1, "web", "127.0.1.1", serviceLabel, "shop")))
	o := opener{ownSockets{}, 1 << 20}
	s, err := o.udp(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	recv, err := newReceiver(cfg, &r.table, new(meters), new(discard))
	if err != nil {
		t.Fatal(err)
	}
	defer recv.close()
	from := sender(t, "127.0.1.1", s.at)
	const batches, each = 20, 50
	for range batches * each {
		send(t, from, "a:1|c")
	}
	read := 0
	n := testing.AllocsPerRun(batches, func() {
		read += recv.readOnce(s)
		recv.rewrite.out.flush()
		recv.meters.add(&recv.rewrite.tally)
	})
	if read != batches*each {
		t.Errorf("read %d datagrams, want %d", read, batches*each)
	}
	if n != 0 {
		t.Errorf("%v allocations for a batch, want none", n)
	}
	if got := recv.meters.lines.Load(); got != batches*each {
		t.Errorf("got %d lines", got)
	}
}

// Lines of a container that has just ended are still its own, unless another one
// has its address already.
func TestLateLines(t *testing.T) {
	sink := new(memory)
	r := start(t, testConfig(t), sink, snapshotOf(running(1, "old", "127.0.1.1", serviceLabel, "old")))
	from := sender(t, "127.0.1.1", r.udp(t, "127.0.0.1"))
	r.publish(t, snapshotOf())
	send(t, from, "late:1|c")
	await(t, "the late line arrives", func() bool { return len(sink.lines()) == 1 })
	r.publish(t, snapshotOf(running(2, "new", "127.0.1.1", serviceLabel, "new")))
	send(t, from, "next:1|c")
	await(t, "the next line arrives", func() bool { return len(sink.lines()) == 2 })
	if got := fmt.Sprint(sink.lines()); got != "[late:1|c|#service:old next:1|c|#service:new]" {
		t.Errorf("got %s", got)
	}
}
