// Package domain holds a native's side of the registry: what it grants and lists (Registry), what
// it passes on (the outbox), which PeerIDs it looks up (the known set and the look-ups), and what
// it hears of the natives that it is connected to (Follower). The Rules are what a node of any
// role goes by; TTLPolicy and Clock are its times. What an entry is proven by is checked through
// ports.Verifier.
//
// Package domain/client is the other side: it registers with natives and asks them. It imports
// this package for the Rules, the Clock and the Backoff, and this one imports nothing of it.
//
// Both are pure: no socket, no logging framework, no library beyond the standard
// one. Everything that they need of the world comes in through package ports, and
// time is time.Now, which testing/synctest fakes.
//
// Inside, an instant is a time.Duration since the Clock was made. It runs on the monotonic
// clock, so a wall clock that is set revives no dead entry and kills no live one. The time of
// day, which proofs are held against, is the Clock's too: the median of the natives'.
package domain

import "github.com/opencloud/ocnode/ports"

// Entry is what a native holds about an indexer: the port's noun.
type Entry = ports.Entry
