package memory_test

import (
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/opencloud/ocnode/adapters/internal/hosttest"
	"github.com/opencloud/ocnode/adapters/memory"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

func TestStore(t *testing.T) {
	porttest.Store(t, func(_ *testing.T, accept func(*ports.Entry) error) func() porttest.ClosableStore {
		space := memory.NewSpace(accept)
		return func() porttest.ClosableStore { return space.Join() }
	})
}

func notExpired(e *ports.Entry) error {
	if !time.Now().Before(e.ExpiresAt) {
		return errors.New("expired")
	}
	return nil
}

func TestStoreWithoutNetwork(t *testing.T) {
	porttest.LocalStore(t, func(_ *testing.T, accept func(*ports.Entry) error) porttest.ClosableStore {
		return memory.NewStore(accept)
	})
}

// TestStoreForgets puts generation after generation of expiring entries. They must not pile up.
func TestStoreForgets(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		space := memory.NewSpace(notExpired)
		store := space.Join()
		const generations, perGeneration = 10, 700
		for range generations {
			for range perGeneration {
				e := ports.Entry{PeerID: hosttest.PeerID(t), Addr: "a", ExpiresAt: time.Now().Add(time.Minute)}
				if _, err := store.Put(t.Context(), e); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Minute)
		}
		if n := space.Len(); n > 2*1024 {
			t.Errorf("%d entries are held; all of %d have expired", n, generations*perGeneration)
		}
	})
}
