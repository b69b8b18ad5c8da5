package statsd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berthd/berth/agent/admin"
	"github.com/berthd/berth/collectors/statsd"
	"github.com/berthd/berth/test/apps"
	"github.com/berthd/berth/test/engine/enginetest"
)

// limit bounds every wait. It is for a broken test, never a measure.
const limit = 2 * time.Minute

// world is a host of its own: an engine in a network namespace where nobody else
// has port 8125, and a berth, which may be ended and started again.
type world struct {
	*enginetest.PrivateEngine
	*admin.Client // of berth

	dir    string // of berth
	config string
	cmd    *exec.Cmd
	exited chan struct{}

	// manager stands in for systemd: it keeps the sockets that berth leaves with
	// it, and hands them to the next berth.
	manager *net.UnixConn
	stored  map[string]*os.File
}

// newWorld starts an engine, with no berth yet.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{PrivateEngine: enginetest.Private(t), stored: make(map[string]*os.File)}
	w.dir = filepath.Join(w.Dir, "b")
	w.config = filepath.Join(w.dir, "berth.yaml")
	if err := os.MkdirAll(filepath.Join(w.dir, "statsd"), 0o755); err != nil {
		t.Fatal(err)
	}
	w.Client = admin.NewClient(filepath.Join(w.dir, "s"))
	var err error
	if w.manager, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: filepath.Join(w.dir, "n")}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.manager.Close()
		for _, f := range w.stored {
			f.Close()
		}
	})
	return w
}

// socket is where containers in the host's network send.
func (w *world) socket() string { return filepath.Join(w.dir, "statsd", "statsd.sock") }

// configure writes berth's configuration, of which body is the section statsd.
func (w *world) configure(t *testing.T, body ...string) {
	t.Helper()
	text := fmt.Sprintf("statsd:\n  socket: %s\n", w.socket())
	for _, line := range body {
		text += "  " + line + "\n"
	}
	if err := os.WriteFile(w.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// start starts berth with the sockets that an earlier one has left, and waits
// until it is ready and receives.
func (w *world) start(t *testing.T) {
	t.Helper()
	w.collect(t)
	names := slices.Sorted(maps.Keys(w.stored))
	// The shell's number becomes berth's, which LISTEN_PID must name.
	w.cmd = w.Command(context.Background(), "sh", "-c", `LISTEN_PID=$$ exec "$@"`, "sh", program, "run", "--config", w.config,
		"--set", "state_dir="+filepath.Join(w.dir, "state"), "--set", "admin.socket="+filepath.Join(w.dir, "s"),
		"--set", "engine.host="+w.Host, "--set", "node.id=here", "--set", "node.ec2=off", "--set", "log.level=debug")
	w.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+filepath.Join(w.dir, "n"),
		"LISTEN_FDS="+strconv.Itoa(len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	for _, name := range names {
		w.cmd.ExtraFiles = append(w.cmd.ExtraFiles, w.stored[name])
	}
	log, err := os.OpenFile(filepath.Join(w.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close() // the process has its own
	w.cmd.Stdout, w.cmd.Stderr = log, log
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C is for the test
	if err := w.cmd.Start(); err != nil {
		t.Fatalf("start berth: %v", err)
	}
	cmd, exited := w.cmd, make(chan struct{})
	w.exited = exited
	go func() {
		cmd.Wait() // how it ended is in its log
		close(exited)
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-exited
		if t.Failed() && cmd == w.cmd {
			said, _ := os.ReadFile(log.Name())
			t.Logf("berth's last words:\n%s", said[max(0, len(said)-8<<10):])
		}
	})
	enginetest.Await(t, limit, "berth is ready and receives", func(ctx context.Context) error {
		select {
		case <-exited:
			return errors.New("it has ended")
		default:
		}
		var st admin.Status
		if err := w.Get(ctx, "/v1/status", nil, &st); err != nil {
			return err
		}
		for _, c := range st.Components {
			if c.Name == statsd.Name && strings.Contains(c.Summary, "172.17.0.1") && st.Ready {
				return nil
			}
		}
		return fmt.Errorf("not ready (%s), or not at the bridge: %+v", st.NotReady, st.Components)
	})
}

// end ends berth by a signal.
func (w *world) end(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := w.cmd.Process.Signal(sig); err != nil {
		t.Fatalf("end berth: %v", err)
	}
	select {
	case <-w.exited:
	case <-time.After(limit):
		t.Fatalf("end berth: still running after %v", sig)
	}
}

// reload makes berth read its configuration again, and waits until it has.
func (w *world) reload(t *testing.T) {
	t.Helper()
	cmd := w.Command(t.Context(), program, "--socket", filepath.Join(w.dir, "s"), "reload")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("reload: %v\n%s", err, out)
	}
}

// collect takes the sockets that berth has left with its manager.
func (w *world) collect(t *testing.T) {
	t.Helper()
	raw, err := w.manager.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	buf, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4*4))
	for {
		var n, oobn int
		ctlErr := raw.Control(func(fd uintptr) {
			n, oobn, _, _, err = unix.Recvmsg(int(fd), buf, oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		})
		if errors.Is(err, unix.EAGAIN) {
			return
		}
		if err := errors.Join(ctlErr, err); err != nil {
			t.Fatal(err)
		}
		fields := make(map[string]string)
		for line := range strings.Lines(string(buf[:n])) {
			k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
			fields[k] = v
		}
		name := fields["FDNAME"]
		if old := w.stored[name]; old != nil && (fields["FDSTORE"] == "1" || fields["FDSTOREREMOVE"] == "1") {
			old.Close()
			delete(w.stored, name)
		}
		if fields["FDSTORE"] != "1" {
			continue
		}
		messages, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil || len(messages) != 1 {
			t.Fatalf("descriptors with %q: %v", buf[:n], err)
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil || len(fds) != 1 {
			t.Fatalf("descriptors with %q: %v, %v", buf[:n], fds, err)
		}
		w.stored[name] = os.NewFile(uintptr(fds[0]), name)
	}
}

// top is berth's own account.
func (w *world) top(ctx context.Context) (statsd.Top, error) {
	var top statsd.Top
	err := w.Get(ctx, "/v1/statsd/top", nil, &top)
	return top, err
}

// awaitTop waits until ok says nil of berth's account.
func (w *world) awaitTop(t *testing.T, what string, ok func(statsd.Top) error) statsd.Top {
	t.Helper()
	var top statsd.Top
	enginetest.Await(t, limit, what, func(ctx context.Context) (err error) {
		if top, err = w.top(ctx); err != nil {
			return err
		}
		return ok(top)
	})
	return top
}

// knows waits until berth can tell a container's lines.
func (w *world) knows(t *testing.T, c *enginetest.Container) {
	t.Helper()
	enginetest.Await(t, limit, "berth knows "+c.Name, func(ctx context.Context) error {
		var reasons []struct{ Subject, Verdict string }
		if err := w.Get(ctx, "/v1/statsd/explain", map[string][]string{"container": {c.ID}}, &reasons); err != nil {
			return err
		}
		for _, r := range reasons {
			if r.Verdict == "tagged" {
				return nil
			}
		}
		return fmt.Errorf("it says %+v", reasons)
	})
}

// labels are those of a service.
func labels(service string) map[string]string {
	return map[string]string{"com.datadoghq.tags.service": service, "com.datadoghq.tags.env": "test"}
}

// exporter is a statsd_exporter, the upstream of people without Datadog.
type exporter struct {
	world *world
	cmd   *exec.Cmd
}

// Where the exporter receives and answers, in the world's network.
const (
	exporterAt  = "127.0.0.1:9125"
	exporterWeb = "127.0.0.1:9102"
)

// startExporter starts one, and waits until it answers.
func (w *world) startExporter(t *testing.T) *exporter {
	t.Helper()
	x := &exporter{world: w, cmd: w.Command(context.Background(), exporterProgram,
		"--statsd.listen-udp="+exporterAt, "--statsd.listen-tcp=", "--web.listen-address="+exporterWeb, "--log.level=warn")}
	x.cmd.Stderr = os.Stderr
	x.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := x.cmd.Start(); err != nil {
		t.Fatalf("start statsd_exporter: %v", err)
	}
	exited := make(chan struct{})
	go func() {
		x.cmd.Wait()
		close(exited)
	}()
	t.Cleanup(func() {
		x.cmd.Process.Kill()
		<-exited
	})
	enginetest.Await(t, limit, "statsd_exporter answers", func(ctx context.Context) error {
		_, err := x.metrics(ctx)
		return err
	})
	return x
}

// metrics returns the samples that the exporter has, by name and labels as it
// writes them: sorted by name.
func (x *exporter) metrics(ctx context.Context) (map[string]float64, error) {
	transport := &http.Transport{DialContext: x.world.Dial, DisableKeepAlives: true}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+exporterWeb+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	out := make(map[string]float64)
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		line := lines.Text()
		at := strings.LastIndexByte(line, ' ')
		if at < 0 || line[0] == '#' {
			continue
		}
		if out[line[:at]], err = strconv.ParseFloat(line[at+1:], 64); err != nil {
			return nil, fmt.Errorf("parse %q: %w", line, err)
		}
	}
	return out, lines.Err()
}

// await waits until the exporter has these samples.
func (x *exporter) await(t *testing.T, want map[string]float64) {
	t.Helper()
	enginetest.Await(t, limit, "statsd_exporter has it all", func(ctx context.Context) error {
		got, err := x.metrics(ctx)
		if err != nil {
			return err
		}
		for name, value := range want {
			if v, ok := got[name]; !ok || v != value {
				return fmt.Errorf("%s: got %v (there: %v), want %v; of this kind there are %q", name, v, ok, value, like(got, name))
			}
		}
		return nil
	})
}

// like returns the samples whose names begin as this one's does.
func like(samples map[string]float64, name string) []string {
	head, _, _ := strings.Cut(name, "{")
	var out []string
	for n, v := range samples {
		if strings.HasPrefix(n, head) {
			out = append(out, fmt.Sprint(n, " ", v))
		}
	}
	slices.Sort(out)
	return out
}

// upstream is a Unix datagram socket that counts what it receives.
type upstream struct {
	path string
	conn *net.UnixConn
	done chan struct{}

	mu    sync.Mutex
	lines map[string]int // by line
}

// listen opens one at a path, where there may have been another.
func listen(t *testing.T, path string) *upstream {
	t.Helper()
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	u := &upstream{path: path, conn: conn, done: make(chan struct{}), lines: make(map[string]int)}
	go func() {
		defer close(u.done)
		buf := make([]byte, 64<<10)
		for {
			n, err := conn.Read(buf)
			if errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				continue
			}
			u.mu.Lock()
			for line := range strings.Lines(string(buf[:n])) {
				u.lines[strings.TrimSuffix(line, "\n")]++
			}
			u.mu.Unlock()
		}
	}()
	t.Cleanup(u.close)
	return u
}

func (u *upstream) close() {
	u.conn.Close()
	<-u.done
}

// count returns how many lines begin so, and how many of them have these tags,
// and no others.
func (u *upstream) count(head string, tags ...string) (all, tagged int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	slices.Sort(tags)
	for line, n := range u.lines {
		if !strings.HasPrefix(line, head) {
			continue
		}
		all += n
		_, list, _ := strings.Cut(line, "|#")
		got := strings.Split(list, ",")
		slices.Sort(got)
		if slices.Equal(got, tags) {
			tagged += n
		}
	}
	return all, tagged
}

// await waits until so many lines that begin so are there, and returns how many
// of them have the tags. More are an error.
func (u *upstream) await(t *testing.T, head string, want int, tags ...string) (tagged int) {
	t.Helper()
	enginetest.Await(t, limit, fmt.Sprintf("%d lines %s", want, head), func(context.Context) error {
		all, with := u.count(head, tags...)
		if all < want {
			return fmt.Errorf("got %d", all)
		}
		if tagged = with; all > want {
			t.Fatalf("%d lines %s, want %d", all, head, want)
		}
		return nil
	})
	return tagged
}

// atLeast waits until so many lines that begin so are there.
func (u *upstream) atLeast(t *testing.T, head string, want int) {
	t.Helper()
	enginetest.Await(t, limit, fmt.Sprintf("%d lines %s", want, head), func(context.Context) error {
		if all, _ := u.count(head); all < want {
			return fmt.Errorf("got %d", all)
		}
		return nil
	})
}

// startSender starts a container that sends a line each millisecond or so.
func (w *world) startSender(t *testing.T) *enginetest.Container {
	t.Helper()
	return w.StartContainer(t, enginetest.Spec{
		Name: "sender", Args: []string{apps.Metrics, "-name", "steady", "-count", "0", "-pause", "500us"},
		Labels: labels("steady"), Hurry: true, // it says something only at its end
	})
}

// stopSender stops a container that sends, and returns how much it says it has sent.
func stopSender(t *testing.T, c *enginetest.Container) int {
	t.Helper()
	c.Stop(t)
	var n int
	if _, err := fmt.Sscanf(c.Logs(t), "sent %d to", &n); err != nil || n == 0 {
		t.Fatalf("%s says %q, want how much it has sent: %v", c.Name, c.Logs(t), err)
	}
	return n
}
