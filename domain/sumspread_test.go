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

// Nor do followers that come and go.
func TestFollowersThatComeAgainAndAgainMakeFewBatchesOfRenewals(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		r, _ := bareRegistry(t, "me", nil)
		stays := follow(t, r, "")
		defer stays.stop()
		stays.take()
		began, told, whole, cursor := time.Now(), 0, 0, ""
		var come []*newsReader
		for i := range 500 {
			time.Sleep(20 * time.Millisecond)
			if _, err := r.Register(t.Context(), "x", ports.Registration{PeerID: "x", Addr: "/a"}); err != nil {
				t.Fatal(err)
			}
			if i%3 == 0 {
				cursor = "" // the others come back
			}
			come = append(come, follow(t, r, cursor))
			if len(come) > 15 {
				if come[0].stop(); come[0].cursor != "" {
					whole++
					cursor = come[0].cursor
				}
				come = come[1:]
			}
		}
		seconds := int(time.Since(began) / time.Second)
		for _, x := range come {
			x.stop()
		}
		for _, b := range stays.take() {
			if b.News != nil && len(b.News.Renewals) > 0 {
				told++
			}
		}
		if whole < 480 || told > 5*seconds+1 {
			t.Errorf("in %d s it tells %d batches of renewals, and %d followers know all", seconds, told, whole)
		}
	})
}

// Nor do the asks of many followers.
func TestAsksOfManyFollowersMakeFewBatchesOfRenewals(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		r, _ := bareRegistry(t, "me", nil)
		var all []*newsReader
		for range 20 {
			x := follow(t, r, "")
			defer x.stop()
			all = append(all, x)
			time.Sleep(37 * time.Millisecond)
		}
		all[0].take()
		told, answered, seconds := 0, 0, 30
		for i := range 20 * seconds {
			time.Sleep(50 * time.Millisecond)
			if _, err := r.Register(t.Context(), "x", ports.Registration{PeerID: "x", Addr: "/a"}); err != nil {
				t.Fatal(err)
			}
			all[i%20].ask <- []ports.Range{{From: 1, Until: 2, Whole: true}}
		}
		for i, x := range all {
			for _, b := range x.take() {
				if len(b.Told) > 0 {
					answered++
				} else if i == 0 && b.News != nil && len(b.News.Renewals) > 0 {
					told++
				}
			}
		}
		if answered < 19*seconds {
			t.Errorf("%d of %d asks are answered", answered, 20*seconds)
		}
		if told > 5*seconds+1 {
			t.Errorf("in %d s it tells %d batches of renewals", seconds, told)
		}
	})
}
