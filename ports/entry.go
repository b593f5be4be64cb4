package ports

import "time"

// PeerID is a node's identity in its canonical text form (base58, "12D3Koo…"). Adapters parse
// other spellings at the edge. Inside, equal strings are the same peer, and different strings
// are different peers.
type PeerID string

// Registration is an indexer's request for a lease: its identity and its addresses. Neither side
// modifies a Registration after handing it to a Native.
type Registration struct {
	PeerID PeerID
	// Addr is the indexer's best address, kept verbatim.
	Addr string
	// Addrs are all its addresses, best first. Addrs is nil, or its first address equals Addr.
	Addrs []string
	// Meta holds labels of the indexer's choice: at most MaxMetaNames names, and at most
	// MaxMetaBytes of names and values together.
	Meta map[string]string
	// Proof is the indexer's signed proof; nil without a proof. With a record, Addrs and Meta
	// may be left out: the record contains them.
	Proof *Proof
}

// Entry is a native's knowledge of an indexer. Entries are values: a receiver must not modify
// the memory behind Addrs and Meta.
type Entry struct {
	PeerID PeerID
	Addr   string
	Addrs  []string
	Meta   map[string]string
	// Native is the native that granted the lease; "" if unknown.
	Native PeerID
	// SeenAt is the time of the indexer's last heartbeat at that native; zero if unknown.
	SeenAt time.Time
	// ExpiresAt is the deadline: the entry is dead at this instant, not after it.
	ExpiresAt time.Time
	// Leave marks the entry of an indexer that left. Such an entry is never listed. Until its
	// ExpiresAt, no entry of the indexer with the same or an earlier deadline is listed either.
	Leave bool
	// Proof proves the other fields of the entry; nil if only the sender vouches for it.
	Proof *Proof
}

// NewerThan reports whether e is newer than v.
func (e Entry) NewerThan(v Version) bool { return e.Version().Compare(v) > 0 }

// Lease is a native's answer to a registration.
type Lease struct {
	// ExpiresAt is the deadline on the native's clock. It is for people: an indexer counts TTL
	// from the time of its request.
	ExpiresAt time.Time
	// TTL is the entry's life without a renewal; 0 if the answer has none.
	TTL time.Duration
	// Heartbeat is the delay until the next renewal that the native wants. A remote native's
	// answer may hold any value, absurd values included: the caller clamps it. 0 if the answer
	// has none, or no number.
	Heartbeat time.Duration
	// Proven is how long the proof of this registration goes on, if it ends before the next
	// heartbeat: other natives list the indexer no longer than that. It is not positive if the proof
	// has ended. 0 if the proof lasts, or there is none.
	Proven time.Duration
	// Now is the native's time at its answer; zero if the answer has none.
	Now time.Time
	// Clocks is how many natives' clocks show Now, the native's own included; 0 if it is that clock
	// alone.
	Clocks int
	// Unconfirmed is true if the registration was written whole and no answer came from a native
	// that may be of the seed. All other fields are then zero.
	Unconfirmed bool
	// NeedRecord asks for the record, or for a record issued by the native's clock, Now. Without
	// a TTL the native grants nothing before the record comes.
	NeedRecord bool
	// Seq is the highest Seq that the native knows of the indexer's records; 0 if it knows no
	// record.
	Seq int64
	// Rival is true if the native has since refused another process with the same key, whose
	// record is older.
	Rival bool
}
