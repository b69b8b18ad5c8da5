package usage

import (
	"path"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// host is the kernel that is asked. Tests replace parts of it.
type host struct {
	proc    string                     // where procfs is mounted
	pidfd   func(pid int) (int, error) // pidfd_open(2)
	inotify func() (int, error)        // inotify_init1(2)
	uptime  func() time.Duration       // since the boot, suspended time too
	fdLimit func() int                 // how many descriptors there may be
}

// thisHost is the kernel that runs us.
func thisHost() host {
	return host{
		proc:    "/proc",
		pidfd:   func(pid int) (int, error) { return unix.PidfdOpen(pid, 0) },
		inotify: func() (int, error) { return unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK) },
		uptime: func() time.Duration {
			var ts unix.Timespec
			if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
				return 0
			}
			return time.Duration(ts.Nano())
		},
		fdLimit: func() int {
			var limit unix.Rlimit
			if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
				return 1024 // the kernel's default (INR_OPEN_CUR)
			}
			return int(min(limit.Cur, 1<<20))
		},
	}
}

// tick is the unit of times in /proc/PID/stat (USER_HZ, 100 on all platforms that
// Docker runs on).
const tick = 10 * time.Millisecond

// exited reports whether the process of a pidfd has.
func exited(pidfd int) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 1
}

// process is one process, beyond doubt: numbers of processes are used again, and
// a pidfd is not.
type process struct {
	pid     int
	pidfd   int    // -1 where the kernel has none, or refuses
	started uint64 // ticks since the boot
	dirs    dirs
}

// look opens a process and finds its cgroups. Opening comes first and asking
// whether it still lives last, so that all between is of this process.
func (s *sampler) look(pid int, id string) (p process, err error) {
	p = process{pid: pid, pidfd: -1}
	if s.pidfds {
		if p.pidfd, err = s.host.pidfd(pid); err != nil {
			if !denied(err) {
				return p, err // it is gone, or no descriptor is left
			}
			s.pidfds = false
			s.report("exits", err, "containers are measured until the last full interval before their end: allow berth the system call pidfd_open (Linux 5.3)")
			p.pidfd = -1
		}
	}
	if err := s.fill(&p, id); err != nil {
		if p.pidfd >= 0 {
			_ = unix.Close(p.pidfd)
		}
		return p, err
	}
	return p, nil
}

func (s *sampler) fill(p *process, id string) error {
	folder := path.Join(s.host.proc, strconv.Itoa(p.pid))
	b, err := s.read.file(path.Join(folder, "stat"))
	if err != nil {
		return err
	}
	p.started, _ = startTicks(b)
	if b, err = s.read.file(path.Join(folder, "cgroup")); err != nil {
		return err
	}
	if p.dirs, err = join(b, id, s.mounts, s.own); err != nil {
		return err
	}
	if p.pidfd >= 0 && exited(p.pidfd) {
		return unix.ESRCH
	}
	return nil
}

// age returns how long a process has lived. It does not depend on the wall
// clock. 0 means that it is not known.
func (s *sampler) age(started uint64) time.Duration {
	if started == 0 || started > 1<<40 {
		return 0
	}
	return max(0, s.host.uptime()-time.Duration(started)*tick)
}

// denied reports whether a system call is missing or forbidden, which will not
// change: a kernel that lacks it says ENOSYS, a filter says that or EPERM.
func denied(err error) bool {
	return err == unix.ENOSYS || err == unix.EPERM || err == unix.EACCES
}

// newestProcess returns the highest number in a cgroup's list of processes, 0 if
// it is empty.
func (s *sampler) newestProcess(dir string) (pid int, err error) {
	b, err := s.read.file(path.Join(dir, "cgroup.procs"))
	if err != nil {
		return 0, err
	}
	for len(b) > 0 {
		var l []byte
		l, b = line(b)
		if n, _, ok := number(l); ok && n < 1<<31 {
			pid = max(pid, int(n))
		}
	}
	return pid, nil
}
