// Package domain holds the rules of the registry: what a native grants and
// lists (Registry, TTLPolicy), what it passes on (the outbox), whom it looks up
// (the known set and the look-ups), and the indexer's side of a lease (Indexer).
//
// It is pure: no socket, no logging framework, no library beyond the standard
// one. Everything it needs of the world comes in through package ports, and
// time is time.Now, which testing/synctest fakes.
//
// Inside, an instant is a time.Duration since the registry was made. It runs on
// the monotonic clock, so a wall clock that is set revives no dead entry and
// kills no live one.
package domain

import "github.com/opencloud/ocnode/ports"

// Entry is what a native holds about an indexer: the port's noun.
type Entry = ports.Entry
