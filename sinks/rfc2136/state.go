package rfc2136

import (
	"errors"
	"fmt"
	"time"

	"github.com/berthd/berth/agent/journal"
)

// open makes the journal ready for this host's messages, and reports whether it
// is; if not, it also returns when to try again, or zero to wait until the host is
// known. Nothing is done on the word of a journal that may be another host's.
func (s *Sink) open(now time.Time) (ready bool, at time.Time) {
	host := ""
	if s.node != nil {
		if host = s.node.StateHost(); host == "" {
			return false, time.Time{}
		}
	}
	if at := s.retries[""].at; now.Before(at) {
		return false, at
	}
	if s.journal == nil {
		err := s.load(host, now)
		s.reportJournal(err)
		if err != nil {
			return false, s.retries[""].at
		}
	}
	if err := s.claim(host); err != nil {
		s.reportJournal(err)
		return false, s.retries[""].at
	}
	return true, time.Time{}
}

// load opens the journal and takes the ledger from it.
func (s *Sink) load(host string, now time.Time) error {
	j, found, err := journal.Open(s.path, journal.Options{
		Owner: Name, Host: host,
		State: func() []byte { return s.ledger.state() },
	})
	if err != nil {
		return err
	}
	if found.SetAside != "" {
		s.log.Warn("journal was set aside: records of which only it knew stay in the zone", "file", found.SetAside, "reason", found.Reason)
	}
	s.journal = j
	if s.ledger, err = replay(found, now.Add(s.doubt)); err != nil {
		s.log.Error("journal cannot be read to its end: records of which only it knew stay in the zone", "err", err)
	}
	s.meters.records.Store(int64(s.ledger.count()))
	return nil
}

// claim forgets what another host has written.
func (s *Sink) claim(host string) error {
	kept, err := s.journal.Claim(host)
	if err != nil || kept {
		return err
	}
	s.log.Warn("journal is of another host: its records are not this host's to remove", "host", host)
	s.ledger = newLedger()
	return nil
}

// append makes an entry durable.
func (s *Sink) append(e savedEntry) error {
	err := s.journal.Append(encode(e))
	s.reportJournal(err)
	return err
}

// reportJournal sets the condition, and how long to leave the journal alone.
func (s *Sink) reportJournal(err error) {
	if err == nil {
		delete(s.retries, "")
		s.health.Set(condJournal, nil, "")
		return
	}
	s.postpone("")
	hint := "make room on the disk and check that it can be written to"
	if errors.Is(err, journal.ErrLocked) {
		hint = "another berth runs on this host, or is removing its records: stop one of them"
	}
	s.trouble = fmt.Errorf("no update is sent without its intent: %w", err)
	s.health.Set(condJournal, s.trouble, hint)
}

// close lets go of the journal.
func (s *Sink) close() {
	if s.journal == nil {
		return
	}
	if err := s.journal.Close(); err != nil {
		s.log.Warn("close journal", "err", err)
	}
	s.journal = nil
}
