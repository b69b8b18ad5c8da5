// Package journal keeps small state on disk so that it survives everything: a
// crash at any instruction, a power cut in the middle of a write, a full disk,
// a damaged file, and a disk image that was made on another host.
//
// # Use
//
// State is a checkpoint, and the entries that were appended since it. Both are
// opaque bytes that belong to the owner:
//
//	j, replay, err := journal.Open(path, journal.Options{Owner: "route53", Host: node.ID, State: s.encode})
//	s.restore(replay.Checkpoint)
//	for _, entry := range replay.Entries {
//		s.apply(entry)
//	}
//	…
//	err = j.Append(intent) // durable when it returns nil: now act
//	s.apply(intent)
//
// An owner that always writes all of its state needs [Journal.Checkpoint] only.
//
// # What holds
//
//   - When Append or Checkpoint has returned nil, its bytes are there after any
//     crash, in order, once.
//   - When it has returned an error, they are not there for this process, and a
//     crash may or may not find them: entries must be safe to apply again.
//     Whatever half of them was written is removed before anything else is, so
//     the owner may simply try again later. Disk full and read-only file systems
//     come as errors which wrap ENOSPC and EROFS, for a health condition.
//   - Open fails only when the journal is locked by someone else or the disk
//     refuses. Whatever the file holds, Open finds the sound part of it.
//
// # What happens to unusable state
//
// A torn tail, the rest of an append that a crash interrupted, is cut and
// counted. A file that is damaged, of another format, of another owner or of
// another host is set aside as "….corrupt-<n>", of which the newest three are
// kept; what was sound in front of the damage stays in use, because knowing less
// than all is better than knowing nothing.
//
// # How
//
// A checkpoint writes a new file, syncs it, renames it over the old one and
// syncs the directory. An append writes to the end of the file and syncs it. If
// that sync fails, the kernel may have dropped what it could not write and call
// the next sync a success; the file is not trusted again but written anew before
// the next append. The log is bounded: when it outgrows the checkpoint, Append
// first makes a new checkpoint from Options.State.
package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
)

// MaxEntry is the largest entry and the largest checkpoint in bytes. State that
// does not fit is not small, and belongs elsewhere.
const MaxEntry = 16 << 20

const (
	defaultLog = 64 << 10 // Options.LogBytes
	logRatio   = 4        // the log may be this much larger than the checkpoint
	hardRatio  = 16       // and this much larger than that, while no checkpoint succeeds
	maxFile    = 256 << 20
	maxAside   = 3 // files set aside that are kept
)

// Errors that owners may want to tell apart with errors.Is.
var (
	// ErrLocked means that another process, or another Journal of this one, has
	// the journal open.
	ErrLocked = errors.New("in use by another process")
	// ErrFull means that the log is at its bound and no checkpoint could be made.
	ErrFull = errors.New("journal is full")
	// ErrTooLarge means that an entry or checkpoint is larger than MaxEntry.
	ErrTooLarge = errors.New("larger than the journal's limit")
	// ErrOtherOwner means that a file was set aside because another component
	// wrote it.
	ErrOtherOwner = errors.New("state of another owner")
	// ErrOtherHost means that a file was set aside because another host wrote it.
	ErrOtherHost = errors.New("state of another instance")
)

// Options say whose state a journal holds.
type Options struct {
	// Owner names the component. A file of another one is set aside.
	Owner string
	// Host is the identity of this host, or empty while it is not known. A file
	// of a positively different host is set aside; see Journal.Claim.
	Host string
	// State returns everything that the checkpoint and all entries so far amount
	// to, for an automatic checkpoint. Append calls it, on its own goroutine and
	// before it writes its entry; it must not use the journal. An owner that
	// has none calls Checkpoint often enough, or sees ErrFull.
	State func() []byte
	// LogBytes is how large the entries may grow before an automatic checkpoint,
	// if that is more than four times the checkpoint. The default is 64 KiB.
	LogBytes int64

	disk disk
}

// Replay is what Open found.
type Replay struct {
	// Checkpoint is the state of the last checkpoint, nil when there is none.
	Checkpoint []byte
	// Entries are those appended since, oldest first.
	Entries [][]byte
	// Host is the identity of the host that wrote them; it may be empty.
	Host string

	// Cut is the size in bytes of the torn tail that was removed.
	Cut int64
	// SetAside is where an unusable file was moved to, and Reason why; it is
	// empty when the file was fine or there was none.
	SetAside string
	Reason   error
}

// Empty reports whether there is no state at all.
func (r Replay) Empty() bool { return r.Checkpoint == nil && len(r.Entries) == 0 }

// Journal is an open journal. Its methods may be called from several
// goroutines, except that with Options.State calls of Append must not overlap
// with changes of the state.
type Journal struct {
	path string
	opts Options
	disk disk

	mu     sync.Mutex
	lock   io.Closer // nil when closed
	header header
	file   file // nil while there is no file
	// body, base and end are offsets in file: the checkpoint's frame, the first
	// entry, and the end of the last durable entry.
	body, base, end int64
	limit           int64 // of the log's size, where the next automatic checkpoint is due
	// distrusted is set while file may not hold on disk what it holds in memory,
	// or may not be what a crash finds at path: it is written anew before use.
	distrusted bool
}

// Open opens the journal at path, whose directory must exist, or makes ready to
// create one with the first write. The journal is locked until Close.
func Open(path string, opts Options) (*Journal, Replay, error) {
	j := &Journal{path: path, opts: opts, disk: opts.disk, header: header{opts.Owner, opts.Host}}
	if j.disk == nil {
		j.disk = osDisk{}
	}
	if j.opts.LogBytes <= 0 {
		j.opts.LogBytes = defaultLog
	}
	var err error
	if j.lock, err = j.disk.lock(path + ".lock"); err != nil {
		return nil, Replay{}, fmt.Errorf("open journal %s: %w", path, err)
	}
	replay, err := j.load()
	if err != nil {
		j.Close()
		return nil, Replay{}, fmt.Errorf("open journal %s: %w", path, err)
	}
	j.setLimit()
	return j, replay, nil
}

// load reads the file, if there is one, and repairs it or sets it aside.
func (j *Journal) load() (Replay, error) {
	f, data, err := j.read()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Replay{}, nil
	case errors.Is(err, errForeign):
		aside, err2 := j.setAside(j.disk.rename)
		return Replay{SetAside: aside, Reason: err}, err2
	case err != nil:
		return Replay{}, err
	}
	d, damage := decode(data)
	if damage == nil || d.body > 0 {
		if d.header.Owner != j.opts.Owner {
			d, damage = decoded{}, fmt.Errorf("%w: %q, not %q", ErrOtherOwner, d.header.Owner, j.opts.Owner)
		} else if d.header.Host != "" && j.opts.Host != "" && d.header.Host != j.opts.Host {
			d, damage = decoded{}, fmt.Errorf("%w: %q, not %q", ErrOtherHost, d.header.Host, j.opts.Host)
		}
	}
	if d.body == 0 {
		f.Close()
		aside, err := j.setAside(j.disk.rename)
		return Replay{SetAside: aside, Reason: damage}, err
	}

	replay := Replay{Entries: d.entries, Host: d.header.Host}
	if len(d.checkpoint) > 0 {
		replay.Checkpoint = d.checkpoint
	}
	j.file, j.body, j.base, j.end = f, int64(d.body), int64(d.base), int64(d.end)
	j.header.Host = d.header.Host
	if j.opts.Host != "" && j.header.Host == "" {
		j.header.Host = j.opts.Host
		j.distrusted = true // so that the next write puts the name in
	}
	switch {
	case damage != nil:
		// The sound part goes on in a new file. If that cannot be written now, it
		// will be with the first append.
		j.distrusted = true
		if replay.SetAside, err = j.setAside(j.disk.link); err != nil {
			return Replay{}, err
		}
		replay.Reason = damage
		_ = j.renew()
	case d.torn:
		replay.Cut = int64(len(data) - d.end)
		j.cut()
	}
	return replay, nil
}

// read opens the file and returns what it holds.
func (j *Journal) read() (file, []byte, error) {
	f, err := j.disk.open(j.path)
	if err != nil {
		return nil, nil, err
	}
	size, err := f.size()
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	// Nothing that the journal wrote is as large; do not read a foreign file in.
	data := make([]byte, min(size, maxFile))
	n, err := f.ReadAt(data, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		f.Close()
		return nil, nil, err
	}
	return f, data[:n], nil
}

// Append adds entries at the end, and returns nil when all of them are durable.
// They share one sync; a crash meanwhile leaves the first few of them, or none.
func (j *Journal) Append(entries ...[]byte) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.append(entries); err != nil {
		return fmt.Errorf("append to journal %s: %w", j.path, err)
	}
	return nil
}

func (j *Journal) append(entries [][]byte) error {
	if j.lock == nil {
		return os.ErrClosed
	}
	var frames []byte
	for _, e := range entries {
		if len(e) > MaxEntry {
			return fmt.Errorf("%w: %d bytes", ErrTooLarge, len(e))
		}
		frames = appendFrame(frames, e)
	}
	if err := j.makeRoom(int64(len(frames))); err != nil {
		return err
	}
	if j.file == nil || j.distrusted {
		if err := j.renew(); err != nil {
			return err
		}
	}
	if _, err := j.file.WriteAt(frames, j.end); err != nil {
		j.cut()
		return err
	}
	if err := j.file.Sync(); err != nil {
		j.cut()
		j.distrusted = true
		return err
	}
	j.end += int64(len(frames))
	return nil
}

// makeRoom makes the automatic checkpoint when n more bytes of entries are too
// many. A checkpoint that fails does not fail the append before the log reaches
// its last bound: a full disk may still have room for a few bytes.
func (j *Journal) makeRoom(n int64) error {
	log := j.end - j.base + n
	if log <= j.limit || j.end == j.base {
		return nil
	}
	var err error
	if j.opts.State != nil {
		if err = j.checkpoint(j.opts.State()); err == nil {
			return nil
		}
	}
	hard := hardRatio * j.softLimit()
	if log > hard {
		return errors.Join(ErrFull, err)
	}
	j.limit = min(log+j.softLimit(), hard) // ask again later, not with every entry
	return nil
}

func (j *Journal) softLimit() int64 {
	return max(j.opts.LogBytes, logRatio*(j.base-j.body))
}

func (j *Journal) setLimit() { j.limit = j.softLimit() }

// cut removes what lies behind the last durable entry. It runs at once, because
// on a full disk it makes room.
func (j *Journal) cut() {
	if err := j.file.Truncate(j.end); err != nil {
		j.distrusted = true
	}
}

// Checkpoint replaces the checkpoint and all entries by state, atomically, and
// returns nil when that is durable. An empty state is as good as none. After an
// error the next start may find either the old state or the new one.
func (j *Journal) Checkpoint(state []byte) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.checkpoint(state); err != nil {
		return fmt.Errorf("checkpoint journal %s: %w", j.path, err)
	}
	return nil
}

func (j *Journal) checkpoint(state []byte) error {
	if j.lock == nil {
		return os.ErrClosed
	}
	if len(state) > MaxEntry {
		return fmt.Errorf("%w: %d bytes", ErrTooLarge, len(state))
	}
	frame := appendFrame(nil, state)
	if err := j.replace(frame, len(frame)); err != nil {
		return err
	}
	j.setLimit()
	return nil
}

// Host returns the identity of the host whose state this is, or "" if nobody has
// said yet.
func (j *Journal) Host() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.header.Host
}

// Claim says that this host is host, once that is known for certain. State which
// another host is known to have written is set aside: then kept is false, the
// journal is empty, and the owner forgets what it replayed. An empty host claims
// nothing. After an error call it again.
func (j *Journal) Claim(host string) (kept bool, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.lock == nil {
		return true, fmt.Errorf("claim journal %s: %w", j.path, os.ErrClosed)
	}
	was := j.header.Host
	switch {
	case host == "" || host == was && !j.distrusted:
		return true, nil
	case was != "" && was != host:
		if j.file != nil {
			if _, err := j.setAside(j.disk.rename); err != nil {
				return true, fmt.Errorf("claim journal %s: %w", j.path, err)
			}
			j.file.Close()
		}
		j.file, j.body, j.base, j.end, j.distrusted = nil, 0, 0, 0, false
		j.header.Host = host
		j.setLimit()
		return false, nil
	}
	j.header.Host = host
	if j.file == nil {
		return true, nil
	}
	j.distrusted = true
	if err := j.renew(); err != nil {
		return true, fmt.Errorf("claim journal %s: %w", j.path, err)
	}
	return true, nil
}

// Close unlocks the journal. There is nothing left to write.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.lock == nil {
		return nil
	}
	var err error
	if j.file != nil {
		err = j.file.Close()
	}
	err = errors.Join(err, j.lock.Close())
	j.file, j.lock = nil, nil
	return err
}
