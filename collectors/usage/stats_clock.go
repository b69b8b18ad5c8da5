package usage

import "time"

// jump is a step of the wall clock that is not believed at once, and jumpAfter
// how long it must last: a clock that is wrong for a moment must not make eight
// days of history old.
const (
	jump      = time.Hour
	jumpAfter = 10 * time.Minute
)

// clock turns the wall clock, which may jump, into the time that statistics are
// kept by. It does not go back by less than an hour, it follows a step of more
// only after some minutes, and it says when it had to go back.
type clock struct {
	at      time.Time // the last moment that was returned; zero before the first
	from    time.Time // while a step is not believed: the wall clock after it
	based   time.Time // and the time that was returned then
	started bool
}

// now returns the time by a reading of the wall clock. back is how many hours the
// history must be moved, because its clock was ahead: 0 but for once after a step.
func (c *clock) now(wall time.Time) (at time.Time, back int64) {
	if !c.started {
		c.started = true
		// What was restored may be from the future, if the clock was wrong then.
		if c.at.Sub(wall) > jump {
			back = hourOf(wall) - hourOf(c.at)
			c.at = wall
			return c.at, back
		}
		if wall.After(c.at) {
			c.at = wall
		}
		return c.at, 0
	}
	if d := wall.Sub(c.at); d > -jump && d < jump {
		c.from = time.Time{}
		if d > 0 {
			c.at = wall
		}
		return c.at, 0
	}
	if passed := wall.Sub(c.from); c.from.IsZero() || passed < 0 || passed >= 2*jumpAfter {
		c.from, c.based = wall, c.at // the step, or another one
		return c.at, 0
	}
	passed := wall.Sub(c.from)
	if passed < jumpAfter {
		c.at = c.based.Add(passed)
		return c.at, 0
	}
	if wall.Before(c.at) {
		back = hourOf(wall) - hourOf(c.at)
	}
	c.at, c.from = wall, time.Time{}
	return c.at, back
}
