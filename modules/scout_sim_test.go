package modules_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/opencloud/ocnode/modules"
)

// follow reports whether all of natives follow each other.
func follow(natives ...*member) bool {
	for _, n := range natives {
		if n.node.Registry().Following() < len(natives)-1 {
			return false
		}
	}
	return true
}

// Each native is told of the one before alone, and nothing but natives tells of natives.
func TestSimANativeThatIsKnownByWayOfAnotherIsFollowed(t *testing.T) {
	simulate(t, func(t *testing.T, s *simulation) {
		var natives []*member
		for i := range 5 {
			m := s.member(fmt.Sprint("link-", i), map[string]string{"modules": "native"})
			if i > 0 {
				m.settings["host.bootstrap"] = natives[i-1].addr()
			}
			m.start()
			natives = append(natives, m)
		}
		took, ok := until(time.Minute, func() bool { return follow(natives...) })
		t.Logf("all follow each other after %v", took)
		if !ok {
			t.Errorf("not all follow each other")
		}
		// The middle of the line stops. Nobody needs it.
		natives[2].stop()
		rest := append(natives[:2:2], natives[3:]...)
		time.Sleep(3 * time.Second)
		if !follow(rest...) {
			t.Error("the others do not follow each other without it")
		}
		stopAll(rest)
	})
}

// Natives of a DHT find all others in it.
func TestSimNativesOfADHTAllFollowEachOther(t *testing.T) {
	simulate(t, func(t *testing.T, s *simulation) {
		natives := s.natives(12, modules.Environment{})
		took, ok := until(time.Minute, func() bool { return follow(natives...) })
		t.Logf("all follow each other after %v", took)
		if !ok {
			t.Errorf("not all follow each other")
		}
		stopAll(natives)
	})
}
