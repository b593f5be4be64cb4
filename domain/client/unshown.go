package client

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/opencloud/ocnode/ports"
)

// unshown are addresses that a native could not show to be this indexer's. For a while records
// do without them. The first address is always kept, so no native can take all.
type unshown struct {
	mu    sync.Mutex
	until map[string]time.Time
}

// add has records of the addresses of do without those that are named, and reports whether that
// changes anything.
func (u *unshown) add(of, named []string) (changed bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, addr := range named {
		if i := slices.Index(of, addr); i > 0 {
			if u.until == nil {
				u.until = make(map[string]time.Time)
			}
			u.until[addr] = time.Now().Add(ports.RecordLife)
			changed = true
		}
	}
	return changed
}

// without returns addrs as records have them now.
func (u *unshown) without(addrs []string) []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(u.until, func(_ string, until time.Time) bool { return !now.Before(until) })
	if len(u.until) == 0 {
		return addrs
	}
	kept := make([]string, 0, len(addrs))
	for i, addr := range addrs {
		if _, ok := u.until[addr]; i == 0 || !ok {
			kept = append(kept, addr)
		}
	}
	return kept
}
