package domain

import (
	"context"
	"fmt"
	"iter"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// manyNatives are neighbours that tell an empty table and beats. asked counts those that are asked for a
// page.
type manyNatives struct {
	connectedTransport
	asked atomic.Int64
}

func (m *manyNatives) Native(ports.PeerID, []string) (ports.RemoteNative, error) {
	return connectedNative{porttest.Native{
		OnWatch: func(ctx context.Context, _ ports.PeerID, w ports.WatchRequest) iter.Seq2[ports.Batch, error] {
			return func(yield func(ports.Batch, error) bool) {
				batch := ports.Batch{Reset: ports.ResetNew, Cursor: "c", Beat: w.Beat, Audience: 7}
				for yield(batch, nil) {
					batch = ports.Batch{Cursor: "c"}
					select {
					case <-time.After(w.Beat):
					case <-ctx.Done():
						return
					}
				}
			}
		},
		OnList: func(context.Context, ports.PeerID, ports.Query) (ports.Page, error) {
			m.asked.Add(1)
			return ports.Page{}, nil
		},
	}}, nil
}

// A thousand natives are followed, whatever a site makes up beside them, by two goroutines each.
func TestAThousandNativesAreFollowed(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		transport := &manyNatives{}
		for i := range 900 {
			transport.neighbours = append(transport.neighbours, ports.Neighbour{PeerID: ports.PeerID(fmt.Sprintf("native %03d", i)), Watchable: true, Site: fmt.Sprint(i)})
		}
		for i := range 1000 {
			transport.neighbours = append(transport.neighbours, ports.Neighbour{PeerID: ports.PeerID(fmt.Sprintf("fake %03d", i)), Watchable: true, Site: "evil"})
		}
		r, _ := bareRegistry(t, "me", nil)
		f := NewFollower(r.rules, transport, FollowerSettings{})
		before := runtime.NumGoroutine()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = f.Run(ctx, r)
		}()
		time.Sleep(3 * time.Second)
		synctest.Wait()
		fakes := 0
		for _, id := range f.Followed(2 * maxFollowed) {
			if strings.HasPrefix(string(id), "fake") {
				fakes++
			}
		}
		if n := f.Following(); n != maxFollowed || fakes > maxFollowed/siteShare {
			t.Errorf("%d natives are followed, %d of one site among them; want %d and %d at most", n, fakes, maxFollowed, maxFollowed/siteShare)
		}
		if n := runtime.NumGoroutine() - before; n > 2*maxFollowed+10 {
			t.Errorf("they take %d goroutines", n)
		}
		if n := len(f.Natives(ctx)); n != ports.MaxPage || transport.asked.Load() > maxStatuses {
			t.Errorf("%d natives are told, and %d asked for it", n, transport.asked.Load())
		}
		cancel()
		<-done
	})
}
