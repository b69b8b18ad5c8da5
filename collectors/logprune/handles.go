package logprune

import (
	"errors"
	"fmt"
	"path"

	"golang.org/x/sys/unix"
)

// handles are the open roots of a batch, and their trash folders.
type handles struct {
	k     kernel
	pl    *plan
	roots map[int32]int
	bins  map[int32]int
	errs  map[int32]error
}

func newHandles(k kernel, pl *plan) *handles {
	return &handles{k: k, pl: pl, roots: make(map[int32]int), bins: make(map[int32]int), errs: make(map[int32]error)}
}

// give opens the root of a job, which must be the folder that the scan has seen.
func (h *handles) give(j *job) {
	n := j.folder.root
	fd, ok := h.roots[n]
	if !ok && h.errs[n] == nil {
		var err error
		if fd, err = h.open(h.pl.found.roots[n]); err != nil {
			h.errs[n] = err
		} else {
			h.roots[n] = fd
		}
	}
	if err := h.errs[n]; err != nil {
		j.refuse(fmt.Errorf("%s: %w", path.Dir(j.path), err), "")
		return
	}
	j.root = fd
	if j.inBin {
		h.openBin(j, false)
	}
}

func (h *handles) open(r rootDir) (int, error) {
	fd, err := h.k.openat2(unix.AT_FDCWD, r.path, &unix.OpenHow{Flags: openFlags, Resolve: onTheWay})
	if err != nil {
		return -1, err
	}
	var st unix.Statx_t
	if err := h.k.statx(fd, "", unix.AT_EMPTY_PATH, wanted, &st); err != nil || nodeOf(&st) != r.node {
		h.k.close(fd)
		return -1, errors.Join(errReplaced, err)
	}
	return fd, nil
}

// openBin opens the trash of a job's root, and makes it if need be.
func (h *handles) openBin(j *job, make bool) {
	n := j.folder.root
	if fd, ok := h.bins[n]; ok {
		j.trash = fd
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
	h.bins[n], j.trash = fd, fd
}

// bin moves a job's folder into the trash, and makes sure that it is the one that
// was looked at. On a disk without room for a trash, it is deleted where it is.
func (h *handles) bin(j *job) {
	h.openBin(j, true)
	if j.err == nil {
		err := h.k.renameat2(j.root, j.id, j.trash, j.id)
		if err == nil {
			j.inBin = true
			var st unix.Statx_t
			if err := h.k.statx(j.trash, j.id, statFlags, wanted, &st); err != nil || nodeOf(&st) != j.survey.node {
				j.refuse(errors.Join(errReplaced, err), "")
			}
			return
		}
		j.refuse(fmt.Errorf("move it to the trash: %w", err), "")
	}
	if errors.Is(j.err, unix.ENOSPC) || errors.Is(j.err, unix.EDQUOT) {
		j.err, j.fix = nil, ""
	}
}

// close closes all, and removes trash folders that are empty.
func (h *handles) close() {
	for n, fd := range h.bins {
		h.k.close(fd)
		_ = h.k.unlinkat(h.roots[n], trashName, unix.AT_REMOVEDIR)
	}
	for _, fd := range h.roots {
		h.k.close(fd)
	}
}

// sweep removes the empty trash folders that a crash left.
func (p *Pruner) sweep(pl *plan) {
	for _, n := range pl.found.bins {
		h := newHandles(p.k, pl)
		if fd, err := h.open(pl.found.roots[n]); err == nil {
			_ = p.k.unlinkat(fd, trashName, unix.AT_REMOVEDIR)
			p.k.close(fd)
		}
	}
}
