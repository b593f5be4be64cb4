package memory

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/opencloud/ocnode/adapters/internal/wire"
	"github.com/opencloud/ocnode/ports"
)

// minSweep is the number of entries below which a sweep is not worth its cost.
const minSweep = 1024

var errStoreClosed = errors.New("the store is closed")

// Space connects Stores: each gets the entries of all.
type Space struct {
	accept func(*ports.Entry) error

	mu      sync.Mutex
	members map[*Store]bool
	values  map[ports.PeerID]value
	// sweepAt is the number of values that starts a sweep: twice the rest after the last sweep,
	// so sweeping costs each put a constant.
	sweepAt int
}

// value is an entry in kaddht's form: the same limits, the same rule between two values, and a
// copy for each reader.
type value struct {
	text    []byte
	version ports.Version
	until   time.Time // the end of its life here
}

// NewSpace returns an empty Space. accept is its Stores' rule: nil, or the reason that an entry
// may be neither stored nor returned. It reads and checks the entry's proof, has its own clock,
// must not block, and is called concurrently.
func NewSpace(accept func(*ports.Entry) error) *Space {
	return &Space{
		accept: accept, members: make(map[*Store]bool),
		values: make(map[ports.PeerID]value), sweepAt: minSweep,
	}
}

// Store keeps entries in memory, shared with the other Stores of its Space.
type Store struct {
	space  *Space
	joined chan struct{} // nil if no other Store can join
}

var _ ports.Store = (*Store)(nil)

// NewStore returns a Store without a network, for a node without a DHT.
func NewStore(accept func(*ports.Entry) error) *Store {
	return NewSpace(accept).add(&Store{})
}

// Join adds a Store to the Space.
func (s *Space) Join() *Store {
	return s.add(&Store{joined: make(chan struct{}, 1)})
}

func (s *Space) add(m *Store) *Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	m.space = s
	for other := range s.members {
		select {
		case other.joined <- struct{}{}:
		default:
		}
	}
	s.members[m] = true
	return m
}

// Put implements ports.Store. It does not wait.
func (m *Store) Put(_ context.Context, e ports.Entry) (int, error) {
	text, err := wire.EncodeEntry(e)
	if err != nil {
		return 0, fmt.Errorf("put %.80q: %w", e.PeerID, err)
	}
	v := value{text: text}
	if e, err = m.space.entry(e.PeerID, v); err != nil {
		return 0, fmt.Errorf("put %.80q: %w", e.PeerID, err)
	}
	v.version, v.until = e.Version(), e.ExpiresAt
	if e.Proof != nil {
		v.until = e.Proof.Claim.Ends().Add(ports.ClockAllowance)
	}
	s := m.space
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.members[m] {
		return 0, errStoreClosed
	}
	if old, ok := s.values[e.PeerID]; ok && old.beats(v) {
		if _, err := s.entry(e.PeerID, old); err == nil {
			return 0, nil
		}
	}
	s.values[e.PeerID] = v
	if len(s.values) >= s.sweepAt {
		s.sweep(time.Now())
	}
	return len(s.members) - 1, nil
}

// entry returns the entry in v if it is id's and acceptable.
func (s *Space) entry(id ports.PeerID, v value) (ports.Entry, error) {
	e, err := wire.DecodeEntry(v.text)
	if err != nil {
		return ports.Entry{}, err
	}
	if e.PeerID != id {
		return ports.Entry{}, fmt.Errorf("not the canonical form of %s", e.PeerID)
	}
	return e, s.accept(&e)
}

func (v value) beats(w value) bool {
	return wire.Beats(v.version, v.text, w.version, w.text)
}

// sweep removes the values that have expired at now.
func (s *Space) sweep(now time.Time) {
	maps.DeleteFunc(s.values, func(_ ports.PeerID, v value) bool { return !now.Before(v.until) })
	s.sweepAt = max(minSweep, 2*len(s.values))
}

// Get implements ports.Store. It does not wait.
func (m *Store) Get(_ context.Context, id ports.PeerID, newerThan ports.Version) (ports.Entry, error) {
	s := m.space
	s.mu.Lock()
	member := s.members[m]
	v, ok := s.values[id]
	s.mu.Unlock()
	if !member {
		return ports.Entry{}, errStoreClosed
	}
	if !ok || v.version.Compare(newerThan) <= 0 {
		return ports.Entry{}, ports.ErrNotFound
	}
	e, err := s.entry(id, v)
	if err != nil {
		return ports.Entry{}, ports.ErrNotFound // it was acceptable when it was put
	}
	return e, nil
}

// Local implements ports.Store: all entries of a Space are here.
func (m *Store) Local(id ports.PeerID, newerThan ports.Version) (ports.Entry, error) {
	return m.Get(context.Background(), id, newerThan)
}

// Joined implements ports.Store: another Store joined the Space.
func (m *Store) Joined() <-chan struct{} { return m.joined }

// Close leaves the Space; the other Stores keep the entries. The Store then returns errors. It
// may be called twice.
func (m *Store) Close() error {
	m.space.mu.Lock()
	defer m.space.mu.Unlock()
	delete(m.space.members, m)
	return nil
}
