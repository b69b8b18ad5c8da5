package logprune

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Behind a filter of system calls that takes openat2 away, as an old kernel lacks
// it, nothing is deleted, and a condition says so.
func TestKernelWithoutOpenat2(t *testing.T) {
	if !inNamespace(t) { // for a process of its own: a filter stays
		return
	}
	s := newStage(t, scratch(t))
	dead := s.folder(id("dead"))
	s.cycle()
	forbidOpenat2(t)
	s.p.unsafe = probe(s.p.k)
	s.p.report("kernel", s.p.unsafe, "")
	if !errors.Is(s.p.unsafe, errNoOpenat2) || !errors.Is(s.p.unsafe, unix.ENOSYS) {
		t.Errorf("probe: got %v, want that there is no openat2", s.p.unsafe)
	}
	for range 3 {
		s.later(2 * time.Hour)
	}
	if !there(filepath.Join(dead, "app.log")) {
		t.Error("it was deleted")
	}
	if s.conditions() == nil {
		t.Error("got no condition, want one about the kernel")
	}
	// Not even if the probe had seen nothing.
	s.p.unsafe = nil
	s.later(2 * time.Hour)
	if !there(filepath.Join(dead, "app.log")) {
		t.Error("it was deleted without openat2")
	}
}

// forbidOpenat2 makes it fail with ENOSYS in all threads of this process, for good.
func forbidOpenat2(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	const nr = 0 // offset of seccomp_data.nr
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: nr},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_OPENAT2, Jt: 0, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		t.Fatal(os.NewSyscallError("prctl", err))
	}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		t.Fatal(os.NewSyscallError("seccomp", errno))
	}
	runtime.KeepAlive(filter)
}
