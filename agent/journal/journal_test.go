package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func open(t *testing.T, path string, opts Options) (*Journal, Replay) {
	t.Helper()
	if opts.Owner == "" {
		opts.Owner = "test"
	}
	j, r, err := Open(path, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j, r
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// text is what a replay holds, readable.
func text(r Replay) string {
	parts := []string{string(r.Checkpoint)}
	for _, e := range r.Entries {
		parts = append(parts, string(e))
	}
	return strings.Join(parts, "|")
}

func wantText(t *testing.T, r Replay, want string) {
	t.Helper()
	if got := text(r); got != want {
		t.Errorf("replay = %q, want %q (%+v)", got, want, r)
	}
}

func TestAppendCheckpointReplay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	j, r := open(t, path, Options{})
	if !r.Empty() {
		t.Errorf("a new journal has state: %+v", r)
	}
	must(t, j.Append([]byte("a")))
	must(t, j.Append([]byte("b"), []byte(""), []byte("c")))
	must(t, j.Close())

	j, r = open(t, path, Options{})
	wantText(t, r, "|a|b||c")
	must(t, j.Checkpoint([]byte("abc")))
	must(t, j.Append([]byte("d")))
	must(t, j.Close())

	j, r = open(t, path, Options{})
	wantText(t, r, "abc|d")
	must(t, j.Checkpoint(nil))
	must(t, j.Close())

	_, r = open(t, path, Options{})
	if !r.Empty() {
		t.Errorf("an empty checkpoint left state: %+v", r)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode = %v, %v, want 0600", info.Mode(), err)
	}
}

func TestClosed(t *testing.T) {
	j, _ := open(t, filepath.Join(t.TempDir(), "state"), Options{})
	must(t, j.Close())
	must(t, j.Close())
	if err := j.Append([]byte("x")); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Append = %v, want ErrClosed", err)
	}
	if err := j.Checkpoint(nil); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Checkpoint = %v, want ErrClosed", err)
	}
	if _, err := j.Claim("x"); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Claim = %v, want ErrClosed", err)
	}
}

func TestLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	j, _ := open(t, path, Options{})
	_, _, err := Open(path, Options{Owner: "test"})
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), path) {
		t.Errorf("second Open = %v, want ErrLocked that names the path", err)
	}
	must(t, j.Checkpoint([]byte("x"))) // replaces the file, not the lock
	if _, _, err := Open(path, Options{Owner: "test"}); !errors.Is(err, ErrLocked) {
		t.Errorf("Open after a checkpoint = %v, want ErrLocked", err)
	}
	must(t, j.Close())
	open(t, path, Options{})
}

func TestTornTailIsCutAtEveryByte(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state")
	j, _ := open(t, path, Options{})
	must(t, j.Append([]byte("first")))
	whole, err := os.ReadFile(path)
	must(t, err)
	must(t, j.Append([]byte("second")))
	longer, err := os.ReadFile(path)
	must(t, err)
	must(t, j.Close())

	tails := [][]byte{make([]byte, 3), make([]byte, 4096)} // holes
	for n := len(whole) + 1; n < len(longer); n++ {
		tails = append(tails, longer[len(whole):n])
	}
	half := slices.Clone(longer[len(whole):]) // the size is there, the data is not
	clear(half[frameExtra:])
	tails = append(tails, half)
	for i, tail := range tails {
		must(t, os.WriteFile(path, append(slices.Clone(whole), tail...), 0o600))
		j, r := open(t, path, Options{})
		wantText(t, r, "|first")
		if r.Cut != int64(len(tail)) || r.SetAside != "" {
			t.Errorf("tail %d: cut %d, set aside %q, want %d and nothing", i, r.Cut, r.SetAside, len(tail))
		}
		must(t, j.Append([]byte("2")))
		must(t, j.Close())
		j, r = open(t, path, Options{})
		wantText(t, r, "|first|2")
		if r.Cut != 0 {
			t.Errorf("tail %d: cut again: %d", i, r.Cut)
		}
		must(t, j.Close())
	}
}

func TestDamageKeepsTheSoundPart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	j, _ := open(t, path, Options{})
	must(t, j.Checkpoint([]byte("base")))
	must(t, j.Append([]byte("one"), []byte("two"), []byte("three")))
	must(t, j.Close())
	data, err := os.ReadFile(path)
	must(t, err)
	data[strings.Index(string(data), "two")] ^= 1
	must(t, os.WriteFile(path, data, 0o600))

	j, r := open(t, path, Options{})
	wantText(t, r, "base|one")
	if r.SetAside != path+".corrupt-1" || r.Reason == nil {
		t.Errorf("set aside %q because %v, want %q", r.SetAside, r.Reason, path+".corrupt-1")
	}
	if aside, err := os.ReadFile(r.SetAside); err != nil || !slices.Equal(aside, data) {
		t.Errorf("what was set aside differs from the damaged file: %v", err)
	}
	must(t, j.Append([]byte("zwei")))
	must(t, j.Close())
	_, r = open(t, path, Options{})
	wantText(t, r, "base|one|zwei")
	if r.SetAside != "" {
		t.Errorf("set aside again: %v", r.Reason)
	}
}

func TestForeignStateIsSetAside(t *testing.T) {
	other := filepath.Join(t.TempDir(), "other")
	j, _ := open(t, other, Options{Owner: "other"})
	must(t, j.Append([]byte("x")))
	must(t, j.Close())
	otherOwner, err := os.ReadFile(other)
	must(t, err)

	for name, tc := range map[string]struct {
		plant  func(path string) error
		reason error
	}{
		"empty":     {func(p string) error { return os.WriteFile(p, nil, 0o600) }, errForeign},
		"text":      {func(p string) error { return os.WriteFile(p, []byte("hello, world, hello\n"), 0o600) }, errForeign},
		"newer":     {func(p string) error { return os.WriteFile(p, []byte("berth journal 2\n\x01"), 0o600) }, errForeign},
		"header":    {func(p string) error { return os.WriteFile(p, otherOwner[:20], 0o600) }, errChecksum},
		"owner":     {func(p string) error { return os.WriteFile(p, otherOwner, 0o600) }, ErrOtherOwner},
		"directory": {func(p string) error { return os.Mkdir(p, 0o700) }, errForeign},
		"symlink":   {func(p string) error { return os.Symlink(other, p) }, errForeign},
		"fifo":      {func(p string) error { return syscall.Mkfifo(p, 0o600) }, errForeign},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "state")
			for n := 1; n <= 5; n++ {
				must(t, tc.plant(path))
				j, r := open(t, path, Options{})
				if !r.Empty() || !errors.Is(r.Reason, tc.reason) {
					t.Errorf("replay = %+v, want none because %v", r, tc.reason)
				}
				if want := fmt.Sprint(path, ".corrupt-", n); r.SetAside != want {
					t.Errorf("set aside as %q, want %q", r.SetAside, want)
				}
				must(t, j.Append([]byte("mine")))
				must(t, j.Close())
				j, r = open(t, path, Options{})
				wantText(t, r, "|mine")
				must(t, j.Close())
				must(t, os.Remove(path))
			}
			kept, err := filepath.Glob(path + ".corrupt-*")
			must(t, err)
			want := []string{path + ".corrupt-3", path + ".corrupt-4", path + ".corrupt-5"}
			if diff := cmp.Diff(want, kept); diff != "" {
				t.Errorf("kept (-want +got):\n%s", diff)
			}
		})
	}
}

func TestStateBelongsToOneHost(t *testing.T) {
	dir := t.TempDir()
	made := func(name, host string) string {
		path := filepath.Join(dir, name)
		j, _ := open(t, path, Options{Host: host})
		must(t, j.Append([]byte("x")))
		must(t, j.Close())
		return path
	}
	for _, tc := range []struct {
		was, is  string
		want     string
		wantHost string
	}{
		{"", "", "|x", ""},
		{"", "i-1", "|x", "i-1"},
		{"i-1", "", "|x", "i-1"},
		{"i-1", "i-1", "|x", "i-1"},
		{"i-1", "i-2", "", "i-2"},
	} {
		t.Run("open "+tc.was+"→"+tc.is, func(t *testing.T) {
			path := made(t.Name()[len("TestStateBelongsToOneHost/"):], tc.was)
			j, r := open(t, path, Options{Host: tc.is})
			wantText(t, r, tc.want)
			if foreign := errors.Is(r.Reason, ErrOtherHost); foreign != (tc.want == "") {
				t.Errorf("reason = %v", r.Reason)
			}
			if got := j.Host(); got != tc.wantHost {
				t.Errorf("host = %q, want %q", got, tc.wantHost)
			}
			must(t, j.Append([]byte("y"))) // writes the name, too
			must(t, j.Close())
			_, r = open(t, path, Options{})
			wantText(t, r, tc.want+"|y")
			if r.Host != tc.wantHost {
				t.Errorf("written host = %q, want %q", r.Host, tc.wantHost)
			}
		})
		t.Run("claim "+tc.was+"→"+tc.is, func(t *testing.T) {
			path := made(t.Name()[len("TestStateBelongsToOneHost/"):], tc.was)
			j, _ := open(t, path, Options{})
			kept, err := j.Claim(tc.is)
			if err != nil || kept != (tc.want != "") {
				t.Errorf("Claim = %v, %v, want %v", kept, err, tc.want != "")
			}
			must(t, j.Append([]byte("y")))
			must(t, j.Close())
			_, r := open(t, path, Options{})
			wantText(t, r, tc.want+"|y")
			if r.Host != tc.wantHost {
				t.Errorf("written host = %q, want %q", r.Host, tc.wantHost)
			}
		})
	}
}

func TestAutomaticCheckpointBoundsTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	var state []byte
	j, _ := open(t, path, Options{LogBytes: 1000, State: func() []byte { return state }})
	var largest int64
	for i := range 2000 {
		e := []byte{byte('a' + i%26)}
		must(t, j.Append(e))
		if state = append(state, e...); len(state) > 100 {
			state = state[1:]
		}
		info, err := os.Stat(path)
		must(t, err)
		largest = max(largest, info.Size())
	}
	if largest > 1300 {
		t.Errorf("the file grew to %d bytes, want ≤ 1300", largest)
	}
	must(t, j.Close())
	_, r := open(t, path, Options{})
	got := r.Checkpoint
	for _, e := range r.Entries {
		got = append(got, e...)
	}
	if got = got[max(0, len(got)-100):]; string(got) != string(state) {
		t.Errorf("state = %q, want %q", got, state)
	}
}

func TestFullWithoutState(t *testing.T) {
	j, _ := open(t, filepath.Join(t.TempDir(), "state"), Options{LogBytes: 100})
	entry := make([]byte, 92)
	n := 0
	var err error
	for ; err == nil && n < 1000; n++ {
		err = j.Append(entry)
	}
	if !errors.Is(err, ErrFull) || n != hardRatio+1 {
		t.Errorf("append %d = %v, want ErrFull at %d", n, err, hardRatio+1)
	}
	must(t, j.Checkpoint([]byte("x")))
	must(t, j.Append(entry))
	if err := j.Append(make([]byte, MaxEntry+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("append of too much = %v, want ErrTooLarge", err)
	}
}

func TestOpenWithoutDirectory(t *testing.T) {
	if _, _, err := Open(filepath.Join(t.TempDir(), "no", "state"), Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open = %v, want ErrNotExist", err)
	}
}

func FuzzOpen(f *testing.F) {
	good := appendFrame(appendFrame(encodeHeader(header{"test", ""}), []byte("checkpoint")), []byte("entry"))
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add(append(slices.Clone(good), 0, 0, 0, 0, 0, 0, 0, 0, 0))
	f.Add(append(slices.Clone(good), 1, 0, 0, 0, 0, 0, 0, 0, 0, 1))
	f.Add([]byte(magic))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "state")
		must(t, os.WriteFile(path, data, 0o600))
		j, before, err := Open(path, Options{Owner: "test"})
		must(t, err)
		must(t, j.Append([]byte("more")))
		must(t, j.Close())
		// Whatever was read is there again, and the new entry behind it.
		j, after, err := Open(path, Options{Owner: "test"})
		must(t, err)
		defer j.Close()
		if text(after) != text(before)+"|more" || after.Cut != 0 || after.SetAside != "" {
			t.Errorf("first %+v, then %+v", before, after)
		}
	})
}
