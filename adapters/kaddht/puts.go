package kaddht

import (
	"context"
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p-kad-dht/records"
	record "github.com/libp2p/go-libp2p-record"

	"github.com/opencloud/ocnode/adapters/internal/wire"
	"github.com/opencloud/ocnode/ports"
)

// enough is how many servers must have taken a put before it returns; the others go on. A reader asks
// all servers near a key, so one of so many answers it.
const enough = 7

// Put implements ports.Store. It puts to the strangers among the servers that are closest to the key, and
// waits until enough of them have answered.
func (s *Store) Put(ctx context.Context, e ports.Entry) (int, error) {
	ctx, done, err := s.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer done()

	key := keyOf(e.PeerID)
	near, viewed := s.servers.near(key), s.data.view.Load() != nil
	if viewed {
		if err := s.validator.accept(&e); err != nil {
			return 0, fmt.Errorf("put %s: %w", e.PeerID, err)
		}
		if len(near) == 0 {
			return 0, nil
		}
	}
	value, err := wire.EncodeEntry(e)
	if err != nil {
		return 0, fmt.Errorf("put %.160q: %w", e.PeerID, err)
	}
	if !viewed {
		switch err := s.local.Put(ctx, key, record.MakePutRecord(key, value)); {
		case errors.Is(err, records.ErrOldRecord):
			return 0, nil // the newer record's put reached the others
		case err != nil:
			return 0, fmt.Errorf("put %s: %w", e.PeerID, err)
		}
	}

	request, err := requestOf(key, value)
	if err != nil {
		return 0, fmt.Errorf("put %s: %w", e.PeerID, err)
	}
	until, _ := ctx.Deadline()
	results, waits := make(chan result, len(near)), 0
	for _, to := range near {
		answered := func(r result) { s.puts.WithLabelValues(r.String()).Inc() }
		if !to.unawaited.Load() {
			waits++
			answered = func(r result) { s.puts.WithLabelValues(r.String()).Inc(); results <- r }
		}
		s.send(to, &put{request, until, answered})
	}
	took := 0
	for ; waits > 0 && took < enough; waits-- {
		select {
		case r := <-results:
			if r == taken {
				took++
			}
		case <-ctx.Done():
			return took, nil
		}
	}
	return took, nil
}

// Strangers implements ports.Strangers. Without a view every put counts: it renews this node's own record.
func (s *Store) Strangers() bool {
	return s.data.view.Load() == nil || s.servers.strangers.Load() > 0
}

// Refollow applies a change of Config.Follows. It does not block.
func (s *Store) Refollow() {
	if s.servers.refresh() {
		signal(s.joined)
	}
}
