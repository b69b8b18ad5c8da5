package discovery

// The verdicts of an agent.Reason that discovery gives.
const (
	Registered = "registered" // it has records
	Out        = "out"        // it has none now, and the rule says until when
	Refused    = "refused"    // it is wrong, and has to be corrected
	Ignored    = "ignored"    // nothing is asked for, or something else counts
	Noted      = "noted"      // for your information
)
