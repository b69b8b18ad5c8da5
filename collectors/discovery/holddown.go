package discovery

import (
	"slices"
	"time"

	"github.com/berthd/berth/agent"
)

// The hold-down of crash loops: what lives shorter than shortRun is a crash,
// and after crashLimit of them within crashWindow a new run is held down for a
// second, twice as long after each further one, and maxHold at most. A loop at
// ten restarts a second thus changes DNS three times, and then not at all.
const (
	shortRun    = 10 * time.Second
	crashWindow = 10 * time.Minute
	crashLimit  = 3
	maxHold     = time.Minute
)

// hold returns how long a run is held down after n short ones:
// min(2^(n-3) s, 60 s) from the third on.
func hold(n int) time.Duration {
	if n < crashLimit {
		return 0
	}
	return min(time.Second<<min(n-crashLimit, 6), maxHold)
}

// crash is one short run.
type crash struct {
	id       string
	finished time.Time
	plan     *plan
}

// crashes are the recent short runs by image: a container keeps its image
// when it starts again, and so does its replacement.
type crashes map[string][]crash

// recentCrashes collects the short runs that may hold down a container at now.
func recentCrashes(dead []agent.DeadRun, now time.Time, planOf func(*agent.Container) *plan) crashes {
	var found crashes
	for i := len(dead) - 1; i >= 0; i-- {
		d := dead[i]
		if d.FinishedAt.Sub(d.Container.StartedAt) >= shortRun || now.Sub(d.FinishedAt) > crashWindow+2*maxHold {
			continue
		}
		if found == nil {
			found = make(crashes)
		}
		image := d.Container.Image
		found[image] = append(found[image], crash{d.Container.ID, d.FinishedAt, planOf(d.Container)})
	}
	return found
}

// release returns the moment until which the present run of c is held down, and
// how many short runs are the reason; both are zero when it is not.
//
// Runs count that ended before this one started: those of the same container,
// and those of other containers with the same image and a name in common, for
// restarts by `docker run --rm` have a new ID each. As later ends do not count,
// the answer is the same for a run's whole life: a container that has been
// registered is never held down because its neighbours come and go.
func (cs crashes) release(c *agent.Container, p *plan, now time.Time) (time.Time, int) {
	age := now.Sub(c.StartedAt)
	if len(cs) == 0 || age >= maxHold || age < -maxHold { // started in the far future: a clock is wrong
		return time.Time{}, 0
	}
	n := 0
	for _, x := range cs[c.Image] {
		ended := c.StartedAt.Sub(x.finished)
		if ended >= 0 && ended <= crashWindow && (x.id == c.ID || p.sharesName(x.plan)) {
			n++
		}
	}
	until := c.StartedAt.Add(hold(n))
	if !until.After(now) {
		return time.Time{}, 0
	}
	return until, n
}

// sharesName reports whether two plans ask for a name in common. It compares
// what is written, because the ports of a run that ended, which say what comes
// of it, may not be known any more.
func (p *plan) sharesName(o *plan) bool {
	return slices.ContainsFunc(p.asked, func(name string) bool { return slices.Contains(o.asked, name) })
}
