package route53

import (
	"math/rand/v2"
	"time"
)

// bucket is a token bucket that may go into debt: a batch passes as soon as
// there is a token, and what follows waits until its changes are paid for.
type bucket struct {
	rate, burst float64
	tokens      float64
	at          time.Time
}

func newBucket(rate float64) *bucket {
	burst := max(rate, 1)
	return &bucket{rate: rate, burst: burst, tokens: burst}
}

// wait returns how long it takes until the next token.
func (b *bucket) wait(now time.Time) time.Duration {
	if !b.at.IsZero() {
		b.tokens = min(b.burst, b.tokens+b.rate*now.Sub(b.at).Seconds())
	}
	b.at = now
	if b.tokens >= 1 {
		return 0
	}
	return time.Duration((1 - b.tokens) / b.rate * float64(time.Second))
}

func (b *bucket) take(n int) { b.tokens -= float64(n) }

// timing holds the intervals. Tests have shorter ones.
type timing struct {
	coalesce    time.Duration // between a change and the next one
	firstRetry  time.Duration // the window after the first failure; it doubles
	lastRetry   time.Duration // and stops growing here
	recovery    time.Duration // what each success takes off the window
	firstHold   time.Duration // until a refused set is tried again; it doubles
	lastHold    time.Duration
	firstDenied time.Duration // the same for one that is not allowed: somebody may be at the policy
	lastDenied  time.Duration
	adoptWithin time.Duration // of the start leftovers are looked for
	suspicion   time.Duration // how long a foreign write is reported
	call        time.Duration // for one call
	sync        []time.Duration
}

func defaultTiming() timing {
	return timing{
		coalesce:    250 * time.Millisecond,
		firstRetry:  time.Second,
		lastRetry:   time.Minute,
		recovery:    10 * time.Second,
		firstHold:   5 * time.Minute,
		lastHold:    time.Hour,
		firstDenied: time.Minute,
		lastDenied:  10 * time.Minute,
		adoptWithin: time.Minute,
		suspicion:   time.Hour,
		call:        15 * time.Second,
		// Changes take "generally within 60 seconds" (API reference).
		sync: []time.Duration{5 * time.Second, 15 * time.Second, 30 * time.Second, time.Minute},
	}
}

// window is the time between two batches for one zone: additive decrease of the
// window and multiplicative increase, which is AIMD of the rate.
type window struct {
	width time.Duration // more than coalesce after failures
	until time.Time     // nothing is sent before
}

func (w *window) succeeded(t timing, now time.Time) {
	w.width = max(t.coalesce, w.width-t.recovery)
	w.until = now.Add(t.coalesce)
	if w.width > t.coalesce {
		w.until = now.Add(t.coalesce + rand.N(w.width))
	}
}

// failed waits up to twice as long as the last time, with full jitter: a thousand
// hosts that failed together must not come back together.
func (w *window) failed(t timing, now time.Time) {
	w.width = min(max(2*w.width, t.firstRetry), t.lastRetry)
	w.until = now.Add(t.coalesce + rand.N(w.width))
}
