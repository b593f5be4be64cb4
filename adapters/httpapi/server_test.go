package httpapi

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// directory is a Directory over a sorted slice. What it watches never changes.
type directory []ports.Listed

func (d directory) LookUp(_ context.Context, sender, id ports.PeerID) (ports.Answer, error) {
	if err := asTheNode(sender); err != nil {
		return ports.Answer{}, err
	}
	for _, l := range d {
		if l.PeerID == id {
			return ports.Answer{Listed: l}, nil
		}
	}
	return ports.Answer{}, ports.ErrNotFound
}

func (d directory) List(_ context.Context, sender ports.PeerID, q ports.Query) (page ports.Page, _ error) {
	if err := asTheNode(sender); err != nil {
		return page, err
	}
	for _, l := range d {
		if l.PeerID <= q.After {
			continue
		}
		if len(page.Entries) == q.Limit {
			page.Next = page.Entries[q.Limit-1].PeerID
			return page, nil
		}
		matches := true
		for name, value := range q.Meta {
			got, ok := l.Meta[name]
			matches = matches && ok && got == value
		}
		if matches {
			page.Entries = append(page.Entries, l)
		}
	}
	return page, nil
}

func (d directory) Natives(_ context.Context, sender ports.PeerID) ([]ports.NativeStatus, error) {
	return nil, asTheNode(sender)
}

func (d directory) Watch(ctx context.Context, sender ports.PeerID, _ ports.WatchRequest) iter.Seq2[ports.Batch, error] {
	return func(yield func(ports.Batch, error) bool) {
		if err := asTheNode(sender); err != nil {
			yield(ports.Batch{}, err)
			return
		}
		b := ports.Batch{Reset: ports.ResetNew, Cursor: "1", Live: len(d)}
		for _, l := range d {
			b.Changes = append(b.Changes, ports.Change{Kind: ports.ChangeSnapshot, Listed: l})
		}
		if yield(b, nil) {
			<-ctx.Done()
		}
	}
}

func (d directory) Counts() (live, known int) { return len(d), len(d) + 1 }

// asTheNode refuses a sender that is not the node of the tests.
func asTheNode(sender ports.PeerID) error {
	if sender != "native" {
		return ports.Refuse(ports.CodePeerMismatch, "%q asks", sender)
	}
	return nil
}

// native is a directory of which a test sets what else it says.
type native struct {
	directory
	condition ports.Condition
	missing   []ports.PeerID
	err       error
	natives   []ports.NativeStatus
	watch     func(ctx context.Context, w ports.WatchRequest) iter.Seq2[ports.Batch, error]
}

func (n native) LookUp(ctx context.Context, sender, id ports.PeerID) (ports.Answer, error) {
	if n.err != nil {
		return ports.Answer{}, n.err
	}
	answer, err := n.directory.LookUp(ctx, sender, id)
	answer.Condition, answer.Missing = n.condition, n.missing
	return answer, err
}

func (n native) List(ctx context.Context, sender ports.PeerID, q ports.Query) (ports.Page, error) {
	if n.err != nil {
		return ports.Page{}, n.err
	}
	page, err := n.directory.List(ctx, sender, q)
	page.Condition, page.Missing = n.condition, n.missing
	return page, err
}

func (n native) Natives(_ context.Context, sender ports.PeerID) ([]ports.NativeStatus, error) {
	return n.natives, errors.Join(n.err, asTheNode(sender))
}

func (n native) Watch(ctx context.Context, sender ports.PeerID, w ports.WatchRequest) iter.Seq2[ports.Batch, error] {
	if n.watch == nil || asTheNode(sender) != nil {
		return n.directory.Watch(ctx, sender, w)
	}
	return n.watch(ctx, w)
}

// finder is a Finder.
type finder func(id ports.PeerID) (ports.Answer, error)

func (f finder) LookUp(_ context.Context, id ports.PeerID) (ports.Answer, error) { return f(id) }

// parsePeerID reads "cid-x" as another spelling of "x".
func parsePeerID(s string) (ports.PeerID, error) {
	if strings.ContainsAny(s, "?/ ") {
		return "", fmt.Errorf("%q is no PeerID", s)
	}
	return ports.PeerID(strings.TrimPrefix(s, "cid-")), nil
}

func testNode(d Directory) Node {
	return Node{
		PeerID:  "native",
		Modules: []string{"native", "dht"},
		Started: time.Now(),
		Addrs:   func() []string { return []string{"/ip4/127.0.0.1/tcp/1/p2p/native"} },
		Ready:   func() map[string]string { return nil },
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "metrics\n")
		}),
		ParsePeerID: parsePeerID,
		Directory:   d,
	}
}

func threeIndexers() directory {
	zone := time.FixedZone("", 7200)
	full := ports.Entry{
		PeerID: "a",
		Addr:   "/ip4/10.0.0.1/tcp/4001",
		Addrs:  []string{"/ip4/10.0.0.1/tcp/4001", "/ip4/127.0.0.1/tcp/4001"},
		Meta:   map[string]string{"zone": "eu-1"},
		Native: "native", SeenAt: time.Date(2026, 1, 2, 5, 4, 5, 6, zone), ExpiresAt: time.Date(2026, 1, 2, 5, 5, 11, 6, zone),
	}
	bare := ports.Entry{PeerID: "b", Addr: "/ip4/10.0.0.2/tcp/4001", ExpiresAt: full.ExpiresAt}
	// In UTC this is the year 10000, which JSON has no form for.
	absurd := bare
	absurd.PeerID, absurd.SeenAt = "c", time.Date(9999, 12, 31, 23, 0, 0, 0, time.FixedZone("", -7200))
	return directory{
		{Entry: full, State: ports.StateLive, Source: ports.SourceOwn, Remaining: 65*time.Second + 999_600*time.Microsecond},
		{Entry: bare, State: ports.StateLate, Source: ports.SourceStore, Remaining: time.Nanosecond},
		{Entry: absurd, State: ports.StateLive, Source: ports.SourceNative, Remaining: 1500 * time.Millisecond},
	}
}

// answered is the answer about one indexer, of which a page has the rest.
func answered(indexer, more string) string {
	return strings.TrimSuffix(indexer, "}") + `,"proof":"bare"` + more + "}"
}

const (
	jsonA = `{"peerID":"a","addr":"/ip4/10.0.0.1/tcp/4001","addrs":["/ip4/10.0.0.1/tcp/4001","/ip4/127.0.0.1/tcp/4001"],` +
		`"meta":{"zone":"eu-1"},"state":"live","source":"own","seenAt":"2026-01-02T03:04:05.000000006Z","expiresAt":"2026-01-02T03:05:11.000000006Z","leftSeconds":66,"via":"native"}`
	jsonB = `{"peerID":"b","addr":"/ip4/10.0.0.2/tcp/4001","addrs":["/ip4/10.0.0.2/tcp/4001"],` +
		`"meta":{},"state":"late","source":"dht","seenAt":null,"expiresAt":"2026-01-02T03:05:11.000000006Z","leftSeconds":0.001,"via":""}`
	jsonC = `{"peerID":"c","addr":"/ip4/10.0.0.2/tcp/4001","addrs":["/ip4/10.0.0.2/tcp/4001"],` +
		`"meta":{},"state":"live","source":"native","seenAt":null,"expiresAt":"2026-01-02T03:05:11.000000006Z","leftSeconds":1.5,"via":""}`

	targetA = `{"targets":["10.0.0.1:4001"],"labels":{"__meta_ocnode_addr":"/ip4/10.0.0.1/tcp/4001","__meta_ocnode_meta_zone":"eu-1",` +
		`"__meta_ocnode_native":"native","__meta_ocnode_peer_id":"a","__meta_ocnode_source":"own","__meta_ocnode_state":"live"}}`
	targetB = `{"targets":["10.0.0.2:4001"],"labels":{"__meta_ocnode_addr":"/ip4/10.0.0.2/tcp/4001",` +
		`"__meta_ocnode_native":"","__meta_ocnode_peer_id":"b","__meta_ocnode_source":"dht","__meta_ocnode_state":"late"}}`
	targetC = `{"targets":["10.0.0.2:4001"],"labels":{"__meta_ocnode_addr":"/ip4/10.0.0.2/tcp/4001",` +
		`"__meta_ocnode_native":"","__meta_ocnode_peer_id":"c","__meta_ocnode_source":"native","__meta_ocnode_state":"live"}}`

	textType = "text/plain; charset=utf-8"
	jsonType = "application/json"
)

func TestAnswersAreExactlyAsDocumented(t *testing.T) {
	whole := testNode(threeIndexers())
	empty := testNode(directory{})
	other := testNode(nil)
	other.Modules, other.Addrs = nil, func() []string { return nil }
	notReady := testNode(nil)
	notReady.Ready = func() map[string]string {
		return map[string]string{"native": "starting", "dht": "not joined"}
	}

	registered := func(unlisted string) Node {
		n := testNode(nil)
		n.Unlisted = func() string { return unlisted }
		return n
	}
	starting := registered("no native holds a lease of this indexer")
	starting.Ready = func() map[string]string { return map[string]string{"indexer": "starting"} }
	warming := testNode(native{directory: threeIndexers(), condition: ports.ConditionWarming})
	warming.Ready = func() map[string]string { return map[string]string{"native": "warming"} }
	unheard := testNode(native{directory: threeIndexers(), condition: ports.ConditionUnheard})
	alone := testNode(native{directory: directory{}, condition: ports.ConditionIsolated})
	partial := testNode(native{directory: threeIndexers(), condition: ports.ConditionPartial, missing: []ports.PeerID{"n2", "n3"}})
	busy := testNode(native{err: ports.Refuse(ports.CodeBusy, "later")})
	refusing := testNode(native{err: ports.Refuse(ports.CodeMalformed, "not so")})
	slow := testNode(native{err: fmt.Errorf("ask: %w", context.DeadlineExceeded)})
	broken := testNode(native{err: errors.New("a bug")})
	neighbours := testNode(native{natives: []ports.NativeStatus{
		{PeerID: "x", Addrs: []string{"/ip4/10.0.0.9/tcp/1"}, Following: true, RoundTrip: 1234567, Live: 7, Lag: 80 * time.Millisecond},
		{PeerID: "y"},
	}})
	client := testNode(nil)
	client.Finder = finder(func(id ports.PeerID) (ports.Answer, error) {
		switch id {
		case "b":
			return ports.Answer{Listed: threeIndexers()[1]}, nil
		case "lost":
			return ports.Answer{}, errors.New("nobody answers")
		case "many":
			return ports.Answer{}, ports.Refuse(ports.CodeBusy, "later")
		}
		return ports.Answer{Condition: ports.ConditionIsolated}, ports.ErrNotFound
	})

	notANative := `{"error":{"code":"not_a_native","message":"this node runs without the native module and keeps no table; ask a native, or turn native on here"}}`
	badLimit := func(s string) string {
		return `{"error":{"code":"bad_request","message":"limit \"` + s + `\": want a number from 1 to 1000"}}`
	}
	for _, tc := range []struct {
		name     string
		node     Node
		request  string // a method (GET if none) and a path
		status   int
		mimeType string
		body     string
	}{
		{"alive", whole, "/healthz", 200, textType, "ok"},
		{"ready", whole, "/readyz", 200, textType, "ok"},
		{"not ready", notReady, "/readyz", 503, jsonType,
			`{"error":{"code":"not_ready","message":"dht: not joined; native: starting"},"modules":{"dht":"not joined","native":"starting"}}`},
		{"ready, and listed", registered(""), "/readyz?lease", 200, textType, "ok"},
		{"ready, and listed nowhere", registered("no native holds a lease of this indexer"), "/readyz?lease", 503, jsonType,
			`{"error":{"code":"not_ready","message":"indexer: no native holds a lease of this indexer"},"modules":{"indexer":"no native holds a lease of this indexer"}}`},
		{"ready, whatever is listed", registered("no native holds a lease of this indexer"), "/readyz", 200, textType, "ok"},
		{"no indexer is not listed", whole, "/readyz?lease", 503, jsonType,
			`{"error":{"code":"not_ready","message":"indexer: this node runs without the indexer module, and registers nowhere"},"modules":{"indexer":"this node runs without the indexer module, and registers nowhere"}}`},
		{"not ready, and listed nowhere", starting, "/readyz?lease=", 503, jsonType,
			`{"error":{"code":"not_ready","message":"indexer: starting"},"modules":{"indexer":"starting"}}`},
		{"alive though not ready", notReady, "/healthz", 200, textType, "ok"},
		{"warming", warming, "/readyz", 503, jsonType, `{"error":{"code":"not_ready","message":"native: warming"},"modules":{"native":"warming"}}`},
		{"metrics", whole, "/metrics", 200, textType, "metrics"},
		{"status", whole, "/api/v1/status", 200, jsonType,
			`{"peerID":"native","addrs":["/ip4/127.0.0.1/tcp/1/p2p/native"],"modules":["native","dht"],"uptimeSeconds":90,"live":3,"known":4}`},
		{"status of no native", other, "/api/v1/status", 200, jsonType,
			`{"peerID":"native","addrs":[],"modules":[],"uptimeSeconds":90,"live":0,"known":0}`},

		{"status of a native that warms", warming, "/api/v1/status", 200, jsonType,
			`{"peerID":"native","addrs":["/ip4/127.0.0.1/tcp/1/p2p/native"],"modules":["native","dht"],"uptimeSeconds":90,"live":3,"known":4,"condition":"warming"}`},

		{"all indexers", whole, "/api/v1/indexers", 200, jsonType, `{"indexers":[` + jsonA + `,` + jsonB + `,` + jsonC + `],"next":""}`},
		{"no indexers", empty, "/api/v1/indexers", 200, jsonType, `{"indexers":[],"next":""}`},
		{"first page", whole, "/api/v1/indexers?limit=1", 200, jsonType, `{"indexers":[` + jsonA + `],"next":"a"}`},
		{"next page", whole, "/api/v1/indexers?limit=1&after=a", 200, jsonType, `{"indexers":[` + jsonB + `],"next":"b"}`},
		{"page after another spelling", whole, "/api/v1/indexers?after=cid-b&limit=1000", 200, jsonType, `{"indexers":[` + jsonC + `],"next":""}`},
		{"empty parameters are the defaults", empty, "/api/v1/indexers?limit=&after=", 200, jsonType, `{"indexers":[],"next":""}`},
		{"limit 0", whole, "/api/v1/indexers?limit=0", 400, jsonType, badLimit("0")},
		{"limit over the maximum", whole, "/api/v1/indexers?limit=1001", 400, jsonType, badLimit("1001")},
		{"limit of letters", whole, "/api/v1/indexers?limit=ten", 400, jsonType, badLimit("ten")},
		{"after no PeerID", whole, "/api/v1/indexers?after=a%20b", 400, jsonType,
			`{"error":{"code":"bad_request","message":"after: \"a b\" is no PeerID; give next of the page before"}}`},
		{"query that does not parse", whole, "/api/v1/indexers?limit=%zz", 400, jsonType,
			`{"error":{"code":"bad_request","message":"query: invalid URL escape \"%zz\""}}`},
		{"indexers with metadata", whole, "/api/v1/indexers?meta.zone=eu-1", 200, jsonType, `{"indexers":[` + jsonA + `],"next":""}`},
		{"indexers with other metadata", whole, "/api/v1/indexers?meta.zone=eu-2", 200, jsonType, `{"indexers":[],"next":""}`},
		{"indexers with all of the metadata", whole, "/api/v1/indexers?meta.zone=eu-1&meta.rack=7", 200, jsonType, `{"indexers":[],"next":""}`},
		{"the same metadata twice", whole, "/api/v1/indexers?meta.zone=eu-1&meta.zone=eu-1", 200, jsonType, `{"indexers":[` + jsonA + `],"next":""}`},
		{"two values of one name", whole, "/api/v1/indexers?meta.zone=eu-1&meta.zone=eu-2", 400, jsonType,
			`{"error":{"code":"bad_request","message":"meta.zone is \"eu-1\" and \"eu-2\": nobody has both"}}`},
		{"metadata without a name", whole, "/api/v1/indexers?meta.=eu-1", 400, jsonType,
			`{"error":{"code":"bad_request","message":"\"meta.\": want meta.\u003cname\u003e=\u003cvalue\u003e, such as meta.zone=eu-1"}}`},
		{"a parameter that is misspelt", whole, "/api/v1/indexers?after=a&limt=1&Limit=2", 400, jsonType,
			`{"error":{"code":"bad_request","message":"unknown parameter \"Limit\"; there are limit, after, meta.\u003cname\u003e"}}`},
		{"a parameter of one indexer", whole, "/api/v1/indexers/a?proofs=1", 400, jsonType,
			`{"error":{"code":"bad_request","message":"unknown parameter \"proofs\"; there are none"}}`},
		{"a parameter of the natives", whole, "/api/v1/natives?limit=1", 400, jsonType,
			`{"error":{"code":"bad_request","message":"unknown parameter \"limit\"; there are none"}}`},
		{"a parameter of the status", whole, "/api/v1/status?x", 400, jsonType,
			`{"error":{"code":"bad_request","message":"unknown parameter \"x\"; there are none"}}`},
		{"what a probe adds", whole, "/readyz?x=1", 200, textType, "ok"},
		{"a parameter twice", whole, "/api/v1/indexers?limit=1&limit=1", 400, jsonType,
			`{"error":{"code":"bad_request","message":"limit is given 2 times; give it once"}}`},
		{"negative limit", whole, "/api/v1/indexers?limit=-1", 400, jsonType, badLimit("-1")},
		{"limit that is too large for any number", whole, "/api/v1/indexers?limit=99999999999999999999", 400, jsonType, badLimit("99999999999999999999")},
		{"indexers of a native that warms", warming, "/api/v1/indexers?limit=1", 200, jsonType, `{"indexers":[` + jsonA + `],"next":"a","condition":"warming"}`},
		{"indexers of an isolated native", alone, "/api/v1/indexers", 200, jsonType, `{"indexers":[],"next":"","condition":"isolated"}`},
		{"indexers of a busy native", busy, "/api/v1/indexers", 503, jsonType, `{"error":{"code":"busy","message":"later"}}`},
		{"indexers of a native that refuses", refusing, "/api/v1/indexers", 400, jsonType, `{"error":{"code":"bad_request","message":"not so"}}`},
		{"indexers of no native", other, "/api/v1/indexers?limit=0", 404, jsonType, notANative},

		{"indexer", whole, "/api/v1/indexers/a", 200, jsonType, answered(jsonA, "")},
		{"indexer by another spelling", whole, "/api/v1/indexers/cid-b", 200, jsonType, answered(jsonB, "")},
		{"indexer unknown", whole, "/api/v1/indexers/d", 404, jsonType, `{"error":{"code":"not_found","message":"no live indexer d"}}`},
		{"indexer no PeerID", whole, "/api/v1/indexers/a%2Fb", 400, jsonType,
			`{"error":{"code":"bad_request","message":"\"a/b\" is no PeerID"}}`},
		{"status of a partial native", partial, "/api/v1/status", 200, jsonType,
			`{"peerID":"native","addrs":["/ip4/127.0.0.1/tcp/1/p2p/native"],"modules":["native","dht"],"uptimeSeconds":90,"live":3,"known":4,"condition":"partial","missing":["n2","n3"]}`},
		{"indexers of a partial native", partial, "/api/v1/indexers?limit=1", 200, jsonType, `{"indexers":[` + jsonA + `],"next":"a","condition":"partial","missing":["n2","n3"]}`},
		{"indexer of a partial native", partial, "/api/v1/indexers/b", 200, jsonType, answered(jsonB, `,"condition":"partial","missing":["n2","n3"]`)},
		{"indexer unknown to a partial native", partial, "/api/v1/indexers/d", 404, jsonType, `{"error":{"code":"not_found","message":"no live indexer d"},"condition":"partial","missing":["n2","n3"]}`},
		{"indexer of a native that warms", warming, "/api/v1/indexers/b", 200, jsonType, answered(jsonB, `,"condition":"warming"`)},
		{"indexer unknown while warming", warming, "/api/v1/indexers/d", 404, jsonType, `{"error":{"code":"not_found","message":"no live indexer d"},"condition":"warming"}`},
		{"indexer unknown to an isolated native", alone, "/api/v1/indexers/d", 404, jsonType, `{"error":{"code":"not_found","message":"no live indexer d"},"condition":"isolated"}`},
		{"indexer, and too many ask", busy, "/api/v1/indexers/d", 503, jsonType, `{"error":{"code":"busy","message":"later"}}`},
		{"indexer, and no answer in time", slow, "/api/v1/indexers/d", 503, jsonType, `{"error":{"code":"no_answer","message":"no answer in time; try again later"}}`},
		{"indexer, and a bug", broken, "/api/v1/indexers/d", 500, jsonType, `{"error":{"code":"internal","message":"a bug"}}`},
		{"indexer from the store alone", client, "/api/v1/indexers/cid-b", 200, jsonType, answered(jsonB, "")},
		{"indexer that the store does not have", client, "/api/v1/indexers/a", 404, jsonType, `{"error":{"code":"not_found","message":"no live indexer a"},"condition":"isolated"}`},
		{"indexer, and nobody to ask", client, "/api/v1/indexers/lost", 503, jsonType, `{"error":{"code":"no_answer","message":"nobody answers"}}`},
		{"indexer, and too many are looked for", client, "/api/v1/indexers/many", 503, jsonType, `{"error":{"code":"busy","message":"later"}}`},
		{"no PeerID for the store", client, "/api/v1/indexers/a%2Fb", 400, jsonType,
			`{"error":{"code":"bad_request","message":"\"a/b\" is no PeerID"}}`},
		{"indexers of the store", client, "/api/v1/indexers", 404, jsonType, notANative},

		{"natives", neighbours, "/api/v1/natives", 200, jsonType,
			`{"natives":[{"peerID":"x","addrs":["/ip4/10.0.0.9/tcp/1"],"following":true,"roundTripSeconds":0.001235,"live":7,"lagSeconds":0.08},` +
				`{"peerID":"y","addrs":[],"following":false,"roundTripSeconds":0,"live":0,"lagSeconds":0}]}`},
		{"no natives", whole, "/api/v1/natives", 200, jsonType, `{"natives":[]}`},
		{"natives of a busy native", busy, "/api/v1/natives", 503, jsonType, `{"error":{"code":"busy","message":"later"}}`},
		{"natives of no native", other, "/api/v1/natives", 404, jsonType, notANative},

		{"watch of no native", other, "/api/v1/watch", 404, jsonType, notANative},
		{"watch with nonsense", whole, "/api/v1/watch?renewed=often", 400, jsonType,
			`{"error":{"code":"bad_request","message":"renewed \"often\": want 1 or 0"}}`},
		{"watch with a query that does not parse", whole, "/api/v1/watch?cursor=%zz", 400, jsonType,
			`{"error":{"code":"bad_request","message":"query: invalid URL escape \"%zz\""}}`},
		{"watch with what only a list takes", whole, "/api/v1/watch?meta.zone=eu-1", 400, jsonType,
			`{"error":{"code":"bad_request","message":"unknown parameter \"meta.zone\"; there are renewed, cursor"}}`},
		{"watch with two cursors", whole, "/api/v1/watch?cursor=1&cursor=2", 400, jsonType,
			`{"error":{"code":"bad_request","message":"cursor is given 2 times; give it once"}}`},
		{"watch by another method", whole, "POST /api/v1/watch", 405, jsonType,
			`{"error":{"code":"method_not_allowed","message":"method \"POST\": only GET and HEAD are allowed"}}`},

		{"targets", whole, "/sd/prometheus", 200, jsonType, `[` + targetA + `,` + targetB + `,` + targetC + `]`},
		{"targets with metadata", whole, "/sd/prometheus?meta.zone=eu-1", 200, jsonType, `[` + targetA + `]`},
		{"targets, and nonsense", whole, "/sd/prometheus?meta.=", 400, jsonType,
			`{"error":{"code":"bad_request","message":"\"meta.\": want meta.\u003cname\u003e=\u003cvalue\u003e, such as meta.zone=eu-1"}}`},
		{"targets, and a query that does not parse", whole, "/sd/prometheus?%zz", 400, jsonType,
			`{"error":{"code":"bad_request","message":"query: invalid URL escape \"%zz\""}}`},
		{"targets, and a page of them", whole, "/sd/prometheus?limit=1", 400, jsonType,
			`{"error":{"code":"bad_request","message":"unknown parameter \"limit\"; there are meta.\u003cname\u003e"}}`},
		{"no targets", empty, "/sd/prometheus", 200, jsonType, `[]`},
		{"targets of an isolated native", alone, "/sd/prometheus", 200, jsonType, `[]`},
		{"targets of an unheard native", unheard, "/sd/prometheus", 503, jsonType,
			`{"error":{"code":"unheard","message":"this native has not heard its indexers for a while and cannot tell which of them live; keep the list that you have"}}`},
		{"targets of a native that warms", warming, "/sd/prometheus", 503, jsonType,
			`{"error":{"code":"warming","message":"this native has just started and does not yet hold what the others do; keep the list that you have"}}`},
		{"targets of a busy native", busy, "/sd/prometheus", 503, jsonType, `{"error":{"code":"busy","message":"later"}}`},
		{"targets of no native", other, "/sd/prometheus", 404, jsonType, notANative},

		{"indexer of no native", other, "/api/v1/indexers/a", 404, jsonType, notANative},

		{"unknown path", whole, "/api/v2", 404, jsonType,
			`{"error":{"code":"no_such_path","message":"no such path: \"/api/v2\"; there are /healthz, /readyz, /metrics, /api/v1/status, /api/v1/indexers, /api/v1/natives, /api/v1/watch and /sd/prometheus"}}`},
		{"indexers with a slash behind", whole, "/api/v1/indexers/", 404, jsonType,
			`{"error":{"code":"no_such_path","message":"no such path: \"/api/v1/indexers/\"; there are /healthz, /readyz, /metrics, /api/v1/status, /api/v1/indexers, /api/v1/natives, /api/v1/watch and /sd/prometheus"}}`},
		{"wrong method", whole, "POST /api/v1/status", 405, jsonType,
			`{"error":{"code":"method_not_allowed","message":"method \"POST\": only GET and HEAD are allowed"}}`},
		{"wrong method on metrics", whole, "DELETE /metrics", 405, jsonType,
			`{"error":{"code":"method_not_allowed","message":"method \"DELETE\": only GET and HEAD are allowed"}}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) {
				tc.node.Started = time.Now()
				time.Sleep(90*time.Second + time.Millisecond)
				method, path, found := strings.Cut(tc.request, " ")
				if !found {
					method, path = http.MethodGet, tc.request
				}
				w := httptest.NewRecorder()
				routes(tc.node, nil).ServeHTTP(w, httptest.NewRequest(method, path, nil))

				if w.Code != tc.status {
					t.Errorf("status %d, want %d", w.Code, tc.status)
				}
				if diff := cmp.Diff(tc.body+"\n", w.Body.String()); diff != "" {
					t.Errorf("body (-want +got):\n%s", diff)
				}
				want := map[string]string{"Cache-Control": "no-store", "Content-Type": tc.mimeType, "Allow": ""}
				if tc.status == http.StatusMethodNotAllowed {
					want["Allow"] = "GET, HEAD"
				}
				for name, value := range want {
					if got := w.Header().Get(name); got != value {
						t.Errorf("%s %q, want %q", name, got, value)
					}
				}
			})
		})
	}
}

func TestAnAnswerThatDoesNotEncodeIsAnErrorNotHalfAnAnswer(t *testing.T) {
	d := threeIndexers()
	d[0].ExpiresAt = time.Date(12345, 1, 1, 0, 0, 0, 0, time.UTC)
	w := httptest.NewRecorder()
	routes(testNode(d), nil).ServeHTTP(w, httptest.NewRequest(http.MethodGet, indexersPath, nil))
	if w.Code != http.StatusInternalServerError || !strings.HasPrefix(w.Body.String(), `{"error":{"code":"internal"`) {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

// start serves n on a free port until the test ends.
func start(t *testing.T, n Node) *Server {
	t.Helper()
	s, err := New(Config{Listen: "127.0.0.1:0"}, n, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close(context.Background())
		select {
		case err := <-s.Failed():
			t.Errorf("serving ended by itself: %v", err)
		default:
		}
	})
	return s
}

func TestHEADIsGETWithoutTheBody(t *testing.T) {
	s := start(t, testNode(threeIndexers()))
	defer http.DefaultClient.CloseIdleConnections()
	for _, path := range []string{"/healthz", "/readyz", "/metrics", statusPath, indexersPath, indexersPath + "/a", nativesPath, prometheusPath, "/none"} {
		var got [2]http.Header
		for i, method := range []string{http.MethodGet, http.MethodHead} {
			req, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.Addr()+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || (len(body) == 0) != (method == http.MethodHead) {
				t.Errorf("%s %s: body %q, %v", method, path, body, err)
			}
			got[i] = resp.Header
			got[i].Del("Date")
		}
		if diff := cmp.Diff(got[0], got[1]); diff != "" {
			t.Errorf("%s: headers (-GET +HEAD):\n%s", path, diff)
		}
	}
}

func TestListenIsChecked(t *testing.T) {
	for listen, valid := range map[string]bool{
		"127.0.0.1:4180": true, ":0": true, "[::1]:65535": true, "localhost:1": true,
		"": false, "4180": false, "127.0.0.1": false, "127.0.0.1:": false, "127.0.0.1:65536": false, "127.0.0.1:http": false, "::1:80": false,
	} {
		_, err := New(Config{Listen: listen, Token: testToken}, testNode(nil), slog.New(slog.DiscardHandler))
		if (err == nil) != valid {
			t.Errorf("%q: error %v", listen, err)
		}
		if err != nil && !strings.Contains(err.Error(), "http.listen") {
			t.Errorf("%q: error without the key: %v", listen, err)
		}
	}
	if _, err := New(DefaultConfig(), Node{}, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a Node without functions was taken")
	}
}

func TestAPortInUseIsAnErrorWithItsMend(t *testing.T) {
	s := start(t, testNode(nil))
	second, err := New(Config{Listen: s.Addr()}, testNode(nil), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	err = second.Start(t.Context())
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Fatalf("got %v", err)
	}
	want := "http.listen " + s.Addr() + ": bind: address already in use; stop the other process or choose another (port 0 takes a free one)"
	if err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	second.Close(t.Context()) // never started, nothing to close
}

func TestAnAddressOfAnotherMachineIsAnErrorWithItsMend(t *testing.T) {
	s, err := New(Config{Listen: "192.0.2.1:0", Token: testToken}, testNode(nil), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err == nil || !strings.HasSuffix(err.Error(), "; choose an address of this machine") {
		t.Errorf("got %v", err)
	}
}

func dial(t *testing.T, s *Server) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(porttest.Patience)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestCloseLetsARunningRequestEnd(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		n := testNode(nil)
		entered, release := make(chan struct{}), make(chan struct{})
		n.Ready = func() map[string]string {
			close(entered)
			<-release
			return nil
		}
		_, p, stop := startInFakeTime(t, n)
		conn, err := p.dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		<-entered
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			stop()
		}()
		time.Sleep(drainTimeout - time.Nanosecond)
		close(release)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("got %v, %v", resp, err)
		}
		<-closed
		stop() // once more is harmless
	})
}

func TestCloseJoinsARequestThatItCut(t *testing.T) {
	n := testNode(nil)
	entered, cut := make(chan struct{}), make(chan struct{})
	ended := false
	n.Ready = func() map[string]string {
		close(entered)
		<-cut
		ended = true
		return nil
	}
	s := start(t, n)
	conn := dial(t, s)
	if _, err := io.WriteString(conn, "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-entered
	go func() {
		defer close(cut)
		if b, err := io.ReadAll(conn); len(b) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("not cut: %q, %v", b, err)
		}
	}()
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // drain no longer than this
	s.Close(ctx)
	if !ended { // without the join, this is a data race too
		t.Error("Close returned before the request had ended")
	}
}

func TestCloseCutsSlowClients(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		big := make(directory, 0, ports.MaxPage)
		for range ports.MaxPage {
			l := threeIndexers()[0]
			l.Meta = map[string]string{"x": strings.Repeat("x", 16<<10)}
			big = append(big, l)
		}
		_, p, stop := startInFakeTime(t, testNode(big))
		dialled := func(says string) net.Conn {
			conn, err := p.dial(t.Context(), "", "")
			if err == nil {
				_, err = io.WriteString(conn, says)
			}
			if err != nil {
				t.Fatal(err)
			}
			return conn
		}
		for _, says := range []string{"", "GET /healthz HT"} {
			defer dialled(says).Close()
		}
		deaf := dialled("GET /api/v1/indexers?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n") // for 16 MB, of which it reads a byte
		defer deaf.Close()
		if _, err := deaf.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}

		begun := time.Now()
		stop()
		if took := time.Since(begun); took != drainTimeout {
			t.Errorf("Close took %v", took)
		}
	})
}

func TestHugeHeadersAreRefused(t *testing.T) {
	s := start(t, testNode(nil))
	for bytes, want := range map[int]int{
		maxHeaderBytes - 512: http.StatusOK, maxHeaderBytes + 1: http.StatusRequestHeaderFieldsTooLarge, 16 * maxHeaderBytes: http.StatusRequestHeaderFieldsTooLarge,
	} {
		conn := dial(t, s)
		// Those that are far too many are not all read, so that writing them may fail.
		_, _ = io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: x\r\nX: "+strings.Repeat("x", bytes)+"\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || resp.StatusCode != want {
			t.Errorf("%d bytes: got %v, %v, want %d", bytes, resp, err, want)
		}
	}
}

// Of each request there is a byte a second, for as long as it is read.
func TestASlowRequestIsCut(t *testing.T) {
	for name, begin := range map[string]string{
		"headers": "GET /healthz HTTP/1.1\r\nHost: x\r\nX: ",
		"body":    "GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) {
				_, p, stop := startInFakeTime(t, testNode(nil))
				defer stop()
				conn, err := p.dial(t.Context(), "", "")
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				begun := time.Now()
				go io.Copy(io.Discard, conn) // whatever it answers
				for _, err = io.WriteString(conn, begin); err == nil; _, err = io.WriteString(conn, "x") {
					if time.Since(begun) > readTimeout+time.Second {
						t.Fatalf("it is read for more than %v", time.Since(begun))
					}
					time.Sleep(time.Second)
				}
				if took := time.Since(begun); took < readTimeout-time.Second {
					t.Errorf("it is cut after %v already", took)
				}
			})
		})
	}
}

func TestAConnectionThatDoesNothingIsClosed(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		_, p, stop := startInFakeTime(t, testNode(threeIndexers()))
		defer stop()
		dialled := func() net.Conn {
			conn, err := p.dial(t.Context(), "", "")
			if err != nil {
				t.Fatal(err)
			}
			return conn
		}
		idle, deaf := dialled(), dialled()
		defer idle.Close()
		defer deaf.Close()
		begun := time.Now()
		if got := healthOver(t, idle); got != http.StatusOK {
			t.Fatalf("/healthz answers %d", got)
		}
		if _, err := io.WriteString(deaf, "GET "+indexersPath+" HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := idle.Read(make([]byte, 1)); err == nil || time.Since(begun) != idleTimeout {
			t.Errorf("after a request it is closed after %v, %v", time.Since(begun), err)
		}
		// The answer waited for its reader for as long as it may, and no longer.
		if n, err := deaf.Read(make([]byte, 1)); n > 0 || err == nil {
			t.Errorf("what is not read is still there after %v", time.Since(begun))
		}
	})
}
