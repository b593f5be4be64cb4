package modules_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/marcopolo/simnet"

	"github.com/opencloud/ocnode/ports/porttest"
)

// A connection over QUIC and a registration take some three round trips, and over TCP five.
func TestSimASlowLineTakesAHigherTimeout(t *testing.T) {
	for name, tt := range map[string]struct {
		oneWay  time.Duration
		timeout string
		in      bool
	}{
		"2.2 seconds, as it comes":    {2200 * time.Millisecond, "5s", false},
		"2.2 seconds, and a longer":   {2200 * time.Millisecond, "20s", true},
		"0.8 seconds, and a longer":   {800 * time.Millisecond, "20s", true},
		"three seconds, and a minute": {3 * time.Second, "1m", false}, // libp2p's own limit of 5 s for a round trip
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(t *testing.T, s *simulation) {
				s.net = &simnet.Simnet{LatencyFunc: simnet.StaticLatency(tt.oneWay), Logger: slog.New(slog.DiscardHandler)}
				s.net.Start()
				defer s.net.Close()
				native := s.member("native", map[string]string{"modules": "native", "host.timeout": tt.timeout})
				native.start()
				x := s.member("indexer", map[string]string{"modules": "indexer", "indexer.natives": native.addr(), "host.timeout": tt.timeout})
				log := new(bytes.Buffer)
				x.env.Log = log
				x.start()
				took, in := until(time.Minute, func() bool { return native.lists(x) })
				if in != tt.in {
					t.Errorf("it is listed: %v, after %v", in, took)
				}
				for range porttest.Scale(300, 130) {
					time.Sleep(time.Second)
					if in && !native.lists(x) {
						t.Fatalf("it is missing %v after it was listed", took)
					}
				}
				stopAll([]*member{x}, []*member{native})
				if _, why, failed := strings.Cut(log.String(), "lease failed"); !in {
					slow, psk := strings.Index(why, "the line may be slow (host.timeout)"), strings.Index(why, "host.psk")
					if !failed || slow < 0 || psk >= 0 && psk < slow {
						t.Errorf("the log does not name the line first:\n%s", why)
					}
				}
			})
		})
	}
}
