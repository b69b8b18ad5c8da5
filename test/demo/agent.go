package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/berthd/berth/agent/admin"
	"github.com/berthd/berth/sinks/dnsserver"
	"github.com/berthd/berth/test/apps"
)

// dnsPort is where containers ask: no setting can change it on their side.
const dnsPort = 53

// startAgent starts berth as a child and waits until it is ready and answers
// DNS on the bridge.
func (s *stage) startAgent(ctx context.Context) error {
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	// An empty file, so that one in /etc plays no part here.
	config, serves := "", "serves DNS"
	if s.bind != nil {
		config, serves = s.bind.config, "has reached BIND"
	}
	if err := os.WriteFile(s.configFile(), []byte(config), 0o600); err != nil {
		return err
	}
	s.agent = exec.Command(s.bin, append([]string{"run"}, s.flags()...)...)
	s.agent.Stdout, s.agent.Stderr = log, log
	// Ctrl-C is for the demo, which ends the agent in its own time.
	s.agent.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	began := time.Now()
	if err := s.agent.Start(); err != nil {
		return fmt.Errorf("start berth: %w", err)
	}
	s.ended = make(chan struct{})
	go func() { _ = s.agent.Wait(); close(s.ended) }()

	var st admin.Status
	err = s.until(ctx, "berth is ready and "+serves, func() (err error) {
		st, err = s.serving(ctx)
		return err
	})
	if taken, ok := errors.AsType[*takenError](err); ok {
		return taken
	}
	if err != nil {
		for _, c := range st.Conditions {
			err = fmt.Errorf("%w\n  %s/%s: %s", err, c.Component, c.Name, c.Why)
		}
		said, _ := os.ReadFile(log.Name())
		return fmt.Errorf("%w\nberth's log:\n%s", err, said)
	}
	if s.bind != nil {
		s.say("berth runs as %s, ready %s after its start.", st.Node.ID, ms(time.Since(began)))
		return nil
	}
	s.say("berth runs with its defaults as %s, ready %s after its start, and answers DNS at %s.", st.Node.ID, ms(time.Since(began)), s.gateway)
	return nil
}

// stopAgent ends the agent in order, if it runs.
func (s *stage) stopAgent() error {
	if s.ended == nil {
		return nil
	}
	_ = s.agent.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.ended:
		return nil
	case <-time.After(10 * time.Second):
		_ = s.agent.Process.Kill()
		return errors.New("berth did not end within 10 s of SIGTERM")
	}
}

func (s *stage) configFile() string { return filepath.Join(s.dir, "berth.yaml") }

// flags are those of the agent's own commands that read its configuration.
func (s *stage) flags() []string {
	return append([]string{
		"--config", s.configFile(),
		"--set", "state_dir=" + filepath.Join(s.dir, "state"),
		"--set", "admin.socket=" + s.socket(),
		"--set", "statsd.socket=",
		"--set", "statsd.upstream=" + s.metricsSocket(),
	}, slices.Concat(s.pruneFlags(), impatience())...)
}

// serving returns nil when the berth that was started answers DNS on the bridge,
// or is ready to write to BIND. That somebody answers on the bridge is no proof: it
// could be another berth.
func (s *stage) serving(ctx context.Context) (st admin.Status, err error) {
	select {
	case <-s.ended:
		return st, hopeless{errors.New("it has ended")}
	default:
	}
	if err := admin.NewClient(s.socket()).Get(ctx, "/v1/status", nil, &st); err != nil {
		return st, err
	}
	if !st.Ready {
		return st, errors.New(st.NotReady)
	}
	if s.bind != nil {
		return st, s.bind.reached(st)
	}
	at := s.server.String()
	for _, c := range st.Conditions {
		for why := range strings.SplitSeq(c.Why, "; ") { // one for each address
			if c.Component == dnsserver.Name && strings.HasPrefix(why, "listen on "+at+"/") {
				return st, hopeless{&takenError{at, why}}
			}
		}
	}
	listens := slices.ContainsFunc(st.Components, func(c admin.Component) bool {
		return c.Name == dnsserver.Name && strings.Contains(c.Summary, at)
	})
	if !listens {
		return st, fmt.Errorf("it does not listen on %s yet", at)
	}
	_, err = s.lookup(ctx, s.srv(apps.Calc))
	return st, err
}

// takenError says that berth cannot have the port which containers ask.
type takenError struct{ at, why string }

func (e *takenError) Error() string {
	return fmt.Sprintf(`containers would ask berth at %s, and it cannot listen there:
  %s
Stop that process while the demo runs (systemctl stop, if it is a service: berth
itself, perhaps, or dnsmasq), then type make demo again.`, e.at, e.why)
}

func (s *stage) socket() string { return filepath.Join(s.dir, "berth.sock") }

// berth runs one of berth's commands.
func (s *stage) berth(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, s.bin, append([]string{"--socket", s.socket(), "--color", s.colour()}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("berth %s: %w: %s", args[0], err, stderr.String())
	}
	return string(out), nil
}
