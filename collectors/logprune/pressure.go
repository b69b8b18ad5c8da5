package logprune

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// usage is how full a file system is, from 0 to 1, as df shows it to those who are
// not root: what is reserved for root counts as used.
type usage struct{ bytes, inodes float64 }

func usageOf(st *unix.Statfs_t) usage {
	return usage{
		bytes: ratio(st.Blocks-st.Bfree, st.Blocks-st.Bfree+st.Bavail),
		// Some file systems make inodes as they need them, and say 0 of 0.
		inodes: ratio(st.Files-st.Ffree, st.Files),
	}
}

func ratio(used, all uint64) float64 {
	if all == 0 || used > all {
		return 0
	}
	return float64(used) / float64(all)
}

func (u usage) most() float64 { return max(u.bytes, u.inodes) }

func (u usage) String() string {
	return fmt.Sprintf("%.0f%% of its bytes and %.0f%% of its inodes are used", 100*u.bytes, 100*u.inodes)
}

// pressure remembers which file systems are full: from High on, until below Low.
type pressure struct {
	cfg PressureConfig
	on  map[uint64]bool // by device
}

func newPressure(cfg PressureConfig) *pressure {
	return &pressure{cfg: cfg, on: make(map[uint64]bool)}
}

// update takes a measurement, and reports whether the file system is under
// pressure.
func (p *pressure) update(dev uint64, u usage) bool {
	switch {
	case u.most() >= p.cfg.High.Ratio():
		p.on[dev] = true
	case u.most() < p.cfg.Low.Ratio():
		delete(p.on, dev)
	}
	return p.on[dev]
}

// usageOf measures a file system anew, by the first root on it.
func (p *Pruner) usageOf(pl *plan, dev uint64) (usage, error) {
	for _, r := range pl.found.roots {
		if r.node.dev != dev {
			continue
		}
		fd, err := p.k.openat2(unix.AT_FDCWD, r.path, onTheWay)
		if err != nil {
			return usage{}, err
		}
		defer p.k.close(fd)
		var st unix.Statfs_t
		if err := p.k.statfs(fd, &st); err != nil {
			return usage{}, err
		}
		return usageOf(&st), nil
	}
	return usage{}, unix.ENODEV
}

// writer is a folder of a container that lives, and how much is in it.
type writer struct {
	path, container string
	bytes           int64
}

// maxWriters bounds how many folders are measured for an alarm, and topWriters how
// many it names.
const (
	maxWriters = 2000
	topWriters = 3
)

// writers returns the largest folders of live containers on a file system.
func (p *plan) writers(ctx context.Context, k kernel, dev uint64) []writer {
	var out []writer
	look := newSurveyor(k, false)
	for i, r := range p.rulings {
		if r.rule != ruleLives || p.found.roots[p.found.folders[i].root].node.dev != dev {
			continue
		}
		if ctx.Err() != nil || len(out) >= maxWriters {
			break
		}
		dir := p.found.path(i)
		root, err := k.openat2(unix.AT_FDCWD, path.Dir(dir), onTheWay)
		if err != nil {
			continue
		}
		// A tree with a mount in it is measured up to there: good enough for a name.
		s, _ := look.look(ctx, root, path.Base(dir))
		k.close(root)
		out = append(out, writer{dir, p.snap.Containers[r.who].Name, s.bytes})
	}
	slices.SortFunc(out, func(a, b writer) int { return cmp.Compare(b.bytes, a.bytes) })
	return out[:min(len(out), topWriters)]
}

// alarm says that a file system stays full although all that is dead was deleted.
func alarm(at string, u usage, top []writer, gone []lost, dev uint64) error {
	var b strings.Builder
	fmt.Fprintf(&b, "the file system of %s stays full, %s", at, u)
	for i, w := range top {
		fmt.Fprintf(&b, "%s %s of %s (%s)", []string{"; the largest folders of live containers are", ",", ","}[i], w.path, w.container, bytesOf(w.bytes))
	}
	said := 0
	for _, l := range gone {
		if l.node.dev != dev || said >= topWriters {
			continue
		}
		if said == 0 {
			b.WriteString("; deleted but held open:")
		}
		fmt.Fprintf(&b, " %s by %s", bytesOf(l.bytes), l.holder)
		said++
	}
	return fmt.Errorf("%s", b.String())
}

// bytesOf writes a size for people.
func bytesOf(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}
