package journal

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// disk is what a journal asks of the file system. Tests put one in its place
// that fails, and one that forgets what was not synced.
type disk interface {
	lock(path string) (io.Closer, error)
	open(path string) (file, error)   // see osDisk.open
	create(path string) (file, error) // a new file
	rename(from, to string) error
	link(from, to string) error
	remove(path string) error
	list(dir string) ([]string, error)
	syncDir(dir string) error
}

type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	Sync() error
	size() (int64, error)
}

// osDisk is the real one.
type osDisk struct{}

type osFile struct{ *os.File }

func (f osFile) size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if !info.Mode().IsRegular() {
		return 0, fmt.Errorf("%w: not a regular file", errForeign)
	}
	return info.Size(), nil
}

// lock takes the exclusive lock on a file of its own, because a checkpoint
// replaces the journal's file. It ends with the process, however that ends.
func (osDisk) lock(path string) (io.Closer, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrLocked
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// open opens a file for reading and writing, or for reading alone on a read-only
// file system: then every write fails until the file is written anew. The error
// wraps fs.ErrNotExist, or errForeign for what is not a file.
func (osDisk) open(path string) (file, error) {
	// O_NONBLOCK: a FIFO in the journal's place is foreign, not a reason to hang.
	const flags = unix.O_NOFOLLOW | unix.O_NONBLOCK
	f, err := os.OpenFile(path, os.O_RDWR|flags, 0)
	if errors.Is(err, unix.EROFS) {
		f, err = os.OpenFile(path, os.O_RDONLY|flags, 0)
	}
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.ENXIO) {
		err = fmt.Errorf("%w: not a regular file", errForeign)
	}
	return wrap(f, err)
}

func (osDisk) create(path string) (file, error) {
	return wrap(os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600))
}

func wrap(f *os.File, err error) (file, error) {
	if err != nil {
		return nil, err // not a nil osFile in an interface
	}
	return osFile{f}, nil
}

func (osDisk) rename(from, to string) error { return os.Rename(from, to) }
func (osDisk) link(from, to string) error   { return os.Link(from, to) }
func (osDisk) remove(path string) error     { return os.Remove(path) }

func (osDisk) list(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

func (osDisk) syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
