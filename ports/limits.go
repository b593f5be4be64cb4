package ports

import "time"

// The bounds of the wire contract. Each is named here once, with its reason;
// adapters and the domain use these names and no numbers of their own.
const (
	// MaxFrameBytes bounds a registration frame, its answer, and a value in the
	// DHT: room for MaxAddrs full addresses, MaxMetaBytes of metadata and as much
	// again for fields of later versions.
	MaxFrameBytes = 8 << 10
	// MaxAddrs bounds the addresses of one indexer: what a host with several
	// interfaces, two transports and a relay needs, and still one frame.
	MaxAddrs = 8
	// MaxAddrBytes bounds one address. The longest sensible one, a relay reached
	// by a 100-letter DNS name with two /p2p/ parts, has some 250 bytes.
	MaxAddrBytes = 256
	// MaxMetaBytes bounds names plus values of the metadata, all together: labels,
	// not documents, since every native holds them for every indexer.
	MaxMetaBytes = 1 << 10
	// MaxMetaNames bounds how many names these are: more than labels need. A pair takes some
	// 80 bytes of memory however short it is, 80 KB for 1,024 of one byte.
	MaxMetaNames = 64
	// MaxNesting bounds the depth of a frame's JSON, its outermost object included;
	// known fields need 2.
	MaxNesting = 16
	// ExchangeTimeout bounds one registration on the native's side, from the opened
	// stream to the written answer, and on the indexer's side each of writing the
	// frame and waiting for the answer. After it, silence counts as unconfirmed.
	ExchangeTimeout = 5 * time.Second
	// ClockAllowance is how much later than now + TTL a stored value may expire: room
	// for another native's clock. It applies to storing, never to listing.
	ClockAllowance = 30 * time.Second
	// DefaultPage and MaxPage bound the entries of a page: a screen or two for people, and
	// some megabytes at the very most for machines.
	DefaultPage = 100
	MaxPage     = 1000
	// MaxBatchBytes bounds a frame of a watch: some hundred entries of one address, so that
	// what a frame costs by itself is small against them, or four of the largest.
	MaxBatchBytes = 64 << 10
	// MaxCursorBytes bounds a cursor: two numbers in text, with room for other natives' ways.
	MaxCursorBytes = 64
	// WatchIdle is how long a watch is silent at most: after that a batch without changes
	// says that it lives. A reader that hears nothing for WatchTimeout gives it up.
	WatchIdle    = 30 * time.Second
	WatchTimeout = 3 * WatchIdle
)

// CheckMeta returns nil if metadata keeps its bounds, else a Refusal with CodeTooLarge that
// says which not.
func CheckMeta(meta map[string]string) *Refusal {
	if len(meta) > MaxMetaNames {
		return Refuse(CodeTooLarge, "Meta has %d names, at most %d are allowed", len(meta), MaxMetaNames)
	}
	size := 0
	for name, value := range meta {
		size += len(name) + len(value)
	}
	if size > MaxMetaBytes {
		return Refuse(CodeTooLarge, "Meta has %d bytes of names and values, at most %d are allowed", size, MaxMetaBytes)
	}
	return nil
}
