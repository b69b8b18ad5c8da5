package sinktest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berthd/berth/agent"
)

// LineFixture is one sink of lines with an upstream of its own, which receives.
// The suite makes a new one for every check; what there is to clean up, the
// factory hands to t.Cleanup. The suite closes the ports that it opens.
type LineFixture struct {
	Sink agent.LineSink

	// Received returns all lines that the upstream has got so far, in order and
	// without their ends; empty ones do not count. It is safe for concurrent use.
	Received func() []string

	// Down makes the upstream go away, and Up makes it receive at the same place
	// again. Both are nil for one that is always there.
	Down, Up func() error

	// Patience is how long the suite waits for lines to arrive; 2 min where it is
	// zero.
	Patience time.Duration
}

// LineSink runs the conformance suite of line sinks as subtests of t, each on a
// new fixture from the factory.
func LineSink(t *testing.T, factory func(t *testing.T) LineFixture) {
	t.Helper()
	for _, c := range lineChecks {
		t.Run(c.name, func(t *testing.T) {
			if err := runLineCheck(c, factory(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

// lineCheck is one thing that every line sink must do.
type lineCheck struct {
	name string
	run  func(h *lines) error
}

var lineChecks = []lineCheck{
	{"Delivers", checkDelivers},
	{"LargestPacket", checkLargest},
	{"BorrowsData", checkBorrows},
	{"NothingToSend", checkNothing},
	{"UpstreamGone", checkGone},
	{"Close", checkClose},
	{"PortsAreApart", checkPorts},
	{"DoesNotAllocate", checkAllocations},
}

// lines drives one port of a fixture.
type lines struct {
	LineFixture
	port  agent.LinePort
	given uint64 // lines
}

func runLineCheck(c lineCheck, f LineFixture) error {
	if f.Patience == 0 {
		f.Patience = 2 * time.Minute
	}
	h := &lines{LineFixture: f}
	var err error
	if h.port, err = f.Sink.Open(); err != nil {
		return fmt.Errorf("open: %w", err)
	}
	err = c.run(h)
	if h.port != nil {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = h.port.Close(ctx) // what waits is lost, which it may say
	}
	return err
}

// send gives the port packets of one line each, and holds it to its account.
func (h *lines) send(texts ...string) error {
	var list []agent.Packet
	for _, text := range texts {
		list = append(list, agent.Packet{Data: []byte(text + "\n"), Lines: 1})
	}
	h.port.Send(list)
	h.given += uint64(len(texts))
	return h.balance()
}

// balance compares what the port accounts for with what it was given.
func (h *lines) balance() error {
	st := h.port.Stats()
	if got := st.Lines + st.Dropped + st.Failed + st.Waiting; got != h.given {
		return fmt.Errorf("the port accounts for %d lines and was given %d: %+v", got, h.given, st)
	}
	return nil
}

// await makes the port try what waits until the condition holds.
func (h *lines) await(what string, condition func() bool) error {
	for deadline := time.Now().Add(h.Patience); !condition(); {
		if time.Now().After(deadline) {
			return fmt.Errorf("waited %v: %s: %+v", h.Patience, what, h.port.Stats())
		}
		h.port.Send(nil)
		time.Sleep(time.Millisecond)
	}
	return h.balance()
}

// arrives waits until the upstream has got exactly these lines.
func (h *lines) arrives(want []string) error {
	if err := h.await(fmt.Sprintf("%d lines arrive", len(want)), func() bool { return len(h.Received()) >= len(want) }); err != nil {
		return err
	}
	if got := h.Received(); !slices.Equal(got, want) {
		return fmt.Errorf("got %d lines %.200q, want %d: %.200q", len(got), got, len(want), want)
	}
	return nil
}

func numbered(n int) (texts []string) {
	for i := range n {
		texts = append(texts, fmt.Sprintf("line.%d:%d|c|#%s", i, i, strings.Repeat("x", i%50)))
	}
	return texts
}

// checkDelivers: all lines arrive, in order, however many come at once.
func checkDelivers(h *lines) error {
	texts := numbered(300)
	for at, size := 0, 1; at < len(texts); at, size = at+size, size%70+13 {
		end := min(at+size, len(texts))
		if err := h.send(texts[at:end]...); err != nil {
			return err
		}
		// No more at once than an upstream over UDP holds before it reads.
		if err := h.arrives(texts[:end]); err != nil {
			return err
		}
	}
	return nil
}

// checkLargest: a packet may be as long as the port says.
func checkLargest(h *lines) error {
	text := strings.Repeat("x", h.port.MaxPayload()-len(":1|c\n")) + ":1|c"
	if err := h.send(text); err != nil {
		return err
	}
	return h.arrives([]string{text})
}

// checkBorrows: a packet's data is the caller's own again when Send returns.
func checkBorrows(h *lines) error {
	texts := numbered(40)
	buf := make([]byte, 1024)
	for _, text := range texts {
		n := copy(buf, text+"\n")
		h.port.Send([]agent.Packet{{Data: buf[:n], Lines: 1}})
		h.given++
		clear(buf)
	}
	return h.arrives(texts)
}

// checkNothing: Send without packets does nothing, and wants nothing.
func checkNothing(h *lines) error {
	if again := h.port.Send(nil); again != 0 {
		return fmt.Errorf("nothing waits, and the port wants to be called again in %v", again)
	}
	if st := h.port.Stats(); st.Lines+st.Dropped+st.Failed+st.Waiting != 0 {
		return fmt.Errorf("got %+v before any line", st)
	}
	return nil
}

// checkGone: an upstream that goes away blocks nothing, everything is accounted
// for, and when it is back, what is sent arrives.
func checkGone(h *lines) error {
	if h.Down == nil {
		return nil
	}
	if err := h.send("before:1|c"); err != nil {
		return err
	}
	if err := h.arrives([]string{"before:1|c"}); err != nil {
		return err
	}
	if err := h.Down(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		for range 50 {
			if err := h.send(numbered(100)...); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	select {
	case err := <-done:
		if err != nil {
			return err
		}
	case <-time.After(h.Patience):
		blocked := errors.New("a Send blocks while the upstream is away")
		if err := h.Up(); err != nil {
			return errors.Join(blocked, err)
		}
		select { // if it ever ends, before the port does
		case <-done:
		case <-time.After(h.Patience):
		}
		return blocked
	}
	if err := h.Up(); err != nil {
		return err
	}
	if err := h.await("all that waited is sent", func() bool { return h.port.Stats().Waiting == 0 }); err != nil {
		return err
	}
	if err := h.send("after:1|c"); err != nil {
		return err
	}
	return h.await("the line after it arrives", func() bool { return slices.Contains(h.Received(), "after:1|c") })
}

// checkClose: the port's end sends what can be sent, and the account holds.
func checkClose(h *lines) error {
	texts := numbered(50)
	if err := h.send(texts...); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), h.Patience)
	defer cancel()
	port := h.port
	h.port = nil
	if err := port.Close(ctx); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	if st := port.Stats(); st.Lines != h.given || st.Waiting != 0 {
		return fmt.Errorf("after its end the port has %+v, want %d lines sent", st, h.given)
	}
	for deadline := time.Now().Add(h.Patience); len(h.Received()) < len(texts); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of %d lines arrived", len(h.Received()), len(texts))
		}
	}
	return nil
}

// checkPorts: each port has an account of its own.
func checkPorts(h *lines) error {
	other, err := h.Sink.Open()
	if err != nil {
		return fmt.Errorf("open a second port: %w", err)
	}
	other.Send([]agent.Packet{{Data: []byte("other:1|c\n"), Lines: 1}})
	err = h.send("one:1|c", "two:1|c")
	st := other.Stats()
	ctx, cancel := context.WithTimeout(context.Background(), h.Patience)
	defer cancel()
	if err := errors.Join(err, other.Close(ctx)); err != nil {
		return err
	}
	if got := st.Lines + st.Dropped + st.Failed + st.Waiting; got != 1 {
		return fmt.Errorf("the second port accounts for %d lines, want its one: %+v", got, st)
	}
	return h.await("all lines arrive", func() bool { return len(h.Received()) == 3 })
}

// checkAllocations: sending allocates nothing.
func checkAllocations(h *lines) error {
	list := []agent.Packet{{Data: []byte("a:1|c\nb:1|c\n"), Lines: 2}, {Data: []byte("c:1|c\n"), Lines: 1}}
	h.port.Send(list)
	// Those of the upstream count, too, where it is in this process: it is enough
	// that there are none once.
	const tries, runs = 100, 5
	n := 0.0
	for try := range tries {
		n = testing.AllocsPerRun(runs, func() { h.port.Send(list) })
		if h.given = 3 * uint64(1+(try+1)*(runs+1)); n == 0 { // it makes one run more
			return h.balance()
		}
	}
	return fmt.Errorf("%v allocations for each Send, want none", n)
}
