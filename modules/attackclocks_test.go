package modules_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencloud/ocnode/modules"
)

// Whole nodes, whose clocks jump an hour this way and that, one after another, natives and
// indexers: nobody who lives is missing anywhere, and who died stays dead.
func TestAttackClocksOfWholeNodesThatJumpAnHourLoseNobodyAndReviveNobody(t *testing.T) {
	simulate(t, func(t *testing.T, s *simulation) {
		var hands []*atomic.Int64
		own := func() modules.Environment {
			ahead := &atomic.Int64{}
			hands = append(hands, ahead)
			return modules.Environment{Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }}
		}
		var natives, indexers []*member
		for i := range 3 {
			m := s.member(fmt.Sprintf("native-%d", i), map[string]string{"modules": "native,dht,gossip"})
			m.env = own()
			if i > 0 {
				m.settings["host.bootstrap"] = natives[0].addr()
			}
			m.start()
			natives = append(natives, m)
		}
		time.Sleep(3 * time.Second)
		for i := range 5 {
			m := s.member(fmt.Sprintf("indexer-%d", i), map[string]string{"modules": "indexer", "indexer.natives": natives[i%3].addr()})
			if i > 2 { // with all of them
				m.settings["indexer.natives"] = natives[0].addr() + "," + natives[1].addr() + "," + natives[2].addr()
			}
			m.env = own()
			m.start()
			indexers = append(indexers, m)
		}
		s.settle(natives, indexers)
		dead, living := indexers[4], indexers[:4]
		time.Sleep(90 * time.Second)
		s.away.Store(dead.ip, struct{}{})
		time.Sleep(68 * time.Second)
		samples := 0
		for round := range 8 {
			hand := hands[s.random.IntN(len(hands)-1)]
			hand.Store(int64([]time.Duration{-time.Hour, time.Hour}[round%2]))
			for range 900 {
				time.Sleep(100 * time.Millisecond)
				for _, n := range natives {
					for _, x := range living {
						samples++
						if !n.lists(x) {
							t.Fatalf("%s does not list %s", n.name, x.name)
						}
					}
					if n.lists(dead) {
						t.Fatalf("%s lists who is dead", n.name)
					}
				}
			}
			hand.Store(0)
		}
		t.Logf("%d samples", samples)
		stopAll(indexers, natives)
	})
}
