package logprune

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berthd/berth/agent"
)

// engineMark tells one engine from another. The ID alone would not: an engine
// whose data was lost or is not mounted keeps it (it is in /etc/docker), and knows
// none of the containers that may still run.
type engineMark struct {
	ID   string `json:"id"`
	Root string `json:"root"` // its data root
	// Marks of the data root and of the folder of containers in it: device, inode,
	// and time of birth in nanoseconds, because inodes are used again.
	RootNode       [3]int64 `json:"root_node"`
	ContainersNode [3]int64 `json:"containers_node"`
}

// markEngine looks at the data root. A remote engine has none here.
func markEngine(id, root string) (engineMark, error) {
	m := engineMark{ID: id, Root: root}
	if id == "" {
		return m, fmt.Errorf("the engine has not said who it is")
	}
	var err error
	if m.RootNode, err = markFolder(root); err != nil {
		return m, fmt.Errorf("the data root of the engine, %s, cannot be looked at: %w", root, err)
	}
	// Podman's and other engines' roots may be without.
	if m.ContainersNode, err = markFolder(filepath.Join(root, "containers")); err != nil && !os.IsNotExist(err) {
		return m, fmt.Errorf("the data root of the engine, %s, cannot be looked at: %w", root, err)
	}
	return m, nil
}

func markFolder(dir string) (mark [3]int64, err error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, dir, 0, unix.STATX_INO|unix.STATX_BTIME, &st); err != nil {
		return mark, &os.PathError{Op: "statx", Path: dir, Err: syscall.Errno(err.(unix.Errno))}
	}
	n := nodeOf(&st)
	mark = [3]int64{int64(n.dev), int64(n.ino)}
	if st.Mask&unix.STATX_BTIME != 0 {
		mark[2] = nanos(st.Btime)
	}
	return mark, nil
}

// differs says in what a mark differs from the one that was accepted.
func (m engineMark) differs(accepted engineMark) error {
	switch {
	case m.ID != accepted.ID:
		return fmt.Errorf("another engine answers: its ID is %s, and was %s", m.ID, accepted.ID)
	case m.Root != accepted.Root:
		return fmt.Errorf("the engine has another data root: %s, and it was %s", m.Root, accepted.Root)
	case m.RootNode != accepted.RootNode:
		return fmt.Errorf("the data root of the engine, %s, is not the folder that it was: it was moved, made anew, or is not mounted", m.Root)
	case m.ContainersNode != accepted.ContainersNode:
		return fmt.Errorf("the containers in the data root of the engine, %s, are not those that were there: it was emptied or made anew", m.Root)
	}
	return nil
}

// seen is what is remembered of a container.
type seen struct {
	Name   string    `json:"name,omitempty"`
	Gone   time.Time `json:"gone,omitzero"` // zero while it exists
	Exempt bool      `json:"exempt,omitempty"`
}

// memory is what is known of containers beyond a snapshot: which ones there were,
// and when they went.
type memory struct {
	byID  map[string]*seen
	known map[containerID]*seen // the same, by either form of the ID
	dirty bool                  // it differs from what the journal has
}

// maxSeen bounds the memory. Who is forgotten first is who went first.
const maxSeen = 20_000

// forgetAfter is how long a container is remembered that has gone and has no
// folder.
const forgetAfter = 7 * 24 * time.Hour

func newMemory() *memory {
	return &memory{byID: make(map[string]*seen), known: make(map[containerID]*seen)}
}

func (m *memory) add(id string, s *seen) {
	m.byID[id] = s
	if full, ok := parseID(id); ok {
		m.known[full], m.known[full.shortened()] = s, s
	}
}

// learn takes over what a complete snapshot of the accepted engine says. It reports
// whether a container has gone.
func (m *memory) learn(snap *agent.Snapshot, exempt []string, now time.Time) (died bool) {
	exists := make(map[string]bool, len(snap.Containers)+len(snap.Unread))
	for _, c := range snap.Containers {
		exists[c.ID] = true
		s := m.byID[c.ID]
		e := exempted(c.Labels, exempt)
		if s == nil {
			s = new(seen)
			m.add(c.ID, s)
			m.dirty = true
		}
		if s.Name != c.Name || s.Exempt != e || !s.Gone.IsZero() {
			*s = seen{Name: c.Name, Exempt: e}
			m.dirty = true
		}
	}
	for _, id := range snap.Unread {
		exists[id] = true
	}
	removed := make(map[string]time.Time)
	for i := range snap.Dead {
		d := &snap.Dead[i]
		if d.RemovedAt.IsZero() {
			continue
		}
		removed[d.Container.ID] = d.RemovedAt
		// One that came and went between two snapshots of ours.
		if m.byID[d.Container.ID] == nil && !exists[d.Container.ID] {
			m.add(d.Container.ID, &seen{Name: d.Container.Name, Exempt: exempted(d.Container.Labels, exempt)})
		}
	}
	for id, s := range m.byID {
		if s.Gone.IsZero() && !exists[id] {
			s.Gone = now
			if at, ok := removed[id]; ok {
				s.Gone = at
			}
			m.dirty, died = true, true
		}
	}
	return died
}

// forget drops those who went long ago and have no folder.
func (m *memory) forget(now time.Time, hasFolder map[*seen]bool) {
	oldest := now.Add(-forgetAfter)
	excess := len(m.byID) - maxSeen
	for id, s := range m.byID {
		if s.Gone.IsZero() {
			continue
		}
		if s.Gone.Before(oldest) && !hasFolder[s] || excess > 0 {
			m.drop(id)
			excess--
		}
	}
}

func (m *memory) drop(id string) {
	delete(m.byID, id)
	if full, ok := parseID(id); ok {
		delete(m.known, full)
		delete(m.known, full.shortened())
	}
	m.dirty = true
}

// find returns what is remembered of the container that a folder is named after,
// or nil.
func (m *memory) find(id containerID) *seen { return m.known[id] }
