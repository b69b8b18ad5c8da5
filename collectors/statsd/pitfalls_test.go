package statsd

import (
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berthd/berth/agent"
)

func TestPitfall_statsd01_TagsGoWhereServersLookForThem(t *testing.T) {
	for line, want := range map[string]string{
		"a:1|c|c:0123abcd":         "a:1|c|c:0123abcd|#" + added,
		"a:1|c|T1656581400":        "a:1|c|T1656581400|#" + added,
		"_sc|up|0|m:boom":          "_sc|up|0|#" + added + "|m:boom",
		"a:1|c\r":                  "a:1|c|#" + added + "\r",
		"a:1|c|#x:y|c:0123abcd\r":  "a:1|c|#" + added + ",x:y|c:0123abcd\r",
		"_e{3,8}:abc|d|#e:f,g|#x:": "_e{3,8}:abc|d|#e:f,g|#" + added + ",x:",
	} {
		if got, _ := rewritten(t, &rewriter{mode: ModeTags}, 1432, theOrigin(), line); len(got) != 1 || got[0] != want {
			t.Errorf("%q: got %q, want %q", line, got, want)
		}
	}
	// With the limit at the length before tags, as one relay has it, this one
	// would be over it.
	line := strings.Repeat("n", 1432-1-len(":1|c")) + ":1|c"
	if got, counts := rewritten(t, &rewriter{mode: ModeTags}, 1432, theOrigin(), line); len(got) != 1 || got[0] != line || counts.untagged != 1 {
		t.Errorf("a line with no room for tags: got %d lines, %+v", len(got), counts)
	}
}

func TestPitfall_statsd02_ABadLineSpoilsItselfOnly(t *testing.T) {
	for _, datagram := range []string{"garbage\na:1|c", "\n\na:1|c", "a:1|c\n_e{9,9}:x|y", "\xff\xfe\na:1|c\n|||", "a:1|c\n" + strings.Repeat("x", 5000)} {
		got, counts := rewritten(t, &rewriter{mode: ModeTags}, 1432, theOrigin(), datagram)
		if len(got) != 1 || got[0] != "a:1|c|#"+added {
			t.Errorf("%.40q: got %q", datagram, got)
		}
		if counts.lines != counts.malformed+counts.tooLong+1 {
			t.Errorf("%.40q: got %+v", datagram, counts)
		}
	}
}

// The kernel tells of each message of a batch by itself, and only of those that
// it has filled; what it told of the last batch's must not be taken for this one's.
func TestPitfall_statsd05_ABatchIsReadAsTheKernelLeftIt(t *testing.T) {
	o := opener{ownSockets{}, 1 << 20}
	s, err := o.udp(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if err := s.index(true); err != nil {
		t.Fatal(err)
	}
	b := newBatch()
	if n, errno := b.receive(s.fd); n != 0 || errno != unix.EAGAIN {
		t.Fatalf("an empty socket: got %d, %v", n, errno)
	}
	send(t, sender(t, "127.0.1.1", s.at), strings.Repeat("x", slotSize), strings.Repeat("y", slotSize+1), strings.Repeat("z", 65507), "")
	send(t, sender(t, "127.0.1.2", s.at), "short")
	n, errno := b.receive(s.fd)
	if n != 5 || errno != 0 {
		t.Fatalf("got %d, %v", n, errno)
	}
	for i, want := range []struct {
		size int
		cut  bool
		from string
	}{{slotSize, false, "127.0.1.1"}, {slotSize, true, "127.0.1.1"}, {slotSize, true, "127.0.1.1"}, {0, false, "127.0.1.1"}, {5, false, "127.0.1.2"}} {
		if got := b.bytes(i); len(got) != want.size || b.cut(i) != want.cut || b.place(i) != at(1, want.from) {
			t.Errorf("datagram %d: got %d bytes, cut %v, from %v over %d", i, len(got), b.cut(i), b.place(i), b.place(i).index)
		}
	}
	// Once more, with one datagram: lengths of names and controls are reset. The
	// interface is told as long as it is asked for.
	for _, index := range []uint32{1, 0, 1} {
		if err := s.index(index != 0); err != nil {
			t.Fatal(err)
		}
		send(t, sender(t, "127.0.1.3", s.at), "one")
		if n, errno := b.receive(s.fd); n != 1 || errno != 0 || string(b.bytes(0)) != "one" || b.cut(0) || b.place(0) != at(index, "127.0.1.3") {
			t.Fatalf("got %d, %v, %q from %v over %d", n, errno, b.bytes(0), b.place(0), b.place(0).index)
		}
	}
}

// 65,507 bytes are more than is read: whole lines count, the last part of one does
// not, and a lone datagram does not wait for company.
func TestPitfall_statsd05_TruncatedDatagramsAreCounted(t *testing.T) {
	sink := new(memory)
	r := start(t, testConfig(t), sink, snapshotOf(running(1, "web", "127.0.1.1")))
	from := sender(t, "127.0.1.1", r.udp(t, "127.0.0.1"))
	send(t, from, strings.Repeat("metric:1|c\n", 65507/11), "lone:1|c")
	whole := slotSize / 11
	await(t, "all lines arrive", func() bool { return len(sink.lines()) == whole+1 })
	r.stop()
	top := r.Top()
	balance(t, top)
	if sum := top.Totals; sum.Truncated != 1 || sum.Dropped.Truncated != 1 || sum.Dropped.Malformed != 0 {
		t.Errorf("got %+v", sum)
	}
}

func TestPitfall_statsd08_TheReceiveBufferIsAsLargeAsWanted(t *testing.T) {
	open := func(buffer int) *socket {
		o := opener{ownSockets{}, buffer}
		s, err := o.udp(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.close)
		return s
	}
	// How many lines of 80 bytes a socket holds that nobody reads.
	holds := func(s *socket) int {
		from := sender(t, "127.0.1.1", s.at)
		line := strings.Repeat("x", 76) + ":1|c"
		const many = 3000
		for range many {
			send(t, from, line)
		}
		return many - int(s.drops())
	}
	small, large := open(64<<10), open(4<<20)
	if few := holds(small); few > 1000 {
		t.Errorf("a buffer of 64 KiB holds %d lines: are drops not counted?", few)
	}
	if large.buffer != 4<<20 {
		t.Errorf("got a buffer of %d bytes: these tests need root, with CAP_NET_ADMIN", large.buffer)
	} else if all := holds(large); all != 3000 {
		t.Errorf("a buffer of 4 MiB holds %d lines only", all)
	}
	drops := small.drops()
	small.close()
	if got := small.drops(); got != drops || got == 0 {
		t.Errorf("after it is closed a socket dropped %d, want %d", got, drops)
	}
}

func TestPitfall_statsd09_LinesLeaveInFullDatagramsAndSmallBursts(t *testing.T) {
	sink := &bursts{memory: memory{payload: 1432}}
	r := &rewriter{mode: ModeTags, out: newPacker(sink)}
	for range 10000 {
		r.datagram([]byte("checkout.request:12|ms"), false, theOrigin(), 0)
	}
	r.out.flush()
	if sink.largest > packets {
		t.Errorf("%d datagrams at once, want at most %d", sink.largest, packets)
	}
	line := len("checkout.request:12|ms|#" + added + "\n")
	for i, d := range sink.sent[:len(sink.sent)-1] {
		if len(d)+line <= 1432 {
			t.Errorf("datagram %d has %d bytes, and room for one more line", i, len(d))
		}
	}
	if n := len(linesOf(sink.sent)); n != 10000 {
		t.Errorf("got %d lines", n)
	}
}

// bursts notes how many datagrams are sent at once.
type bursts struct {
	memory
	largest int
}

func (b *bursts) Send(list []agent.Packet) time.Duration {
	b.largest = max(b.largest, len(list))
	return b.memory.Send(list)
}

func TestPitfall_statsd10_DatagramsEndInANewlineAndFit(t *testing.T) {
	for _, payload := range []int{minPayload, 1432, maxPayload} {
		for size := 1; size < 600; size++ {
			line := strings.Repeat("n", size) + ":1|c"
			rewritten(t, &rewriter{mode: ModeTags}, payload, theOrigin(), strings.Repeat(line+"\n", 12)+line) // which checks it
		}
	}
}

// A host: tag is not passed on by a Datadog agent but makes the metric another
// host's; neither settings nor labels can add one, whatever is in them.
func TestPitfall_statsd11_NoHostTagByAccident(t *testing.T) {
	c := running(1, "web", "127.0.1.1",
		serviceLabel, "shop,host:evil", ddLabels+"env", "a|#host:evil", ddLabels+"version", "1\nevil:1|c|#host:evil", "x", "host:evil")
	c.Image = "image,host:evil:1,host:evil"
	cfg := DefaultConfig()
	cfg.ContainerTags = append(append([]string{}, tagNames...), "x=x")
	o := newOrigin(c.ID, c.Name, cfg.tagsOf(c), new(account))
	got, _ := rewritten(t, &rewriter{mode: ModeTags}, 1432, o, "a:1|c\nb:1|c|#host:mine,x:y|#z")
	if len(got) != 2 {
		t.Fatalf("two lines became %q", got)
	}
	for _, line := range got {
		if strings.Count(line, "|#") > 1+strings.Count(line, "|#host:mine") {
			t.Errorf("more than one section of tags: %q", line)
		}
		section := line[strings.LastIndex(line, "|#")+2:]
		for tag := range strings.SplitSeq(section, ",") {
			if strings.HasPrefix(tag, "host:") || strings.HasPrefix(tag, "dd.internal.") {
				t.Errorf("the tag %s was added: %q", tag, line)
			}
		}
	}
	// The client's section that counts is the last, and stays so.
	if !strings.HasPrefix(got[1], "b:1|c|#host:mine,x:y|#") || !strings.HasSuffix(got[1], ",z") {
		t.Errorf("got %q", got[1])
	}
}

func TestPitfall_statsd12_SourcesThatManyShareAreNotGuessed(t *testing.T) {
	sink := new(memory)
	host := running(1, "host", "", serviceLabel, "host")
	host.NetworkMode = "host"
	one := running(2, "one", "127.0.1.2", serviceLabel, "one", ddLabels+"env", "prod")
	two := running(3, "two", "", serviceLabel, "two", ddLabels+"env", "prod")
	two.NetworkMode = "container:" + one.ID
	r := start(t, testConfig(t), sink, snapshotOf(host, one, two))
	to := r.udp(t, "127.0.0.1")
	// From the gateway's own address come the host, containers in its network, and
	// Docker's proxy in the name of others.
	send(t, sender(t, "127.0.0.1", to), "gateway:1|c")
	send(t, sender(t, "127.0.1.2", to), "shared:1|c")
	send(t, sender(t, "127.0.1.9", to), "loopback:1|c")
	await(t, "all lines arrive", func() bool { return len(sink.lines()) == 3 })
	for _, line := range sink.lines() {
		if line != "gateway:1|c" && line != "shared:1|c|#env:prod" && line != "loopback:1|c" {
			t.Errorf("got %q", line)
		}
	}
	r.stop()
	if got := r.meters.shared.Load(); got != 2 {
		t.Errorf("%d lines of the host, want 2", got)
	}
}

// Under load, the relay reads many datagrams each time.
func TestPitfall_statsd13_NoWakeUpForEachDatagram(t *testing.T) {
	r := &receiver{}
	// 600 a second, in the steps in which it wakes up.
	for i := range 600 {
		r.now = time.Duration(i) * time.Second / 600
		r.counted++
		if r.measure(); r.busy && i < busyCount-1 {
			t.Fatalf("busy after %d datagrams in %v", i+1, r.now)
		}
	}
	if !r.busy {
		t.Error("600 datagrams a second are not taken for many")
	}
	if r.enough < 800*time.Millisecond || r.enough > 900*time.Millisecond {
		t.Errorf("512 of them are taken to arrive in %v", r.enough)
	}
	for i := range 400 {
		r.now += time.Second / 400
		r.counted++
		if r.measure(); i > 100 && r.busy {
			t.Fatal("400 datagrams a second are taken for many")
		}
	}
	r.now += busyWindow / 100
	r.counted = busyCount
	if !r.measure() {
		t.Error("a sudden load has to wait for the end of a window")
	}
	r.now += time.Hour
	r.counted = 2 * busyRate
	if r.measure(); r.busy {
		t.Error("a burst after an hour is taken for many a second")
	}

	// And a real one: it reads far less often than datagrams come.
	sink := new(memory)
	real := start(t, testConfig(t), sink, snapshotOf(running(1, "web", "127.0.1.1")))
	from := sender(t, "127.0.1.1", real.udp(t, "127.0.0.1"))
	var reads, datagrams uint64
	await(t, "ten datagrams are read at once", func() bool {
		before, had := real.meters.reads.Load(), real.meters.datagrams.Load()
		for range 200 {
			send(t, from, "a:1|c")
		}
		await(t, "they are read", func() bool { return real.meters.datagrams.Load() >= had+200 })
		reads, datagrams = real.meters.reads.Load()-before, real.meters.datagrams.Load()-had
		return datagrams >= 10*reads
	})
}

// One container floods. It is limited to its rate; the others lose nothing that
// the kernel delivered, and what was dropped is the flooder's.
func TestFlood(t *testing.T) {
	for _, limit := range []int{0, 100} {
		sink := new(memory)
		cfg := testConfig(t)
		cfg.RateLimit = limit
		r := start(t, cfg, sink, snapshotOf(running(1, "flood", "127.0.1.1"), running(2, "calm", "127.0.1.2", serviceLabel, "calm")))
		to := r.udp(t, "127.0.0.1")
		loud, quiet := sender(t, "127.0.1.1", to), sender(t, "127.0.1.2", to)
		var flooding sync.WaitGroup
		flooding.Go(func() {
			datagram := []byte(strings.Repeat("flood:1|c\n", 10))
			for range 3000 {
				_, _ = loud.Write(datagram)
			}
		})
		for range 50 {
			send(t, quiet, "calm:1|c")
		}
		flooding.Wait()
		r.stop() // which reads all that the kernel has
		top := r.Top()
		balance(t, top)
		calm := 0
		for _, line := range sink.lines() {
			if line == "calm:1|c|#service:calm" {
				calm++
			}
		}
		if want := 50; top.Totals.Kernel == 0 && calm != want {
			t.Errorf("limit %d: %d lines of the calm one arrived, want %d", limit, calm, want)
		}
		for _, s := range top.Senders {
			switch {
			case s.Container == "calm" && (s.Dropped() != 0 || s.Lines != uint64(calm)):
				t.Errorf("limit %d: %+v, but %d lines arrived", limit, s, calm)
			case s.Container == "flood" && limit > 0 && s.RateLimited == 0:
				t.Errorf("limit %d: the flood was not limited: %+v", limit, s)
			case s.Container == "flood" && limit == 0 && s.Dropped() != 0:
				t.Errorf("without a limit: %+v", s)
			}
		}
	}
}
