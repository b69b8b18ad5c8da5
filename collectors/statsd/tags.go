package statsd

import (
	"cmp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/berthd/berth/agent"
)

// tagNames are what Config.ContainerTags may have, besides labels.
var tagNames = []string{
	"service", "env", "version", "cluster", "image_name", "image_tag",
	"container_name", "container_id", "task", "task_container", "orchestrator",
}

// ddLabels is what the labels of Datadog's unified service tagging begin with
// (https://docs.datadoghq.com/getting_started/tagging/unified_service_tagging/).
const ddLabels = "com.datadoghq.tags."

// tagsOf returns the tags of a container. It is pure.
func (c Config) tagsOf(ct *agent.Container) []tag {
	var tags []tag
	origin := agent.OriginOf(ct)
	for _, name := range c.ContainerTags {
		key, label, custom := strings.Cut(name, "=")
		value := ""
		if custom {
			value = ct.Labels[label]
		} else {
			value = valueOf(name, ct, origin)
		}
		if t, ok := makeTag(key, value); ok {
			tags = append(tags, t)
		}
	}
	return slices.Concat(c.fixedTags(), tags)
}

// fixedTags returns the tags of every line.
func (c Config) fixedTags() []tag {
	var tags []tag
	for _, text := range c.Tags {
		key, value, _ := strings.Cut(text, ":")
		if t, ok := makeTag(key, value); ok {
			tags = append(tags, t)
		}
	}
	return tags
}

// valueOf returns what one of the tagNames says of a container, or "".
func valueOf(name string, c *agent.Container, from agent.Origin) string {
	switch name {
	case "service":
		return cmp.Or(c.Labels[ddLabels+"service"], c.Env["DD_SERVICE"], c.Labels["SERVICE_NAME"], c.Env["SERVICE_NAME"], from.Service)
	case "env":
		return cmp.Or(c.Labels[ddLabels+"env"], c.Env["DD_ENV"])
	case "version":
		return cmp.Or(c.Labels[ddLabels+"version"], c.Env["DD_VERSION"])
	case "cluster":
		return from.Cluster
	case "image_name":
		image, _ := splitImage(c.Image)
		return image
	case "image_tag":
		_, tag := splitImage(c.Image)
		return tag
	case "container_name":
		return c.Name
	case "container_id":
		return c.ID
	case "task":
		return from.Task
	case "task_container":
		return from.Container
	case "orchestrator":
		return from.Orchestrator
	}
	return ""
}

// splitImage splits a reference such as registry:5000/shop/web:1.4@sha256:… into
// its name and its tag. An image that has an ID only has neither.
func splitImage(ref string) (name, tag string) {
	ref, _, _ = strings.Cut(ref, "@")
	if rest, ok := strings.CutPrefix(ref, "sha256:"); ok || rest == "" {
		return "", ""
	}
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		return ref[:i], ref[i+1:]
	}
	return ref, ""
}

// makeTag returns a tag without what would end it early: neither a label nor an
// image can make another tag, another field or another line of its value.
func makeTag(key, value string) (tag, bool) {
	value = strings.TrimSpace(strings.Map(func(r rune) rune {
		switch {
		case r == ',' || r == '|' || r == utf8.RuneError:
			return '_'
		case unicode.IsControl(r):
			return ' '
		}
		return r
	}, value))
	if value == "" {
		return tag{}, false
	}
	if most := maxTagBytes - len(key) - 1; len(value) > most {
		for most > 0 && !utf8.RuneStart(value[most]) {
			most--
		}
		value = value[:max(most, 0)]
	}
	return tag{text: key + ":" + value, key: len(key)}, true
}

// common returns the tags that all of several containers have, in the order of
// the first.
func common(all [][]tag) []tag {
	return slices.DeleteFunc(slices.Clone(all[0]), func(t tag) bool {
		return slices.ContainsFunc(all[1:], func(others []tag) bool { return !slices.Contains(others, t) })
	})
}
