package enginetest

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/client"
	"golang.org/x/sys/unix"
)

// supervisor keeps the namespaces and does the whole clean-up.
//
//go:embed private.sh
var supervisor string

const (
	startLimit = 60 * time.Second // for dockerd to answer; it takes one or two
	stopLimit  = 60 * time.Second // for dockerd and its containers to end
)

// PrivateEngine is a dockerd of one test. It has its own network and mount
// namespace, and so its own bridges, firewall rules, /etc/docker (and hence
// engine ID), containerd and cgroup parent: nothing it does, not even being
// killed, touches the machine's engine. (A second dockerd in one network
// namespace would flush the rules of the first.) Process IDs are the machine's.
//
// All of it is gone when the test ends, even when the test is killed.
type PrivateEngine struct {
	*Engine

	// Dir holds all files of the engine. Its path is short, for the sockets'
	// sake.
	Dir string

	flags      []string
	holder     int     // a process that keeps the namespaces
	containerd *daemon // outlives dockerd, as a host's own service does
	dockerd    *daemon // nil until Start
}

// Private starts an engine for this test. flags are added to dockerd's, such
// as --live-restore.
func Private(t testing.TB, flags ...string) *PrivateEngine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("start a private engine: it needs root: run the engine tests as root")
	}
	dir, err := os.MkdirTemp("", "berth-test-")
	if err != nil {
		t.Fatalf("start a private engine: %v", err)
	}
	p := &PrivateEngine{Dir: dir, flags: flags}
	p.supervise(t)
	if err := os.WriteFile(p.path("daemon.json"), []byte("{}\n"), 0o600); err != nil {
		t.Fatalf("start a private engine: %v", err)
	}
	cli, err := client.NewClientWithOpts(client.WithHost("unix://"+p.Socket()), client.WithAPIVersionNegotiation())
	if err != nil {
		t.Fatalf("start a private engine: %v", err)
	}
	// Not newEngine: its containers and networks go with it.
	p.Engine = &Engine{Client: cli, Host: cli.DaemonHost(), Run: filepath.Base(dir), owner: processName(os.Getpid())}
	t.Cleanup(func() { cli.Close() })
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the private engine's last words:\n%s", p.logTail())
		}
	})
	p.startContainerd(t)
	p.Start(t)
	return p
}

// supervise starts the script that keeps the namespaces, and has the clean-up
// end it.
func (p *PrivateEngine) supervise(t testing.TB) {
	t.Helper()
	cmd := exec.Command("sh", "-c", supervisor, "private.sh", p.Dir, p.cgroup())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C is for the test
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatalf("start a private engine: %v", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatalf("start a private engine: %v", err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start a private engine: %v", err)
	}
	t.Cleanup(func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("end the private engine: %v: %s", err, complaints.String())
		}
		for _, d := range []*daemon{p.dockerd, p.containerd} {
			if d != nil && !d.ended(stopLimit) {
				t.Errorf("end the private engine: %s is still running", d.name)
			}
		}
		if _, err := os.Stat(p.Dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("end the private engine: %s is still there (%v): %s", p.Dir, err, complaints.String())
		}
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	pid, found := strings.CutPrefix(strings.TrimSpace(line), "ready ")
	if err != nil || !found {
		t.Fatalf("start a private engine: make namespaces: got %q, %v: %s", line, err, complaints.String())
	}
	if p.holder, err = strconv.Atoi(pid); err != nil {
		t.Fatalf("start a private engine: %v", err)
	}
}

// Socket returns the path of the engine's socket. It is a new file after each
// start.
func (p *PrivateEngine) Socket() string { return p.path("docker.sock") }

// Start starts dockerd, which must not be running, and waits until it answers.
func (p *PrivateEngine) Start(t testing.TB) {
	t.Helper()
	if p.dockerd.running() {
		t.Fatal("start the private engine: it is running")
	}
	p.dockerd = p.spawn(t, "dockerd", append([]string{
		"--config-file", p.path("daemon.json"),
		"--host", "unix://" + p.Socket(),
		"--containerd", p.path("containerd.sock"),
		"--exec-root", p.path("exec"),
		"--data-root", p.path("data"),
		"--pidfile", p.path("docker.pid"),
		"--exec-opt", "native.cgroupdriver=cgroupfs",
		"--cgroup-parent", p.cgroup(),
		"--storage-driver", "vfs",
	}, p.flags...)...)
	p.await(t, p.dockerd, func(ctx context.Context) error {
		_, err := p.Client.Ping(ctx)
		return err
	})
}

// startContainerd starts a containerd for dockerd. One that dockerd starts by
// itself would die with it, which that of a host does not.
func (p *PrivateEngine) startContainerd(t testing.TB) {
	t.Helper()
	config := fmt.Sprintf(`version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = %q
`, p.path("containerd/root"), p.path("containerd/state"), p.path("containerd.sock"))
	if err := os.WriteFile(p.path("containerd.toml"), []byte(config), 0o600); err != nil {
		t.Fatalf("start a private engine: %v", err)
	}
	p.containerd = p.spawn(t, "containerd", "--config", p.path("containerd.toml"))
	p.await(t, p.containerd, func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", p.path("containerd.sock"))
		if err == nil {
			conn.Close()
		}
		return err
	})
}

// await waits until d is ready, or has ended.
func (p *PrivateEngine) await(t testing.TB, d *daemon, ready func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startLimit)
	defer cancel()
	err := poll(ctx, func(ctx context.Context) error {
		if !d.running() {
			cancel()
			return errors.New("it has ended")
		}
		return ready(ctx)
	})
	if err != nil {
		t.Fatalf("start %s of the private engine: %v", d.name, err)
	}
}

// Stop ends dockerd by SIGTERM, as systemd does, which stops the containers
// first (unless --live-restore), and waits for its end.
func (p *PrivateEngine) Stop(t testing.TB) {
	t.Helper()
	p.dockerd.end(t, syscall.SIGTERM)
}

// Kill9 ends dockerd by SIGKILL, and waits for its end. The containers go on;
// when dockerd starts again without --live-restore, it kills those.
func (p *PrivateEngine) Kill9(t testing.TB) {
	t.Helper()
	p.dockerd.end(t, syscall.SIGKILL)
}

// Restart is Stop and then Start.
func (p *PrivateEngine) Restart(t testing.TB) {
	t.Helper()
	p.Stop(t)
	p.Start(t)
}

// Pid returns the process ID of the running dockerd.
func (p *PrivateEngine) Pid() int { return p.dockerd.cmd.Process.Pid }

// Command returns a command that is to run in the engine's namespaces, with /
// as its working directory. The command's process is the program itself. It is
// killed when ctx ends, and at the latest when the test ends.
func (p *PrivateEngine) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	enter := []string{"--target", strconv.Itoa(p.holder), "--net", "--mount", "--", name}
	return exec.CommandContext(ctx, "nsenter", append(enter, args...)...)
}

// InNetwork calls f on a thread in the engine's network namespace, and returns
// its error. Sockets that f makes stay in that namespace for good; goroutines
// that f starts are not in it.
func (p *PrivateEngine) InNetwork(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		left, err := p.enterNetwork(f)
		if left {
			// Else the thread, which has the wrong namespace for anything
			// else, ends with this goroutine.
			runtime.UnlockOSThread()
		}
		result <- err
	}()
	return <-result
}

// enterNetwork calls f in the engine's network namespace. It reports whether
// the thread is back in its own.
func (p *PrivateEngine) enterNetwork(f func() error) (left bool, err error) {
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return true, fmt.Errorf("enter network namespace: %w", err)
	}
	defer own.Close()
	theirs, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", p.holder))
	if err != nil {
		return true, fmt.Errorf("enter network namespace: %w", err)
	}
	defer theirs.Close()
	if err := unix.Setns(int(theirs.Fd()), unix.CLONE_NEWNET); err != nil {
		return true, fmt.Errorf("enter network namespace: %w", err)
	}
	err = f()
	if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back != nil {
		return false, errors.Join(err, fmt.Errorf("leave network namespace: %w", back))
	}
	return true, err
}

// Dial connects to addr, an IP address and port, from within the engine's
// network namespace: to a container, or to what listens on its bridge. It fits
// http.Transport's DialContext.
func (p *PrivateEngine) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var conn net.Conn
	err := p.InNetwork(func() (err error) {
		conn, err = new(net.Dialer).DialContext(ctx, network, addr)
		return err
	})
	return conn, err
}

// daemon is a running program of the engine, or one that has ended.
type daemon struct {
	name   string
	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has ended
}

// spawn starts a program in the engine's namespaces, with the engine's log as
// its output.
func (p *PrivateEngine) spawn(t testing.TB, name string, args ...string) *daemon {
	t.Helper()
	log, err := os.OpenFile(p.path("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatalf("start %s of the private engine: %v", name, err)
	}
	defer log.Close() // the program has its own
	// Not t.Context(), which ends before the clean-up does.
	cmd := p.Command(context.Background(), name, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C is for the test
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s of the private engine: %v", name, err)
	}
	d := &daemon{name: name, cmd: cmd, exited: make(chan struct{})}
	go func() {
		cmd.Wait() // how it ended is in its log
		close(d.exited)
	}()
	return d
}

func (d *daemon) running() bool {
	if d == nil {
		return false
	}
	select {
	case <-d.exited:
		return false
	default:
		return true
	}
}

// end sends a signal and waits for the end.
func (d *daemon) end(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if !d.running() {
		t.Fatal("end the private engine: it is not running")
	}
	if err := d.cmd.Process.Signal(sig); err != nil {
		t.Fatalf("end the private engine: %v", err)
	}
	if !d.ended(stopLimit) {
		t.Fatalf("end the private engine: still running %v after %v", stopLimit, sig)
	}
}

// ended waits for the end, and reports whether it came in time.
func (d *daemon) ended(limit time.Duration) bool {
	select {
	case <-d.exited:
		return true
	case <-time.After(limit):
		return false
	}
}

// logTail returns the end of the engine's log, which is all that a failed test
// leaves of it.
func (p *PrivateEngine) logTail() string {
	f, err := os.Open(p.path("log"))
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	const tail = 8 << 10
	if info, err := f.Stat(); err == nil && info.Size() > tail {
		f.Seek(-tail, io.SeekEnd)
	}
	data, _ := io.ReadAll(f)
	return string(data)
}

func (p *PrivateEngine) path(name string) string { return filepath.Join(p.Dir, name) }

// cgroup is as unique as the folder's name.
func (p *PrivateEngine) cgroup() string { return "/" + filepath.Base(p.Dir) }
