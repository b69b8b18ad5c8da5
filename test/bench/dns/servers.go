package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/miekg/dns"
)

// The servers' names in the table.
const (
	nameBerth   = "berth"
	nameCoreDNS = "CoreDNS file"
	nameNSD     = "NSD"
)

// server is one server that runs, and what was measured of it.
type server struct {
	name string
	port int
	cmd  *exec.Cmd

	max, half, same []measurement
}

// startAll starts the servers on ports of their own, and returns those that run
// even if another does not.
func startAll(ctx context.Context, dir, coredns string) ([]*server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find own program: %w", err)
	}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if writeErr := os.WriteFile(path, []byte(text), 0o644); writeErr != nil && err == nil {
			err = fmt.Errorf("write %s: %w", name, writeErr)
		}
		return path
	}
	zonePath := write("zone", zoneFile())
	write("questions", questions())
	ports, portErr := freePorts(3)
	if portErr != nil {
		return nil, portErr
	}
	corefile := write("Corefile", fmt.Sprintf("%s:%d {\n\tbind 127.0.0.1\n\tfile %s\n}\n", strings.TrimSuffix(zone, "."), ports[1], zonePath))
	nsdConf := write("nsd.conf", nsdConfig(dir, zonePath, ports[2]))
	if err != nil {
		return nil, err
	}
	var servers []*server
	for _, s := range []struct {
		name string
		args []string
	}{
		{nameBerth, []string{self, "-serve", fmt.Sprintf("127.0.0.1:%d", ports[0])}},
		{nameCoreDNS, []string{coredns, "-conf", corefile}},
		{nameNSD, []string{"/usr/sbin/nsd", "-d", "-c", nsdConf}},
	} {
		// Not the command's context: stopAll ends the servers.
		cmd := exec.Command("taskset", append([]string{"-c", "0"}, s.args...)...)
		cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
		if err := cmd.Start(); err != nil {
			return servers, fmt.Errorf("start %s: %w", s.name, err)
		}
		started := &server{name: s.name, port: ports[len(servers)], cmd: cmd}
		servers = append(servers, started)
		if err := started.verify(ctx); err != nil {
			return servers, fmt.Errorf("start %s: %w", s.name, err)
		}
	}
	return servers, nil
}

// nsdConfig is for one process on one port, without its defence against floods,
// which would answer 200 questions a second.
func nsdConfig(dir, zonePath string, port int) string {
	return fmt.Sprintf(`server:
	ip-address: 127.0.0.1@%d
	server-count: 1
	username: ""
	zonesdir: "%[2]s"
	database: ""
	pidfile: "%[2]s/nsd.pid"
	xfrdfile: "%[2]s/xfrd.state"
	zonelistfile: "%[2]s/zone.list"
	xfrdir: "%[2]s"
	rrl-ratelimit: 0
	rrl-whitelist-ratelimit: 0
	verbosity: 0
remote-control:
	control-enable: no
zone:
	name: "%[3]s"
	zonefile: "%[4]s"
`, port, dir, strings.TrimSuffix(zone, "."), zonePath)
}

// freePorts returns ports of the loopback address that were free for UDP just
// now.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		defer c.Close() // all at the end, so that they differ
		ports = append(ports, c.LocalAddr().(*net.UDPAddr).Port)
	}
	return ports, nil
}

// verify waits until a server answers, and checks that it gives what the others
// do: every target with its address, and OPT. NSD adds the name server too.
func (s *server) verify(ctx context.Context) error {
	client := &dns.Client{Timeout: time.Second}
	var last error
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline) && ctx.Err() == nil; {
		m := new(dns.Msg).SetQuestion(serviceName(1), dns.TypeSRV).SetEdns0(4096, false)
		reply, _, err := client.Exchange(m, fmt.Sprintf("127.0.0.1:%d", s.port))
		if err == nil {
			if len(reply.Answer) == targets && len(reply.Extra) >= targets+1 && reply.Authoritative {
				return nil
			}
			err = fmt.Errorf("answered %d records and %d additional, want %d of each", len(reply.Answer), len(reply.Extra)-1, targets)
		}
		last = err
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("wait for an answer: %w", last)
}

// stopAll ends the servers and waits for them.
func stopAll(servers []*server) {
	for _, s := range servers {
		syscall.Kill(-s.cmd.Process.Pid, syscall.SIGTERM)
		timer := time.AfterFunc(5*time.Second, func() { syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL) })
		s.cmd.Wait()
		timer.Stop()
	}
}

// cpuSeconds returns the user and system time that the processes of a server
// have used: all of its process group.
func (s *server) cpuSeconds() (float64, error) {
	const ticks = 100 // a second: USER_HZ, part of the kernel's ABI (proc(5))
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	total, found := 0.0, false
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has just ended
		}
		// The name in parentheses may contain anything.
		text := string(b)
		fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
		if fields[2] != strconv.Itoa(s.cmd.Process.Pid) { // field 5: the group
			continue
		}
		found = true
		for _, f := range fields[11:13] { // fields 14 and 15: utime, stime
			n, err := strconv.ParseUint(f, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("parse %s: %w", path, err)
			}
			total += float64(n) / ticks
		}
	}
	if !found {
		return 0, fmt.Errorf("%s has ended", s.name)
	}
	return total, nil
}
