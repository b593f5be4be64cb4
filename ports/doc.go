// Package ports holds the nouns that cross the boundary of the domain, and the interfaces that
// the domain needs: Store keeps entries, Announcer spreads live PeerIDs among natives, Transport
// carries a native's methods between nodes, and Discovery finds natives.
//
// It imports the standard library alone. Everything here is plain data or a promise. Each
// interface states its blocking, its ownership of memory, and the outcomes that are no errors.
// Package porttest turns those promises into a suite per port.
package ports
