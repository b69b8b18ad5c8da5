package usage

import (
	"bytes"
	"math"
	"strings"
	"testing"
	"time"
)

func TestNumber(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want uint64
		rest string
		ok   bool
	}{
		{"0", 0, "", true},
		{"12345 x", 12345, " x", true},
		{"18446744073709551615\n", math.MaxUint64, "\n", true},
		{"18446744073709551616", 0, "18446744073709551616", false},
		{"99999999999999999999999", 0, "99999999999999999999999", false},
		{"", 0, "", false},
		{"-1", 0, "-1", false},
		{"x", 0, "x", false},
	} {
		got, rest, ok := number([]byte(tc.in))
		if got != tc.want || string(rest) != tc.rest || ok != tc.ok {
			t.Errorf("%q: got %d, %q, %v, want %d, %q, %v", tc.in, got, rest, ok, tc.want, tc.rest, tc.ok)
		}
	}
}

// What kernels wrote: Linux 6.18 with v1 and the unified hierarchy beside it, and
// 6.1 with v2 alone.
const (
	cpuStatV1  = "nr_periods 102\nnr_throttled 84\nthrottled_time 5123456789\nnr_bursts 0\nburst_time 0\n"
	cpuStatV2  = "usage_usec 26188\nuser_usec 13094\nsystem_usec 13094\nnr_periods 43\nnr_throttled 10\nthrottled_usec 998877\nnr_bursts 0\nburst_usec 0\n"
	cpuStatRaw = "usage_usec 26188\nuser_usec 13094\nsystem_usec 13094\nnice_usec 0\n"
	pressureV2 = "some avg10=0.00 avg60=0.00 avg300=0.00 total=21042\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=15164\n"
	oomV1      = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"
	eventsV2   = "low 0\nhigh 0\nmax 12\noom 4\noom_kill 3\noom_group_kill 0\n"
	ioStatV1   = "254:0 Read 4096\n254:0 Write 8192\n254:0 Sync 12288\n254:0 Async 0\n254:0 Discard 0\n254:0 Total 12288\n8:16 Read 1\n8:16 Write 2\n8:16 Total 3\nTotal 12291\n"
	ioStatV2   = "254:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=7 dios=0\n8:16 rbytes=1 wbytes=2 rios=1 wios=1 dbytes=0 dios=0\n"
	netDev     = "Inter-|   Receive                                                |  Transmit\n" +
		" face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n" +
		"    lo:     999       2    0    0    0     0          0         0      999       2    0    0    0     0       0          0\n" +
		"  eth0:     200       2    0    0    0     0          0         0      300       3    0    0    0     0       0          0\n" +
		"eth1:1234567890 2    0    0    0     0          0         0        7       0    0    0    0     0       0          0\n"
)

func TestThrottling(t *testing.T) {
	var c Counters
	if !throttling([]byte(cpuStatV1), &c, false) || c != (Counters{Periods: 102, Throttled: 84, ThrottledTime: 5123456789}) {
		t.Errorf("v1: got %+v", c)
	}
	c = Counters{}
	if !throttling([]byte(cpuStatV2), &c, true) || c != (Counters{Periods: 43, Throttled: 10, ThrottledTime: 998877 * time.Microsecond}) {
		t.Errorf("v2: got %+v", c)
	}
	c = Counters{}
	if throttling([]byte(cpuStatRaw), &c, true) || c != (Counters{}) {
		t.Errorf("v2 without the controller: got %+v, want none", c)
	}
}

func TestSmallFiles(t *testing.T) {
	if d, ok := stalled([]byte(pressureV2)); d != 21042*time.Microsecond || !ok {
		t.Errorf("pressure: got %v, %v", d, ok)
	}
	if _, ok := stalled([]byte("full avg10=0.00 total=5\n")); ok {
		t.Error("pressure without some: got a figure")
	}
	for _, in := range []string{oomV1, eventsV2} {
		if n, ok := value([]byte(in), "oom_kill"); n != 3 || !ok {
			t.Errorf("%q: got %d, %v, want 3 kills", in, n, ok)
		}
	}
	if r, w, ok := ioV1([]byte(ioStatV1)); r != 4097 || w != 8194 || !ok {
		t.Errorf("v1: got %d read, %d written, %v", r, w, ok)
	}
	if r, w, ok := ioV1([]byte("Total 0\n")); r != 0 || w != 0 || !ok {
		t.Errorf("v1 without I/O: got %d read, %d written, %v", r, w, ok)
	}
	if _, _, ok := ioV1(nil); ok {
		t.Error("v1, empty: got figures")
	}
	if r, w, ok := ioV2([]byte(ioStatV2)); r != 4097 || w != 8194 || !ok {
		t.Errorf("v2: got %d read, %d written, %v", r, w, ok)
	}
	if r, w, ok := ioV2(nil); r != 0 || w != 0 || !ok {
		t.Errorf("v2 without I/O: got %d read, %d written, %v", r, w, ok)
	}
	if rx, tx, ok := netBytes([]byte(netDev)); rx != 200+1234567890 || tx != 307 || !ok {
		t.Errorf("network: got %d received, %d sent, %v", rx, tx, ok)
	}
	if _, _, ok := netBytes([]byte(strings.Replace(netDev, "200", "x", 1))); ok {
		t.Error("network: got figures of what is no number")
	}
	if n, ok := hostCPU([]byte("cpu  10 20 30 1000 500 1 2 40 7 0\ncpu0 1 2 3 4 5 6 7 8 9 0\n")); n != 63 || !ok {
		t.Errorf("host: got %d ticks, %v, want 63: all but idle, iowait, steal, and guests, who are in user", n, ok)
	}
	if n, ok := memInfo([]byte("MemTotal:       24683752 kB\nMemFree: 1 kB\nMemAvailable:   23000000 kB\n"), "MemAvailable:"); n != 23000000<<10 || !ok {
		t.Errorf("memory: got %d, %v", n, ok)
	}
	stat := "12 (a) b (c) S 1 12 12 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 1 0 4711 1000 1 18446744073709551615\n"
	if n, ok := startTicks([]byte(stat)); n != 4711 || !ok {
		t.Errorf("start: got %d, %v, want 4711", n, ok)
	}
	for _, bad := range []string{"", "12 (sh", "12 (sh) S 1 2"} {
		if n, ok := startTicks([]byte(bad)); ok {
			t.Errorf("start of %q: got %d", bad, n)
		}
	}
}

// FuzzParsers holds that no content of a file makes a parser panic or claim more
// than there is, and that none keeps or changes what it is given.
func FuzzParsers(f *testing.F) {
	for _, s := range []string{cpuStatV1, cpuStatV2, pressureV2, oomV1, eventsV2, ioStatV1, ioStatV2, netDev, "7\n", "cpu  1 2 3 4 5 6 7\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		var c Counters
		if !throttling(b, &c, true) && c != (Counters{}) || !throttling(b, &c, false) && c.ThrottledTime < 0 {
			t.Errorf("got %+v of a file that has none", c)
		}
		if d, ok := stalled(b); ok && d < 0 {
			t.Errorf("got a stall of %v", d)
		}
		if n, ok := only(b); ok && len(bytes.TrimLeft(b, "0123456789\n\t\v\f\r \u0085\u00a0")) > 0 && n == 0 {
			t.Errorf("got the number 0 of %q", b)
		}
		netBytes(b)
		ioV1(b)
		ioV2(b)
		hostCPU(b)
		memInfo(b, "MemTotal:")
		startTicks(b)
		if id, ok := containerID(string(b)); ok != (len(id) == idLength) {
			t.Errorf("got the ID %q, %v", id, ok)
		}
		for _, h := range hierarchies(b) {
			if h.v2 == (h.controllers != nil) {
				t.Errorf("got the hierarchy %+v", h)
			}
		}
		_, _ = parseCores(string(b))
		cpus(string(b))
		if !bytes.Equal(b, before) {
			t.Error("what was parsed is changed")
		}
	})
}

func TestParsersDoNotAllocate(t *testing.T) {
	files := [][]byte{[]byte(cpuStatV1), []byte(cpuStatV2), []byte(pressureV2), []byte(ioStatV1), []byte(ioStatV2), []byte(netDev)}
	var c Counters
	if n := testing.AllocsPerRun(100, func() {
		for _, b := range files {
			throttling(b, &c, true)
			throttling(b, &c, false)
			stalled(b)
			ioV1(b)
			ioV2(b)
			netBytes(b)
			value(b, "total_inactive_file")
		}
	}); n != 0 {
		t.Errorf("got %v allocations, want none", n)
	}
}
