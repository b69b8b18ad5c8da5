package logprune

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// trashName is the folder in each root that what is to be deleted is first moved
// into. It is there only while something is in it.
const trashName = ".berth-trash"

// folder is one candidate: a folder below a root whose name is a container's ID.
type folder struct {
	id      containerID
	trash   bool  // it is in the trash of its root, under this name
	mounted bool  // something is mounted on it
	statted bool  // changed and mounted are known
	root    int32 // index into found.roots
	changed int64 // when names in it last changed, in nanoseconds since 1970
}

// stranger is a name in a root that no container can have.
type stranger struct {
	root int32
	name string
	kind uint8
}

// rootDir is a folder that holds folders of containers.
type rootDir struct {
	path string
	node node
}

// found is what a scan has found.
type found struct {
	roots     []rootDir
	folders   []folder
	strangers []stranger       // at most maxStrangers
	bins      []int32          // roots that have a trash
	more      int              // strangers beyond these
	passed    []string         // folders on the way to roots, for the watch
	usage     map[uint64]usage // of the file systems of roots, by device
	errs      []error          // what could not be looked at
}

// The bounds of what a scan keeps of what does not concern it.
const (
	maxStrangers = 1000
	maxErrors    = 20
	maxPassed    = 1 << 16
	maxExpected  = 1 << 17
)

// path returns where a folder is.
func (f *found) path(i int) string {
	c := &f.folders[i]
	return f.roots[c.root].below(c.id.String(), c.trash)
}

// below returns the path of a name in a root, or in its trash.
func (r *rootDir) below(name string, inBin bool) string {
	dir := strings.TrimSuffix(r.path, "/") + "/"
	if inBin {
		return dir + trashName + "/" + name
	}
	return dir + name
}

// pattern is a glob of roots, in parts: "/var/log/*/*/containers" is the fixed
// folder /var/log and three parts.
type pattern struct {
	fixed string
	parts []string
}

// anyDepth is the part that stands for any number of folders, on one mount.
const anyDepth = "**"

// maxDepth bounds what anyDepth stands for, and how deep a tree may be that is
// deleted: one open handle for each level.
const maxDepth = 1000

func parsePattern(glob string) (pattern, error) {
	switch {
	case !path.IsAbs(glob):
		return pattern{}, fmt.Errorf("%q is not an absolute path: write it as /var/log/*/*/containers", glob)
	case path.Clean(glob) != glob:
		return pattern{}, fmt.Errorf("%q is not in its shortest form: write it as %s", glob, path.Clean(glob))
	case glob == "/":
		return pattern{}, errors.New("/ itself holds no folders of containers: write it as /var/log/*/*/containers")
	}
	parts := strings.Split(glob[1:], "/")
	p := pattern{fixed: "/"}
	for len(parts) > 0 && !strings.ContainsAny(parts[0], `*?[\`) {
		p.fixed, parts = path.Join(p.fixed, parts[0]), parts[1:]
	}
	for _, part := range parts {
		if _, err := path.Match(part, ""); err != nil {
			return pattern{}, fmt.Errorf("%q is not a glob pattern: %w", glob, err)
		}
	}
	p.parts = parts
	return p, nil
}

// finder looks for folders. It is used by one goroutine.
type finder struct {
	k     kernel
	lives func(containerID) bool // these need no closer look
	buf   []byte
	out   found
}

// find scans all patterns, and expects about so many folders. So many walkers follow the
// patterns at once. Folders that cannot be read are noted, and hold up nothing else.
func find(ctx context.Context, k kernel, patterns []pattern, lives func(containerID) bool, expect, walkers int) (*found, error) {
	f := &finder{k: k, lives: lives, buf: make([]byte, 64<<10)}
	f.out.usage = make(map[uint64]usage)
	w := &walker{k: k, buf: f.buf, walkers: walkers}
	for _, p := range patterns {
		if err := w.follow(ctx, p); err != nil {
			return nil, err
		}
	}
	f.out.passed, f.out.errs = w.passed, w.errs
	// At once, because growing needs twice the memory for a moment.
	f.out.folders = make([]folder, 0, max(expect, min(w.expect, maxExpected)))
	visited := make(map[node]bool)
	for _, r := range w.roots {
		if visited[r.node] {
			continue // two patterns match it
		}
		visited[r.node] = true
		if err := f.root(ctx, r); err != nil {
			return nil, err
		}
	}
	return &f.out, nil
}

// walker follows patterns to roots. It is used by one goroutine, and may have others of
// its own.
type walker struct {
	k       kernel
	buf     []byte
	walkers int
	roots   []rootDir
	passed  []string
	errs    []error
	expect  int // folders in the roots, as many as the file system says
}

// follow finds the roots of a pattern. Only ctx's end is an error.
func (w *walker) follow(ctx context.Context, p pattern) error {
	fd, err := w.k.openat2(unix.AT_FDCWD, p.fixed, onTheWay)
	switch {
	case errors.Is(err, unix.ENOENT):
		w.pass(existing(p.fixed))
		return nil
	case errors.Is(err, unix.ELOOP):
		w.fail(p.fixed, errors.New("there is a symbolic link in it: write the path that it leads to"))
		return nil
	case err != nil:
		w.fail(p.fixed, err)
		return nil
	}
	defer w.k.close(fd)
	return w.descend(ctx, fd, p.fixed, p.parts, 0)
}

// existing returns the deepest folder that is there, which the missing one will
// appear below.
func existing(dir string) string {
	var st unix.Stat_t
	for dir != "/" && unix.Stat(dir, &st) != nil {
		dir = filepath.Dir(dir)
	}
	return dir
}

// failed adds an error to those of a scan, of which not all are kept.
func failed(errs []error, what string, err error) []error {
	if len(errs) < maxErrors {
		errs = append(errs, fmt.Errorf("%s: %w", what, err))
	}
	return errs
}

func (w *walker) fail(what string, err error) { w.errs = failed(w.errs, what, err) }

func (w *walker) pass(dir string) {
	if len(w.passed) < maxPassed {
		w.passed = append(w.passed, dir)
	}
}

// descend follows the parts of a pattern from an open folder. Only ctx's end is an
// error.
func (w *walker) descend(ctx context.Context, dir int, at string, parts []string, depth int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(parts) == 0 {
		st, err := w.k.statx(dir, "", unix.AT_EMPTY_PATH)
		if err != nil {
			w.fail(at, err)
			return nil
		}
		w.roots = append(w.roots, rootDir{at, nodeOf(&st)})
		w.expect += max(int(st.Nlink)-2, 0) // each folder in it has a link to it, on most
		return nil
	}
	w.pass(at)
	part, rest := parts[0], parts[1:]
	if part == anyDepth {
		if err := w.descend(ctx, dir, at, rest, depth); err != nil {
			return err
		}
		if depth >= maxDepth {
			w.fail(at, errors.New("it is too deep"))
			return nil
		}
		if err := w.k.rewind(dir); err != nil {
			w.fail(at, err)
			return nil
		}
		return w.children(ctx, dir, at, anyDepth, below, func(w *walker, fd int, name string) error {
			return w.descend(ctx, fd, path.Join(at, name), parts, depth+1)
		})
	}
	then := func(w *walker, fd int, name string) error {
		return w.descend(ctx, fd, path.Join(at, name), rest, depth)
	}
	if !strings.ContainsAny(part, `*?[\`) {
		return w.enter(dir, at, part, onTheWay, then)
	}
	return w.children(ctx, dir, at, part, onTheWay, then)
}

// children enters the folders in dir that match a pattern, or all but those of
// containers for anyDepth. As in a shell, "*" does not match names that begin with a
// dot.
func (w *walker) children(ctx context.Context, dir int, at, match string, resolve uint64, enter func(*walker, int, string) error) error {
	var names []string
	err := readAll(w.k, dir, w.buf, func(e entry) error {
		if e.kind != unix.DT_DIR && e.kind != unix.DT_UNKNOWN || e.name[0] == '.' && match[0] != '.' {
			return nil
		}
		if match == anyDepth {
			// Folders of containers are not searched for others: there may be 100,000,
			// each with all that a container writes.
			if _, isID := parseID(e.name); !isID {
				names = append(names, string(e.name))
			}
			return nil
		}
		name := string(e.name)
		if ok, _ := path.Match(match, name); ok {
			names = append(names, name)
		}
		return nil
	})
	if err != nil {
		w.fail(at, err)
	}
	if w.walkers > 1 && len(names) > w.walkers {
		return w.split(ctx, names, func(w *walker, name string) error { return w.enter(dir, at, name, resolve, enter) })
	}
	for _, name := range names {
		if err := w.enter(dir, at, name, resolve, enter); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// split has several walkers enter the names, and takes over what they have found in the
// order of these.
func (w *walker) split(ctx context.Context, names []string, enter func(*walker, string) error) error {
	found := make([]walker, len(names))
	errs := make([]error, len(names))
	share(w.walkers, len(names), func() func(int) {
		buf := make([]byte, len(w.buf))
		return func(i int) {
			found[i].k, found[i].buf = w.k, buf
			errs[i] = enter(&found[i], names[i])
		}
	})
	for i := range found {
		w.roots = append(w.roots, found[i].roots...)
		w.expect += found[i].expect
		for _, dir := range found[i].passed {
			w.pass(dir)
		}
		w.errs = append(w.errs, found[i].errs[:min(len(found[i].errs), maxErrors-len(w.errs))]...)
	}
	return cmp.Or(errors.Join(errs...), ctx.Err())
}

// enter opens one folder for then. One that is not there, or no real folder, is
// no trouble.
func (w *walker) enter(dir int, at, name string, resolve uint64, then func(*walker, int, string) error) error {
	fd, err := w.k.openat2(dir, name, resolve)
	switch {
	case err == nil:
		defer w.k.close(fd)
		return then(w, fd, name)
	case !isNoFolder(err):
		w.fail(path.Join(at, name), err)
	}
	return nil
}

// isNoFolder reports whether an error of openat2 says that there is no real folder, or
// none that may be entered.
func isNoFolder(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EXDEV)
}

func (f *finder) fail(what string, err error) { f.out.errs = failed(f.out.errs, what, err) }

// root notes what is in a root, and in its trash. Only ctx's end is an error.
func (f *finder) root(ctx context.Context, r rootDir) error {
	dir, err := openRoot(f.k, r)
	if err != nil {
		if !isNoFolder(err) && !errors.Is(err, errReplaced) { // the next scan sees what is there then
			f.fail(r.path, err)
		}
		return nil
	}
	defer f.k.close(dir)
	f.measure(dir, r.path, r.node.dev)
	f.out.roots = append(f.out.roots, r)
	trash, err := f.folders(ctx, dir, r.path, false)
	if err != nil || !trash {
		return err
	}
	f.out.bins = append(f.out.bins, int32(len(f.out.roots)-1))
	bin, err := openBelow(f.k, dir, trashName)
	if err != nil {
		if !isNoFolder(err) {
			f.fail(path.Join(r.path, trashName), err)
		}
		return nil
	}
	defer f.k.close(bin)
	_, err = f.folders(ctx, bin, path.Join(r.path, trashName), true)
	return err
}

// measure notes how full a file system is, once for each.
func (f *finder) measure(dir int, at string, dev uint64) {
	if _, ok := f.out.usage[dev]; ok {
		return
	}
	var st unix.Statfs_t
	if err := f.k.statfs(dir, &st); err != nil {
		f.fail(at, err)
		return
	}
	f.out.usage[dev] = usageOf(&st)
}

// folders notes the candidates and strangers in a root, or in its trash, and
// reports whether there is a trash.
func (f *finder) folders(ctx context.Context, dir int, at string, inTrash bool) (trash bool, err error) {
	root := int32(len(f.out.roots) - 1)
	if err := f.k.rewind(dir); err != nil {
		f.fail(at, err)
		return false, nil
	}
	n := 0
	err = readAll(f.k, dir, f.buf, func(e entry) error {
		if n++; n%4096 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if string(e.name) == trashName && !inTrash {
			trash = true
			return nil
		}
		id, ok := parseID(e.name)
		if !ok || e.kind != unix.DT_DIR && e.kind != unix.DT_UNKNOWN {
			f.stranger(root, e, inTrash)
			return nil
		}
		c := folder{id: id, root: root, trash: inTrash}
		if !f.lives(id) || e.kind == unix.DT_UNKNOWN {
			name := string(e.name)
			st, err := f.k.statx(dir, name, statFlags)
			switch {
			case errors.Is(err, unix.ENOENT):
				return nil
			case err != nil:
				f.fail(path.Join(at, name), err)
				return nil
			case st.Mode&unix.S_IFMT != unix.S_IFDIR:
				e.kind = uint8(st.Mode >> 12) // IFTODT of dirent.h
				f.stranger(root, e, inTrash)
				return nil
			}
			c.statted, c.changed = true, changed(&st)
			c.mounted = st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
		}
		f.out.folders = append(f.out.folders, c)
		return nil
	})
	if err != nil && ctx.Err() == nil {
		f.fail(at, err)
		err = nil
	}
	return trash, err
}

func (f *finder) stranger(root int32, e entry, inTrash bool) {
	if len(f.out.strangers) >= maxStrangers {
		f.out.more++
		return
	}
	name := string(e.name)
	if inTrash {
		name = path.Join(trashName, name)
	}
	f.out.strangers = append(f.out.strangers, stranger{root, name, e.kind})
}
