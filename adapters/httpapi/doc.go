// Package httpapi is the HTTP side of a node: a server that shows what the node
// sees, and the client that the command line asks it with.
//
// # Wire format
//
// Every path takes GET and HEAD and nothing else. Bodies are UTF-8 JSON followed
// by a newline unless said otherwise; times are RFC 3339 with up to nanoseconds,
// in UTC; numbers of seconds may be fractions. Lists and objects are never null.
// Readers ignore fields and events that they do not know.
//
//	GET /healthz   200 "ok": the process serves
//	GET /readyz    200 "ok": the node's own modules serve; else 503 not_ready, whose
//	               body has "modules" (name to reason) beside "error"
//	GET /readyz?lease
//	               the same, and 503 if no native holds a lease of this node's indexer,
//	               or natives do and no other native shows any of them
//	GET /metrics   the Prometheus exposition format
//
//	GET /api/v1/status
//	{"peerID","addrs":["…/p2p/…"],"modules":["native"],"uptimeSeconds","live","known"}
//
//	GET /api/v1/indexers?limit=&after=&meta.zone=eu-1
//	{"indexers":[{"peerID","addr","addrs","meta","state","source","seenAt","expiresAt","leftSeconds","via"}],"next":""}
//
//	GET /api/v1/indexers/{peerID}
//	one object of that list
//
//	GET /api/v1/natives
//	{"natives":[{"peerID","addrs","following","roundTripSeconds","live","lagSeconds"}]}
//
//	GET /api/v1/watch?cursor=&renewed=
//	server-sent events, see below
//
//	GET /sd/prometheus
//	[{"targets":["host:port"],"labels":{}}], see below
//
// The list is sorted by PeerID. limit is 1 to 1000, 100 if not given. after lists
// what follows that PeerID, which need not be listed itself; next is the after of
// the following page, "" on the last alone: a page may be short, and even empty,
// although more follow. meta.<name>=<value> lists only those whose metadata has that
// name with just that value; several must all hold. addr is the best address and
// addrs are all of them, addr first. state is "live", or "late" once a heartbeat is
// overdue, or "stale": the lease has ended, and this native was not able to hear a heartbeat.
// leftSeconds is 0 then. source is where the native has the entry from: "own" is a lease of its
// own, "native" one that the native which granted it told of, "dht" what the store
// says. seenAt is when the native via last heard the indexer, by via's own clock, and
// null if via did not say; expiresAt is when the entry ends, and leftSeconds how long
// that was off when this was written, rounded to a millisecond: it means the same on
// every clock. A PeerID is written in its canonical form and read in any.
//
// A status, a list, an indexer and a not_found have "condition" beside their other
// fields if the native's word cannot be relied on all the way: "warming" has just
// started and does not yet hold what the others do, "unheard" did not hear its indexers for a
// while, since it slept, stood still or lost its line; "isolated" has lost all the others,
// "partial" has lost some of them. "missing" names the natives that it has lost, at most 16.
//
// An indexer that the native does not hold is looked up in the store, which may take
// seconds. A node without native answers for one indexer, if it is in the DHT or knows a
// native: it asks those, and the store if none of them answers. For all else it is
// not_a_native.
//
// Of the other natives that a native is connected to, following says that its table
// has been taken over and its changes are heard; roundTripSeconds is how long it took to
// answer just now, 0 if it did not; live counts what it said it holds at first hand; and
// lagSeconds is how long what it told last was under way.
//
// # Access
//
// A node that has a token (http.token), as every one has that listens beyond loopback,
// wants it with each request:
//
//	Authorization: Bearer <token>
//
// The Host of a request must be one that the node goes by: localhost, a loopback address,
// the address at which the request came in, the host of http.listen, or one of http.hosts.
// So a page in a browser that has its own name lead to the node reads nothing. /healthz and
// /readyz answer without either.
//
// # Watch
//
// The answer is a text/event-stream as HTML defines it. It begins with a snapshot,
// unless it goes on from the cursor of an earlier watch: that of the header Last-Event-ID,
// or else of cursor. renewed=1 asks for the events renewed too. data is one JSON object on
// one line, in which kind repeats the event:
//
//	event: reset       {"kind","reason"}: a snapshot begins, forget what you have. reason is
//	                   new, cursor_too_old, or cursor_unknown: another native's, of before
//	                   it was restarted, or nonsense
//	event: snapshot    {"kind", and the fields of an indexer}: it was there at the beginning
//	event: synced      {"kind","live","condition","missing"}: the snapshot is whole, or all
//	                   is told that changed since the cursor; also whenever condition or
//	                   missing have changed. live counts the table without its stale entries
//	event: joined      as snapshot: it was not live before
//	event: updated     as snapshot: anything but its times has changed, or it was late or stale
//	event: renewed     as snapshot: only its times have changed
//	event: late        as snapshot: its heartbeat is overdue
//	event: stale       as snapshot: its lease has ended, and the native was not able to hear it
//	event: expired     {"kind","peerID","via"}: it reached its deadline
//	event: left        {"kind","peerID","via","expiresAt","leftSeconds"}: it said that it
//	                   leaves; what was granted before is not listed again
//	event: error       {"code","message"}: the last one
//
// id is the cursor. Only the last event of what happened together has one, and in its
// data a field cursor that says the same. A reader that goes on from there misses nothing. It
// hears again only what came without an id after that. All that changed since the cursor of
// a reader that goes on has one id, at its end. An id may come with no event. A comment (": ") comes every 15 s;
// a reader that hears nothing for 45 s should go on elsewhere, or here again.
//
// The codes of the event error: too_slow, since the reader did not keep up; busy, the node
// shuts down or has too many watchers; internal. Going on from the last id is right after
// each of them, a while later.
//
// # Prometheus
//
// /sd/prometheus is Prometheus' HTTP service discovery: always the full list (but for
// meta.<name>=<value>, as above), [] if it is empty. One entry is one group of one target:
// host:port of the first of its addresses that has a host and a TCP or UDP port and leads
// to itself, not to a relay. That is where libp2p listens, so an indexer says in its
// metadata where it is to be scraped: "prometheus" is host:port, or a port of that host;
// anything else there counts as not said. Or relabel __address__. An entry without any of
// that is left out. The labels:
//
//	__meta_ocnode_peer_id       the PeerID
//	__meta_ocnode_state         live, late or stale
//	__meta_ocnode_source        own, native or dht
//	__meta_ocnode_native        via
//	__meta_ocnode_addr          addr
//	__meta_ocnode_meta_<name>   each of its metadata; what is no letter, digit or _ in the
//	                            name is _. Of several names that come to the same, the one
//	                            that is spelled so is told, else the first in byte order
//
// All of them are the indexer's own words: whoever registers chooses what is scraped, so
// keep what you trust by relabelling. A native that is warming or unheard answers 503, and
// Prometheus keeps the list that it had.
//
// # Limits
//
// A server has at most 256 connections, and from one IPv4 address or IPv6 /56 half of
// them, but for loopback. One more takes the place of the connection that has been idle for
// longest. If a request runs on each, there are 32 more places, on which /healthz, /readyz
// and /metrics answer, and all else is busy. So a probe always has its answer.
//
// A list and the targets of Prometheus are made a page at a time: one page for each two
// processors at once, and at least one. The others wait for their turn, for a second at
// most, and are busy then. So readers leave processors to the registrations.
//
// # Errors
//
// An answer that is not 200 is {"error":{"code","message"}}:
//
//	bad_request         400  a parameter or peerID, with what is allowed
//	unauthorized        401  without the token, or with another one
//	forbidden_host      403  by a name that the node does not go by
//	not_found           404  no live indexer of that PeerID
//	no_such_path        404  with the paths that there are
//	not_a_native        404  the node runs without the native module
//	method_not_allowed  405  with an Allow header
//	internal            500  a bug
//	not_ready           503  of /readyz
//	busy                503  too much is asked of it now; try again after the seconds in
//	                         the header Retry-After
//	no_answer           503  nobody whom it asked answered in time; try again later
//	warming             503  of /sd/prometheus
//	unheard             503  of /sd/prometheus
package httpapi
