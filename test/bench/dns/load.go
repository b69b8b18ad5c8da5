package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"
)

// The shape of the load: the questions that dnsperf has under way at a time, and
// the sockets that it sends them from.
const (
	outstanding = 200
	sockets     = 8
)

// measurement is one run of dnsperf against one server.
type measurement struct {
	rate      float64 // answers per second
	lost      int
	wall, cpu float64         // seconds that it took, and that the server's processes used
	latencies []time.Duration // sorted; of each answer, when the rate was limited
}

// percentile returns the latency that q percent of the answers did not exceed.
func (m measurement) percentile(q int) time.Duration {
	if len(m.latencies) == 0 {
		return 0
	}
	return m.latencies[min(len(m.latencies)*q/100, len(m.latencies)-1)]
}

// load runs dnsperf once. With a rate above 0 it asks so many questions a second
// and has the latency of each answer.
func load(ctx context.Context, dir string, s *server, length time.Duration, rate int) (measurement, error) {
	args := []string{
		"-c", "1", "dnsperf", "-s", "127.0.0.1", "-p", strconv.Itoa(s.port), "-d", filepath.Join(dir, "questions"),
		"-l", fmt.Sprint(length.Seconds()), "-e", "-T", "1", "-c", strconv.Itoa(sockets), "-q", strconv.Itoa(outstanding),
	}
	if rate > 0 {
		args = append(args, "-v", "-Q", strconv.Itoa(rate))
	}
	// To a file in memory: reading it meanwhile would take time from one of the
	// two cores.
	out, err := os.CreateTemp("/dev/shm", "bench-dns-")
	if err != nil {
		return measurement{}, fmt.Errorf("make file: %w", err)
	}
	defer os.Remove(out.Name())
	defer out.Close()
	cmd := exec.CommandContext(ctx, "taskset", args...)
	cmd.Stdout = out
	var errText bytes.Buffer
	cmd.Stderr = &errText
	before, err := s.cpuSeconds()
	if err != nil {
		return measurement{}, err
	}
	if err := cmd.Run(); err != nil {
		return measurement{}, fmt.Errorf("run dnsperf: %w\n%s", err, errText.Bytes())
	}
	after, err := s.cpuSeconds()
	if err != nil {
		return measurement{}, err
	}
	if _, err := out.Seek(0, 0); err != nil {
		return measurement{}, err
	}
	m, err := parseOutput(out)
	m.cpu = after - before
	if err == nil && (m.rate == 0 || m.cpu == 0) {
		err = fmt.Errorf("measure %s: %v answers a second, %v CPU-seconds", s.name, m.rate, m.cpu)
	}
	return m, err
}

// parseOutput reads what dnsperf prints: with -v a line for each answer
//
//	> NOERROR host00.bench.test. A 0.000123
//
// and the statistics at the end. An answer that is no success is an error.
func parseOutput(f *os.File) (measurement, error) {
	figures := map[string]*regexp.Regexp{
		"rate": regexp.MustCompile(`Queries per second: +([0-9.]+)`),
		"lost": regexp.MustCompile(`Queries lost: +([0-9]+)`),
		"wall": regexp.MustCompile(`Run time \(s\): +([0-9.]+)`),
	}
	got := make(map[string]float64)
	var m measurement
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := lines.Bytes()
		if bytes.HasPrefix(line, []byte("> ")) {
			fields := bytes.Fields(line)
			if string(fields[1]) != "NOERROR" {
				if string(fields[1]) == "T" {
					continue // lost: counted below
				}
				return m, fmt.Errorf("unexpected answer: %s", line)
			}
			seconds, err := strconv.ParseFloat(string(fields[len(fields)-1]), 64)
			if err != nil {
				return m, fmt.Errorf("parse %q: %w", line, err)
			}
			m.latencies = append(m.latencies, time.Duration(seconds*float64(time.Second)))
			continue
		}
		for name, re := range figures {
			if match := re.FindSubmatch(line); match != nil {
				v, err := strconv.ParseFloat(string(match[1]), 64)
				if err != nil {
					return m, fmt.Errorf("parse %q: %w", line, err)
				}
				got[name] = v
			}
		}
	}
	if len(got) != len(figures) {
		return m, fmt.Errorf("dnsperf printed no statistics: %v", got)
	}
	m.rate, m.lost, m.wall = got["rate"], int(got["lost"]), got["wall"]
	slices.Sort(m.latencies)
	return m, lines.Err()
}
