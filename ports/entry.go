package ports

import "time"

// PeerID is a node's identity in its canonical text form (base58, "12D3Koo…").
// Adapters parse other spellings at the edge; inside, two PeerIDs are the same
// peer exactly if they are the same string.
type PeerID string

// Registration is what an indexer sends: who it is and where it can be reached.
// A Registration handed to a Native is not modified by either side afterwards.
type Registration struct {
	PeerID PeerID
	// Addr is the indexer's best address, kept verbatim.
	Addr string
	// Addrs are all its addresses, best first; nil, or the first equals Addr.
	Addrs []string
	// Meta is free for the indexer to use; at most MaxMetaNames, names and values together at most
	// MaxMetaBytes.
	Meta map[string]string
	// Proof is the indexer's own signed word; nil if it sends none. With a record, Addrs and
	// Meta may be left out: they are what the record says.
	Proof *Proof
}

// Entry is what a native holds about an indexer. Entries are values: whoever
// receives one must not modify what Addrs and Meta point to.
type Entry struct {
	PeerID PeerID
	Addr   string
	Addrs  []string
	Meta   map[string]string
	// Native is the native that granted the lease, or "" if the entry does not say.
	Native PeerID
	// SeenAt is when that native last heard the indexer; zero if the entry does not say.
	SeenAt time.Time
	// ExpiresAt is the deadline: the entry is dead at this instant, not after it.
	ExpiresAt time.Time
	// Leave marks the entry of an indexer that said that it leaves. It is never listed, and
	// until ExpiresAt neither is one that does not end later.
	Leave bool
	// Proof is what the entry can be checked by, nil if it is nobody's word but that of who
	// hands it over. What else the entry says is then what the proof does.
	Proof *Proof
}

// NewerThan reports whether e is news to whoever has v.
func (e Entry) NewerThan(v Version) bool { return e.Version().Compare(v) > 0 }

// Lease is a native's answer to a registration.
type Lease struct {
	// ExpiresAt is the deadline on the native's clock. It is for people: an
	// indexer counts TTL from when it sent.
	ExpiresAt time.Time
	// TTL is how long the entry lives without a renewal; 0 if the answer did not say.
	TTL time.Duration
	// Heartbeat is when the native wants to hear again. From a remote native it is
	// as the answer said and may be any value, absurd ones included; the caller
	// clamps it. 0 means that the answer did not say, or not as a number.
	Heartbeat time.Duration
	// Now is the native's clock when it answered; zero if the answer did not say.
	Now time.Time
	// Unconfirmed is true if the registration was written whole and no answer came:
	// what a native of the seed does. All else is then zero.
	Unconfirmed bool
	// NeedRecord asks for the record, or for one issued by the native's clock, Now. Without
	// a TTL nothing was granted until it comes.
	NeedRecord bool
	// Seq is the highest that the native knows of a record of the indexer's; 0 for none.
	Seq int64
	// Rival is true if another process with the same key registered since, with an older
	// record, and was refused.
	Rival bool
}
