package rig

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/admin"
)

// Berth is a berth that runs as systemd would run it.
type Berth struct {
	*admin.Client
	Ready time.Duration // from before its start to READY=1
	DNS   *net.UDPConn  // connected to its DNS server; nil if that is off

	cmd   *exec.Cmd
	ended chan struct{}
}

// Options are what a Berth has other than its defaults.
type Options struct {
	Host string   // of the engine; empty is the World's
	Dir  string   // of the state, which outlives the berth; empty is a new one
	Env  []string // besides the environment
	Set  []string // settings, as section.key=value
}

// StartBerth starts a berth with its defaults, besides what must be its own, and
// waits until it is ready. Stop it.
func (w *World) StartBerth(ctx context.Context, o Options) (b *Berth, err error) {
	b = &Berth{}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.Stop())
		}
	}()
	dir, err := os.MkdirTemp(w.Dir, "b")
	if err != nil {
		return nil, err
	}
	// An empty file, so that one in /etc plays no part here.
	config := filepath.Join(dir, "berth.yaml")
	if err := os.WriteFile(config, nil, 0o600); err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, "s")
	b.Client = admin.NewClient(socket)
	at, err := freePort()
	if err != nil {
		return nil, err
	}
	args := []string{"run", "--config", config}
	for _, kv := range append([]string{
		"state_dir=" + cmp.Or(o.Dir, filepath.Join(dir, "state")), "admin.socket=" + socket,
		"engine.host=" + cmp.Or(o.Host, "unix://"+w.Socket), "dns.port=" + strconv.Itoa(at.Port), "openmetrics.listen=127.0.0.1:0",
		"statsd.enabled=false",
	}, o.Set...) {
		args = append(args, "--set", kv)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	path := filepath.Join(dir, "n")
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		return nil, err
	}
	defer notify.Close()
	b.cmd = exec.Command(w.Binary, args...)
	b.cmd.Env = append(append(os.Environ(), o.Env...), "NOTIFY_SOCKET="+path)
	b.cmd.Stdout, b.cmd.Stderr = log, log
	// Ctrl-C is for the bench, which ends berth in its own time.
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := notify.SetReadDeadline(time.Now().Add(Patience)); err != nil {
		return nil, err
	}
	began := time.Now()
	if err := b.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start berth: %w", err)
	}
	b.ended = make(chan struct{})
	go func() {
		_ = b.cmd.Wait()
		close(b.ended)
		_ = notify.SetReadDeadline(time.Unix(1, 0)) // READY will not come
	}()
	if err := awaitReady(notify); err != nil {
		said, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("start berth: %w\nits log:\n%s", err, said)
	}
	b.Ready = time.Since(began)
	// Where others start containers, one may have come since READY.
	if err := Until(ctx, "berth is ready", func() error {
		st, err := b.Status(ctx)
		if err == nil && !st.Ready {
			err = errors.New(st.NotReady)
		}
		return err
	}); err != nil {
		return nil, err
	}
	b.DNS, err = net.DialUDP("udp", nil, at)
	return b, err
}

// awaitReady reads the notifications that berth sends until one is READY.
func awaitReady(notify *net.UnixConn) error {
	buf := make([]byte, 4096)
	for {
		n, err := notify.Read(buf)
		if err != nil {
			return fmt.Errorf("wait for READY: %w", err)
		}
		for line := range strings.SplitSeq(string(buf[:n]), "\n") {
			if line == "READY=1" {
				return nil
			}
		}
	}
}

// freePort returns a loopback address whose UDP port was free just now.
func freePort() (*net.UDPAddr, error) {
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, fmt.Errorf("find a free port: %w", err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr), nil
}

// Stop ends the berth, if it runs. b may be nil.
func (b *Berth) Stop() error {
	if b == nil || b.ended == nil {
		return nil
	}
	if b.DNS != nil {
		b.DNS.Close()
	}
	_ = b.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-b.ended:
		return nil
	case <-time.After(10 * time.Second):
		_ = b.cmd.Process.Kill()
		<-b.ended
		return errors.New("berth did not end within 10 s of SIGTERM")
	}
}

// Status returns the berth's account of itself.
func (b *Berth) Status(ctx context.Context) (st admin.Status, err error) {
	err = b.Get(ctx, "/v1/status", nil, &st)
	return st, err
}

// Asked returns what berth says that it has asked of the engine.
func (b *Berth) Asked(ctx context.Context) (agent.LoopStats, error) {
	st, err := b.Status(ctx)
	return st.Engine.Asked, err
}

// CPU returns the user and system time that the process has used.
func (b *Berth) CPU() (time.Duration, error) {
	// A process's CPU clock, as clock_getcpuclockid(3) makes it: its number
	// inverted, three bits up, and 2 for the scheduler's clock.
	const scheduler = 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^b.cmd.Process.Pid<<3|scheduler), &ts); err != nil {
		return 0, fmt.Errorf("read berth's CPU clock: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}

// RSS returns the resident memory of the process in bytes.
func (b *Berth) RSS() (uint64, error) { return b.memory("VmRSS") }

// Anonymous returns the part of the resident memory that is no file's, in bytes:
// heap, stacks and what the runtime keeps.
func (b *Berth) Anonymous() (uint64, error) { return b.memory("RssAnon") }

func (b *Berth) memory(key string) (uint64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("read berth's memory: %w", err)
	}
	return parseMemory(string(raw), key)
}

// parseMemory finds a figure that proc(5) gives in units of 1024 bytes.
func parseMemory(status, key string) (uint64, error) {
	for line := range strings.SplitSeq(status, "\n") {
		if rest, ok := strings.CutPrefix(line, key+":"); ok {
			kib, err := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("parse %q: %w", line, err)
			}
			return kib * 1024, nil
		}
	}
	return 0, fmt.Errorf("read berth's memory: there is no %s", key)
}

// Signal sends the process a signal.
func (b *Berth) Signal(sig syscall.Signal) error { return b.cmd.Process.Signal(sig) }
