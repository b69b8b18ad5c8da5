package usage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/berthd/berth/agent/journal"
)

// A Book is written to disk as a whole, once a minute and at the end, as the
// checkpoint of a journal, which is whole or not there. Statistics are aged by
// the wall clock, so that the time in which berth did not run counts. The last
// counters of each run are kept, too: what a container uses while berth does not
// run is one long measurement afterwards, and not lost. They count for the same
// boot of the host alone.

const saveHint = "see the state folder's disk; until it passes, a restart of berth loses the statistics since the last save"

// bootID returns what the kernel calls this boot, or "" where it does not say.
func bootID() string {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(raw))
}

func (b *Book) host() string {
	if b.node == nil {
		return ""
	}
	return b.node.StateHost()
}

// restore opens the journal and takes over what it holds.
func (b *Book) restore() {
	if b.path == "" || b.journal != nil {
		return
	}
	j, replay, err := journal.Open(b.path, journal.Options{Owner: Name, Host: b.host()})
	if err != nil {
		b.health.Set("statistics", fmt.Errorf("open the statistics: %w", err), saveHint)
		return
	}
	b.journal = j
	if replay.SetAside != "" {
		b.log.Warn("unusable statistics were set aside", "path", replay.SetAside, "err", replay.Reason)
	}
	if replay.Checkpoint == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.decode(replay.Checkpoint); err != nil {
		b.forgetAll()
		b.log.Warn("the statistics cannot be read, and begin anew", "path", b.path, "err", err)
	}
}

// forgetAll makes the book an empty one.
func (b *Book) forgetAll() {
	clear(b.services)
	clear(b.containers)
	clear(b.restored)
	b.clock = clock{}
}

// keep saves the book until ctx ends.
func (b *Book) keep(ctx context.Context) {
	if b.path == "" {
		<-ctx.Done()
		return
	}
	tick := time.NewTicker(b.interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			b.save()
		case <-ctx.Done():
			b.save()
			if b.journal != nil {
				if err := b.journal.Close(); err != nil {
					b.log.Warn("close the statistics", "err", err)
				}
				b.journal = nil
			}
			b.health.Set("statistics", nil, "")
			return
		}
	}
}

// save writes the book. When that fails, what was written before is still there.
func (b *Book) save() {
	err := b.trySave()
	b.mu.Lock()
	if err != nil {
		b.stats.failed++
	} else {
		b.stats.saves++
	}
	b.mu.Unlock()
	if err != nil {
		b.health.Set("statistics", fmt.Errorf("keep the statistics: %w", err), saveHint)
		return
	}
	b.health.Set("statistics", nil, "")
}

func (b *Book) trySave() error {
	if b.journal == nil {
		// What an earlier berth left there is older than what is known by now.
		j, _, err := journal.Open(b.path, journal.Options{Owner: Name, Host: b.host()})
		if err != nil {
			return err
		}
		b.journal = j
	}
	kept, err := b.journal.Claim(b.host())
	if err != nil {
		return err
	}
	b.mu.Lock()
	if !kept {
		b.forgetAll()
		b.log.Warn("the statistics are those of another host, and begin anew", "host", b.host())
	}
	data := b.encode()
	b.stats.bytes = uint64(len(data))
	b.mu.Unlock()
	if len(data) > journal.MaxEntry {
		return errors.New("they are larger than a journal can be")
	}
	return b.journal.Checkpoint(data)
}
