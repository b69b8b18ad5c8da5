package discovery

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"time"

	"github.com/berthd/berth/agent"
)

// optInLabel lets the name template name a container's ports.
const optInLabel = "berth.discovery"

// rules is a Config made ready for use. It is immutable once Run has begun.
type rules struct {
	cfg      Config
	zone     string // the domain with the final dot
	ttl      uint32 // seconds
	template *template.Template
	// addresses returns the address of a container whose network the engine
	// does not manage; it may be nil.
	addresses AddressFunc
	// checks returns what is known of a check; it may be nil.
	checks func(checkKey) (checkState, bool)
	// began is when the collector did: later runs started under its eyes. It is
	// set once, before the first evaluation.
	began time.Time
}

func newRules(cfg Config) (*rules, error) {
	if err := errors.Join(cfg.Validate(), cfg.Checks.Validate()); err != nil {
		return nil, err
	}
	t, err := parseTemplate(cfg.NameTemplate)
	if err != nil {
		return nil, err
	}
	return &rules{cfg: cfg, zone: cfg.Zone(), ttl: seconds(cfg.TTL.Std()), template: t}, nil
}

// claim is one name that a container claims for one of its ports.
type claim struct {
	from    string // what claims it: "label SERVICE_80_NAME"
	name    serviceName
	port    uint16 // inside the container
	proto   string
	srv     string // name of the SRV records, with the final dot
	alias   string // of a plain name, with the final dot, or ""
	options *options
}

// subject is how an explanation calls the claim: "calc on 80/tcp".
func (cl *claim) subject() string { return cl.name.String() + " on " + portName(cl.port, cl.proto) }

// plan is all that a container asks for, whether or not it gets it. It depends
// on the container and on the one whose network it uses, and on nothing else.
type plan struct {
	claims []claim // by port, in the order of the value, then by protocol
	notes  []agent.Reason
	asked  []string // the values of all names, as written, sorted
	silent bool     // nothing at all is asked for
}

var silentPlan = &plan{silent: true}

// plan reads what container c asks for. Its ports are those of owner: itself,
// or the container whose network it shares.
func (r *rules) plan(c, owner *agent.Container) *plan {
	s := collect(c)
	optedIn, _ := strconv.ParseBool(c.Labels[optInLabel])
	if len(s.values) == 0 && len(s.notes) == 0 && !optedIn {
		return silentPlan
	}
	b := planner{rules: r, settings: &s, owner: owner}
	b.fallback(c, optedIn)
	for _, port := range b.candidates() {
		b.port(port)
	}
	b.plan.notes = append(s.notes, b.plan.notes...)
	b.plan.asked = b.asked()
	return &b.plan
}

// planner builds one plan.
type planner struct {
	rules    *rules
	settings *settings
	owner    *agent.Container
	// general names the ports that have no name of their own: SERVICE_NAME, or
	// the name template.
	general setting
	several bool // general names get the port's number
	plan    plan
}

func (b *planner) note(subject, verdict, rule, fix string) {
	n := agent.Reason{Subject: subject, Verdict: verdict, Rule: rule, Fix: fix}
	if !slices.Contains(b.plan.notes, n) {
		b.plan.notes = append(b.plan.notes, n)
	}
}

// fallback finds the name of ports which have none of their own.
func (b *planner) fallback(c *agent.Container, optedIn bool) {
	if name, ok := b.settings.lookup(0, keyName); ok {
		b.general = name
		return
	}
	if !optedIn {
		return
	}
	const subject = "label " + optInLabel
	if b.rules.template == nil {
		b.note(subject, Ignored, "no name template is configured", "set discovery.name_template, or use SERVICE_<port>_NAME")
		return
	}
	var text strings.Builder
	if err := b.rules.template.Execute(&text, templateData{Identity(c), c.Name}); err != nil {
		b.note(subject, Refused, "the name template fails: "+err.Error(), "correct discovery.name_template")
		return
	}
	b.general = setting{strings.TrimSpace(text.String()), subject + " and the name template"}
	if b.general.value == "" {
		b.note(subject, Refused, "the name template makes an empty name of this container", "correct discovery.name_template, or use SERVICE_<port>_NAME")
	}
}

// asked returns the values of all names, whether or not their ports are known.
func (b *planner) asked() []string {
	var values []string
	for k, v := range b.settings.values {
		if k.key == keyName && v.value != "" {
			values = append(values, v.value)
		}
	}
	if b.general.value != "" {
		values = append(values, b.general.value)
	}
	slices.Sort(values)
	return slices.Compact(values)
}

// candidates returns the ports that may get names, sorted: those with keys of
// their own, and for a general name those that can be reached as far as the
// plan can tell (published ones, where any is).
func (b *planner) candidates() []uint16 {
	ports := b.settings.ports()
	if b.general.value == "" {
		return ports
	}
	var published, named []uint16
	anyPublished := slices.ContainsFunc(b.owner.Ports, agent.Port.Published)
	for _, p := range b.owner.Ports {
		if p.Published() {
			published = append(published, p.Container)
		}
		network, _ := b.settings.lookup(p.Container, keyNetwork)
		if p.Published() || !anyPublished || network.value != "" {
			named = append(named, p.Container)
		}
	}
	slices.Sort(named)
	named = slices.Compact(named)
	slices.Sort(published)
	b.several = max(len(named), len(slices.Compact(published))) > 1
	if len(named) == 0 {
		b.note(b.general.from, Out, "names every port of the container, and no port of it is known",
			"say which: SERVICE_<port>_NAME="+b.general.value)
	}
	ports = append(ports, named...)
	slices.Sort(ports)
	return slices.Compact(ports)
}

// port plans one port.
func (b *planner) port(port uint16) {
	subject := strconv.Itoa(int(port))
	if ignore, _ := b.settings.lookup(port, keyIgnore); ignore.value != "" {
		b.note(subject, Ignored, ignore.from+" is set", "remove it")
		return
	}
	name, general := b.name(port)
	if name.value == "" {
		b.note(subject, Ignored, "it has settings but no name", fmt.Sprintf("set SERVICE_%d_NAME", port))
		return
	}
	options := b.settings.options(port, &b.rules.cfg)
	options.check = b.check(port)
	for text := range strings.SplitSeq(name.value, ",") {
		b.claim(port, strings.TrimSpace(text), name.from, general, &options)
	}
}

// name returns the name of a port, and whether it is the general one.
func (b *planner) name(port uint16) (name setting, general bool) {
	if v, ok := b.settings.values[settingKey{port, keyName}]; ok {
		return v, false
	}
	if listed := slices.ContainsFunc(b.owner.Ports, func(p agent.Port) bool { return p.Container == port }); !listed {
		return setting{}, true
	}
	return b.general, true
}

// claim adds one name for one port, once for each protocol that it means.
func (b *planner) claim(port uint16, text, from string, general bool, o *options) {
	subject := fmt.Sprintf("%q on %d", text, port)
	refuse := func(rule, fix string) { b.note(subject, Refused, from+": "+rule, fix) }
	name, err := parseName(text, b.rules.cfg.Domain)
	if err == nil && general && b.several {
		name, err = name.withPort(port, b.rules.cfg.Domain)
	}
	if err != nil {
		refuse("the name "+err.Error(), "use letters, digits and hyphens: calc, or _calc._tcp")
		return
	}
	protos := b.protos(port)
	if name.proto != "" && len(protos) > 0 && !slices.Contains(protos, name.proto) {
		rule := fmt.Sprintf("port %d is a %s port", port, strings.Join(protos, " and "))
		if general {
			b.note(subject, Ignored, from+": "+rule, "")
		} else {
			refuse(rule, fmt.Sprintf("write _%s._%s, or publish %d/%s", name.service, protos[0], port, name.proto))
		}
		return
	}
	switch {
	case name.proto != "":
		protos = []string{name.proto}
	case len(protos) == 0:
		protos = []string{"tcp"}
	}
	for _, proto := range protos {
		if !name.allowed(b.rules.cfg.AllowNames, proto) {
			refuse("discovery.allow_names does not allow it", "use another name, or add a pattern to discovery.allow_names")
			continue
		}
		cl := claim{
			from: from, name: name, port: port, proto: proto, options: o,
			srv: name.srv(proto, b.rules.zone), alias: name.alias(b.rules.zone),
		}
		if !slices.ContainsFunc(b.plan.claims, func(e claim) bool { return e.port == port && e.srv == cl.srv && e.alias == cl.alias }) {
			b.plan.claims = append(b.plan.claims, cl)
		}
	}
}

// protos returns the protocols that the container lists for a port, sorted.
func (b *planner) protos(port uint16) []string {
	var protos []string
	for _, p := range b.owner.Ports {
		if p.Container == port && knownProto(p.Proto) {
			protos = append(protos, p.Proto)
		}
	}
	slices.Sort(protos)
	return slices.Compact(protos)
}

func portName(port uint16, proto string) string { return strconv.Itoa(int(port)) + "/" + proto }
