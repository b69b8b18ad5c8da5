package usage

import (
	"errors"
	"fmt"
	"path"
	"time"

	"github.com/berthd/berth/agent/config"
)

// AdviceConfig is the section `usage.advice`.
type AdviceConfig struct {
	// LowCores is the lower end of the band in which a lying factor is in order:
	// cores reserved less the moving average, over an hour, of cores used. Below it
	// a container lives on what others have reserved.
	LowCores float64 `yaml:"low_cores"`

	// HighCores is the upper end of the band: above it a reservation is waste.
	HighCores float64 `yaml:"high_cores"`

	// HighShare bounds the upper end of the band by a share of what is reserved,
	// because 0.6 cores are everything to a container of half a core. 0%: no
	// such bound.
	HighShare config.Percent `yaml:"high_share"`

	// UndersizedAfter is how long a service must be below the band before it is
	// called undersized.
	UndersizedAfter config.Duration `yaml:"undersized_after"`

	// OversizedAfter is how long a service must be above the band before it is
	// called oversized.
	OversizedAfter config.Duration `yaml:"oversized_after"`

	// History is how much of a service must be known before it is advised to
	// reserve less.
	History config.Duration `yaml:"history"`

	// Critical are services that are sized with more room, by the 95th percentile
	// of their highest hour instead of the 90th: names, or patterns as "pay*".
	Critical []string `yaml:"critical"`

	// Hourly tells besides what a service should reserve just now, by what the same
	// hours of the day needed on eight days: for hosts where something resizes
	// containers as they run (docker update), because it changes many times a day.
	// It is no verdict, and makes no events.
	Hourly bool `yaml:"hourly"`
}

// DefaultAdviceConfig returns the defaults.
func DefaultAdviceConfig() AdviceConfig {
	return AdviceConfig{
		LowCores: -0.1, HighCores: 0.6, HighShare: 50,
		UndersizedAfter: config.Duration(5 * time.Minute),
		OversizedAfter:  config.Duration(24 * time.Hour),
		History:         config.Duration(24 * time.Hour),
	}
}

// Validate returns all that is wrong with the section, as *config.FieldError.
func (c AdviceConfig) Validate() error {
	var errs []error
	if c.LowCores > 0 || c.LowCores < -maxBand {
		errs = append(errs, config.Fieldf("low_cores", "%v is no lower end of a band around 0: write it as -0.1", c.LowCores))
	}
	if c.HighCores <= 0 || c.HighCores > maxBand {
		errs = append(errs, config.Fieldf("high_cores", "%v is no upper end of a band around 0: write it as 0.6", c.HighCores))
	}
	if c.History.Std() > hours*time.Hour {
		errs = append(errs, config.Fieldf("history", "%v is more than the 8 days that are remembered: write it as 24h", c.History))
	}
	for i, p := range c.Critical {
		if _, err := path.Match(p, ""); err != nil || p == "" {
			errs = append(errs, config.Fieldf(fmt.Sprintf("critical[%d]", i), "%q is no pattern: write a service's name, or a pattern as pay*", p))
		}
	}
	return errors.Join(errs...)
}

// maxBand is beyond any sensible band, in cores.
const maxBand = 1024

func (c *AdviceConfig) critical(service string) bool {
	for _, p := range c.Critical {
		if ok, _ := path.Match(p, service); ok {
			return true
		}
	}
	return false
}

// high returns the upper end of the band for a container that reserves so much.
func (c *AdviceConfig) high(reserved float64) float64 {
	if c.HighShare > 0 {
		return min(c.HighCores, c.HighShare.Ratio()*reserved)
	}
	return c.HighCores
}
