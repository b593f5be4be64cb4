package httpapi

import (
	"time"

	"github.com/opencloud/ocnode/ports"
)

// Status is the answer of /api/v1/status.
type Status struct {
	PeerID ports.PeerID `json:"peerID"`
	// Addrs end in /p2p/<PeerID>.
	Addrs         []string `json:"addrs"`
	Modules       []string `json:"modules"`
	UptimeSeconds int64    `json:"uptimeSeconds"`
	// Live counts the live table, Known the known set; both 0 without native.
	Live  int `json:"live"`
	Known int `json:"known"`
}

// Indexers is one page of /api/v1/indexers.
type Indexers struct {
	Indexers []Indexer    `json:"indexers"`
	Next     ports.PeerID `json:"next"`
}

// Indexer is a live indexer as a native shows it. Addr, Addrs and Meta are the
// indexer's own words: quote them before they reach a terminal.
type Indexer struct {
	PeerID ports.PeerID      `json:"peerID"`
	Addr   string            `json:"addr"`
	Addrs  []string          `json:"addrs"`
	Meta   map[string]string `json:"meta"`
	State  ports.State       `json:"state"`
	// SeenAt is nil if Via did not say.
	SeenAt    *time.Time `json:"seenAt"`
	ExpiresAt time.Time  `json:"expiresAt"`
	// Via is the native that granted the lease, "" if the entry does not say.
	Via ports.PeerID `json:"via"`
}

// Code names an error of the API. Codes are never renamed.
type Code string

const (
	CodeBadRequest       Code = "bad_request"
	CodeNotFound         Code = "not_found"
	CodeNotANative       Code = "not_a_native"
	CodeMethodNotAllowed Code = "method_not_allowed"
	CodeInternal         Code = "internal"
	CodeNotReady         Code = "not_ready"
)

type errorBody struct {
	Error struct {
		Code    Code   `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
	// Modules is there for CodeNotReady: the reason of each module that is not.
	Modules map[string]string `json:"modules,omitempty"`
}

// toIndexer makes the JSON form of l, whose slices and maps it shares.
func toIndexer(l ports.Listed) Indexer {
	x := Indexer{
		PeerID:    l.PeerID,
		Addr:      l.Addr,
		Addrs:     l.Addrs,
		Meta:      l.Meta,
		State:     l.State,
		ExpiresAt: l.ExpiresAt.UTC(),
		Via:       l.Native,
	}
	if len(x.Addrs) == 0 {
		x.Addrs = []string{l.Addr}
	}
	if x.Meta == nil {
		x.Meta = map[string]string{}
	}
	// SeenAt may be another native's word. At the ends of the calendar, UTC leads to a
	// year that JSON cannot write, and one such entry would fail the whole page.
	if seen := l.SeenAt.UTC(); !seen.IsZero() && seen.Year() >= 0 && seen.Year() <= 9999 {
		x.SeenAt = &seen
	}
	return x
}
