package main

import (
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

// berth is a berth that runs as systemd would run it.
type berth struct {
	*admin.Client
	dir   string
	dns   *net.UDPConn // connected to its DNS server
	cmd   *exec.Cmd
	ended chan struct{}
	ready time.Duration // from before its start to READY=1
}

// startBerth starts a berth that follows the engine at host, with its defaults
// besides what must be its own, and waits until it is ready.
func (w *world) startBerth(ctx context.Context, host string, set ...string) (b *berth, err error) {
	b = &berth{}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.stop())
		}
	}()
	if b.dir, err = os.MkdirTemp(w.dir, "b"); err != nil {
		return nil, err
	}
	// An empty file, so that one in /etc plays no part here.
	config := filepath.Join(b.dir, "berth.yaml")
	if err := os.WriteFile(config, nil, 0o600); err != nil {
		return nil, err
	}
	socket := filepath.Join(b.dir, "s")
	b.Client = admin.NewClient(socket)
	at, err := freePort()
	if err != nil {
		return nil, err
	}
	args := []string{"run", "--config", config}
	for _, kv := range append([]string{
		"state_dir=" + filepath.Join(b.dir, "state"), "admin.socket=" + socket,
		"engine.host=" + host, "dns.port=" + strconv.Itoa(at.Port), "openmetrics.listen=127.0.0.1:0",
	}, set...) {
		args = append(args, "--set", kv)
	}
	log, err := os.Create(filepath.Join(b.dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	path := filepath.Join(b.dir, "n")
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		return nil, err
	}
	defer notify.Close()
	b.cmd = exec.Command(w.berth, args...)
	b.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+path)
	b.cmd.Stdout, b.cmd.Stderr = log, log
	// Ctrl-C is for the bench, which ends berth in its own time.
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	began := time.Now()
	if err := b.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start berth: %w", err)
	}
	b.ended = make(chan struct{})
	go func() { _ = b.cmd.Wait(); close(b.ended) }()
	if err := awaitReady(notify); err != nil {
		said, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("start berth: %w\nits log:\n%s", err, said)
	}
	b.ready = time.Since(began)
	st, err := b.status(ctx)
	if err != nil {
		return nil, err
	}
	if !st.Ready {
		return nil, fmt.Errorf("berth said READY and is not: %s", st.NotReady)
	}
	b.dns, err = net.DialUDP("udp", nil, at)
	return b, err
}

// awaitReady reads the notifications that berth sends until one is READY.
func awaitReady(notify *net.UnixConn) error {
	if err := notify.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
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

// stop ends the berth, if it runs. b may be nil.
func (b *berth) stop() error {
	if b == nil || b.ended == nil {
		return nil
	}
	if b.dns != nil {
		b.dns.Close()
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

func (b *berth) status(ctx context.Context) (st admin.Status, err error) {
	err = b.Get(ctx, "/v1/status", nil, &st)
	return st, err
}

// asked returns what berth says that it has asked of the engine.
func (b *berth) asked(ctx context.Context) (agent.LoopStats, error) {
	st, err := b.status(ctx)
	return st.Engine.Asked, err
}

// cpu returns the user and system time that the process has used.
func (b *berth) cpu() (time.Duration, error) {
	// A process's CPU clock, as clock_getcpuclockid(3) makes it: its number
	// inverted, three bits up, and 2 for the scheduler's clock.
	const scheduler = 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^b.cmd.Process.Pid<<3|scheduler), &ts); err != nil {
		return 0, fmt.Errorf("read berth's CPU clock: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}

// rss returns the resident memory of the process in bytes.
func (b *berth) rss() (uint64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("read berth's memory: %w", err)
	}
	return parseRSS(string(raw))
}

// parseRSS finds VmRSS, which proc(5) gives in units of 1024 bytes.
func parseRSS(status string) (uint64, error) {
	for line := range strings.SplitSeq(status, "\n") {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("parse %q: %w", line, err)
			}
			return kib * 1024, nil
		}
	}
	return 0, errors.New("read berth's memory: there is no VmRSS")
}
