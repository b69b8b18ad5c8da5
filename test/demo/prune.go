package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/docker/docker/api/types/container"

	"github.com/berthd/berth/collectors/logprune"
	"github.com/berthd/berth/test/apps"
)

// logs is where the demo's containers have their folders of logs: as below /var/log,
// but in the demo's own folder.
func (s *stage) logs() string { return filepath.Join(s.dir, "logs/acme/web/containers") }

// pruneFlags let berth delete there at once, and nowhere else.
func (s *stage) pruneFlags() []string {
	return []string{
		"--set", "prune.enabled=true",
		"--set", fmt.Sprintf("prune.roots=[%q]", filepath.Join(s.dir, "logs/*/*/containers")),
		"--set", "prune.retain=0s",
		"--set", "prune.retain_min=0s",
		// Not all processes of a machine for tests may be ours to look at.
		"--set", "prune.cannot_tell=report",
	}
}

// folders shows that the folder of a container leaves with it, and no other.
func (s *stage) folders(ctx context.Context) error {
	s.title("The logs of a container that is gone leave, those of the living stay")
	ids := make(map[string]string)
	for _, name := range []string{"old", "new"} {
		id, err := s.start(ctx, name, spec{app: apps.Time})
		if err != nil {
			return err
		}
		ids[name] = id
		if err := os.MkdirAll(filepath.Join(s.logs(), id), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(s.logs(), id, "app.log"), []byte("hello\n"), 0o644); err != nil {
			return err
		}
	}
	err := s.until(ctx, "berth keeps the folders of both", func() error {
		plan, err := s.plan(ctx)
		if err == nil && plan.Counts.Kept != 2 {
			err = fmt.Errorf("it says %+v", plan.Folders)
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := s.engine.ContainerRemove(ctx, ids["old"], container.RemoveOptions{Force: true}); err != nil {
		return fmt.Errorf("remove old: %w", err)
	}
	gone := filepath.Join(s.logs(), ids["old"])
	err = s.until(ctx, "the folder of the container that is gone leaves", func() error {
		if out, err := s.berth(ctx, "prune", "--now"); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		if _, err := os.Stat(gone); !errors.Is(err, os.ErrNotExist) {
			return errors.New("it is there")
		}
		return nil
	})
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(s.logs(), ids["new"], "app.log")); err != nil {
		return fmt.Errorf("not so: the folder of a live container stays: %w", err)
	}
	s.say("docker rm --force old; berth prune --now   its folder is gone. berth prune --dry-run says of the other:")
	out, err := s.berth(ctx, "prune", "--dry-run")
	if err != nil {
		return err
	}
	s.quote(strings.ReplaceAll(out, s.dir+"/logs", "/var/log"))
	return nil
}

// plan asks berth what it would delete.
func (s *stage) plan(ctx context.Context) (plan logprune.Plan, err error) {
	out, err := s.berth(ctx, "prune", "--json")
	if err != nil {
		return plan, err
	}
	return plan, json.Unmarshal([]byte(out), &plan)
}
