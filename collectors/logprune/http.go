package logprune

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/berthd/berth/agent"
)

// Progress says how far a run is that somebody has asked for, or the last one.
type Progress struct {
	Run     int64     `json:"run"` // counts the runs that were asked for
	Running bool      `json:"running"`
	Total   int64     `json:"total"`   // folders that were due
	Folders int64     `json:"folders"` // deleted so far
	Files   int64     `json:"files"`
	Bytes   int64     `json:"bytes"` // freed
	Refused int64     `json:"refused"`
	Began   time.Time `json:"began,omitzero"`
	Error   string    `json:"error,omitempty"` // why it was stopped
	Refusal []Folder  `json:"refusals"`        // what is due and stays
}

// Log is the answer to GET /v1/prune/log.
type Log struct {
	Deletions []Deletion `json:"deletions"` // newest first
}

// Accepted is the answer to POST /v1/prune/accept-engine.
type Accepted struct {
	ID   string `json:"id"`
	Root string `json:"root"`
}

// ServeHTTP answers below /v1/prune/:
//
//	GET  plan            Plan: a scan and a plan of now; nothing is changed
//	GET  log             Log: what was deleted, and what was meant to be
//	GET  explain?folder= []Folder: by path, or by the ID or name of a container
//	GET  progress        Progress
//	POST run             a look and a run at once; Progress, as it begins
//	POST accept-engine   the present engine's word counts; Accepted
func (p *Pruner) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	post := map[string]func(*http.Request) (any, error){"run": p.serveRun, "accept-engine": p.serveAccept}
	get := map[string]func(*http.Request) (any, error){"plan": p.servePlan, "log": p.serveLog, "progress": p.serveProgress, "explain": p.serveExplain}
	what := strings.TrimPrefix(r.URL.Path, "/v1/"+name+"/")
	answer := get[what]
	if post[what] != nil {
		if answer = post[what]; r.Method != http.MethodPost {
			writeError(w, http.StatusMethodNotAllowed, errors.New("this changes something: use POST"))
			return
		}
	}
	if answer == nil {
		writeError(w, http.StatusNotFound, errors.New("there is nothing at "+r.URL.Path))
		return
	}
	v, err := answer(r)
	switch {
	case errors.Is(err, errNothing):
		writeError(w, http.StatusNotFound, err)
	case err != nil:
		writeError(w, http.StatusPreconditionFailed, err)
	default:
		w.Header().Set("Content-Type", "application/json")
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		_ = enc.Encode(v)
	}
}

func writeError(w http.ResponseWriter, code int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()})
}

var (
	errNotYet  = errors.New("berth has not looked at the engine yet: try again in a moment")
	errNothing = errors.New("no root of prune.roots has a folder of this name")
	errDry     = errors.New("this is a dry run: nothing is deleted until prune.enabled is true, and berth reload")
)

// fresh makes a plan of now, and changes nothing.
func (p *Pruner) fresh(ctx context.Context) (*plan, error) {
	p.mu.Lock()
	feed := p.feed
	p.mu.Unlock()
	if feed == nil || feed.Snapshot().Seq == 0 {
		return nil, errNotYet
	}
	snap := feed.Snapshot()
	p.mu.Lock()
	blocked := p.trust(snap)
	p.mu.Unlock()
	return p.look(ctx, snap, blocked, false)
}

// Look scans and plans once, changes nothing, and returns ctx's error or that there
// is no snapshot yet. It is for measurements.
func (p *Pruner) Look(ctx context.Context) error {
	_, err := p.fresh(ctx)
	return err
}

func (p *Pruner) servePlan(r *http.Request) (any, error) {
	pl, err := p.fresh(r.Context())
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	out := Plan{
		At: pl.now.UTC(), Enabled: p.active(), Roots: []string{}, Folders: []Folder{}, More: pl.found.more,
		Retain: p.cfg.Retain.String(), Images: p.imageRulings, Containers: p.containerRulings,
	}
	if pl.blocked != nil {
		out.Blocked, out.Fix = pl.blocked.Error(), fixOf(pl.blocked)
	}
	for _, root := range pl.found.roots {
		out.Roots = append(out.Roots, root.path)
	}
	slices.Sort(out.Roots)
	for i := range pl.found.folders {
		out.Folders = append(out.Folders, p.folder(pl, i))
	}
	for _, s := range pl.found.strangers {
		out.Folders = append(out.Folders, pl.strangerFolder(s))
	}
	slices.SortFunc(out.Folders, func(a, b Folder) int { return strings.Compare(a.Path, b.Path) })
	for _, f := range out.Folders {
		out.Counts.add(f.Verdict)
	}
	out.Counts.Ignored += pl.found.more
	for _, err := range pl.found.errs {
		out.Errors = append(out.Errors, err.Error())
	}
	return out, nil
}

// folder is called with p.mu held.
func (p *Pruner) folder(pl *plan, i int) Folder {
	return pl.folder(i, p.refusals[pl.found.path(i)])
}

func (p *Pruner) serveLog(*http.Request) (any, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := Log{Deletions: append([]Deletion{}, p.ledger.history...)}
	slices.Reverse(out.Deletions)
	return out, nil
}

func (p *Pruner) serveExplain(r *http.Request) (any, error) {
	out, err := p.explain(r.Context(), r.URL.Query().Get("folder"))
	if err == nil && len(out) == 0 {
		err = errNothing
	}
	return out, err
}

// explain returns what is decided about the folders that a reference may mean: a
// path of one or of something in it, an ID or the beginning of one, a container's
// name.
func (p *Pruner) explain(ctx context.Context, ref string) ([]Folder, error) {
	pl, err := p.fresh(ctx)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []Folder
	path := filepath.Clean(ref)
	for i := range pl.found.folders {
		at := pl.found.path(i)
		id := pl.found.folders[i].id.String()
		named := func() bool {
			return ref != "" && (pl.name(&pl.found.folders[i], pl.rulings[i]) == ref || len(ref) >= 4 && (strings.HasPrefix(id, ref) || strings.HasPrefix(ref, id)))
		}
		if filepath.IsAbs(ref) && inside(path, at) || !filepath.IsAbs(ref) && named() {
			out = append(out, p.folder(pl, i))
		}
	}
	for _, s := range pl.found.strangers {
		if f := pl.strangerFolder(s); path == f.Path {
			out = append(out, f)
		}
	}
	return out, nil
}

// Explain says why the folders of a container are treated as they are. It looks at
// the disk.
func (p *Pruner) Explain(id string) []agent.Reason {
	all, err := p.explain(context.Background(), id)
	if err != nil {
		return []agent.Reason{{Subject: id, Verdict: Ignored, Rule: err.Error()}}
	}
	return reasons(all)
}

func (p *Pruner) serveProgress(*http.Request) (any, error) { return p.progressNow(), nil }

func (p *Pruner) progressNow() Progress {
	g := &p.progress
	out := Progress{
		Run: g.runs.Load(), Running: g.running.Load(), Total: g.total.Load(), Folders: g.folders.Load(),
		Files: g.files.Load(), Bytes: g.bytes.Load(), Refused: g.refused.Load(), Refusal: []Folder{},
	}
	if at := g.began.Load(); at != 0 {
		out.Began = time.Unix(0, at).UTC()
	}
	if text := g.err.Load(); text != nil {
		out.Error = *text
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for path, r := range p.refusals {
		out.Refusal = append(out.Refusal, Folder{Path: path, Verdict: Refused, Rule: r.err.Error(), Fix: r.fix})
	}
	slices.SortFunc(out.Refusal, func(a, b Folder) int { return strings.Compare(a.Path, b.Path) })
	return out
}

// serveRun has Run's goroutine look and delete at once.
func (p *Pruner) serveRun(r *http.Request) (any, error) {
	if !p.active() {
		return nil, errDry
	}
	p.mu.Lock()
	feed := p.feed
	p.mu.Unlock()
	if feed == nil {
		return nil, errNotYet
	}
	p.mu.Lock()
	err := p.trust(feed.Snapshot())
	if p.ledger.engine == nil && p.ledger.j != nil {
		err = nil // the run accepts the first engine
	}
	p.mu.Unlock()
	if err != nil {
		return nil, err
	}
	begun := make(chan struct{})
	do := func(ctx context.Context) {
		p.progress.reset(p.now())
		p.progress.running.Store(true)
		close(begun)
		p.cycle(ctx)
		p.progress.running.Store(false)
	}
	select {
	case p.requests <- do:
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	<-begun
	return p.progressNow(), nil
}

// serveAccept has Run's goroutine accept the engine that answers now.
func (p *Pruner) serveAccept(r *http.Request) (any, error) {
	type answer struct {
		mark engineMark
		err  error
	}
	done := make(chan answer, 1)
	do := func(context.Context) {
		snap := p.feed.Snapshot()
		if !snap.Complete {
			done <- answer{err: errors.New("the engine's containers are not all known yet: try again when berth status is ready")}
			return
		}
		mark, err := markEngine(snap.EngineID, snap.EngineRoot)
		if err == nil && p.ledger.j == nil {
			err = p.opened
		}
		if err == nil {
			err = p.accept(mark)
		}
		if err == nil {
			p.log.Warn("this engine's word counts from now on, because somebody said so", "engine", mark.ID, "root", mark.Root)
			p.wake = p.now()
		}
		done <- answer{mark, err}
	}
	select {
	case p.requests <- do:
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	a := <-done
	return Accepted{a.mark.ID, a.mark.Root}, a.err
}
