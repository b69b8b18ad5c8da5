package dogstatsd

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berthd/berth/agent"
)

// patience bounds every wait. Nothing takes nearly as long but on a machine that
// is overloaded.
const patience = 2 * time.Minute

// linesTo returns a port to an address, and the health of its sink.
func linesTo(t *testing.T, cfg LineConfig) (*Port, *agent.Health) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	health := agent.NewHealth(log)
	if cfg.Buffer == 0 {
		cfg.Buffer = 1 << 20
	}
	l, err := NewLines(cfg, agent.Env{Log: log, Health: health})
	if err != nil {
		t.Fatal(err)
	}
	p, err := l.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = p.Close(ctx)
	})
	return p.(*Port), health
}

// upstreamAt is a server that reads datagrams.
type upstreamAt struct {
	net.PacketConn
	address string
}

func listenUDP(t *testing.T) upstreamAt {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return upstreamAt{conn, conn.LocalAddr().String()}
}

func listenUnix(t *testing.T, path string) upstreamAt {
	t.Helper()
	conn, err := net.ListenPacket("unixgram", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return upstreamAt{conn, path}
}

// read returns n datagrams.
func (u upstreamAt) read(t *testing.T, n int) []string {
	t.Helper()
	var got []string
	buf := make([]byte, 1<<16)
	if err := u.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	for len(got) < n {
		size, _, err := u.ReadFrom(buf)
		if err != nil {
			t.Fatalf("read datagram %d of %d: %v", len(got)+1, n, err)
		}
		got = append(got, string(buf[:size]))
	}
	return got
}

func packet(text string) agent.Packet {
	return agent.Packet{Data: []byte(text), Lines: strings.Count(text, "\n")}
}

// until sends nothing until the condition holds.
func until(t *testing.T, p *Port, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v: %s; %+v", patience, what, p.Stats())
		}
		p.Send(nil)
		time.Sleep(time.Millisecond)
	}
}

// packets are n packets of different lengths.
func packets(n int) (list []agent.Packet, texts []string) {
	for i := range n {
		text := strings.Repeat(fmt.Sprintf("m%d:%d|c\n", i, i), 1+i*7%40)
		list, texts = append(list, packet(text)), append(texts, text)
	}
	return list, texts
}

// account checks that all lines are accounted for.
func account(t *testing.T, p *Port, lines int) {
	t.Helper()
	st := p.Stats()
	if got := st.Lines + st.Dropped + st.Failed + st.Waiting; got != uint64(lines) {
		t.Errorf("%d lines are accounted for, want %d: %+v", got, lines, st)
	}
}

func count(list []agent.Packet) (n int) {
	for _, p := range list {
		n += p.Lines
	}
	return n
}

func TestLinesOverUDP(t *testing.T) {
	for _, segment := range []bool{false, true} {
		t.Run(fmt.Sprintf("segment=%v", segment), func(t *testing.T) {
			up := listenUDP(t)
			p, _ := linesTo(t, LineConfig{Address: up.address, Segment: segment})
			list, want := packets(100)
			for begin := 0; begin < len(list); begin += 25 {
				if again := p.Send(list[begin : begin+25]); again != 0 {
					until(t, p, "all is sent", func() bool { return p.Stats().Waiting == 0 })
				}
			}
			got := up.read(t, len(want))
			for i, text := range got {
				got[i] = strings.TrimRight(text, "\n") + "\n" // the padding
				if !segment && text != want[i] {
					t.Errorf("datagram %d: got %q, want %q", i, text, want[i])
				}
				if len(text) > p.MaxPayload() {
					t.Errorf("datagram %d: %d bytes, want %d at most", i, len(text), p.MaxPayload())
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
			if segment && !p.segment {
				t.Error("the kernel did not cut datagrams: is UDP_SEGMENT not supported here?")
			}
			account(t, p, count(list))
		})
	}
}

func TestLinesOverUnix(t *testing.T) {
	up := listenUnix(t, filepath.Join(t.TempDir(), "s"))
	p, _ := linesTo(t, LineConfig{Address: up.address})
	if p.MaxPayload() != payloadUnix {
		t.Errorf("got a payload of %d, want %d", p.MaxPayload(), payloadUnix)
	}
	list, want := packets(20)
	done := make(chan []string)
	go func() { done <- up.read(t, len(want)) }()
	p.Send(list)
	until(t, p, "all is sent", func() bool { return p.Stats().Waiting == 0 })
	if got := <-done; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	account(t, p, count(list))
}

// What is not there yet is waited for, and then gets all that the buffer held, in
// order.
func TestUpstreamAbsentAtStart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	p, health := linesTo(t, LineConfig{Address: path})
	list, want := packets(10)
	if again := p.Send(list); again == 0 {
		t.Error("Send wants not to be called again while packets wait")
	}
	if st := p.Stats(); st.Waiting != uint64(count(list)) {
		t.Errorf("%d lines wait, want %d", st.Waiting, count(list))
	}
	for deadline := time.Now().Add(patience); health.Err(Name) == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no condition says that the upstream is not there")
		}
	}
	up := listenUnix(t, path)
	done := make(chan []string)
	go func() { done <- up.read(t, len(want)) }()
	until(t, p, "all is sent", func() bool { return p.Stats().Waiting == 0 })
	if got := <-done; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	until(t, p, "the condition passes", func() bool { return health.Err(Name) == nil })
	account(t, p, count(list))
}

// The upstream dies in the middle, and another takes its path: nothing that was
// not taken by the kernel is lost.
func TestPitfall_statsd07_AnUpstreamThatDiesIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	first := listenUnix(t, path)
	p, _ := linesTo(t, LineConfig{Address: path})
	list, want := packets(30)
	p.Send(list[:5])
	got := first.read(t, 5)
	first.Close()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	p.Send(list[5:])
	second := listenUnix(t, path)
	done := make(chan []string)
	go func() { done <- second.read(t, 25) }()
	until(t, p, "all is sent", func() bool { return p.Stats().Waiting == 0 })
	if got = append(got, <-done...); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	account(t, p, count(list))
}

// The upstream's path leads to another socket, while the old one still takes what
// it is sent.
func TestPitfall_statsd07_AnotherSocketAtThePathIsFollowed(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	old := listenUnix(t, path)
	p, _ := linesTo(t, LineConfig{Address: path})
	p.Send([]agent.Packet{packet("a:1|c\n")})
	old.read(t, 1)
	if err := os.Rename(path, filepath.Join(dir, "orphan")); err != nil {
		t.Fatal(err)
	}
	fresh := listenUnix(t, path)
	until(t, p, "the new socket is connected to", func() bool { return p.Stats().Connects == 2 })
	p.Send([]agent.Packet{packet("b:2|c\n")})
	if got := fresh.read(t, 1); got[0] != "b:2|c\n" {
		t.Errorf("got %q", got)
	}
}

// An upstream that reads nothing: the oldest lines make room, are counted, and
// sending takes no time.
func TestPitfall_statsd07_AFullQueueWaitsAndDropsTheOldest(t *testing.T) {
	up := listenUnix(t, filepath.Join(t.TempDir(), "s"))
	p, health := linesTo(t, LineConfig{Address: up.address, Buffer: minBuffer})
	sent := 0
	line := "metric.of.a.service:1|c|#some:tag\n"
	full := packet(strings.Repeat(line, 100))
	for range 200 {
		p.Send([]agent.Packet{full})
		sent += full.Lines
	}
	st := p.Stats()
	if st.Dropped == 0 || st.Waiting == 0 {
		t.Errorf("got %+v, want some dropped and some waiting", st)
	}
	account(t, p, sent)
	for deadline := time.Now().Add(patience); health.Err(Name) == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no condition says that the upstream is too slow")
		}
		p.Send([]agent.Packet{full})
		sent += full.Lines
	}
	// It reads again: what was newest comes out at the end.
	newest := packet("newest:1|c\n")
	p.Send([]agent.Packet{newest})
	sent++
	read := make(chan uint64)
	go func() {
		for lines := uint64(0); ; {
			text := up.read(t, 1)[0]
			lines += uint64(strings.Count(text, "\n"))
			if text == string(newest.Data) {
				read <- lines
				return
			}
		}
	}()
	until(t, p, "all is sent", func() bool { return p.Stats().Waiting == 0 })
	if got := <-read; got != p.Stats().Lines {
		t.Errorf("the upstream read %d lines, want %d", got, p.Stats().Lines)
	}
	account(t, p, sent)
}

// Packets that wait when the port is closed are lost, and counted.
func TestCloseCountsWhatWaits(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	l, err := NewLines(LineConfig{Address: filepath.Join(t.TempDir(), "s"), Buffer: minBuffer}, agent.Env{Log: log, Health: agent.NewHealth(log)})
	if err != nil {
		t.Fatal(err)
	}
	p, err := l.Open()
	if err != nil {
		t.Fatal(err)
	}
	list, _ := packets(3)
	p.Send(list)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := p.Close(ctx); err == nil {
		t.Error("Close says that nothing was lost")
	}
	if st := p.Stats(); st.Dropped != uint64(count(list)) || st.Waiting != 0 {
		t.Errorf("got %+v, want %d lines dropped", st, count(list))
	}
}

// A kernel that cannot cut datagrams (here: because they would be larger than the
// way's MTU) gets them one by one from then on.
func TestSegmentationFallsBack(t *testing.T) {
	up := listenUDP(t)
	p, _ := linesTo(t, LineConfig{Address: up.address, Segment: true})
	fd := p.connection(t)
	// With SO_NO_CHECK, datagrams without check sums cannot be cut: EIO or EINVAL.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_NO_CHECK, 1); err != nil {
		t.Fatal(err)
	}
	list, want := packets(10)
	p.Send(list)
	if got := up.read(t, len(want)); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if p.segment {
		t.Error("the kernel was not expected to cut these")
	}
	account(t, p, count(list))
}

// connection makes a port take over its connection, and returns the descriptor.
func (p *Port) connection(t *testing.T) int {
	t.Helper()
	until(t, p, "connected", func() bool { return p.current != nil })
	return p.current.fd
}

func TestSendDoesNotAllocate(t *testing.T) {
	up := listenUDP(t)
	for name, cfg := range map[string]LineConfig{
		"udp":      {Address: up.address},
		"segments": {Address: up.address, Segment: true},
		"nobody":   {Address: filepath.Join(t.TempDir(), "s"), Buffer: minBuffer},
	} {
		p, _ := linesTo(t, cfg)
		list, _ := packets(batchSize)
		p.Send(list)
		if n := testing.AllocsPerRun(100, func() { p.Send(list) }); n != 0 {
			t.Errorf("%s: %v allocations, want none", name, n)
		}
	}
}

func TestLineConfig(t *testing.T) {
	good := LineConfig{Address: "127.0.0.1:8125", Buffer: minBuffer}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*LineConfig){
		"address": func(c *LineConfig) { c.Address = "nowhere" },
		"path":    func(c *LineConfig) { c.Address = "unix://relative" },
		"small":   func(c *LineConfig) { c.Payload = MinPayload - 1 },
		"large":   func(c *LineConfig) { c.Payload = MaxPayload + 1 },
		"buffer":  func(c *LineConfig) { c.Buffer = minBuffer - 1 },
	} {
		bad := good
		change(&bad)
		if bad.Validate() == nil {
			t.Errorf("%s: got no error for %+v", name, bad)
		}
	}
}

// A ring holds what a list with the same limit would, whatever the sizes.
func TestRing(t *testing.T) {
	r, err := newRing(1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	var list [][]byte // what should be in it
	state := uint32(1)
	next := func(n uint32) int {
		state = state*1664525 + 1013904223 // Numerical Recipes' generator
		return int(state >> 8 % n)
	}
	for step := range 20000 {
		if next(3) == 0 && len(list) > 0 {
			r.pop()
			list = list[1:]
		} else {
			data := bytes.Repeat([]byte{byte(step)}, next(900)%900)
			lost := r.push(agent.Packet{Data: data, Lines: 1})
			list = append(list[lost:], data)
		}
		var got [64]agent.Packet
		n := r.fill(got[:])
		if n != min(len(list), len(got)) || r.lines != uint64(len(list)) {
			t.Fatalf("step %d: got %d packets and %d lines, want %d", step, n, r.lines, len(list))
		}
		for i := range n {
			if !bytes.Equal(got[i].Data, list[i]) {
				t.Fatalf("step %d: packet %d: got %d bytes of %v, want %d", step, i, len(got[i].Data), got[i].Data[:min(1, len(got[i].Data))], len(list[i]))
			}
		}
	}
	if lost := r.push(agent.Packet{Data: make([]byte, len(r.mem)), Lines: 7}); lost != 7 {
		t.Errorf("a packet larger than the ring: got %d lines lost, want 7", lost)
	}
}

// Whatever sending runs into, the next datagram is tried, and all is counted.
func TestPitfall_statsd03_NoErrorEndsSending(t *testing.T) {
	up := listenUDP(t)
	p, health := linesTo(t, LineConfig{Address: up.address})
	fd := p.connection(t)
	huge := agent.Packet{Data: make([]byte, 70000), Lines: 3} // EMSGSIZE
	p.Send([]agent.Packet{packet("a:1|c\n"), huge, packet("b:1|c\n")})
	if got := up.read(t, 2); got[0] != "a:1|c\n" || got[1] != "b:1|c\n" {
		t.Errorf("got %q", got)
	}
	if st := p.Stats(); st.Failed != 3 || st.Lines != 2 {
		t.Errorf("got %+v", st)
	}
	until(t, p, "a condition tells of it", func() bool { return health.Err(Name) != nil })
	// The socket itself is of no use any longer: as good as any error.
	if err := unix.Shutdown(fd, unix.SHUT_WR); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		p.Send([]agent.Packet{packet("c:1|c\n")})
	}
	account(t, p, 105)

	nowhere, _ := linesTo(t, LineConfig{Address: "255.255.255.255:9"}) // EACCES: connecting is refused
	for range 100 {
		nowhere.Send([]agent.Packet{packet("d:1|c\n")})
	}
	account(t, nowhere, 100)
}

// What waited for an upstream, far more than the 64 KiB of the largest datagram,
// goes out in datagrams as they came.
func TestPitfall_statsd04_WhatWaitedGoesOutInDatagrams(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	p, _ := linesTo(t, LineConfig{Address: path})
	list, want := packets(1000)
	for begin := 0; begin < len(list); begin += batchSize {
		p.Send(list[begin:min(begin+batchSize, len(list))])
	}
	if st := p.Stats(); st.Waiting != uint64(count(list)) {
		t.Fatalf("%d lines wait, want %d", st.Waiting, count(list))
	}
	up := listenUnix(t, path)
	done := make(chan []string)
	go func() { done <- up.read(t, len(want)+1) }()
	until(t, p, "all is sent", func() bool { return p.Stats().Waiting == 0 })
	p.Send([]agent.Packet{packet("later:1|c\n")})
	until(t, p, "the later one is sent", func() bool { return p.Stats().Waiting == 0 })
	if got := <-done; !slices.Equal(got, append(want, "later:1|c\n")) {
		t.Errorf("got %d datagrams that are not those that were sent", len(got))
	}
	account(t, p, count(list)+1)
}

// A UDP upstream that was away: the send that is told of it has sent nothing, and
// is made again, so that the first datagram for the new one arrives.
func TestPitfall_statsd06_TheSendThatIsToldIsMadeAgain(t *testing.T) {
	for _, segment := range []bool{false, true} {
		up := listenUDP(t)
		p, health := linesTo(t, LineConfig{Address: up.address, Segment: segment})
		p.Send([]agent.Packet{packet("a:1|c\n")})
		up.read(t, 1)
		up.Close()
		sent := 1
		until(t, p, "a condition tells that nobody receives", func() bool {
			p.Send([]agent.Packet{packet("lost:1|c\n"), packet("lost:2|c\n")})
			sent += 2
			return health.Err(Name) != nil
		})
		again, err := net.ListenPacket("udp", up.address)
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close()
		up.PacketConn = again
		// An error of the time before is pending: the first two must arrive all the
		// same.
		p.Send([]agent.Packet{packet("b:1|c\n"), packet("b:2|c\n")})
		sent += 2
		got := up.read(t, 2)
		if got[0] != "b:1|c\n" || got[1] != "b:2|c\n" {
			t.Errorf("segment %v: got %q", segment, got)
		}
		account(t, p, sent)
		until(t, p, "the condition passes", func() bool {
			p.Send([]agent.Packet{packet("c:1|c\n")})
			return health.Err(Name) == nil
		})
	}
}
