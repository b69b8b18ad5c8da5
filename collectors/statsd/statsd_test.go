package statsd

import (
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Two containers, the host and a stranger send; each line arrives with what is
// known of its sender.
func TestRelay(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	sink := new(memory)
	cfg := testConfig(t)
	cfg.Tags = []string{"region:eu"}
	r := start(t, cfg, sink, snapshotOf(
		running(1, "web", "127.0.1.1", serviceLabel, "shop"),
		running(2, "calc", "127.0.1.2", serviceLabel, "sums", ddLabels+"env", "prod"),
	))
	to := r.udp(t, "127.0.0.1")
	send(t, sender(t, "127.0.1.1", to), "a:1|c\nb:2|g|#own:x\n", "c:3|ms")
	send(t, sender(t, "127.0.1.2", to), "d:4|c|@0.5|#service:mine,x:y", "garbage\ne:5|c\n")
	send(t, sender(t, "127.0.0.1", to), "f:6|c")
	want := []string{
		"a:1|c|#region:eu,service:shop", "b:2|g|#region:eu,service:shop,own:x", "c:3|ms|#region:eu,service:shop",
		"d:4|c|@0.5|#region:eu,env:prod,service:mine,x:y", "e:5|c|#region:eu,service:sums,env:prod",
		"f:6|c|#region:eu",
	}
	await(t, "all lines arrive", func() bool { return len(sink.lines()) >= len(want) })
	r.stop()
	got := sink.lines()
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
	top := r.Top()
	balance(t, top)
	if top.Totals.LinesIn != 7 || top.Totals.Dropped.Malformed != 1 {
		t.Errorf("got %+v, want 7 lines in, one of them malformed", top.Totals)
	}
	for _, s := range top.Senders {
		want := map[string]uint64{"web": 3, "calc": 3, sharedName: 1}[s.Container]
		if s.Lines != want {
			t.Errorf("%s: got %d lines, want %d", s.Container, s.Lines, want)
		}
	}
	if after := runtime.GOMAXPROCS(0); after != before {
		t.Errorf("%d goroutines may run at once afterwards, want %d", after, before)
	}
	if !sink.closed {
		t.Error("the port was not closed")
	}
	if s := r.Summary(); !strings.Contains(s, "7 lines in") {
		t.Errorf("summary: %s", s)
	}
}

// The process of the test is in no container that the snapshot knows.
func TestUnixSocketOfTheHost(t *testing.T) {
	sink := new(memory)
	cfg := testConfig(t)
	r := start(t, cfg, sink, snapshotOf())
	conn, err := net.Dial("unixgram", cfg.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	send(t, conn, "a:1|c\n")
	await(t, "the line arrives", func() bool { return len(sink.lines()) == 1 })
	r.stop()
	if top := r.Top(); top.Senders[0].Container != sharedName {
		t.Errorf("got sender %+v, want the host", top.Senders[0])
	}
}
