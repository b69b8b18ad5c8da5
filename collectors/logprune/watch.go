package logprune

import (
	"errors"
	"io/fs"
	"os"
	"sync"

	"github.com/fsnotify/fsnotify"
)

// watcher tells when a folder appears on the way to a root: that of a new service,
// mostly. It watches a bounded number of folders; the scan finds the rest. Its
// methods are called from one goroutine, but C may be received from by another.
type watcher struct {
	kernel  *fsnotify.Watcher // nil where the kernel refuses one
	max     int
	C       chan struct{} // capacity 1
	reading sync.WaitGroup
}

// newWatcher returns a watcher. One that the kernel refuses (it bounds them for
// each user) watches nothing, and says why.
func newWatcher(limit int) (*watcher, error) {
	w := &watcher{max: limit, C: make(chan struct{}, 1)}
	if limit == 0 {
		return w, nil
	}
	var err error
	if w.kernel, err = fsnotify.NewWatcher(); err != nil {
		return w, err
	}
	w.reading.Go(w.read)
	return w, nil
}

// read passes on that something happened. What it was, the next scan sees.
func (w *watcher) read() {
	for {
		select {
		case event, ok := <-w.kernel.Events:
			if !ok {
				return
			}
			if !worthwhile(event) {
				continue
			}
		case _, ok := <-w.kernel.Errors: // that events were lost, mostly
			if !ok {
				return
			}
		}
		select {
		case w.C <- struct{}{}:
		default:
		}
	}
}

// worthwhile reports whether an event is about a new folder: files come and go, and
// are written to, all the time.
func worthwhile(event fsnotify.Event) bool {
	if !event.Has(fsnotify.Create) {
		return false
	}
	info, err := os.Lstat(event.Name)
	return err == nil && info.IsDir()
}

// set makes these the folders that are watched, as far as the bounds allow. It
// returns how many are not, and why those are not that the kernel refused.
func (w *watcher) set(dirs []string) (left int, err error) {
	if w.kernel == nil {
		return len(dirs), nil
	}
	want := make(map[string]bool, min(len(dirs), w.max))
	for _, dir := range dirs {
		switch {
		case want[dir]:
		case len(want) >= w.max:
			left++
		default:
			want[dir] = true
		}
	}
	for _, dir := range w.kernel.WatchList() {
		if !want[dir] {
			_ = w.kernel.Remove(dir) // it may have ended with the folder
		}
	}
	for dir := range want {
		// Adding one that is there is how a folder that was made anew is found.
		if e := w.kernel.Add(dir); e != nil && !errors.Is(e, fs.ErrNotExist) {
			left++
			err = errors.Join(err, &fs.PathError{Op: "watch", Path: dir, Err: e})
		}
	}
	return left, err
}

func (w *watcher) close() {
	if w.kernel != nil {
		_ = w.kernel.Close()
	}
	w.reading.Wait()
}
