package enginetest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"go.uber.org/goleak"

	"github.com/berthd/berth/test/apps/calc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestOuter_ContainerLife(t *testing.T) {
	e := Outer(t)
	c := e.StartContainer(t, Spec{
		Name: "calc", Args: []string{"calc"}, Ports: []string{"127.0.0.1::8080"},
		Env: []string{"SERVICE_8080_NAME=calc"}, Labels: map[string]string{"a": "b"}, DNS: []string{"127.0.0.1"},
	})
	info := c.Inspect(t)
	if got, want := info.Config.Labels["a"], "b"; got != want {
		t.Errorf("label a: got %q, want %q", got, want)
	}
	if got := info.Config.Labels[LabelRun]; got != e.Run {
		t.Errorf("label %s: got %q, want %q", LabelRun, got, e.Run)
	}
	if !slices.Contains(info.Config.Env, "SERVICE_8080_NAME=calc") {
		t.Errorf("environment: got %q", info.Config.Env)
	}
	if got := info.HostConfig.DNS; !slices.Equal(got, []string{"127.0.0.1"}) {
		t.Errorf("name servers: got %q", got)
	}

	var answer calc.Answer
	Await(t, 10*time.Second, "answer of calc", func(ctx context.Context) error {
		return getJSON(ctx, http.DefaultTransport, fmt.Sprintf("http://127.0.0.1:%d/add?a=40&b=2", c.HostPort(t, "8080/tcp")), &answer)
	})
	if answer.Sum != 42 || !strings.HasPrefix(c.ID, answer.Instance) {
		t.Errorf("answer: got %+v, want 42 of %s", answer, c.ID)
	}

	c.Pause(t)
	if !c.Inspect(t).State.Paused {
		t.Error("after Pause: not paused")
	}
	c.Unpause(t)
	pid := c.Pid(t)
	c.Restart(t)
	if got := c.Pid(t); got == pid {
		t.Errorf("after Restart: still pid %d", got)
	}
	c.Stop(t)
	if got := c.Wait(t); got != 0 {
		t.Errorf("status after Stop: got %d, want 0", got)
	}
	c.Start(t)
	c.Kill(t, "KILL")
	if got := c.Wait(t); got != 137 {
		t.Errorf("status after Kill: got %d, want 137", got)
	}
	c.Remove(t)
	if _, err := e.Client.ContainerInspect(t.Context(), c.ID); !errdefs.IsNotFound(err) {
		t.Errorf("inspect after Remove: got %v, want not found", err)
	}
}

func TestOuter_Sleeper(t *testing.T) {
	e := Outer(t)
	t.Run("obeys SIGTERM at once, not SIGHUP", func(t *testing.T) {
		c := e.StartContainer(t, Spec{Name: "plain"})
		c.Kill(t, "HUP")
		Await(t, 10*time.Second, "log of SIGHUP", func(context.Context) error {
			if got := c.Logs(t); !strings.Contains(got, "got signal: hangup") {
				return fmt.Errorf("got %q", got)
			}
			return nil
		})
		c.Kill(t, "TERM")
		if got := c.Wait(t); got != 0 {
			t.Errorf("status: got %d, want 0", got)
		}
	})
	t.Run("ends by itself", func(t *testing.T) {
		c := e.StartContainer(t, Spec{Name: "exits", Args: []string{"sleeper", "-exit-after=0s", "-exit-code=7"}})
		if got := c.Wait(t); got != 7 {
			t.Errorf("status: got %d, want 7", got)
		}
		c = e.StartContainer(t, Spec{Name: "crashes", Args: []string{"sleeper", "-exit-after=0s", "-crash"}})
		if got := c.Wait(t); got != 2 {
			t.Errorf("status of a crash: got %d, want 2", got)
		}
	})
	t.Run("ignores SIGTERM", func(t *testing.T) {
		c := e.StartContainer(t, Spec{Name: "deaf", Args: []string{"sleeper", "-ignore-term", "-http=:8080"}})
		c.Kill(t, "TERM")
		Await(t, 10*time.Second, "log of SIGTERM", func(context.Context) error {
			if got := c.Logs(t); !strings.Contains(got, "got signal: terminated") {
				return fmt.Errorf("got %q", got)
			}
			return nil
		})
		if !c.Inspect(t).State.Running {
			t.Error("it ended")
		}
	})
	t.Run("is as healthy as it is told", func(t *testing.T) {
		c := e.StartContainer(t, Spec{Name: "health", Args: []string{"sleeper", "-healthy"}, Health: HealthFile(100 * time.Millisecond)})
		awaitHealth(t, c, "healthy")
		c.SetHealthy(t, false)
		awaitHealth(t, c, "unhealthy")
		c.SetHealthy(t, true)
		awaitHealth(t, c, "healthy")
	})
}

func awaitHealth(t *testing.T, c *Container, want string) {
	t.Helper()
	Await(t, 20*time.Second, "health "+want, func(context.Context) error {
		if got := c.Inspect(t).State.Health.Status; got != want {
			return fmt.Errorf("got %q", got)
		}
		return nil
	})
}

func TestOuter_CleansUp(t *testing.T) {
	e := Outer(t)
	var run string
	t.Run("inner", func(t *testing.T) {
		inner := Outer(t)
		run = inner.Run
		network := inner.CreateNetwork(t, "net", "")
		all := inner.StartContainers(t, 9, func(i int) Spec {
			return Spec{Name: fmt.Sprint("many-", i), Network: network, AutoRemove: i%2 == 0}
		})
		for i, c := range all {
			if want := fmt.Sprint("-many-", i); !strings.HasSuffix(c.Name, want) {
				t.Errorf("name of container %d: got %s, want …%s", i, c.Name, want)
			}
			if c.Inspect(t).NetworkSettings.Networks[network] == nil {
				t.Errorf("container %d is not in %s", i, network)
			}
		}
	})
	if got := leftOf(t, e, run); len(got) > 0 {
		t.Errorf("left: %q", got)
	}
}

func leftOf(t *testing.T, e *Engine, run string) []string {
	t.Helper()
	var left []string
	list, err := e.Client.ContainerList(t.Context(), container.ListOptions{All: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range list {
		if c.Labels[LabelRun] == run {
			left = append(left, c.Names...)
		}
	}
	return left
}

func TestOuter_RemovesOrphans(t *testing.T) {
	e := Outer(t)
	// A process that has ended: nobody has its name any more.
	ended := exec.Command("sleep", "infinity")
	if err := ended.Start(); err != nil {
		t.Fatal(err)
	}
	orphan := &Engine{Client: e.Client, Run: e.Run, owner: processName(ended.Process.Pid)}
	ended.Process.Kill()
	ended.Wait()
	if orphan.owner == "" {
		t.Fatal("a running process has no name")
	}
	gone := orphan.StartContainer(t, Spec{Name: "orphan"})
	stays := e.StartContainer(t, Spec{Name: "owned"})

	Outer(t)
	if _, err := e.Client.ContainerInspect(t.Context(), gone.ID); !errdefs.IsNotFound(err) {
		t.Errorf("orphan: got %v, want not found", err)
	}
	if !stays.Inspect(t).State.Running {
		t.Error("a running test's container was ended")
	}
}

func TestPrivate_Life(t *testing.T) {
	p := Private(t, "--live-restore")
	id := engineID(t, p.Engine)
	if outer := engineID(t, Outer(t)); id == outer {
		t.Errorf("the private engine has the outer engine's ID %s", id)
	}
	c := p.StartContainer(t, Spec{Name: "lives"})
	pid := c.Pid(t)

	p.Kill9(t)
	if _, err := p.Client.Ping(t.Context()); err == nil {
		t.Error("after Kill9: the engine answers")
	}
	if err := syscall.Kill(pid, 0); err != nil {
		t.Errorf("after Kill9: the container's process: %v", err)
	}
	p.Start(t)
	if got := c.Pid(t); got != pid {
		t.Errorf("after Start: pid %d, want %d, as it was live", got, pid)
	}
	p.Restart(t)
	p.Stop(t)
	p.Start(t)
	if got := engineID(t, p.Engine); got != id {
		t.Errorf("the ID changed from %s to %s", id, got)
	}
}

func engineID(t *testing.T, e *Engine) string {
	t.Helper()
	info, err := e.Client.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return info.ID
}

func TestPrivate_Network(t *testing.T) {
	p := Private(t)
	c := p.StartContainer(t, Spec{Name: "calc", Args: []string{"calc"}})
	url := fmt.Sprintf("http://%s:8080/add?a=1&b=1", c.IP(t, "bridge"))
	inside := &http.Transport{DialContext: p.Dial, DisableKeepAlives: true}
	var answer calc.Answer
	Await(t, 10*time.Second, "answer through Dial", func(ctx context.Context) error {
		return getJSON(ctx, inside, url, &answer)
	})
	if !strings.HasPrefix(c.ID, answer.Instance) {
		t.Errorf("answer: got one of %s, want of %s", answer.Instance, c.ID)
	}

	out, err := p.Command(t.Context(), "readlink", "/proc/self/ns/net").Output()
	if err != nil {
		t.Fatal(err)
	}
	inNetwork := ""
	if err := p.InNetwork(func() (err error) {
		inNetwork, err = os.Readlink("/proc/thread-self/ns/net")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	ours, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(string(out)); got != inNetwork || got == ours {
		t.Errorf("network namespaces: command in %s, function in %s, test in %s: want the first two equal, and unlike the third", got, inNetwork, ours)
	}
	if out, err := p.Command(t.Context(), "cat", "/etc/docker/daemon.json").Output(); err == nil {
		t.Errorf("the machine's configuration of its engine is visible: %s", out)
	}
}

// TestPrivate_OuterRulesUnchanged is why private engines have a network
// namespace: without one, a second dockerd flushes the first one's rules.
func TestPrivate_OuterRulesUnchanged(t *testing.T) {
	const port = "48766" // in no other test's rules
	e := Outer(t)
	canary := e.StartContainer(t, Spec{Name: "canary", Ports: []string{"127.0.0.1::8080"}})
	canaryPort := fmt.Sprint(canary.HostPort(t, "8080/tcp"))
	before := natRules(t)
	if !strings.Contains(before, canaryPort) {
		t.Fatalf("no rule for the published port %s in:\n%s", canaryPort, before)
	}

	t.Run("private", func(t *testing.T) {
		p := Private(t)
		p.StartContainer(t, Spec{Name: "published", Ports: []string{port + ":8080"}})
		p.CreateNetwork(t, "net", "")
		rules, err := p.Command(t.Context(), "iptables-save", "-t", "nat").Output()
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(rules), port) {
			t.Errorf("no rule for the published port %s in the private engine's:\n%s", port, rules)
		}
		p.Restart(t)
		p.Kill9(t)
		p.Start(t)
		p.Stop(t)
	})

	after := natRules(t)
	if got, want := ownRules(after, canaryPort), ownRules(before, canaryPort); got != want {
		t.Errorf("the outer engine's rules changed; got:\n%s\nwant:\n%s", got, want)
	}
	if strings.Contains(after, port) {
		t.Errorf("the private engine's port %s is in the outer rules:\n%s", port, after)
	}
}

func natRules(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "iptables-save", "-t", "nat").Output()
	if err != nil {
		t.Fatalf("read firewall rules: %v (`make setup` installs iptables)", err)
	}
	return string(out)
}

// ownRules keeps of the rules those that must not change while other people
// start and stop containers on the same engine: the chains, what concerns the
// default bridge as a whole, and those of the container published on port.
func ownRules(rules, port string) string {
	var own []string
	for line := range strings.Lines(rules) {
		ofContainer := strings.Contains(line, "/32") || strings.Contains(line, "--to-destination")
		switch {
		case strings.HasPrefix(line, "#"), strings.Contains(line, "br-"):
		case ofContainer && !strings.Contains(line, "dport "+port+" "):
		case strings.HasPrefix(line, ":"): // without its counters
			own = append(own, strings.Fields(line)[0]+"\n")
		default:
			own = append(own, line)
		}
	}
	return strings.Join(own, "")
}

// TestPrivate_DiesWithItsTest kills a test that has a private engine, and
// awaits the end of everything of it.
func TestPrivate_DiesWithItsTest(t *testing.T) {
	if os.Getenv("BERTH_TEST_ROLE") == "victim" {
		p := Private(t, "--live-restore")
		c := p.StartContainer(t, Spec{Name: "survivor"})
		fmt.Printf("victim %s %d %d\n", p.Dir, p.Pid(), c.Pid(t))
		select {}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	victim := exec.CommandContext(t.Context(), self, "-test.run=^TestPrivate_DiesWithItsTest$")
	victim.Env = append(os.Environ(), "BERTH_TEST_ROLE=victim")
	stdout, err := victim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	var dir string
	var daemon, process int
	var said bytes.Buffer
	lines := bufio.NewScanner(io.TeeReader(stdout, &said))
	for process == 0 && lines.Scan() {
		fmt.Sscanf(lines.Text(), "victim %s %d %d", &dir, &daemon, &process)
	}
	victim.Process.Kill()
	victim.Wait()
	if process == 0 {
		t.Fatalf("the victim said nothing of its engine: %s", said.String())
	}
	Await(t, 30*time.Second, "end of the victim's engine", func(context.Context) error {
		for _, pid := range []int{daemon, process} {
			if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("process %d: %v", pid, err)
			}
		}
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%s: %v", dir, err)
		}
		cgroups, err := filepath.Glob("/sys/fs/cgroup/*/" + filepath.Base(dir))
		if len(cgroups) > 0 || err != nil {
			return fmt.Errorf("cgroups: %q, %v", cgroups, err)
		}
		return nil
	})
}

func getJSON(ctx context.Context, rt http.RoundTripper, url string, v any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Close = true // no connection outlives the test
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(v)
}

// The end of a private engine kills its own processes and no others, although the kernel
// gives the number of its namespace to the next one that anybody makes.
func TestPrivate_EndKillsNobodyElse(t *testing.T) {
	over := make(chan struct{})
	result := make(chan error, 1)
	made := 0
	go func() { // strangers, of whom some are there at any moment
		var all []*exec.Cmd
		var errs []error
		for running := true; running; {
			cmd := exec.Command("unshare", "--mount", "sleep", "0.5")
			if err := cmd.Start(); err != nil {
				errs = append(errs, err)
				break
			}
			all = append(all, cmd)
			select {
			case <-over:
				running = false
			case <-time.After(10 * time.Millisecond):
			}
		}
		for _, cmd := range all {
			errs = append(errs, cmd.Wait())
		}
		made = len(all)
		result <- errors.Join(errs...)
	}()
	for range 3 {
		t.Run("engine", func(t *testing.T) { Private(t) })
	}
	close(over)
	if err := <-result; err != nil {
		t.Errorf("of %d processes with namespaces of their own: %v", made, err)
	}
}
