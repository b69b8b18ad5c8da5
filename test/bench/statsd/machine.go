package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The processors of the relay under test, and of everything else. On a machine
// with one processor both are the same, and the figures are worth nothing.
const (
	relayCPU = 0
	benchCPU = 1
	// nice is the priority of all that is measured and measures (sched(7)), so
	// that what else runs on the machine disturbs less. It needs root.
	nice = -15
)

// only returns the set of one processor, or of the first where there is no such.
func only(cpu int) *unix.CPUSet {
	set := new(unix.CPUSet)
	if cpu >= runtime.NumCPU() {
		cpu = 0
	}
	set.Set(cpu)
	return set
}

// confine keeps all threads of this process, and those that they will make, on
// one processor, and prefers them to others.
func confine(cpu int) error {
	tasks, err := filepath.Glob("/proc/self/task/*")
	if err != nil {
		return err
	}
	for _, task := range tasks {
		tid, err := strconv.Atoi(filepath.Base(task))
		if err != nil {
			return fmt.Errorf("name of %s: %w", task, err)
		}
		if err := unix.SchedSetaffinity(tid, only(cpu)); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("keep a thread on processor %d: %w", cpu, err)
		}
		_ = unix.Setpriority(unix.PRIO_PROCESS, tid, nice)
	}
	return nil
}

// startOn starts a command whose processes stay on one processor. It makes the
// command's first thread there, so that a Go program counts one processor and
// makes its GOMAXPROCS from it.
func startOn(cpu int, cmd *exec.Cmd) error {
	done := make(chan error, 1)
	starter().jobs <- func() {
		var before unix.CPUSet
		err := unix.SchedGetaffinity(0, &before)
		if err == nil {
			err = unix.SchedSetaffinity(0, only(cpu))
		}
		if err == nil {
			err = errors.Join(cmd.Start(), unix.SchedSetaffinity(0, &before))
		}
		if err == nil {
			prefer(cmd.Process.Pid)
		}
		done <- err
	}
	return <-done
}

// prefer raises the priority of a process, and of its whole session where the
// kernel shares processors among sessions (sched(7), autogroup). It returns what
// undoes the latter.
func prefer(pid int) (undo func()) {
	_ = unix.Setpriority(unix.PRIO_PROCESS, pid, nice)
	path := fmt.Sprintf("/proc/%d/autogroup", pid)
	before, err := os.ReadFile(path) // "/autogroup-1 nice 0"
	if err != nil {
		return func() {}
	}
	_ = os.WriteFile(path, []byte(strconv.Itoa(nice)), 0)
	return func() {
		if _, old, ok := strings.Cut(string(before), " nice "); ok {
			_ = os.WriteFile(path, []byte(strings.TrimSpace(old)), 0)
		}
	}
}

// starter is one thread that starts all commands: a child that is to die with
// its parent dies with the thread that made it, so that this one stays.
var starter = sync.OnceValue(func() *thread {
	t := &thread{jobs: make(chan func())}
	go func() {
		runtime.LockOSThread()
		for job := range t.jobs {
			job()
		}
	}()
	return t
})

type thread struct{ jobs chan func() }

// cpuTime returns how long the threads of a process have run, in the kernel's
// accounting to the nanosecond: the sum over /proc/PID/task/*/schedstat, which
// the process's clock is, with the threads that have ended.
func cpuTime(pid int) (time.Duration, error) {
	// As clock_getcpuclockid(3) makes it: the number inverted, three bits up,
	// and 2 for the scheduler's clock.
	clock := int32(^pid<<3 | 2)
	var ts unix.Timespec
	if err := unix.ClockGettime(clock, &ts); err != nil {
		return 0, fmt.Errorf("read the CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// resident returns a process's memory in RAM now and at its highest, in bytes,
// as VmRSS and VmHWM of proc(5) have it.
func resident(pid int) (now, high int64, err error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, fmt.Errorf("read the memory of process %d: %w", pid, err)
	}
	for line := range strings.Lines(string(raw)) {
		key, value, _ := strings.Cut(line, ":")
		kib, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		switch key {
		case "VmRSS":
			now = kib << 10
		case "VmHWM":
			high = kib << 10
		}
	}
	if now == 0 {
		return 0, 0, fmt.Errorf("read the memory of process %d: it has ended", pid)
	}
	return now, high, nil
}

// epoch is when the process began.
var epoch = time.Now()

// clock is nanoseconds since then. It makes no system call.
func clock() int64 { return int64(time.Since(epoch)) }

// mmsghdr is what sendmmsg(2) and recvmmsg(2) take.
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
	_   [4]byte
}

// receiveMany is recvmmsg(2): it waits for one message and takes those that are
// there. It returns how many it took.
func receiveMany(fd int, msgs []mmsghdr) (int, error) {
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&msgs[0])), uintptr(len(msgs)), unix.MSG_WAITFORONE, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
