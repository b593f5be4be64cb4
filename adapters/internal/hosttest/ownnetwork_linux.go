package hosttest

import (
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// ownNetwork marks a test that runs in a network namespace of its own.
const ownNetwork = "OCNODE_TEST_OWN_NETWORK"

// InOwnNetwork runs the calling test again in a process of its own, whose network has
// nothing but a loopback interface with multicast: nothing reaches a real link. It needs
// no tool, and root or the kernel's leave to make namespaces; it reports whether the
// caller is that process.
func InOwnNetwork(t *testing.T) bool {
	t.Helper()
	if os.Getenv(ownNetwork) != "" {
		socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(socket)
		lo, err := unix.NewIfreq("lo")
		if err != nil {
			t.Fatal(err)
		}
		lo.SetUint16(unix.IFF_UP | unix.IFF_LOOPBACK | unix.IFF_RUNNING | unix.IFF_MULTICAST)
		if err := unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, lo); err != nil {
			t.Fatal(err)
		}
		return true
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	again := exec.CommandContext(t.Context(), self, "-test.run=^"+t.Name()+"$", "-test.v")
	again.Env = append(os.Environ(), ownNetwork+"=1")
	again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if id := os.Getuid(); id != 0 {
		again.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		again.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: id, Size: 1}}
		again.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	out, err := again.CombinedOutput()
	t.Logf("%s", out)
	switch {
	case again.ProcessState == nil:
		t.Skipf("no network namespace can be made here: %v", err)
	case err != nil:
		t.Errorf("in a network of its own: %v", err)
	}
	return false
}
