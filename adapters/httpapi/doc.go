// Package httpapi is the HTTP side of a node: a server that shows what the node
// sees, and the client that the command line asks it with.
//
// # Wire format
//
// Every path takes GET and HEAD and nothing else. Bodies are UTF-8 JSON followed
// by a newline unless said otherwise; times are RFC 3339 with up to nanoseconds,
// in UTC. Lists and objects are never null. Readers ignore fields they do not know.
//
//	GET /healthz   200 "ok": the process serves
//	GET /readyz    200 "ok": the node's own modules serve; else 503 not_ready, whose
//	               body has "modules" (name to reason) beside "error"
//	GET /metrics   the Prometheus exposition format
//
//	GET /api/v1/status
//	{"peerID","addrs":["…/p2p/…"],"modules":["native"],"uptimeSeconds","live","known"}
//
//	GET /api/v1/indexers?limit=&after=
//	{"indexers":[{"peerID","addr","addrs","meta","state","seenAt","expiresAt","via"}],"next":""}
//
//	GET /api/v1/indexers/{peerID}
//	one object of that list
//
// The list is sorted by PeerID. limit is 1 to 1000, 100 if not given. after lists
// what follows that PeerID, which need not be listed itself; next is the after of
// the following page, "" on the last. addr is the best address and addrs are all of
// them, addr first. state is "live", or "late" once a heartbeat is overdue. seenAt is
// when the native via last heard the indexer, by via's own clock, and null if via
// did not say; expiresAt is when the entry ends. A PeerID is written in its
// canonical form and read in any.
//
// An answer that is not 200 is {"error":{"code","message"}}:
//
//	bad_request         400  limit, after or peerID, with what is allowed
//	not_found           404  no live indexer of that PeerID; no such path
//	not_a_native        404  the node runs without the native module
//	method_not_allowed  405  with an Allow header
//	internal            500  a bug
//	not_ready           503  of /readyz
package httpapi
