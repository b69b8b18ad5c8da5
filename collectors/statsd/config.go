package statsd

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/berthd/berth/agent/config"
	"github.com/berthd/berth/agent/sockets"
)

// Config is the section `statsd` of berth's configuration.
type Config struct {
	// Enabled turns the relay on.
	Enabled bool `yaml:"enabled"`

	// Listen is the addresses to receive on over UDP, besides the gateways of all
	// of the engine's bridge networks, which are always received on and followed
	// as networks come and go. Only loopback, private, link-local and
	// carrier-grade NAT addresses are accepted.
	Listen []netip.Addr `yaml:"listen"`

	// Port is the UDP port on every address. 0 takes any free port.
	Port uint16 `yaml:"port"`

	// Socket is the Unix datagram socket for containers in the host's network,
	// which mount its folder. Nothing else belongs into this folder, and it must
	// never be made anew while containers have it mounted. Empty: no socket.
	Socket string `yaml:"socket"`

	// Upstream is where lines go, such as the Datadog agent of this host:
	// host:port for UDP, or the path of a Unix datagram socket, which is cheaper.
	Upstream string `yaml:"upstream"`

	// Payload is the most bytes of a datagram to the upstream, 512B to 8192B, and
	// no more than it reads. 0 is 1432B for UDP and 8192B for a Unix socket.
	Payload config.Size `yaml:"payload"`

	// Segmentation lets the kernel cut many UDP datagrams from one system call,
	// which halves the cost. They are filled up with newlines: turn it off for an
	// upstream that chokes on empty lines.
	Segmentation bool `yaml:"segmentation"`

	// Buffer is how much may wait for an upstream that is not there or does not
	// keep up, at least 64KiB. The oldest lines are dropped first.
	Buffer config.Size `yaml:"buffer"`

	// ReceiveBuffer is how much the kernel may hold for each socket until it is
	// read, 64KiB to 1GiB. A line takes some 800 bytes of it.
	ReceiveBuffer config.Size `yaml:"receive_buffer"`

	// Linger is how long berth waits for more lines at most before it looks again,
	// at 500 datagrams a second and more, 0s to 10ms: less where many arrive. It
	// saves most of the CPU.
	Linger config.Duration `yaml:"linger"`

	// Mode is how a line says where it comes from: tags (the container's tags),
	// cid (the container's ID as the field c:, for a Datadog agent that knows the
	// container), or none.
	Mode Mode `yaml:"mode"`

	// ContainerTags are what to tell of a container in mode tags: service, env,
	// version, cluster, image_name, image_tag, container_name, container_id, task,
	// task_container, orchestrator, or name=label for a label of the container, as
	// in team=com.example.team. A tag that the client itself sets is left alone.
	ContainerTags []string `yaml:"container_tags"`

	// Tags are added to every line in mode tags, as "region:eu".
	Tags []string `yaml:"tags"`

	// Strip removes the fields c:, e:, card: and T from lines, for upstreams that
	// do not know them.
	Strip bool `yaml:"strip"`

	// Malformed is what becomes of lines that are no metrics, events or service
	// checks: drop or pass.
	Malformed Malformed `yaml:"malformed"`

	// RateLimit is how many lines a second each container may send, and as many
	// at once. The others are dropped. 0 is no limit. Senders that are not known
	// are not limited.
	RateLimit int `yaml:"rate_limit"`
}

// Mode is a value of Config.Mode.
type Mode string

// The modes.
const (
	ModeTags Mode = "tags"
	ModeCID  Mode = "cid"
	ModeNone Mode = "none"
)

// Values returns the modes.
func (Mode) Values() []string { return []string{string(ModeTags), string(ModeCID), string(ModeNone)} }

// Malformed is a value of Config.Malformed.
type Malformed string

// What can be done with malformed lines.
const (
	MalformedDrop Malformed = "drop"
	MalformedPass Malformed = "pass"
)

// Values returns what can be done.
func (Malformed) Values() []string { return []string{string(MalformedDrop), string(MalformedPass)} }

// The bounds of settings.
const (
	minPayload  = 512
	maxPayload  = 8192 // what a Datadog agent reads (dogstatsd_buffer_size)
	minBuffer   = 64 << 10
	maxBuffer   = 1 << 30
	maxLinger   = 10 * time.Millisecond
	maxPath     = 107 // of unix(7), without the final zero
	maxTags     = 32
	maxTagBytes = 200 // which is Datadog's limit
)

// DefaultConfig returns a relay to a Datadog agent on this host.
func DefaultConfig() Config {
	return Config{
		Enabled:       true,
		Port:          8125,
		Socket:        "/run/berth-statsd/statsd.sock",
		Upstream:      "127.0.0.1:8125",
		Segmentation:  true,
		Buffer:        4 << 20,
		ReceiveBuffer: 8 << 20,
		Linger:        config.Duration(4 * time.Millisecond),
		Mode:          ModeTags,
		ContainerTags: []string{"service", "env", "version", "cluster", "image_name"},
		Malformed:     MalformedDrop,
	}
}

// Validate returns all that is wrong with the section, as *config.FieldError.
func (c Config) Validate() error {
	var errs []error
	add := func(field, format string, args ...any) { errs = append(errs, config.Fieldf(field, format, args...)) }
	for i, a := range c.Listen {
		if err := bindable(a); err != nil {
			add(fmt.Sprintf("listen[%d]", i), "%w", err)
		}
		if slices.Contains(c.Listen[:i], a) {
			add(fmt.Sprintf("listen[%d]", i), "%s is listed twice", a)
		}
	}
	if c.Socket != "" && !path.IsAbs(c.Socket) {
		add("socket", "%q is not an absolute path: write it as %s", c.Socket, DefaultConfig().Socket)
	}
	if len(c.Socket) > maxPath {
		add("socket", "the path has %d bytes, and a socket's may have %d: choose a shorter one", len(c.Socket), maxPath)
	}
	c.validateUpstream(add)
	if n := c.ReceiveBuffer.Bytes(); n < minBuffer || n > maxBuffer {
		add("receive_buffer", "%v is not between %v and %v", c.ReceiveBuffer, config.Size(minBuffer), config.Size(maxBuffer))
	}
	if c.Linger.Std() > maxLinger {
		add("linger", "%v is more than %v", c.Linger, config.Duration(maxLinger))
	}
	c.validateTags(add)
	if c.Strip && c.Mode == ModeCID {
		add("strip", "it removes what mode cid adds: choose one of them")
	}
	if c.RateLimit < 0 {
		add("rate_limit", "%d is negative: write how many lines a second, or 0 for no limit", c.RateLimit)
	}
	return errors.Join(errs...)
}

func (c Config) validateUpstream(add func(field, format string, args ...any)) {
	at, file, err := parseUpstream(c.Upstream)
	switch {
	case err != nil:
		add("upstream", "%w", err)
	case file != "" && path.Clean(file) == path.Clean(c.Socket):
		add("upstream", "%s is the relay's own socket: lines would go around for ever", file)
	case c.own(at):
		add("upstream", "%s is where the relay itself receives: lines would go around for ever; change port or listen", at)
	}
	if n := c.Payload.Bytes(); n != 0 && (n < minPayload || n > maxPayload) {
		add("payload", "%v is not between %v and %v; 0 chooses by the transport", c.Payload, config.Size(minPayload), config.Size(maxPayload))
	}
	if n := c.Buffer.Bytes(); n < minBuffer || n > maxBuffer {
		add("buffer", "%v is not between %v and %v", c.Buffer, config.Size(minBuffer), config.Size(maxBuffer))
	}
}

// own reports whether the relay listens there by its configuration.
func (c Config) own(at netip.AddrPort) bool {
	return at.IsValid() && at.Port() == c.Port && slices.ContainsFunc(c.Listen, func(a netip.Addr) bool { return a.Unmap() == at.Addr() })
}

// parseUpstream returns an upstream's address, if it has no name to look up, or
// its socket's path.
func parseUpstream(s string) (netip.AddrPort, string, error) {
	if file, ok := strings.CutPrefix(s, "unix://"); ok || path.IsAbs(s) {
		if !path.IsAbs(file) {
			return netip.AddrPort{}, "", fmt.Errorf("%q is not an absolute path of a socket: write it as /var/run/datadog/dsd.socket", s)
		}
		return netip.AddrPort{}, file, nil
	}
	if at, err := netip.ParseAddrPort(s); err == nil && at.Port() != 0 && !at.Addr().IsUnspecified() {
		return netip.AddrPortFrom(at.Addr().Unmap(), at.Port()), "", nil
	}
	if named.MatchString(s) {
		return netip.AddrPort{}, "", nil
	}
	return netip.AddrPort{}, "", fmt.Errorf("%q is neither host:port nor the path of a socket: write it as 127.0.0.1:8125 or /var/run/datadog/dsd.socket", s)
}

// named is a host's name with a port.
var named = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*[A-Za-z][A-Za-z0-9._-]*:[1-9][0-9]{0,4}$`)

// tagForm is a tag with a value.
var tagForm = regexp.MustCompile(`^[^:,|\s#][^:,|\n\r]*:[^,|\n\r]+$`)

func (c Config) validateTags(add func(field, format string, args ...any)) {
	keys := make(map[string]string)
	check := func(field, key string) {
		switch {
		case key == "host" || strings.HasPrefix(key, "dd.internal."):
			add(field, "the tag %s is not passed on but changes whom a metric is booked to: choose another name", key)
		case keys[key] != "":
			add(field, "the tag %s is also that of %s", key, keys[key])
		default:
			keys[key] = field
		}
	}
	for i, name := range c.ContainerTags {
		field := fmt.Sprintf("container_tags[%d]", i)
		key, label, custom := strings.Cut(name, "=")
		switch {
		case custom && label != "" && tagForm.MatchString(key+":x"):
			check(field, key)
		case custom || !slices.Contains(tagNames, name):
			add(field, "%q is not known: choose from %s, or write name=label for a label of the container", name, strings.Join(tagNames, ", "))
		default:
			check(field, key)
		}
	}
	for i, t := range c.Tags {
		field := fmt.Sprintf("tags[%d]", i)
		if !tagForm.MatchString(t) || len(t) > maxTagBytes {
			add(field, "%q is not a tag: write it as name:value, of at most %d bytes and without commas, bars and newlines", t, maxTagBytes)
			continue
		}
		key, _, _ := strings.Cut(t, ":")
		check(field, key)
	}
	if n := len(c.ContainerTags) + len(c.Tags); n > maxTags {
		add("tags", "there are %d tags with those of containers, and at most %d are possible", n, maxTags)
	}
}

// bindable returns why a must not be listened on, or nil. Whoever can send to a
// relay can write into the metrics of this host.
func bindable(a netip.Addr) error {
	return sockets.Bindable(a, "receive on", "whoever reaches it could write into this host's metrics")
}
