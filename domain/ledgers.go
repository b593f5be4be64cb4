package domain

import (
	"errors"
	"sync"
	"unique"

	"github.com/opencloud/ocnode/ports"
)

// This file bounds the memory of all ledgers together. A native can tell numbers that cost it nothing: of
// indexers that the table has no room for, or far apart. A thousand such natives must cost no more than a few.

const (
	// numberBytes and placeBytes are what a number takes in a ledger with full pages, and what a page takes
	// before any of its numbers is told.
	numberBytes, placeBytes = 24, 8
	// heldBytes is what each word of a native in the table allows its ledger: twice what its number takes, as
	// pages have gaps. So the size of the table bounds that part.
	heldBytes = 2 * numberBytes
	// ledgerBytes is what each ledger may take in any case: the numbers of some 1,300 indexers. All followed
	// natives take 32 MB for that.
	ledgerBytes = 32 << 10
	// looseBytes is what all ledgers may take beyond that, for each indexer that the table may have: 64 MB by
	// default. Two natives that tell a million indexers each to a full table take 48 MB.
	looseBytes = 32
	// unheldShare is the part of it for numbers that have no lease in the table, one in so many. The
	// others are told in any order, so they may fill pages late.
	unheldShare = 2
)

var (
	errLedger = errors.New("there is no room for numbers that have no entry here")
	errLoose  = errors.New("most of its numbers have no entry here any more, and there is no room for them")
)

// ledgers counts what all ledgers take beyond what they may take in any case.
type ledgers struct {
	most int

	mu    sync.Mutex
	taken int
}

func newLedgers(b Bounds) *ledgers {
	return &ledgers{most: looseBytes * max(b.entries(), DefaultEntries)}
}

// count has l take loose bytes from now on, and reports whether all take at most so many then. If not, l takes more
// only if it must.
func (a *ledgers) count(l *ledger, loose, most int, must bool) (within bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	loose = max(loose, 0)
	within = loose <= l.loose || a.taken+loose-l.loose <= most
	if within || must {
		a.taken += loose - l.loose
		l.loose = loose
	}
	return within
}

// allowed returns what the ledger of the native from may take without being counted.
func (r *Registry) allowed(from ports.PeerID) int {
	return ledgerBytes + heldBytes*r.table.names.uses(unique.Make(from))
}

// hasRoom reports whether the native from may tell number n, and counts what that takes. held says that its
// lease is in the table. The natives that this one trusts are few: they are not counted.
func (r *Registry) hasRoom(l *ledger, from ports.PeerID, n uint32, held bool) bool {
	more := l.more(n)
	if more == 0 || r.table.tellers.trusts(from) {
		return true
	}
	most := r.ledgers.most
	if !held {
		most /= unheldShare
	}
	return r.ledgers.count(l, l.bytes()+more-r.allowed(from), most, false)
}

// settle counts l anew, as entries of the native from may have left the table. The error is errLoose if all
// ledgers take too much by that, and l has a part in it.
func (r *Registry) settle(l *ledger, from ports.PeerID) error {
	if r.table.tellers.trusts(from) {
		r.drop(l)
		return nil
	}
	loose := l.bytes() - r.allowed(from)
	r.ledgers.count(l, loose, r.ledgers.most, true)
	if l.loose > 0 && r.ledgers.full() {
		return errLoose
	}
	return nil
}

// keeps reports whether l may stay until the native from is followed again: its words in the table end meanwhile,
// so they allow nothing.
func (r *Registry) keeps(l *ledger, from ports.PeerID) bool {
	return r.table.tellers.trusts(from) || r.ledgers.count(l, l.bytes()-ledgerBytes, r.ledgers.most, false)
}

// drop counts l no more. l may be nil.
func (r *Registry) drop(l *ledger) {
	if l != nil {
		r.ledgers.count(l, 0, 0, true)
	}
}

// full reports whether all ledgers take too much.
func (a *ledgers) full() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.taken > a.most
}
