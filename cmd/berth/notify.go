package main

import (
	"context"
	"fmt"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
)

// readyWait is how long READY waits for the first complete snapshot. A host on
// which the engine is down must boot all the same.
const readyWait = 2 * time.Second

// notify tells systemd how berth fares: READY, a status line, and a sign of life
// for the watchdog, which it gives only if the loop turns. Without systemd it
// does nothing.
func (d *daemon) notify(ctx context.Context) error {
	wait := time.NewTimer(readyWait)
	defer wait.Stop()
	select {
	case <-d.agent.Ready():
	case <-wait.C:
	case <-ctx.Done():
		return nil
	}
	_, _ = sd.SdNotify(false, sd.SdNotifyReady+"\nSTATUS="+d.statusLine())
	d.env.Log.Info("ready", "after", time.Since(d.started).Round(time.Millisecond))

	interval := 30 * time.Second // of the status line
	watchdog, err := sd.SdWatchdogEnabled(false)
	if err == nil && watchdog > 0 {
		interval = min(interval, watchdog/2)
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			alive, cancel := context.WithTimeout(ctx, interval)
			err := d.agent.Ping(alive)
			cancel()
			if err != nil {
				continue // no sign of life: if this lasts, systemd restarts berth
			}
			_, _ = sd.SdNotify(false, sd.SdNotifyWatchdog+"\nSTATUS="+d.statusLine())
		case <-ctx.Done():
			_, _ = sd.SdNotify(false, sd.SdNotifyStopping)
			return nil
		}
	}
}

// statusLine is what systemctl status shows.
func (d *daemon) statusLine() string {
	st := d.Status()
	line := fmt.Sprintf("%d of %d containers running", st.Engine.Running, st.Engine.Containers)
	if !st.Ready {
		line = st.NotReady
	}
	if n := len(st.Conditions); n > 0 {
		line += fmt.Sprintf("; %d conditions, the first: %s: %s", n, st.Conditions[0].Component, st.Conditions[0].Why)
	}
	return line
}
