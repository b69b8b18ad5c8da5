package usage

import (
	"errors"
	"path"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// The files of a container that are read.
const (
	fileCPU      = iota // cpuacct.usage of v1, or cpu.stat of v2
	fileThrottle        // cpu.stat of v1
	filePressure        // cpu.pressure
	fileMemory          // memory.usage_in_bytes or memory.current
	fileMemStat         // memory.stat
	fileOOM             // memory.oom_control or memory.events
	fileIO              // blkio.throttle.io_service_bytes or io.stat
	fileNet             // /proc/PID/net/dev
	fileCount
)

// none is the descriptor of a file that is not open, and gone of one that is not
// there.
const (
	none int32 = -1
	gone int32 = -2
)

// files are one container's files. A held descriptor is read in a tenth of the
// time that opening takes, because nothing is looked up.
type files struct {
	dirs dirs
	pid  int // for fileNet; 0: the network is not its own
	fds  [fileCount]int32
	held bool // descriptors stay open
}

func newFiles(d dirs, pid int, held bool) files {
	f := files{dirs: d, pid: pid, held: held}
	for i := range f.fds {
		f.fds[i] = none
	}
	return f
}

// path returns where a file is, "" where it cannot be.
func (f *files) path(proc string, which int) string {
	d := &f.dirs
	under := func(dir, v1, unified string) string {
		switch {
		case dir != "":
			return path.Join(dir, v1)
		case d.unified != "" && unified != "":
			return path.Join(d.unified, unified)
		}
		return ""
	}
	switch which {
	case fileCPU:
		return under(d.cpuacct, "cpuacct.usage", "cpu.stat")
	case fileThrottle:
		if d.cpu == "" {
			return "" // it is in fileCPU
		}
		return path.Join(d.cpu, "cpu.stat")
	case filePressure:
		return under("", "", "cpu.pressure")
	case fileMemory:
		return under(d.memory, "memory.usage_in_bytes", "memory.current")
	case fileMemStat:
		return under(d.memory, "memory.stat", "memory.stat")
	case fileOOM:
		return under(d.memory, "memory.oom_control", "memory.events")
	case fileIO:
		return under(d.blkio, "blkio.throttle.io_service_bytes", "io.stat")
	case fileNet:
		if f.pid != 0 {
			return path.Join(proc, strconv.Itoa(f.pid), "net/dev")
		}
	}
	return ""
}

// reader reads files into one buffer, which each read overwrites.
type reader struct {
	proc string // where procfs is mounted
	buf  [16 << 10]byte
	// opened counts descriptors that are held.
	opened int
}

var errTooLong = errors.New("the file is longer than what is read of it")

// read returns the content of one of the files, valid until the next call. It
// fails with unix.ENODEV when the cgroup is gone though the descriptor is not.
func (r *reader) read(f *files, which int) ([]byte, error) {
	fd := f.fds[which]
	if fd == gone {
		return nil, unix.ENOENT
	}
	if fd == none {
		var err error
		if fd, err = r.open(f.path(r.proc, which)); err != nil {
			if errors.Is(err, unix.ENOENT) {
				f.fds[which] = gone
			}
			return nil, err
		}
		if !f.held {
			defer unix.Close(int(fd))
		} else {
			f.fds[which] = fd
			r.opened++
		}
	}
	return r.readFD(int(fd))
}

func (r *reader) readFD(fd int) ([]byte, error) {
	for {
		n, err := unix.Pread(fd, r.buf[:], 0)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, err
		case n == len(r.buf):
			return nil, errTooLong
		}
		return r.buf[:n], nil
	}
}

func (r *reader) open(name string) (int32, error) {
	if name == "" {
		return none, unix.ENOENT
	}
	for {
		fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return int32(fd), err
		}
	}
}

// file reads a file by its name.
func (r *reader) file(name string) ([]byte, error) {
	fd, err := r.open(name)
	if err != nil {
		return nil, err
	}
	defer unix.Close(int(fd))
	return r.readFD(int(fd))
}

// close closes what is held. It is called as soon as the container's first
// process has exited: /proc/PID/net/dev holds its network namespace.
func (r *reader) close(f *files) {
	for i, fd := range f.fds {
		if fd >= 0 {
			_ = unix.Close(int(fd))
			r.opened--
		}
		f.fds[i] = gone
	}
}

// reading is what the files of one container said.
type reading struct {
	at     time.Time // right after the CPU time was read, with the monotonic clock
	parts  Parts
	total  Counters
	memory uint64 // working set
	// stalledAt is when Stalled was read, which is not read each time.
	stalledAt time.Time
}

// keep takes over of an earlier reading what cannot have changed since, because
// nothing of the container has run.
func (rd *reading) keep(earlier *reading) {
	a, b := &rd.total, &earlier.total
	a.Periods, a.Throttled, a.ThrottledTime = b.Periods, b.Throttled, b.ThrottledTime
	rd.memory = earlier.memory
	rd.parts |= earlier.parts & (HasThrottling | HasMemory)
}

// cpu reads the CPU time and what is in the same file.
func (r *reader) cpu(f *files, out *reading) error {
	b, err := r.read(f, fileCPU)
	if err != nil {
		return err
	}
	out.at = time.Now()
	if f.dirs.cpuacct != "" {
		n, ok := only(b)
		if !ok || n > 1<<63-1 {
			return errors.New("cpuacct.usage is no number")
		}
		out.total.CPU = time.Duration(n)
		return nil
	}
	n, ok := value(b, "usage_usec")
	used, fits := span(n, time.Microsecond)
	if !ok || !fits {
		return errors.New("cpu.stat has no usage_usec")
	}
	out.total.CPU = used
	if throttling(b, &out.total, true) {
		out.parts |= HasThrottling
	}
	return nil
}

// fast reads what is read at each sweep besides the CPU time, unless nothing has
// run: the memory, and how the quota has stopped the container, if it has one.
func (r *reader) fast(f *files, out *reading, inactive uint64, quota bool) {
	if quota && f.dirs.cpuacct != "" && f.dirs.cpu != "" {
		if b, err := r.read(f, fileThrottle); err == nil && throttling(b, &out.total, false) {
			out.parts |= HasThrottling
		}
	}
	if b, err := r.read(f, fileMemory); err == nil {
		if n, ok := only(b); ok {
			out.memory = n - min(n, inactive)
			out.parts |= HasMemory
		}
	}
}

// slow reads what is read once in six sweeps, and at the end: out-of-memory
// kills, block I/O, and what takes the kernel longest to write, which is the
// network and the pressure.
func (r *reader) slow(f *files, out *reading) {
	if b, err := r.read(f, filePressure); err == nil {
		if d, ok := stalled(b); ok {
			out.total.Stalled, out.stalledAt = d, time.Now()
			out.parts |= HasPressure
		}
	}
	if f.pid != 0 {
		if b, err := r.read(f, fileNet); err == nil {
			if rx, tx, ok := netBytes(b); ok {
				out.total.NetRx, out.total.NetTx = rx, tx
				out.parts |= HasNet
			}
		}
	}
	if b, err := r.read(f, fileOOM); err == nil {
		if n, ok := value(b, "oom_kill"); ok {
			out.total.OOMKills = n
			out.parts |= HasOOM
		}
	}
	if b, err := r.read(f, fileIO); err == nil {
		parse := ioV2
		if f.dirs.blkio != "" {
			parse = ioV1
		}
		if read, write, ok := parse(b); ok {
			out.total.IORead, out.total.IOWrite = read, write
			out.parts |= HasIO
		}
	}
}

// inactive returns how much of the memory is page cache that nobody has used of
// late, which the kernel takes back first.
func (r *reader) inactive(f *files) (uint64, bool) {
	b, err := r.read(f, fileMemStat)
	if err != nil {
		return 0, false
	}
	if f.dirs.memory != "" {
		// Of the cgroup and those below it, as usage_in_bytes is.
		return value(b, "total_inactive_file")
	}
	return value(b, "inactive_file")
}
