package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// What is measured.
const (
	many       = 10    // lines of a datagram that has several
	maxLoss    = 0.001 // of the lines, at the highest rate
	searchFrom = 40_000
	searchUp   = 1.6 // from one rate to the next, until one is too high
	searchFine = 1.06
	verified   = 2 // times that a rate must hold
	tries      = 3 // runs, of which one must lose nearly nothing
	// starvedRuns in a row in which the generator falls behind show its own limit.
	starvedRuns = 3
)

// fixedRates are in lines a second, one line in a datagram.
var fixedRates = []float64{20_000, 100_000}

// highest is the highest rate that a relay has kept up with.
type highest struct {
	measurement
	bound bool // by the generator, or the sink: the relay may be faster
}

// entry is what was measured of one relay in one place.
type entry struct {
	relay *relay

	at   map[float64][]measurement // by rate, one for each round
	max  map[int]highest           // by lines in a datagram
	half measurement               // at half of the highest rate, one line in a datagram

	allocs    float64 // of a relay of ours: objects for each datagram
	allocated uint64  // and in all, in that run
	before    int64   // bytes in RAM before the first measurement
	high      int64   // and at the highest
}

// name is as the table has it.
func (e *entry) name() string { return e.relay.name + " → " + e.relay.upstream }

// run measures, and wants every line that the sink has looked at to be right.
func (e *entry) run(ctx context.Context, perDatagram int, rate float64, length time.Duration) (measurement, error) {
	if err := ctx.Err(); err != nil {
		return measurement{}, err
	}
	m, err := e.relay.run(perDatagram, rate, length)
	if err != nil {
		return m, fmt.Errorf("%s: %w", e.name(), err)
	}
	if m.received.bad > 0 {
		return m, fmt.Errorf("%s: of %d lines that were looked at, %d are wrong: %s", e.name(), m.received.checked, m.received.bad, strings.Join(m.received.examples, "; "))
	}
	if m.received.lines > m.sent.lines {
		return m, fmt.Errorf("%s: %d lines came out of %d", e.name(), m.received.lines, m.sent.lines)
	}
	return m, nil
}

// fixed measures at one rate.
func (e *entry) fixed(ctx context.Context, rate float64, length time.Duration) error {
	m, err := e.run(ctx, 1, rate, length)
	if err != nil {
		return err
	}
	if e.at == nil {
		e.at = make(map[float64][]measurement)
	}
	e.at[rate] = append(e.at[rate], m)
	return nil
}

// search finds the highest rate at which nearly nothing is lost.
func (e *entry) search(ctx context.Context, perDatagram int, quick bool) error {
	length := time.Second
	if quick {
		length = 400 * time.Millisecond
	}
	if e.max == nil {
		e.max = make(map[int]highest)
	}
	found, err := climb(func(rate float64) (measurement, error) { return e.run(ctx, perDatagram, rate, length) })
	e.max[perDatagram] = found
	return err
}

// climb searches with runs at rates that it chooses. What a shared machine does to
// one run is no limit of the relay's: a rate is too high when all of a few fail.
func climb(once func(rate float64) (measurement, error)) (best highest, err error) {
	run := func(rate float64) (m measurement, err error) {
		for range tries {
			if m, err = once(rate); err != nil || m.loss() < maxLoss {
				break
			}
		}
		return m, err
	}
	full := false // the sink was, in the last run that lost lines
	defer func() { best.bound = best.bound || full }()
	good := func(m measurement) bool { return m.loss() < maxLoss }
	low, high := 0.0, 0.0
	starved := 0
	for rate := float64(searchFrom); high == 0; {
		m, err := run(rate)
		if err != nil {
			return best, err
		}
		switch {
		case !good(m):
			high, full = rate, m.sinkDrops > 0
			if low == 0 { // too much from the beginning: look below
				low, high = rate/64, rate
			}
		case m.behind():
			// The generator gives no more, unless something else had its processor
			// for a while: what it gave is the most there is.
			if m.sent.rate() >= best.sent.rate() {
				best = highest{m, true}
			}
			if starved++; starved == starvedRuns {
				return best, nil
			}
		default:
			best, low, starved = highest{m, false}, rate, 0
			rate *= searchUp
		}
	}
	for high/low > searchFine {
		rate := (low + high) / 2
		m, err := run(rate)
		if err != nil {
			return best, err
		}
		if good(m) {
			best, low = highest{m, false}, rate
		} else {
			high, full = rate, m.sinkDrops > 0
		}
	}
	// Once could be luck.
	for again := 0; again < verified-1; {
		m, err := run(low)
		if err != nil {
			return best, err
		}
		if good(m) {
			best = highest{m, false}
			again++
			continue
		}
		again, low, full = 0, low/searchFine, m.sinkDrops > 0
		if low < searchFrom/100 {
			return best, nil
		}
	}
	return best, nil
}

// rest measures latency, allocations and memory.
func (e *entry) rest(ctx context.Context, length time.Duration) (err error) {
	var before, after counts
	if e.relay.ours {
		if before, err = e.relay.counts(); err != nil {
			return err
		}
	}
	if e.half, err = e.run(ctx, 1, e.max[1].sent.rate()/2, length); err != nil {
		return err
	}
	if e.relay.ours {
		if after, err = e.relay.counts(); err != nil {
			return err
		}
		e.allocated = after.Mallocs - before.Mallocs
		e.allocs = float64(e.allocated) / float64(e.half.sent.datagrams)
	}
	_, e.high, err = resident(e.relay.cmd.Process.Pid)
	return err
}

// measureMemoryBefore notes the memory of all relays before the first measurement.
func measureMemoryBefore(entries []*entry) (err error) {
	for _, e := range entries {
		if e.before, _, err = resident(e.relay.cmd.Process.Pid); err != nil {
			return err
		}
	}
	return nil
}

// cost returns the median of CPU-seconds for a million lines at a rate, and of
// the loss.
func (e *entry) cost(rate float64) (perMillion, loss float64) {
	return median(e.at[rate], measurement.perMillion), median(e.at[rate], measurement.loss)
}

// median returns the median of a figure, 0 of none.
func median(ms []measurement, figure func(measurement) float64) float64 {
	if len(ms) == 0 {
		return 0
	}
	vs := make([]float64, len(ms))
	for i, m := range ms {
		vs[i] = figure(m)
	}
	slices.SortFunc(vs, cmp.Compare)
	return vs[len(vs)/2]
}
