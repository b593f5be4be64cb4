package libp2phost

import (
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/opencloud/ocnode/ports"
)

// Part closes the connections of h to those who speak one of the protocols and whom changed
// names. Whatever was agreed over them under other lists of whom to trust has ended then,
// and whoever connects again is met as what it is now. A Joiner looks at each anew before
// that, so that it dials those that it trusts now and forgets the others.
func Part(h host.Host, protocols []protocol.ID, changed func(ports.PeerID) bool) error {
	look, err := h.EventBus().Emitter(new(event.EvtPeerProtocolsUpdated))
	if err != nil {
		return fmt.Errorf("have natives looked at anew: %w", err)
	}
	var errs []error
	for _, id := range h.Network().Peers() {
		if changed(ports.PeerID(id.String())) && speaks(h, id, protocols) {
			errs = append(errs, look.Emit(event.EvtPeerProtocolsUpdated{Peer: id}), h.Network().ClosePeer(id))
		}
	}
	return errors.Join(append(errs, look.Close())...)
}
