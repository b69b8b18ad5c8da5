package logprune

import (
	"errors"
	"fmt"
	"path"
	"sync"

	"golang.org/x/sys/unix"
)

// handles are the open roots of all batches of a run, and their trash folders. They are
// safe for concurrent use.
type handles struct {
	k  kernel
	pl *plan

	mu   sync.Mutex
	open map[int32]*rootHandle
}

// rootHandle is a root that some batches have open.
type rootHandle struct {
	fd, bin int // of the root and of its trash; -1 for none
	batches int
}

func newHandles(k kernel, pl *plan) *handles {
	return &handles{k: k, pl: pl, open: make(map[int32]*rootHandle)}
}

// give opens what the jobs of a batch need, until release. A root must be the folder
// that the scan has seen.
func (h *handles) give(jobs []*job) {
	h.mu.Lock()
	defer h.mu.Unlock()
	errs := make(map[int32]error)
	mine := make(map[int32]bool)
	for _, j := range jobs {
		n := j.folder.root
		if !mine[n] && errs[n] == nil {
			errs[n] = h.acquire(n)
			mine[n] = errs[n] == nil
		}
		if err := errs[n]; err != nil {
			j.refuse(fmt.Errorf("%s: %w", path.Dir(j.path), err), "")
			continue
		}
		j.root = h.open[n].fd
		if j.inBin {
			h.openBin(j, false)
		}
	}
}

// acquire counts one more batch that has a root open.
func (h *handles) acquire(n int32) error {
	if r := h.open[n]; r != nil {
		r.batches++
		return nil
	}
	fd, err := openRoot(h.k, h.pl.found.roots[n])
	if err == nil {
		h.open[n] = &rootHandle{fd: fd, bin: -1, batches: 1}
	}
	return err
}

// openRoot opens a root, which must be the folder that the scan has seen.
func openRoot(k kernel, r rootDir) (int, error) {
	fd, err := k.openat2(unix.AT_FDCWD, r.path, onTheWay)
	if err != nil {
		return -1, err
	}
	if st, err := k.statx(fd, "", unix.AT_EMPTY_PATH); err != nil || nodeOf(&st) != r.node {
		k.close(fd)
		return -1, errors.Join(errReplaced, err)
	}
	return fd, nil
}

// openBin opens the trash of a job's root, and makes it if need be. It is called with
// h.mu held.
func (h *handles) openBin(j *job, make bool) {
	r := h.open[j.folder.root]
	if r.bin >= 0 {
		j.trash = r.bin
		return
	}
	if make {
		if err := h.k.mkdirat(j.root, trashName, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
			j.refuse(fmt.Errorf("make the trash folder: %w", err), "")
			return
		}
	}
	fd, err := openBelow(h.k, j.root, trashName)
	if err != nil {
		j.refuse(fmt.Errorf("open the trash folder: %w", openError(err)), "remove "+trashName+" there")
		return
	}
	r.bin, j.trash = fd, fd
}

// bin moves a job's folder into the trash, and makes sure that it is the one that
// was looked at. On a disk without room for a trash, it is deleted where it is.
func (h *handles) bin(j *job) {
	h.mu.Lock()
	if h.openBin(j, true); noRoom(j.err) {
		j.err, j.fix = nil, ""
	}
	h.mu.Unlock()
	if j.err != nil || j.trash < 0 {
		return
	}
	err := h.k.renameat2(j.root, j.id, j.trash, j.id)
	if err == nil {
		j.inBin = true
		if st, err := h.k.statx(j.trash, j.id, statFlags); err != nil || nodeOf(&st) != j.survey.node {
			j.refuse(errors.Join(errReplaced, err), "")
		}
		return
	}
	if !noRoom(err) {
		j.refuse(fmt.Errorf("move it to the trash: %w", err), "")
	}
}

func noRoom(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// release closes what no batch needs any more, and removes trash folders that are
// empty.
func (h *handles) release(jobs []*job) {
	h.mu.Lock()
	defer h.mu.Unlock()
	done := make(map[int32]bool)
	for _, j := range jobs {
		n := j.folder.root
		if j.root < 0 || done[n] {
			continue
		}
		done[n] = true
		r := h.open[n]
		if r.batches--; r.batches > 0 {
			continue
		}
		delete(h.open, n)
		if r.bin >= 0 {
			h.k.close(r.bin)
			_ = h.k.unlinkat(r.fd, trashName, unix.AT_REMOVEDIR)
		}
		h.k.close(r.fd)
	}
}

// sweep removes the empty trash folders that a crash left.
func (p *Pruner) sweep(pl *plan) {
	for _, n := range pl.found.bins {
		if fd, err := openRoot(p.k, pl.found.roots[n]); err == nil {
			_ = p.k.unlinkat(fd, trashName, unix.AT_REMOVEDIR)
			p.k.close(fd)
		}
	}
}
