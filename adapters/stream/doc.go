// Package stream is the Transport over libp2p streams: it serves registrations
// under the protocol /opencloud/native/subscribe/1.0 and sends them.
//
// # The registration protocol
//
// An indexer opens one libp2p stream per registration, to a native that it is
// connected to over any transport that libp2p authenticates. It writes one
// frame, and reads one frame. Then both sides close the stream.
//
//	indexer                                        native
//	   | -- multistream-select, the protocol --------> |
//	   | -- {"PeerID":"12D3…","Addr":"/ip4/…"}\n ----> |
//	   | <-- {"OK":true,"TTLSeconds":66,…}\n --------- |
//	   | <-- end of stream --------------------------- |
//
// A frame is one JSON object in UTF-8. It ends at the first newline or at the
// end of the stream, whichever comes first, and has at most 8192 bytes before
// that. What follows the newline is ignored. The native answers when the frame
// has ended, whether or not the indexer has closed its side.
//
// # What the indexer writes
//
//	PeerID  string, required: the indexer's own identity, as base58 ("12D3…",
//	        "Qm…") or as a CID. It must be the one that the connection proves.
//	Addr    string, required: the multiaddr where the indexer is best reached.
//	        If it ends in a /p2p/ part, that names the indexer; a relay's may
//	        stand before it.
//	Addrs   array of strings: all addresses, best first, at most 8 of at most 256
//	        bytes each; the first equals Addr.
//	Meta    object of strings: labels of the indexer's choice; all names and
//	        values together have at most 1024 bytes.
//
// Names match exactly. Unknown names are ignored and may hold anything; null
// stands for the absent value. The following is malformed:
//
//   - a top-level name that differs from one of the above only in case;
//   - a name that occurs twice in one object, at any depth;
//   - objects and arrays nested deeper than 16, the outermost included;
//   - bytes that are not UTF-8, or an escape of half a surrogate pair;
//   - anything but blanks (space, tab, carriage return) around the object;
//   - a field of another type, or a PeerID that does not decode.
//
// A native checks the size first, then the syntax, then the identity, then the
// addresses, and answers with the first thing that is wrong.
//
// # What the native answers
//
// A lease:
//
//	{"OK":true,"ExpiresAt":"2026-03-01T10:01:06.5Z","TTLSeconds":66,
//	 "HeartbeatSeconds":60,"Now":"2026-03-01T10:00:00.5Z"}
//
// or a refusal:
//
//	{"OK":false,"Error":{"Code":"peer_mismatch","Message":"…"}}
//
// each on one line with a newline. Times are RFC 3339, written in UTC with up to
// nine fractional digits and read with any offset. Numbers may be fractions.
//
//	TTLSeconds        how long the lease lasts, to be counted from when the
//	                  indexer sent, on its own clock
//	HeartbeatSeconds  when the native wants to hear again; the indexer clamps it
//	                  to between 1 s and its own heartbeat
//	ExpiresAt, Now    the end of the lease and the present on the native's clock,
//	                  for people
//
// A reader that finds any of these four missing or absurd takes it as not said.
//
//	Code           meaning                                      try again
//	malformed      not such a frame, or it did not end in time  no
//	too_large      the frame or Meta is over its limit          no
//	peer_mismatch  PeerID is not the connection's               no
//	addr_invalid   an address that nobody could dial, too many, no
//	               or Addrs[0] is not Addr
//	refused        this native does not take this indexer       elsewhere
//	busy           not now                                      later
//
// Message is for people. A code that is not listed is a refusal all the same.
//
// # Time and failure
//
// The native ends every exchange 5 s after the stream was opened: for the frame
// there are 4 s, the last second is for the answer. It closes the stream after
// an answer and never resets it then, as over QUIC a reset would lose the
// answer. Having refused a frame that is too large, it goes on reading a little,
// so that a sender that writes everything before it reads gets as far as that.
// It resets a stream that broke before the frame had ended.
//
// The indexer allows 5 s each for connecting, for writing and for the answer. It
// reads the answer even if its write failed. A write that succeeded followed by
// 5 s of silence or by the end of the stream is "sent, unconfirmed": the first
// natives never answered. A reset, or a connection that ends, is a failure.
package stream
