package logprune

import (
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
)

// path returns where a folder is.
func (f *found) path(i int) string {
	c := &f.folders[i]
	if c.trash {
		return path.Join(f.roots[c.root].path, trashName, c.id.String())
	}
	return path.Join(f.roots[c.root].path, c.id.String())
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
	k       kernel
	lives   func(containerID) bool // these need no closer look
	buf     []byte
	out     found
	visited map[node]bool
}

// find scans all patterns, and expects about so many folders. Folders that cannot be
// read are noted, and hold up nothing else.
func find(ctx context.Context, k kernel, patterns []pattern, lives func(containerID) bool, expect int) (*found, error) {
	f := &finder{k: k, lives: lives, buf: make([]byte, 64<<10), visited: make(map[node]bool)}
	f.out.folders = make([]folder, 0, expect)
	f.out.usage = make(map[uint64]usage)
	for _, p := range patterns {
		fd, err := k.openat2(unix.AT_FDCWD, p.fixed, &unix.OpenHow{Flags: openFlags, Resolve: onTheWay})
		switch {
		case errors.Is(err, unix.ENOENT):
			f.pass(existing(p.fixed))
			continue
		case errors.Is(err, unix.ELOOP):
			f.fail(p.fixed, errors.New("there is a symbolic link in it: write the path that it leads to"))
			continue
		case err != nil:
			f.fail(p.fixed, err)
			continue
		}
		err = f.descend(ctx, fd, p.fixed, p.parts, 0)
		k.close(fd)
		if err != nil {
			return nil, err
		}
	}
	return &f.out, nil
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

func (f *finder) fail(what string, err error) {
	if len(f.out.errs) < maxErrors {
		f.out.errs = append(f.out.errs, fmt.Errorf("%s: %w", what, err))
	}
}

func (f *finder) pass(dir string) {
	if len(f.out.passed) < maxPassed {
		f.out.passed = append(f.out.passed, dir)
	}
}

// descend follows the parts of a pattern from an open folder. Only ctx's end is an
// error.
func (f *finder) descend(ctx context.Context, dir int, at string, parts []string, depth int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(parts) == 0 {
		return f.root(ctx, dir, at)
	}
	f.pass(at)
	part, rest := parts[0], parts[1:]
	if part == anyDepth {
		if err := f.descend(ctx, dir, at, rest, depth); err != nil {
			return err
		}
		if depth >= maxDepth {
			f.fail(at, errors.New("it is too deep"))
			return nil
		}
		if err := f.k.rewind(dir); err != nil {
			f.fail(at, err)
			return nil
		}
		return f.children(ctx, dir, at, anyDepth, below, func(fd int, name string) error {
			return f.descend(ctx, fd, path.Join(at, name), parts, depth+1)
		})
	}
	if !strings.ContainsAny(part, `*?[\`) {
		return f.enter(dir, at, part, onTheWay, func(fd int, name string) error {
			return f.descend(ctx, fd, path.Join(at, name), rest, depth)
		})
	}
	return f.children(ctx, dir, at, part, onTheWay, func(fd int, name string) error {
		return f.descend(ctx, fd, path.Join(at, name), rest, depth)
	})
}

// children enters the folders in dir that match a pattern, or all but those of
// containers for anyDepth. As in a shell, "*" does not match names that begin with a
// dot.
func (f *finder) children(ctx context.Context, dir int, at, match string, resolve uint64, enter func(int, string) error) error {
	var names []string
	err := readAll(f.k, dir, f.buf, func(e entry) error {
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
		f.fail(at, err)
	}
	for _, name := range names {
		if err := f.enter(dir, at, name, resolve, enter); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// enter opens one folder for then. One that is not there, or no real folder, is
// no trouble.
func (f *finder) enter(dir int, at, name string, resolve uint64, then func(int, string) error) error {
	fd, err := f.k.openat2(dir, name, &unix.OpenHow{Flags: openFlags, Resolve: resolve})
	switch {
	case err == nil:
		defer f.k.close(fd)
		return then(fd, name)
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP), errors.Is(err, unix.EXDEV):
	default:
		f.fail(path.Join(at, name), err)
	}
	return nil
}

// root notes what is in a root.
func (f *finder) root(ctx context.Context, dir int, at string) error {
	var st unix.Statx_t
	if err := f.k.statx(dir, "", unix.AT_EMPTY_PATH, wanted, &st); err != nil {
		f.fail(at, err)
		return nil
	}
	if n := nodeOf(&st); f.visited[n] {
		return nil // two patterns match it
	} else {
		f.visited[n] = true
		f.measure(dir, at, n.dev)
		f.out.roots = append(f.out.roots, rootDir{at, n})
	}
	trash, err := f.folders(ctx, dir, at, false)
	if err != nil || !trash {
		return err
	}
	f.out.bins = append(f.out.bins, int32(len(f.out.roots)-1))
	return f.enter(dir, at, trashName, below, func(fd int, _ string) error {
		_, err := f.folders(ctx, fd, path.Join(at, trashName), true)
		return err
	})
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
			var st unix.Statx_t
			name := string(e.name)
			switch err := f.k.statx(dir, name, statFlags, wanted, &st); {
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
