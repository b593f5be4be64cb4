package domain

import (
	"fmt"
	"testing"
	"time"

	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// Strangers can make as many natives as they like.
func TestConfiguredNativesAreFollowedBeforeAllOthers(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		const most, share = 1000, 8 // at one site, in a small network
		now := time.Now()
		fakes := func(n int, site string) (all []ports.Neighbour) {
			for i := range n {
				all = append(all, ports.Neighbour{PeerID: ports.PeerID(fmt.Sprintf("fake %s %04d", site, i)), Watchable: true, Site: site})
			}
			return all
		}
		everywhere := func(n int) (all []ports.Neighbour) {
			for i := range n {
				all = append(all, ports.Neighbour{PeerID: ports.PeerID(fmt.Sprint("honest ", i)), Watchable: true, Site: fmt.Sprint("site ", i)})
			}
			return all
		}
		one := func(id ports.PeerID, site string) []ports.Neighbour {
			return []ports.Neighbour{{PeerID: id, Watchable: true, Site: site}}
		}
		// All fakes are followed already, for so long, and told so many signed entries.
		following := func(since time.Duration, signed int) func(f *Follower, neighbours []ports.Neighbour) {
			return func(f *Follower, neighbours []ports.Neighbour) {
				for i, n := range neighbours {
					if i < maxFollowed && n.PeerID[:4] == "fake" {
						f.followed[n.PeerID] = &followed{id: n.PeerID, stop: func() {}, since: now.Add(-since), signed: signed}
					}
				}
			}
		}
		for name, c := range map[string]struct {
			neighbours [][]ports.Neighbour
			before     func(*Follower, []ports.Neighbour)
			chosen     map[ports.PeerID]bool
			all        int
			again      time.Duration // 0 is at the next change
		}{
			"a native without Watch":                        {[][]ports.Neighbour{{{PeerID: "seed"}}}, nil, map[ports.PeerID]bool{"seed": false}, 0, 0},
			"this native itself":                            {[][]ports.Neighbour{one("me", "")}, nil, map[ports.PeerID]bool{"me": false}, 0, 0},
			"fakes of a site":                               {[][]ports.Neighbour{fakes(most, "a")}, nil, nil, share, 0},
			"fakes of many sites":                           {[][]ports.Neighbour{fakes(most/4, "a"), fakes(most/4, "b"), fakes(most/4, "c")}, nil, nil, 3 * share, 0},
			"fakes of a site in a large network":            {[][]ports.Neighbour{fakes(most, "a"), everywhere(700)}, nil, nil, 700 + 100, 0},
			"fakes of a site in the largest":                {[][]ports.Neighbour{fakes(most, "a"), everywhere(2000)}, nil, nil, most, 0},
			"fakes of ten sites in a small network":         {[][]ports.Neighbour{fakes(50, "a"), fakes(50, "b"), fakes(50, "c"), fakes(50, "d"), fakes(50, "e"), fakes(50, "f"), fakes(50, "g"), fakes(50, "h"), everywhere(20)}, nil, nil, 20 + 8*10, 0},
			"fakes of addresses that are not public":        {[][]ports.Neighbour{fakes(most+50, "")}, nil, nil, most, 0},
			"a bootstrap native behind fakes":               {[][]ports.Neighbour{fakes(most+50, ""), one("native", "")}, following(time.Hour, 5), map[ports.PeerID]bool{"native": true}, most + 1, 0},
			"a listed native behind fakes":                  {[][]ports.Neighbour{fakes(most+50, ""), one("listed", "")}, following(time.Hour, 5), map[ports.PeerID]bool{"listed": true}, most + 1, 0},
			"a bootstrap native at the site of fakes":       {[][]ports.Neighbour{fakes(most, "a"), one("native", "a")}, following(time.Hour, 5), map[ports.PeerID]bool{"native": true}, share + 1, 0},
			"a found native behind fakes with entries":      {[][]ports.Neighbour{fakes(most, ""), one("other", "")}, following(time.Hour, 1), map[ports.PeerID]bool{"other": false}, most, 0},
			"a found native behind fakes, before their end": {[][]ports.Neighbour{fakes(most, ""), one("other", "")}, following(emptyFor-1, 0), map[ports.PeerID]bool{"other": false}, most, 1},
			"at it":              {[][]ports.Neighbour{fakes(most, ""), one("other", "")}, following(emptyFor, 0), map[ports.PeerID]bool{"other": true}, most, 0},
			"at the site's full": {[][]ports.Neighbour{fakes(share, "a"), one("other", "a")}, following(emptyFor, 0), map[ports.PeerID]bool{"other": true}, share, 0},
			"a found native that told entries before": {[][]ports.Neighbour{fakes(most, ""), one("other", "")}, func(f *Follower, all []ports.Neighbour) {
				following(time.Second, 0)(f, all)
				f.followed["other"] = &followed{id: "other", signed: 1, since: now.Add(-time.Hour)}
			}, map[ports.PeerID]bool{"other": true}, most, emptyFor - time.Second},
			"a found native that had its chance": {[][]ports.Neighbour{fakes(most, ""), one("other", "")}, func(f *Follower, all []ports.Neighbour) {
				following(time.Hour, 0)(f, all)
				f.followed["other"] = &followed{id: "other", since: now.Add(-time.Hour)}
			}, map[ports.PeerID]bool{"other": false}, most, 0},
		} {
			f := NewFollower(Rules{Self: "me"}, nil, FollowerSettings{Listed: func(id ports.PeerID) bool { return id == "listed" }})
			f.bootstrap = map[ports.PeerID]bool{"native": true}
			var neighbours []ports.Neighbour
			for _, some := range c.neighbours {
				neighbours = append(neighbours, some...)
			}
			if c.before != nil {
				c.before(f, neighbours)
			}
			chosen, again := f.choose(neighbours)
			if len(chosen) != c.all {
				t.Errorf("%s: %d are followed, want %d", name, len(chosen), c.all)
			}
			for id, want := range c.chosen {
				if chosen[id] != want {
					t.Errorf("%s: %s is followed: %v", name, id, chosen[id])
				}
			}
			if want := now.Add(c.again); again.IsZero() != (c.again == 0) || c.again != 0 && !again.Equal(want) {
				t.Errorf("%s: it chooses again at %v, want %v", name, again, want)
			}
		}
	})
}

// The machine may sleep before the follower runs.
func TestAFollowerThatDoesNotRunYetMayHaveSlept(t *testing.T) {
	NewFollower(Rules{Self: "me"}, nil, FollowerSettings{}).StoodStill(time.Minute)
}
