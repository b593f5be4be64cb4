package httpapi

import (
	"slices"
	"time"

	"github.com/opencloud/ocnode/ports"
)

// The kinds of an Event beside those of a change.
const (
	EventReset  = "reset"
	EventSynced = "synced"
	eventError  = "error"
)

// Event is one event of a watch.
type Event struct {
	Kind string
	// Cursor is where to go on after it, "" if this is not the last of its batch.
	Cursor string
	// Change is what happened, Reset why there is an EventReset, Live, Condition and Missing
	// what an EventSynced says; the others are zero.
	Change    ports.Change
	Reset     ports.Reset
	Live      int
	Condition ports.Condition
	Missing   []ports.PeerID
	// Data is its JSON form, to be marshalled; nil if only the Cursor is told.
	Data any
}

// The forms of Data.
type (
	changed struct {
		Kind ports.ChangeKind `json:"kind"`
		Indexer
		Cursor string `json:"cursor,omitempty"`
	}
	gone struct {
		Kind   ports.ChangeKind `json:"kind"`
		PeerID ports.PeerID     `json:"peerID"`
		Via    ports.PeerID     `json:"via"`
		// Until then nothing that was granted before is listed again; of those that left.
		ExpiresAt   *time.Time `json:"expiresAt,omitempty"`
		LeftSeconds float64    `json:"leftSeconds,omitempty"`
		Cursor      string     `json:"cursor,omitempty"`
	}
	reset struct {
		Kind   string      `json:"kind"`
		Reason ports.Reset `json:"reason"`
	}
	synced struct {
		Kind      string          `json:"kind"`
		Live      int             `json:"live"`
		Condition ports.Condition `json:"condition,omitempty"`
		Missing   []ports.PeerID  `json:"missing,omitempty"`
		Cursor    string          `json:"cursor,omitempty"`
	}
)

// Narrator tells the batches of one watch as events. The zero value is ready; it is not
// used concurrently.
type Narrator struct {
	synced    bool // it has said so since its begin, or since the last reset
	condition ports.Condition
	missing   []ports.PeerID
}

// Events returns what b tells: for a batch without changes at most one event, without
// Data.
func (n *Narrator) Events(b ports.Batch) []Event {
	events := make([]Event, 0, len(b.Changes)+2)
	if b.Reset != "" {
		n.synced = false
		events = append(events, Event{Kind: EventReset, Reset: b.Reset, Data: reset{EventReset, b.Reset}})
	}
	whole := b.Cursor != "" && (!n.synced || b.Condition != n.condition || !slices.Equal(b.Missing, n.missing))
	for i, c := range b.Changes {
		cursor := ""
		if !whole && i == len(b.Changes)-1 {
			cursor = b.Cursor
		}
		events = append(events, Event{Kind: string(c.Kind), Cursor: cursor, Change: c, Data: dataOf(c, cursor)})
	}
	switch {
	case whole:
		n.synced, n.condition, n.missing = true, b.Condition, b.Missing
		events = append(events, Event{
			Kind: EventSynced, Cursor: b.Cursor, Live: b.Live, Condition: b.Condition, Missing: b.Missing,
			Data: synced{EventSynced, b.Live, b.Condition, b.Missing, b.Cursor},
		})
	case len(b.Changes) == 0 && b.Cursor != "":
		events = append(events, Event{Cursor: b.Cursor})
	}
	return events
}

func dataOf(c ports.Change, cursor string) any {
	if !c.Kind.Gone() {
		return changed{c.Kind, NewIndexer(c.Listed), cursor}
	}
	data := gone{Kind: c.Kind, PeerID: c.PeerID, Via: c.Native, Cursor: cursor}
	if c.Kind == ports.ChangeLeft {
		until := c.ExpiresAt.UTC()
		data.ExpiresAt, data.LeftSeconds = &until, left(c.Remaining)
	}
	return data
}

// told is Data as a client reads it, whatever its form.
type told struct {
	Indexer
	Reason    ports.Reset     `json:"reason"`
	Live      int             `json:"live"`
	Condition ports.Condition `json:"condition"`
	Missing   []ports.PeerID  `json:"missing"`
	Code      Code            `json:"code"`
	Message   string          `json:"message"`
}

// known reports whether kind is a change of the ports.
func known(kind ports.ChangeKind) bool {
	switch kind {
	case ports.ChangeSnapshot, ports.ChangeJoined, ports.ChangeUpdated, ports.ChangeRenewed,
		ports.ChangeLate, ports.ChangeStale, ports.ChangeExpired, ports.ChangeLeft:
		return true
	}
	return false
}
