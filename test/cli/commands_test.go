package cli

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/berthd/berth/test/fakedocker"
)

// patience bounds every wait. Nothing takes nearly as long but on a machine
// that is overloaded.
const patience = 2 * time.Minute

// poll calls try until it returns nil, and returns its last error.
func poll(try func() error) error {
	deadline := time.Now().Add(patience)
	for {
		err := try()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// cmdEngine steers the fake engine.
func cmdEngine(ts *testscript.TestScript, neg bool, args []string) {
	e := worldOf(ts).engine
	if neg || len(args) == 0 {
		ts.Fatalf("usage: engine command args…")
	}
	one := func() string {
		if len(args) != 2 {
			ts.Fatalf("usage: engine %s NAME", args[0])
		}
		return args[1]
	}
	switch args[0] {
	case "up":
		ts.Check(e.Up())
	case "down":
		e.Down()
	case "refuse":
		ts.Check(e.Refuse())
	case "hang":
		e.Hang()
	case "heal":
		e.Heal()
	case "fail":
		status, err := strconv.Atoi(args[1])
		ts.Check(err)
		e.Fail(status, strings.Join(args[2:], " "))
	case "fail-inspect":
		e.FailInspect(one())
	case "fixture":
		fixture(e)
	case "run":
		e.Run(parseSpec(ts, args[1:]))
	case "network":
		e.AddNetwork(args[1], args[2])
	case "start":
		e.Start(one())
	case "stop":
		e.Stop(one())
	case "rm":
		e.Remove(one())
	case "pause":
		e.Pause(one())
	case "health":
		e.SetHealth(args[1], args[2])
	case "asked-nothing-odd":
		if v := e.Violations(); len(v) > 0 {
			ts.Fatalf("the engine was asked what it should not be: %q", v)
		}
	default:
		ts.Fatalf("unknown command: engine %s", args[0])
	}
}

// fixture is a host with a bit of everything.
func fixture(e *fakedocker.Engine) {
	const up = 2*time.Hour + 3*time.Minute
	e.AddNetwork("shop", "172.30.0.0/16")
	e.Run(fakedocker.Spec{
		Name: "web-1", Image: "shop/web:1.4", Ago: up, Health: "healthy", Publish: []string{"8080"},
		Labels: map[string]string{"SERVICE_8080_NAME": "web", "SERVICE_8080_TAGS": "blue,v1"},
	})
	e.Run(fakedocker.Spec{
		Name: "web-2", Image: "shop/web:1.4", Ago: up, Health: "unhealthy", Publish: []string{"8080"},
		Labels: map[string]string{"SERVICE_8080_NAME": "web"},
	})
	e.Run(fakedocker.Spec{
		Name: "calc", Image: "shop/calc:7", Ago: up, Publish: []string{"80:8080", "127.0.0.1:5555:5555", "9125/udp"}, Expose: []string{"9000"},
		Labels: map[string]string{"SERVICE_8080_NAME": "_calc._tcp", "SERVICE_9125_NAME": "stats", "SERVICE_5555_NAME": "jmx"},
	})
	e.Run(fakedocker.Spec{
		Name: "db", Image: "postgres:15", Ago: up, Network: "shop", Expose: []string{"5432"}, Env: []string{"SERVICE_5432_NAME=db", "PASSWORD=hunter2"},
	})
	e.Run(fakedocker.Spec{
		Name: "bad", Image: "shop/bad:1", Ago: up, Publish: []string{"81:81"}, Labels: map[string]string{"SERVICE_81_NAME": "no..name"},
	})
	e.Run(fakedocker.Spec{Name: "plain", Image: "busybox:1", Ago: up})
	e.Run(fakedocker.Spec{Name: "job", Image: "shop/job:3", Ago: up})
	e.Die("job", 3)
}

// parseSpec reads "NAME key=value…".
func parseSpec(ts *testscript.TestScript, args []string) fakedocker.Spec {
	if len(args) == 0 {
		ts.Fatalf("usage: engine run NAME key=value…")
	}
	s := fakedocker.Spec{Name: args[0], Image: args[0] + ":1", Labels: make(map[string]string)}
	for _, arg := range args[1:] {
		key, value, _ := strings.Cut(arg, "=")
		switch key {
		case "image":
			s.Image = value
		case "publish":
			s.Publish = append(s.Publish, value)
		case "label":
			k, v, _ := strings.Cut(value, "=")
			s.Labels[k] = v
		default:
			ts.Fatalf("unknown key %s", key)
		}
	}
	return s
}

// cmdDaemon runs berth as a daemon with the script's config.
func cmdDaemon(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	if len(args) == 0 {
		ts.Fatalf("usage: daemon start|stop|hup|kill|log")
	}
	if args[0] != "start" && args[0] != "log" && w.daemon == nil {
		ts.Fatalf("no daemon runs")
	}
	switch args[0] {
	case "start":
		w.start(ts, args[1:])
	case "hup":
		ts.Check(w.daemon.Process.Signal(syscall.SIGHUP))
	case "kill":
		ts.Check(w.daemon.Process.Kill())
		_ = w.daemon.Wait()
		w.daemon = nil
	case "stop":
		ts.Check(w.daemon.Process.Signal(syscall.SIGTERM))
		err := w.daemon.Wait()
		w.daemon = nil
		if err != nil {
			ts.Fatalf("berth run: %v\n%s", err, ts.ReadFile(w.log))
		}
	case "log":
		fmt.Fprint(ts.Stdout(), ts.ReadFile(w.log))
	default:
		ts.Fatalf("unknown command: daemon %s", args[0])
	}
}

// start starts the daemon and waits until it answers. "in" makes it run by a
// shell command in a mount namespace of its own, as in: daemon start in 'mount …'.
func (w *world) start(ts *testscript.TestScript, args []string) {
	if w.daemon != nil {
		ts.Fatalf("a daemon runs already")
	}
	dir := ts.Getenv("WORK")
	w.log = filepath.Join(dir, "daemon.log")
	file, err := os.Create(w.log)
	ts.Check(err)
	defer file.Close()
	var cmd *exec.Cmd
	berth := filepath.Join(bin, "berth")
	if len(args) == 2 && args[0] == "in" {
		cmd = exec.Command("unshare", "--mount", "sh", "-c", args[1]+` && exec "$0" run --config berth.yaml`, berth)
	} else {
		cmd = exec.Command(berth, append([]string{"run", "--config", "berth.yaml"}, args...)...)
	}
	out, err := os.Create(filepath.Join(dir, "daemon.out"))
	ts.Check(err)
	defer out.Close()
	cmd.Dir, cmd.Stderr, cmd.Stdout = dir, file, out
	cmd.Env = append(os.Environ(), "GORACE="+ts.Getenv("GORACE"), "NOTIFY_SOCKET=", "JOURNAL_STREAM=")
	for k, v := range awsEnv {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	ts.Check(cmd.Start())
	w.daemon = cmd
	if err := poll(func() error { return ts.Exec("berth", "status") }); err != nil {
		ts.Fatalf("the daemon does not answer: %v\n%s", err, ts.ReadFile(w.log))
	}
}

// cmdCode runs a command, which must exit with a code.
func cmdCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N command args…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	// A daemon that starts although it should not is ended: 124 is the code then.
	limit := fmt.Sprint(patience.Seconds())
	if err := ts.Exec("timeout", append([]string{limit}, args[1:]...)...); err != nil {
		bad, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = bad.ExitCode()
	}
	if got != want {
		ts.Fatalf("got exit code %d, want %d", got, want)
	}
}

// cmdAwait runs a command until a line that it prints matches.
func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: await PATTERN command args…")
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	err = poll(func() error {
		_ = ts.Exec(args[1], args[2:]...)
		if said := ts.ReadFile("stdout") + ts.ReadFile("stderr"); pattern.MatchString(said) == neg {
			return fmt.Errorf("it says:\n%s", said)
		}
		return nil
	})
	if err != nil {
		ts.Fatalf("no match for %q: %v", args[0], err)
	}
}

func cmdNormal(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: normal stdout|stderr")
	}
	text := normal(ts.ReadFile(args[0]), ts.Getenv("WORK"))
	if args[0] == "stderr" {
		fmt.Fprint(ts.Stderr(), text)
	} else {
		fmt.Fprint(ts.Stdout(), text)
	}
}

var serving = regexp.MustCompile(`records on (127\.0\.0\.1:[0-9]+)`)

// cmdDig asks the daemon's DNS server, and prints the answers without their
// times to live, sorted, or the response code. With -until it asks again until
// that matches.
func cmdDig(ts *testscript.TestScript, neg bool, args []string) {
	until := ""
	if len(args) == 4 && args[0] == "-until" {
		until, args = args[1], args[2:]
	}
	if neg || len(args) != 2 {
		ts.Fatalf("usage: dig [-until PATTERN] NAME TYPE")
	}
	pattern, err := regexp.Compile(until)
	ts.Check(err)
	var said string
	err = poll(func() (err error) {
		if err := ts.Exec("berth", "status"); err != nil {
			return err
		}
		at := serving.FindStringSubmatch(ts.ReadFile("stdout"))
		if at == nil {
			return errors.New("the DNS server does not listen on 127.0.0.1")
		}
		if said, err = ask(at[1], args[0], args[1]); err == nil && !pattern.MatchString(said) {
			err = fmt.Errorf("the answer is %s", said)
		}
		return err
	})
	if err != nil {
		ts.Fatalf("dig %s %s: %v", args[0], args[1], err)
	}
	fmt.Fprintln(ts.Stdout(), said)
}

// cmdSend sends one datagram for each line.
func cmdSend(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: send LINE…")
	}
	conn, err := net.Dial("unixgram", ts.MkAbs("statsd/statsd.sock"))
	ts.Check(err)
	defer conn.Close()
	for _, line := range args {
		_, err := conn.Write([]byte(line))
		ts.Check(err)
	}
}

// ask sends a question over TCP.
func ask(at, name, kind string) (string, error) {
	q := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.StringToType[kind])
	answer, _, err := (&dns.Client{Net: "tcp", Timeout: patience}).Exchange(q, at)
	if err != nil {
		return "", err
	}
	var lines []string
	for _, rr := range answer.Answer {
		lines = append(lines, strings.Join(strings.Fields(rr.String())[3:], " "))
	}
	slices.Sort(lines)
	if len(lines) == 0 {
		return dns.RcodeToString[answer.Rcode], nil
	}
	return strings.Join(lines, "\n"), nil
}

// cmdOccupy takes a port on 127.0.0.9, over UDP and TCP.
func cmdOccupy(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: occupy NAME")
	}
	err := poll(func() error {
		pc, err := net.ListenPacket("udp4", "127.0.0.9:0")
		if err != nil {
			return err
		}
		ln, err := net.Listen("tcp4", pc.LocalAddr().String())
		if err != nil { // somebody has it over TCP: try another
			return errors.Join(err, pc.Close())
		}
		worldOf(ts).free = append(worldOf(ts).free, func() { _, _ = pc.Close(), ln.Close() })
		at := pc.LocalAddr().(*net.UDPAddr)
		ts.Setenv(args[0], at.String())
		ts.Setenv(args[0]+"_PORT", strconv.Itoa(at.Port))
		return nil
	})
	ts.Check(err)
}
