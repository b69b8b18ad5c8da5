package logprune

import (
	"errors"
	"fmt"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berthd/berth/agent"
)

// The verdicts on a folder.
const (
	Kept    = "kept"    // somebody needs it, or the configuration says so
	Waits   = "waits"   // it will be due later
	Refused = "refused" // it is due, and something is in the way
	Due     = "due"     // it is deleted with the next run
	Ignored = "ignored" // it is none of berth's business
)

// Folder is what is decided about one folder of a root.
type Folder struct {
	Path      string `json:"path"`
	Container string `json:"container,omitempty"` // its name, as far as known
	Verdict   string `json:"verdict"`
	Rule      string `json:"rule"`
	Fix       string `json:"fix,omitempty"`
	// Since is when its container ended or was removed, or where that is not
	// known, when the folder last changed. Zero while the container lives.
	Since time.Time `json:"since,omitzero"`
	Due   time.Time `json:"due,omitzero"` // when its retention ends
}

// refusal is why a folder was not deleted although it was due.
type refusal struct {
	err error
	fix string
	at  time.Time
}

// folder puts the ruling on a folder into words. refused is what was in the way
// when it was last due, or nil.
func (p *plan) folder(i int, refused *refusal) Folder {
	f, r := &p.found.folders[i], p.rulings[i]
	out := Folder{Path: p.found.path(i), Container: p.name(f, r)}
	if r.since != 0 {
		out.Since = time.Unix(0, r.since).UTC()
	}
	say := func(verdict, fix, format string, args ...any) {
		out.Verdict, out.Fix, out.Rule = verdict, fix, fmt.Sprintf(format, args...)
	}
	who := func() string {
		if r.who < 0 {
			return "a container"
		}
		return "container " + p.snap.Containers[r.who].Name
	}
	switch r.rule {
	case ruleLives:
		c := p.snap.Containers[r.who]
		say(Kept, "", "its container is there (%s)", c.State)
		if hasEnded(c) {
			out.Fix = "remove the container, or set prune.when to stopped"
		}
	case ruleUnread:
		say(Kept, "", "its container is there, but the engine would not show it")
	case ruleMounted:
		say(Refused, "unmount it", "something is mounted on it")
	case ruleExemptPath:
		say(Kept, "", "prune.exempt has it")
	case ruleExemptLabel:
		say(Kept, "", "its container had a label of prune.exempt_labels")
	case ruleNoProof:
		say(Ignored, "if it is a container's, remove it by hand", "its name may be a number or a date of somebody's: berth never saw such a container")
	case ruleInUse:
		say(Kept, "", "%s has it mounted, or something in it", who())
	case ruleShared:
		say(Kept, "set prune.under_mounts to delete, if nothing else makes folders there that look like containers'",
			"%s has a folder above it mounted, and berth never saw the container that it is named after", who())
	case ruleRetained:
		out.Due = p.now.Add(p.cfg.Retain.Std() - p.age(f, p.memory.find(f.id), r)).UTC()
		say(Waits, "", "its container is gone, or has ended, and it is kept for %v (prune.retain)", p.cfg.Retain)
	case ruleMany:
		say(Waits, "", "more folders became due at once than prune.many and prune.many_percent believe: a second scan must find the same")
	case rulePressed:
		say(Due, "", "its container is gone, and its file system is full (prune.pressure)")
	case ruleDue:
		say(Due, "", "its container is gone for longer than %v (prune.retain)", p.cfg.Retain)
		if r.who >= 0 {
			out.Rule = fmt.Sprintf("its container has ended longer than %v ago (prune.retain)", p.cfg.Retain)
		}
	case ruleTrash:
		say(Due, "", "a deletion was interrupted: it is finished with the next run")
	case ruleRestore:
		say(Due, "", "its container is there: it is moved back from the trash with the next run")
	}
	if out.Verdict == Due {
		switch {
		case refused != nil:
			say(Refused, refused.fix, "%v", refused.err)
		case p.blocked != nil:
			say(Refused, fixOf(p.blocked), "nothing is deleted: %v", p.blocked)
		case !p.cfg.Enabled:
			out.Rule += "; this is a dry run"
			out.Fix = "set prune.enabled: true"
		}
	}
	return out
}

// verdict is that of folder, for those who count.
func (p *plan) verdict(i int, refused *refusal) string {
	switch p.rulings[i].rule {
	case ruleLives, ruleUnread, ruleExemptPath, ruleExemptLabel, ruleInUse, ruleShared:
		return Kept
	case ruleNoProof:
		return Ignored
	case ruleRetained, ruleMany:
		return Waits
	case ruleMounted:
		return Refused
	}
	if refused != nil || p.blocked != nil {
		return Refused
	}
	return Due
}

// name returns the name of a folder's container, as far as it is known.
func (p *plan) name(f *folder, r ruling) string {
	if mem := p.memory.find(f.id); mem != nil {
		return mem.Name
	}
	if r.rule == ruleLives && r.who >= 0 {
		return p.snap.Containers[r.who].Name
	}
	return ""
}

// strangerFolder puts into words why a name in a root is left alone.
func (p *plan) strangerFolder(s stranger) Folder {
	out := Folder{Path: path.Join(p.found.roots[s.root].path, s.name), Verdict: Ignored}
	_, isID := parseID(path.Base(s.name))
	switch {
	case s.kind == unix.DT_LNK:
		out.Rule = "it is a symbolic link"
	case s.kind != unix.DT_DIR && isID:
		out.Rule = "it has a container's name, and is no folder"
	case s.kind != unix.DT_DIR && s.kind != unix.DT_UNKNOWN:
		out.Rule = "it is no folder"
	default:
		out.Rule = "its name is not a container's: 64 or 12 hexadecimal digits, in lower case"
	}
	return out
}

// hinted is an error that knows what to do about it.
type hinted struct {
	error
	fix string
}

func (h *hinted) Unwrap() error { return h.error }

func fixOf(err error) string {
	if h, ok := errors.AsType[*hinted](err); ok {
		return h.fix
	}
	return ""
}

// Plan is the answer to GET /v1/prune/plan.
type Plan struct {
	At      time.Time `json:"at"`
	Enabled bool      `json:"enabled"` // otherwise all of this is a dry run
	Blocked string    `json:"blocked,omitempty"`
	Fix     string    `json:"fix,omitempty"` // of what blocks
	Roots   []string  `json:"roots"`
	Folders []Folder  `json:"folders"`
	More    int       `json:"more,omitempty"` // names that are no containers', and not in Folders
	Errors  []string  `json:"errors,omitempty"`
	Counts  Counts    `json:"counts"`
	Retain  string    `json:"retain"`
	// Images and Containers are the rulings on these; null while they are disabled.
	Images     []ImageRuling     `json:"images,omitempty"`
	Containers []ContainerRuling `json:"containers,omitempty"`
}

// Counts are how many folders there are of each verdict.
type Counts struct {
	Kept    int `json:"kept"`
	Waits   int `json:"waits"`
	Refused int `json:"refused"`
	Due     int `json:"due"`
	Ignored int `json:"ignored"`
}

func (c *Counts) add(verdict string) {
	switch verdict {
	case Kept:
		c.Kept++
	case Waits:
		c.Waits++
	case Refused:
		c.Refused++
	case Due:
		c.Due++
	case Ignored:
		c.Ignored++
	}
}

// reasons is what Explain says of a container's folders.
func reasons(all []Folder) []agent.Reason {
	out := make([]agent.Reason, 0, len(all))
	for _, f := range all {
		out = append(out, agent.Reason{Subject: f.Path, Verdict: f.Verdict, Rule: f.Rule, Fix: f.Fix})
	}
	return out
}
