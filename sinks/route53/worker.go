package route53

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/journal"
)

// worker is the goroutine of Run, or of Remove. Nothing of it is shared.
type worker struct {
	*Sink
	journal *journal.Journal
	ledger  *ledger
	host    string // whose state it is; empty until that is certain

	shaper    shaper
	inherited map[key][]string // values that an earlier life wrote
	holds     map[key]*hold
	surprises map[key]int // in a row
	windows   map[string]*window
	calls     *bucket
	changes   *bucket
	denied    int // refusals in this turn and zone for want of permission; -1 after a success
	pending   syncs

	adoptAt   time.Time
	suspected time.Time // when somebody else's writing was last noticed
	wake      time.Time // when the next turn is due; zero if only an event makes one
}

func newWorker(s *Sink) *worker {
	return &worker{
		Sink:      s,
		ledger:    newLedger(),
		inherited: make(map[key][]string),
		holds:     make(map[key]*hold),
		surprises: make(map[key]int),
		windows:   make(map[string]*window),
		calls:     newBucket(s.cfg.CallsPerSecond),
		changes:   newBucket(s.cfg.ChangesPerSecond),
	}
}

const journalHint = "nothing is written to Route 53 meanwhile; check the space and the permissions of berth's state directory"

// open opens the journal, however long that takes, and reports whether it did
// before ctx ended.
func (w *worker) open(ctx context.Context) bool {
	for {
		err := w.tryOpen()
		w.health.Set(condJournal, err, journalHint)
		if err == nil {
			return true
		}
		if !sleep(ctx, w.timing.firstRetry) {
			return false
		}
	}
}

func (w *worker) tryOpen() error {
	host := w.stateHost()
	j, found, err := journal.Open(w.path, journal.Options{
		Owner: Name, Host: host, State: func() []byte { return w.ledger.encode() },
	})
	if err != nil {
		return err
	}
	if found.SetAside != "" {
		w.log.Warn("set state aside", "file", found.SetAside, "reason", found.Reason)
	}
	w.ledger, err = replay(found.Checkpoint, found.Entries)
	if err != nil {
		// The entries were sound when they were written, by a newer version
		// perhaps. What was read of them counts.
		w.log.Error("state is not understood", "file", w.path, "err", err)
	}
	for k, e := range w.ledger.Sets {
		for _, v := range []*value{e.Have, e.Next} {
			if v != nil {
				w.inherited[k] = append(w.inherited[k], v.Data...)
			}
		}
	}
	w.journal, w.host = j, host
	w.adoptAt = time.Now().Add(rand.N(w.timing.adoptWithin))
	return nil
}

func (w *worker) close() {
	if err := w.journal.Close(); err != nil {
		w.log.Warn("close journal", "err", err)
	}
}

// stateHost returns whose state this is, or "" while that is uncertain.
func (w *worker) stateHost() string {
	if w.node == nil {
		return "-"
	}
	return w.node.StateHost()
}

// claim takes the state for this host once that is certain, or forgets it.
func (w *worker) claim() error {
	host := w.stateHost()
	if host == "" || host == w.host {
		return nil
	}
	kept, err := w.journal.Claim(host)
	if err != nil {
		return err
	}
	w.host = host
	if !kept {
		w.log.Warn("forgot the state of another host", "records", len(w.ledger.Sets))
		w.ledger = newLedger()
		clear(w.inherited)
		clear(w.holds)
	}
	return nil
}

// note makes a record durable and then counts it. Only an intent must not be
// acted on if that fails: everything else merely is not known any more after a
// crash.
func (w *worker) note(r record) error {
	data, err := json.Marshal(r)
	if err == nil {
		err = w.journal.Append(data)
	}
	w.health.Set(condJournal, err, journalHint)
	if err == nil || r.Op != opIntent {
		w.ledger.apply(r)
	}
	return err
}

// wakeAt makes the next turn come no later than at t.
func (w *worker) wakeAt(t time.Time) {
	if w.wake.IsZero() || t.Before(w.wake) {
		w.wake = t
	}
}

func (w *worker) window(zone string) *window {
	if w.windows[zone] == nil {
		w.windows[zone] = new(window)
	}
	return w.windows[zone]
}

// turn brings the zone closer to the newest set, and sets wake.
func (w *worker) turn(ctx context.Context, want agent.Desired) {
	w.wake = time.Time{}
	set, seq := want.Records()
	if seq > 0 && set.Node.Settled && set.Node.ID != "" {
		if err := w.claim(); err != nil {
			w.health.Set(condJournal, err, journalHint)
			w.wakeAt(time.Now().Add(w.timing.firstRetry))
			return
		}
		if w.findZone(ctx, set.Zone) && w.reconcile(ctx, set) {
			w.applied.Store(seq)
		}
	}
	w.followSync(ctx)
	w.calmDown()
	w.meters.observe(w)
}

// reconcile reports whether the zone holds the whole set.
func (w *worker) reconcile(ctx context.Context, set agent.RecordSet) bool {
	who := newIdentity(set.Node, w.cfg.Cluster)
	w.shaper = shaper{
		zone: w.ledger.Zone, mode: w.cfg.Mode, who: who, id: who.String(),
		node: set.Node.Label() + "." + set.Zone,
	}
	want, tooMuch := w.shaper.shape(set.Records)
	keep := set.Partial || w.host == ""
	w.merge(want, keep)
	w.run(ctx, plan(w.ledger, want, w.exclusive, keep))
	if !keep {
		w.adopt(ctx, want)
	}
	left := plan(w.ledger, want, w.exclusive, keep)
	w.settle(left)
	w.report(tooMuch)
	if keep && !set.Partial && len(w.ledger.Sets) > len(want) {
		return false // what must go stays until it is certain whose it is
	}
	return len(left) == 0 && len(tooMuch) == 0
}

// exclusive reports whether a key is a simple one of a name that others may
// have, too.
func (w *worker) exclusive(k key) bool { return k.ID == "" && !w.shaper.own(k.Name) }

// merge adds to a partial set the values of earlier lives: they may be those of
// containers that are not known yet. A whole set says which of them are left.
func (w *worker) merge(want map[key]value, partial bool) {
	for k, old := range w.inherited {
		v, wanted := want[k]
		if !partial {
			old = slices.DeleteFunc(old, func(d string) bool { return !slices.Contains(v.Data, d) })
			if w.inherited[k] = old; len(old) == 0 {
				delete(w.inherited, k)
			}
			continue
		}
		if wanted && !w.shaper.own(k.Name) {
			data := slices.Concat(v.Data, old)
			slices.Sort(data)
			data = slices.Compact(data)
			if fit(data) == len(data) {
				v.Data = data
				want[k] = v
			}
		}
	}
}

// run sends units, those for zones that are not the present one first.
func (w *worker) run(ctx context.Context, units []unit) {
	byZone := make(map[string][]unit)
	for _, u := range units {
		byZone[u.key.Zone] = append(byZone[u.key.Zone], u)
	}
	present := byZone[w.shaper.zone.ID]
	delete(byZone, w.shaper.zone.ID)
	for _, zone := range slices.Sorted(maps.Keys(byZone)) {
		w.runZone(ctx, zone, byZone[zone])
	}
	w.runZone(ctx, w.shaper.zone.ID, present)
}

// runZone sends the units of one zone that are due, if any are.
func (w *worker) runZone(ctx context.Context, zone string, units []unit) {
	now := time.Now()
	win := w.window(zone)
	if len(units) == 0 || now.Before(win.until) {
		return
	}
	var due, again []unit
	for _, u := range units {
		h := w.holds[u.key]
		switch {
		case h == nil:
			due = append(due, u)
		case !now.Before(h.until):
			again = append(again, u)
		}
	}
	if len(due)+len(again) == 0 {
		return
	}
	w.denied = 0
	err := w.lookAll(ctx, due)
	for _, batch := range pack(slices.DeleteFunc(due, func(u unit) bool { return u.look })) {
		if err == nil {
			err = w.send(ctx, zone, batch)
		}
	}
	for _, u := range again { // each by itself: it is no good company
		if err == nil {
			err = w.send(ctx, zone, []unit{u})
		}
	}
	w.finish(zone, win, err)
}

// finish widens or narrows the window of a zone.
func (w *worker) finish(zone string, win *window, err error) {
	now := time.Now()
	switch {
	case errors.Is(err, context.Canceled):
		return // so is Run
	case err == nil:
		win.succeeded(w.timing, now)
	case classify(err) == noZone:
		w.forgetZone(zone)
		fallthrough
	default:
		win.failed(w.timing, now)
		w.meters.retries.Add(1)
	}
	if zone == w.shaper.zone.ID {
		w.health.Set(condWrite, err, writeHint(err))
	} else if err != nil {
		w.log.Warn("cannot delete the records in another zone", "zone", zone, "err", err)
	}
}

// settle forgets what was held against units that are no longer planned, and
// wakes up when the next unit is due.
func (w *worker) settle(left []unit) {
	planned := make(map[key]bool, len(left))
	for _, u := range left {
		planned[u.key] = true
		at := w.window(u.key.Zone).until
		if h := w.holds[u.key]; h != nil && h.until.After(at) {
			at = h.until
		}
		w.wakeAt(at)
	}
	maps.DeleteFunc(w.holds, func(k key, _ *hold) bool { return !planned[k] })
	maps.DeleteFunc(w.surprises, func(k key, _ int) bool { return !planned[k] })
}

// removeAll deletes what the ledger holds, and returns why something is left.
func (w *worker) removeAll(ctx context.Context) error {
	if err := w.claim(); err != nil {
		return err
	}
	if w.host == "" {
		w.wakeAt(time.Now().Add(w.timing.firstRetry))
		return errors.New("it is not known yet which host this is")
	}
	w.shaper = shaper{zone: w.ledger.Zone, mode: w.cfg.Mode}
	units := plan(w.ledger, nil, w.exclusive, false)
	w.run(ctx, units)
	if units = plan(w.ledger, nil, w.exclusive, false); len(units) == 0 {
		w.settle(nil)
		return nil
	}
	w.settle(units)
	if h := w.holds[units[0].key]; h != nil {
		return fmt.Errorf("%d record sets are left, among them %s: %w", len(units), units[0].key, h.cause)
	}
	if err := w.meters.lastError(); err != nil {
		return fmt.Errorf("%d record sets are left: %w", len(units), err)
	}
	return fmt.Errorf("%d record sets are left", len(units))
}
