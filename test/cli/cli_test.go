// Package cli tests the command as people run it: the real binary, a daemon on
// a fake engine behind its admin socket, and what is printed.
//
// Each file of testdata/script is one test (see
// github.com/rogpeppe/go-internal/testscript for the language). What differs
// from run to run (ages, times, ports, process IDs, paths) is replaced by its
// kind, and colours by their names; the rest is compared to the letter.
//
//	go test ./test/cli                             run all
//	go test ./test/cli -run TestScripts/status     run one
//	go test ./test/cli -update                     write down what is printed now
//
// With -race the binary is built with the race detector, too, and a report of
// it fails the test. With GOCOVERDIR set, it is built to count what it covers.
//
// A script has a folder of its own with a config, berth.yaml, that leads every
// path into it; conf.d/*.yaml of the script come on top. These commands are
// there besides testscript's own:
//
//	engine up|down|refuse|hang|heal|fixture     the fake engine, see engine
//	engine run NAME key=value…                  make a container
//	daemon start|stop|hup|kill|log [args]       berth run, with berth.yaml
//	code N command args…                        run it; it must exit with N
//	await PATTERN command args…                 run it until its output matches
//	normal stdout|stderr                        replace what differs from run to run
//	shape NAME                                  stdout must be as JSON.md says
//	dig [-until PATTERN] NAME TYPE              ask the daemon's DNS server
//	route53 zone NAME DOMAIN                    a hosted zone: $NAME is its ID, $ROUTE53 the endpoint
//	route53 sets NAME [PATTERN]                 print its record sets, once they match
//	cloudwatch start                            a fake CloudWatch: $CLOUDWATCH is the endpoint
//	cloudwatch reserve CPU MEMORY AGO           what ECS says of the cluster prod, in percent; - is nothing
//	cloudwatch deny ACTION | cloudwatch heal    refuse calls, and no longer
//	cloudwatch data [PATTERN]                   print what it was sent, once that matches
//	send LINE…                                  send metrics to the daemon's Unix socket
//	occupy NAME                                 take a UDP and TCP port: $NAME is its address, $NAME_PORT the port
package cli

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/berthd/berth/test/fakeaws"
	"github.com/berthd/berth/test/fakedocker"
)

var (
	update = flag.Bool("update", false, "write the outputs into the scripts")
	bin    string // folder of the binary
)

func TestMain(m *testing.M) {
	flag.Parse()
	// Scripts wait far more than they work.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	code, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (code int, err error) {
	if bin, err = os.MkdirTemp("", "berth-cli-"); err != nil {
		return 0, err
	}
	defer os.RemoveAll(bin)
	if err := os.Chmod(bin, 0o755); err != nil { // other users run it, too
		return 0, err
	}
	args := []string{"build", "-o", filepath.Join(bin, "berth"), "-ldflags", "-X main.release=v1.2.3"}
	if raceEnabled {
		args = append(args, "-race")
	}
	if os.Getenv("GOCOVERDIR") != "" {
		args = append(args, "-cover", "-coverpkg=github.com/berthd/berth/...")
	}
	if out, err := exec.Command("go", append(args, "../../cmd/berth")...).CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build berth: %w\n%s", err, out)
	}
	return m.Run(), nil
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               setup,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"engine": cmdEngine,
			"daemon": cmdDaemon,
			"code":   cmdCode,
			"await":  cmdAwait,
			"normal": cmdNormal,
			"shape":  cmdShape,
			"dig":    cmdDig,
			"send":   cmdSend,
			"occupy": cmdOccupy,

			"route53":    cmdRoute53,
			"cloudwatch": cmdCloudWatch,
		},
	})
}

// baseConfig leads every path into the script's folder, and says who the host
// is. Port 0 is any free one.
const baseConfig = `state_dir: WORK/state
engine:
  host: unix://WORK/docker.sock
node:
  id: host-1
  hostname: web1.example
  ipv4: 192.0.2.10
  ipv6: 2001:db8::10
  ec2: off
admin:
  socket: WORK/berth.sock
dns:
  port: 0
statsd:
  port: 0
  socket: WORK/statsd/statsd.sock
  upstream: 127.0.0.1:9
  receive_buffer: 64KiB
prune:
  roots: [WORK/log/*/*/containers]
openmetrics:
  listen: 127.0.0.1:0
`

// setup prepares a script's folder.
func setup(env *testscript.Env) error {
	for _, dir := range []string{filepath.Dir(env.WorkDir), env.WorkDir} {
		if err := os.Chmod(dir, 0o755); err != nil { // other users look at it, too
			return err
		}
	}
	file := filepath.Join(env.WorkDir, "berth.yaml")
	if _, err := os.Stat(file); os.IsNotExist(err) {
		text := strings.ReplaceAll(baseConfig, "WORK", env.WorkDir)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return err
		}
	}
	env.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	env.Setenv("BERTH_SOCKET", filepath.Join(env.WorkDir, "berth.sock"))
	env.Setenv("GORACE", "halt_on_error=1 exitcode=66")
	for k, v := range awsEnv {
		env.Setenv(k, v)
	}
	if dir := os.Getenv("GOCOVERDIR"); dir != "" {
		env.Setenv("GOCOVERDIR", dir)
	}
	if err := os.MkdirAll(filepath.Join(env.WorkDir, "docker/containers"), 0o755); err != nil {
		return err
	}
	w := &world{engine: fakedocker.New(filepath.Join(env.WorkDir, "docker.sock"))}
	w.engine.SetRoot(filepath.Join(env.WorkDir, "docker"))
	env.Values[worldKey{}] = w
	env.Defer(w.close)
	return nil
}

type worldKey struct{}

// world is what a script has at its disposal.
type world struct {
	engine *fakedocker.Engine
	daemon *exec.Cmd // nil while none runs
	log    string    // path of its standard error
	route  *fakeaws.Route53
	free   []func()

	cloudwatch *fakeaws.CloudWatch
}

func worldOf(ts *testscript.TestScript) *world { return ts.Value(worldKey{}).(*world) }

// close ends what the script has left running.
func (w *world) close() {
	if w.daemon != nil {
		_ = w.daemon.Process.Kill()
		_ = w.daemon.Wait()
	}
	w.engine.Down()
	for _, f := range w.free {
		f()
	}
}
