package usage

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berthd/berth/agent"
)

// slowEvery is in how many sweeps a container's slow files are read once.
const slowEvery = 6

// forgetAfter is how long the last figures of a container wait for the engine to
// say which run they are of.
const forgetAfter = time.Minute

// sampler measures containers. It belongs to one goroutine, and learns of time
// only through what it is given and the readings themselves.
type sampler struct {
	log    *slog.Logger
	report func(condition string, err error, hint string)
	host   host
	book   book
	poller poller
	settings

	read   reader
	mounts []hierarchy
	own    []byte // our own /proc/self/cgroup
	pidfds bool   // there are pidfds

	cells   map[string][]*cell // by container; the oldest run first
	byPidfd map[int32]*cell
	embryos []*cell
	spent   []*cell // over, but not forgotten yet
	watch   watcher
	ended   map[agent.RunKey]bool // what the book was told of
	snap    *agent.Snapshot
	failing map[string]error // containers that cannot be measured, and why

	sweeps  uint64
	lastAt  time.Time // of the last sweep
	node    nodeMeter
	used    time.Duration // by containers since the last sweep
	stats   stats
	totals  Totals
	refused map[string][]refusal // by container
	endings []EndedRun
}

// settings are what the configuration says.
type settings struct {
	interval    time.Duration
	environment string
	mhz         float64 // clock rate of the host's cores
}

// poller tells of exits of processes.
type poller interface {
	add(fd int) error
	remove(fd int)
}

// cell is one cgroup of one container, thus one run of it, from when it is first
// seen until its last figures are delivered.
type cell struct {
	id      string
	main    string // the folder of its CPU time
	files   files
	created time.Time // when it was seen to be made; zero if it was there before
	process
	whole bool // its process was seen in all of its cgroups
	over  bool // its process has exited, or its cgroup is gone
	lost  bool // and nothing could be read any more then

	c           *agent.Container // nil until the engine has said which run it is
	run         agent.RunKey
	subject     Subject
	reservation Reservation
	done        bool // its final measurement was taken, or there is none

	last     reading // the newest one
	base     reading // the one that the next window begins at
	first    bool    // the next window begins at the start of the run
	inactive uint64  // page cache to take off
	slow     uint64  // in which sweep of slowEvery its slow files are read
	counted  time.Duration
	hasCPU   bool    // counted is valid
	pressure float64 // the latest share of the time; NaN before the first
	m        Measurement
	measured bool // m is one
	due      time.Time
	tries    int
}

func newSampler(set settings, h host, b book, p poller, log *slog.Logger, report func(string, error, string)) (*sampler, error) {
	s := &sampler{
		log: log, report: report, host: h, book: b, poller: p, settings: set,
		pidfds: true,
		cells:  make(map[string][]*cell), byPidfd: make(map[int32]*cell),
		ended: make(map[agent.RunKey]bool), snap: new(agent.Snapshot),
		failing: make(map[string]error), refused: make(map[string][]refusal),
	}
	s.read.proc = h.proc
	mountinfo, err := os.ReadFile(path.Join(h.proc, "self/mountinfo"))
	if err != nil {
		return nil, fmt.Errorf("find where cgroups are mounted: %w", err)
	}
	if s.mounts = hierarchies(mountinfo); len(s.mounts) == 0 {
		return nil, errors.New("no cgroups are mounted: mount /sys/fs/cgroup")
	}
	if s.own, err = os.ReadFile(path.Join(h.proc, "self/cgroup")); err != nil {
		return nil, fmt.Errorf("find our own cgroup: %w", err)
	}
	s.watch.open(s)
	return s, nil
}

// close lets go of all descriptors.
func (s *sampler) close() {
	for _, list := range s.cells {
		for _, c := range list {
			s.release(c)
		}
	}
	s.watch.close(s)
	s.node.close()
}

// release closes what is held of a cell.
func (s *sampler) release(c *cell) {
	if c.pidfd >= 0 {
		s.poller.remove(c.pidfd)
		delete(s.byPidfd, int32(c.pidfd))
		_ = unix.Close(c.pidfd)
		s.stats.held--
	}
	c.pidfd = -1
	s.read.close(&c.files)
}

// adopt makes p the process whose exit is the end of the cell.
func (s *sampler) adopt(c *cell, p process) {
	if c.pidfd >= 0 {
		s.poller.remove(c.pidfd)
		delete(s.byPidfd, int32(c.pidfd))
		_ = unix.Close(c.pidfd)
		s.stats.held--
	}
	if c.files.dirs != p.dirs || !c.files.held {
		s.read.close(&c.files)
		c.files = newFiles(p.dirs, c.files.pid, s.mayHold())
	}
	c.process, c.main = p, p.dirs.main()
	if p.pidfd < 0 {
		return
	}
	s.stats.held++
	s.byPidfd[int32(p.pidfd)] = c
	if err := s.poller.add(p.pidfd); err != nil {
		s.log.Debug("cannot wait for the end of a process", "container", c.id, "err", err)
	}
}

// fdShare is how much of the limit of descriptors is used for files that are
// held, in percent; and fdOthers how many are left to the rest of berth.
const fdShare, fdOthers = 80, 64

// mayHold reports whether there are descriptors for one more container.
func (s *sampler) mayHold() bool {
	limit := s.host.fdLimit()*fdShare/100 - fdOthers
	if s.read.opened+s.stats.held+fileCount+1 <= limit {
		return true
	}
	s.stats.unheld++
	s.report("descriptors", fmt.Errorf("the limit of %d open files is near: files of further containers are opened for each reading, which costs more", s.host.fdLimit()),
		"raise LimitNOFILE of berth.service")
	return false
}

// exit is called when the process of a pidfd has exited.
func (s *sampler) exit(fd int32) {
	c := s.byPidfd[fd]
	if c == nil {
		return
	}
	if c.c == nil && s.succeed(c) {
		return
	}
	s.finish(c)
}

// finish takes the last reading of a cell, while its cgroup is still there, and
// delivers it if the run is known.
func (s *sampler) finish(c *cell) {
	if c.over {
		return
	}
	rd, err := s.take(c, true) // it is c.last then
	c.over = true
	if err == nil && !c.whole {
		s.makeWhole(c, &rd)
	}
	if err != nil {
		s.stats.missedFinals++
		c.lost = true
		s.log.Debug("the last figures of a container are lost", "container", c.id, "err", err)
	}
	s.release(c)
	c.due = time.Now().Add(forgetAfter)
	s.spent = append(s.spent, c)
	if c.c != nil {
		s.deliverLast(c)
	}
}

// deliverLast delivers the last reading of a cell that is over. Where the one at
// its exit failed, that is an earlier one, if there is any that was not yet.
func (s *sampler) deliverLast(c *cell) {
	if !c.done && (c.base.at.IsZero() || c.last.at.After(c.base.at)) && !c.last.at.IsZero() {
		s.deliver(c, &c.last, !c.lost)
	}
	c.done = true
}

// makeWhole reads what the files of a cell lack that was over before it was seen
// in all of its cgroups: a process that nobody has waited for yet still has them.
func (s *sampler) makeWhole(c *cell, rd *reading) {
	b, err := s.read.file(path.Join(s.host.proc, strconv.Itoa(c.pid), "cgroup"))
	if err != nil {
		return
	}
	d, err := join(b, c.id, s.mounts, s.own)
	if err != nil || d == c.files.dirs {
		return
	}
	f := newFiles(d, 0, false)
	s.read.slow(&f, rd)
	s.read.fast(&f, rd, 0, true)
	c.last = *rd
}

// take reads a cell's files: all of them, or those that may say something new.
func (s *sampler) take(c *cell, all bool) (rd reading, err error) {
	if err = s.read.cpu(&c.files, &rd); err != nil {
		return rd, err
	}
	idle := c.hasCPU && rd.total.CPU == c.counted
	if rd.total.CPU >= c.counted {
		if c.hasCPU || !c.created.IsZero() {
			used := rd.total.CPU - c.counted
			s.used += used
			s.watch.used(path.Dir(c.main), used)
		}
	}
	c.counted, c.hasCPU = rd.total.CPU, true
	if all {
		if n, ok := s.read.inactive(&c.files); ok {
			c.inactive = n
		}
		s.read.slow(&c.files, &rd)
	}
	if idle && !all {
		rd.keep(&c.last)
	} else {
		s.read.fast(&c.files, &rd, c.inactive, c.c == nil || c.reservation.CPULimit > 0)
	}
	c.last = rd
	s.stats.readings++
	return rd, nil
}

// deliver makes a measurement of a reading and gives it to the book.
func (s *sampler) deliver(c *cell, rd *reading, final bool) {
	m := &c.m
	first := c.first
	var window time.Duration
	switch {
	case !first && !c.base.at.IsZero():
		window = rd.at.Sub(c.base.at)
	case !c.created.IsZero():
		window = rd.at.Sub(c.created)
	default:
		window = s.age(c.started)
		if wall := rd.at.Sub(time.Unix(0, c.run.StartedAt)); window == 0 || c.over && wall < window {
			window = wall
		}
	}
	if rd.total.CPU < c.base.total.CPU {
		// Not the counter that it was: there is a new baseline, and no figure.
		s.stats.backwards++
		c.base, c.first = *rd, false
		return
	}
	*m = Measurement{
		Run: c.run, At: rd.at.Round(0), Window: max(window, time.Microsecond),
		Gap: window > 3*s.interval, First: first, Final: final,
	}
	m.Used, m.Parts = subtract(rd, &c.base, first)
	if m.Parts.Has(HasPressure) {
		if m.StalledIn = m.Window; !first {
			m.StalledIn = max(rd.stalledAt.Sub(c.base.stalledAt), time.Microsecond)
		}
		c.pressure = m.Pressure()
	}
	if rd.parts.Has(HasMemory) && !final { // that of a process that has exited is given back
		m.Memory = rd.memory
		m.Parts |= HasMemory
	}
	c.base = merge(&c.base, rd)
	m.Total = Baseline{At: m.At, Parts: c.base.parts, Total: c.base.total}
	c.first, c.measured = false, true
	s.stats.measurements++
	if final {
		s.stats.finals++
	}
	s.book.Observe(&c.subject, &c.reservation, m)
}

// subtract returns what was used between two readings. What the older one lacks
// began at 0 if it is the start of the run, and is otherwise left out.
func subtract(now, then *reading, first bool) (d Counters, p Parts) {
	a, b := &now.total, &then.total
	d.CPU = a.CPU - b.CPU
	have := now.parts
	if !first {
		have &= then.parts
	}
	if have.Has(HasThrottling) && a.Periods >= b.Periods && a.Throttled >= b.Throttled && a.ThrottledTime >= b.ThrottledTime {
		d.Periods, d.Throttled, d.ThrottledTime = a.Periods-b.Periods, a.Throttled-b.Throttled, a.ThrottledTime-b.ThrottledTime
		p |= HasThrottling
	}
	if have.Has(HasPressure) && a.Stalled >= b.Stalled {
		d.Stalled = a.Stalled - b.Stalled
		p |= HasPressure
	}
	if have.Has(HasOOM) && a.OOMKills >= b.OOMKills {
		d.OOMKills = a.OOMKills - b.OOMKills
		p |= HasOOM
	}
	if have.Has(HasNet) && a.NetRx >= b.NetRx && a.NetTx >= b.NetTx {
		d.NetRx, d.NetTx = a.NetRx-b.NetRx, a.NetTx-b.NetTx
		p |= HasNet
	}
	if have.Has(HasIO) && a.IORead >= b.IORead && a.IOWrite >= b.IOWrite {
		d.IORead, d.IOWrite = a.IORead-b.IORead, a.IOWrite-b.IOWrite
		p |= HasIO
	}
	return d, p
}

// merge returns the newer reading, with what only the older one has.
func merge(older, newer *reading) reading {
	out := *newer
	had, have := older.parts, newer.parts
	if had.Has(HasThrottling) && !have.Has(HasThrottling) {
		out.total.Periods, out.total.Throttled, out.total.ThrottledTime = older.total.Periods, older.total.Throttled, older.total.ThrottledTime
	}
	if had.Has(HasPressure) && !have.Has(HasPressure) {
		out.total.Stalled, out.stalledAt = older.total.Stalled, older.stalledAt
	}
	if had.Has(HasOOM) && !have.Has(HasOOM) {
		out.total.OOMKills = older.total.OOMKills
	}
	if had.Has(HasNet) && !have.Has(HasNet) {
		out.total.NetRx, out.total.NetTx = older.total.NetRx, older.total.NetTx
	}
	if had.Has(HasIO) && !have.Has(HasIO) {
		out.total.IORead, out.total.IOWrite = older.total.IORead, older.total.IOWrite
	}
	out.parts |= had
	return out
}

// sweep measures all containers.
func (s *sampler) sweep() {
	begin := time.Now()
	s.sweeps++
	if len(s.failing) > 0 {
		s.apply(s.snap)
	}
	for _, list := range s.cells {
		for _, c := range list {
			if !c.over {
				s.sample(c)
			}
		}
	}
	s.forget(begin)
	s.tick(time.Now())
	took := time.Since(begin)
	s.stats.sweeps++
	s.stats.sweepTime += took
	s.stats.lastSweep = took
	s.lastAt = begin
}

// sample measures one container, as part of a sweep.
func (s *sampler) sample(c *cell) {
	if c.pidfd < 0 && c.pid != 0 && s.replaced(c) {
		s.finish(c)
		return
	}
	all := s.sweeps%slowEvery == c.slow || c.first && c.c != nil
	rd, err := s.take(c, all)
	if err != nil {
		if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) {
			s.finish(c)
		} else {
			s.stats.errors++
			s.log.Debug("cannot read a container's cgroup", "container", c.id, "err", err)
		}
		return
	}
	if c.c == nil {
		return
	}
	var since time.Duration
	if !c.base.at.IsZero() {
		since = rd.at.Sub(c.base.at)
	} else if since = s.age(c.started); since == 0 {
		since = rd.at.Sub(time.Unix(0, c.run.StartedAt))
	}
	if since < s.interval/2 {
		return // it counts in the next one
	}
	s.deliver(c, &rd, false)
}

// replaced reports whether the number of a process has gone to another one,
// where no pidfd tells.
func (s *sampler) replaced(c *cell) bool {
	b, err := s.read.file(path.Join(s.host.proc, fmt.Sprint(c.pid), "stat"))
	if err != nil {
		return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH)
	}
	started, ok := startTicks(b)
	return ok && started != c.started
}

// forget lets go of cells that are over and delivered, or that nobody claims.
func (s *sampler) forget(now time.Time) {
	kept := s.spent[:0]
	for _, c := range s.spent {
		if now.Before(c.due) {
			kept = append(kept, c)
			continue
		}
		if !c.done {
			s.stats.unclaimed++
			s.stats.unclaimedCPU += c.last.total.CPU
		}
		s.drop(c)
	}
	clear(s.spent[len(kept):])
	s.spent = kept
}

// drop forgets a cell.
func (s *sampler) drop(c *cell) {
	list := s.cells[c.id]
	for i := range list {
		if list[i] == c {
			list = append(list[:i:i], list[i+1:]...)
			break
		}
	}
	if len(list) == 0 {
		delete(s.cells, c.id)
	} else {
		s.cells[c.id] = list
	}
}
