package domain

import (
	"math"
	"testing"
	"time"
)

func TestAPauseDoublesUpToItsLongest(t *testing.T) {
	const longest = time.Duration(math.MaxInt64)
	for _, c := range []struct {
		name string
		Backoff
		made int
		want time.Duration
	}{
		{"the first", Backoff{time.Second, time.Minute}, 0, time.Second},
		{"the second", Backoff{time.Second, time.Minute}, 1, 2 * time.Second},
		{"the last that is shorter", Backoff{time.Second, time.Minute}, 5, 32 * time.Second},
		{"the first that would be longer", Backoff{time.Second, time.Minute}, 6, time.Minute},
		{"a doubling that meets the longest", Backoff{time.Second, 64 * time.Second}, 6, 64 * time.Second},
		{"a nanosecond short of that", Backoff{time.Second, 64*time.Second - 1}, 6, 64*time.Second - 1},
		{"a nanosecond beyond it", Backoff{time.Second, 64*time.Second + 1}, 7, 64*time.Second + 1},
		{"none made, or less", Backoff{time.Second, time.Minute}, -1, time.Second},
		{"a longest that is shorter than the first", Backoff{time.Second, time.Millisecond}, 0, time.Millisecond},
		{"the same, later", Backoff{time.Second, time.Millisecond}, 3, time.Millisecond},
		{"no pause", Backoff{0, time.Minute}, 100, 0},
		{"the last doubling there is", Backoff{1, longest}, 62, 1 << 62},
		{"one more", Backoff{1, longest}, 63, longest},
		{"as many as an int counts", Backoff{1, longest}, math.MaxInt, longest},
		{"a second, as far as it goes", Backoff{time.Second, longest}, 33, time.Second << 33},
		{"a second, further", Backoff{time.Second, longest}, 34, longest},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.Pause(c.made); got != c.want {
				t.Errorf("after %d pauses %v, want %v", c.made, got, c.want)
			}
		})
	}
}

func TestEarlyIsTheLastTenth(t *testing.T) {
	for jitter, want := range map[float64]time.Duration{0: time.Minute, 0.5: 57 * time.Second, 1: 54 * time.Second} {
		if got := Early(time.Minute, jitter); got != want {
			t.Errorf("at %v: %v, want %v", jitter, got, want)
		}
	}
}
