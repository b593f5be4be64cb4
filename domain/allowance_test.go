package domain

import (
	"testing"
	"time"
)

func TestAllowance(t *testing.T) {
	at := Instant{}.Add(time.Hour)
	p := newAllowance(20, time.Minute)
	takes := func(n int) (took int) {
		for range n {
			if p.take(at) {
				took++
			}
		}
		return took
	}
	for _, step := range []struct {
		after      time.Duration
		asks, want int
	}{
		{0, 5000, 1200}, // a period's at once
		{50*time.Millisecond - 1, 10, 0},
		{1, 10, 1},
		{time.Second, 100, 20},
		{30 * time.Second, 5000, 600},
		{time.Hour, 5000, 1200}, // and no more after a long while
	} {
		at = at.Add(step.after)
		if got := takes(step.asks); got != step.want {
			t.Errorf("%v later it may happen %d times, want %d", step.after, got, step.want)
		}
	}
	if short := newAllowance(20, time.Millisecond); !short.take(at) || short.take(at.Add(50*time.Millisecond-1)) || !short.take(at.Add(50*time.Millisecond)) {
		t.Error("with a period that is too short for one it does not happen at the rate")
	}
}
