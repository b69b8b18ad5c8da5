// Package demo runs what make demo runs, to its end and interrupted.
package demo

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"

	"github.com/berthd/berth/test/engine/enginetest"
)

// build builds the agent and the demo.
func build(t *testing.T) (berth, demo string) {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", dir, "github.com/berthd/berth/cmd/berth", "github.com/berthd/berth/test/demo")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return filepath.Join(dir, "berth"), filepath.Join(dir, "demo")
}

// nothingLeft asserts that the demo has cleaned up.
func nothingLeft(t *testing.T, e *enginetest.Engine, tmp string) {
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
	if files, _ := os.ReadDir(tmp); len(files) > 0 {
		t.Errorf("%v is left in the temporary folder", files)
	}
}

func TestDemo(t *testing.T) {
	e := enginetest.Outer(t)
	berth, demo := build(t)
	tmp := t.TempDir()
	cmd := exec.Command(demo, "-berth", berth)
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("the demo failed: %v\n%s", err, out)
	}
	for _, want := range []string{"19 + 23 = 42", "its record was gone", "out of DNS", "refused", "That was all"} {
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("the demo does not say %q", want)
		}
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
	nothingLeft(t, e, tmp)
}

func TestInterrupted(t *testing.T) {
	e := enginetest.Outer(t)
	berth, demo := build(t)
	tmp := t.TempDir()
	cmd := exec.Command(demo, "-berth", berth)
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
	nothingLeft(t, e, tmp)
}
