package domain_test

import (
	"context"
	"testing"
	"time"

	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
)

// sparing is a store as the DHT is: it puts to nodes that do not follow this native, and here that is one at most.
type sparing struct {
	stubStore
	followers *domain.Followers
	native    ports.PeerID
}

func (s *sparing) Strangers() bool { return !s.followers.Has(s.native) }

// A follower without room for an entry cannot answer for it. So the renewals are put to it, as to a stranger.
func TestAFollowerWithoutRoomIsPutToUntilItHasRoomForAll(t *testing.T) {
	withFollowingNetwork(t, func(t *testing.T, net *followingNetwork) {
		ids := peerIDs(7)
		followers := &domain.Followers{}
		store := &sparing{followers: followers, native: ids[1]}
		store.put = func(context.Context, ports.Entry) (int, error) { return 0, nil }
		a := net.native(ids[0], nativeOptions{followers: followers, store: store})
		b := net.native(ids[1], nativeOptions{bounds: domain.Bounds{Entries: 4, Trusted: func(ports.PeerID) bool { return true }}})
		defer net.stop(a, b)
		heartbeat := net.rules.Policy.Heartbeat
		beat := func(indexers int) (puts int) {
			for _, x := range ids[2 : 2+indexers] {
				a.register(t, x, addr)
			}
			time.Sleep(heartbeat / 2)
			a.Take()
			for _, x := range ids[2 : 2+indexers] {
				a.register(t, x, addr)
			}
			time.Sleep(heartbeat / 2)
			return a.Count(ports.EventPut)
		}
		time.Sleep(time.Second)
		if puts := beat(4); puts != 0 || !followers.Has(ids[1]) {
			t.Errorf("%d renewals are put to a follower with room for all", puts)
		}
		if puts := beat(5); puts != 5 || followers.Has(ids[1]) {
			t.Errorf("%d renewals of 5 are put to a follower that is full, which has all: %t", puts, followers.Has(ids[1]))
		}
		if !followers.Share(0, nil) { // of those that follow
			t.Error("it follows no more")
		}
		a.cut() // what it told it tells again, on another watch
		time.Sleep(time.Second)
		a.heal()
		if puts := beat(5); puts != 5 {
			t.Errorf("%d renewals of 5 are put on another watch", puts)
		}
		for began := time.Now(); !followers.Has(ids[1]); beat(4) {
			if time.Since(began) > 2*domain.RoomAfter(net.rules.Policy) {
				t.Fatal("it has room, and does not say so")
			}
		}
		if puts := beat(4); puts != 0 {
			t.Errorf("%d renewals are put to a follower that has room again", puts)
		}
	})
}
