package main

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"github.com/berthd/berth/agent/admin"
	"github.com/berthd/berth/collectors/usage"
	"github.com/berthd/berth/test/apps"
)

// impatience makes berth judge in seconds what it would watch for a day: advice to
// reserve less waits for 24 hours of a service as a rule.
func impatience() []string {
	return []string{
		"--set", "usage.interval=1s",
		"--set", "usage.advice.undersized_after=2s", "--set", "usage.advice.oversized_after=2s", "--set", "usage.advice.history=0s",
	}
}

// sizes shows a container that uses more than it reserved, and one that hardly
// uses anything, with what they should reserve, and why.
func (s *stage) sizes(ctx context.Context) error {
	s.title("What they reserve, what they use, what they should reserve")
	for _, c := range []struct{ name, cores, reserves, verdict, saying string }{
		{"greedy", "0.5", "0.1", usage.Undersized, "uses more than it reserves"},
		{"lazy", "0.002", "1.5", usage.Oversized, "hardly uses anything"},
	} {
		if _, err := s.start(ctx, c.name, spec{
			app: apps.Burner, args: []string{"-cores", c.cores},
			labels: map[string]string{"berth.service": c.name, "berth.cpu": c.reserves, "berth.memory": "64MiB"},
		}); err != nil {
			return err
		}
		var row usage.Row
		if err := s.until(ctx, "berth calls "+c.name+" "+c.verdict, func() error {
			var report usage.Report
			if err := admin.NewClient(s.socket()).Get(ctx, "/v1/usage/report", url.Values{"ref": {c.name}}, &report); err != nil {
				return err
			}
			for _, r := range report.Services {
				if r.Service == c.name {
					row = r
				}
			}
			if row.Verdict != c.verdict {
				return fmt.Errorf("it says %+v", row)
			}
			return nil
		}); err != nil {
			return err
		}
		s.say("docker run --label berth.cpu=%s …   %s %s: berth usage %s", c.reserves, c.name, c.saying, c.name)
		out, err := s.berth(ctx, "usage", c.name)
		if err != nil {
			return err
		}
		s.quote(out)
	}
	s.say("For the demo, it was told to judge after seconds: by default it watches for a day before it calls something waste.")
	out, err := s.berth(ctx, "usage")
	if err != nil {
		return err
	}
	if !strings.Contains(out, "greedy") || !strings.Contains(out, "lazy") {
		return fmt.Errorf("berth usage says nothing of them: %s", out)
	}
	s.quote(out)
	return nil
}
