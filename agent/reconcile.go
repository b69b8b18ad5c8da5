package agent

import (
	"maps"
	"slices"
	"time"
)

func (s *state) listContainers(now time.Time) effect {
	s.mark++
	l := &s.containers
	l.token, l.mark, l.asked, l.due = s.mark, s.mark, now, time.Time{}
	s.stats.Lists++
	return doList{token: l.token}
}

func (s *state) listNetworks(now time.Time) effect {
	s.mark++
	l := &s.networks
	l.token, l.mark, l.asked, l.due, l.again = s.mark, s.mark, now, time.Time{}, false
	s.stats.NetworkLists++
	return doNetworks{token: l.token}
}

// refreshNetworks lists the networks because one came or went. While a list is
// in flight the next one waits for it: a storm of networks costs two lists.
func (s *state) refreshNetworks(now time.Time) []effect {
	switch {
	case !s.session.up:
		return nil
	case s.networks.token != 0:
		s.networks.again = true
		return nil
	}
	return []effect{s.listNetworks(now)}
}

// finish notes the outcome of a list and when the next is due. It reports
// whether the list succeeded, and whether the session is to be given up.
func (l *list) finish(err error, now time.Time, resync time.Duration) (ok, giveUp bool) {
	l.token, l.err = 0, err
	if err == nil {
		l.done, l.fails, l.backoff = true, 0, 0
		l.due = now.Add(resync)
		return true, false
	}
	l.fails++
	l.backoff = min(max(2*l.backoff, relistFirst), relistLast)
	l.due = now.Add(l.backoff)
	return false, l.fails >= listsBeforeReconnect
}

// onListed compares a list with what is known. It changes nothing by itself: a
// row that contradicts, a container that is new or one that is missing are
// reasons to inspect, and only the answer to that counts. So a list that is
// empty because the engine is starting, or cut short, removes nothing.
func (s *state) onListed(in inListed, now time.Time) []effect {
	l := &s.containers
	if in.token != l.token || l.token == 0 {
		return nil
	}
	hadError := l.err != nil
	ok, giveUp := l.finish(in.err, now, s.cfg.Resync)
	if hadError == ok {
		s.changed = true // health changes with it
	}
	if giveUp {
		s.loseSession(in.err, now)
		return s.reconnect(now)
	}
	if !ok {
		return nil
	}
	listed := make(map[string]bool, len(in.listing.Rows))
	for _, row := range in.listing.Rows {
		listed[row.ID] = true
		e := s.entry(row.ID)
		switch {
		case e.dirty == 0: // new to us
			s.markDirty(e)
		case e.dirty > l.mark: // doubtful since the list was asked for; the inspect will tell
		case e.c == nil: // an inspect is under way, or due to be tried again
		case !s.contradicts(e.c, row, now):
			e.futile, e.skip = 0, 0
		case e.futile > 0 && e.skip > 0 && s.repeats(e, row, now):
			e.skip--
		default:
			s.stats.Contradictions++
			s.markDirty(e)
			e.byRow, e.futileRow = true, row
			e.futileEarliest, e.futileLatest = s.sinceBounds(row, now)
		}
	}
	for _, id := range sortedKeys(s.entries) {
		if e := s.entries[id]; !listed[id] && e.dirty < l.mark {
			s.stats.Contradictions++
			s.markDirty(e)
		}
	}
	return nil
}

func (s *state) onNetworks(in inNetworks, now time.Time) []effect {
	l := &s.networks
	if in.token != l.token || l.token == 0 {
		return nil
	}
	hadError := l.err != nil
	ok, giveUp := l.finish(in.err, now, s.cfg.Resync)
	if hadError == ok {
		s.changed = true
	}
	if giveUp {
		s.loseSession(in.err, now)
		return s.reconnect(now)
	}
	if ok && !slices.EqualFunc(s.knownNets, in.networks, Network.equal) {
		s.knownNets, s.changed = in.networks, true
	}
	if ok && l.again {
		return []effect{s.listNetworks(now)}
	}
	return nil
}

// contradicts reports whether a row cannot be true together with what is known.
func (s *state) contradicts(c *Container, row Row, now time.Time) bool {
	if row.Name != c.Name || row.State != c.State {
		return true
	}
	if c.Alive() {
		if row.Health != HealthUnknown && row.Health != c.Health {
			return true
		}
		if !slices.Equal(row.Endpoints, c.Endpoints) || !samePublished(row.Ports, c.Ports) {
			return true
		}
	}
	if row.AgeMin == 0 && row.AgeMax == 0 {
		return false
	}
	since := c.StartedAt
	if !c.Alive() {
		since = c.FinishedAt
	}
	earliest, latest := s.sinceBounds(row, now)
	return since.Before(earliest) || since.After(latest)
}

// sinceBounds returns between which moments a row's run must have started, or
// ended. The row was made at some moment since the list was asked for; a second
// of slack covers the engine's own rounding.
func (s *state) sinceBounds(row Row, now time.Time) (earliest, latest time.Time) {
	const slack = time.Second
	return s.containers.asked.Add(-row.AgeMax - slack), now.Add(-row.AgeMin + slack)
}

// repeats reports whether a row contradicts in the same way as the one that an
// inspect refuted before: the same facts, and a run that may have started at
// the same moment. (After the host's clock was set, an engine's ages and its
// start times disagree until each container restarts.)
func (s *state) repeats(e *entry, row Row, now time.Time) bool {
	old := e.futileRow
	earliest, latest := s.sinceBounds(row, now)
	return old.Name == row.Name && old.State == row.State && old.Health == row.Health &&
		slices.Equal(old.Endpoints, row.Endpoints) && slices.Equal(old.Ports, row.Ports) &&
		!earliest.After(e.futileLatest) && !latest.Before(e.futileEarliest)
}

// samePublished compares the published ports, which are the only ones that a
// row tells reliably.
func samePublished(row, known []Port) bool {
	i := 0
	for _, p := range known {
		if !p.Published() {
			continue
		}
		if i == len(row) || row[i] != p {
			return false
		}
		i++
	}
	return i == len(row)
}

// equal reports whether two networks are the same in every field.
func (n Network) equal(o Network) bool {
	return n.ID == o.ID && n.Name == o.Name && n.Driver == o.Driver && n.Internal == o.Internal &&
		n.Bridge == o.Bridge && slices.Equal(n.Gateways, o.Gateways) && slices.Equal(n.Subnets, o.Subnets)
}

// equal reports whether two states of a container are the same in every field.
func (c *Container) equal(o *Container) bool {
	return c.ID == o.ID && c.Name == o.Name && c.Image == o.Image && c.ImageID == o.ImageID &&
		c.State == o.State && c.Health == o.Health &&
		c.CreatedAt.Equal(o.CreatedAt) && c.StartedAt.Equal(o.StartedAt) && c.FinishedAt.Equal(o.FinishedAt) &&
		c.ExitCode == o.ExitCode && c.PID == o.PID &&
		c.StopSignal == o.StopSignal && c.StopTimeout == o.StopTimeout &&
		c.NetworkMode == o.NetworkMode && c.StoppingSince.Equal(o.StoppingSince) &&
		c.Resources == o.Resources && c.OOMKilled == o.OOMKilled && slices.Equal(c.Mounts, o.Mounts) &&
		slices.Equal(c.Endpoints, o.Endpoints) && slices.Equal(c.Ports, o.Ports) &&
		maps.Equal(c.Labels, o.Labels) && maps.Equal(c.Env, o.Env)
}

// snapshot makes a Snapshot of the state, and clears the changed flag.
func (s *state) snapshot(seq uint64, now time.Time) *Snapshot {
	s.changed = false
	snap := &Snapshot{
		Seq:           seq,
		At:            now,
		Connected:     s.session.up,
		Complete:      s.session.complete,
		EngineID:      s.session.info.ID,
		EngineVersion: s.session.info.Version,
		EngineRoot:    s.session.info.Root,
		Node:          s.node,
		Networks:      s.knownNets,
		Containers:    make([]*Container, 0, len(s.entries)),
		Dead:          slices.Clip(s.dead.runs),
	}
	for id, e := range s.entries {
		if e.c != nil {
			snap.Containers = append(snap.Containers, e.c)
		} else if e.err != nil {
			snap.Unread = append(snap.Unread, id)
		}
	}
	slices.SortFunc(snap.Containers, byID)
	slices.Sort(snap.Unread)
	return snap
}
