package logprune

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// inNamespace runs the calling test in a mount namespace of its own, in which
// nothing that it mounts reaches the machine's, and ends with this process. It
// returns true there; the outer process gets false when that run is over. It needs
// root.
func inNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv("BERTH_PRUNE_NAMESPACE") == t.Name() {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Fatalf("make mounts private: %v", err)
		}
		return true
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"-test.run=^" + t.Name() + "$", "-test.count=1"}
	if testing.Verbose() {
		args = append(args, "-test.v")
	}
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Env = append(os.Environ(), "BERTH_PRUNE_NAMESPACE="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("in a mount namespace of its own (which needs root): %v\n%s", err, out)
	}
	if testing.Verbose() {
		fmt.Printf("%s", out)
	}
	return false
}

// tmpfs mounts a file system in memory. Only for tests in a namespace.
func tmpfs(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("berth-test", dir, "tmpfs", 0, options); err != nil {
		t.Fatalf("mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount the tmpfs: %v", err)
		}
	})
	return dir
}

// bind mounts one folder or file over another.
func bind(from, to string) error {
	return os.NewSyscallError("mount", unix.Mount(from, to, "", unix.MS_BIND, ""))
}

// scratch returns a folder for one test, in memory where there is such a place: each
// stage syncs its journal many times.
func scratch(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "berth-prune-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}
