package usage

import (
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// nodeMeter measures the host as a whole.
type nodeMeter struct {
	stat  int // descriptor of /proc/stat; 0 before it is opened
	ticks uint64
	at    time.Time
	cores float64
}

func (n *nodeMeter) close() {
	if n.stat > 0 {
		_ = unix.Close(n.stat)
		n.stat = 0
	}
}

// onlineList is where the kernel says which CPUs are online.
const onlineList = "/sys/devices/system/cpu/online"

// onlineCores counts the host's CPUs. Those that berth may use can be fewer.
func onlineCores() float64 {
	if b, err := os.ReadFile(onlineList); err == nil {
		if n, ok := cpus(string(b)); ok {
			return float64(n)
		}
	}
	return float64(runtime.NumCPU())
}

// coreMHz returns the clock rate of the host's cores as Nomad takes it: the
// highest that the first core can have, else the one that it has; 0 if the kernel
// says neither.
func coreMHz(proc string) float64 {
	if b, err := os.ReadFile("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq"); err == nil {
		if khz, err := strconv.ParseFloat(strings.TrimSpace(string(b)), 64); err == nil && khz > 0 {
			return khz / 1000
		}
	}
	b, err := os.ReadFile(path.Join(proc, "cpuinfo"))
	if err != nil {
		return 0
	}
	for l := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(l, ":")
		if strings.TrimSpace(key) == "cpu MHz" {
			mhz, _ := strconv.ParseFloat(strings.TrimSpace(value), 64)
			return mhz
		}
	}
	return 0
}

// busy returns the time that the host's CPUs were not idle, since the boot.
func (n *nodeMeter) busy(s *sampler) (ticks uint64, ok bool) {
	if n.stat == 0 {
		fd, err := s.read.open(path.Join(s.host.proc, "stat"))
		if err != nil {
			return 0, false
		}
		n.stat = int(fd)
	}
	// Its first line is enough, and it may be long.
	got, err := unix.Pread(n.stat, s.read.buf[:512], 0)
	if err != nil {
		return 0, false
	}
	return hostCPU(s.read.buf[:got])
}

// tick ends a sweep: it sums up, and tells the book.
func (s *sampler) tick(now time.Time) {
	t := Totals{At: now.Round(0), Unattributed: nan, Other: nan}
	n := &s.node
	if n.cores == 0 || s.sweeps%slowEvery == 0 {
		n.cores = onlineCores()
	}
	t.Cores = n.cores
	if b, err := s.read.file(path.Join(s.host.proc, "meminfo")); err == nil {
		t.Memory, _ = memInfo(b, "MemTotal:")
		free, _ := memInfo(b, "MemAvailable:")
		t.UsedMemory = t.Memory - min(t.Memory, free)
	}
	for _, list := range s.cells {
		for _, c := range list {
			if c.over || c.c == nil {
				continue
			}
			t.Containers++
			t.ReservedCores += c.reservation.Cores
			t.ReservedMemory += c.reservation.Memory
			if c.reservation.CPUSource == SourceNone {
				t.Unreserved++
			}
		}
	}
	ticks, ok := n.busy(s)
	rest, _, conserved := s.watch.unattributed(s)
	used := s.used
	s.used = 0
	if since := now.Sub(n.at); ok && !n.at.IsZero() && since > 0 && ticks >= n.ticks {
		t.Valid = true
		t.UsedCores = (time.Duration(ticks-n.ticks) * tick).Seconds() / since.Seconds()
		t.Used = used.Seconds() / since.Seconds()
		t.Other = t.UsedCores - t.Used
		if conserved {
			t.Unattributed = rest.Seconds() / since.Seconds()
		}
	}
	if ok {
		n.ticks, n.at = ticks, now
	}
	s.totals = t
	s.book.Tick(t)
}
