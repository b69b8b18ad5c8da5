package logprune

import (
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// watcher tells when a folder appears on the way to a root: that of a new service,
// mostly. It watches a bounded number of folders; the scan finds the rest. Its
// methods are called from one goroutine, but C may be received from by another.
type watcher struct {
	file    *os.File // nil where the kernel refuses one
	fd      int
	max     int
	watched map[string]int // path to watch descriptor
	C       chan struct{}  // capacity 1
	reading sync.WaitGroup
}

// watchMask is what may make a new root, and the end of what is watched.
const watchMask = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_ONLYDIR | unix.IN_DONT_FOLLOW | unix.IN_EXCL_UNLINK

// newWatcher returns a watcher. One that the kernel refuses (it bounds them for
// each user) watches nothing, and says why.
func newWatcher(limit int) (*watcher, error) {
	w := &watcher{fd: -1, max: limit, watched: make(map[string]int), C: make(chan struct{}, 1)}
	if limit == 0 {
		return w, nil
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return w, os.NewSyscallError("inotify_init1", err)
	}
	w.fd, w.file = fd, os.NewFile(uintptr(fd), "inotify")
	w.reading.Go(w.read)
	return w, nil
}

// read passes on that something happened. What it was, the next scan sees.
func (w *watcher) read() {
	buf := make([]byte, 16<<10)
	for {
		n, err := w.file.Read(buf)
		if err != nil {
			return
		}
		if !worthwhile(buf[:n]) {
			continue
		}
		select {
		case w.C <- struct{}{}:
		default:
		}
	}
}

// worthwhile reports whether there is an event about a folder, or about the watch
// itself, in what inotify has said (inotify(7)).
func worthwhile(buf []byte) bool {
	for len(buf) >= unix.SizeofInotifyEvent {
		mask := uint32(buf[4]) | uint32(buf[5])<<8 | uint32(buf[6])<<16 | uint32(buf[7])<<24
		size := uint32(buf[12]) | uint32(buf[13])<<8 | uint32(buf[14])<<16 | uint32(buf[15])<<24
		if mask&(unix.IN_ISDIR|unix.IN_Q_OVERFLOW) != 0 {
			return true
		}
		if uint64(len(buf)) < unix.SizeofInotifyEvent+uint64(size) {
			return true // never so; look rather than miss one
		}
		buf = buf[unix.SizeofInotifyEvent+size:]
	}
	return false
}

// set makes these the folders that are watched, as far as the bounds allow. It
// returns how many are not, and why the first of them is not where the kernel
// refused.
func (w *watcher) set(dirs []string) (left int, err error) {
	if w.file == nil {
		return len(dirs), nil
	}
	want := make(map[string]bool, min(len(dirs), w.max))
	for _, dir := range dirs {
		if want[dir] {
			continue
		}
		if len(want) >= w.max {
			left++
			continue
		}
		want[dir] = true
		// Adding one that is there is how a folder that was made anew is found.
		wd, e := unix.InotifyAddWatch(w.fd, dir, watchMask)
		if e != nil {
			if !errors.Is(e, unix.ENOENT) {
				left++
				err = errors.Join(err, os.NewSyscallError("inotify_add_watch", e))
			}
			continue
		}
		w.watched[dir] = wd
	}
	inUse := make(map[int]bool, len(w.watched))
	for dir, wd := range w.watched {
		if want[dir] {
			inUse[wd] = true
		}
	}
	for dir, wd := range w.watched {
		if !want[dir] {
			if !inUse[wd] {
				_, _ = unix.InotifyRmWatch(w.fd, uint32(wd))
			}
			delete(w.watched, dir)
		}
	}
	return left, err
}

func (w *watcher) close() {
	if w.file != nil {
		_ = w.file.Close()
	}
	w.reading.Wait()
}
