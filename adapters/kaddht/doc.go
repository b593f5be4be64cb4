// Package kaddht is the Store over a Kademlia DHT (go-libp2p-kad-dht). This page
// says what another implementation needs to share the same entries.
//
// # Protocol
//
// Kademlia as libp2p specifies it, under a prefix of its own: with the default
// prefix "/opencloud" the protocol is "/opencloud/kad/1.0.0". Messages are the
// protobufs of libp2p's kad-dht, each behind its length as a varint. Bucket size
// (k, also the number of replicas) is 20, concurrency (alpha) 10, resiliency
// (beta) 3. Natives are servers, answer FIND_NODE, GET_VALUE, PUT_VALUE and PING,
// and reset the stream of a request that they refuse; indexers are clients.
// Provider records are not served.
//
// # Key
//
// "/indexer/" and the indexer's PeerID in its canonical text form: base58 of the
// multihash ("12D3Koo…", "Qm…"), at most 128 bytes. Other spellings of the same
// identity are other keys, and refused. The place in the key space is the SHA-256
// of the whole key. The record's Key field repeats it.
//
// # Value
//
// One JSON object of at most 8 KiB:
//
//	{"PeerID":"12D3Koo…","Addr":"/ip4/203.0.113.7/tcp/4001","ExpiresAt":"2026-01-02T15:04:05.123456789Z"}
//
// PeerID is the identity in the key. ExpiresAt is the deadline, RFC 3339 with nanoseconds and
// any offset; the entry is dead at that instant. Optional are Addrs (all addresses,
// at most 8, the first equal to Addr), Meta (string to string, at most 1 KiB),
// Native (the PeerID that granted the lease) and SeenAt. Names match exactly;
// unknown ones are ignored.
//
// # Validation
//
// A value is refused that does not decode, is another's than the key says, has
// expired, or expires later than now + TTL + 30 s: all nodes of one network have
// the same TTL, and 30 s allow for their clocks. A server checks when it stores and
// not when it answers, so a reader checks again.
//
// # Selection
//
// Of two values the one with the later ExpiresAt wins, of two with the same the
// larger bytes. No clock takes part, so all nodes choose alike in any order. A
// value that does not decode loses to any that does; a stored value that is no
// longer valid loses to any that is.
package kaddht
