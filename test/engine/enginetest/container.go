package enginetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"
	"github.com/docker/go-connections/nat"
	"golang.org/x/sync/errgroup"
)

// readyLimit bounds the wait for a container's first line of output.
const readyLimit = 2 * time.Minute

// Spec says what container to make.
type Spec struct {
	// Name ends the container's name, which begins with that of the run.
	Name string
	// Args are the application (calc, time, portal, sleeper) and its flags; by
	// default a sleeper that waits and obeys SIGTERM at once.
	Args []string
	// Env are environment variables, as KEY=value.
	Env []string
	// Labels are those besides the test's own.
	Labels map[string]string
	// Ports are published as `docker run -p` reads them: "8080" is container
	// port 8080 on any free host port, "127.0.0.1:5000:53/udp" says it all.
	Ports []string
	// Network is the network mode: "" is the default bridge; "host", "none",
	// "container:ID" or the name that Engine.CreateNetwork returned.
	Network string
	// DNS are the addresses of the container's name servers.
	DNS []string
	// Restart is the restart policy, "" for none.
	Restart container.RestartPolicyMode
	// AutoRemove removes the container when it ends (--rm).
	AutoRemove bool
	// Hurry has the helpers that start the container return as soon as the
	// engine has, rather than await the application's first line of output:
	// until then its first process may lose a signal, having no handler yet.
	Hurry bool
	// Health is the HEALTHCHECK. HealthFile makes one for sleepers.
	Health *container.HealthConfig
	// Adjust, if set, may change what is sent to the engine.
	Adjust func(*container.Config, *container.HostConfig)
}

// HealthFile is a HEALTHCHECK that looks for the sleeper's health file at this
// interval: see Container.SetHealthy, and the sleeper's flag -healthy. One
// failure is enough to be unhealthy.
func HealthFile(interval time.Duration) *container.HealthConfig {
	return &container.HealthConfig{
		Test:     []string{"CMD", "/app", "health"},
		Interval: interval,
		Timeout:  10 * time.Second,
		Retries:  1,
	}
}

// Container is a container of a test.
type Container struct {
	ID   string
	Name string // without the slash that the engine puts before it

	engine *Engine
	hurry  bool
}

// CreateContainer makes a container and does not start it.
func (e *Engine) CreateContainer(t testing.TB, s Spec) *Container {
	t.Helper()
	c, err := e.create(t.Context(), e.Image(t), s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// StartContainer makes a container and starts it.
func (e *Engine) StartContainer(t testing.TB, s Spec) *Container {
	t.Helper()
	c := e.CreateContainer(t, s)
	c.Start(t)
	return c
}

// StartContainers starts n containers, eight at a time. The i-th is made as spec(i)
// says and is the i-th of the result.
func (e *Engine) StartContainers(t testing.TB, n int, spec func(i int) Spec) []*Container {
	t.Helper()
	image := e.Image(t)
	all := make([]*Container, n)
	g, ctx := errgroup.WithContext(t.Context())
	g.SetLimit(8)
	for i := range n {
		g.Go(func() error {
			c, err := e.create(ctx, image, spec(i))
			if err != nil {
				return err
			}
			all[i] = c
			return c.start(ctx)
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	return all
}

func (e *Engine) create(ctx context.Context, image string, s Spec) (*Container, error) {
	exposed, bindings, err := nat.ParsePortSpecs(s.Ports)
	if err != nil {
		return nil, fmt.Errorf("create container %s: %w", s.Name, err)
	}
	labels := e.labels()
	maps.Copy(labels, s.Labels)
	config := &container.Config{
		Image: image, Cmd: s.Args, Env: s.Env, Labels: labels,
		ExposedPorts: exposed, Healthcheck: s.Health,
	}
	if len(s.Args) == 0 {
		config.Cmd = []string{"sleeper"}
	}
	host := &container.HostConfig{
		NetworkMode:   container.NetworkMode(s.Network),
		PortBindings:  bindings,
		DNS:           s.DNS,
		RestartPolicy: container.RestartPolicy{Name: s.Restart},
		AutoRemove:    s.AutoRemove,
	}
	if s.Adjust != nil {
		s.Adjust(config, host)
	}
	name := e.uniqueName(s.Name)
	created, err := e.Client.ContainerCreate(ctx, config, host, nil, nil, name)
	if err != nil {
		return nil, fmt.Errorf("create container %s: %w", name, err)
	}
	return &Container{ID: created.ID, Name: name, engine: e, hurry: s.Hurry}, nil
}

func (c *Container) start(ctx context.Context) error {
	for try := 1; ; try++ {
		err := c.engine.Client.ContainerStart(ctx, c.ID, container.StartOptions{})
		if err == nil {
			return c.awaitReady(ctx)
		}
		// Engine 20.10 now and then kills its own helper that sets the network up.
		if try == startTries || !strings.Contains(err.Error(), "signal: killed") {
			return fmt.Errorf("start container %s: %w", c.Name, err)
		}
	}
}

// startTries is how often a start is tried that the engine itself spoils.
const startTries = 3

// awaitReady waits until the application has written something in its present
// run, or is not running any more.
func (c *Container) awaitReady(ctx context.Context) error {
	if c.hurry {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	cli := c.engine.Client
	err := poll(ctx, func(ctx context.Context) error {
		info, err := cli.ContainerInspect(ctx, c.ID)
		if errdefs.IsNotFound(err) || err == nil && !info.State.Running {
			return nil
		}
		if err != nil {
			return err
		}
		// Not since StartedAt, which the engine notes after the start: the
		// first line may be older. Of a first run, FinishedAt is year 1.
		logs, err := c.logs(ctx, info.State.FinishedAt)
		if err == nil && logs == "" {
			err = errors.New("no output")
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("start container %s: %w", c.Name, err)
	}
	return nil
}

// Start starts a container that was created or has ended.
func (c *Container) Start(t testing.TB) {
	t.Helper()
	if err := c.start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// Stop stops the container as `docker stop` does, and waits for its end.
func (c *Container) Stop(t testing.TB) {
	t.Helper()
	c.must(t, "stop", c.engine.Client.ContainerStop(t.Context(), c.ID, container.StopOptions{}))
}

// Restart restarts the container as `docker restart` does.
func (c *Container) Restart(t testing.TB) {
	t.Helper()
	c.must(t, "restart", c.engine.Client.ContainerRestart(t.Context(), c.ID, container.StopOptions{}))
	c.must(t, "restart", c.awaitReady(t.Context()))
}

// Kill sends a signal, such as "KILL" or "HUP", as `docker kill` does. It does
// not wait for an end.
func (c *Container) Kill(t testing.TB, signal string) {
	t.Helper()
	c.must(t, "kill", c.engine.Client.ContainerKill(t.Context(), c.ID, signal))
}

// Pause freezes the container's processes.
func (c *Container) Pause(t testing.TB) {
	t.Helper()
	c.must(t, "pause", c.engine.Client.ContainerPause(t.Context(), c.ID))
}

// Unpause lets the container's processes run again.
func (c *Container) Unpause(t testing.TB) {
	t.Helper()
	c.must(t, "unpause", c.engine.Client.ContainerUnpause(t.Context(), c.ID))
}

// Remove kills the container if it runs, and removes it.
func (c *Container) Remove(t testing.TB) {
	t.Helper()
	if err := c.engine.removeContainer(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
}

// Wait waits until the container does not run, and returns its exit status.
func (c *Container) Wait(t testing.TB) int {
	t.Helper()
	done, failed := c.engine.Client.ContainerWait(t.Context(), c.ID, container.WaitConditionNotRunning)
	select {
	case err := <-failed:
		c.must(t, "wait for", err)
		return -1
	case r := <-done:
		return int(r.StatusCode)
	}
}

// Inspect returns what the engine knows of the container.
func (c *Container) Inspect(t testing.TB) container.InspectResponse {
	t.Helper()
	info, err := c.engine.Client.ContainerInspect(t.Context(), c.ID)
	c.must(t, "inspect", err)
	return info
}

// Pid returns the process ID of the container's first process, as the machine
// sees it. A test can kill that behind the engine's back.
func (c *Container) Pid(t testing.TB) int {
	t.Helper()
	pid := c.Inspect(t).State.Pid
	if pid == 0 {
		t.Fatalf("pid of container %s: it is not running", c.Name)
	}
	return pid
}

// HostPort returns the host port that a container port, such as "8080/tcp", is
// published on: the first one, if there are several.
func (c *Container) HostPort(t testing.TB, port string) uint16 {
	t.Helper()
	bindings := c.Inspect(t).NetworkSettings.Ports[nat.Port(port)]
	if len(bindings) == 0 {
		t.Fatalf("container %s: port %s is not published", c.Name, port)
	}
	n, err := strconv.ParseUint(bindings[0].HostPort, 10, 16)
	c.must(t, "parse host port of", err)
	return uint16(n)
}

// IP returns the container's IPv4 address in a network, by the name that
// Engine.CreateNetwork returned, or "bridge" for the default one.
func (c *Container) IP(t testing.TB, network string) string {
	t.Helper()
	end := c.Inspect(t).NetworkSettings.Networks[network]
	if end == nil || end.IPAddress == "" {
		t.Fatalf("container %s has no address in network %s", c.Name, network)
	}
	return end.IPAddress
}

// Exec runs a command in the container and returns its output, standard output
// and error together. It fails the test when the command's status is not 0.
func (c *Container) Exec(t testing.TB, args ...string) string {
	t.Helper()
	cli := c.engine.Client
	exec, err := cli.ContainerExecCreate(t.Context(), c.ID, container.ExecOptions{
		Cmd: args, AttachStdout: true, AttachStderr: true,
	})
	c.must(t, "exec in", err)
	conn, err := cli.ContainerExecAttach(t.Context(), exec.ID, container.ExecAttachOptions{})
	c.must(t, "exec in", err)
	defer conn.Close()
	var out bytes.Buffer
	_, err = stdcopy.StdCopy(&out, &out, conn.Reader)
	c.must(t, "read output of exec in", err)
	// The engine closes the stream a little before it notes the status.
	var status int
	Await(t, 10*time.Second, "end of exec in "+c.Name, func(ctx context.Context) error {
		info, err := cli.ContainerExecInspect(ctx, exec.ID)
		if err == nil && info.Running {
			err = fmt.Errorf("still running")
		}
		status = info.ExitCode
		return err
	})
	if status != 0 {
		t.Fatalf("exec %q in %s: status %d: %s", args, c.Name, status, out.String())
	}
	return out.String()
}

// SetHealthy makes a sleeper with HealthFile healthy or unhealthy: its next
// check finds it so. It is an exec, with the engine's three events of one.
func (c *Container) SetHealthy(t testing.TB, healthy bool) {
	t.Helper()
	state := "unhealthy"
	if healthy {
		state = "healthy"
	}
	c.Exec(t, "/app", "health", "-set="+state)
}

// Logs returns all that the container has written.
func (c *Container) Logs(t testing.TB) string {
	t.Helper()
	out, err := c.logs(t.Context(), zeroTime)
	c.must(t, "read logs of", err)
	return out
}

// zeroTime is how the engine writes a time that has not come.
const zeroTime = "0001-01-01T00:00:00Z"

// logs returns what the container has written since then, a time as the engine
// writes it.
func (c *Container) logs(ctx context.Context, since string) (string, error) {
	if since == zeroTime {
		since = ""
	}
	r, err := c.engine.Client.ContainerLogs(ctx, c.ID, container.LogsOptions{ShowStdout: true, ShowStderr: true, Since: since})
	if err != nil {
		return "", err
	}
	defer r.Close()
	var out bytes.Buffer
	_, err = stdcopy.StdCopy(&out, &out, r)
	return out.String(), err
}

func (c *Container) must(t testing.TB, verb string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s container %s: %v", verb, c.Name, err)
	}
}
