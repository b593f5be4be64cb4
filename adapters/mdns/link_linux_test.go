package mdns

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"golang.org/x/sys/unix"

	"github.com/opencloud/ocnode/adapters/internal/hosttest"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// ownNetwork marks a test that runs in a network namespace of its own.
const ownNetwork = "OCNODE_TEST_OWN_NETWORK"

// inOwnNetwork runs the calling test again in a process of its own, whose network has
// nothing but a loopback interface with multicast: nothing reaches a real link. It needs
// no tool, and root or the kernel's leave to make namespaces; it reports whether the
// caller is that process.
func inOwnNetwork(t *testing.T) bool {
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

func TestDiscovery(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	prefix := "/"
	porttest.Discovery(t, func(t *testing.T) func() (ports.PeerID, ports.Discovery) {
		prefix += "x" // one link, and each network by itself
		of := prefix
		return func() (ports.PeerID, ports.Discovery) {
			h := hosttest.New(t)
			return ports.PeerID(h.ID().String()), New(h, of, slog.New(slog.DiscardHandler))
		}
	})
}

func TestNativesOnOneLinkAreFound(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	native := func(prefix string) host.Host {
		h := hosttest.New(t)
		running.Go(func() {
			if err := New(h, prefix, log).Advertise(ctx); err != nil {
				t.Error(err)
			}
		})
		return h
	}
	a, b := native("/opencloud"), native("/opencloud")
	elsewhere := native("/elsewhere")
	finds := func(h host.Host, prefix string, want ...host.Host) func() bool {
		return func() bool {
			var ids []ports.PeerID
			if err := New(h, prefix, log).Find(t.Context(), func(f ports.Found) {
				ids = append(ids, f.PeerID)
				if !slices.ContainsFunc(want, func(w host.Host) bool { return slices.Contains(f.Addrs, w.Addrs()[0].String()) }) {
					t.Errorf("%s is found at %v", f.PeerID, f.Addrs)
				}
			}); err != nil {
				t.Error(err)
			}
			var wanted []ports.PeerID
			for _, w := range want {
				wanted = append(wanted, ports.PeerID(w.ID().String()))
			}
			slices.Sort(ids)
			slices.Sort(wanted)
			return slices.Equal(ids, wanted)
		}
	}
	indexer := hosttest.New(t)
	porttest.Eventually(t, "an indexer finds both natives", finds(indexer, "/opencloud", a, b))
	porttest.Eventually(t, "a native finds the other", finds(a, "/opencloud", b))
	porttest.Eventually(t, "another network's native is found there", finds(indexer, "/elsewhere", elsewhere))
	if !finds(indexer, "/nowhere")() {
		t.Error("somebody is found in a network without natives")
	}

	running.Go(func() {
		if err := New(a, "/opencloud", log).Join(ctx); err != nil {
			t.Error(err)
		}
	})
	porttest.Eventually(t, "a native joins the other", func() bool { return a.Network().Connectedness(b.ID()) == network.Connected })
	if a.Network().Connectedness(elsewhere.ID()) == network.Connected {
		t.Error("it joins another network's")
	}
}
