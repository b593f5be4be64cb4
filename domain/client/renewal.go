package client

import (
	"context"
	"errors"
	"time"

	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
)

const (
	// minRenewal is the shortest heartbeat that a native may ask for. A shorter one is raised
	// to it, so that a native cannot make its indexers flood.
	minRenewal = time.Second
	// retryRegistration is the pause after a registration that failed. It doubles, 1, 2,
	// 4 s, up to half a heartbeat: after an outage of any length every indexer is
	// registered again within a heartbeat.
	retryRegistration = time.Second
	// reconnectSpread is how long the indexers of a native take to register again after
	// it drops all of them at once. Each has one second to renew a lost lease.
	reconnectSpread = 250 * time.Millisecond
	// suspectPatience is how long a native has to answer over a connection from before a sleep, or
	// from another network: most of these have ended, and a round trip around the world takes less.
	suspectPatience = 500 * time.Millisecond
	// shortHeartbeat is the heartbeat below which a native's stream stays open. A stream for each costs
	// some 90 µs there, a frame on an open one a tenth of that. An open stream takes memory, which longer
	// heartbeats are not worth.
	shortHeartbeat = 15 * time.Second
)

// renewal decides when to register with a native next, from the outcomes of the registrations so
// far.
type renewal struct {
	heartbeat time.Duration
	failures  int           // registrations that failed, in a row
	drops     int           // connections that ended before their lease was due, in a row
	took      time.Duration // by the last registration that was answered with a lease
	suspects  bool          // the connection of the last registration has probably ended
}

// patient returns a ctx for a registration when left is left of the lease. A connection may be dead
// without a word. So the native has half of that time to answer over it, and the other half is for
// another connection. A native that took long the last time has up to three quarters.
func (r *renewal) patient(ctx context.Context, left time.Duration) context.Context {
	if r.suspects {
		r.suspects = false
		return ports.WithPatience(ctx, max(suspectPatience, 2*r.took))
	}
	if left <= 0 {
		return ctx // nothing is lost any more
	}
	return ports.WithPatience(ctx, max(left/2, min(2*r.took, left/4*3)))
}

// suspect notes that the machine has slept, or that its network is another. Connections from before
// have probably ended, and failures from before say nothing any more.
func (r *renewal) suspect() { r.suspects, r.failures, r.drops = true, 0, 0 }

// after returns how long after a registration was sent, and ended in lease and err, the next
// follows. left is what is left of the lease then. jitter is uniform in [0, 1).
func (r *renewal) after(lease ports.Lease, err error, left time.Duration, jitter float64) time.Duration {
	var refusal *ports.Refusal
	switch {
	case errors.As(err, &refusal) && refusal.Code != ports.CodeBusy:
		return domain.Early(r.heartbeat, jitter) // the native would say the same in a second
	case err != nil:
		r.failures++
		pause := r.pause(r.failures)
		if left > 0 { // a path that comes back while the lease lasts is found in time
			pause = min(pause, max(r.pause(1), left/3))
		}
		return domain.Early(pause, jitter)
	}
	r.failures = 0
	return domain.Early(r.interval(lease), jitter)
}

// paced returns how far apart heartbeats are at most. Short ones go out earlier, by a third of the lease's
// slack: a renewal travels to other natives for a sixth of it, and a bit longer, and is not overdue
// there then.
func paced(heartbeat, ttl time.Duration) time.Duration {
	if heartbeat >= shortHeartbeat || ttl <= heartbeat {
		return heartbeat
	}
	return heartbeat - min(ttl-heartbeat, heartbeat)/3
}

// interval returns the heartbeat that lease asks for, between minRenewal and this indexer's own,
// and shorter than the lease's TTL.
func (r *renewal) interval(lease ports.Lease) time.Duration {
	least := min(minRenewal, r.heartbeat)
	interval := r.heartbeat
	if lease.Heartbeat != 0 {
		interval = lease.Heartbeat
	}
	if lease.TTL > 0 && interval >= lease.TTL {
		interval = lease.TTL / 10 * 9
	}
	return min(max(paced(interval, lease.TTL), least), r.heartbeat)
}

// due notes that the time of the next registration has come. If the last brought a lease, err is
// nil, and its connection has lasted.
func (r *renewal) due(err error) {
	if err == nil {
		r.drops = 0
	}
}

// dropped returns how long to wait after the connection of a held lease has ended: next to nothing
// the first time, and longer each time in a row that a native drops the connection.
func (r *renewal) dropped(jitter float64) time.Duration {
	r.drops++
	if r.drops == 1 {
		return time.Duration(float64(min(reconnectSpread, r.heartbeat/20)) * jitter)
	}
	return domain.Early(r.pause(r.drops-1), jitter)
}

// pause is how long to wait after n failures in a row.
func (r *renewal) pause(n int) time.Duration {
	return domain.Backoff{First: min(retryRegistration, r.heartbeat/10), Max: r.heartbeat / 2}.Pause(n - 1)
}
