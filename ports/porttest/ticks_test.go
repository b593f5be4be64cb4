package porttest_test

import (
	"context"
	"testing"
	"time"

	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// direct is an announcer that hands each announcement to its listener at once.
type direct struct{ hear func(ports.Announcement) }

func (d *direct) Announce(_ context.Context, id ports.PeerID) error {
	d.hear(ports.Announcement{PeerID: id})
	return nil
}

func (d *direct) Listen(hear func(ports.Announcement)) (stop func(), err error) {
	d.hear = hear
	return func() {}, nil
}

func TestAnnouncementsWaitForTheTickAndNoneComesAfterTheStop(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		d, heard := &direct{}, make(chan ports.PeerID, 1)
		stop, err := porttest.AtTicks(d, time.Minute).Listen(func(a ports.Announcement) { heard <- a.PeerID })
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		_ = d.Announce(t.Context(), "a")
		if id := <-heard; id != "a" || time.Since(began) != time.Minute {
			t.Errorf("%s is heard after %v", id, time.Since(began))
		}
		_ = d.Announce(t.Context(), "b")
		stop()
		stop() // as a caller of Listen may
		time.Sleep(2 * time.Minute)
		if len(heard) > 0 {
			t.Errorf("%s is heard after the stop", <-heard)
		}
	})
}
