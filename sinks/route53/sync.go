package route53

import (
	"context"
	"errors"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/route53"
	"github.com/aws/aws-sdk-go-v2/service/route53/types"
)

// syncs follows changes until all name servers have them: one at a time, and
// then the newest one, so that a busy host asks no more often than others.
type syncs struct {
	off    bool // this host may not ask
	id     string
	at     time.Time // when it was submitted
	polls  int
	next   time.Time // when to ask
	newest string
	newAt  time.Time
}

func (s *syncs) submitted(id string, t timing, now time.Time) {
	switch {
	case s.off || id == "":
	case s.id == "":
		*s = syncs{id: id, at: now, next: now.Add(t.sync[0])}
	default:
		s.newest, s.newAt = id, now
	}
}

// done ends the present one and begins with the newest.
func (s *syncs) done(t timing, now time.Time) {
	id, at := s.newest, s.newAt
	*s = syncs{off: s.off}
	if id != "" && !s.off {
		*s = syncs{id: id, at: at, next: now.Add(t.sync[0])}
	}
}

// followSync asks whether a change has arrived at all name servers, when it is
// time to.
func (w *worker) followSync(ctx context.Context) {
	p := &w.pending
	now := time.Now()
	if p.id == "" {
		return
	}
	if now.Before(p.next) || w.calls.wait(now) > 0 {
		w.wakeAt(later(p.next, now.Add(w.calls.wait(now))))
		return
	}
	w.calls.take(1)
	cctx, cancel := context.WithTimeout(ctx, w.timing.call)
	defer cancel()
	out, err := w.api.GetChange(cctx, &route53.GetChangeInput{Id: aws.String(p.id)})
	w.meters.called("GetChange", err)
	now = time.Now()
	p.polls++
	switch {
	case err == nil && out.ChangeInfo.Status == types.ChangeStatusInsync:
		w.meters.synced(now.Sub(p.at))
		p.done(w.timing, now)
	case err != nil && classify(err) == denied:
		w.health.Set(condSync, errors.New("GetChange is not allowed"),
			"records are written all the same; allow route53:GetChange to see in the metrics when they have arrived")
		p.off = true
		p.done(w.timing, now)
	case p.polls == len(w.timing.sync):
		w.meters.unsynced.Add(1)
		p.done(w.timing, now)
	default:
		p.next = later(p.at.Add(w.timing.sync[p.polls]), now.Add(time.Second))
	}
	if p.id != "" {
		w.wakeAt(p.next)
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
