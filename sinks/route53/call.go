package route53

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/route53"
	"github.com/aws/aws-sdk-go-v2/service/route53/types"
	"github.com/aws/smithy-go"

	"github.com/berthd/berth/agent"
)

// verdict is what an error says about a change.
type verdict int

const (
	unknown  verdict = iota // it may have been made
	busy                    // not now
	refused                 // not like this
	denied                  // not by this host
	noZone                  // not there
	failed                  // not for another reason
	unjotted                // it was not even asked for: the journal failed
)

var errJournal = errors.New("nothing is written that the journal does not hold")

// classify goes by the codes of the API reference, "Common errors" and those of
// ChangeResourceRecordSets. What has no code may have arrived.
func classify(err error) verdict {
	if errors.Is(err, errJournal) {
		return unjotted
	}
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		return unknown
	}
	switch api.ErrorCode() {
	case "Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled", "RequestLimitExceeded",
		"TooManyRequestsException", "SlowDown", "PriorRequestNotComplete":
		return busy
	case "InvalidChangeBatch", "InvalidInput", "LimitsExceeded", "ValidationError", "ValidationException":
		return refused
	case "AccessDenied", "AccessDeniedException":
		return denied
	case "NoSuchHostedZone":
		return noZone
	}
	if resp, ok := errors.AsType[*awshttp.ResponseError](err); ok &&
		resp.HTTPStatusCode() >= http.StatusBadRequest && resp.HTTPStatusCode() < http.StatusInternalServerError {
		return failed
	}
	return unknown
}

// reason returns what Route 53 says of a refused batch, for people.
func reason(err error) string {
	if e, ok := errors.AsType[*types.InvalidChangeBatch](err); ok && len(e.Messages) > 0 {
		return strings.Join(e.Messages, "; ")
	}
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return api.ErrorCode() + ": " + strings.Trim(api.ErrorMessage(), "[]")
	}
	return err.Error()
}

// writeHint says what to do about a zone that cannot be written.
func writeHint(err error) string {
	switch classify(err) {
	case busy:
		return "the account's quota is used up or another change is under way; berth slows down and goes on"
	case denied:
		return "this host's role lacks permissions on the hosted zone: see route53-policy.json among berth's examples"
	case noZone:
		return "the hosted zone is gone: correct zone_id or zone_name"
	case unjotted:
		return journalHint
	}
	return "check the network, the credentials and the clock of this host; berth keeps trying"
}

// acquire waits until a call with so many changes may be made.
func (w *worker) acquire(ctx context.Context, changes int) error {
	for {
		now := time.Now()
		wait := w.calls.wait(now)
		if changes > 0 {
			wait = max(wait, w.changes.wait(now))
		}
		if wait == 0 {
			w.calls.take(1)
			w.changes.take(changes)
			return nil
		}
		if !sleep(ctx, wait) {
			return ctx.Err()
		}
	}
}

// send makes the changes of some units. Those that are refused are isolated and
// held back; an error means that the zone cannot be written now.
func (w *worker) send(ctx context.Context, zone string, units []unit) error {
	err := w.change(ctx, zone, units)
	switch classify(err) {
	case refused, denied:
	default:
		if err == nil {
			w.accepted(units)
		}
		return err
	}
	if len(units) == 1 {
		return w.refuse(ctx, units[0], err)
	}
	half := len(units) / 2
	if err := w.send(ctx, zone, units[:half]); err != nil {
		return err
	}
	return w.send(ctx, zone, units[half:])
}

// change makes one call.
func (w *worker) change(ctx context.Context, zone string, units []unit) error {
	var batch []types.Change
	intent := record{Op: opIntent}
	for _, u := range units {
		for _, c := range u.changes() {
			batch = append(batch, types.Change{Action: c.action, ResourceRecordSet: toSet(u.key, c.value)})
		}
		intent.Sets = append(intent.Sets, setRecord{u.key, u.want})
	}
	if err := w.acquire(ctx, len(batch)); err != nil {
		return err
	}
	w.step("before the intent")
	if err := w.note(intent); err != nil {
		return fmt.Errorf("%w: %w", errJournal, err)
	}
	w.step("before the call")
	cctx, cancel := context.WithTimeout(ctx, w.timing.call)
	defer cancel()
	start := time.Now()
	out, err := w.api.ChangeResourceRecordSets(cctx, &route53.ChangeResourceRecordSetsInput{
		HostedZoneId: aws.String(zone),
		ChangeBatch:  &types.ChangeBatch{Changes: batch},
	})
	w.step("after the call")
	w.meters.called("ChangeResourceRecordSets", err)
	switch {
	case err == nil:
		w.meters.changed(len(batch), time.Since(start))
		_ = w.note(record{Op: opDone, Sets: intent.Sets})
		w.pending.submitted(aws.ToString(out.ChangeInfo.Id), w.timing, time.Now())
	case classify(err) != unknown:
		_ = w.note(record{Op: opVoid, Sets: intent.Sets})
	}
	w.step("after the answer")
	return err
}

// accepted forgets what was held against units.
func (w *worker) accepted(units []unit) {
	w.denied = -1 // this host may write, so what is denied from now on is denied by itself
	for _, u := range units {
		delete(w.holds, u.key)
		delete(w.surprises, u.key)
	}
}

// toSet returns a record set as the API has it.
func toSet(k key, v value) *types.ResourceRecordSet {
	s := &types.ResourceRecordSet{Name: aws.String(k.Name), Type: types.RRType(k.Type), TTL: aws.Int64(v.TTL)}
	if k.ID != "" {
		s.SetIdentifier = aws.String(k.ID)
	}
	switch v.Policy {
	case Multivalue:
		s.MultiValueAnswer = aws.Bool(true)
	case Weighted:
		s.Weight = aws.Int64(v.Weight)
	case Simple:
	}
	for _, d := range v.Data {
		s.ResourceRecords = append(s.ResourceRecords, types.ResourceRecord{Value: aws.String(d)})
	}
	return s
}

// fromSet returns the key and the value of a record set of the API. One with a
// policy that berth does not write has that policy's name as "other".
func fromSet(zone string, s types.ResourceRecordSet) (key, value) {
	k := key{Zone: zone, Name: cmpName(aws.ToString(s.Name)), Type: agent.RecordType(s.Type), ID: aws.ToString(s.SetIdentifier)}
	v := value{TTL: aws.ToInt64(s.TTL), Weight: aws.ToInt64(s.Weight)}
	switch {
	case aws.ToBool(s.MultiValueAnswer):
		v.Policy = Multivalue
	case s.Weight != nil:
		v.Policy = Weighted
	case k.ID == "":
		v.Policy = Simple
	default:
		v.Policy = "other"
	}
	for _, r := range s.ResourceRecords {
		v.Data = append(v.Data, aws.ToString(r.Value))
	}
	return k, v
}
