// Package proof makes and checks what an entry is proven by: records, which are claims in
// a libp2p envelope, and ticks, which are links of a hash chain. docs/protocol.md specifies
// both, with test vectors.
//
// A record is the envelope of go-libp2p's core/record (protobuf: public_key, payload_type,
// payload, signature), of an Ed25519 key, in the domain "ocnode-record" and of the payload
// type "/ocnode/record/1". Its payload is protobuf too, in its one canonical form: fields in
// the order of their numbers, none that is empty or 0, metadata sorted by name.
//
//	1  bytes   PeerID of the indexer, binary
//	3  string  address, best first; repeated, none for a leave
//	4  message of metadata: 1 string name, 2 string value; repeated
//	5  varint  Seq, Unix milliseconds
//	6  fixed64 Start
//	7  varint  Interval, milliseconds
//	8  varint  TTL, milliseconds
//	9  bytes   Anchor, 32
//
// The link before one is SHA-256 of "ocnode-tick-1:" and that link.
package proof
