package kaddht

import (
	"errors"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"go.uber.org/goleak"

	"github.com/opencloud/ocnode/adapters/internal/hosttest"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(hosttest.Settled{M: m})
}

// newStore joins h, as a server under the rule accept.
func newStore(t testing.TB, h host.Host, accept func(*ports.Entry) error) *Store {
	t.Helper()
	return newStoreOf(t, h, Config{Server: true, Accept: accept, TTL: porttest.TTL})
}

func newStoreOf(t testing.TB, h host.Host, cfg Config) *Store {
	t.Helper()
	if cfg.Read == nil {
		cfg.Read = unread
	}
	s, err := New(h, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// unread reads no proofs: all entries are bare.
func unread(*ports.Entry) error { return nil }

// rule is the contract's rule about time.
func rule(e *ports.Entry) error {
	switch remaining := time.Until(e.ExpiresAt); {
	case remaining <= 0:
		return errors.New("expired")
	case remaining > porttest.TTL+ports.ClockAllowance:
		return errors.New("too far in the future")
	}
	return nil
}

func entryFor(t testing.TB) ports.Entry {
	t.Helper()
	return ports.Entry{
		PeerID:    hosttest.PeerID(t),
		Addr:      "/ip4/192.0.2.1/tcp/4001",
		ExpiresAt: time.Now().Add(porttest.TTL).UTC().Round(0),
	}
}

func TestStore(t *testing.T) {
	porttest.Store(t, func(t *testing.T, accept func(*ports.Entry) error) func() porttest.ClosableStore {
		var stores []*Store
		return func() porttest.ClosableStore {
			s := newStore(t, hosttest.New(t), accept)
			for _, other := range stores {
				hosttest.Connect(t, s.host, other.host)
			}
			stores = append(stores, s)
			porttest.Eventually(t, "all nodes know each other", func() bool {
				for _, s := range stores {
					if s.Peers() != len(stores)-1 {
						return false
					}
				}
				return true
			})
			return s
		}
	})
}
