package modules_test

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	coretest "github.com/libp2p/go-libp2p/core/test"

	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// TestAttackManyReaders asks for pages without a pause, over HTTP and over streams, beside indexers
// that register as fast as they can. The clock's word is taken for the rest of their speed, so a
// machine that stalls gets another try.
func TestAttackManyReaders(t *testing.T) {
	const registering, tries = 8, 4
	const least = 0.1 // of the registrations without readers; without turns it was 0.05
	readers := porttest.Scale(100, 50)
	node, honest := besieged(t, registering, map[string]string{"limits.registrations": "0"})
	for range porttest.Scale(ports.MaxPage, ports.MaxPage/4) {
		id, err := coretest.RandPeerID()
		if err != nil {
			t.Fatal(err)
		}
		r := ports.Registration{
			PeerID: ports.PeerID(id.String()),
			Addr:   "/ip4/192.0.2.1/tcp/4101",
			Addrs:  []string{"/ip4/192.0.2.1/tcp/4101", "/ip4/192.0.2.1/udp/4101/quic-v1"},
			Meta:   map[string]string{"service": "search", "zone": "eu-1"},
		}
		if _, err := node.Registry().Register(t.Context(), r.PeerID, r); err != nil {
			t.Fatal(err)
		}
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: readers}}
	defer client.CloseIdleConnections()
	overHTTP := func(int) (bool, error) {
		resp, err := client.Get("http://" + node.HTTP() + "/api/v1/indexers?limit=1000")
		if err != nil {
			return false, err
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode == http.StatusOK, err
	}
	over := calls(t, node, readers, func(i int) string { return fmt.Sprintf("127.5.%d.1", i) })
	overStreams := func(i int) (bool, error) {
		answer, err := over[i].ask(ports.LookupProtocol, `{"Limit":1000}`+"\n")
		return len(answer) > ports.MaxFrameBytes, err
	}
	for try := 1; ; try++ {
		alone := honest.rate()
		slow := false
		for name, read := range map[string]func(int) (bool, error){"HTTP": overHTTP, "streams": overStreams} {
			stop := reading(t, readers, read)
			beside := honest.rate()
			pages, refused := stop()
			t.Logf("%d readers over %s: %d pages, %d refused; %.0f registrations/s, %.0f without them: %.2f", readers, name, pages, refused, beside, alone, beside/alone)
			slow = slow || beside < alone*least
		}
		if !slow {
			break
		}
		if try == tries {
			t.Errorf("%d times over, readers leave less than %.2f of the registrations", try, least)
			break
		}
	}
	honest.expectAllSucceeded(t)
}

// rate has all of them register without a pause for a while, and returns how many did in a second.
func (h *honest) rate() float64 {
	const window = 500 * time.Millisecond
	var done atomic.Int64
	var running sync.WaitGroup
	until := time.Now().Add(window)
	for _, c := range h.callers {
		running.Go(func() {
			for time.Now().Before(until) {
				h.register(c)
				done.Add(1)
			}
		})
	}
	running.Wait()
	return float64(done.Load()) / window.Seconds()
}

// reading has n readers read without a pause until stop is called, which counts the pages and the
// refusals. read reports whether it got a page.
func reading(t *testing.T, n int, read func(i int) (bool, error)) (stop func() (pages, refused int64)) {
	var pages, refused atomic.Int64
	var running sync.WaitGroup
	done := make(chan struct{})
	for i := range n {
		running.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				switch page, err := read(i); {
				case err != nil:
					t.Error(err)
					return
				case page:
					pages.Add(1)
				default:
					refused.Add(1)
				}
			}
		})
	}
	return func() (int64, int64) {
		close(done)
		running.Wait()
		return pages.Load(), refused.Load()
	}
}
