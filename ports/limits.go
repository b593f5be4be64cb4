package ports

import "time"

// The bounds of the wire contract. Each has a name here, with its reason. Adapters and the
// domain use these names and no numbers of their own.
const (
	// MaxFrameBytes bounds a registration frame, its answer, and a value in the
	// DHT: room for MaxAddrs full addresses, MaxMetaBytes of metadata and as much
	// again for fields of later versions.
	MaxFrameBytes = 8 << 10
	// MaxAddrs bounds the addresses of an indexer: enough for a host with several interfaces,
	// two transports and a relay, within a frame.
	MaxAddrs = 8
	// MaxAddrBytes bounds an address. The longest sensible address, a relay with a 100-letter
	// DNS name and two /p2p/ parts, has some 250 bytes.
	MaxAddrBytes = 256
	// MaxMetaBytes bounds the names and values of the metadata together: labels, not documents,
	// since every native holds them for every indexer.
	MaxMetaBytes = 1 << 10
	// MaxMetaNames bounds the number of names: more than labels need. A pair takes some 80 bytes
	// of memory however short it is: 1,024 pairs of one byte take 80 KB.
	MaxMetaNames = 64
	// MaxNesting bounds the depth of a frame's JSON, including its outermost object; known
	// fields need 2.
	MaxNesting = 16
	// ExchangeTimeout bounds a registration on the native's side, from the opened stream to the
	// written answer. On the indexer's side it bounds the write and the wait for the answer,
	// each.
	ExchangeTimeout = 5 * time.Second
	// ClockAllowance is the margin by which a stored value may expire after now + TTL: room for
	// another native's clock. It applies to storing, never to listing.
	ClockAllowance = 30 * time.Second
	// DefaultPage and MaxPage bound the entries of a page: a screen or two for people, and at
	// most some megabytes for machines.
	DefaultPage = 100
	MaxPage     = 1000
	// MaxFollowed bounds the natives that a native follows, and keeps connected, beside those that its
	// operator names. A followed native costs a stream each way, two goroutines and some 40 µs of CPU a
	// second, and 100 KiB of memory. A thousand cost 4 % of a core and 100 MiB.
	MaxFollowed = 1000
	// MaxBatchBytes bounds a frame of a watch: some hundred entries with one address each, or
	// four of the largest. The overhead of a frame is small against them.
	MaxBatchBytes = 64 << 10
	// MaxCursorBytes bounds a cursor: two numbers in text, with room for other natives' formats.
	MaxCursorBytes = 64
	// MaxRanges bounds the ranges that a watcher asks for at once, and the Sums of a Batch: a range that
	// is split twice in 16 parts.
	MaxRanges = 256
	// MaxHeartbeats bounds the frames without an answer on an open stream of heartbeats: what a native
	// reads before it answers. An indexer needs one; the rest hides a long way.
	MaxHeartbeats = 16
	// WatchIdle bounds the silence of a watch: then a batch without changes shows that the watch
	// lives. A reader gives up a watch after WatchTimeout of silence.
	WatchIdle    = 30 * time.Second
	WatchTimeout = 3 * WatchIdle
)

// CheckMeta returns nil if meta keeps its bounds, else a Refusal with CodeTooLarge that names
// the bound.
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
