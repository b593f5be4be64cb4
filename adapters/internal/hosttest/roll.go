package hosttest

import (
	"sync/atomic"

	"github.com/libp2p/go-libp2p/core/host"

	"github.com/opencloud/ocnode/ports"
)

// Roll is a list of whom somebody trusts, which may change. Set comes before Trusts.
type Roll struct {
	ids atomic.Pointer[map[ports.PeerID]bool]
}

// Trusts reports whether id is on the list.
func (r *Roll) Trusts(id ports.PeerID) bool { return (*r.ids.Load())[id] }

// Set has the list name these hosts and nobody else.
func (r *Roll) Set(hosts ...host.Host) {
	ids := make(map[ports.PeerID]bool)
	for _, h := range hosts {
		ids[ports.PeerID(h.ID().String())] = true
	}
	r.ids.Store(&ids)
}
