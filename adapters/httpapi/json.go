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
	Live      int             `json:"live"`
	Known     int             `json:"known"`
	Condition ports.Condition `json:"condition,omitempty"`
	// Missing are the natives that this one hears no more.
	Missing []ports.PeerID `json:"missing,omitempty"`
}

// Indexers is one page of /api/v1/indexers.
type Indexers struct {
	Indexers  []Indexer       `json:"indexers"`
	Next      ports.PeerID    `json:"next"`
	Condition ports.Condition `json:"condition,omitempty"`
	Missing   []ports.PeerID  `json:"missing,omitempty"`
}

// Answer is what a native says of one indexer.
type Answer struct {
	Indexer
	// Proof is whose word this is: signed by the indexer, or bare.
	Proof     string          `json:"proof"`
	Condition ports.Condition `json:"condition,omitempty"`
	Missing   []ports.PeerID  `json:"missing,omitempty"`
}

// Indexer is a live indexer as a native shows it. Addr, Addrs and Meta are the
// indexer's own words: quote them before they reach a terminal.
type Indexer struct {
	PeerID ports.PeerID      `json:"peerID"`
	Addr   string            `json:"addr"`
	Addrs  []string          `json:"addrs"`
	Meta   map[string]string `json:"meta"`
	State  ports.State       `json:"state"`
	// Source is where the native has this from.
	Source ports.Source `json:"source"`
	// SeenAt is nil if Via did not say.
	SeenAt    *time.Time `json:"seenAt"`
	ExpiresAt time.Time  `json:"expiresAt"`
	// LeftSeconds is how far off ExpiresAt was; unlike that, the same on every clock.
	LeftSeconds float64 `json:"leftSeconds"`
	// Via is the native that granted the lease, "" if the entry does not say.
	Via ports.PeerID `json:"via"`
}

// NewAnswer makes the JSON form of a, whose slices and maps it shares.
func NewAnswer(a ports.Answer) Answer {
	return Answer{NewIndexer(a.Listed), proofOf(a.Entry), a.Condition, a.Missing}
}

// proofOf says by what e can be checked: "signed" by its indexer, or "bare".
func proofOf(e ports.Entry) string {
	if e.Version().Signed() {
		return "signed"
	}
	return "bare"
}

// Natives is the answer of /api/v1/natives.
type Natives struct {
	Natives []Native `json:"natives"`
}

// Native is another native that a native is connected to.
type Native struct {
	PeerID    ports.PeerID `json:"peerID"`
	Addrs     []string     `json:"addrs"`
	Following bool         `json:"following"`
	// RoundTripSeconds is 0 if it did not answer.
	RoundTripSeconds float64 `json:"roundTripSeconds"`
	Live             int     `json:"live"`
	LagSeconds       float64 `json:"lagSeconds"`
}

// Code names an error of the API. Codes are never renamed.
type Code string

const (
	CodeBadRequest       Code = "bad_request"
	CodeNotFound         Code = "not_found"
	CodeNoSuchPath       Code = "no_such_path"
	CodeNotANative       Code = "not_a_native"
	CodeMethodNotAllowed Code = "method_not_allowed"
	CodeInternal         Code = "internal"
	CodeNotReady         Code = "not_ready"
	CodeBusy             Code = "busy"
	CodeWarming          Code = "warming"
	CodeUnheard          Code = "unheard"
	CodeNoAnswer         Code = "no_answer"
	CodeUnauthorized     Code = "unauthorized"
	CodeForbiddenHost    Code = "forbidden_host"
)

type errorBody struct {
	Error errorText `json:"error"`
	// Modules is there for CodeNotReady: the reason of each module that is not.
	Modules map[string]string `json:"modules,omitempty"`
	// Condition and Missing are there for CodeNotFound.
	Condition ports.Condition `json:"condition,omitempty"`
	Missing   []ports.PeerID  `json:"missing,omitempty"`
}

type errorText struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

// NewIndexer makes the JSON form of l, whose slices and maps it shares.
func NewIndexer(l ports.Listed) Indexer {
	x := Indexer{
		PeerID:      l.PeerID,
		Addr:        l.Addr,
		Addrs:       l.Addrs,
		Meta:        l.Meta,
		State:       l.State,
		Source:      l.Source,
		ExpiresAt:   l.ExpiresAt.UTC(),
		LeftSeconds: left(l.Remaining),
		Via:         l.Native,
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

// listed is what x was made from.
func (x Indexer) listed() ports.Listed {
	l := ports.Listed{
		Entry: ports.Entry{
			PeerID: x.PeerID, Addr: x.Addr, Addrs: x.Addrs, Meta: x.Meta, Native: x.Via, ExpiresAt: x.ExpiresAt,
		},
		State: x.State, Source: x.Source, Remaining: seconds(x.LeftSeconds),
	}
	if x.SeenAt != nil {
		l.SeenAt = *x.SeenAt
	}
	return l
}

// NewPage makes the JSON form of p.
func NewPage(p ports.Page) Indexers {
	body := Indexers{Indexers: make([]Indexer, len(p.Entries)), Next: p.Next, Condition: p.Condition, Missing: p.Missing}
	for i, l := range p.Entries {
		body.Indexers[i] = NewIndexer(l)
	}
	return body
}

// NewNatives makes the JSON form of natives.
func NewNatives(natives []ports.NativeStatus) Natives {
	body := Natives{Natives: make([]Native, len(natives))}
	for i, n := range natives {
		body.Natives[i] = Native{
			PeerID: n.PeerID, Addrs: append([]string{}, n.Addrs...), Following: n.Following,
			RoundTripSeconds: n.RoundTrip.Round(time.Microsecond).Seconds(),
			Live:             n.Live,
			LagSeconds:       n.Lag.Round(time.Microsecond).Seconds(),
		}
	}
	return body
}

// left is what is left of a lease in seconds, to a millisecond: more than that is
// gone before anybody reads it. What is listed has something left.
func left(d time.Duration) float64 {
	if d > 0 {
		d = max(d.Round(time.Millisecond), time.Millisecond)
	}
	return d.Seconds()
}

// seconds is a number of seconds that a server wrote, which may be any.
func seconds(s float64) time.Duration {
	const most = 100 * 365 * 24 * time.Hour
	if !(s > 0) {
		return 0
	}
	return time.Duration(min(s, most.Seconds()) * float64(time.Second)).Round(time.Microsecond)
}
