// Package client is what turns to natives: an Indexer, which keeps its leases at them, and a
// Finder, which looks PeerIDs up on a node that is no native itself. Both turn to Natives, given
// or found.
//
// An Indexer chooses among the natives that are found (choice), registers with each of them
// (exchange) when that is due (renewal), and proves what it says (records).
//
// It is as pure as package domain, of which it knows the Rules and the Clock. What package domain
// holds of a native's side it knows only as a ports.Native.
package client
