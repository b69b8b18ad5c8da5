package logprune

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/berthd/berth/agent"
)

// Engine is what the pruning of images and of stopped containers asks of the
// engine. Nothing is ever forced, and no volume is removed: the engine refuses what
// is in use, and that is right. It is safe for concurrent use.
type Engine interface {
	Inspector
	// Images returns all images, but for the intermediate ones.
	Images(ctx context.Context) ([]agent.Image, error)
	// RemoveImage removes one image by its ID. The error for one that the engine
	// does not remove unforced wraps agent.ErrInUse.
	RemoveImage(ctx context.Context, id string) error
	// RemoveContainer removes one container by its ID, and none of its volumes.
	// Errors are as those of RemoveImage.
	RemoveContainer(ctx context.Context, id string) error
}

// ImageRuling is what is decided about one image.
type ImageRuling struct {
	ID      string    `json:"id"`
	Refs    []string  `json:"refs"`
	Size    int64     `json:"size"`
	Verdict string    `json:"verdict"`
	Rule    string    `json:"rule"`
	LastUse time.Time `json:"last_use,omitzero"`
}

// planImages decides about all images. It is pure. uses is when each was last used
// or first seen.
func planImages(cfg *ImagesConfig, images []agent.Image, snap *agent.Snapshot, uses map[string]time.Time, now time.Time) []ImageRuling {
	used := make(map[string]string)
	for _, c := range snap.Containers {
		used[c.ImageID] = c.Name
	}
	recent := recentImages(images, cfg.KeepRecent)
	out := make([]ImageRuling, 0, len(images))
	for _, im := range images {
		r := ImageRuling{ID: im.ID, Refs: im.Refs, Size: im.Size, Verdict: Kept, LastUse: uses[im.ID]}
		user, inUse := used[im.ID]
		switch {
		case inUse:
			r.Rule = "container " + user + " uses it"
		case len(snap.Unread) > 0:
			r.Rule = "a container that the engine would not show may use it"
		case keptImage(cfg.Keep, im.Refs):
			r.Rule = "prune.images.keep has it"
		case recent[im.ID]:
			r.Rule = fmt.Sprintf("it is among the %d newest of its repository", cfg.KeepRecent)
		case r.LastUse.IsZero() || now.Sub(r.LastUse) < cfg.KeepFor.Std():
			r.Verdict, r.Rule = Waits, fmt.Sprintf("it was in use, or first seen, less than %v ago", cfg.KeepFor)
		default:
			r.Verdict, r.Rule = Due, fmt.Sprintf("no container has used it for %v", cfg.KeepFor)
		}
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b ImageRuling) int {
		return cmp.Or(a.LastUse.Compare(b.LastUse), cmp.Compare(a.ID, b.ID))
	})
	return out
}

// recentImages returns the newest n images of each repository.
func recentImages(images []agent.Image, n int) map[string]bool {
	byRepo := make(map[string][]agent.Image)
	for _, im := range images {
		repos := make(map[string]bool)
		for _, ref := range im.Refs {
			repos[repository(ref)] = true
		}
		for repo := range repos {
			byRepo[repo] = append(byRepo[repo], im)
		}
	}
	recent := make(map[string]bool)
	for _, all := range byRepo {
		slices.SortFunc(all, func(a, b agent.Image) int { return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(a.ID, b.ID)) })
		for _, im := range all[:min(n, len(all))] {
			recent[im.ID] = true
		}
	}
	return recent
}

// repository returns a reference without its tag or digest.
func repository(ref string) string {
	ref, _, _ = strings.Cut(ref, "@")
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		ref = ref[:i]
	}
	return ref
}

// keptImage reports whether a pattern matches a reference, or its repository.
func keptImage(patterns, refs []string) bool {
	for _, p := range patterns {
		for _, ref := range refs {
			for _, text := range []string{ref, repository(ref)} {
				if ok, _ := path.Match(p, text); ok {
					return true
				}
			}
		}
	}
	return false
}

// learnUses notes which images are in use, and which are new to us. It reports
// whether that is worth writing down: a use is told again within the day.
func learnUses(uses map[string]time.Time, images []agent.Image, snap *agent.Snapshot, now time.Time) (changed bool) {
	exists := make(map[string]bool, len(images))
	for _, im := range images {
		exists[im.ID] = true
		if _, ok := uses[im.ID]; !ok {
			uses[im.ID], changed = now, true
		}
	}
	for _, c := range snap.Containers {
		if exists[c.ImageID] && now.Sub(uses[c.ImageID]) > time.Hour {
			uses[c.ImageID], changed = now, true
		}
	}
	for id := range uses {
		if !exists[id] {
			delete(uses, id)
			changed = true
		}
	}
	return changed
}

// ContainerRuling is what is decided about one container that does not run.
type ContainerRuling struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Verdict string    `json:"verdict"`
	Rule    string    `json:"rule"`
	Ended   time.Time `json:"ended,omitzero"`
}

// ecsLabel is the beginning of the labels that the ECS agent gives to containers
// of its tasks. It removes them itself, and must find them until then.
const ecsLabel = "com.amazonaws.ecs."

// planContainers decides about the containers that have no process. It is pure.
func planContainers(cfg *ContainersConfig, snap *agent.Snapshot, now time.Time) []ContainerRuling {
	out := []ContainerRuling{}
	for _, c := range snap.Containers {
		if c.Alive() {
			continue
		}
		r := ContainerRuling{ID: c.ID, Name: c.Name, Verdict: Kept, Ended: c.FinishedAt}
		switch {
		case !hasEnded(c):
			r.Rule = fmt.Sprintf("it has not ended, it is %s", c.State)
		case ofECS(c):
			r.Rule = "it is of an ECS task: the ECS agent removes it"
		case exempted(c.Labels, cfg.ExemptLabels):
			r.Rule = "it has a label of prune.containers.exempt_labels"
		case now.Sub(c.FinishedAt) < cfg.KeepFor.Std():
			r.Verdict, r.Rule = Waits, fmt.Sprintf("it ended less than %v ago", cfg.KeepFor)
		default:
			r.Verdict, r.Rule = Due, fmt.Sprintf("it ended longer than %v ago", cfg.KeepFor)
		}
		out = append(out, r)
	}
	return out
}

func ofECS(c *agent.Container) bool {
	for label := range c.Labels {
		if strings.HasPrefix(label, ecsLabel) {
			return true
		}
	}
	return false
}

// daily returns the next time of day after now, with a host's own share of the
// jitter, which does not change from day to day.
func daily(now time.Time, at string, jitter time.Duration, host string) time.Time {
	t, err := time.Parse("15:04", at)
	if err != nil {
		return now.Add(24 * time.Hour) // Validate has refused it
	}
	var share time.Duration
	if jitter > 0 {
		h := fnv.New64a()
		_, _ = h.Write([]byte(host))
		share = time.Duration(h.Sum64() % uint64(jitter))
	}
	for day := -1; ; day++ {
		next := time.Date(now.Year(), now.Month(), now.Day()+day, t.Hour(), t.Minute(), 0, 0, now.Location()).Add(share)
		if next.After(now) {
			return next
		}
	}
}

// pruneImages removes the images that are due.
func (p *Pruner) pruneImages(ctx context.Context, snap *agent.Snapshot) error {
	images, err := p.engine.Images(ctx)
	if err != nil {
		return err
	}
	p.mu.Lock()
	changed := learnUses(p.ledger.images, images, snap, p.now())
	rulings := planImages(&p.cfg.Images, images, snap, p.ledger.images, p.now())
	p.ledger.memory.dirty = p.ledger.memory.dirty || changed
	p.imageRulings = rulings
	p.mu.Unlock()
	if !p.cfg.Images.Enabled || p.dryRun {
		return nil
	}
	var errs []error
	for _, r := range rulings {
		if r.Verdict != Due || ctx.Err() != nil {
			continue
		}
		// A container may have been made of it since.
		now := p.feed.Snapshot()
		if err := p.trust(now); err != nil {
			return err
		}
		if slices.ContainsFunc(now.Containers, func(c *agent.Container) bool { return c.ImageID == r.ID }) {
			continue
		}
		d := Deletion{Kind: KindImage, ID: r.ID, Container: strings.Join(r.Refs, " "), Why: r.Rule, Bytes: r.Size}
		errs = append(errs, p.remove(ctx, d, p.engine.RemoveImage))
	}
	return errors.Join(errs...)
}

// pruneContainers removes the containers that are due.
func (p *Pruner) pruneContainers(ctx context.Context, snap *agent.Snapshot) error {
	rulings := planContainers(&p.cfg.Containers, snap, p.now())
	p.mu.Lock()
	p.containerRulings = rulings
	p.mu.Unlock()
	if !p.cfg.Containers.Enabled || p.dryRun {
		return nil
	}
	var errs []error
	for _, r := range rulings {
		if r.Verdict != Due || ctx.Err() != nil {
			continue
		}
		if err := p.trust(p.feed.Snapshot()); err != nil {
			return err
		}
		c, err := p.engine.Inspect(ctx, r.ID)
		if errors.Is(err, agent.ErrNotFound) {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		again := planContainers(&p.cfg.Containers, &agent.Snapshot{Containers: []*agent.Container{c}}, p.now())
		if len(again) == 0 || again[0].Verdict != Due {
			continue
		}
		d := Deletion{Kind: KindContainer, ID: r.ID, Container: r.Name, Why: r.Rule}
		errs = append(errs, p.remove(ctx, d, p.engine.RemoveContainer))
	}
	return errors.Join(errs...)
}

// remove removes one image or container, and keeps the journal. What the engine
// does not remove unforced stays, and is no error.
func (p *Pruner) remove(ctx context.Context, d Deletion, remove func(context.Context, string) error) error {
	p.mu.Lock()
	d.Seq, d.Planned = p.ledger.next, p.now().UTC()
	p.ledger.next++
	err := p.write(record{Deletions: []Deletion{d}})
	p.mu.Unlock()
	if err != nil {
		return err
	}
	err = remove(ctx, d.ID)
	d.Done = p.now().UTC()
	if err != nil {
		d.Done, d.Error, d.Bytes = time.Time{}, err.Error(), 0
	}
	p.mu.Lock()
	p.note([]Deletion{d})
	p.mu.Unlock()
	switch {
	case errors.Is(err, agent.ErrInUse), errors.Is(err, agent.ErrNotFound):
		p.log.Debug("not removed", "kind", d.Kind, "id", d.ID, "err", err)
		return nil
	case err != nil:
		return err
	}
	p.log.Info("deleted", "kind", d.Kind, "id", d.ID, "name", d.Container, "why", d.Why)
	if d.Kind == KindImage {
		p.stats.images.Add(1)
	} else {
		p.stats.containers.Add(1)
	}
	return nil
}
