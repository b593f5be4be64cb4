package libp2phost

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/opencloud/ocnode/adapters/internal/sites"
	"github.com/opencloud/ocnode/ports"
)

// This file is about natives that others tell of. A teller may lie: no such native may be there, and
// whoever has the address bears the dials.

const (
	// maxMeetings bounds the natives that were told of and are not met yet. With a few seconds each, a
	// thousand natives are met within some minutes. A quarter of them may be by the word of one teller,
	// and an eighth at one site.
	maxMeetings = 64
	maxByTeller = maxMeetings / 4
	maxAtSite   = maxMeetings / 8
	// meetingAttempts is how often each is dialled: once more than once, since it may just start.
	meetingAttempts = 2
	// meetingShare of the attempts under way may be such, one in so many. The others are for natives that
	// are known to be some.
	meetingShare = 2
	// meetingTime is how long a connected peer may take to say that it is a native.
	meetingTime = 10 * time.Second
	// maxAlso is how many others may tell of a native before it is met. Their addresses are dialled too: the
	// first teller may lie.
	maxAlso = 3
	// avoidFor is how long a native that was not met is not dialled again where others said that it is, and
	// nowhere if it is no native. maxAvoided bounds the addresses that are remembered for that.
	avoidFor   = 10 * time.Minute
	maxAvoided = 1024
)

// meeting is a native that another has told of, and that is not met yet.
type meeting struct {
	by   ports.PeerID   // "" for a Discovery
	also []ports.PeerID // the natives that have told of it since
	site netip.Prefix   // of its first address that has any
}

// avoidance is a native that was not met at an address. "" is any.
type avoidance struct {
	id   peer.ID
	addr string
}

// hearsay is what Meet was told.
type hearsay struct {
	found ports.Found
	by    ports.PeerID
}

var _ ports.Joiner = (*Joiner)(nil)

// Meet implements ports.Joiner.
func (j *Joiner) Meet(found ports.Found, by ports.PeerID) {
	select {
	case j.told <- hearsay{found, by}:
	default: // it is told again
	}
}

// arrange has a native be dialled that was told of, unless it is known, or there is no room.
func (j *Joiner) arrange(h hearsay) {
	id, err := peer.Decode(string(h.found.PeerID))
	t := j.targets[id]
	if err != nil || id == j.host.ID() || t != nil && !t.awaits(h.by) || !j.trusted(id) ||
		j.avoids(id, "") || j.host.Network().Connectedness(id) == network.Connected {
		return
	}
	m := &meeting{by: h.by}
	var addrs []ma.Multiaddr
	for _, text := range h.found.Addrs {
		if len(addrs) == ports.MaxAddrs {
			break
		}
		addr, err := ma.NewMultiaddr(text)
		if err != nil || CheckAddr(h.found.PeerID, text) != nil || isDNSAddr(addr) {
			continue
		}
		if addr = withoutPeer(addr); j.avoids(id, addr.String()) {
			continue
		}
		addrs = append(addrs, addr)
		if ip, ok := ipOf(addr); ok && !m.site.IsValid() {
			m.site = sites.Counted(ip)
		}
	}
	switch {
	case len(addrs) == 0:
	case t != nil:
		t.meeting.also = append(t.meeting.also, h.by)
		t.addrs = ma.Unique(slices.Concat(t.addrs, addrs))
	case j.mayArrange(m):
		j.targets[id] = &target{id: id, since: time.Now(), addrs: addrs, meeting: m}
	}
}

// awaits reports whether t is to be met, and another attempt will dial what by tells.
func (t *target) awaits(by ports.PeerID) bool {
	m := t.meeting
	return m != nil && t.failures == 0 && !t.met && by != m.by && len(m.also) < maxAlso && !slices.Contains(m.also, by)
}

// avoids reports whether id is not to be dialled at addr by the word of others now.
func (j *Joiner) avoids(id peer.ID, addr string) bool {
	return time.Now().Before(j.avoided[avoidance{id, addr}])
}

// mayArrange reports whether there is room for another meeting.
func (j *Joiner) mayArrange(m *meeting) bool {
	all, byTeller, atSite := 0, 0, 0
	for _, t := range j.targets {
		if t.meeting == nil {
			continue
		}
		all++
		if t.meeting.by == m.by {
			byTeller++
		}
		if m.site.IsValid() && t.meeting.site == m.site {
			atSite++
		}
	}
	return all < maxMeetings && byTeller < maxByTeller && atSite < maxAtSite
}

// meet dials t if that is due, and gives it up in the end. due is step's. A peer that turns out to be a
// native is no meeting any more.
func (j *Joiner) meet(ctx context.Context, t *target, now time.Time, due func(*retry) bool) {
	switch {
	case !j.trusted(t.id), t.connected && now.Sub(t.since) >= meetingTime, !t.busy && !t.connected && t.met:
		j.avoid(avoidance{t.id, ""}, now)
		j.forget(t)
	case !t.busy && !t.connected && t.failures >= meetingAttempts:
		for _, addr := range t.addrs {
			j.avoid(avoidance{t.id, addr.String()}, now)
		}
		j.forget(t)
	case !t.connected && j.attempts < maxAttempts/meetingShare && due(&t.retry):
		j.dial(ctx, t)
	}
}

// avoid has a native not be dialled by the word of others for a while.
func (j *Joiner) avoid(which avoidance, now time.Time) {
	if len(j.avoided) >= maxAvoided {
		var first avoidance
		for other, until := range j.avoided {
			if first.id == "" || until.Before(j.avoided[first]) {
				first = other
			}
		}
		delete(j.avoided, first)
	}
	j.avoided[which] = now.Add(avoidFor)
}
