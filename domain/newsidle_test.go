package domain

import (
	"runtime"
	"testing"
)

// A native that begins to follow while the notes of a native without followers end hears all the same.
func TestAFollowerThatComesAsTheNotesEndHearsAll(t *testing.T) {
	for range 100 {
		r, _ := bareRegistry(t, "me", nil)
		n := r.table.news
		n.watch()() // a follower came, and went
		n.mu.Lock()
		go n.idle()
		for range 20 {
			runtime.Gosched()
		}
		watching := make(chan func())
		go func() { watching <- n.watch() }()
		for range 20 {
			runtime.Gosched()
		}
		n.mu.Unlock()
		stop := <-watching
		on := n.on.Load()
		stop()
		if !on {
			t.Fatal("a native follows, and nothing is noted")
		}
	}
}
