package logprune

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// holder is a process that has something open.
type holder struct {
	pid  int
	name string
}

func (h holder) String() string { return fmt.Sprintf("%s (pid %d)", h.name, h.pid) }

// lost is a file that was deleted and is still open: its space is not free.
type lost struct {
	holder
	node  node
	bytes int64
}

// wants are the files that a look through /proc is for.
type wants struct {
	dev    uint64
	inodes []inodeOf // sorted by ino
	// folders are the paths within the file system of what may be mounted
	// elsewhere: see mounts.
	folders []string
}

// inodeOf says which tree a file belongs to.
type inodeOf struct {
	ino  uint64
	tree int32
}

func (w *wants) sort() {
	slices.SortFunc(w.inodes, func(a, b inodeOf) int { return cmp.Compare(a.ino, b.ino) })
}

// tree returns the tree that a file is in, or -1.
func (w *wants) tree(ino uint64) int32 {
	i, ok := slices.BinarySearchFunc(w.inodes, ino, func(e inodeOf, ino uint64) int { return cmp.Compare(e.ino, ino) })
	if !ok {
		return -1
	}
	return w.inodes[i].tree
}

// holding is what a look through /proc has found.
type holding struct {
	trees  map[int32]holder // by the number in inodeOf
	unsure error            // why some process could not be looked at
	lost   []lost           // largest first
}

// errUnsure is why it cannot be told whether a file is open.
var errUnsure = errors.New("it cannot be told which files are open")

// proc looks through the processes of this machine.
type proc struct {
	dir string // /proc
	k   kernel
}

// look finds who has one of the wanted files open, or as its folder, or mounted
// in a mount namespace of its own. It looks at inodes, because the path of an open
// file of a container is one inside of it. pids are those of live containers, which
// must be visible: otherwise /proc is that of another PID namespace.
func (p proc) look(all []*wants, pids []int, wantLost bool) holding {
	out := holding{trees: make(map[int32]holder)}
	names, err := readNames(p.dir)
	if err != nil {
		out.unsure = fmt.Errorf("%w: %w", errUnsure, err)
		return out
	}
	self := strconv.Itoa(os.Getpid())
	spaces := make(map[string]bool)
	if own, err := os.Readlink(filepath.Join(p.dir, self, "ns/mnt")); err == nil {
		spaces[own] = true // what is mounted here, the survey sees
	}
	visible := make(map[int]bool)
	buf := make([]byte, 32<<10)
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		visible[pid] = true
		if name == self {
			continue // the handles that deleting needs
		}
		if err := p.process(pid, buf, all, wantLost, spaces, &out); err != nil && out.unsure == nil {
			out.unsure = fmt.Errorf("%w: process %d: %w", errUnsure, pid, err)
		}
	}
	// One that has just ended may be missing; all of them cannot be.
	if len(pids) > 0 && !slices.ContainsFunc(pids, func(pid int) bool { return visible[pid] }) {
		out.unsure = fmt.Errorf("%w: no process of a container is in %s: berth runs in a PID namespace of its own", errUnsure, p.dir)
	}
	slices.SortFunc(out.lost, func(a, b lost) int { return cmp.Compare(b.bytes, a.bytes) })
	out.lost = slices.CompactFunc(out.lost, func(a, b lost) bool { return a.node == b.node })
	return out
}

// ended reports whether an error means that a process is no more.
func ended(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL)
}

// process looks at one process, through handles of its folders: the path of each of
// thousands of open files would be followed from / on.
func (p proc) process(pid int, buf []byte, all []*wants, wantLost bool, spaces map[string]bool, out *holding) error {
	dir := filepath.Join(p.dir, strconv.Itoa(pid))
	fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		defer p.k.close(fd)
		err = p.opened(fd, pid, dir, buf, all, wantLost, out)
	}
	if err == nil {
		err = p.mounts(pid, dir, all, spaces, out)
	}
	if ended(err) {
		return nil
	}
	return err
}

// opened looks at what a process has open.
func (p proc) opened(process, pid int, dir string, buf []byte, all []*wants, wantLost bool, out *holding) error {
	fds, err := unix.Openat(process, "fd", unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer p.k.close(fds)
	some := false
	look := func(at int, name string) error {
		var st unix.Statx_t
		// A network file system that hangs must not hang this: what the kernel
		// remembers will do.
		err := p.k.statx(at, name, unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, wanted, &st)
		if err != nil {
			if ended(err) { // it was closed
				return nil
			}
			return err
		}
		n := nodeOf(&st)
		for _, w := range all {
			if w.dev != n.dev {
				continue
			}
			if i := w.tree(n.ino); i >= 0 {
				out.trees[i] = holder{pid, processName(dir)}
			}
		}
		if wantLost && st.Nlink == 0 && st.Blocks > 0 && st.Mode&unix.S_IFMT == unix.S_IFREG {
			out.lost = append(out.lost, lost{holder{pid, processName(dir)}, n, int64(st.Blocks) * 512})
		}
		return nil
	}
	err = readAll(p.k, fds, buf, func(e entry) error {
		some = true
		return look(fds, string(e.name))
	})
	if err != nil || !some { // a kernel thread has none open, and nothing else either
		return err
	}
	return errors.Join(look(process, "cwd"), look(process, "root"))
}

// mounts looks for wanted folders among the mounts of a process's mount namespace,
// each namespace once: a container that the engine forgot may have its folder
// mounted and no file of it open.
func (p proc) mounts(pid int, dir string, all []*wants, spaces map[string]bool, out *holding) error {
	space, err := os.Readlink(dir + "/ns/mnt")
	if err != nil {
		return err
	}
	if spaces[space] {
		return nil
	}
	spaces[space] = true
	list, err := readMounts(dir + "/mountinfo")
	if err != nil {
		return err
	}
	for _, m := range list {
		for _, w := range all {
			if m.dev != w.dev || m.root == "/" {
				continue
			}
			for i, folder := range w.folders {
				if folder != "" && inside(m.root, folder) {
					out.trees[int32(i)] = holder{pid, processName(dir)}
				}
			}
		}
	}
	return nil
}

// inside reports whether a path is a folder or below it.
func inside(path, folder string) bool {
	rest, ok := strings.CutPrefix(path, folder)
	return ok && (rest == "" || rest[0] == '/' || strings.HasSuffix(folder, "/"))
}

// mount is a line of /proc/PID/mountinfo (proc(5)).
type mount struct {
	dev   uint64
	root  string // within its file system
	point string
}

// unescape undoes what mountinfo does to spaces and their like.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

func readMounts(file string) ([]mount, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var list []mount
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		major, minor, _ := strings.Cut(fields[2], ":")
		ma, err1 := strconv.ParseUint(major, 10, 32)
		mi, err2 := strconv.ParseUint(minor, 10, 32)
		if err1 != nil || err2 != nil {
			continue
		}
		list = append(list, mount{unix.Mkdev(uint32(ma), uint32(mi)), unescape.Replace(fields[3]), unescape.Replace(fields[4])})
	}
	return list, lines.Err()
}

// within returns the path that a folder has within its file system, given the
// mounts of this process; "" if that cannot be told.
func within(mounts []mount, dir string) string {
	best := -1
	for i, m := range mounts {
		// The last of several at one place covers the others.
		if inside(dir, m.point) && (best < 0 || len(m.point) >= len(mounts[best].point)) {
			best = i
		}
	}
	if best < 0 {
		return ""
	}
	m := mounts[best]
	return filepath.Join(m.root, strings.TrimPrefix(dir, m.point))
}

func processName(dir string) string {
	comm, err := os.ReadFile(filepath.Join(dir, "comm"))
	if err != nil {
		return "a process"
	}
	return strings.TrimSpace(string(comm))
}

func readNames(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}
