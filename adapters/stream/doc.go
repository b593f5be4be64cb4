// Package stream is the Transport over libp2p streams: it serves a native, and reaches remote
// natives.
//
//	/opencloud/native/subscribe/1.0  a registration, which is also a heartbeat
//	/opencloud/native/leave/1.0      the end of the sender's registration
//	/opencloud/native/lookup/1.0     one entry, a page of the live table, or the natives
//	/opencloud/native/watch/1.0      a snapshot of the live table, and its changes
//	/opencloud/native/follow/1.0     the same between natives, in binary
//
// A peer that speaks the first protocol is a native. A native of the seed speaks the first
// alone, and refuses the others as any libp2p host refuses an unknown protocol.
//
// docs/protocol.md specifies the protocols for other implementations: every frame, field, limit,
// error and time-out.
package stream
