package logprune

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/fsnotify/fsnotify"
)

func TestWatch(t *testing.T) {
	w, err := newWatcher(2)
	must(err)
	defer w.close()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"a", "b", "c"} {
		must(os.Mkdir(at(name), 0o755))
	}
	set := func(left int, names ...string) {
		t.Helper()
		var dirs []string
		for _, name := range names {
			dirs = append(dirs, at(name))
		}
		if got, err := w.set(dirs); got != left || err != nil {
			t.Fatalf("set %q: got %d left, %v; want %d", names, got, err, left)
		}
	}
	set(1, "a", "b", "c", "a")
	if n := len(w.kernel.WatchList()); n != 2 {
		t.Errorf("got %d watches, want as many as are allowed", n)
	}
	must(os.Mkdir(at("b/new"), 0o755))
	<-w.C
	set(0, "gone", "c") // a folder that is not there yet is no trouble
	must(os.Mkdir(at("c/new"), 0o755))
	<-w.C
	must(os.RemoveAll(at("c")))
	must(os.Mkdir(at("c"), 0o755))
	set(0, "c")
	must(os.Mkdir(at("tmp"), 0o755))
	must(os.Rename(at("tmp"), at("c/moved here")))
	<-w.C
	set(0)
	if all := w.kernel.WatchList(); len(all) != 0 {
		t.Errorf("got %q watched, want nothing", all)
	}
}

// What is written below /var/log all the time is no reason to look.
func TestWatchHeedsFoldersOnly(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "syslog")
	must(os.WriteFile(file, nil, 0o644))
	for _, c := range []struct {
		name string
		op   fsnotify.Op
		want bool
	}{
		{dir, fsnotify.Create, true},
		{dir, fsnotify.Chmod | fsnotify.Remove, false},
		{file, fsnotify.Create, false},
		{file, fsnotify.Write, false},
		{filepath.Join(dir, "gone"), fsnotify.Create, false},
	} {
		if got := worthwhile(fsnotify.Event{Name: c.name, Op: c.op}); got != c.want {
			t.Errorf("%v of %s: got %v, want %v", c.op, filepath.Base(c.name), got, c.want)
		}
	}
}
