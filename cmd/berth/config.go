package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/admin"
	"github.com/berthd/berth/agent/config"
	"github.com/berthd/berth/agent/docker"
	"github.com/berthd/berth/agent/node"
	"github.com/berthd/berth/collectors/discovery"
	"github.com/berthd/berth/collectors/logprune"
	"github.com/berthd/berth/collectors/statsd"
	"github.com/berthd/berth/collectors/usage"
	"github.com/berthd/berth/sinks/cloudwatch"
	"github.com/berthd/berth/sinks/dnsserver"
	"github.com/berthd/berth/sinks/dogstatsd"
	"github.com/berthd/berth/sinks/openmetrics"
	"github.com/berthd/berth/sinks/rfc2136"
	"github.com/berthd/berth/sinks/route53"
)

// Where the configuration is unless a flag says otherwise.
const (
	defaultConfig = "/etc/berth/berth.yaml"
	defaultConfD  = "/etc/berth/conf.d"
)

// Config is the configuration of berth. All of it is optional: what is shown
// here are the defaults, which work on any host and with no cloud. Changes
// take effect with "berth reload" or SIGHUP.
type Config struct {
	// StateDir is where berth keeps what must survive a restart. A restart is
	// needed to change it.
	StateDir string `yaml:"state_dir"`
	// Log is what berth says on standard error.
	Log LogConfig `yaml:"log"`
	// Engine is the container engine that berth follows. A restart is needed to
	// change it.
	Engine docker.Config `yaml:"engine"`
	// Loop is how berth follows it. A restart is needed to change it.
	Loop LoopConfig `yaml:"loop"`
	// Node is who this host is. A restart is needed to change it.
	Node node.Config `yaml:"node"`
	// Admin is the socket that berth's own commands use. A restart is needed to
	// change it.
	Admin admin.Config `yaml:"admin"`
	// Discovery gives containers names in DNS.
	Discovery discovery.Config `yaml:"discovery"`
	// DNS is the embedded DNS server, which serves these names.
	DNS dnsserver.Config `yaml:"dns"`
	// RFC2136 keeps these names in a zone of BIND, Knot or another server that
	// takes dynamic updates, for a fleet. Turning it off takes this host's records
	// out of the zone first.
	RFC2136 rfc2136.Config `yaml:"rfc2136"`
	// Route53 keeps these names in a hosted zone of Amazon Route 53, for a fleet.
	// Turning it off, or another zone, takes this host's records out of the old
	// one first.
	Route53 route53.Config `yaml:"route53"`
	// Usage measures what containers use, and compares it with what they reserve.
	Usage usage.Config `yaml:"usage"`
	// StatsD relays the metrics that containers send, and says who they are.
	StatsD statsd.Config `yaml:"statsd"`
	// Prune deletes the log folders of containers that are gone. Until it is
	// enabled, it only plans.
	Prune logprune.Config `yaml:"prune"`
	// OpenMetrics serves berth's own figures to Prometheus.
	OpenMetrics openmetrics.Config `yaml:"openmetrics"`
	// DogStatsD sends berth's own figures to a Datadog agent.
	DogStatsD dogstatsd.Config `yaml:"dogstatsd"`
	// CloudWatch sends a few of berth's own figures to Amazon CloudWatch.
	CloudWatch cloudwatch.Config `yaml:"cloudwatch"`
	// ClusterScale is what the command berth cluster-scale publishes about an ECS
	// cluster. The daemon does nothing with it.
	ClusterScale cloudwatch.ScaleConfig `yaml:"cluster_scale"`
}

// LogConfig is the section `log`.
type LogConfig struct {
	// Level is how much is said: debug, info, warn or error.
	Level LogLevel `yaml:"level"`
	// Format is text, for people and the journal, or json.
	Format LogFormat `yaml:"format"`
}

// LogLevel is a value of LogConfig.Level.
type LogLevel string

// Values returns the levels.
func (LogLevel) Values() []string { return []string{"debug", "info", "warn", "error"} }

// LogFormat is a value of LogConfig.Format.
type LogFormat string

// Values returns the formats.
func (LogFormat) Values() []string { return []string{"text", "json"} }

// LoopConfig is the section `loop`.
type LoopConfig struct {
	// Resync is how often all containers and networks are listed, besides after
	// each reconnect. Events tell at once; this heals what they lost.
	Resync config.Duration `yaml:"resync"`
	// StopHold is how long a container that was sent its stop signal is taken
	// to be stopping although it still runs: at least this long, and at least
	// its own stop time-out.
	StopHold config.Duration `yaml:"stop_hold"`
	// DeadRetention is how long the end of a container is remembered.
	DeadRetention config.Duration `yaml:"dead_retention"`
}

// DefaultConfig returns what is in force without a file.
func DefaultConfig() Config {
	loop := agent.DefaultLoopConfig()
	return Config{
		StateDir: "/var/lib/berth",
		Log:      LogConfig{Level: "info", Format: "text"},
		Engine:   docker.DefaultConfig(),
		Loop: LoopConfig{
			Resync:        config.Duration(loop.Resync),
			StopHold:      config.Duration(loop.StopHold),
			DeadRetention: config.Duration(loop.DeadRetention),
		},
		Node:         node.DefaultConfig(),
		Admin:        admin.DefaultConfig(),
		Discovery:    discovery.DefaultConfig(),
		DNS:          dnsserver.DefaultConfig(),
		RFC2136:      rfc2136.DefaultConfig(),
		Route53:      route53.DefaultConfig(),
		Usage:        usage.DefaultConfig(),
		StatsD:       statsd.DefaultConfig(),
		Prune:        logprune.DefaultConfig(),
		OpenMetrics:  openmetrics.DefaultConfig(),
		DogStatsD:    dogstatsd.DefaultConfig(),
		CloudWatch:   cloudwatch.DefaultConfig(),
		ClusterScale: cloudwatch.DefaultScaleConfig(),
	}
}

// Validate checks what no section can check by itself.
func (c Config) Validate() error {
	var errs []error
	if !filepath.IsAbs(c.StateDir) {
		errs = append(errs, config.Fieldf("state_dir", "%q is not an absolute path: write it as /var/lib/berth", c.StateDir))
	}
	// The embedded server is the last word on the domain for those who ask it: it
	// would deny the names of all other hosts, which only the fleet's zone has.
	if zone := c.fleetZone(); zone != "" && c.DNS.Enabled && c.DNS.Forward && !c.DNS.ForwardMisses {
		errs = append(errs, config.Fieldf("dns.forward", "whoever asks this server for all names would not find those of %s that other hosts have in %s: set dns.forward_misses: true as well, or another discovery.domain", c.Discovery.Domain, zone))
	}
	return errors.Join(errs...)
}

// fleetZone returns the section that keeps the names in a zone of the whole
// fleet; empty where they stay on this host.
func (c Config) fleetZone() string {
	switch {
	case !c.Discovery.Enabled:
		return ""
	case c.RFC2136.Enabled:
		return "rfc2136"
	case c.Route53.Enabled:
		return "route53"
	}
	return ""
}

// Validate checks the section.
func (c LoopConfig) Validate() error {
	if c.Resync.Std() < time.Second {
		return config.Fieldf("resync", "%v is too often: once a second is the most, and once a minute is enough", c.Resync)
	}
	return nil
}

// loop returns the settings of the loop.
func (c LoopConfig) loop() agent.LoopConfig {
	l := agent.DefaultLoopConfig()
	l.Resync, l.StopHold, l.DeadRetention = c.Resync.Std(), c.StopHold.Std(), c.DeadRetention.Std()
	return l
}

// configFiles says where the configuration comes from.
type configFiles struct {
	file string
	dir  string
	set  []string      // key=value
	more []config.File // overrides by a command's own flags
}

func (f *configFiles) flags(flags *pflag.FlagSet) {
	flags.StringVarP(&f.file, "config", "c", defaultConfig, "configuration file")
	flags.StringVar(&f.dir, "conf-d", "", "folder of further *.yaml files (default conf.d beside the configuration file)")
	flags.StringArrayVar(&f.set, "set", nil, "set one key, as in --set dns.port=5353 (repeatable)")
}

// loaded is a valid configuration and where it came from.
type loaded struct {
	Config
	result *config.Result
	files  []string
}

// load reads and validates the configuration. A default file that does not
// exist is no error: the defaults are in force then.
func (f *configFiles) load() (*loaded, error) {
	dir := f.dir
	if dir == "" {
		dir = filepath.Join(filepath.Dir(f.file), "conf.d")
	}
	files, err := config.ReadDir(f.file, dir)
	if errors.Is(err, fs.ErrNotExist) && f.file == defaultConfig {
		if _, statErr := os.Stat(f.file); errors.Is(statErr, fs.ErrNotExist) {
			files, err = config.ReadDir("", dir)
		}
	}
	if err != nil {
		return nil, &codedError{codeConfig, err}
	}
	l := &loaded{Config: DefaultConfig()}
	for _, file := range files {
		l.files = append(l.files, file.Name)
	}
	for _, kv := range f.set {
		key, value, ok := strings.Cut(kv, "=")
		if !ok || key == "" {
			return nil, usageError(fmt.Errorf("--set %s: write it as --set key=value, as in --set dns.port=5353", kv))
		}
		files = append(files, config.Override("flag --set "+key, key, value))
	}
	l.result, err = config.Load(&l.Config, append(files, f.more...)...)
	if err != nil {
		return nil, err
	}
	return l, nil
}

// logger returns the logger that the section asks for. Under systemd the
// journal stamps each line itself.
func (c LogConfig) logger() *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.Level)) // validated
	opts := &slog.HandlerOptions{Level: level}
	if os.Getenv("JOURNAL_STREAM") != "" {
		opts.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey && len(groups) == 0 {
				return slog.Attr{}
			}
			return a
		}
	}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, opts))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, opts))
}
