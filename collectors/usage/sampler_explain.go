package usage

import (
	"fmt"

	"github.com/berthd/berth/agent"
)

// The verdicts of an agent.Reason that the collector gives.
const (
	Measured = "measured" // its use is known, and what it reserves
	Refused  = "refused"  // a setting is wrong, and has to be corrected
	Unknown  = "unknown"  // it is not measured, and the rule says why
)

// Explain says what a container (by ID, name or beginning of an ID) reserves and
// by which source, what is wrong with its settings, and whether it is measured.
func (u *Usage) Explain(ref string) []agent.Reason {
	reasons, ok := u.reasons(ref)
	if !ok {
		return []agent.Reason{{Subject: ref, Verdict: Unknown, Rule: "no container, or several, are called that", Fix: "see `berth containers`"}}
	}
	return reasons
}

// reasons reports whether a reference means one container, and what is to be
// said of it.
func (u *Usage) reasons(ref string) ([]agent.Reason, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.sampler == nil {
		return []agent.Reason{{Subject: ref, Verdict: Unknown, Rule: errOff.Error()}}, true
	}
	found := u.sampler.snap.Find(ref)
	if len(found) != 1 {
		return nil, false
	}
	return u.sampler.explain(found[0]), true
}

func (s *sampler) explain(c *agent.Container) []agent.Reason {
	_, r, refused := s.describe(c)
	var out []agent.Reason
	cpu := agent.Reason{Subject: "cpu", Verdict: Measured, Rule: fmt.Sprintf("it reserves %.3g cores (source %s)", r.Cores, r.CPUSource)}
	if r.CPUSource == SourceNone {
		cpu.Rule, cpu.Fix = "it reserves nothing", "docker run --label "+labelCPU+"=0.5"
	}
	memory := agent.Reason{Subject: "memory", Verdict: Measured, Rule: fmt.Sprintf("it reserves %.1f MiB (source %s)", float64(r.Memory)/(1<<20), r.MemorySource)}
	if r.MemorySource == SourceNone {
		memory.Rule, memory.Fix = "it reserves nothing", "docker run --label "+labelMemory+"=256MiB"
	}
	cl := s.bound(c.Run())
	switch {
	case !c.Alive():
		cpu.Verdict, memory.Verdict = Unknown, Unknown
		cpu.Rule += "; it does not run"
	case s.failing[c.ID] != nil:
		cpu.Verdict = Unknown
		cpu.Rule += "; it cannot be measured: " + s.failing[c.ID].Error()
	case cl != nil && cl.measured:
		cpu.Rule += fmt.Sprintf("; it used %.3g in the last %.3g s", cl.m.Cores(), cl.m.Window.Seconds())
		if cl.m.Parts.Has(HasThrottling) && cl.m.Used.Throttled > 0 {
			cpu.Rule += fmt.Sprintf(", and was throttled in %d of %d periods", cl.m.Used.Throttled, cl.m.Used.Periods)
		}
		if cl.m.Parts.Has(HasMemory) {
			memory.Rule += fmt.Sprintf("; its working set is %.1f MiB", float64(cl.m.Memory)/(1<<20))
		}
	default:
		cpu.Verdict, memory.Verdict = Unknown, Unknown
		cpu.Rule += "; it has not been measured yet"
	}
	out = append(out, cpu, memory)
	for _, f := range refused {
		out = append(out, agent.Reason{Subject: f.subject, Verdict: Refused, Rule: f.why, Fix: f.fix})
	}
	return out
}
