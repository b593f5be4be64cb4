// Package client is the side that turns to natives: an Indexer keeps its leases at them, and a
// Finder looks PeerIDs up on a node that is no native itself. Both turn to Natives, given or
// found.
//
// An Indexer chooses among the natives that are found (choice), registers with each of them
// (exchange) when that is due (renewal), and proves its registrations (records).
//
// The package is as pure as package domain. It knows the Rules, the Clock and the Backoff of that,
// and a native's side only as a ports.Native.
package client
