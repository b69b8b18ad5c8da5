package usage

import (
	"bytes"
	"time"
)

// The parsers read what the kernel writes, byte by byte and without allocating.
// Each reports whether it has found what it looks for; what else a file says,
// now or in a later kernel, is passed over.

// number reads the decimal digits that b begins with, and returns what follows.
// It fails without a digit, and where uint64 does not hold the number.
func number(b []byte) (n uint64, rest []byte, ok bool) {
	i := 0
	for i < len(b) && b[i]-'0' < 10 {
		d := uint64(b[i] - '0')
		if n > (1<<64-1-d)/10 {
			return 0, b, false
		}
		n = n*10 + d
		i++
	}
	return n, b[i:], i > 0
}

// line cuts b after its first line, which is returned without its newline.
func line(b []byte) (first, rest []byte) {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		return b[:i], b[i+1:]
	}
	return b, nil
}

// field cuts b after its first field, and what separates it from the next one.
func field(b []byte) (first, rest []byte) {
	i := 0
	for i < len(b) && b[i] != ' ' && b[i] != '\t' {
		i++
	}
	first = b[:i]
	for i < len(b) && (b[i] == ' ' || b[i] == '\t') {
		i++
	}
	return first, b[i:]
}

// value returns the number behind a key in a flat-keyed file: lines of a key, a
// space and a number.
func value(b []byte, key string) (uint64, bool) {
	for len(b) > 0 {
		var l []byte
		l, b = line(b)
		if len(l) > len(key) && l[len(key)] == ' ' && string(l[:len(key)]) == key {
			n, _, ok := number(l[len(key)+1:])
			return n, ok
		}
	}
	return 0, false
}

// only reads a file that holds one number.
func only(b []byte) (uint64, bool) {
	n, rest, ok := number(b)
	return n, ok && len(bytes.TrimSpace(rest)) == 0
}

// throttling reads cpu.stat of either version, whose unit of time is given: v1
// has throttled_time in ns, v2 throttled_usec. It fails where there is none, as
// in v2 without the cpu controller.
func throttling(b []byte, c *Counters, v2 bool) bool {
	periods, ok1 := value(b, "nr_periods")
	throttled, ok2 := value(b, "nr_throttled")
	key, unit := "throttled_time", time.Nanosecond
	if v2 {
		key, unit = "throttled_usec", time.Microsecond
	}
	stood, ok3 := value(b, key)
	d, ok4 := span(stood, unit)
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return false
	}
	c.Periods, c.Throttled, c.ThrottledTime = periods, throttled, d
	return true
}

// span returns n units of time. It fails where a Duration does not hold them.
func span(n uint64, unit time.Duration) (time.Duration, bool) {
	if n > uint64(1<<63-1)/uint64(unit) {
		return 0, false
	}
	return time.Duration(n) * unit, true
}

// stalled reads the total of the line "some" of a PSI file, in µs.
func stalled(b []byte) (time.Duration, bool) {
	for len(b) > 0 {
		var l []byte
		l, b = line(b)
		if !bytes.HasPrefix(l, []byte("some ")) {
			continue
		}
		i := bytes.Index(l, []byte("total="))
		if i < 0 {
			return 0, false
		}
		n, _, ok := number(l[i+len("total="):])
		d, fits := span(n, time.Microsecond)
		return d, ok && fits
	}
	return 0, false
}

// netBytes sums up /proc/PID/net/dev, without the loopback.
func netBytes(b []byte) (rx, tx uint64, ok bool) {
	_, b = line(b)
	head, b := line(b)
	if !bytes.Contains(head, []byte("bytes")) {
		return 0, 0, false
	}
	for len(b) > 0 {
		var l []byte
		l, b = line(b)
		colon := bytes.LastIndexByte(l, ':') // an alias has one in its name
		if colon < 0 {
			return 0, 0, false
		}
		if string(bytes.TrimSpace(l[:colon])) == "lo" {
			continue
		}
		l = bytes.TrimLeft(l[colon+1:], " ")
		for i := range 9 {
			var f []byte
			f, l = field(l)
			n, _, ok := number(f)
			if !ok {
				return 0, 0, false
			}
			switch i {
			case 0:
				rx += n
			case 8:
				tx += n
			}
		}
	}
	return rx, tx, true
}

// ioV1 sums up blkio.throttle.io_service_bytes: lines of a device, an operation
// and a number. A container that has done none has the line "Total 0" alone.
func ioV1(b []byte) (read, write uint64, ok bool) {
	for len(b) > 0 {
		var l []byte
		l, b = line(b)
		first, rest := field(l)
		ok = ok || string(first) == "Total"
		op, rest := field(rest)
		n, _, isNumber := number(rest)
		switch {
		case !isNumber:
		case string(op) == "Read":
			read += n
		case string(op) == "Write":
			write += n
		}
	}
	return read, write, ok
}

// ioV2 sums up io.stat: lines of a device and key=value. It may be empty.
func ioV2(b []byte) (read, write uint64, ok bool) {
	for len(b) > 0 {
		var l, f []byte
		l, b = line(b)
		_, l = field(l)
		for len(l) > 0 {
			f, l = field(l)
			if len(f) <= len("rbytes=") || string(f[1:len("rbytes=")]) != "bytes=" {
				continue
			}
			n, _, isNumber := number(f[len("rbytes="):])
			switch {
			case !isNumber:
				return 0, 0, false
			case f[0] == 'r':
				read += n
			case f[0] == 'w':
				write += n
			}
		}
	}
	return read, write, true
}

// hostCPU reads the first line of /proc/stat: the time that all CPUs together
// were not idle, in ticks of 10 ms (USER_HZ, proc(5)). Time stolen by the
// hypervisor is not the host's; that of guests is within user and nice.
func hostCPU(b []byte) (ticks uint64, ok bool) {
	l, _ := line(b)
	f, l := field(l)
	if string(f) != "cpu" {
		return 0, false
	}
	for i := range 7 { // user nice system idle iowait irq softirq
		f, l = field(l)
		n, _, ok := number(f)
		if !ok {
			return 0, false
		}
		if i != 3 && i != 4 {
			ticks += n
		}
	}
	return ticks, true
}

// memInfo reads a line of /proc/meminfo, which is in KiB; returns bytes.
func memInfo(b []byte, key string) (uint64, bool) {
	for len(b) > 0 {
		var l []byte
		l, b = line(b)
		f, rest := field(l)
		if string(f) == key {
			n, _, ok := number(rest)
			return n << 10, ok && n < 1<<54
		}
	}
	return 0, false
}

// startTicks reads the start of a process from /proc/PID/stat, in ticks of 10 ms
// since the boot: field 22. The name in field 2 may hold anything.
func startTicks(b []byte) (uint64, bool) {
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return 0, false
	}
	_, b = field(b[i:])
	for range 22 - 3 {
		_, b = field(b)
	}
	n, _, ok := number(b)
	return n, ok
}
