// Package gossip is the Announcer over GossipSub (go-libp2p-pubsub). This page says
// what another implementation needs to be heard and to hear.
//
// # Topic and message
//
// GossipSub 1.0 to 1.3 under libp2p's own protocol IDs ("/meshsub/1.1.0", …), and
// FloodSub; the topic is "oc-indexer-registry" by default. A message's data is the
// PeerID of an indexer that is alive, in its canonical text form and nothing
// else: base58 of the multihash ("12D3Koo…", "Qm…"), at most 128 bytes, no blanks, no
// newline. A message has no more to say: the entry is looked up in the DHT, and
// only that counts.
//
// Renewals are announced only while a listener may hear them that does not follow this native: see
// Announcer.Strangers, and "Gossip" in docs/protocol.md.
//
// # Signature
//
// StrictSign: every message carries From, Seqno and a signature, or is dropped.
// From is the native that announces, the author, whichever node passed the message
// on. A message is known by From and Seqno, so the same PeerID announced again is
// another message. A signature proves who spoke, not that it may be believed:
// anyone can make a key.
//
// # Validation
//
// Data that is not a canonical PeerID is rejected: neither heard nor passed on. In a closed
// network that also goes for a message whose author is not on the list of natives, and
// streams of peers that are not on it are reset.
//
// # Limits
//
// An RPC has at most 1 MiB, its control part at most 512 KiB. These are the
// library's and every peer's: control messages carry the IDs of thousands of
// messages, and a node with smaller limits would reset the streams of honest peers.
// Subscriptions to other topics are ignored. There is no limit on what one author
// may say: an honest native speaks for as many indexers as it has. Who listens bounds
// what it does about one author's announcements.
package gossip
