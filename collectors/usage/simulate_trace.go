package usage

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The bounds of traces that are read.
const (
	mostTraceSpan = 400 * 24 * time.Hour
	mostTraceLine = 4096 // bytes
	// mostMinutes bounds the minutes of all containers together: 200 MB.
	mostMinutes = 50_000_000
	// traceHold is how long a value counts when none follows: traces of five
	// minutes or of an hour have no gaps. After that, the container is taken not
	// to run.
	traceHold = time.Hour
)

// sampleAt is one line of a trace.
type sampleAt struct {
	at    int64 // unix milliseconds
	cores float64
}

// ReadTraces reads loads to replay from CSV lines t,container,cores: when, in
// seconds since 1970 or as 2026-01-02T15:04:05Z; which; and how many cores it
// used up to then. A first line of names is skipped, lines may come in any order,
// and several in a minute are averaged. A value holds until the next one, but for
// an hour at most. The error names the line that is wrong.
func ReadTraces(r io.Reader) ([]Trace, error) {
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 0, mostTraceLine), mostTraceLine)
	byName := make(map[string][]sampleAt)
	line := 0
	for in.Scan() {
		line++
		text := bytes.TrimSpace(in.Bytes())
		if line == 1 {
			text = bytes.TrimPrefix(text, []byte("\ufeff"))
		}
		if len(text) == 0 || text[0] == '#' {
			continue
		}
		name, s, err := parseTraceLine(string(text))
		if err != nil {
			if line == 1 && strings.HasPrefix(strings.ToLower(string(text)), "t") {
				continue // the names of the columns
			}
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		byName[name] = append(byName[name], s)
	}
	if err := in.Err(); errors.Is(err, bufio.ErrTooLong) {
		return nil, fmt.Errorf("line %d: it is longer than %d bytes: write t,container,cores", line+1, mostTraceLine)
	} else if err != nil {
		return nil, fmt.Errorf("read the trace: %w", err)
	}
	if len(byName) == 0 {
		return nil, errors.New("there is no line in it: write t,container,cores")
	}
	var out []Trace
	minutes := 0
	for name, list := range byName {
		t, err := traceOf(name, list)
		if err != nil {
			return nil, err
		}
		if minutes += len(t.Cores); minutes > mostMinutes {
			return nil, fmt.Errorf("there are more than %d minutes of containers in it: replay some containers at a time", mostMinutes)
		}
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b Trace) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func parseTraceLine(text string) (string, sampleAt, error) {
	fields := strings.Split(text, ",")
	if len(fields) != 3 {
		return "", sampleAt{}, fmt.Errorf("it has %d fields: write t,container,cores", len(fields))
	}
	for i := range fields {
		fields[i] = strings.Trim(strings.TrimSpace(fields[i]), `"`)
	}
	var at int64
	if seconds, err := strconv.ParseFloat(fields[0], 64); err == nil {
		if !(seconds >= 0 && seconds < 1e11) {
			return "", sampleAt{}, fmt.Errorf("%q is no time: write seconds since 1970, or 2026-01-02T15:04:05Z", fields[0])
		}
		at = int64(seconds * 1000)
	} else {
		t, err := time.Parse(time.RFC3339, fields[0])
		if err != nil || t.Unix() < 0 || t.Unix() >= 1e11 {
			return "", sampleAt{}, fmt.Errorf("%q is no time: write seconds since 1970, or 2026-01-02T15:04:05Z", fields[0])
		}
		at = t.UnixMilli()
	}
	if fields[1] == "" {
		return "", sampleAt{}, errors.New("the container has no name")
	}
	cores, err := strconv.ParseFloat(fields[2], 64)
	if err != nil || !(cores >= 0 && cores <= 1e6) {
		return "", sampleAt{}, fmt.Errorf("%q is no number of cores: write it as 0.25", fields[2])
	}
	return fields[1], sampleAt{at, cores}, nil
}

// traceOf makes minutes of samples.
func traceOf(name string, list []sampleAt) (Trace, error) {
	slices.SortStableFunc(list, func(a, b sampleAt) int { return cmp.Compare(a.at, b.at) })
	const minute = 60_000
	first, last := list[0].at/minute, list[len(list)-1].at/minute
	if span := time.Duration(last-first) * Minute; span > mostTraceSpan {
		return Trace{}, fmt.Errorf("container %q: its lines span %d days, and at most %d can be replayed: is the time in seconds?", name, span/(24*time.Hour), mostTraceSpan/(24*time.Hour))
	}
	t := Trace{Name: name, Start: time.UnixMilli(first * minute).UTC(), Cores: make([]float32, last-first+1)}
	sums, counts := make([]float64, len(t.Cores)), make([]int32, len(t.Cores))
	for _, s := range list {
		i := s.at/minute - first
		sums[i] += s.cores
		counts[i]++
	}
	// A value is that of the time up to it: it counts for the minutes before.
	next, until := 0.0, math.MaxInt
	for i := len(t.Cores) - 1; i >= 0; i-- {
		if counts[i] > 0 {
			next, until = sums[i]/float64(counts[i]), i-int(traceHold/Minute)
		}
		if i > until {
			t.Cores[i] = float32(next)
		}
	}
	return t, nil
}
