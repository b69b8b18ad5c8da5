package route53

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// hold keeps a record set that was refused from spoiling other batches.
type hold struct {
	until  time.Time
	pause  time.Duration // until the next try; it doubles
	cause  error
	denied bool
}

// hold holds a set back, longer each time.
func (w *worker) hold(k key, cause error) {
	h := w.holds[k]
	if h == nil {
		h = new(hold)
		w.holds[k] = h
	}
	h.cause, h.denied = cause, classify(cause) == denied
	first, last := w.timing.firstHold, w.timing.lastHold
	if h.denied {
		first, last = w.timing.firstDenied, w.timing.lastDenied
	}
	h.pause = min(max(2*h.pause, first), last)
	h.until = time.Now().Add(h.pause/2 + rand.N(h.pause/2))
	w.meters.held.Add(1)
	w.log.Warn("record refused", "record", k.String(), "reason", reason(cause), "again", h.until.Round(time.Second))
}

// limited reports whether a refusal is for a quota: "Exceeded limit on number of
// weighted RRSets for …", "Cannot have more than 400 records in a RRSet".
func (h *hold) limited() bool {
	text := strings.ToLower(h.cause.Error())
	return strings.Contains(text, "limit") || strings.Contains(text, "cannot have more than")
}

// report turns what is held back into conditions.
func (w *worker) report(tooMuch []error) {
	limit, other := slices.Clone(tooMuch), []error(nil)
	for _, k := range slices.SortedFunc(maps.Keys(w.holds), key.compare) {
		h := w.holds[k]
		err := fmt.Errorf("%s: %s", k, reason(h.cause))
		if h.limited() {
			limit = append(limit, err)
		} else {
			other = append(other, err)
		}
	}
	w.health.Set(condLimit, summary(limit),
		"this host is not found at these names: Route 53 takes 100 hosts for a name and type, and 400 values for each; divide the service among several names")
	w.health.Set(condRefused, summary(other),
		"other records are not affected; remove what is in the way, and berth tries again within the hour")
}

// summary joins errors into one line for people, or nil when there are none. Of
// very many the first ones have to do.
func summary(errs []error) error {
	const most = 8
	if len(errs) == 0 {
		return nil
	}
	var texts []string
	for _, err := range errs[:min(len(errs), most)] {
		texts = append(texts, err.Error())
	}
	if n := len(errs) - most; n > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", n))
	}
	return errors.New(strings.Join(texts, "; "))
}

// heldSets returns how many sets are held back for a quota, and for another reason.
func (w *worker) heldSets() (limited, others int) {
	for _, h := range w.holds {
		if h.limited() {
			limited++
		} else {
			others++
		}
	}
	return limited, others
}
