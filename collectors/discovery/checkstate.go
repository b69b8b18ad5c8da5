package discovery

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/berthd/berth/agent"
)

// checkKey says which check of which run: a container that is started again
// begins anew.
type checkKey struct {
	run  agent.RunKey
	port uint16 // inside the container
}

// The states of a CheckStatus.
const (
	CheckStarting = "starting" // no verdict yet, and out
	CheckAssumed  = "assumed"  // no verdict yet, and in
	CheckPassing  = "passing"
	CheckFailing  = "failing"
)

// checkStates are all of them.
var checkStates = [...]string{CheckStarting, CheckAssumed, CheckPassing, CheckFailing}

// finding is what one run of a check found.
type finding struct {
	at   time.Time // when it ended
	took time.Duration
	why  string // why it failed; empty when it passed
}

// checkState is what is known of a check. It is a value.
type checkState struct {
	word  string    // CheckStarting or another
	since time.Time // when that began
	last  finding   // the latest; at is zero before the first
	row   int       // findings in a row that agree with the latest
	once  bool      // it has passed at least once
}

// in reports whether the service may be in DNS.
func (s checkState) in() bool { return s.word == CheckPassing || s.word == CheckAssumed }

// after returns the state that follows from one more finding: `rise` good ones
// in a row are a verdict, and so are `fall` bad ones; anything less changes
// nothing.
func (s checkState) after(f finding, c *check) checkState {
	if s.last.at.IsZero() || (s.last.why == "") != (f.why == "") {
		s.row = 0
	}
	s.row = min(s.row+1, maxCounts)
	s.last = f
	word := s.word
	switch {
	case f.why == "" && s.row >= c.rise:
		word, s.once = CheckPassing, true
	case f.why != "" && s.row >= c.fall:
		word = CheckFailing
	}
	if word != s.word {
		s.word, s.since = word, f.at
	}
	return s
}

// A service that has just been started is looked at more often than its interval
// says, for a while, so that it gets its name soon after it is ready.
const (
	eagerFor   = time.Minute
	eagerEvery = time.Second
)

// pause returns how long to wait until a check is run again, age after it was
// first wanted.
func (s checkState) pause(c *check, age time.Duration) time.Duration {
	if !s.once && !s.in() && age < eagerFor {
		return min(c.interval, eagerEvery)
	}
	return c.interval
}

// newState is the state of a check that nothing is known of. A run that berth
// saw start is out until it passes. One that is older than this berth may well
// be in DNS already, where a restart of berth must leave it: it is in until it
// fails.
func (r *rules) newState(c *agent.Container, ck *check, now time.Time) checkState {
	if ck.trusted || !c.StartedAt.After(r.began) {
		return checkState{word: CheckAssumed, since: now}
	}
	return checkState{word: CheckStarting, since: now}
}

// checked is one check of a container, and what is known of it.
type checked struct {
	key    checkKey
	name   string // of the container
	check  *check
	target netip.AddrPort // where; invalid while there is nothing to check
	state  checkState
}

// latest returns what is known of a check by now.
func (r *rules) latest(c *checked) checkState {
	if r.checks != nil {
		if state, ok := r.checks(c.key); ok {
			return state
		}
	}
	return c.state
}

// describe says what the check does.
func (c *checked) describe() string {
	if c.check.path == "" {
		return "connecting to " + c.address()
	}
	return "GET " + c.address()
}

// address is the URL, or the address and port.
func (c *checked) address() string {
	if c.check.path == "" {
		return c.target.String()
	}
	return "http://" + c.target.String() + c.check.path
}

// check lets a claim be in only if its check says so. The check connects to
// where clients are sent to: the first of the claim's places, and its IPv4
// address if it has one.
func (v *view) check(a *app, s *site) {
	ck := s.claim.options.check
	if ck == nil || !a.c.Alive() {
		return
	}
	i := slices.IndexFunc(a.checks, func(c *checked) bool { return c.key.port == s.claim.port })
	if i < 0 {
		i = len(a.checks)
		a.checks = append(a.checks, v.newChecked(a, ck, s.claim))
	}
	c := a.checks[i]
	s.check = c
	if s.out != (verdict{}) || c.state.in() {
		return
	}
	switch {
	case !c.target.IsValid():
		_, out := v.place.locate(a.c, a.owner, tcpClaim(s.claim))
		s.out = verdict{"its check cannot be run: " + out.why, out.fix}
	case c.state.word == CheckFailing:
		s.out = verdict{"its check fails: " + c.describe() + ": " + c.state.last.why, v.place.remedy(a, c)}
	default:
		s.out = verdict{"its check has not passed yet: " + c.describe(), v.place.remedy(a, c)}
	}
}

func (v *view) newChecked(a *app, ck *check, cl *claim) *checked {
	c := &checked{key: checkKey{a.c.Run(), cl.port}, name: a.c.Name, check: ck}
	c.state = v.rules.newState(a.c, ck, v.now)
	c.state = v.rules.latest(c)
	if !a.c.Running() || !a.c.StoppingSince.IsZero() || v.snap.Drain != nil {
		return c // it rests
	}
	if spots, _ := v.place.locate(a.c, a.owner, tcpClaim(cl)); len(spots) > 0 {
		c.target = netip.AddrPortFrom(spots[0].addresses()[0], spots[0].port)
	}
	return c
}

// checks returns the checks of all containers.
func (v *view) checks() []*checked {
	var list []*checked
	for i := range v.apps {
		list = append(list, v.apps[i].checks...)
	}
	return list
}

// tcpClaim is the claim's port over TCP, which is what checks speak.
func tcpClaim(cl *claim) *claim { return &claim{port: cl.port, proto: "tcp", options: cl.options} }

// remedy says what to do about a check that does not pass.
func (p *place) remedy(a *app, c *checked) string {
	for i := range a.owner.Endpoints {
		e := &a.owner.Endpoints[i]
		if e.IPv4.Unmap() != c.target.Addr() && e.IPv6 != c.target.Addr() {
			continue
		}
		if n := p.network(e); n != nil && n.Driver != "bridge" {
			return fmt.Sprintf("a host seldom reaches its own containers on a network of the kind %s, as this one: use a HEALTHCHECK in the image instead", n.Driver)
		}
	}
	if c.check.path == "" {
		return "see whether it listens on that port: docker logs " + a.c.Name
	}
	return "see what it answers: curl -i " + c.address()
}
