// Package domain holds the rules of the registry: what a native grants and
// lists (Registry, TTLPolicy), what it passes on (the outbox), whom it looks up
// (the known set and the look-ups), the indexer's side of a lease (Indexer), and
// look-ups by who is no native (Finder); both of these turn to Natives, given or found. What
// an entry is proven by is checked through ports.Verifier, and what is believed without a
// proof is for the Rules to say.
//
// It is pure: no socket, no logging framework, no library beyond the standard
// one. Everything it needs of the world comes in through package ports, and
// time is time.Now, which testing/synctest fakes.
//
// Inside, an instant is a time.Duration since the Clock was made. It runs on the monotonic
// clock, so a wall clock that is set revives no dead entry and kills no live one. The time of
// day, which proofs are held against, is the Clock's too: the median of the natives'.
package domain

import "github.com/opencloud/ocnode/ports"

// Entry is what a native holds about an indexer: the port's noun.
type Entry = ports.Entry
