package logprune

import (
	"cmp"
	"path"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/berthd/berth/agent"
)

// rule is why a folder is treated as it is. The rules are applied in the order of
// these constants; the first that fits decides.
type rule uint8

const (
	ruleLives       rule = iota // its container exists
	ruleUnread                  // its container exists, and the engine would not show it
	ruleMounted                 // something is mounted on it
	ruleExemptPath              // the configuration exempts it
	ruleExemptLabel             // its container had a label that exempts it
	ruleNoProof                 // it may be no container's name at all
	ruleInUse                   // it, or something in it, is mounted into a container
	ruleShared                  // a folder above it is mounted into a container
	ruleRetained                // its container ended not long ago
	ruleMany                    // too many are due at once, for one scan to be believed
	rulePressed                 // due, because its file system is full
	ruleDue                     // dead for long enough
	ruleTrash                   // already moved to the trash, and dead
	ruleRestore                 // in the trash, and alive
)

// ruling is what is decided about one folder.
type ruling struct {
	rule rule
	who  int32 // index into snapshot.Containers of the container in question, or -1
	// since is from when its retention counts, in ns since 1970, for a folder whose
	// container does not exist; 0 otherwise.
	since int64
}

// mountOf is a folder or file of the host that is mounted into a container.
type mountOf struct {
	path string
	who  int32
}

// inputs is all that a plan depends on.
type inputs struct {
	cfg     *Config
	now     time.Time
	snap    *agent.Snapshot
	blocked error // why nothing may be deleted now, whatever the plan says; or nil
	memory  *memory
	found   *found
	mounts  []mountOf // sorted by path, without links in the path
	// pressed says whether the file system of a root is full: see PressureConfig.
	pressed  func(root int32) bool
	suspects *suspects // of earlier scans
}

// plan is what is decided about everything that a scan has found.
type plan struct {
	inputs
	rulings []ruling // of found.folders
	counts  [ruleRestore + 1]int
	next    time.Time // when the next folder becomes due; zero for never
	many    bool      // ruleMany applies, and the second scan is awaited
}

// suspects are the folders that an earlier scan found to be due, when they were
// too many to be believed.
type suspects struct {
	at  time.Time
	set []uint64 // their keys, sorted; nil for no such scan
}

// has reports whether a folder was among them.
func (s *suspects) has(id containerID) bool {
	_, ok := slices.BinarySearch(s.set, id.key())
	return ok
}

// makePlan decides. It does no I/O, and changes nothing but in.suspects.
func makePlan(in inputs) *plan {
	p := &plan{inputs: in, rulings: make([]ruling, len(in.found.folders))}
	x := newIndex(in.snap.Containers)
	unread := make(map[containerID]bool)
	for _, id := range in.snap.Unread {
		if full, ok := parseID(id); ok {
			unread[full], unread[full.shortened()] = true, true
		}
	}
	due := 0
	for i := range in.found.folders {
		r := p.judge(&in.found.folders[i], x, unread)
		p.rulings[i] = r
		if r.rule == ruleDue || r.rule == rulePressed {
			due++
		}
	}
	p.doubt(due)
	for _, r := range p.rulings {
		p.counts[r.rule]++
	}
	return p
}

// judge applies the rules to one folder, but for ruleMany.
func (p *plan) judge(f *folder, x index, unread map[containerID]bool) ruling {
	r := ruling{who: -1}
	mem := p.memory.find(f.id)
	if i, ok := x[f.id]; ok {
		c := p.snap.Containers[i]
		r.who = i
		if f.trash {
			r.rule = ruleRestore
			return r
		}
		if p.cfg.When != whenStopped || !hasEnded(c) {
			r.rule = ruleLives
			return r
		}
		r.since = c.FinishedAt.UnixNano()
		if exempted(c.Labels, p.cfg.ExemptLabels) {
			r.rule = ruleExemptLabel
			return r
		}
	} else {
		r.since = f.changed
		if mem != nil && !mem.Gone.IsZero() {
			r.since = mem.Gone.UnixNano()
		}
	}
	switch {
	case unread[f.id]:
		r.rule = ruleUnread
		if f.trash {
			r.rule = ruleRestore
		}
		return r
	case f.mounted:
		r.rule = ruleMounted
		return r
	case f.trash:
		r.rule = ruleTrash
		return r
	}
	var dir string
	if len(p.cfg.Exempt)+len(p.mounts) > 0 { // of 100,000, it is not made in vain
		dir = path.Join(p.found.roots[f.root].path, f.id.String())
	}
	if len(p.cfg.Exempt) > 0 && exemptPath(dir, p.cfg.Exempt) {
		r.rule = ruleExemptPath
		return r
	}
	if mem != nil && mem.Exempt {
		r.rule = ruleExemptLabel
		return r
	}
	if f.id.decimal() && mem == nil && r.who < 0 {
		r.rule = ruleNoProof
		return r
	}
	if who, above := p.mountedInto(dir, r.who); who >= 0 {
		switch {
		case !above:
			r.rule, r.who = ruleInUse, who
			return r
		case p.cfg.UnderMounts == underKeep, p.cfg.UnderMounts == underSeen && mem == nil:
			r.rule, r.who = ruleShared, who
			return r
		}
	}
	age := p.age(f, mem, r)
	switch {
	case age >= p.cfg.Retain.Std():
		r.rule = ruleDue
	case age >= p.cfg.RetainMin.Std() && p.pressed(f.root):
		r.rule = rulePressed
	default:
		r.rule = ruleRetained
		if at := p.now.Add(p.cfg.Retain.Std() - age); p.next.IsZero() || at.Before(p.next) {
			p.next = at
		}
	}
	return r
}

// age is how long the container of a folder has been dead and the folder itself
// unchanged. Where berth saw the death itself, the wall clock has no say in it: a
// clock that jumps forward ends no retention.
func (p *plan) age(f *folder, mem *seen, r ruling) time.Duration {
	age := p.now.Sub(time.Unix(0, r.since))
	if mem != nil && !mem.Gone.IsZero() {
		age = p.now.Sub(mem.Gone)
	}
	// A change in the future is one of a clock that was wrong: the death decides,
	// or if that is not known, nothing does until the clock agrees.
	if changed := p.now.Sub(time.Unix(0, f.changed)); f.statted && (changed >= 0 || mem == nil) {
		age = min(age, changed)
	}
	return max(age, 0)
}

// hasEnded reports whether a container has run, and does not any more.
func hasEnded(c *agent.Container) bool {
	return (c.State == agent.StateExited || c.State == agent.StateDead) && !c.StartedAt.IsZero() && !c.FinishedAt.IsZero()
}

// mountedInto returns a container that has a folder mounted, or something in it
// (above is false), or a folder above it (above is true); -1 if there is none. A
// container that has stopped may be started again, and wants its mounts then; but
// its own folder is not kept by that, if stopped containers' are to go.
func (p *plan) mountedInto(dir string, own int32) (who int32, above bool) {
	if len(p.mounts) == 0 {
		return -1, false
	}
	below := dir + "/"
	i, _ := slices.BinarySearchFunc(p.mounts, dir, func(m mountOf, d string) int { return strings.Compare(m.path, d) })
	for ; i < len(p.mounts) && p.mounts[i].path == dir; i++ {
		if p.mounts[i].who != own {
			return p.mounts[i].who, false
		}
	}
	i = sort.Search(len(p.mounts), func(i int) bool { return p.mounts[i].path >= below })
	for ; i < len(p.mounts) && strings.HasPrefix(p.mounts[i].path, below); i++ {
		if p.mounts[i].who != own {
			return p.mounts[i].who, false
		}
	}
	for at := path.Dir(dir); ; at = path.Dir(at) {
		i, _ := slices.BinarySearchFunc(p.mounts, at, func(m mountOf, d string) int { return strings.Compare(m.path, d) })
		for ; i < len(p.mounts) && p.mounts[i].path == at; i++ {
			if c := p.snap.Containers[p.mounts[i].who]; p.mounts[i].who != own && c.Alive() {
				return p.mounts[i].who, true
			}
		}
		if at == "/" {
			return -1, false
		}
	}
}

// doubt applies ruleMany: when more are due than is usual, what the engine says is
// believed only if a scan some time ago found the same.
func (p *plan) doubt(due int) {
	limit := max(p.cfg.Many, int(float64(len(p.rulings))*p.cfg.ManyPercent.Ratio()))
	if due <= limit {
		*p.suspects = suspects{}
		return
	}
	s := p.suspects
	if p.blocked != nil {
		*s = suspects{} // such a scan confirms nothing
	}
	confirmed := s.set != nil && p.now.Sub(s.at) >= p.cfg.ConfirmAfter.Std()
	all := make([]uint64, 0, due)
	for i := range p.rulings {
		r := &p.rulings[i]
		if r.rule != ruleDue && r.rule != rulePressed {
			continue
		}
		id := p.found.folders[i].id
		all = append(all, id.key())
		if !confirmed || !s.has(id) {
			r.rule = ruleMany
			p.many = true
		}
	}
	// The first such scan is remembered; and one that confirms, for the sake of those
	// that it has found first.
	if p.blocked == nil && (s.set == nil || confirmed && p.many) {
		slices.Sort(all)
		s.at, s.set = p.now, all
	}
	if p.many && s.set != nil {
		if at := s.at.Add(p.cfg.ConfirmAfter.Std()); p.next.IsZero() || at.Before(p.next) {
			p.next = at
		}
	}
}

// due returns the folders that may be deleted now, those of longest ago first:
// what is due or in the trash, and what is only because of pressure.
func (p *plan) due() (now, pressed []int32) {
	if p.blocked != nil {
		return nil, nil
	}
	for i, r := range p.rulings {
		switch r.rule {
		case ruleDue, ruleTrash, ruleRestore:
			now = append(now, int32(i))
		case rulePressed:
			pressed = append(pressed, int32(i))
		}
	}
	oldest := func(a, b int32) int {
		return cmp.Or(cmp.Compare(p.rulings[a].since, p.rulings[b].since), cmp.Compare(a, b))
	}
	slices.SortFunc(now, oldest)
	slices.SortFunc(pressed, oldest)
	return now, pressed
}
