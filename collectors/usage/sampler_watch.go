package usage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// failingError says that containers cannot be measured, with an example.
type failingError struct {
	n    int
	name string
	err  error
}

// Error implements error.
func (e *failingError) Error() string {
	return fmt.Sprintf("%d containers cannot be measured, such as %s: %v", e.n, e.name, e.err)
}

// Unwrap returns the example's error.
func (e *failingError) Unwrap() error { return e.err }

// watcher tells of cgroups as they are made. The engine's own word comes when a
// short container may be gone: an event takes its time, and so does the inspect
// that it leads to. A container's cgroup is made by its runtime some tens of
// milliseconds before the container starts. Which cgroups have those of
// containers in them is learnt from the containers, never guessed.
type watcher struct {
	fd    int // of inotify(7), -1 for none
	byWD  map[int32]*parent
	byDir map[string]*parent
}

// parent is a cgroup in which containers' cgroups are made. Or, as with ECS, in
// which the parents of these are made.
type parent struct {
	dir     string
	v2      bool
	wd      int32
	nursery bool // of parents
	scanned bool

	// For the conservation check:
	files   files
	used    time.Duration // by its containers since the last sweep
	total   time.Duration // its own, at the last sweep
	valid   bool          // total is
	checked bool          // it was seen to hold containers alone
}

// mostParents bounds the watches: a host with more has them made for each
// container, and learns nothing by it.
const mostParents = 1024

func (w *watcher) open(s *sampler) {
	w.byWD, w.byDir = make(map[int32]*parent), make(map[string]*parent)
	var err error
	if w.fd, err = s.host.inotify(); err == nil {
		err = s.poller.add(w.fd)
	}
	if err != nil {
		if w.fd >= 0 {
			_ = unix.Close(w.fd)
		}
		w.fd = -1
		s.report("births", fmt.Errorf("cannot see cgroups being made: %w", err),
			"containers that live less than about 50 ms are missed: allow berth inotify_init1, and raise fs.inotify.max_user_instances if there are too many")
	}
}

func (w *watcher) close(s *sampler) {
	if w.fd >= 0 {
		s.poller.remove(w.fd)
		_ = unix.Close(w.fd)
		w.fd = -1
	}
	for _, p := range w.byDir {
		s.read.close(&p.files)
	}
}

// learn watches where a container's cgroup is.
func (w *watcher) learn(s *sampler, d dirs) {
	dir := path.Dir(d.main())
	if w.byDir[dir] != nil {
		return
	}
	v2 := d.cpuacct == ""
	if w.add(s, dir, v2, false) == nil {
		return
	}
	// Where parents are made for one task each, the next one is seen by this.
	if above := path.Dir(dir); s.below(above) {
		w.add(s, above, v2, true)
	}
}

// below reports whether a folder is within a mounted hierarchy, and not its root.
func (s *sampler) below(dir string) bool {
	return slices.ContainsFunc(s.mounts, func(h hierarchy) bool { return strings.HasPrefix(dir, h.point+"/") })
}

func (w *watcher) add(s *sampler, dir string, v2, nursery bool) *parent {
	if p := w.byDir[dir]; p != nil {
		return p
	}
	if len(w.byDir) >= mostParents {
		return nil
	}
	p := &parent{dir: dir, v2: v2, wd: -1, nursery: nursery}
	d := dirs{cpuacct: dir}
	if v2 {
		d = dirs{unified: dir}
	}
	p.files = newFiles(d, 0, true)
	if w.fd >= 0 {
		wd, err := unix.InotifyAddWatch(w.fd, dir, unix.IN_CREATE|unix.IN_ONLYDIR)
		switch {
		case errors.Is(err, unix.ENOENT):
			return nil // it is gone again
		case err != nil:
			s.report("births", fmt.Errorf("cannot see cgroups being made in %s: %w", dir, err),
				"containers that live less than about 50 ms are missed: raise fs.inotify.max_user_watches")
		default:
			p.wd = int32(wd)
			w.byWD[p.wd] = p
		}
	}
	w.byDir[dir] = p
	return p
}

// forget stops to look at a folder that is gone.
func (w *watcher) forget(s *sampler, p *parent) {
	s.read.close(&p.files)
	delete(w.byDir, p.dir)
	delete(w.byWD, p.wd)
}

// scanNew looks for what was made before the watch was.
func (w *watcher) scanNew(s *sampler) {
	for _, p := range w.byDir {
		if !p.scanned {
			w.scan(s, p)
		}
	}
}

func (w *watcher) scan(s *sampler, p *parent) {
	p.scanned = true
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		if errors.Is(err, unix.ENOENT) {
			w.forget(s, p)
		}
		return
	}
	for _, e := range entries {
		if e.IsDir() {
			w.seen(s, p, e.Name(), time.Time{})
		}
	}
}

// seen is told of a folder in a parent: one that was just made, or one that is
// there (the zero time).
func (w *watcher) seen(s *sampler, p *parent, name string, created time.Time) {
	dir := path.Join(p.dir, name)
	id, ok := containerID(name)
	if !ok {
		if p.nursery {
			if child := w.add(s, dir, p.v2, false); child != nil && !child.scanned {
				w.scan(s, child)
			}
		}
		return
	}
	if p.nursery {
		return // a container beside the parents of others: its own parent is this one
	}
	for _, c := range s.cells[id] {
		if !c.over && c.main == dir {
			if created.IsZero() {
				return
			}
			s.finish(c) // its cgroup was removed, as this one could be made
		}
	}
	c := s.newCell(id)
	c.created, c.main = created, dir
	c.files.dirs = p.files.dirs
	if p.v2 {
		c.files.dirs.unified = dir
	} else {
		c.files.dirs.cpuacct = dir
	}
	s.embryos = append(s.embryos, c)
	s.stats.births++
	s.nurse(c, time.Now())
}

// events reads what inotify has to tell.
func (w *watcher) events(s *sampler) {
	var buf [4096]byte
	for {
		n, err := unix.Read(w.fd, buf[:])
		if err == unix.EINTR {
			continue
		}
		if err != nil || n < unix.SizeofInotifyEvent {
			return
		}
		now := time.Now()
		for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
			wd := int32(binary.NativeEndian.Uint32(b))
			mask := binary.NativeEndian.Uint32(b[4:])
			size := int(binary.NativeEndian.Uint32(b[12:]))
			name := strings.TrimRight(string(b[unix.SizeofInotifyEvent:unix.SizeofInotifyEvent+size]), "\x00")
			b = b[unix.SizeofInotifyEvent+size:]
			p := w.byWD[wd]
			switch {
			case mask&unix.IN_Q_OVERFLOW != 0:
				s.stats.overflows++
				for _, p := range w.byDir {
					w.scan(s, p)
				}
			case p == nil:
			case mask&unix.IN_IGNORED != 0:
				w.forget(s, p)
			case mask&unix.IN_CREATE != 0 && mask&unix.IN_ISDIR != 0:
				w.seen(s, p, name, now)
			}
		}
	}
}

// How long to wait for the first process of a new cgroup: the runtime puts one
// there at once as a rule. Those after settle are slow, or were made by hand.
const (
	nurseOften  = 2 * time.Millisecond
	nurseSeldom = 500 * time.Millisecond
	settle      = 20 * time.Millisecond // until the process is in all of its cgroups
	oftenTries  = 100
	mostTries   = oftenTries + 60
)

// nurse looks after a cgroup that was just made, until it has a process.
func (s *sampler) nurse(c *cell, now time.Time) {
	c.tries++
	c.due = now.Add(nurseOften)
	if c.tries > oftenTries {
		c.due = now.Add(nurseSeldom)
	}
	if s.succeed(c) {
		c.tries, c.due = -1, now.Add(settle)
		return
	}
	if c.tries > mostTries {
		s.finish(c)
	}
}

// succeed makes the newest process of an unclaimed cgroup the one whose exit is
// its end, and reports whether there is one. A runtime's first processes prepare
// the container and exit while the one that will be the container is there; the
// newest has the highest number, but where numbers begin again.
func (s *sampler) succeed(c *cell) bool {
	pid, err := s.newestProcess(c.main)
	if errors.Is(err, unix.ENOENT) && c.pid == 0 {
		s.finish(c)
		return false
	}
	if err != nil || pid == 0 || pid == c.pid {
		return false
	}
	p, err := s.look(pid, c.id)
	if err != nil {
		return false
	}
	s.adopt(c, p)
	_, err = s.take(c, true) // open what is held
	return err == nil
}

// nurseAll looks after all cgroups that are due, and returns when the next one
// is, or zero for never.
func (s *sampler) nurseAll(now time.Time) (next time.Time) {
	kept := s.embryos[:0]
	for _, c := range s.embryos {
		if c.over || c.c != nil {
			continue
		}
		if !now.Before(c.due) {
			if c.tries < 0 {
				s.complete(c)
				continue
			}
			s.nurse(c, now)
			if c.over {
				continue
			}
		}
		kept = append(kept, c)
		if next.IsZero() || c.due.Before(next) {
			next = c.due
		}
	}
	clear(s.embryos[len(kept):])
	s.embryos = kept
	return next
}

// complete looks again where the cgroups of a process are, now that it should be
// in all of them.
func (s *sampler) complete(c *cell) {
	if p, err := s.look(c.pid, c.id); err == nil {
		s.adopt(c, p)
		c.whole = true
		_, _ = s.take(c, true)
	}
}

// used notes CPU time of a container in a folder.
func (w *watcher) used(dir string, d time.Duration) {
	if p := w.byDir[dir]; p != nil {
		p.used += d
	}
}

// unattributed returns the CPU time that the parents have used since the last
// sweep beyond their containers, and how much they have used in all. It fails if
// any parent holds something else, as system.slice does, or is new.
func (w *watcher) unattributed(s *sampler) (rest, all time.Duration, ok bool) {
	ok = true
	for _, p := range w.byDir {
		if p.nursery {
			continue
		}
		used := p.used
		p.used = 0
		var rd reading
		if err := s.read.cpu(&p.files, &rd); err != nil {
			if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) {
				w.forget(s, p)
			}
			ok = false
			continue
		}
		spent := rd.total.CPU - p.total
		p.total = rd.total.CPU
		if s.sweeps%slowEvery == 1 || !p.valid {
			p.checked = s.containersOnly(p)
		}
		if !p.valid || !p.checked {
			p.valid = true
			ok = false
			continue
		}
		all += spent
		rest += spent - used
	}
	return rest, all, ok
}

// containersOnly reports whether a cgroup holds containers, and nothing else.
func (s *sampler) containersOnly(p *parent) bool {
	if pid, err := s.newestProcess(p.dir); err != nil || pid != 0 {
		return false
	}
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return false
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if id, ok := containerID(e.Name()); !ok || s.cells[id] == nil {
			return false
		}
	}
	return true
}

// nan is a figure that is not there.
var nan = math.NaN()
