package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/miekg/dns"
)

const (
	starts    = 5                      // of berth
	maxReady  = 200 * time.Millisecond // start to READY
	maxMedian = 5 * time.Millisecond   // event to answer
	maxP99    = 25 * time.Millisecond  // likewise

	// pause is between an answer that is not right yet and the next question: short
	// beside what is measured, and long enough to leave the cores to others.
	pause = 200 * time.Microsecond
	// calm is between a start and the kill: the engine is done with the one, and
	// the container's first process handles signals, before the other begins.
	calm = 150 * time.Millisecond
)

// measureReady starts berth some times and leaves the last one running.
func (w *world) measureReady(ctx context.Context, t *table) error {
	var took []time.Duration
	for range starts {
		if err := w.direct.stop(); err != nil {
			return err
		}
		b, err := w.startBerth(ctx, "unix://"+w.socket)
		if err != nil {
			return err
		}
		w.direct = b
		took = append(took, b.ready)
	}
	slices.Sort(took)
	t.duration(fmt.Sprintf("start to READY, median of %d", starts), percentile(took, 50), maxReady,
		"from %s to %s", ms(took[0]), ms(took[len(took)-1]))
	return w.weigh(w.direct)
}

// measureLatency starts and kills containers, one after the other.
func (w *world) measureLatency(ctx context.Context, t *table) error {
	defer func() { w.direct = nil }()
	var up, down, floor []time.Duration
	events, inspects := w.seen.total(), uint64(0)
	before, err := w.direct.asked(ctx)
	if err != nil {
		return err
	}
	for i := range w.rounds {
		u, d, f, err := w.round(ctx, fmt.Sprintf("round%03d", i))
		if err != nil {
			return fmt.Errorf("round %d: %w", i, err)
		}
		up, down, floor = append(up, u), append(down, d), append(floor, f)
	}
	if err := w.weigh(w.direct); err != nil {
		return err
	}
	after, err := w.direct.asked(ctx)
	if err != nil {
		return err
	}
	events, inspects = w.seen.total()-events, after.Inspects-before.Inspects
	for _, l := range [][]time.Duration{up, down, floor} {
		slices.Sort(l)
	}
	t.note("An inspect by the bench itself, of a container that had just started, took %s (median; p99 %s): no answer after a start can be faster.",
		ms(percentile(floor, 50)), ms(percentile(floor, 99)))
	t.note("During the starts and kills, berth counted %d inspects for %d events that change a state.", inspects, events)
	for _, l := range []struct {
		what string
		took []time.Duration
	}{{"start event → new answer", up}, {"kill event → record gone", down}} {
		t.duration(l.what+", p50", percentile(l.took, 50), maxMedian, "of %d", len(l.took))
		t.duration(l.what+", p99", percentile(l.took, 99), maxP99, "at most %s", ms(l.took[len(l.took)-1]))
	}
	return w.direct.stop()
}

// round starts, kills and removes one container, and returns how long after each
// event DNS was right, and how long an inspect takes.
func (w *world) round(ctx context.Context, name string) (up, down, inspect time.Duration, err error) {
	id, err := w.create(ctx, spec{name: name, claims: name})
	if err != nil {
		return 0, 0, 0, err
	}
	query := "_" + name + "._tcp.berth.internal."
	var served uint16
	up, err = w.after(ctx, id, events.ActionStart, func() error {
		return w.engine.ContainerStart(ctx, id, container.StartOptions{})
	}, func() (right bool, err error) {
		served, err = w.direct.lookup(query)
		return served != 0, err
	})
	if err != nil {
		return 0, 0, 0, err
	}
	began := time.Now()
	c, err := w.engine.ContainerInspect(ctx, id)
	if err != nil {
		return 0, 0, 0, err
	}
	inspect = time.Since(began)
	if b := c.NetworkSettings.Ports[port]; len(b) == 0 || b[0].HostPort != fmt.Sprint(served) {
		return 0, 0, 0, fmt.Errorf("%s has port %d in DNS, and %v in the engine", query, served, b)
	}
	time.Sleep(calm)
	down, err = w.after(ctx, id, events.ActionKill, func() error {
		return w.engine.ContainerKill(ctx, id, "SIGTERM")
	}, func() (bool, error) {
		served, err := w.direct.lookup(query)
		return served == 0, err
	})
	return up, down, inspect, errors.Join(err, w.remove(ctx, id))
}

// after does something and returns how long after its event the answer was
// right.
func (w *world) after(ctx context.Context, id string, action events.Action, do func() error, right func() (bool, error)) (time.Duration, error) {
	event := w.seen.expect(id, action)
	done := make(chan error, 1)
	go func() { done <- do() }()
	var at time.Time
	select {
	case at = <-event:
	case <-time.After(patience):
		return 0, fmt.Errorf("no event %s was seen", action)
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	for {
		ok, err := right()
		took := time.Since(at)
		switch {
		case err != nil:
			return 0, err
		case ok:
			return took, <-done
		case took > patience:
			return 0, fmt.Errorf("DNS is not right %v after %s", took, action)
		}
		time.Sleep(pause)
	}
}

// lookup asks for the SRV record of a name, and returns its port, or 0 if there is
// none.
func (b *berth) lookup(name string) (uint16, error) {
	m := new(dns.Msg).SetQuestion(name, dns.TypeSRV)
	question, err := m.Pack()
	if err != nil {
		return 0, fmt.Errorf("ask for %s: %w", name, err)
	}
	if err := b.dns.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return 0, err
	}
	if _, err := b.dns.Write(question); err != nil {
		return 0, fmt.Errorf("ask for %s: %w", name, err)
	}
	answer, err := readAnswer(b.dns, m.Id)
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

// percentile returns the value that q percent of the sorted values do not exceed,
// by the nearest rank.
func percentile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(q / 100 * float64(len(sorted))))
	return sorted[max(0, rank-1)]
}
