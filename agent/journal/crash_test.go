package journal

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// seedOf returns BERTH_SEED or a new seed, and has it printed on failure.
func seedOf(t *testing.T) uint64 {
	seed := rand.Uint64()
	if s := os.Getenv("BERTH_SEED"); s != "" {
		var err error
		seed, err = strconv.ParseUint(s, 10, 64)
		must(t, err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("replay with BERTH_SEED=%d", seed)
		}
	})
	return seed
}

// memDisk is a disk that loses what was not synced, and fails on demand. It is
// as unkind as file systems are allowed to be: after a crash, the files and the
// directory are each as at the last sync, or anything between that and now; and
// what a failed sync did not write is never written, though the next sync is
// called a success.
type memDisk struct {
	rnd  *rand.Rand
	live map[string]*inode
	safe map[string]*inode // the directory as last synced

	ops   int           // changes so far
	fail  map[int]error // by the number of the change
	space int           // bytes that may still be written; negative: no limit
	dead  bool          // crashed: everything fails from now on
	limit int           // crash at this change; 0: never
}

type inode struct {
	data, safe []byte
	lost       bool // a sync failed
}

var errCrash = errors.New("crashed")

func newMemDisk(rnd *rand.Rand) *memDisk {
	return &memDisk{rnd: rnd, live: map[string]*inode{}, safe: map[string]*inode{}, fail: map[int]error{}, space: -1}
}

// change counts one change, and returns the error that it is to have.
func (d *memDisk) change() error {
	d.ops++
	if d.dead || d.ops == d.limit {
		d.dead = true
		return errCrash
	}
	return d.fail[d.ops]
}

// crash returns the disk as the next start finds it.
func (d *memDisk) crash() *memDisk {
	n := newMemDisk(d.rnd)
	dir := d.safe
	if d.rnd.IntN(2) == 0 {
		dir = d.live
	}
	for name, f := range dir {
		data := slices.Clone(f.safe)
		if !f.lost {
			switch d.rnd.IntN(3) {
			case 0: // all of it was written
				data = slices.Clone(f.data)
			case 1: // some of what was appended was
				if len(f.data) > len(f.safe) && slices.Equal(f.data[:len(f.safe)], f.safe) {
					data = slices.Clone(f.data[:len(f.safe)+d.rnd.IntN(len(f.data)-len(f.safe))])
				}
			}
		}
		n.live[name] = &inode{data: data, safe: slices.Clone(data)}
	}
	n.safe = maps.Clone(n.live)
	return n
}

func (d *memDisk) lock(string) (io.Closer, error) { return io.NopCloser(nil), nil }

func (d *memDisk) open(path string) (file, error) {
	f := d.live[path]
	if f == nil {
		return nil, fs.ErrNotExist
	}
	return memFile{d, f}, nil
}

func (d *memDisk) create(path string) (file, error) {
	if err := d.change(); err != nil {
		return nil, err
	}
	if d.live[path] != nil {
		return nil, fs.ErrExist
	}
	f := &inode{}
	d.live[path] = f
	return memFile{d, f}, nil
}

func (d *memDisk) rename(from, to string) error {
	if err := d.change(); err != nil {
		return err
	}
	d.live[to] = d.live[from]
	delete(d.live, from)
	return nil
}

func (d *memDisk) link(from, to string) error {
	if err := d.change(); err != nil {
		return err
	}
	d.live[to] = d.live[from]
	return nil
}

func (d *memDisk) remove(path string) error {
	if d.live[path] == nil {
		return fs.ErrNotExist
	}
	if err := d.change(); err != nil {
		return err
	}
	delete(d.live, path)
	return nil
}

func (d *memDisk) list(string) ([]string, error) {
	return slices.Collect(maps.Keys(d.live)), nil
}

func (d *memDisk) syncDir(string) error {
	if err := d.change(); err != nil {
		return err
	}
	d.safe = maps.Clone(d.live)
	return nil
}

type memFile struct {
	disk *memDisk
	node *inode
}

func (f memFile) ReadAt(p []byte, off int64) (int, error) {
	n := copy(p, f.node.data[min(off, int64(len(f.node.data))):])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f memFile) WriteAt(p []byte, off int64) (int, error) {
	err := f.disk.change()
	n := len(p)
	if err != nil {
		n = f.disk.rnd.IntN(n + 1) // a short write
	} else if s := f.disk.space; s >= 0 && n > s {
		n, err = s, syscall.ENOSPC
	}
	if f.disk.space >= 0 {
		f.disk.space = max(0, f.disk.space-n)
	}
	data := f.node.data
	if grow := int(off) + n - len(data); grow > 0 {
		data = append(slices.Clone(data), make([]byte, grow)...)
	}
	copy(data[off:], p[:n])
	f.node.data = data
	return n, err
}

func (f memFile) Truncate(size int64) error {
	if err := f.disk.change(); err != nil {
		return err
	}
	f.node.data = slices.Clone(f.node.data[:size])
	return nil
}

func (f memFile) Sync() error {
	if err := f.disk.change(); err != nil {
		f.node.lost = true
		return err
	}
	if !f.node.lost {
		f.node.safe = slices.Clone(f.node.data)
	}
	return nil
}

func (f memFile) size() (int64, error) { return int64(len(f.node.data)), nil }
func (f memFile) Close() error         { return nil }

// owner is what uses a journal: its state is the list of numbers it appended.
type owner struct {
	journal *Journal
	state   []byte   // of acknowledged numbers, four bytes each
	maybe   [][]byte // what failed since the last acknowledgement, of which a crash may find some
	next    uint32
}

func encode(numbers ...uint32) (b []byte) {
	for _, n := range numbers {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	return b
}

// reopen opens the journal and checks that it holds what was acknowledged.
func (o *owner) reopen(d *memDisk) error {
	j, r, err := Open("state", Options{Owner: "test", State: func() []byte { return slices.Clone(o.state) }, LogBytes: 150, disk: d})
	if err != nil {
		return err
	}
	o.journal = j
	got := slices.Clone(r.Checkpoint)
	for _, e := range r.Entries {
		got = append(got, e...)
	}
	if r.SetAside != "" {
		return fmt.Errorf("set aside: %w", r.Reason)
	}
	rest, ok := strings.CutPrefix(string(got), string(o.state))
	if !ok {
		return fmt.Errorf("found % x, acknowledged % x", got, o.state)
	}
	if rest != "" && !slices.ContainsFunc(o.maybe, func(m []byte) bool { return strings.HasPrefix(string(m), rest) }) {
		return fmt.Errorf("found % x more than acknowledged; only one of % x could be there", rest, o.maybe)
	}
	o.state, o.maybe = got, nil
	return nil
}

// work makes one change, and reports the error that the owner saw.
func (o *owner) work(rnd *rand.Rand) error {
	if rnd.IntN(10) == 0 {
		return o.journal.Checkpoint(slices.Clone(o.state))
	}
	var entries [][]byte
	for range 1 + rnd.IntN(3) {
		o.next++
		entries = append(entries, encode(o.next))
	}
	err := o.journal.Append(entries...)
	if err != nil {
		o.maybe = append(o.maybe, slices.Concat(entries...))
		return err
	}
	o.state, o.maybe = append(o.state, slices.Concat(entries...)...), nil
	return nil
}

// TestCrashAndFaults runs an owner on a failing disk through crash after crash.
func TestCrashAndFaults(t *testing.T) {
	seed := seedOf(t)
	for run := range 2000 {
		rnd := rand.New(rand.NewPCG(seed, uint64(run)))
		disk := newMemDisk(rnd)
		var o owner
		for round := range 4 {
			disk.limit = disk.ops + 1 + rnd.IntN(120)
			for range rnd.IntN(8) {
				disk.fail[disk.ops+rnd.IntN(120)] = []error{syscall.ENOSPC, syscall.EIO, syscall.EROFS}[rnd.IntN(3)]
			}
			if err := o.reopen(disk); err != nil && !errors.Is(err, errCrash) {
				t.Fatalf("run %d, round %d: %v", run, round, err)
			}
			for !disk.dead {
				if err := o.work(rnd); err != nil && !errors.Is(err, syscall.ENOSPC) &&
					!errors.Is(err, syscall.EIO) && !errors.Is(err, syscall.EROFS) && !errors.Is(err, errCrash) && !errors.Is(err, fs.ErrExist) {
					t.Fatalf("run %d, round %d: %v", run, round, err)
				}
			}
			disk = disk.crash()
		}
		if err := o.reopen(disk); err != nil {
			t.Fatalf("run %d: %v", run, err)
		}
	}
}

// TestDiskFullAtEveryByte fills the disk at each byte of a run, then makes room.
func TestDiskFullAtEveryByte(t *testing.T) {
	seed := seedOf(t)
	for space := range 700 {
		rnd := rand.New(rand.NewPCG(seed, 0)) // the same work each time
		disk := newMemDisk(rand.New(rand.NewPCG(seed, uint64(space))))
		disk.space = space
		var o owner
		must(t, o.reopen(disk))
		failures := 0
		for range 25 {
			if err := o.work(rnd); err != nil {
				if !errors.Is(err, syscall.ENOSPC) {
					t.Fatalf("space %d: %v, want ENOSPC", space, err)
				}
				failures++
			}
		}
		if failures == 0 && space < 300 {
			t.Fatalf("space %d: nothing failed", space)
		}
		disk.space = -1
		for range 5 {
			if err := o.work(rnd); err != nil {
				t.Fatalf("space %d: there is room again, but %v", space, err)
			}
		}
		if err := o.reopen(disk.crash()); err != nil {
			t.Fatalf("space %d: %v", space, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	good := appendFrame(appendFrame(encodeHeader(header{"test", ""}), []byte("checkpoint")), []byte("entry"))
	f.Add(good)
	f.Add(append(slices.Clone(good), 1, 0, 0, 0, 0, 0, 0, 0, 0, 1))
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, data []byte) {
		disk := newMemDisk(nil)
		disk.live["state"] = &inode{data: data}
		before, after := Replay{}, Replay{}
		for _, r := range []*Replay{&before, &after} {
			j, replay, err := Open("state", Options{Owner: "test", disk: disk})
			must(t, err)
			must(t, j.Append([]byte("more")))
			*r = replay
		}
		if text(after) != text(before)+"|more" || after.Cut != 0 || after.SetAside != "" {
			t.Errorf("first %+v, then %+v", before, after)
		}
	})
}

const killChild = "BERTH_JOURNAL_KILL_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(killChild); path != "" {
		if err := killMe(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// recount returns how many numbers a replay holds, if they are 1, 2, 3… without
// gap or repeat: the checkpoint holds how many there were.
func recount(r Replay) (uint64, error) {
	var n uint64
	if r.Checkpoint != nil {
		n = binary.BigEndian.Uint64(r.Checkpoint)
	}
	for _, e := range r.Entries {
		if got := binary.BigEndian.Uint64(e); got != n+1 {
			return n, fmt.Errorf("entry %d follows %d", got, n)
		}
		n++
	}
	return n, nil
}

// killMe is the child: it appends number after number for ever, and prints each
// when it is durable.
func killMe(path string) error {
	var n uint64
	number := func() []byte { return binary.BigEndian.AppendUint64(nil, n) }
	j, r, err := Open(path, Options{Owner: "kill", State: number, LogBytes: 300})
	if err != nil {
		return err
	}
	if n, err = recount(r); err != nil {
		return err
	}
	for {
		next := binary.BigEndian.AppendUint64(nil, n+1)
		if err := j.Append(next); err != nil {
			return err
		}
		n++
		if _, err := fmt.Println(n); err != nil {
			return err
		}
		if n%7 == 0 {
			if err := j.Checkpoint(number()); err != nil {
				return err
			}
		}
	}
}

// TestKill kills a process that uses a journal, BERTH_KILLS times (100).
func TestKill(t *testing.T) {
	kills := 100
	if s := os.Getenv("BERTH_KILLS"); s != "" {
		var err error
		kills, err = strconv.Atoi(s)
		must(t, err)
	}
	rnd := rand.New(rand.NewPCG(seedOf(t), 0))
	path := filepath.Join(t.TempDir(), "state")
	cut := 0
	for kill := range kills {
		acknowledged := runAndKill(t, path, rnd)
		j, r, err := Open(path, Options{Owner: "kill"})
		must(t, err)
		got, err := recount(r)
		if err != nil || got < acknowledged || got > acknowledged+1 || r.SetAside != "" {
			t.Fatalf("kill %d: %d numbers, %v (%d acknowledged, set aside %q)", kill, got, err, acknowledged, r.SetAside)
		}
		if r.Cut > 0 {
			cut++
		}
		must(t, j.Close())
	}
	t.Logf("%d kills, %d torn tails", kills, cut)
}

// runAndKill starts the child, kills it at some moment after some numbers, and
// returns the last number that it printed.
func runAndKill(t *testing.T, path string, rnd *rand.Rand) uint64 {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), killChild+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	lines := bufio.NewScanner(out)
	last := ""
	for range 1 + rnd.IntN(15) {
		if !lines.Scan() {
			t.Fatalf("the child ended by itself: %v", cmd.Wait())
		}
		last = lines.Text()
	}
	delay := time.NewTimer(time.Duration(rnd.IntN(1500)) * time.Microsecond)
	<-delay.C // any moment of the next append or checkpoint will do
	must(t, cmd.Process.Kill())
	for lines.Scan() {
		last = lines.Text()
	}
	_ = cmd.Wait() // killed
	n, err := strconv.ParseUint(last, 10, 64)
	must(t, err)
	return n
}
