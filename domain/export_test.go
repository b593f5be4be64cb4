package domain

import (
	"context"
	"time"

	"github.com/opencloud/ocnode/ports"
)

// Neighbour is neighbour, for the tests.
var Neighbour = neighbour

// Shards is how many shards SweepShard takes the number of.
const Shards = shardCount

// SweepShard sweeps one batch of a shard, and reports whether there may be more.
func (r *Registry) SweepShard(i int) (more bool) {
	return r.sweepShard(&r.table.shards[i]).more
}

// MaxChanges is how far behind a watcher may be.
const MaxChanges = maxChanges

// Sweep is what Run does at each tick.
func (r *Registry) Sweep() { r.sweep() }

// Hear is what Run does with an announcement.
func (r *Registry) Hear(a ports.Announcement) { r.hear(a) }

// Age lets d pass on the registry's monotonic clock at once. The time of day stays. Nothing may run
// meanwhile.
func (r *Registry) Age(d time.Duration) {
	k := r.rules.Clock
	elapsed := k.elapsed
	k.elapsed, k.wall = func() time.Duration { return elapsed() + d }, k.wall.Add(-d)
}

// Page is List without what only others ask for.
func (r *Registry) Page(after ports.PeerID, limit int) (page []ports.Listed, next ports.PeerID) {
	p, _ := r.List(context.Background(), "", ports.Query{After: after, Limit: limit})
	return p.Entries, p.Next
}

// Held is how many records there are, of indexers that are listed and of those that left.
func (r *Registry) Held() int { return r.table.len() }

// TakeChanges is what a Follower does with what native told.
func (r *Registry) TakeChanges(native ports.PeerID, changes []ports.Change) {
	r.takeChanges(native, changes)
}

// Beat and RenewalInterval are a policy's.
func Beat(p TTLPolicy) time.Duration            { return p.beat() }
func RenewalInterval(p TTLPolicy) time.Duration { return p.renewalInterval() }

// RoomAfter is how long a follower must have room for all entries, until it says so.
func RoomAfter(p TTLPolicy) time.Duration { return p.roomAfter() }

// ForgetPuts forgets all puts that wait.
func (r *Registry) ForgetPuts() { r.outbox.ready = nil }
