package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// contender is a relay and how it is run.
type contender struct {
	name     string
	upstream string // "udp" or "unix"
	tagged   bool   // it adds each source's tags, which the sink wants to see
	ours     bool   // it is berth's, and tells its allocations on standard input's word
	// args are its program and arguments; {listen}, {upstream}, {containers},
	// {interface} and {http} stand for what the bench chooses.
	args []string
}

// The names of those which the limits are about.
const (
	nameBerth        = "berth, tagged"
	nameBaseline     = "baseline"
	nameExporter     = "statsd_exporter"
	upUDP, upUnix    = "udp", "unix"
	exporterBuffer   = "4194304" // bytes: what the baseline has
	exporterModule   = "test/tools/statsd-exporter"
	readyLimit       = 20 * time.Second
	stopLimit        = 5 * time.Second
	readyRate        = 100 // lines a second
	readySlice       = 50 * time.Millisecond
	settle           = 1200 * time.Millisecond // without a line, after which none is awaited: statsd_exporter sends each second
	shareOfLinesSeen = 5000                    // lines a second that the sink looks at
)

// contenders are those that always run.
func contenders(bin map[string]string) []contender {
	berth := []string{bin["relay"], "-listen", "{listen}", "-upstream", "{upstream}", "-containers", "{containers}", "-interface", "{interface}"}
	baseline := []string{bin["baseline"], "-listen", "{listen}", "-upstream", "{upstream}"}
	return []contender{
		{name: nameBerth, upstream: upUnix, tagged: true, ours: true, args: berth},
		{name: nameBerth, upstream: upUDP, tagged: true, ours: true, args: berth},
		{name: nameBaseline, upstream: upUnix, args: baseline},
		{name: nameBaseline, upstream: upUDP, args: baseline},
		{name: nameExporter, upstream: upUDP, args: []string{
			bin["statsd_exporter"], "--statsd.listen-udp={listen}", "--statsd.listen-tcp=",
			"--statsd.read-buffer=" + exporterBuffer, "--statsd.relay.address={upstream}",
			"--web.listen-address={http}", "--log.level=error",
		}},
	}
}

// parsePeer reads -peer name=command.
func parsePeer(text string) (contender, error) {
	name, command, ok := strings.Cut(text, "=")
	args := strings.Fields(command)
	if !ok || name == "" || len(args) == 0 || !strings.Contains(command, "{listen}") || !strings.Contains(command, "{upstream}") {
		return contender{}, fmt.Errorf("peer %q: want name=command, with {listen} and {upstream} (both host:port) in the command", text)
	}
	return contender{name: name, upstream: upUDP, args: args}, nil
}

// buildAll builds the programs that the bench runs, and returns their paths. The
// go command does nothing for those that are up to date.
func buildAll(ctx context.Context) (map[string]string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return nil, fmt.Errorf("find the module: %w", err)
	}
	root := strings.TrimSpace(string(out))
	bin := make(map[string]string)
	for _, p := range []struct{ name, dir, pkg string }{
		{"baseline", ".", "github.com/berthd/berth/test/bench/statsd/baseline"},
		{"relay", ".", "github.com/berthd/berth/test/bench/statsd/relay"},
		{"statsd_exporter", exporterModule, "github.com/prometheus/statsd_exporter"},
	} {
		bin[p.name] = filepath.Join(root, ".cache", "bench-statsd", p.name)
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", bin[p.name], p.pkg)
		cmd.Dir = filepath.Join(root, p.dir)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build %s: %w\n%s", p.name, err, out)
		}
	}
	return bin, nil
}

// relay is a contender that runs in one place.
type relay struct {
	contender
	place  place
	listen netip.AddrPort
	sink   *sink
	cmd    *exec.Cmd
	ended  chan struct{}  // closed when it has
	ask    io.WriteCloser // its standard input, if it is ours
	answer *bufio.Reader
}

// start starts a contender, and waits until lines come through.
func start(ctx context.Context, c contender, p place, dir string) (r *relay, err error) {
	r = &relay{contender: c, place: p}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("start %s to %s: %w", c.name, c.upstream, err), r.stop())
		}
	}()
	if r.listen, err = freePort(p.relay()); err != nil {
		return nil, err
	}
	http, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("find a free port: %w", err)
	}
	_ = http.Close()
	path := ""
	if c.upstream == upUnix {
		path = filepath.Join(dir, fmt.Sprintf("%d.sock", r.listen.Port()))
	}
	tags := make([][]string, len(p.sources()))
	var containers []string
	for i, a := range p.sources() {
		containers = append(containers, a.String())
		if c.tagged {
			tags[i] = tagsOf(i)
		}
	}
	if r.sink, err = newSink(path, tags); err != nil {
		return nil, err
	}
	fill := strings.NewReplacer(
		"{listen}", r.listen.String(), "{upstream}", r.sink.address, "{http}", http.Addr().String(),
		"{containers}", strings.Join(containers, ","), "{interface}", p.device())
	var args []string
	for _, a := range c.args {
		args = append(args, fill.Replace(a))
	}
	// Not the command's context: stop ends it.
	r.cmd = exec.Command(args[0], args[1:]...)
	r.cmd.Stderr = os.Stderr
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if c.ours {
		if r.ask, err = r.cmd.StdinPipe(); err != nil {
			return nil, err
		}
		out, err := r.cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		r.answer = bufio.NewReader(out)
	}
	if err := startOn(relayCPU, r.cmd); err != nil {
		return nil, err
	}
	r.ended = make(chan struct{})
	go func() { _ = r.cmd.Wait(); close(r.ended) }()
	return r, r.ready(ctx)
}

// ready waits until lines come through as they must, from every source.
func (r *relay) ready(ctx context.Context) error {
	var last error
	for deadline := time.Now().Add(readyLimit); time.Now().Before(deadline) && ctx.Err() == nil; {
		select {
		case <-r.ended:
			return errors.New("it has ended")
		default:
		}
		m, err := r.run(1, readyRate*float64(len(r.place.sources())), readySlice)
		if err == nil && m.received.bad > 0 {
			err = fmt.Errorf("%d of %d lines are wrong: %s", m.received.bad, m.received.checked, strings.Join(m.received.examples, "; "))
		}
		if err == nil && m.received.lines >= m.sent.lines && m.sent.lines > 0 {
			return nil
		}
		if err == nil {
			err = fmt.Errorf("%d of %d lines came through", m.received.lines, m.sent.lines)
		}
		last = err
	}
	return errors.Join(ctx.Err(), last)
}

// stop ends the relay and its sink.
func (r *relay) stop() error {
	if r.ask != nil {
		_ = r.ask.Close()
	}
	if r.ended != nil {
		_ = syscall.Kill(-r.cmd.Process.Pid, syscall.SIGTERM)
		timer := time.AfterFunc(stopLimit, func() { _ = syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL) })
		<-r.ended
		timer.Stop()
	}
	if r.sink == nil {
		return nil
	}
	return r.sink.close()
}

// run sends lines at a rate for a time, and measures.
func (r *relay) run(perDatagram int, rate float64, length time.Duration) (m measurement, err error) {
	g, err := r.place.generator(r.listen, perDatagram)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	r.sink.take()
	r.sink.every.Store(max(1, int64(rate/shareOfLinesSeen)))
	dropsBefore, err := r.sink.drops()
	if err != nil {
		return m, err
	}
	before, err := cpuTime(r.cmd.Process.Pid)
	if err != nil {
		return m, err
	}
	if m.sent, err = g.send(rate, length); err != nil {
		return m, err
	}
	r.sink.await(m.sent.lines, settle)
	after, err := cpuTime(r.cmd.Process.Pid)
	if err != nil {
		return m, err
	}
	drops, err := r.sink.drops()
	m.asked, m.cpu, m.received, m.sinkDrops = rate, after-before, r.sink.take(), drops-dropsBefore
	return m, err
}

// Counts are what a relay of ours tells of itself.
type counts struct {
	Mallocs uint64 // objects that were ever allocated
}

// counts asks a relay of ours.
func (r *relay) counts() (c counts, err error) {
	if _, err := io.WriteString(r.ask, "\n"); err != nil {
		return c, fmt.Errorf("ask %s: %w", r.name, err)
	}
	line, err := r.answer.ReadBytes('\n')
	if err != nil {
		return c, fmt.Errorf("ask %s: %w", r.name, err)
	}
	return c, json.Unmarshal(line, &c)
}

// measurement is one run.
type measurement struct {
	asked    float64 // lines a second
	sent     sent
	received received
	cpu      time.Duration // of the relay

	// sinkDrops are datagrams for which the sink's receive buffer had no room.
	sinkDrops int
}

// loss is the share of the lines that did not come through.
func (m measurement) loss() float64 {
	if m.sent.lines == 0 {
		return 0
	}
	return 1 - float64(m.received.lines)/float64(m.sent.lines)
}

// perMillion is CPU-seconds for a million lines that came through.
func (m measurement) perMillion() float64 {
	if m.received.lines == 0 {
		return 0
	}
	return m.cpu.Seconds() * 1e6 / float64(m.received.lines)
}

// behind tells whether the generator could not send what it was asked to.
func (m measurement) behind() bool { return m.sent.rate() < 0.97*m.asked }

// tagsOf returns what berth's relay adds to the lines of a source: 181 bytes with
// a comma.
func tagsOf(source int) []string {
	return []string{
		"region:eu-west-1", "account:shop-production", fmt.Sprintf("service:checkout-%02d", source), "env:production",
		"version:1.42.0", "cluster:shop", "image_name:registry.example.com/shop/checkout", "image_tag:1.42.0",
	}
}
