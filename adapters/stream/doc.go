// Package stream is the Transport over libp2p streams: it serves what a native
// offers, and reaches natives that do.
//
//	/opencloud/native/subscribe/1.0  a registration, which is also a heartbeat
//	/opencloud/native/leave/1.0      the end of one's own registration
//	/opencloud/native/lookup/1.0     one entry, a page of the live table, or the natives
//	/opencloud/native/watch/1.0      a snapshot of the live table, and its changes
//
// A peer that speaks the first is a native. One of the seed's speaks no other, and
// refuses the others as any libp2p host refuses a protocol that it does not know.
//
// docs/protocol.md says what goes over them, in enough detail for another implementation:
// every frame, field, limit, error and time-out.
package stream
