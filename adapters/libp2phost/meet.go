package libp2phost

import (
	"context"
	"net/netip"
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
	// avoidFor is how long a native that was not met is not dialled again by the word of others. maxAvoided
	// bounds those that are remembered for that.
	avoidFor   = 10 * time.Minute
	maxAvoided = 1024
)

// meeting is a native that another has told of, and that is not met yet.
type meeting struct {
	by   ports.PeerID // "" for a Discovery
	site netip.Prefix // of its first address that has any
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
	if err != nil || id == j.host.ID() || j.targets[id] != nil || !j.trusted(id) ||
		time.Now().Before(j.avoided[id]) || j.host.Network().Connectedness(id) == network.Connected {
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
		addrs = append(addrs, withoutPeer(addr))
		if ip, ok := ipOf(addr); ok && !m.site.IsValid() {
			m.site = sites.Counted(ip)
		}
	}
	if len(addrs) == 0 || !j.mayArrange(m) {
		return
	}
	t := &target{id: id, since: time.Now(), addrs: addrs, meeting: m}
	j.targets[id] = t
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
	case !j.trusted(t.id), t.connected && now.Sub(t.since) >= meetingTime,
		!t.busy && !t.connected && (t.met || t.failures >= meetingAttempts):
		j.avoid(t.id, now)
		j.forget(t)
	case !t.connected && j.attempts < maxAttempts/meetingShare && due(&t.retry):
		j.dial(ctx, t)
	}
}

// avoid has id not be dialled by the word of others for a while.
func (j *Joiner) avoid(id peer.ID, now time.Time) {
	if len(j.avoided) >= maxAvoided {
		var first peer.ID
		for other, until := range j.avoided {
			if first == "" || until.Before(j.avoided[first]) {
				first = other
			}
		}
		delete(j.avoided, first)
	}
	j.avoided[id] = now.Add(avoidFor)
}
