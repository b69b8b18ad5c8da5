package usage

import (
	"errors"
	"strings"
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

	// Environment is that of all containers which do not name one by the label
	// berth.environment, the variable BERTH_ENVIRONMENT, or the label
	// com.datadoghq.tags.env: "prod" as a rule. A service has statistics of its own
	// in each environment.
	Environment string `yaml:"environment"`

	// CoreMHz is what Nomad takes for the clock rate of one core of this host:
	// its reservations are in MHz. 0: what the kernel says.
	CoreMHz int `yaml:"core_mhz"`

	// Advice is when a reservation is called wrong, and what is advised instead.
	Advice AdviceConfig `yaml:"advice"`
}

// DefaultConfig returns the configuration that fits every host.
func DefaultConfig() Config {
	return Config{Enabled: true, Interval: config.Duration(10 * time.Second), Advice: DefaultAdviceConfig()}
}

// mostMHz is beyond any core.
const mostMHz = 20_000

// Validate returns all that is wrong with the section, as *config.FieldError.
func (c Config) Validate() error {
	var errs []error
	if i := c.Interval.Std(); i < time.Second || i > time.Minute {
		errs = append(errs, config.Fieldf("interval", "%v is out of range: write 1s to 1m; 10s is enough for advice", c.Interval))
	}
	if strings.TrimSpace(c.Environment) != c.Environment {
		errs = append(errs, config.Fieldf("environment", "%q begins or ends with a space: write it as prod", c.Environment))
	}
	if c.CoreMHz != 0 && (c.CoreMHz < 100 || c.CoreMHz > mostMHz) {
		errs = append(errs, config.Fieldf("core_mhz", "%d MHz is no core's clock rate: write it as 2500, or 0 for what the kernel says", c.CoreMHz))
	}
	return errors.Join(errs...)
}
