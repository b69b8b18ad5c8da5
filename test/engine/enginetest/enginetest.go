// Package enginetest lets tests drive a real Docker engine.
//
// There are two kinds of engine. Outer is the one that runs on this machine,
// shared with whatever else runs there: a test may start containers and
// networks on it, all of which carry the label berth.test and are removed when
// the test ends. Private is a dockerd of the test's own, in its own network and
// mount namespace, which the test may stop, kill and restart.
//
// A test starts containers with Engine.StartContainer, from an image made of our own
// sample applications (package apps); nothing is pulled:
//
//	e := enginetest.Outer(t)
//	c := e.StartContainer(t, enginetest.Spec{
//		Name:   "calc",
//		Args:   []string{"calc"},
//		Ports:  []string{"8080"},
//		Labels: map[string]string{"SERVICE_8080_NAME": "calc"},
//	})
//	c.Stop(t)
//
// What cannot be had (an engine, root) fails the test and says what to do. No
// helper skips a test. All need the tests of one machine to run one package at
// a time (go test -p 1), because they share the machine's engine.
package enginetest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"
	"golang.org/x/sync/errgroup"

	"github.com/berthd/berth/test/apps"
)

// The labels of everything that a test makes.
const (
	// LabelRun has the engine's Run as its value.
	LabelRun = "berth.test"
	// LabelOwner tells which process made it, as "pid:start time", so that the
	// leftovers of a test that was killed can be told from a running test's.
	LabelOwner = "berth.test.owner"
)

// imageRepo is the repository of the test images.
const imageRepo = "berth-test"

// cleanupLimit bounds the removal of what a test leaves.
const cleanupLimit = 2 * time.Minute

// Engine is a Docker engine under test. Its methods may be called by many
// goroutines, except that those which take a testing.TB call its Fatal, which
// belongs to the test's own goroutine.
type Engine struct {
	// Client talks to the engine; it is closed when the test ends.
	Client *client.Client
	// Host is the engine's address, such as unix:///var/run/docker.sock.
	Host string
	// Run is the value of LabelRun on all that was made through this Engine,
	// and part of the names. It is unlike that of any other Engine.
	Run string

	owner string
	made  atomic.Int64 // containers and networks, to number their names
}

// Outer connects to the engine of this machine: the one that DOCKER_HOST
// names, or the default socket. When the test ends it removes all containers
// and networks that were made through it. It first removes what a test that
// was killed has left.
func Outer(t testing.TB) *Engine {
	t.Helper()
	cli, err := client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
	if err != nil {
		t.Fatalf("connect to the engine: %v", err)
	}
	e := newEngine(t, cli)
	if _, err := cli.Ping(t.Context()); err != nil {
		t.Fatalf("connect to the engine: %v\n\tNo Docker engine answers at %s. `make setup` starts one (as root); DOCKER_HOST chooses another.", err, e.Host)
	}
	if err := e.removeOrphans(t.Context()); err != nil {
		t.Fatalf("remove what earlier tests left: %v", err)
	}
	return e
}

// newEngine wraps cli, and registers the clean-up.
func newEngine(t testing.TB, cli *client.Client) *Engine {
	e := &Engine{
		Client: cli,
		Host:   cli.DaemonHost(),
		Run:    strings.ToLower(rand.Text()[:10]),
		owner:  processName(os.Getpid()),
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), cleanupLimit)
		defer cancel()
		defer cli.Close()
		if e.made.Load() == 0 {
			return
		}
		if err := e.RemoveAll(ctx); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	return e
}

// Image makes sure that the engine has the image of the sample applications
// and returns its reference.
func (e *Engine) Image(t testing.TB) string {
	t.Helper()
	ref, err := apps.Ensure(t.Context(), e.Client, imageRepo, apps.All)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// CreateNetwork creates a bridge network whose name begins with that of the run, and
// returns its full name. subnet is its IPv4 prefix, or "" to let the engine
// choose.
func (e *Engine) CreateNetwork(t testing.TB, name, subnet string) string {
	t.Helper()
	opts := network.CreateOptions{Driver: "bridge", Labels: e.labels()}
	if subnet != "" {
		opts.IPAM = &network.IPAM{Config: []network.IPAMConfig{{Subnet: subnet}}}
	}
	full := e.uniqueName(name)
	if _, err := e.Client.NetworkCreate(t.Context(), full, opts); err != nil {
		t.Fatalf("create network %s: %v", full, err)
	}
	return full
}

// RemoveAll kills and removes all containers and then all networks that were
// made through e. It is called at the end of the test; a test may call it to
// have nothing running earlier.
func (e *Engine) RemoveAll(ctx context.Context) error {
	return e.remove(ctx, filters.Arg("label", LabelRun+"="+e.Run), func(map[string]string) bool { return true })
}

// removeOrphans removes what was made by processes that are gone.
func (e *Engine) removeOrphans(ctx context.Context) error {
	return e.remove(ctx, filters.Arg("label", LabelOwner), func(labels map[string]string) bool {
		owner := labels[LabelOwner]
		pid, _, _ := strings.Cut(owner, ":")
		n, err := strconv.Atoi(pid)
		return err == nil && processName(n) != owner
	})
}

// remove removes the containers and networks that match the filter and whose
// labels are ours. That another has removed one first is no error.
func (e *Engine) remove(ctx context.Context, match filters.KeyValuePair, ours func(labels map[string]string) bool) error {
	args := filters.NewArgs(match)
	list, err := e.Client.ContainerList(ctx, container.ListOptions{All: true, Filters: args})
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	var g errgroup.Group
	g.SetLimit(8)
	for _, c := range list {
		if !ours(c.Labels) {
			continue
		}
		g.Go(func() error { return e.removeContainer(ctx, c.ID) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	networks, err := e.Client.NetworkList(ctx, network.ListOptions{Filters: args})
	if err != nil {
		return fmt.Errorf("list networks: %w", err)
	}
	for _, n := range networks {
		if !ours(n.Labels) {
			continue
		}
		if err := e.Client.NetworkRemove(ctx, n.ID); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove network %s: %w", n.Name, err)
		}
	}
	return nil
}

// removeContainer removes a container, and waits for a removal that is under
// way already, such as that of --rm.
func (e *Engine) removeContainer(ctx context.Context, id string) error {
	opts := container.RemoveOptions{Force: true, RemoveVolumes: true}
	err := e.Client.ContainerRemove(ctx, id, opts)
	for err != nil && strings.Contains(err.Error(), "already in progress") {
		select {
		case <-ctx.Done():
			return fmt.Errorf("remove container %s: %w", id, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
		_, err = e.Client.ContainerInspect(ctx, id)
		if err == nil {
			err = e.Client.ContainerRemove(ctx, id, opts)
		}
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove container %s: %w", id, err)
	}
	return nil
}

func (e *Engine) labels() map[string]string {
	return map[string]string{LabelRun: e.Run, LabelOwner: e.owner}
}

func (e *Engine) uniqueName(name string) string {
	return fmt.Sprintf("berth-test-%s-%d-%s", e.Run, e.made.Add(1), name)
}

// processName names the running process pid so that another one which gets the
// same pid has another name; it is "" when no such process runs. The start
// time is field 22 of /proc/PID/stat (proc(5)), counted after the command's
// name, which may hold anything.
func processName(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	const start = 22 - 3 // field 3 is the first after the name
	if len(fields) <= start {
		return ""
	}
	return fmt.Sprintf("%d:%s", pid, fields[start])
}

// Await calls ok until it returns nil, every few milliseconds, and fails the
// test with what and ok's last error when that takes longer than limit. The
// limit is a bound for a broken test, never a measure.
func Await(t testing.TB, limit time.Duration, what string, ok func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := poll(ctx, ok); err != nil {
		t.Fatalf("%s: not after %v: %v", what, limit, err)
	}
}

// poll calls ok until it returns nil or ctx ends, and returns ok's last error.
func poll(ctx context.Context, ok func(ctx context.Context) error) error {
	var last error
	for {
		err := ok(ctx)
		if err == nil {
			return nil
		}
		// The error of a call that was cut short says less than the one before.
		if ctx.Err() == nil || last == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return errors.Join(last, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}
