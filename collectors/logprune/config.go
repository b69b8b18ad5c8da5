package logprune

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/berthd/berth/agent/config"
)

// When is a value of Config.When.
type When string

// Values returns the values.
func (When) Values() []string { return []string{whenRemoved, whenStopped} }

// Archive modes, as Config.Archive has them.
type ArchiveMode string

// Values returns the values.
func (ArchiveMode) Values() []string { return []string{archiveIgnored, archiveRequired} }

// Unsure is a value of Config.CannotTell.
type Unsure string

// Values returns the values.
func (Unsure) Values() []string { return []string{unsureRefuse, unsureReport} }

// UnderMounts is a value of Config.UnderMounts.
type UnderMounts string

// Values returns the values.
func (UnderMounts) Values() []string { return []string{underSeen, underKeep, underDelete} }

const (
	whenRemoved = "removed"
	whenStopped = "stopped"

	archiveIgnored  = "ignored"
	archiveRequired = "required"

	unsureRefuse = "refuse"
	unsureReport = "report"

	underSeen   = "seen"
	underKeep   = "keep"
	underDelete = "delete"
)

// Config is the section `prune` of berth's configuration.
type Config struct {
	// Enabled lets berth delete folders of logs. Until then it only plans: berth
	// prune --dry-run shows what it would do.
	Enabled bool `yaml:"enabled"`

	// Roots are the folders that hold one folder for each container, named by its
	// full ID or the first twelve digits of it. They are glob patterns; "**" stands
	// for any number of folders. Nothing else is ever looked at.
	Roots []string `yaml:"roots"`

	// When is what a container must be for its folder to go: removed, or stopped
	// (which includes removed). A container that was created and never started,
	// is paused, or is restarting is not stopped.
	When When `yaml:"when"`

	// Retain is how long a folder stays after the end of its container, and after
	// the last change of any file in it.
	Retain config.Duration `yaml:"retain"`

	// RetainMin is how far the pressure of a full disk may shorten that.
	RetainMin config.Duration `yaml:"retain_min"`

	// ExemptLabels keep the folders of containers that have one of them: a
	// label's name, or name=value.
	ExemptLabels []string `yaml:"exempt_labels"`

	// Exempt keeps folders, as glob patterns of their whole path or of a folder
	// that they are in.
	Exempt []string `yaml:"exempt"`

	// Archive is ignored or required: then a folder goes only when all of its
	// files are known to be archived.
	Archive ArchiveMode `yaml:"archive"`

	// CannotTell is what to do where berth cannot tell whether a file is still
	// open, because it may not look at some process: refuse to delete, or delete
	// and report it.
	CannotTell Unsure `yaml:"cannot_tell"`

	// UnderMounts is about folders below one that a container mounts, as
	// containers that watch their host do: such a folder goes only if berth has
	// seen its container (seen), never (keep), or as any other (delete). A folder
	// that is mounted itself, or in which something is that is, never goes.
	UnderMounts UnderMounts `yaml:"under_mounts"`

	// Many, together with ManyPercent, is how many folders may become due at once:
	// the larger of the two. More than that are believed only if a second scan,
	// ConfirmAfter later, finds the same.
	Many int `yaml:"many"`
	// ManyPercent is a part of all folders of containers; see Many.
	ManyPercent config.Percent `yaml:"many_percent"`
	// ConfirmAfter is how long after the first the second scan may be.
	ConfirmAfter config.Duration `yaml:"confirm_after"`

	// Scan is how often everything is looked at, besides when a container dies.
	Scan config.Duration `yaml:"scan"`

	// Rate is how many files may be deleted in a second; 0 for as many as can be.
	// It does not hold under pressure.
	Rate int `yaml:"rate"`

	// MaxWatches is how many folders are watched for new roots in them, of those
	// on the way to roots. Others are seen by the next scan.
	MaxWatches int `yaml:"max_watches"`

	// Pressure is what happens when a file system with roots fills up.
	Pressure PressureConfig `yaml:"pressure"`

	// Images is the pruning of images that no container uses.
	Images ImagesConfig `yaml:"images"`

	// Containers is the pruning of containers that have stopped.
	Containers ContainersConfig `yaml:"containers"`
}

// PressureConfig is the section `prune.pressure`.
type PressureConfig struct {
	// High is how full a file system may be, in bytes or in inodes, before more
	// is deleted than what is due: the oldest first, down to retain_min. Nothing
	// of a container that lives is, however full it is.
	High config.Percent `yaml:"high"`
	// Low is where that ends.
	Low config.Percent `yaml:"low"`
}

// ImagesConfig is the section `prune.images`.
type ImagesConfig struct {
	// Enabled lets berth remove images.
	Enabled bool `yaml:"enabled"`
	// At is the time of day, as 15:04 in the host's time zone.
	At string `yaml:"at"`
	// Jitter spreads the hosts of a fleet over this long after it.
	Jitter config.Duration `yaml:"jitter"`
	// KeepFor is how long an image stays that no container uses. Of an image
	// whose last use is not known, it counts from when berth first saw it.
	KeepFor config.Duration `yaml:"keep_for"`
	// Keep keeps images, as glob patterns of their references.
	Keep []string `yaml:"keep"`
	// KeepRecent is how many images of each repository stay in any case: the
	// newest ones.
	KeepRecent int `yaml:"keep_recent"`
}

// ContainersConfig is the section `prune.containers`.
type ContainersConfig struct {
	// Enabled lets berth remove containers that have stopped: never forced, never
	// with their volumes, and never those of ECS, whose agent does it itself.
	Enabled bool `yaml:"enabled"`
	// At is the time of day, as 15:04 in the host's time zone.
	At string `yaml:"at"`
	// Jitter spreads the hosts of a fleet over this long after it.
	Jitter config.Duration `yaml:"jitter"`
	// KeepFor is how long a container stays after its end.
	KeepFor config.Duration `yaml:"keep_for"`
	// ExemptLabels keep the containers that have one of them: a label's name, or
	// name=value.
	ExemptLabels []string `yaml:"exempt_labels"`
}

// DefaultConfig returns the configuration that is safe on any host: a dry run.
func DefaultConfig() Config {
	return Config{
		Roots:        []string{"/var/log/*/*/containers"},
		When:         whenRemoved,
		Retain:       config.Duration(time.Hour),
		RetainMin:    config.Duration(10 * time.Minute),
		ExemptLabels: []string{"berth.prune=false"},
		Archive:      archiveIgnored,
		CannotTell:   unsureRefuse,
		UnderMounts:  underSeen,
		Many:         20,
		ManyPercent:  50,
		ConfirmAfter: config.Duration(time.Minute),
		Scan:         config.Duration(10 * time.Minute),
		Rate:         2000,
		MaxWatches:   1024,
		Pressure:     PressureConfig{High: 85, Low: 80},
		Images: ImagesConfig{
			At: "03:30", Jitter: config.Duration(time.Hour),
			KeepFor: config.Duration(7 * 24 * time.Hour), KeepRecent: 2,
		},
		Containers: ContainersConfig{
			At: "03:00", Jitter: config.Duration(time.Hour),
			KeepFor: config.Duration(24 * time.Hour), ExemptLabels: []string{"berth.prune=false"},
		},
	}
}

// Validate returns everything that is wrong with the configuration but for the
// sections in it, joined, or nil. Each error begins with the key that it is about.
func (c Config) Validate() error {
	var errs []error
	for i, root := range c.Roots {
		if _, err := parsePattern(root); err != nil {
			errs = append(errs, config.Fieldf(fmt.Sprintf("roots[%d]", i), "%w", err))
		}
	}
	if c.RetainMin > c.Retain {
		errs = append(errs, config.Fieldf("retain_min", "%v is more than retain, %v: write at most that", c.RetainMin, c.Retain))
	}
	errs = append(errs, checkLabels(c.ExemptLabels))
	for i, glob := range c.Exempt {
		if _, err := path.Match(glob, ""); err != nil || !path.IsAbs(glob) {
			errs = append(errs, config.Fieldf(fmt.Sprintf("exempt[%d]", i), "%q is not a glob pattern of an absolute path: write it as /var/log/shop/*", glob))
		}
	}
	if c.Many < 0 {
		errs = append(errs, config.Fieldf("many", "%d is negative: write 0 or more", c.Many))
	}
	if c.Rate < 0 {
		errs = append(errs, config.Fieldf("rate", "%d is negative: write 0 for as many as can be", c.Rate))
	}
	if c.MaxWatches < 0 {
		errs = append(errs, config.Fieldf("max_watches", "%d is negative: write 0 for none", c.MaxWatches))
	}
	if c.Scan.Std() < time.Second {
		errs = append(errs, config.Fieldf("scan", "%v is too often: once a second is the most, and every 10m is enough", c.Scan))
	}
	return errors.Join(errs...)
}

// Validate returns what is wrong with the section.
func (c PressureConfig) Validate() error {
	if c.Low > c.High {
		return config.Fieldf("low", "%v is more than high, %v: write at most that", c.Low, c.High)
	}
	return nil
}

// Validate returns what is wrong with the section.
func (c ImagesConfig) Validate() error {
	errs := []error{checkTimeOfDay(c.At, c.Jitter)}
	for i, glob := range c.Keep {
		if _, err := path.Match(glob, ""); err != nil {
			errs = append(errs, config.Fieldf(fmt.Sprintf("keep[%d]", i), "%q is not a glob pattern: %w", glob, err))
		}
	}
	if c.KeepRecent < 0 {
		errs = append(errs, config.Fieldf("keep_recent", "%d is negative: write 0 for none", c.KeepRecent))
	}
	return errors.Join(errs...)
}

// Validate returns what is wrong with the section.
func (c ContainersConfig) Validate() error {
	return errors.Join(checkTimeOfDay(c.At, c.Jitter), checkLabels(c.ExemptLabels))
}

func checkLabels(labels []string) error {
	var errs []error
	for i, l := range labels {
		if name, _, _ := strings.Cut(l, "="); strings.TrimSpace(name) == "" {
			errs = append(errs, config.Fieldf(fmt.Sprintf("exempt_labels[%d]", i), "%q has no name: write it as berth.prune=false", l))
		}
	}
	return errors.Join(errs...)
}

func checkTimeOfDay(at string, jitter config.Duration) error {
	var errs []error
	if _, err := time.Parse("15:04", at); err != nil {
		errs = append(errs, config.Fieldf("at", "%q is not a time of day: write it as 03:30", at))
	}
	if jitter.Std() > 24*time.Hour {
		errs = append(errs, config.Fieldf("jitter", "%v is more than a day", jitter))
	}
	return errors.Join(errs...)
}

// exempted reports whether a container has one of the labels.
func exempted(labels map[string]string, exempt []string) bool {
	for _, e := range exempt {
		name, want, given := strings.Cut(e, "=")
		if got, ok := labels[name]; ok && (!given || got == want) {
			return true
		}
	}
	return false
}

// exemptPath reports whether a folder, or one that it is in, matches a pattern.
func exemptPath(dir string, patterns []string) bool {
	for _, p := range patterns {
		for at := dir; at != "/" && at != "."; at = path.Dir(at) {
			if ok, _ := path.Match(p, at); ok {
				return true
			}
		}
	}
	return false
}
