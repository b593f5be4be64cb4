package client

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
)

const (
	// judgeTime is how long the word of other natives is waited for, when a native could not show an
	// address: a native dials back for 2 s, and a registration has to reach it. Natives of short leases dial
	// back for half of their slack, and the lease must not end meanwhile: so it is three quarters at most.
	judgeTime = 3 * time.Second
	// tellTime is how long natives have to tell each other of a record: far more than natives that
	// follow each other take.
	tellTime = time.Second
	// maxDenials bounds the words that are remembered of natives: all addresses of as many natives as
	// are remembered at all. Beyond that they are forgotten, and natives asked again.
	maxDenials = maxCandidates * ports.MaxAddrs
)

// unshown are addresses that no native could show to be this indexer's. For a while records do
// without them. A native may have no route to an address, or lie. So an address stays in the record
// as long as another native takes a record with it. The first address is always kept, so no native
// can take all. All methods may be called concurrently.
type unshown struct {
	clock   *domain.Clock
	judging time.Duration                  // judgeTime, or less
	doubted func(native ports.PeerID) bool // whether other natives show its lease: it may lie

	mu      sync.Mutex
	natives map[ports.PeerID]*verdict
	until   map[string]domain.Instant // how long records do without an address
	denials map[denial]domain.Instant // how long they count
	changed chan struct{}             // closed and replaced when a native has judged
}

// denial is the word of a native that could not show an address.
type denial struct {
	native ports.PeerID
	addr   string
}

// verdict is what a native says of the addresses in this indexer's records.
type verdict struct {
	judging bool     // its word is still to come
	took    []string // those of the last record that it took as a whole
}

func newUnshown(clock *domain.Clock, slack time.Duration, doubted func(ports.PeerID) bool) *unshown {
	return &unshown{
		clock: clock, judging: min(judgeTime, slack/4*3), doubted: doubted,
		natives: make(map[ports.PeerID]*verdict), until: make(map[string]domain.Instant),
		denials: make(map[denial]domain.Instant), changed: make(chan struct{}),
	}
}

// asks notes that a native is registered with now. Records have an address again that this native
// has not judged lately.
func (u *unshown) asks(native ports.PeerID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.natives[native] != nil {
		return
	}
	u.natives[native] = &verdict{judging: true}
	now := u.clock.Instant()
	maps.DeleteFunc(u.denials, func(_ denial, until domain.Instant) bool { return !now.Before(until) })
	for addr := range u.until {
		if _, denied := u.denials[denial{native, addr}]; !denied {
			delete(u.until, addr)
		}
	}
}

// takes notes that a native has taken a record as a whole.
func (u *unshown) takes(native ports.PeerID, addrs []string) { u.judged(native, addrs) }

// fails notes that a registration with a native has failed: its word counts no more.
func (u *unshown) fails(native ports.PeerID) { u.judged(native, nil) }

func (u *unshown) judged(native ports.PeerID, took []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if v := u.natives[native]; v == nil || v.judging || len(took) > 0 || len(v.took) > 0 {
		u.natives[native] = &verdict{took: took}
		u.tell()
	}
}

// forget notes that a native is registered with no more.
func (u *unshown) forget(native ports.PeerID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if v := u.natives[native]; v != nil && (v.judging || len(v.took) > 0) {
		u.tell()
	}
	delete(u.natives, native)
}

// reconsider notes that the lease of a native is doubted now, or is no longer.
func (u *unshown) reconsider() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.tell()
}

// tell has those look again that wait for a verdict. The caller holds the lock.
func (u *unshown) tell() {
	close(u.changed)
	u.changed = make(chan struct{})
}

// tellTime is how long natives have to tell each other of a record.
func (x *Indexer) tellTime() time.Duration { return min(tellTime, x.heartbeat/60) }

// denied takes in that a native could not show the addresses that are named, in a record of the
// addresses of. It waits for the word of other natives. If another takes each of the addresses,
// they stay. Else records do without the others. left reports whether that changes anything.
func (u *unshown) denied(ctx context.Context, native ports.PeerID, of, named []string) (left, stay bool) {
	named = slices.DeleteFunc(slices.Clone(named), func(addr string) bool { return slices.Index(of, addr) < 1 })
	u.fails(native)
	if len(named) == 0 {
		return false, false
	}
	until := u.clock.Instant().Add(ports.RecordLife)
	u.mu.Lock()
	maps.DeleteFunc(u.until, func(_ string, until domain.Instant) bool { return !u.clock.Instant().Before(until) })
	if len(u.denials) > maxDenials {
		clear(u.denials)
	}
	for _, addr := range named {
		u.denials[denial{native, addr}] = until
	}
	u.mu.Unlock()
	timeout := time.NewTimer(u.judging)
	defer timeout.Stop()
	for {
		u.mu.Lock()
		untaken, open := u.untaken(named)
		changed := u.changed
		u.mu.Unlock()
		if len(untaken) == 0 {
			return false, true
		}
		if open {
			select {
			case <-changed:
				continue
			case <-timeout.C:
			case <-ctx.Done():
				return false, false
			}
		}
		u.mu.Lock()
		defer u.mu.Unlock()
		for _, addr := range untaken {
			u.until[addr] = until
		}
		return true, false
	}
}

// untaken returns which addresses no native takes, and whether the word of a native is still to come.
// The caller holds the lock.
func (u *unshown) untaken(addrs []string) (untaken []string, open bool) {
	var taken []string
	for id, v := range u.natives {
		open = open || v.judging
		if len(v.took) > 0 && !u.doubted(id) {
			taken = append(taken, v.took...)
		}
	}
	for _, addr := range addrs {
		if !slices.Contains(taken, addr) {
			untaken = append(untaken, addr)
		}
	}
	return untaken, open
}

// judgements returns a channel that is closed once a native has judged.
func (u *unshown) judgements() <-chan struct{} {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.changed
}

// without returns addrs as records have them now.
func (u *unshown) without(addrs []string) []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := u.clock.Instant()
	kept := make([]string, 0, len(addrs))
	for i, addr := range addrs {
		until, left := u.until[addr]
		if left && !now.Before(until) {
			delete(u.until, addr)
			left = false
		}
		if i == 0 || !left {
			kept = append(kept, addr)
		}
	}
	if len(kept) == len(addrs) {
		return addrs
	}
	return kept
}
