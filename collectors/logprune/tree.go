package logprune

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berthd/berth/agent"
)

// Why a tree is not deleted.
var (
	errMountInside = errors.New("something is mounted in it")
	errTooDeep     = fmt.Errorf("it is deeper than %d folders", maxDepth)
	errReplaced    = errors.New("it was replaced by another folder meanwhile")
)

// treeError says where in a tree something is in the way.
type treeError struct {
	at  string // below the folder; "" for itself
	err error
}

func (e *treeError) Error() string {
	if e.at == "" {
		return e.err.Error()
	}
	return fmt.Sprintf("%q: %v", e.at, e.err)
}

func (e *treeError) Unwrap() error { return e.err }

// survey is what a look at a tree has found.
type survey struct {
	node    node
	entries int64    // files and folders, itself among them
	bytes   int64    // that deleting it frees; files with names elsewhere free nothing
	newest  int64    // the last change of any file or folder in it, ns since 1970
	inodes  []uint64 // of all in it
	files   []agent.FileID
	// leaves are the names in the folder itself that are none of folders, each with a zero
	// after it, so that deleting it need not read it again. Where there are very many, they
	// are not complete. (Its handle is not kept as well: a process with threads waits for
	// milliseconds each time that the kernel makes more room for handles.)
	leaves string
}

// maxLeaves bounds the names that are kept of each folder, in bytes: as many as most have.
const maxLeaves = 4096

// surveyor looks at trees. It is used by one goroutine.
type surveyor struct {
	k     kernel
	buf   []byte
	files bool // collect survey.files
	names []byte
	out   survey
}

func newSurveyor(k kernel, files bool) *surveyor {
	return &surveyor{k: k, buf: make([]byte, 32<<10), files: files}
}

// look goes through the tree called name in dir, and changes nothing. A mount
// anywhere in it is an error: even a rename would take that along.
func (s *surveyor) look(ctx context.Context, dir int, name string) (survey, error) {
	s.out, s.names = survey{inodes: make([]uint64, 0, 8)}, s.names[:0]
	fd, err := openBelow(s.k, dir, name)
	if err != nil {
		return s.out, &treeError{"", openError(err)}
	}
	defer s.k.close(fd)
	st, err := s.k.statx(fd, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return s.out, &treeError{"", err}
	}
	s.out.node = nodeOf(&st)
	s.count(&st)
	err = s.walk(ctx, fd, "", 0)
	s.out.leaves = string(s.names)
	return s.out, err
}

func (s *surveyor) count(st *unix.Statx_t) {
	s.out.entries++
	s.out.newest = max(s.out.newest, changed(st))
	s.out.inodes = append(s.out.inodes, st.Ino)
	folder := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if folder || st.Nlink <= 1 {
		s.out.bytes += int64(st.Blocks) * 512 // st_blocks is in these (statx(2))
	}
	if s.files && st.Mode&unix.S_IFMT == unix.S_IFREG {
		n := nodeOf(st)
		s.out.files = append(s.out.files, agent.FileID{Dev: n.dev, Ino: n.ino, Size: int64(st.Size), MtimeNs: nanos(st.Mtime)})
	}
}

func (s *surveyor) walk(ctx context.Context, dir int, at string, depth int) error {
	if depth >= maxDepth {
		return &treeError{at, errTooDeep}
	}
	var folders []string
	err := readAll(s.k, dir, s.buf, func(e entry) error {
		name := string(e.name)
		st, err := s.k.statx(dir, name, statFlags)
		if err != nil {
			if errors.Is(err, unix.ENOENT) {
				return nil
			}
			return &treeError{path.Join(at, name), err}
		}
		if st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 {
			return &treeError{path.Join(at, name), errMountInside}
		}
		s.count(&st)
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			folders = append(folders, name)
		} else if depth == 0 && len(s.names)+len(name) < maxLeaves {
			s.names = append(append(s.names, name...), 0)
		}
		return nil
	})
	if err != nil {
		return asTreeError(at, err)
	}
	for _, name := range folders {
		if err := ctx.Err(); err != nil {
			return err
		}
		fd, err := openBelow(s.k, dir, name)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err == nil {
			err = s.walk(ctx, fd, path.Join(at, name), depth+1)
			s.k.close(fd)
		}
		if err != nil {
			return asTreeError(path.Join(at, name), openError(err))
		}
	}
	return nil
}

// asTreeError adds the place to an error that has none.
func asTreeError(at string, err error) error {
	if _, ok := errors.AsType[*treeError](err); ok {
		return err
	}
	return &treeError{at, err}
}

// openError puts into words what openat2 says of a name that is not a real folder
// on the same mount.
func openError(err error) error {
	switch {
	case errors.Is(err, unix.EXDEV):
		return errMountInside
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf("it is no folder any more: %w", err)
	}
	return err
}

// remover deletes trees. It is used by one goroutine; several share a pace.
type remover struct {
	k     kernel
	buf   []byte
	pace  *pace
	files int64 // names removed so far
}

func newRemover(k kernel, p *pace) *remover {
	return &remover{k: k, buf: make([]byte, 32<<10), pace: p}
}

// passes is how often a folder is read anew that does not become empty, because
// somebody still writes, or because the file system lost its place among names
// that went.
const passes = 10

// remove deletes the tree called name in dir, leaf by leaf. It stops at ctx's end
// and at the first thing that is in the way, and leaves the rest. The tree must be the
// folder that was looked at.
func (r *remover) remove(ctx context.Context, dir int, name string, s *survey) error {
	return r.tree(ctx, dir, name, "", 0, s)
}

// leaves deletes what the survey has named. What is in the way of that is met again, and
// told, by who reads the folder anew. Only ctx's end is an error.
func (r *remover) leaves(ctx context.Context, dir int, names string) error {
	for names != "" {
		var name string
		name, names, _ = strings.Cut(names, "\x00")
		if err := r.pace.wait(ctx); err != nil {
			return err
		}
		switch err := r.k.unlinkat(dir, name, 0); {
		case err == nil:
			r.files++
		case !errors.Is(err, unix.ENOENT):
			return nil
		}
	}
	return nil
}

// tree deletes a folder. With a survey, it must be the one that was looked at.
func (r *remover) tree(ctx context.Context, dir int, name, at string, depth int, s *survey) error {
	if depth >= maxDepth {
		return &treeError{at, errTooDeep}
	}
	fd, err := openBelow(r.k, dir, name)
	if err != nil {
		return &treeError{at, openError(err)}
	}
	defer r.k.close(fd)
	read := true
	if s != nil {
		st, err := r.k.statx(fd, "", unix.AT_EMPTY_PATH)
		if err != nil {
			return &treeError{at, err}
		}
		if nodeOf(&st) != s.node {
			return &treeError{at, errReplaced}
		}
		if err := r.leaves(ctx, fd, s.leaves); err != nil {
			return &treeError{at, err}
		}
		read = s.leaves == ""
	}
	for range passes {
		if read {
			err = r.empty(ctx, fd, at, depth)
		}
		if err != nil {
			return asTreeError(at, err)
		}
		read = true
		err = r.k.unlinkat(dir, name, unix.AT_REMOVEDIR)
		if err == nil || errors.Is(err, unix.ENOENT) {
			r.files++
			return nil
		}
		if !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
			break
		}
		if err := r.k.rewind(fd); err != nil {
			return &treeError{at, err}
		}
	}
	if errors.Is(err, unix.EBUSY) {
		err = errMountInside
	}
	return &treeError{at, err}
}

// empty deletes all that is in an open folder.
func (r *remover) empty(ctx context.Context, dir int, at string, depth int) error {
	var folders []string
	err := readAll(r.k, dir, r.buf, func(e entry) error {
		name := string(e.name)
		if e.kind == unix.DT_DIR {
			folders = append(folders, name)
			return nil
		}
		if err := r.pace.wait(ctx); err != nil {
			return err
		}
		err := r.k.unlinkat(dir, name, 0)
		switch {
		case err == nil:
			r.files++
		case errors.Is(err, unix.ENOENT):
		case errors.Is(err, unix.EISDIR), errors.Is(err, unix.EPERM) && e.kind == unix.DT_UNKNOWN:
			folders = append(folders, name)
		case errors.Is(err, unix.EBUSY):
			return &treeError{path.Join(at, name), errMountInside}
		default:
			return &treeError{path.Join(at, name), err}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range folders {
		if err := r.pace.wait(ctx); err != nil {
			return err
		}
		if err := r.tree(ctx, dir, name, path.Join(at, name), depth+1, nil); err != nil {
			if te, ok := errors.AsType[*treeError](err); ok && errors.Is(te.err, unix.ENOENT) {
				continue
			}
			return err
		}
	}
	return nil
}

// pace keeps deletions to a rate, so that the disk has time for those who live.
// It is safe for concurrent use.
type pace struct {
	every time.Duration // 0 for as fast as can be

	mu   sync.Mutex
	next time.Time
}

func newPace(perSecond int) *pace {
	if perSecond <= 0 {
		return new(pace)
	}
	return &pace{every: time.Second / time.Duration(perSecond)}
}

// burst is how far the pace may fall behind before anyone sleeps: timers are
// coarser than the pause between two files.
const burst = 20 * time.Millisecond

func (p *pace) wait(ctx context.Context) error {
	if err := ctx.Err(); err != nil || p.every == 0 {
		return err
	}
	p.mu.Lock()
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	p.next = p.next.Add(p.every)
	ahead := p.next.Sub(now)
	p.mu.Unlock()
	if ahead < burst {
		return nil
	}
	select {
	case <-time.After(ahead):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
