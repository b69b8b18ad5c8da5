package node

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"

	"github.com/berthd/berth/agent/journal"
)

// memory is what the journal keeps: who this host was, and what told it apart.
type memory struct {
	Fingerprint fingerprint `json:"fingerprint"`
	Identity    identity    `json:"identity"`
	Instance    remembered  `json:"instance"`
}

// remembered is the part of an instance that does not change during its life,
// or so seldom that the last answer will do until the next one.
type remembered struct {
	ID      string `json:"id,omitempty"`
	Account string `json:"account,omitempty"`
	Region  string `json:"region,omitempty"`
	Zone    string `json:"zone,omitempty"`
	Type    string `json:"type,omitempty"`
}

func (r remembered) instance() instance {
	return instance{ID: r.ID, Account: r.Account, Region: r.Region, Zone: r.Zone, Type: r.Type}
}

func (i instance) remembered() remembered {
	return remembered{ID: i.ID, Account: i.Account, Region: i.Region, Zone: i.Zone, Type: i.Type}
}

// decodeMemory returns the memory in a checkpoint; one that makes no sense is
// as good as none.
func decodeMemory(data []byte) memory {
	var m memory
	if json.Unmarshal(data, &m) != nil {
		return memory{}
	}
	if !labelForm.MatchString(m.Identity.ID) {
		m.Identity = identity{}
	}
	if !instanceForm.MatchString(m.Instance.ID) {
		m.Instance = remembered{}
	}
	return m
}

const stateHint = "who this host is cannot be remembered: check that the state directory exists, is writable and has room"

// openState opens the journal and decides who this host is, given what it
// remembers. Only a journal in use by another process is an error: then two
// berths run.
func (s *Source) openState() error {
	j, replay, err := journal.Open(s.path, journal.Options{Owner: "node"})
	if errors.Is(err, journal.ErrLocked) {
		return err // another berth runs here: this one will not
	}
	s.health.Set("state", err, stateHint)
	s.journal = j
	if replay.SetAside != "" {
		s.log.Warn("unusable state was set aside", "path", replay.SetAside, "err", replay.Reason)
	}
	// A journal that is there but cannot be read may hold another identity than
	// the one that would be derived now.
	_, absent := os.Lstat(s.path)
	s.recall(decodeMemory(replay.Checkpoint), err == nil || errors.Is(absent, fs.ErrNotExist))
	return nil
}

// recall takes over what the journal remembers, unless it is of another host.
// Without certain, a memory may exist that cannot be read.
func (s *Source) recall(m memory, certain bool) {
	f := &s.facts
	now := s.host.fingerprint(f.hostname, f.route)
	known := m.Identity.ID != "" || m.Instance.ID != ""
	if known && m.Fingerprint.contradicts(now) {
		s.log.Warn("the identity in the state directory is another host's",
			"path", s.path, "id", m.Identity.ID, "instance", m.Instance.ID)
		m = memory{}
	}
	s.saved = m
	switch {
	case s.ec2:
		if !f.confirmed {
			f.inst = m.Instance.instance()
		}
	case m.Identity.ID != "":
		f.id, f.settled = m.Identity, true
	case f.settled:
		// It was derived while there was no journal, and stays.
	default:
		f.id, f.settled = now.derive(), certain
	}
}

// saveState remembers who this host is, if that is certain and new. It also
// opens a journal that could not be opened before.
func (s *Source) saveState() {
	if s.journal == nil {
		if err := s.openState(); err != nil || s.journal == nil {
			return
		}
	}
	f := &s.facts
	now := s.host.fingerprint(f.hostname, f.route)
	m := memory{Fingerprint: now.or(s.saved.Fingerprint)}
	switch {
	case s.ec2 && f.confirmed:
		m.Instance = f.inst.remembered()
	case s.ec2:
		return
	default:
		if f.id.ID == "" { // neither number nor name nor address, so far
			f.id = now.derive()
		}
		if m.Identity = f.id; f.id.ID == "" {
			return
		}
	}
	if m == s.saved {
		return
	}
	data, err := json.Marshal(m)
	if err == nil {
		err = s.journal.Checkpoint(data)
	}
	if err == nil {
		s.saved = m
	}
	s.health.Set("state", err, stateHint)
}
