package logprune

import (
	"errors"
	"fmt"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kernel is all that pruning asks of the file system. Everything goes through
// directory handles; no method takes a path that has more than one part, but for
// open of a root. Tests put one in its place that fails, or that changes the tree
// between two calls.
type kernel interface {
	openat2(dir int, name string, resolve uint64) (int, error) // a folder, for reading
	getdents(dir int, buf []byte) (int, error)
	rewind(dir int) error
	statx(dir int, name string, flags int) (unix.Statx_t, error) // with what is in wanted
	statfs(dir int, st *unix.Statfs_t) error
	unlinkat(dir int, name string, flags int) error
	mkdirat(dir int, name string, mode uint32) error
	renameat2(from int, name string, to int, newName string) error // never replaces
	close(fd int)
}

// linux is the real one. The calls that are made for each file allocate nothing.
type linux struct{}

// nameBuffer has room for the longest name in a folder and the zero after it. On the
// stack of who calls the kernel, it saves what unix.BytePtrFromString allocates.
type nameBuffer [256]byte

func (b *nameBuffer) of(name string) (*byte, error) {
	if len(name) >= len(b) {
		return nil, unix.ENAMETOOLONG
	}
	if strings.IndexByte(name, 0) >= 0 {
		return nil, unix.EINVAL
	}
	copy(b[:], name)
	return &b[0], nil
}

func errorOf(errno unix.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

func (linux) openat2(dir int, name string, resolve uint64) (int, error) {
	how := unix.OpenHow{Flags: openFlags, Resolve: resolve}
	for range 100 {
		// EAGAIN: a rename elsewhere made the kernel's own check inconclusive
		// (openat2(2)).
		fd, err := unix.Openat2(dir, name, &how)
		if err != unix.EINTR && err != unix.EAGAIN {
			return fd, err
		}
	}
	return -1, unix.EAGAIN
}

func (linux) getdents(dir int, buf []byte) (int, error) {
	for {
		n, err := unix.Getdents(dir, buf)
		if err != unix.EINTR {
			return n, err
		}
	}
}

func (linux) rewind(dir int) error {
	_, err := unix.Seek(dir, 0, 0)
	return err
}

func (linux) statx(dir int, name string, flags int) (st unix.Statx_t, err error) {
	var b nameBuffer
	p, err := b.of(name)
	if err != nil {
		return st, err
	}
	_, _, errno := unix.Syscall6(unix.SYS_STATX, uintptr(dir), uintptr(unsafe.Pointer(p)), uintptr(flags), wanted, uintptr(unsafe.Pointer(&st)), 0)
	return st, errorOf(errno)
}

func (linux) statfs(dir int, st *unix.Statfs_t) error { return unix.Fstatfs(dir, st) }

func (linux) unlinkat(dir int, name string, flags int) error {
	var b nameBuffer
	p, err := b.of(name)
	if err != nil {
		return err
	}
	_, _, errno := unix.Syscall(unix.SYS_UNLINKAT, uintptr(dir), uintptr(unsafe.Pointer(p)), uintptr(flags))
	return errorOf(errno)
}

func (linux) mkdirat(dir int, name string, mode uint32) error {
	return unix.Mkdirat(dir, name, mode)
}

func (linux) renameat2(from int, name string, to int, newName string) error {
	return unix.Renameat2(from, name, to, newName, unix.RENAME_NOREPLACE)
}

func (linux) close(fd int) { _ = unix.Close(fd) }

// How names are resolved. On the way to a root, mounts may be crossed: /var/log
// is often a file system of its own. From a root on down, nothing is: a bind mount
// of the same file system has the same device number, so that no comparison of
// those would tell (which is why os.RemoveAll deletes through one).
const (
	onTheWay = unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS
	below    = onTheWay | unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV

	openFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
)

// openBelow opens a folder for reading, below another and on the same mount.
func openBelow(k kernel, dir int, name string) (int, error) {
	return k.openat2(dir, name, below)
}

// errNoOpenat2 is why nothing is deleted on an old kernel, or behind a filter of
// system calls that does not know openat2.
var errNoOpenat2 = errors.New("this kernel has no openat2 (Linux 5.6), or a filter of system calls forbids it: without it, a folder cannot be deleted safely")

// probe asks whether the kernel can do what safety needs.
func probe(k kernel) error {
	fd, err := k.openat2(unix.AT_FDCWD, "/", onTheWay)
	if err != nil {
		return fmt.Errorf("%w: %w", errNoOpenat2, err)
	}
	defer k.close(fd)
	st, err := k.statx(fd, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("ask for the state of /: %w", err)
	}
	// Linux 5.8; with openat2 alone, mounts on files would not be seen.
	if st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT == 0 {
		return errors.New("this kernel does not tell mount points (Linux 5.8): without that, a folder cannot be deleted safely")
	}
	return nil
}

// node identifies a file or folder of this machine.
type node struct{ dev, ino uint64 }

func nodeOf(st *unix.Statx_t) node {
	return node{unix.Mkdev(st.Dev_major, st.Dev_minor), st.Ino}
}

func nanos(t unix.StatxTimestamp) int64 { return t.Sec*1e9 + int64(t.Nsec) }

// changed is when a file was last written to, in nanoseconds since 1970: the time
// of its content, unless that was set to later than it can have been.
func changed(st *unix.Statx_t) int64 { return min(nanos(st.Mtime), nanos(st.Ctime)) }

// wanted is what is asked of each file.
const wanted = unix.STATX_TYPE | unix.STATX_MODE | unix.STATX_NLINK | unix.STATX_MTIME | unix.STATX_CTIME | unix.STATX_INO | unix.STATX_BLOCKS | unix.STATX_SIZE

const statFlags = unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT

// entry is one name in a folder. The name is valid until the next one is read.
type entry struct {
	name []byte
	ino  uint64
	kind uint8 // DT_DIR and its like; DT_UNKNOWN where the file system does not say
}

// direntHead is the size of linux_dirent64 before its name (getdents(2)).
const direntHead = 19

// entries calls each with what getdents has put into buf, but for "." and "..",
// until it returns an error.
func entries(buf []byte, each func(entry) error) error {
	for len(buf) >= direntHead {
		size := int(uint16(buf[16]) | uint16(buf[17])<<8)
		if size < direntHead || size > len(buf) {
			return unix.EIO
		}
		e := entry{kind: buf[18]}
		for i := range 8 {
			e.ino |= uint64(buf[i]) << (8 * i)
		}
		e.name = buf[direntHead:size]
		for i, c := range e.name {
			if c == 0 {
				e.name = e.name[:i]
				break
			}
		}
		buf = buf[size:]
		if string(e.name) == "." || string(e.name) == ".." {
			continue
		}
		if err := each(e); err != nil {
			return err
		}
	}
	return nil
}

// readAll calls each with every name in an open folder.
func readAll(k kernel, dir int, buf []byte, each func(entry) error) error {
	for {
		n, err := k.getdents(dir, buf)
		if err != nil {
			return err
		}
		if n <= 0 {
			return nil
		}
		if err := entries(buf[:n], each); err != nil {
			return err
		}
	}
}
