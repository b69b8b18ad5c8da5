package route53

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/route53"
	"github.com/aws/aws-sdk-go-v2/service/route53/types"

	"github.com/berthd/berth/agent"
)

// patience is how many surprises in a row one set may be good for before it is
// held back.
const patience = 3

// list is one call of ListResourceRecordSets.
func (w *worker) list(ctx context.Context, in *route53.ListResourceRecordSetsInput) (*route53.ListResourceRecordSetsOutput, error) {
	if err := w.acquire(ctx, 0); err != nil {
		return nil, err
	}
	cctx, cancel := context.WithTimeout(ctx, w.timing.call)
	defer cancel()
	out, err := w.api.ListResourceRecordSets(cctx, in)
	w.meters.called("ListResourceRecordSets", err)
	return out, err
}

// lookup returns what one record set holds, nil if it does not exist.
func (w *worker) lookup(ctx context.Context, k key) (*value, error) {
	in := &route53.ListResourceRecordSetsInput{
		HostedZoneId:    aws.String(k.Zone),
		StartRecordName: aws.String(k.Name),
		StartRecordType: types.RRType(k.Type),
		MaxItems:        aws.Int32(1),
	}
	if k.ID != "" {
		in.StartRecordIdentifier = aws.String(k.ID)
	}
	out, err := w.list(ctx, in)
	if err != nil {
		return nil, err
	}
	for _, s := range out.ResourceRecordSets {
		got, v := fromSet(k.Zone, s)
		if got == k {
			slices.Sort(v.Data)
			return &v, nil
		}
	}
	return nil, nil
}

// lookAll looks up the sets of which nobody knows what they hold.
func (w *worker) lookAll(ctx context.Context, units []unit) error {
	for _, u := range units {
		if !u.look {
			continue
		}
		found, err := w.lookup(ctx, u.key)
		if err != nil {
			return err
		}
		w.learn(u.key, found)
	}
	return nil
}

// refuse deals with a unit that was refused when it was alone. Whatever the
// message says, the set itself tells whether it is not what it was taken for.
func (w *worker) refuse(ctx context.Context, u unit, cause error) error {
	if classify(cause) == denied {
		return w.deny(u, cause)
	}
	if !u.upsert {
		found, err := w.lookup(ctx, u.key)
		if err != nil {
			return err
		}
		if !same(found, u.old) && w.surprises[u.key] < patience {
			w.surprises[u.key]++
			w.learn(u.key, found)
			return nil
		}
	}
	w.hold(u.key, cause)
	return nil
}

// mayDeny is how many sets are asked for before it is believed that nothing is
// allowed at all.
const mayDeny = 3

// deny holds back a unit that is not allowed. A policy may name the records that
// a host may write, so that others may go through.
func (w *worker) deny(u unit, cause error) error {
	known := w.holds[u.key] != nil
	w.hold(u.key, cause)
	if known || w.denied < 0 {
		return nil
	}
	if w.denied++; w.denied < mayDeny {
		return nil
	}
	maps.DeleteFunc(w.holds, func(_ key, h *hold) bool { return h.denied })
	return cause
}

// learn takes over what a set was found to hold, if the set is this host's.
func (w *worker) learn(k key, found *value) {
	known := w.ledger.Sets[k]
	if known == nil {
		known = new(entry)
	}
	expected := same(found, known.Have) || known.Unsure && (same(found, known.Next) || known.Doubt)
	if found != nil && k.ID == "" && !expected && !w.shaper.own(k.Name) && !w.ownTargets(k, found) {
		// Nobody can tell whose a simple record is.
		_ = w.note(record{Op: opForget, Sets: []setRecord{{Key: k}}})
		w.hold(k, fmt.Errorf("somebody else has the simple record: %s", strings.Join(found.Data, ", ")))
		return
	}
	if found != nil && !expected {
		w.suspect(k, found)
	}
	_ = w.note(record{Op: opFound, Sets: []setRecord{{k, found}}})
}

// ownTargets reports whether all values of an SRV set point to this host.
func (w *worker) ownTargets(k key, v *value) bool {
	return k.Type == agent.TypeSRV && !slices.ContainsFunc(v.Data, func(d string) bool {
		return !w.shaper.own(cmpName(d[strings.LastIndexByte(d, ' ')+1:]))
	})
}

// suspect reports that a set of this host holds what this host did not write.
func (w *worker) suspect(k key, found *value) {
	w.suspected = time.Now()
	w.meters.foreign.Add(1)
	w.health.Set(condIdentity, fmt.Errorf("%s held %s, which this host did not write", k, strings.Join(found.Data, ", ")),
		"another agent may have the same identity (compare node.id and route53.cluster), or somebody has edited the record, or it was left by this host before its state was lost; berth has corrected it")
}

// calmDown ends the suspicion when nothing has confirmed it for long.
func (w *worker) calmDown() {
	if w.suspected.IsZero() {
		return
	}
	if ends := w.suspected.Add(w.timing.suspicion); time.Now().Before(ends) {
		w.wakeAt(ends)
		return
	}
	w.suspected = time.Time{}
	w.health.Set(condIdentity, nil, "")
}

// adopt looks once, if there was no journal, for what an earlier life left at the
// names that are wanted.
func (w *worker) adopt(ctx context.Context, want map[key]value) {
	if w.ledger.Adopted {
		return
	}
	win := w.window(w.shaper.zone.ID)
	at := w.adoptAt
	if win.width > w.timing.coalesce && win.until.After(at) {
		at = win.until // the zone is in trouble
	}
	if time.Now().Before(at) {
		w.wakeAt(at)
		return
	}
	names := make(map[string]bool)
	for k := range want {
		names[k.Name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if err := w.adoptName(ctx, name); err != nil {
			w.log.Debug("look for leftovers", "name", name, "err", err)
			win.failed(w.timing, time.Now())
			w.wakeAt(win.until)
			return
		}
	}
	_ = w.note(record{Op: opAdopted})
}

// adoptName takes over all of this host's sets at one name.
func (w *worker) adoptName(ctx context.Context, name string) error {
	in := &route53.ListResourceRecordSetsInput{HostedZoneId: aws.String(w.shaper.zone.ID), StartRecordName: aws.String(name)}
	for {
		out, err := w.list(ctx, in)
		if classify(err) == denied && err != nil {
			return nil // it is not worth a permission
		}
		if err != nil {
			return err
		}
		for _, s := range out.ResourceRecordSets {
			k, v := fromSet(w.shaper.zone.ID, s)
			if k.Name != name {
				return nil
			}
			mine := w.shaper.who.owns(k.ID) || k.ID == "" && w.shaper.own(name) && (k.Type == agent.TypeA || k.Type == agent.TypeAAAA)
			if mine && w.ledger.Sets[k] == nil {
				slices.Sort(v.Data)
				_ = w.note(record{Op: opFound, Sets: []setRecord{{k, &v}}})
			}
		}
		if !out.IsTruncated {
			return nil
		}
		in.StartRecordName, in.StartRecordType, in.StartRecordIdentifier = out.NextRecordName, out.NextRecordType, out.NextRecordIdentifier
		if in.StartRecordName == nil {
			return errors.New("a page lacks where the next one begins")
		}
	}
}
