// Package telemetry makes logs and metrics from what the node observes.
//
// Metrics never name a PeerID: anyone can make identities, and each would be a
// series for ever. Logs do, so what strangers can cause there is limited.
package telemetry

import "github.com/opencloud/ocnode/ports"

var _ ports.Observer = Observers(nil)

// Observers tells each of its observers, in order.
type Observers []ports.Observer

// Observe implements ports.Observer.
func (os Observers) Observe(e ports.Event) {
	for _, o := range os {
		o.Observe(e)
	}
}
