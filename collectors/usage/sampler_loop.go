package usage

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berthd/berth/agent"
)

// epoll waits for exits of processes, births of cgroups, and being woken up.
type epoll struct {
	fd, wake int
	events   [128]unix.EpollEvent
}

func newEpoll() (*epoll, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("wait for processes: epoll_create1: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("wait for processes: eventfd: %w", err)
	}
	e := &epoll{fd: fd, wake: wake}
	if err := e.add(wake); err != nil {
		e.close()
		return nil, fmt.Errorf("wait for processes: epoll_ctl: %w", err)
	}
	return e, nil
}

func (e *epoll) add(fd int) error {
	return unix.EpollCtl(e.fd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

func (e *epoll) remove(fd int) { _ = unix.EpollCtl(e.fd, unix.EPOLL_CTL_DEL, fd, nil) }

// wait returns the descriptors that are ready, by the given time at the latest.
func (e *epoll) wait(until time.Time) ([]unix.EpollEvent, error) {
	// Rounded up: to wake up too early is to wake up once more.
	ms := max(0, int((time.Until(until)+time.Millisecond-1)/time.Millisecond))
	n, err := unix.EpollWait(e.fd, e.events[:], ms)
	if err == unix.EINTR {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("wait for processes: %w", err)
	}
	return e.events[:n], nil
}

// wakeUp makes wait return. It may be called from any goroutine.
func (e *epoll) wakeUp() {
	one := [8]byte{1}
	for {
		if _, err := unix.Write(e.wake, one[:]); err != unix.EINTR {
			return // EAGAIN: it is awake
		}
	}
}

func (e *epoll) drain() {
	var b [8]byte
	_, _ = unix.Read(e.wake, b[:])
}

func (e *epoll) close() {
	_ = unix.Close(e.wake)
	_ = unix.Close(e.fd)
}

// loop runs the sampler until ctx ends. All of the sampler's work is done with
// the lock held, and waiting is not.
func (u *Usage) loop(ctx context.Context, f agent.Feed) error {
	e, err := newEpoll()
	if err != nil {
		return err
	}
	defer e.close()
	s, err := newSampler(u.settings(), u.host, u.book, e, u.log, u.report)
	if err != nil {
		u.report("sampling", err, "nothing is measured")
		return err
	}
	u.report("sampling", nil, "")

	// One goroutine turns what Go can wait for into what epoll can.
	ctx, cancel := context.WithCancel(ctx)
	var forwarding sync.WaitGroup
	defer forwarding.Wait()
	defer cancel()
	forwarding.Go(func() {
		for {
			select {
			case <-ctx.Done():
				e.wakeUp()
				return
			case <-f.Changed():
				e.wakeUp()
			}
		}
	})

	u.mu.Lock()
	u.sampler = s
	u.mu.Unlock()
	defer func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		s.close()
		u.sampler = nil
	}()
	// A thread of its own, which ends with the goroutine.
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- u.cycle(ctx, f, s, e)
	}()
	return <-done
}

// A thread's urgency: earlySlice is how long it asks to run at a time, the least
// that the kernel grants, and earlyNice its niceness where it cannot have more.
const earlySlice, earlyNice = 100 * time.Microsecond, -10

// beEarly asks the kernel to run this thread as soon as it is woken: on a busy
// host, some milliseconds decide whether a cgroup is still there. Under three
// spinning processes for each core, a fifth of all exits were missed without it,
// and none with the lowest of real-time priorities, which is given back for all
// work that can wait (see beLate). That takes CAP_SYS_NICE, and a unit that does
// not restrict it; niceness helps less, and a short slice (Linux 6.12) least.
// It reports whether it has more than that.
func beEarly() bool {
	for _, attr := range []unix.SchedAttr{
		{Policy: unix.SCHED_RR, Priority: 1},
		{Policy: unix.SCHED_NORMAL, Nice: earlyNice, Runtime: uint64(earlySlice)},
		{Policy: unix.SCHED_NORMAL, Runtime: uint64(earlySlice)},
	} {
		attr.Size = unix.SizeofSchedAttr
		if unix.SchedSetAttr(0, &attr, 0) == nil {
			return attr.Policy == unix.SCHED_RR
		}
	}
	return false
}

// beLate makes this thread one like any other.
func beLate() {
	_ = unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL}, 0)
}

func (u *Usage) cycle(ctx context.Context, f agent.Feed, s *sampler, e *epoll) error {
	next := time.Now().Add(phase(u.node(), s.interval))
	var nurse time.Time
	var seen uint64
	early := beEarly()
	for {
		until := next
		if !nurse.IsZero() && nurse.Before(until) {
			until = nurse
		}
		ready, err := e.wait(until)
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
		u.mu.Lock()
		woken, born := false, false
		for i := range ready {
			switch fd := ready[i].Fd; int(fd) {
			case e.wake:
				woken = true
			case s.watch.fd:
				born = true
			default:
				s.exit(fd) // first of all: a cgroup is gone some milliseconds after
			}
		}
		if born {
			s.watch.events(s)
		}
		now := time.Now()
		nurse = s.nurseAll(now)
		due := !now.Before(next)
		if early && (woken || due) {
			beLate() // for what can wait
		}
		if woken {
			e.drain()
			if snap := f.Snapshot(); snap.Seq > seen {
				seen = snap.Seq
				s.apply(snap)
				nurse = s.nurseAll(now) // it may have found some
			}
		}
		if due {
			s.sweep()
			if next = next.Add(s.interval); !next.After(now) {
				next = now.Add(s.interval) // we have stood still
			}
		}
		u.mu.Unlock()
		if early && (woken || due) {
			beEarly()
		}
	}
}

// phase is when in an interval this host measures: hosts that started together
// need not all be busy at once.
func phase(node string, interval time.Duration) time.Duration {
	h := fnv.New64a()
	_, _ = h.Write([]byte(node))
	return time.Duration(h.Sum64() % uint64(interval))
}

// report sets a condition of the component.
func (u *Usage) report(condition string, err error, hint string) {
	u.health.Set(condition, err, hint)
}

// errOff is what is told of containers while nothing is measured.
var errOff = errors.New("nothing is measured at the moment")
