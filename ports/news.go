package ports

import "time"

// News is what a native tells the natives that follow it, in the order of its fields. It does not
// change once it is made.
type News struct {
	// Changes are in order: ChangeSnapshot, ChangeJoined, ChangeUpdated, ChangeLate, ChangeExpired and
	// ChangeLeft, each with its Number. A ChangeExpired or ChangeLeft frees the Number.
	Changes []Change
	// Renewals are leases with another deadline and no other change, by rising Number.
	Renewals []Renewal
}

// Renewal renews the lease of the indexer that Number stands for.
type Renewal struct {
	Number uint32
	// Step and Link are the tick's, of the record that was told last; both are zero in a plain lease.
	Step uint32
	Link Link
	// Remaining is the rest of the lease when the News was made.
	Remaining time.Duration
	// ExpiresAt names a plain lease: its deadline by the native's clock, in Unix nanoseconds; 0 in a
	// signed one, whose tick says it.
	ExpiresAt int64
}

// Range is the part [From, Until) of the numbers of a native, with the Count and the Sum of what it has
// told. Until 0 is the end of all numbers.
//
// Sum is the sum, modulo 2^64, of one 32-bit item for each number that stands for an indexer: see Item.
type Range struct {
	From, Until uint32
	Count       uint32
	Sum         uint64
	// Whole asks for all entries of the range, in the place of their sum.
	Whole bool
}
