package usage

import (
	"errors"
	"time"

	"github.com/berthd/berth/agent/config"
)

// Config is the section `usage` of berth's configuration.
type Config struct {
	// Enabled turns the measuring of containers on.
	Enabled bool `yaml:"enabled"`

	// Interval is how often each container is measured, 1s to 1m. Besides, each
	// is measured when it exits.
	Interval config.Duration `yaml:"interval"`
}

// DefaultConfig returns the configuration that fits every host.
func DefaultConfig() Config {
	return Config{Enabled: true, Interval: config.Duration(10 * time.Second)}
}

// Validate returns all that is wrong with the section, as *config.FieldError.
func (c Config) Validate() error {
	var errs []error
	if i := c.Interval.Std(); i < time.Second || i > time.Minute {
		errs = append(errs, config.Fieldf("interval", "%v is out of range: write 1s to 1m; 10s is enough for advice", c.Interval))
	}
	return errors.Join(errs...)
}
