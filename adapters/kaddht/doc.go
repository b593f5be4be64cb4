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
// and reset the stream of a request that they refuse; indexers are clients. A request has
// at most 64 KiB.
//
// A native of a closed network takes requests to store (PUT_VALUE, ADD_PROVIDER), and
// servers into its routing table, from the natives on its list alone; those on its list of
// indexers may ask. It resets the streams of all others.
//
// # Natives
//
// Natives are found by provider records (ADD_PROVIDER and GET_PROVIDERS, which servers
// answer) of one key: the multihash, in its SHA-256 form, of the prefix and "/native", so
// of "/opencloud/native". Only natives provide it, every 5 minutes and soon after another
// server has joined. A record counts for 15 minutes; a server keeps some thousand, with
// up to 32 addresses each, and refuses every other key.
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
// Native (the PeerID that granted the lease), SeenAt, Left, and what the entry is proven
// by: Record (base64) and Tick ({"Seq","Step","Link"}), which docs/protocol.md specifies.
// Where a Record says them, Addrs and Meta are left out if the value would be too large.
// Names match exactly; unknown ones are ignored.
//
// "Left":true makes it the leave of that indexer: it is never listed, and nor is, until
// its ExpiresAt, any entry that does not end later; if the indexer signed it, until its
// record's hour has ended, any whose record is not newer. Addr and what else is said of the
// indexer may be missing then, or, of a bare one, be that of its last entry. Who does not
// know Left takes it for an entry, and shows the indexer until ExpiresAt.
//
// # Validation
//
// A value is refused that does not decode or is another's than the key says. One with a
// Record must pass the checks of docs/protocol.md, and may be stored until 30 s after the
// record has ended, although it is listed no longer than its ExpiresAt. A bare one must not
// have expired, nor expire later than now + TTL + 30 s: all nodes of one network have
// the same TTL, and 30 s allow for their clocks. A server checks when it stores and
// not when it answers, so a reader checks again. Whether a bare value is believed is the
// reader's affair alone.
//
// # Selection
//
// Of two values the signed one wins over the bare one. Of two with a Record it is the higher
// Seq, then the higher Step; of two bare ones the later ExpiresAt, then a leave; and if that
// is all the same, the larger bytes.
// No clock takes part, and no signature, so all nodes choose alike in any order. A
// value that does not decode, or whose record cannot be read, loses to any that does; a
// stored value that is no longer valid loses to any that is.
//
// # Expiry
//
// A server forgets a value an hour and 30 s after it came, or a TTL and 30 s if that is
// longer: so it has what proves a leave for as long as an older record could come after it.
package kaddht
