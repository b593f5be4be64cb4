package main_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencloud/ocnode/cmd/ocnodetest"
)

// before is the last commit whose natives watch each other in JSON alone.
const before = "83f2d9c"

// buildOf builds ocnode of a commit, without the network. It skips the test where that commit is not
// to be had: in a copy without a history, or without the modules of it.
func buildOf(t *testing.T, commit string) (path string) {
	t.Helper()
	dir := t.TempDir()
	root, err := exec.Command("git", "rev-parse", "--show-toplevel").Output()
	if err != nil {
		t.Skipf("no history of this code: %v", err)
	}
	archive, err := exec.Command("git", "-C", string(bytes.TrimSpace(root)), "archive", commit).Output()
	if err != nil {
		t.Skipf("the history here has no commit %s: %v", commit, err)
	}
	unpack := exec.Command("tar", "-x", "-C", dir)
	unpack.Stdin = bytes.NewReader(archive)
	if out, err := unpack.CombinedOutput(); err != nil {
		t.Skipf("tar: %v\n%s", err, out)
	}
	path = filepath.Join(t.TempDir(), "ocnode-"+commit)
	build := exec.Command("go", "build", "-buildvcs=false", "-o", path, "./cmd/ocnode")
	build.Dir, build.Env = dir, append(os.Environ(), "GOPROXY=off", "GOFLAGS=-mod=readonly", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Skipf("commit %s does not build here: %v\n%s", commit, err, out)
	}
	return path
}

// rolling is a native that is started again in other versions, with the same key and address.
type rolling struct {
	*node
	dir, listen string
	others      []string // the addresses of the other natives

	mu sync.Mutex // guards node for the one that samples it
}

// run starts the native as program, after it has stopped the one that runs.
func (r *rolling) run(t *testing.T, program string, times []string) {
	t.Helper()
	r.mu.Lock()
	is := r.node
	r.node = nil
	r.mu.Unlock()
	if is != nil {
		is.Signal(syscall.SIGTERM)
		is.ExpectExit(0)
	}
	args := append([]string{r.listen}, times...)
	for _, addr := range r.others {
		args = append(args, "--host.bootstrap", addr)
	}
	is = ready(t, ocnodetest.Start(t, ocnodetest.Command(program, r.dir, freePorts, args...)))
	r.mu.Lock()
	r.node = is
	r.mu.Unlock()
}

// readsInBinary reports whether the native has read News.
func (r *rolling) readsInBinary(t *testing.T) bool {
	t.Helper()
	resp, err := client.Get("http://" + r.HTTP + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`(?m)^ocnode_follow_frames_total\{way="read"\} [1-9]`).Match(text)
}

// page is what a native lists, and how far its word can be relied on.
type page struct {
	Condition string
	Indexers  []entry
}

// absences samples what the native lists until ctx ends, and returns when it missed one of indexers. A
// native that says that it is warming has just started, and may miss any of them.
func (r *rolling) absences(ctx context.Context, indexers []string) (samples int, missed []string) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return samples, missed
		case <-tick.C:
		}
		r.mu.Lock()
		is := r.node
		r.mu.Unlock()
		if is == nil {
			continue
		}
		var said page
		if status, err := is.get("/api/v1/indexers", &said); err != nil || status != http.StatusOK {
			continue // it stops
		}
		samples++
		if said.Condition == "warming" {
			continue
		}
		for _, id := range indexers {
			if !slices.ContainsFunc(said.Indexers, func(e entry) bool { return e.PeerID == id }) {
				missed = append(missed, fmt.Sprintf("%s: %s misses %s, and says %q", time.Now().Format(time.TimeOnly+".000"), is.PeerID, id, said.Condition))
			}
		}
	}
}

// A network is brought to another version native by native, and back. Natives of both versions follow
// each other meanwhile: each lists each indexer all the time, and hears of its heartbeats, whichever
// native it has its lease from.
func TestEndToEndANetworkIsBroughtToANewVersionAndBackWithoutALoss(t *testing.T) {
	t.Parallel()
	old := buildOf(t, before)
	const heartbeat = 1500 * time.Millisecond
	times := []string{"--registry.ttl", (heartbeat + stall + 2*time.Second).String(), "--registry.heartbeat", heartbeat.String(), "--registry.refresh", "3s"}

	natives := make([]*rolling, 3)
	var addrs []string
	for i := range natives {
		port := ocnodetest.UnusedPort(t)
		natives[i] = &rolling{dir: t.TempDir(), listen: fmt.Sprintf("--host.listen=/ip4/127.0.0.1/tcp/%d,/ip4/127.0.0.1/udp/%[1]d/quic-v1", port), others: slices.Clone(addrs)}
		natives[i].run(t, old, times)
		addrs = append(addrs, natives[i].Addrs[0])
	}
	var indexers []string
	for i, n := range natives {
		n.others = slices.Concat(addrs[:i], addrs[i+1:])
		program := []string{old, binary}[i%2]
		// Each has its lease from a single native: the others know of it by that native alone.
		x := ready(t, ocnodetest.Start(t, ocnodetest.Command(program, t.TempDir(), freePorts, append([]string{"--modules=indexer", "--indexer.natives", addrs[i]}, times...)...)))
		indexers = append(indexers, x.PeerID)
	}
	// renewed waits until each native lists each indexer by a heartbeat from after now.
	renewed := func(when string) {
		t.Helper()
		began := time.Now()
		for _, n := range natives {
			ocnodetest.Eventually(t, n.PeerID+" hears of all heartbeats "+when, func() bool {
				listed, err := n.list()
				return err == nil && !slices.ContainsFunc(indexers, func(id string) bool { return !listed[id].SeenAt.After(began) })
			})
		}
		t.Logf("%s: all natives heard of all heartbeats %v later", when, time.Since(began).Round(time.Millisecond))
	}
	renewed("of the old version")

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var sampling sync.WaitGroup
	samples, missed := make([]int, len(natives)), make([][]string, len(natives))
	for i, n := range natives {
		sampling.Go(func() { samples[i], missed[i] = n.absences(ctx, indexers) })
	}
	for _, to := range []struct{ program, name string }{{binary, "new"}, {old, "old"}} {
		for i, n := range natives {
			n.run(t, to.program, times)
			renewed(fmt.Sprintf("with %d of %d natives of the %s version", i+1, len(natives), to.name))
			if to.program == binary && n.readsInBinary(t) != (i > 0) { // the first of them has no other to read from
				t.Errorf("with %d natives of the new version the last has read in binary: %v", i+1, i == 0)
			}
		}
	}
	stop()
	sampling.Wait()
	for i := range natives {
		t.Logf("native %d: %d samples", i, samples[i])
		if len(missed[i]) > 0 {
			t.Errorf("%d absences, the first of them: %s", len(missed[i]), missed[i][0])
		}
	}
}
