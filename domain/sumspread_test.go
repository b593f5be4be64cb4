package domain

import (
	"testing"
	"time"

	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// The sum that a native tells each of its followers makes no batch of renewals for all the others.
func TestRenewalsAreToldOnceASecondHoweverManyFollow(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		r, _ := bareRegistry(t, "me", nil)
		var all []*newsReader
		for range 20 {
			x := follow(t, r, "")
			defer x.stop()
			all = append(all, x)
			time.Sleep(170 * time.Millisecond)
		}
		told, seconds := 0, 30
		for range 10 * seconds {
			time.Sleep(100 * time.Millisecond)
			if _, err := r.Register(t.Context(), "x", ports.Registration{PeerID: "x", Addr: "/a"}); err != nil {
				t.Fatal(err)
			}
		}
		for _, b := range all[0].take() {
			if b.News != nil && len(b.News.Renewals) > 0 {
				told++
			}
		}
		if told > seconds+1 {
			t.Errorf("in %d s it tells %d batches of renewals", seconds, told)
		}
	})
}
