package ports

import "fmt"

// Limit names the native's own limit behind a Refusal. It serves metrics and logs, and does not
// travel.
type Limit string

const (
	// LimitRate refuses an identity that registers or leaves too often.
	LimitRate Limit = "identity_rate"
	// LimitSite refuses another identity of a site that has its maximum.
	LimitSite Limit = "site_identities"
	// LimitEntries refuses another entry in a full live table.
	LimitEntries Limit = "entries"
	// LimitAddress refuses an address that the sender could not prove its own.
	LimitAddress Limit = "address"
	// LimitDialBacks refuses an address that the sender has not proven its own yet.
	LimitDialBacks Limit = "dial_backs"
	// LimitWatchers refuses a watch above the maximum in all, LimitPeerWatchers above a peer's
	// maximum.
	LimitWatchers     Limit = "watchers"
	LimitPeerWatchers Limit = "peer_watchers"
	// LimitPeerHeartbeats refuses an open stream of heartbeats above a peer's maximum.
	LimitPeerHeartbeats Limit = "peer_heartbeats"
)

// LimitNames are all limits, in the order in which metrics list them.
var LimitNames = []Limit{
	LimitRate, LimitSite, LimitEntries, LimitAddress, LimitDialBacks, LimitWatchers, LimitPeerWatchers,
	LimitPeerHeartbeats,
}

// Busy returns a Refusal of CodeBusy with this limit and a formatted message.
func Busy(limit Limit, format string, args ...any) *Refusal {
	return &Refusal{Code: CodeBusy, Limit: limit, Message: fmt.Sprintf(format, args...)}
}
