package libp2phost

import (
	basichost "github.com/libp2p/go-libp2p/p2p/host/basic"

	"github.com/opencloud/ocnode/ports"
)

// A stream on which the other side does not say which protocol it wants is cut off as
// soon as one on which it does not say what it asks. libp2p gives it twice as long, and
// has no option, so it is set for all hosts of the process, before there is one.
func init() { basichost.DefaultNegotiationTimeout = ports.ExchangeTimeout }
