// Package kaddht is the Store over a Kademlia DHT (go-libp2p-kad-dht). This page
// specifies it for other implementations that share the same entries.
//
// # Protocol
//
// The protocol is libp2p's Kademlia under its own prefix: "/opencloud/kad/1.0.0" with the
// default prefix "/opencloud". Messages are the protobufs of libp2p's kad-dht, each
// behind its length as a varint. Bucket size
// (k, also the number of replicas) is 20, concurrency (alpha) 10, resiliency
// (beta) 3. Natives are servers: they answer FIND_NODE, GET_VALUE, PUT_VALUE and PING,
// and refuse a request by a reset of its stream. Indexers are clients. A request has
// at most 64 KiB.
//
// A native of a closed network takes requests to store (PUT_VALUE, ADD_PROVIDER) only from
// the natives on its list, and only those into its routing table. Indexers on its list may
// send the other requests. It resets the streams of all other peers.
//
// # Natives
//
// Provider records (ADD_PROVIDER and GET_PROVIDERS, which servers answer) of a single key
// lead to natives: the SHA-256 multihash of the prefix and "/native", by default of
// "/opencloud/native". Only natives provide it, every 5 minutes and soon after another
// server joins. A record counts for 15 minutes. A server keeps some thousand records, with
// up to 32 addresses each, and refuses every other key.
//
// # Key
//
// "/indexer/" and the indexer's PeerID in its canonical text form: base58 of the
// multihash ("12D3Koo…", "Qm…"), at most 128 bytes. Servers refuse other spellings of the
// identity, since they are other keys. The place in the key space is the SHA-256
// of the whole key. The record's Key field repeats the key.
//
// # Value
//
// The value is a JSON object of at most 8 KiB:
//
//	{"PeerID":"12D3Koo…","Addr":"/ip4/203.0.113.7/tcp/4001","ExpiresAt":"2026-01-02T15:04:05.123456789Z"}
//
// PeerID is the identity in the key. ExpiresAt is the deadline, RFC 3339 with nanoseconds and
// any offset; the entry is dead at that instant. Optional fields are Addrs (all addresses,
// at most 8, the first equal to Addr), Meta (string to string, at most 1 KiB),
// Native (the PeerID that granted the lease), SeenAt, Left, and the proof: Record (base64)
// and Tick ({"Seq","Step","Link"}), which docs/protocol.md specifies. A value that would be
// too large omits Addrs and Meta, if its Record contains them.
// Names match exactly; readers ignore unknown names.
//
// "Left":true makes the value the leave of that indexer, which is never listed. Until its
// ExpiresAt, no entry with the same or an earlier deadline is listed either. If the indexer
// signed the leave, no entry without a newer record is listed until the end of the leave's
// record hour. A leave may lack Addr and the other fields about the indexer; a bare leave
// may also have those of its last entry. A reader without Left takes it for an entry,
// and shows the indexer until ExpiresAt.
//
// # The view of a native
//
// A native answers GET_VALUE from its live table, as it is asked, beside the values that others
// put there; of the two the selected value is the answer. All natives that have heard the same
// words answer in the same bytes, which docs/protocol.md specifies. So natives that follow each
// other hold all entries, and none puts an entry to another.
//
// A put goes to the strangers among the 20 servers closest to the key: those that do not follow
// this native. The closest are taken from a list of all servers, and no look-up precedes a put.
// The list has the servers that identify themselves to this node, and those that the others
// name: each is asked for the servers near itself, every ten minutes or so. Puts of one moment
// to one server share a stream. Up to 64 are sent before the first answer.
//
// # Validation
//
// Servers and readers refuse a value that does not decode, or whose PeerID is not the key's.
// A value with a Record must pass the checks of docs/protocol.md. It may be stored until
// 30 s after the end of its record, and is listed until its ExpiresAt at most. A bare value
// must not have expired, or expire later than now + TTL + 30 s: all nodes of a network have
// the same TTL, and 30 s allow for their clocks. A server checks when it stores and
// not when it answers, so a reader checks again. Each reader decides alone whether it
// believes a bare value.
//
// # Selection
//
// A signed value wins over a bare value. Of two values with a Record the higher Seq wins,
// then the higher Step. Of two bare values the later ExpiresAt wins, then a leave. With all
// of that equal, the larger bytes win.
// Selection uses no clock and no signature, so all nodes agree in any order. An
// undecodable value, or a value with an unreadable record, loses to every readable value. A
// stored value that is no longer valid loses to every valid value.
//
// # Expiry
//
// A server forgets a value an hour and 30 s after it came, or a TTL and 30 s if that is
// longer: so it keeps a leave's proof for as long as an older record could follow it.
package kaddht
