package discovery

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/berthd/berth/agent"
)

// The verdicts of an agent.Reason that discovery gives.
const (
	Registered = "registered" // it has records
	Out        = "out"        // it has none now, and the rule says why
	Refused    = "refused"    // it is wrong, and has to be corrected
	Ignored    = "ignored"    // nothing is asked for, or something else counts
	Noted      = "noted"      // for your information
)

// Explanation is all that discovery has to say of one container.
type Explanation struct {
	Container   string         `json:"container"` // its name
	ContainerID string         `json:"container_id"`
	Image       string         `json:"image"`
	State       agent.State    `json:"state"`
	Origin      Origin         `json:"origin,omitzero"`
	Registered  int            `json:"registered"` // claims that have records
	Reasons     []agent.Reason `json:"reasons"`
}

// Explain says, rule by rule, why a container (by ID, name or beginning of an
// ID) is registered or not, and what would change that.
func (d *Discovery) Explain(id string) []agent.Reason {
	e, err := d.explanation(id)
	if err != nil {
		return []agent.Reason{{Subject: id, Verdict: Ignored, Rule: err.Error(), Fix: "see `berth containers`"}}
	}
	return e.Reasons
}

func (d *Discovery) explanation(ref string) (Explanation, error) {
	v := d.view.Load()
	if v == nil {
		return Explanation{}, errNotReady
	}
	c, err := v.find(ref)
	if err != nil {
		if run := v.lastRun(ref); run != nil {
			return v.explainRemoved(run), nil
		}
		if slices.ContainsFunc(v.snap.Unread, func(id string) bool { return ref != "" && strings.HasPrefix(id, ref) }) {
			return Explanation{}, fmt.Errorf("find container %q: %w", ref, errUnread)
		}
		return Explanation{}, err
	}
	return v.explain(c), nil
}

// lastRun returns the last run of a container that was removed, or nil.
func (v *view) lastRun(ref string) *agent.DeadRun {
	for i := len(v.snap.Dead) - 1; i >= 0; i-- {
		d := &v.snap.Dead[i]
		if ref != "" && (strings.HasPrefix(d.Container.ID, ref) || d.Container.Name == ref) {
			return d
		}
	}
	return nil
}

func (v *view) explainRemoved(run *agent.DeadRun) Explanation {
	c := run.Container
	return Explanation{
		Container: c.Name, ContainerID: c.ID, Image: c.Image, State: agent.StateExited, Origin: Identity(c),
		Reasons: []agent.Reason{{
			Subject: "container", Verdict: Out,
			Rule: fmt.Sprintf("it ended at %s with exit code %d, and is gone", run.FinishedAt.UTC().Format(time.RFC3339), c.ExitCode),
		}},
	}
}

// explain goes through the rules in the order in which they apply.
func (v *view) explain(c *agent.Container) Explanation {
	e := Explanation{Container: c.Name, ContainerID: c.ID, Image: c.Image, State: c.State, Origin: Identity(c), Reasons: []agent.Reason{}}
	i := slices.IndexFunc(v.apps, func(a app) bool { return a.c.ID == c.ID })
	if i < 0 {
		e.Reasons = append(e.Reasons, v.nothingAsked(c))
		return e
	}
	a := &v.apps[i]
	if a.out != (verdict{}) {
		e.Reasons = append(e.Reasons, agent.Reason{Subject: "container", Verdict: Out, Rule: a.out.why, Fix: a.out.fix})
	}
	for j := range a.sites {
		s := &a.sites[j]
		if s.registered() {
			e.Registered++
		}
		e.Reasons = append(e.Reasons, v.explainSite(s)...)
		if last := &e.Reasons[len(e.Reasons)-1]; last.Fix == a.out.fix {
			last.Fix = "" // said of the container already
		}
	}
	for _, c := range a.checks {
		e.Reasons = append(e.Reasons, v.explainCheck(c))
	}
	e.Reasons = append(e.Reasons, a.plan.notes...)
	e.Reasons = append(e.Reasons, unclaimed(a)...)
	if len(e.Reasons) == 0 {
		reason := v.nothingAsked(c)
		reason.Rule = "it has SERVICE_… settings, but none of them is a name"
		e.Reasons = append(e.Reasons, reason)
	}
	return e
}

// nothingAsked is the reason of a container without any key of ours.
func (v *view) nothingAsked(c *agent.Container) agent.Reason {
	fix := "add a label: docker run --label SERVICE_80_NAME=" + exampleName(c)
	owner, _ := networkOwner(v.snap, c)
	if listed := listedPorts(owner); len(listed) > 0 {
		fix = fmt.Sprintf("add a label: docker run --label SERVICE_%d_NAME=%s", listed[0].Container, exampleName(c))
	}
	return agent.Reason{Subject: "container", Verdict: Ignored, Rule: "no SERVICE_… label or variable", Fix: fix}
}

// exampleName is a valid name that fits a container.
func exampleName(c *agent.Container) string {
	return cmp.Or(Label(Identity(c).Service), Label(c.Name), "calc")
}

// explainSite explains one claim.
func (v *view) explainSite(s *site) []agent.Reason {
	cl := s.claim
	if !s.registered() {
		word := Out
		if cl.name.hides(v.place.label) {
			word = Refused
		}
		return []agent.Reason{{Subject: cl.subject(), Verdict: word, Rule: s.out.why, Fix: s.out.fix}}
	}
	var reasons []agent.Reason
	for _, at := range s.spots {
		rule := fmt.Sprintf("%s: %s is port %d at %s (%s)", cl.from, cl.srv, at.port, at.target, joinAddrs(at.addresses()))
		if cl.alias != "" {
			rule += ", and so is " + cl.alias
		}
		reasons = append(reasons, agent.Reason{Subject: cl.subject(), Verdict: Registered, Rule: rule})
	}
	for _, name := range []string{cl.srv, cl.alias} {
		if ttl, ok := ttlOf(v.set.Records, name, agent.TypeSRV); ok && ttl < cl.options.ttl {
			reasons = append(reasons, agent.Reason{
				Subject: cl.subject(), Verdict: Noted,
				Rule: fmt.Sprintf("its TTL of %d s is lowered to %d s: another container asks for that, and all records of %s have one TTL", cl.options.ttl, ttl, name),
				Fix:  "give all claims of the name the same TTL",
			})
			break
		}
	}
	return reasons
}

// explainCheck says what is known of a check by now.
func (v *view) explainCheck(c *checked) agent.Reason {
	reason := agent.Reason{Subject: portName(c.key.port, "tcp"), Verdict: Noted}
	s := v.rules.latest(c)
	if !c.target.IsValid() {
		reason.Rule = fmt.Sprintf("%s: the check rests; it was %s", c.check.from, s.word)
		return reason
	}
	last := "not run yet"
	switch {
	case s.last.why != "":
		last = fmt.Sprintf("the last one failed after %v: %s", s.last.took.Round(time.Microsecond), s.last.why)
	case !s.last.at.IsZero():
		last = fmt.Sprintf("the last one passed in %v", s.last.took.Round(time.Microsecond))
	}
	reason.Rule = fmt.Sprintf("%s: %s every %v: %s since %s, %s",
		c.check.from, c.describe(), c.check.interval, s.word, s.since.UTC().Format(time.RFC3339), last)
	return reason
}

// unclaimed lists the ports of a container that nothing is said of.
func unclaimed(a *app) []agent.Reason {
	var reasons []agent.Reason
	for _, p := range listedPorts(a.owner) {
		said := slices.ContainsFunc(a.plan.claims, func(cl claim) bool { return cl.port == p.Container }) ||
			slices.ContainsFunc(a.plan.notes, func(n agent.Reason) bool {
				number := strconv.Itoa(int(p.Container))
				return n.Subject == number || strings.HasSuffix(n.Subject, " on "+number)
			})
		if !said {
			reasons = append(reasons, agent.Reason{
				Subject: portName(p.Container, p.Proto), Verdict: Ignored, Rule: "no name is claimed for it",
				Fix: fmt.Sprintf("add a label: SERVICE_%d_NAME=%s", p.Container, exampleName(a.c)),
			})
		}
	}
	return reasons
}

func joinAddrs(list []netip.Addr) string {
	text := make([]string, len(list))
	for i, a := range list {
		text[i] = a.String()
	}
	return strings.Join(text, ", ")
}
