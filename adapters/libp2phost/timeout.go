package libp2phost

import (
	"cmp"
	"fmt"
	"time"

	"github.com/opencloud/ocnode/ports"
)

const (
	// DefaultTimeout is host.timeout unless it is set: ten round trips around the world. No peer
	// waits for less, since the wire contract says so.
	DefaultTimeout = ports.ExchangeTimeout
	// MaxTimeout bounds it: a peer that does not answer takes so long to be noticed.
	MaxTimeout = time.Minute
)

// CheckTimeout returns what is wrong with host.timeout.
func CheckTimeout(timeout time.Duration) error {
	if timeout < DefaultTimeout || timeout > MaxTimeout {
		return fmt.Errorf("%v is out of range; want %v to %v", timeout, DefaultTimeout, MaxTimeout)
	}
	return nil
}

// timeouts are what this host waits for, derived from host.timeout.
type timeouts struct {
	// dial bounds an attempt to connect and identify, all addresses together.
	dial time.Duration
	// addr bounds the dial of one address. It ends before the caller of the dial stops waiting,
	// so that the error says whether nobody answered, or a peer that then fell silent.
	addr time.Duration
	// handshake bounds the handshake of a peer that dials this host: as long as the peer waits.
	handshake time.Duration
	// redial bounds an attempt at a peer that was connected before, unless it is known to take
	// longer. A peer that is cut off answers nothing, and what a dial sends again it sends at ever
	// longer intervals: short attempts, redialPause apart, make two natives one within 2 s of the
	// cut's end.
	redial time.Duration
}

// timeoutsOf derives them from host.timeout; 0 is DefaultTimeout.
func timeoutsOf(timeout time.Duration) timeouts {
	timeout = cmp.Or(timeout, DefaultTimeout)
	return timeouts{dial: timeout, addr: timeout * 4 / 5, handshake: timeout * 4 / 5, redial: timeout / 5}
}
