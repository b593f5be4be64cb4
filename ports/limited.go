package ports

import "fmt"

// Limit names which of a native's own limits a Refusal comes from: for metrics and logs,
// it does not travel.
type Limit string

const (
	// LimitRate is an identity that registers or leaves more often than one needs to.
	LimitRate Limit = "identity_rate"
	// LimitSite is one more identity of a site that has as many as it may.
	LimitSite Limit = "site_identities"
	// LimitEntries is one more entry in a live table that is full.
	LimitEntries Limit = "entries"
	// LimitAddress is an address that could not be shown to be the sender's.
	LimitAddress Limit = "address"
	// LimitDialBacks is an address that has not been shown to be the sender's yet.
	LimitDialBacks Limit = "dial_backs"
	// LimitWatchers is one more watch than are served in all, and LimitPeerWatchers than
	// are served to one peer.
	LimitWatchers     Limit = "watchers"
	LimitPeerWatchers Limit = "peer_watchers"
)

// LimitNames are all of them, in the order in which they are told of.
var LimitNames = []Limit{
	LimitRate, LimitSite, LimitEntries, LimitAddress, LimitDialBacks, LimitWatchers, LimitPeerWatchers,
}

// Busy returns a Refusal of CodeBusy that comes from a limit, with a formatted message.
func Busy(limit Limit, format string, args ...any) *Refusal {
	return &Refusal{Code: CodeBusy, Limit: limit, Message: fmt.Sprintf(format, args...)}
}
