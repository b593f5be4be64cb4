package domain

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/opencloud/ocnode/ports"
)

func TestAnEntryIsDeadAtItsDeadline(t *testing.T) {
	p := DefaultTTLPolicy()
	deadline := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name string
		now  time.Time
		want error
	}{
		{"the instant before", deadline.Add(-1), nil},
		{"at it", deadline, ErrExpired},
		{"the instant after", deadline.Add(1), ErrExpired},
		{"as early as another's clock may have granted it", deadline.Add(-p.TTL - ports.ClockAllowance), nil},
		{"an instant earlier than that", deadline.Add(-p.TTL - ports.ClockAllowance - 1), ErrTooFar},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := p.Acceptable(deadline, c.now); !errors.Is(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
	if err := p.Acceptable(time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), deadline); !errors.Is(err, ErrTooFar) {
		t.Errorf("the year 9999 is %v, want %v", err, ErrTooFar)
	}
}

func TestALeaveIsAcceptableWithoutAnAddress(t *testing.T) {
	c := Rules{Policy: DefaultTTLPolicy(), CheckAddr: func(ports.PeerID, string) error { return errors.New("nobody could dial it") }}
	now := time.Now()
	for _, test := range []struct {
		name string
		e    Entry
		want bool
	}{
		{"an entry without an address", Entry{ExpiresAt: now.Add(c.Policy.TTL)}, false},
		{"a leave without one", Entry{ExpiresAt: now.Add(c.Policy.TTL), Leave: true}, true},
		{"a leave with a bad one", Entry{Addr: "x", Addrs: []string{"y"}, ExpiresAt: now.Add(c.Policy.TTL), Leave: true}, true},
		{"a leave that has expired", Entry{ExpiresAt: now, Leave: true}, false},
		{"a leave that ends later than a lease can", Entry{ExpiresAt: now.Add(time.Hour), Leave: true}, false},
	} {
		if err := c.Acceptable(&test.e); (err == nil) != test.want {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

func TestAnEntryIsLateOnceAHeartbeatIsOverdue(t *testing.T) {
	p := DefaultTTLPolicy()
	for _, c := range []struct {
		since time.Duration
		want  ports.State
	}{{p.Heartbeat - 1, ports.StateLive}, {p.Heartbeat, ports.StateLive}, {p.Heartbeat + 1, ports.StateLate}} {
		if got := p.State(p.TTL - c.since); got != c.want {
			t.Errorf("%v after it was seen an entry is %s, want %s", c.since, got, c.want)
		}
	}
}

func TestAPolicyMustAddUp(t *testing.T) {
	s := time.Second
	for _, c := range []struct {
		name string
		p    TTLPolicy
		want string // of the error, "" for none
	}{
		{"the seed's", DefaultTTLPolicy(), ""},
		{"scaled down", TTLPolicy{TTL: 3 * s, Heartbeat: 2 * s, Refresh: s}, ""},
		{"ttl equal to heartbeat", TTLPolicy{TTL: 60 * s, Heartbeat: 60 * s, Refresh: 30 * s}, "ttl: 1m0s is not longer than registry.heartbeat 1m0s"},
		{"refresh equal to ttl", TTLPolicy{TTL: 66 * s, Heartbeat: 60 * s, Refresh: 66 * s}, "refresh: 1m6s is not shorter than registry.ttl"},
		{"zero", TTLPolicy{}, "heartbeat: 0s is not between"},
		{"negative", TTLPolicy{TTL: -s, Heartbeat: 60 * s, Refresh: 30 * s}, "ttl: -1s is not between"},
		{"a heartbeat that is impossible, and a refresh that does not go with the ttl", TTLPolicy{TTL: 5 * s, Heartbeat: 25 * time.Hour, Refresh: 30 * s}, "refresh: 30s is not shorter than registry.ttl 5s"},
		{"a refresh that is impossible, and a ttl that does not go with the heartbeat", TTLPolicy{TTL: 5 * s, Heartbeat: 6 * s, Refresh: -s}, "ttl: 5s is not longer than registry.heartbeat 6s"},
		{"two days", TTLPolicy{TTL: 48 * time.Hour, Heartbeat: 60 * s, Refresh: 30 * s}, "ttl: 48h0m0s is not between"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.p.Validate()
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			var setting *PolicyError
			if c.want != "" && !errors.As(err, &setting) {
				t.Errorf("%v does not name the setting", err)
			}
		})
	}
}
