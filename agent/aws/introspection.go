// Package aws asks AWS's own agents and services about this host. What leaves
// the host goes through interfaces of a few methods each, so that a strict fake
// can stand in for AWS.
//
// Today it knows the introspection API of the ECS agent, which runs on the host
// itself: the only place that tells the address of a task in network mode
// awsvpc, because its network interface is none of the engine's.
package aws

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/berthd/berth/agent"
)

// taskLabel is on every container that the ECS agent starts.
const taskLabel = "com.amazonaws.ecs.task-arn"

const (
	askTimeout = 2 * time.Second
	maxAnswer  = 8 << 20 // bytes; an instance has some 120 tasks at most

	// The agent learns of a task's containers about when the engine does, so
	// that the first answer may lack one.
	askFirst, askLast = 250 * time.Millisecond, 30 * time.Second
)

// Introspection knows the addresses of ECS tasks in network mode awsvpc. Its
// methods are safe for concurrent use.
type Introspection struct {
	endpoint string
	log      *slog.Logger
	health   *agent.Scope
	client   *http.Client
	known    atomic.Pointer[map[string]netip.Addr] // by container ID
	asked    atomic.Uint64
}

// NewIntrospection returns an Introspection that asks an endpoint, which on every
// container instance is http://127.0.0.1:51678 (Amazon ECS Developer Guide,
// "Container introspection"). It does nothing until Run.
func NewIntrospection(endpoint string, env agent.Env) *Introspection {
	i := &Introspection{
		endpoint: strings.TrimSuffix(endpoint, "/"),
		log:      env.Log.With("component", "ecs"),
		health:   env.Health.Scope("ecs"),
		// It is on this host: no proxy, and no connection kept.
		client: &http.Client{Timeout: askTimeout, Transport: &http.Transport{DisableKeepAlives: true}},
	}
	i.health.Declare("introspection", agent.SeverityWarning, 10*time.Second)
	return i
}

// Address returns the IPv4 address of a container whose task has a network
// interface of its own. It does no I/O.
func (i *Introspection) Address(c *agent.Container) (netip.Addr, bool) {
	if known := i.known.Load(); known != nil {
		a, ok := (*known)[c.ID]
		return a, ok
	}
	return netip.Addr{}, false
}

// Run asks the ECS agent whenever there are live containers of ECS whose address
// is not known, and calls changed after it has learnt something. A host without
// such containers is never asked.
func (i *Introspection) Run(ctx context.Context, feed agent.Feed, changed func()) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	defer i.health.Set("introspection", nil, "")
	pause := askFirst
	var missing string
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-feed.Changed():
		case <-timer.C:
		}
		timer.Stop()
		now := i.missing(feed.Snapshot())
		switch {
		case now == "":
			i.health.Set("introspection", nil, "")
			missing, pause = "", askFirst
			continue
		case now != missing:
			missing, pause = now, askFirst // somebody new: at once
		}
		learnt, err := i.ask(ctx)
		if ctx.Err() != nil {
			return nil
		}
		i.health.Set("introspection", err, "is the ECS agent running (systemctl status ecs)? Without it, tasks in network mode awsvpc get no names")
		if learnt {
			changed()
		}
		if i.missing(feed.Snapshot()) != "" {
			timer.Reset(pause)
			pause = min(2*pause, askLast)
		}
	}
}

// missing returns the live containers whose address only the ECS agent knows,
// and that it has not told yet.
func (i *Introspection) missing(snap *agent.Snapshot) string {
	var ids strings.Builder
	for _, c := range snap.Containers {
		if !c.Alive() || c.Labels[taskLabel] == "" || !elsewhere(c) {
			continue
		}
		if _, ok := i.Address(c); !ok {
			ids.WriteString(c.ID)
		}
	}
	return ids.String()
}

// elsewhere reports whether a container's network is not the engine's: with
// awsvpc the ECS agent starts a pause container without a network, moves an
// interface into it, and lets the task's containers share it.
func elsewhere(c *agent.Container) bool {
	return c.NetworkMode == "none" || strings.HasPrefix(c.NetworkMode, "container:")
}

// tasks is the part of GET /v1/tasks that matters here.
type tasks struct {
	Tasks []struct {
		Containers []struct {
			DockerID string `json:"DockerId"`
			Networks []struct {
				NetworkMode   string
				IPv4Addresses []string
			}
		}
	}
}

// ask gets all tasks, and reports whether it learnt a new address.
func (i *Introspection) ask(ctx context.Context) (learnt bool, err error) {
	i.asked.Add(1)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, i.endpoint+"/v1/tasks", nil)
	if err != nil {
		return false, fmt.Errorf("ask the ECS agent: %w", err)
	}
	resp, err := i.client.Do(req)
	if err != nil {
		return false, fmt.Errorf("ask the ECS agent: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return false, fmt.Errorf("ask the ECS agent: it answered %s", resp.Status)
	}
	var got tasks
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&got); err != nil {
		return false, fmt.Errorf("read the ECS agent's answer: %w", err)
	}
	known := make(map[string]netip.Addr)
	var bad []error
	for _, task := range got.Tasks {
		for _, c := range task.Containers {
			for _, n := range c.Networks {
				if n.NetworkMode != "awsvpc" || len(n.IPv4Addresses) == 0 {
					continue
				}
				a, err := netip.ParseAddr(n.IPv4Addresses[0])
				if err != nil {
					bad = append(bad, fmt.Errorf("container %s: %w", agent.ShortID(c.DockerID), err))
					continue
				}
				known[c.DockerID] = a
			}
		}
	}
	old := i.known.Swap(&known)
	for id, a := range known {
		if old == nil || (*old)[id] != a {
			learnt = true
		}
	}
	return learnt, errors.Join(bad...)
}
