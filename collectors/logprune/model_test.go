package logprune

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berthd/berth/agent"
)

// model is an engine, and the truth about its containers. It is an Engine and an
// agent.Feed.
type model struct {
	mu         sync.Mutex
	id, root   string
	containers map[string]*agent.Container
	dead       []agent.DeadRun
	seq        uint64
	now        func() time.Time
	images     []agent.Image
	removed    []string // images and containers that were removed

	// What is wrong with it now.
	distort func(*agent.Snapshot) // changes what Snapshot says
	inspect func(id string) error // what Inspect says instead, unless nil
	asked   func(id string)       // called by Inspect after it has looked
	cut     int                   // how many answers of Absent there are at most; 0 for all
}

func newModel(root string, now func() time.Time) *model {
	for _, dir := range []string{root, filepath.Join(root, "containers")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			panic(err)
		}
	}
	return &model{id: "ENGINE", root: root, containers: make(map[string]*agent.Container), now: now}
}

func (m *model) Snapshot() *agent.Snapshot {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seq++
	s := &agent.Snapshot{
		Seq: m.seq, At: m.now(), Connected: true, Complete: true, EngineID: m.id, EngineRoot: m.root,
		Dead: slices.Clone(m.dead),
	}
	for _, id := range slices.Sorted(maps.Keys(m.containers)) {
		c := *m.containers[id]
		s.Containers = append(s.Containers, &c)
	}
	if m.distort != nil {
		m.distort(s)
	}
	return s
}

func (m *model) Changed() <-chan struct{} { return nil }

func (m *model) Inspect(_ context.Context, id string) (*agent.Container, error) {
	m.mu.Lock()
	asked := m.asked
	defer func() {
		m.mu.Unlock()
		if asked != nil {
			asked(id)
		}
	}()
	if m.inspect != nil {
		if err := m.inspect(id); err != nil {
			return nil, err
		}
	}
	for full, c := range m.containers {
		if strings.HasPrefix(full, id) {
			c := *c
			return &c, nil
		}
	}
	return nil, agent.ErrNotFound
}

func (m *model) Absent(ctx context.Context, ids []string) []bool {
	gone := make([]bool, len(ids))
	for i, id := range ids {
		if m.cut > 0 && i >= m.cut {
			break
		}
		_, err := m.Inspect(ctx, id)
		gone[i] = errors.Is(err, agent.ErrNotFound)
	}
	return gone
}

func (m *model) Images(context.Context) ([]agent.Image, error) { return slices.Clone(m.images), nil }

func (m *model) RemoveImage(_ context.Context, id string) error {
	for _, c := range m.containers {
		if c.ImageID == id {
			return agent.ErrInUse
		}
	}
	m.images = slices.DeleteFunc(m.images, func(im agent.Image) bool { return im.ID == id })
	m.removed = append(m.removed, id)
	return nil
}

func (m *model) RemoveContainer(_ context.Context, id string) error {
	if m.containers[id].Alive() {
		return agent.ErrInUse
	}
	delete(m.containers, id)
	m.removed = append(m.removed, id)
	return nil
}

func (m *model) run(id, name string) *agent.Container {
	c := &agent.Container{ID: id, Name: name, State: agent.StateRunning, StartedAt: m.now(), CreatedAt: m.now()}
	m.containers[id] = c
	return c
}

func (m *model) exit(id string) {
	c := m.containers[id]
	c.State, c.FinishedAt = agent.StateExited, m.now()
	run := *c
	m.dead = append(m.dead, agent.DeadRun{Container: &run, FinishedAt: m.now()})
}

func (m *model) remove(id string) {
	c := *m.containers[id]
	delete(m.containers, id)
	m.dead = append(m.dead, agent.DeadRun{Container: &c, FinishedAt: m.now(), RemovedAt: m.now()})
}

// someID returns a container's ID.
func someID(rng *rand.Rand) string {
	var raw [32]byte
	for i := range raw {
		raw[i] = byte(rng.UintN(256))
	}
	return hex.EncodeToString(raw[:])
}

// nodeStub says who the host is.
type nodeStub struct{ id string }

func (n nodeStub) Node() agent.Node         { return agent.Node{ID: n.id, Settled: true} }
func (n nodeStub) Changed() <-chan struct{} { return nil }
func (n nodeStub) StateHost() string        { return n.id }

// faulty is a kernel that does what it is told before a call.
type faulty struct {
	linux
	before func(op, name string) error // nil for nothing
}

func (f *faulty) hook(op, name string) error {
	if f.before == nil {
		return nil
	}
	return f.before(op, name)
}

func (f *faulty) openat2(dir int, name string, resolve uint64) (int, error) {
	if err := f.hook("openat2", name); err != nil {
		return -1, err
	}
	return f.linux.openat2(dir, name, resolve)
}

func (f *faulty) getdents(dir int, buf []byte) (int, error) {
	if err := f.hook("getdents", ""); err != nil {
		return -1, err
	}
	return f.linux.getdents(dir, buf)
}

func (f *faulty) statx(dir int, name string, flags int) (unix.Statx_t, error) {
	if err := f.hook("statx", name); err != nil {
		return unix.Statx_t{}, err
	}
	return f.linux.statx(dir, name, flags)
}

func (f *faulty) unlinkat(dir int, name string, flags int) error {
	if err := f.hook("unlinkat", name); err != nil {
		return err
	}
	return f.linux.unlinkat(dir, name, flags)
}

func (f *faulty) mkdirat(dir int, name string, mode uint32) error {
	if err := f.hook("mkdirat", name); err != nil {
		return err
	}
	return f.linux.mkdirat(dir, name, mode)
}

func (f *faulty) renameat2(from int, name string, to int, newName string) error {
	if err := f.hook("renameat2", name); err != nil {
		return err
	}
	return f.linux.renameat2(from, name, to, newName)
}

// fakeProc is a /proc whose processes are files of a test: it is made of symbolic
// links, which statx follows as it does the real ones.
type fakeProc struct{ dir string }

func newFakeProc(dir string) fakeProc {
	must(os.MkdirAll(filepath.Join(dir, "self"), 0o755))
	must(os.Symlink("/proc/self/mountinfo", filepath.Join(dir, "self/mountinfo")))
	return fakeProc{dir}
}

// process makes a process that has files open and folders mounted, given by their
// paths within their file system of device dev.
func (p fakeProc) process(pid int, files, mounted []string, dev uint64) {
	dir := filepath.Join(p.dir, fmt.Sprint(pid))
	must(os.RemoveAll(dir))
	must(os.MkdirAll(filepath.Join(dir, "fd"), 0o755))
	must(os.MkdirAll(filepath.Join(dir, "ns"), 0o755))
	must(os.Symlink(fmt.Sprintf("mnt:[%d]", pid), filepath.Join(dir, "ns/mnt")))
	must(os.WriteFile(filepath.Join(dir, "comm"), []byte("writer\n"), 0o644))
	for i, f := range files {
		must(os.Symlink(f, filepath.Join(dir, "fd", fmt.Sprint(i))))
	}
	var b strings.Builder
	for i, m := range mounted {
		fmt.Fprintf(&b, "%d 1 %d:%d %s /logs rw - ext4 x rw\n", i+2, unix.Major(dev), unix.Minor(dev), m)
	}
	must(os.WriteFile(filepath.Join(dir, "mountinfo"), []byte(b.String()), 0o644))
}

func (p fakeProc) end(pid int) { must(os.RemoveAll(filepath.Join(p.dir, fmt.Sprint(pid)))) }

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// testEnv is an Env that says nothing.
func testEnv(state string) agent.Env {
	log := slog.New(slog.DiscardHandler)
	return agent.Env{Log: log, Health: agent.NewHealth(log), Node: nodeStub{"host-1"}, StateDir: state}
}

// newTestPruner returns a collector that is as Run would have begun it, on a model.
func newTestPruner(cfg Config, m *model, env agent.Env, k kernel, procDir string) *Pruner {
	p, err := New(cfg, env, m)
	must(err)
	p.now, p.k, p.workers, p.inspectors = m.now, k, 1, 1
	p.proc = proc{procDir, linux{}}
	p.feed = m
	p.unsafe = probe(linux{})
	p.openJournal()
	must(p.opened)
	return p
}
