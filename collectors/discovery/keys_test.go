package discovery

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/berthd/berth/agent"
)

// putKey sets a key, in a label or in a variable.
func putKey(c *agent.Container, where, name, value string) *agent.Container {
	return with(c, func(c *agent.Container) {
		pairs := &c.Labels
		if where == inVariable {
			pairs = &c.Env
		}
		next := map[string]string{name: value}
		for k, v := range *pairs {
			if k != name {
				next[k] = v
			}
		}
		*pairs = next
	})
}

// places returns where a key may be, and where it must have no effect.
func (k Key) places() (may, mustNot []string) {
	switch k.Where {
	case inLabel:
		return []string{inLabel}, []string{inVariable}
	case inVariable:
		return []string{inVariable}, []string{inLabel}
	}
	return []string{inLabel, inVariable}, nil
}

// Every key of the table does something with the value that it gives as an
// example, where it says so and nowhere else.
func TestKeysAreHandled(t *testing.T) {
	for _, k := range Keys() {
		value, _, _ := strings.Cut(k.Example, ", or ")
		names := []string{k.Name}
		effect := identityEffect
		if strings.HasPrefix(k.Name, keyPrefix) {
			name := strings.NewReplacer("<check>", "HTTP", "<attribute>", "REGION").Replace(k.Name)
			names = []string{strings.Replace(name, "<port>", "80", 1), strings.Replace(name, "<port>_", "", 1)}
			effect = serviceEffect
		} else if k.Name == optInLabel {
			effect = serviceEffect
		}
		may, mustNot := k.places()
		for _, name := range names {
			for _, where := range may {
				if !effect(t, where, name, value) {
					t.Errorf("%s %s=%s: got no effect", where, name, value)
				}
			}
			for _, where := range mustNot {
				if effect(t, where, name, value) {
					t.Errorf("%s %s=%s: got an effect, want none", where, name, value)
				}
			}
		}
	}
}

// serviceEffect reports whether a key of a service changes what is made of a
// container, other than by becoming an attribute.
func serviceEffect(t *testing.T, where, name, value string) bool {
	t.Helper()
	base := with(container("1", nil, port("80/tcp=0.0.0.0:8080")), func(c *agent.Container) {
		if name != optInLabel && !strings.HasSuffix(name, "_"+keyName) {
			c.Labels = map[string]string{"SERVICE_80_NAME": "time"}
		}
		c.Endpoints = append(c.Endpoints, agent.Endpoint{Network: "backend", NetworkID: "net-backend", IPv4: netip.MustParseAddr("172.19.0.2")})
	})
	rules := mustRules(t, func(c *Config) { c.NameTemplate = "named-by-template" })
	services := func(c *agent.Container) []Service {
		snap := snapshot(c)
		snap.Networks = append(snap.Networks, agent.Network{ID: "net-backend", Name: "backend", Driver: "bridge"})
		return rules.evaluate(snap, testNow, new(memo)).services()
	}
	before, after := services(base), services(putKey(base, where, name, value))
	_, word, _ := strings.Cut(strings.ToLower(name), "_")
	word = strings.TrimPrefix(word, "80_")
	for _, s := range after {
		for i := range s.Instances {
			if word != "region" {
				delete(s.Instances[i].Attributes, word)
			}
			if len(s.Instances[i].Attributes) == 0 {
				s.Instances[i].Attributes = nil
			}
		}
	}
	return !reflect.DeepEqual(before, after)
}

// identityEffect reports whether a key of an orchestrator changes where a
// container is said to come from.
func identityEffect(_ *testing.T, where, name, value string) bool {
	// What says that the orchestrator started it, which the other keys need.
	base := container("1", nil)
	for prefix, gate := range map[string]string{
		ecsPrefix:     "label " + ecsPrefix + "task-arn",
		nomadPrefix:   "label " + nomadPrefix + "alloc_id",
		"NOMAD_":      "label " + nomadPrefix + "alloc_id",
		"MESOS_":      "variable MARATHON_APP_ID",
		swarmPrefix:   "label " + swarmPrefix + "service.name",
		stackLabel:    "label " + swarmPrefix + "service.name",
		composePrefix: "label " + composePrefix + "project",
	} {
		if in, key, _ := strings.Cut(gate, " "); strings.HasPrefix(name, prefix) && name != key && name != "NOMAD_ALLOC_ID" {
			base = putKey(base, in, key, "shop_gate")
		}
	}
	return Identity(base) != Identity(putKey(base, where, name, value))
}

func TestKeysAreDescribed(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range Keys() {
		if k.Example == "" || !strings.HasSuffix(k.Doc, ".") {
			t.Errorf("%s: got example %q, doc %q, want both, the latter as a sentence", k.Name, k.Example, k.Doc)
		}
		if seen[k.Name] {
			t.Errorf("%s is there twice", k.Name)
		}
		seen[k.Name] = true
	}
}
