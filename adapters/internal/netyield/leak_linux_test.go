package netyield_test

import (
	"os"
	"testing"

	"github.com/opencloud/ocnode/adapters/internal/netyield"
	"github.com/opencloud/ocnode/ports/porttest"
)

func TestAClosedYielderLeavesNothing(t *testing.T) {
	files := func() int {
		open, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(open)
	}
	held, before := porttest.Holds(), files()
	for range 10 {
		y := netyield.New()
		for range 10 {
			y.Yield()
		}
		y.Close()
	}
	held.ExpectNoMore(t, 1<<20)
	if after := files(); after > before {
		t.Errorf("%d files are open, want %d", after, before)
	}
}
