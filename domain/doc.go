// Package domain is a native's side of the registry. Registry grants leases and lists entries. The
// outbox puts and announces them. The known set and the look-ups find the indexers of other
// natives. Follower hears the natives that this native is connected to. A node of any role goes by
// Rules. TTLPolicy and Clock are its times. ports.Verifier checks the proof of an entry.
//
// Package domain/client is the other side: it registers with natives and asks them. It imports
// this package for the Rules, the Clock and the Backoff. This package imports nothing of it.
//
// Both are pure: no socket, no logging framework, the standard library alone. The
// world comes in through package ports. Time is time.Now, which testing/synctest
// fakes.
//
// Deadlines are on the monotonic clock: setting the wall clock revives no dead entry and kills no
// live one. Proofs are held against the time of day. It is the Clock's too: the median of the
// natives' clocks.
package domain

import "github.com/opencloud/ocnode/ports"

// Entry is the port's noun: a native holds it about an indexer.
type Entry = ports.Entry
