package docker

import (
	"strconv"
	"strings"
	"time"

	"github.com/berthd/berth/agent"
)

// parseStatus reads the status line of a list's row, the text that `docker ps`
// shows: "Up 5 minutes (healthy)", "Up About an hour (Paused)", "Exited (0) 3
// days ago". It is the only place where a row tells health and how long the
// container has been up, or down. What it does not understand it does not
// guess: the health is unknown then, and the bounds are zero.
func parseStatus(s string) (health agent.HealthStatus, ageMin, ageMax time.Duration) {
	if rest, ok := strings.CutPrefix(s, "Exited ("); ok {
		_, ago, _ := strings.Cut(rest, ") ")
		ageMin, ageMax = parseHuman(strings.TrimSuffix(ago, " ago"))
		return agent.HealthUnknown, ageMin, ageMax
	}
	rest, ok := strings.CutPrefix(s, "Up ")
	if !ok {
		return agent.HealthUnknown, 0, 0
	}
	if i := strings.LastIndex(rest, " ("); i >= 0 && strings.HasSuffix(rest, ")") {
		switch rest[i+2 : len(rest)-1] {
		case "healthy":
			health = agent.HealthHealthy
		case "unhealthy":
			health = agent.HealthUnhealthy
		case "health: starting":
			health = agent.HealthStarting
		default: // "Paused" hides it
			health = agent.HealthUnknown
		}
		rest = rest[:i]
	}
	ageMin, ageMax = parseHuman(rest)
	return health, ageMin, ageMax
}

// parseHuman inverts HumanDuration of github.com/docker/go-units, which rounds
// hours to the nearest and all else down. It returns the bounds of the
// durations that it writes as s, or zeros.
func parseHuman(s string) (least, most time.Duration) {
	const day = 24 * time.Hour
	switch s {
	case "Less than a second":
		return 0, time.Second
	case "About a minute":
		return time.Minute, 2 * time.Minute
	case "About an hour":
		return time.Hour, 90 * time.Minute
	}
	num, unit, _ := strings.Cut(s, " ")
	n, err := strconv.Atoi(num)
	if err != nil || n < 0 || n > 1e6 {
		return 0, 0
	}
	span := func(unit, slack time.Duration) (time.Duration, time.Duration) {
		return time.Duration(n)*unit - slack, time.Duration(n+1)*unit + slack
	}
	switch strings.TrimSuffix(unit, "s") {
	case "second":
		return span(time.Second, 0)
	case "minute":
		return span(time.Minute, 0)
	case "hour":
		return time.Duration(n)*time.Hour - 30*time.Minute, time.Duration(n)*time.Hour + 30*time.Minute
	case "day":
		return span(day, 30*time.Minute)
	case "week":
		return span(7*day, 30*time.Minute)
	case "month":
		return span(30*day, 30*time.Minute)
	case "year":
		return span(365*day, 30*time.Minute)
	}
	return 0, 0
}
