package libp2phost

import (
	"net/netip"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/opencloud/ocnode/adapters/internal/hosttest"
)

func TestABridgeIsKnownWhateverItsName(t *testing.T) {
	if !hosttest.InOwnNetwork(t) {
		return
	}
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(socket)
	const name, ip = "lan0", "192.0.2.7"
	text, err := unix.BytePtrFromString(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(socket), unix.SIOCBRADDBR, uintptr(unsafe.Pointer(text))); errno != 0 {
		t.Skipf("no bridge can be made here: %v", errno)
	}
	request := func(set func(*unix.Ifreq) error, what uint) {
		t.Helper()
		r, err := unix.NewIfreq(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := set(r); err != nil {
			t.Fatal(err)
		}
		if err := unix.IoctlIfreq(socket, what, r); err != nil {
			t.Fatal(err)
		}
	}
	bridge := Local{IP: netip.MustParseAddr(ip), Interface: name, Kind: Bridge}
	has := func() bool {
		locals, err := ReadInterfaces()
		if err != nil {
			t.Fatal(err)
		}
		return slices.Contains(locals, bridge)
	}
	request(func(r *unix.Ifreq) error { return r.SetInet4Addr(bridge.IP.AsSlice()) }, unix.SIOCSIFADDR)
	for _, up := range []bool{true, false, true} {
		request(func(r *unix.Ifreq) error {
			r.SetUint16(0)
			if up {
				r.SetUint16(unix.IFF_UP)
			}
			return nil
		}, unix.SIOCSIFFLAGS)
		if has() != up {
			locals, _ := ReadInterfaces()
			t.Errorf("the interface is up: %t, and the addresses are %v", up, locals)
		}
	}
	if locals, err := ReadInterfaces(); err != nil || !slices.Contains(locals, Local{IP: lo4.IP, Interface: "lo"}) {
		t.Errorf("loopback is not among %v: %v", locals, err)
	}
}
