package docker

import (
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/docker/go-units"

	"github.com/berthd/berth/agent"
)

func TestSignalNumber(t *testing.T) {
	for text, want := range map[string]int{
		"15": 15, "9": 9, "SIGTERM": 15, "TERM": 15, "term": 15, "sigkill": 9, "HUP": 1, "SIGUSR1": 10, "SIGWINCH": 28,
		"RTMIN": 34, "SIGRTMIN": 34, "RTMIN+3": 37, "SIGRTMIN+3": 37, "RTMAX": 64, "RTMAX-1": 63,
		"RTMIN-1": 0, "RTMAX+1": 0, "RTMIN+": 0, "RTMINX": 0, "RTMIN+x": 0,
		"": 0, "SIG": 0, "NONSENSE": 0, "SIGSIGTERM": 0,
	} {
		if got := signalNumber(text); got != want {
			t.Errorf("%q: got %d, want %d", text, got, want)
		}
	}
}

func TestAllowedEnv(t *testing.T) {
	env := []string{
		"SERVICE_NAME=a=b", "SERVICE_NAME_=x", "SERVICE=no", "service_name=no", "PATH=/bin", "TOKEN=secret",
		"DD_ENV=first", "DD_ENV=last", "DD_ENVIRONMENT=no", "DD_SERVICE", "=odd", "",
	}
	want := map[string]string{"SERVICE_NAME": "a=b", "SERVICE_NAME_": "x", "DD_ENV": "last", "DD_SERVICE": ""}
	if got := allowedEnv(env, []string{"SERVICE_*", "DD_ENV", "DD_SERVICE"}); !maps.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := allowedEnv(env, nil); got != nil {
		t.Errorf("without a list: got %q, want nothing", got)
	}
}

func TestToTime(t *testing.T) {
	for text, zero := range map[string]bool{
		"0001-01-01T00:00:00Z": true, "": true, "yesterday": true,
		"2026-11-21T04:24:23.62647619Z": false, "2026-11-21T04:24:23.6+02:00": false,
	} {
		if got := toTime(text); got.IsZero() != zero {
			t.Errorf("%q: got %v", text, got)
		}
	}
}

func TestParseStatus(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]struct {
		health     agent.HealthStatus
		least, max time.Duration
	}{
		"Up Less than a second":           {agent.HealthNone, 0, time.Second},
		"Up 1 second":                     {agent.HealthNone, time.Second, 2 * time.Second},
		"Up 59 seconds (healthy)":         {agent.HealthHealthy, 59 * time.Second, time.Minute},
		"Up About a minute (unhealthy)":   {agent.HealthUnhealthy, time.Minute, 2 * time.Minute},
		"Up 5 minutes (health: starting)": {agent.HealthStarting, 5 * time.Minute, 6 * time.Minute},
		"Up About an hour (Paused)":       {agent.HealthUnknown, time.Hour, 90 * time.Minute},
		"Up 2 hours":                      {agent.HealthNone, 90 * time.Minute, 150 * time.Minute},
		"Up 3 days":                       {agent.HealthNone, 3*day - 30*time.Minute, 4*day + 30*time.Minute},
		"Exited (0) 3 days ago":           {agent.HealthUnknown, 3*day - 30*time.Minute, 4*day + 30*time.Minute},
		"Exited (137) 2 seconds ago":      {agent.HealthUnknown, 2 * time.Second, 3 * time.Second},
		"Created":                         {agent.HealthUnknown, 0, 0},
		"Restarting (1) 2 seconds ago":    {agent.HealthUnknown, 0, 0},
		"Dead":                            {agent.HealthUnknown, 0, 0},
		"Removal In Progress":             {agent.HealthUnknown, 0, 0},
		"":                                {agent.HealthUnknown, 0, 0},
		"Up a while":                      {agent.HealthNone, 0, 0},
		"Up -3 days":                      {agent.HealthNone, 0, 0},
		"Up 99999999 years":               {agent.HealthNone, 0, 0},
	} {
		health, least, most := parseStatus(text)
		if health != want.health || least != want.least || most != want.max {
			t.Errorf("%q: got %q, %v to %v, want %q, %v to %v", text, health, least, most, want.health, want.least, want.max)
		}
	}
}

// Whatever the engine's own function writes, the bounds hold what it was given.
func TestParseHuman_InvertsTheEnginesFunction(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("BERTH_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("BERTH_SEED: %v", err)
		}
	}
	rng := rand.New(rand.NewPCG(seed, 0))
	check := func(d time.Duration) {
		t.Helper()
		text := units.HumanDuration(d)
		least, most := parseHuman(text)
		if d < least || d > most || most == 0 {
			t.Fatalf("%v is written as %q and read as %v to %v (replay with BERTH_SEED=%d)", d, text, least, most, seed)
		}
	}
	const year = 365 * 24 * time.Hour
	for _, unit := range []time.Duration{time.Second, time.Minute, time.Hour, 24 * time.Hour, 7 * 24 * time.Hour, 30 * 24 * time.Hour, year} {
		for n := range time.Duration(100) {
			for _, off := range []time.Duration{-time.Nanosecond, 0, time.Nanosecond} {
				if d := n*unit + off; d >= 0 {
					check(d)
				}
				if d := n*unit + unit/2 + off; d >= 0 {
					check(d)
				}
			}
		}
	}
	for range 200_000 {
		// As likely to be seconds as years.
		check(time.Duration(rng.Int64N(1<<(10+rng.IntN(53)))) % (200 * year))
	}
}

func FuzzParseStatus(f *testing.F) {
	for _, seed := range []string{"Up 5 minutes (healthy)", "Exited (0) 3 days ago", "Up About an hour (Paused)", "Created", "Up (", "Up )(", "Exited (", "Up 9223372036854775807 years"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		health, least, most := parseStatus(text)
		if least > most || most < 0 {
			t.Errorf("%q: got %v to %v", text, least, most)
		}
		switch health {
		case agent.HealthNone, agent.HealthUnknown, agent.HealthStarting, agent.HealthHealthy, agent.HealthUnhealthy:
		default:
			t.Errorf("%q: got health %q", text, health)
		}
	})
}

func TestError_Unwrap(t *testing.T) {
	cause := errors.New("cause")
	if err := error(&Error{Host: "h", Op: "list", Err: cause}); !errors.Is(err, cause) || err.Error() != "list at h: cause" {
		t.Errorf("got %v", err)
	}
}
