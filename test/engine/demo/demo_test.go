// Package demo runs what make demo runs, to its end and interrupted.
package demo

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"

	"github.com/berthd/berth/test/engine/enginetest"
)

// binaries holds the agent and the demo, which the first test builds for all.
var binaries string

func TestMain(m *testing.M) {
	code := m.Run()
	if err := os.RemoveAll(binaries); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// build returns the paths of the agent and the demo.
func build(t *testing.T) (berth, demo string) {
	t.Helper()
	if binaries == "" {
		dir, err := os.MkdirTemp("", "berth-demo-test-")
		if err != nil {
			t.Fatal(err)
		}
		binaries = dir
		cmd := exec.Command("go", "build", "-buildvcs=false", "-o", dir, "github.com/berthd/berth/cmd/berth", "github.com/berthd/berth/test/demo")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build: %v\n%s", err, out)
		}
	}
	return filepath.Join(binaries, "berth"), filepath.Join(binaries, "demo")
}

// images lists the demo's images. Those that were there before stay.
func images(t *testing.T, e *enginetest.Engine) (refs []string) {
	t.Helper()
	all, err := e.Client.ImageList(context.Background(), image.ListOptions{Filters: filters.NewArgs(filters.Arg("reference", "berth-demo/*"))})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		refs = append(refs, i.RepoTags...)
	}
	slices.Sort(refs)
	return refs
}

// nothingLeft asserts that the demo has cleaned up; before is the images that
// there were.
func nothingLeft(t *testing.T, e *enginetest.Engine, tmp string, before []string) {
	t.Helper()
	left, err := e.Client.ContainerList(context.Background(), container.ListOptions{
		All: true, Filters: filters.NewArgs(filters.Arg("label", "berth.demo")),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range left {
		t.Errorf("container %v is left", c.Names)
	}
	if got := images(t, e); !slices.Equal(got, before) {
		t.Errorf("images: got %q, want %q as before", got, before)
	}
	if files, _ := os.ReadDir(tmp); len(files) > 0 {
		t.Errorf("%v is left in the temporary folder", files)
	}
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range commands {
		if cmd, err := os.ReadFile(path); err == nil && bytes.Contains(cmd, []byte(tmp)) {
			t.Errorf("a process is left: %q", cmd)
		}
	}
}

func TestDemo(t *testing.T) {
	e := enginetest.Outer(t)
	before := images(t, e)
	berth, demo := build(t)
	tmp := t.TempDir()
	cmd := exec.Command(demo, "-berth", berth)
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("the demo failed: %v\n%s", err, out)
	}
	for _, want := range []string{"19 + 23 = 42", "calc.requests:1|c|#service:calc,env:demo", "its record was gone", "out of DNS", "refused", "its folder is gone", "That was all"} {
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("the demo does not say %q", want)
		}
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
	nothingLeft(t, e, tmp, before)
}

// TestBIND is make demo-bind.
func TestBIND(t *testing.T) {
	e := enginetest.Outer(t)
	before := images(t, e)
	berth, demo := build(t)
	tmp := t.TempDir()
	cmd := exec.Command(demo, "-berth", berth, "-bind")
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("the demo failed: %v\n%s", err, out)
	}
	for _, want := range []string{
		"_calc._tcp.berth.example SRV +short", "19 + 23 = 42", "its record was gone", "out of DNS", "BIND says REFUSED",
		"the zone is as it was", "rfc2136: no records of this host are left", "That was all",
	} {
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("the demo does not say %q", want)
		}
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
	nothingLeft(t, e, tmp, before)
}

func TestInterrupted(t *testing.T) {
	e := enginetest.Outer(t)
	berth, demo := build(t)
	for _, bind := range []bool{false, true} {
		t.Run(fmt.Sprintf("bind %t", bind), func(t *testing.T) {
			interrupt(t, e, exec.Command(demo, "-berth", berth, fmt.Sprintf("-bind=%t", bind)))
		})
	}
}

// interrupt runs a demo and interrupts it.
func interrupt(t *testing.T, e *enginetest.Engine, cmd *exec.Cmd) {
	t.Helper()
	before := images(t, e)
	tmp := t.TempDir()
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	for lines.Scan() && !strings.Contains(lines.Text(), "loses its name") {
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, stdout); err != nil {
		t.Fatal(err)
	}
	err = cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 {
		t.Errorf("exit: %v, want 1", err)
	}
	if !strings.Contains(stderr.String(), "interrupted; all that it had started is removed") {
		t.Errorf("it says: %s", stderr.String())
	}
	nothingLeft(t, e, tmp, before)
}

// TestKilled has a demo killed, whose containers keep their names until the next
// demo removes them.
func TestKilled(t *testing.T) {
	e := enginetest.Outer(t)
	before := images(t, e)
	berth, demo := build(t)
	victim := exec.Command(demo, "-berth", berth)
	victim.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
	stdout, err := victim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	for lines.Scan() && !strings.Contains(lines.Text(), "loses its name") {
	}
	victim.Process.Kill()
	victim.Wait()
	left := images(t, e)
	t.Cleanup(func() {
		for _, ref := range left {
			if !slices.Contains(before, ref) {
				e.Client.ImageRemove(context.Background(), ref, image.RemoveOptions{})
			}
		}
	})

	tmp := t.TempDir()
	cmd := exec.Command(demo, "-berth", berth)
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("the next demo failed: %v\n%s", err, out)
	}
	nothingLeft(t, e, tmp, left)
}

// TestReaderLeaves is `make demo | head`.
func TestReaderLeaves(t *testing.T) {
	e := enginetest.Outer(t)
	before := images(t, e)
	berth, demo := build(t)
	tmp := t.TempDir()
	cmd := exec.Command(demo, "-berth", berth)
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = w, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	lines := bufio.NewScanner(r)
	for lines.Scan() && !strings.Contains(lines.Text(), "find each other") {
	}
	r.Close()
	err = cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 {
		t.Errorf("exit: %v, want 1: %s", err, stderr.String())
	}
	nothingLeft(t, e, tmp, before)
}

// TestPortTaken has another berth on the bridge: its answers look as those of
// the demo's own would.
func TestPortTaken(t *testing.T) {
	e := enginetest.Outer(t)
	before := images(t, e)
	berth, demo := build(t)
	state, tmp := t.TempDir(), t.TempDir()
	config, socket := filepath.Join(state, "berth.yaml"), filepath.Join(state, "berth.sock")
	if err := os.WriteFile(config, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	other := exec.CommandContext(t.Context(), berth, "run", "--config", config,
		"--set", "state_dir="+filepath.Join(state, "lib"), "--set", "admin.socket="+socket,
		"--set", "statsd.enabled=false")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer other.Wait()
	defer other.Process.Kill()
	enginetest.Await(t, 20*time.Second, "another berth has port 53", func(ctx context.Context) error {
		out, err := exec.CommandContext(ctx, berth, "--socket", socket, "status").CombinedOutput()
		if err == nil && bytes.Count(out, []byte(":53")) < 2 {
			err = fmt.Errorf("it says:\n%s", out)
		}
		return err
	})

	cmd := exec.Command(demo, "-berth", berth)
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	out, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 {
		t.Errorf("exit: %v, want 1", err)
	}
	for _, want := range []string{fmt.Sprintf("address already in use by berth (pid %d)", other.Process.Pid), "Stop that process"} {
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("the demo does not say %q: %s", want, out)
		}
	}
	nothingLeft(t, e, tmp, before)
}
