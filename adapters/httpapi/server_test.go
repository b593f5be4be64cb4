package httpapi

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencloud/ocnode/ports"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// directory is a Directory over a sorted slice.
type directory []ports.Listed

func (d directory) Get(id ports.PeerID) (ports.Listed, bool) {
	for _, l := range d {
		if l.PeerID == id {
			return l, true
		}
	}
	return ports.Listed{}, false
}

func (d directory) Page(after ports.PeerID, limit int) (page []ports.Listed, next ports.PeerID) {
	for _, l := range d {
		if l.PeerID <= after {
			continue
		}
		if len(page) == limit {
			return page, page[limit-1].PeerID
		}
		page = append(page, l)
	}
	return page, ""
}

func (d directory) Counts() (live, known int) { return len(d), len(d) + 1 }

// parsePeerID reads "cid-x" as another spelling of "x".
func parsePeerID(s string) (ports.PeerID, error) {
	if strings.ContainsAny(s, "?/ ") {
		return "", errors.New("no PeerID")
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
	return directory{{Entry: full, State: ports.StateLive}, {Entry: bare, State: ports.StateLate}, {Entry: absurd, State: ports.StateLive}}
}

const (
	jsonA = `{"peerID":"a","addr":"/ip4/10.0.0.1/tcp/4001","addrs":["/ip4/10.0.0.1/tcp/4001","/ip4/127.0.0.1/tcp/4001"],` +
		`"meta":{"zone":"eu-1"},"state":"live","seenAt":"2026-01-02T03:04:05.000000006Z","expiresAt":"2026-01-02T03:05:11.000000006Z","via":"native"}`
	jsonB = `{"peerID":"b","addr":"/ip4/10.0.0.2/tcp/4001","addrs":["/ip4/10.0.0.2/tcp/4001"],` +
		`"meta":{},"state":"late","seenAt":null,"expiresAt":"2026-01-02T03:05:11.000000006Z","via":""}`
	jsonC = `{"peerID":"c","addr":"/ip4/10.0.0.2/tcp/4001","addrs":["/ip4/10.0.0.2/tcp/4001"],` +
		`"meta":{},"state":"live","seenAt":null,"expiresAt":"2026-01-02T03:05:11.000000006Z","via":""}`

	textType = "text/plain; charset=utf-8"
	jsonType = "application/json"
)

func TestAnswersAreExactlyAsDocumented(t *testing.T) {
	native := testNode(threeIndexers())
	empty := testNode(directory{})
	other := testNode(nil)
	other.Modules, other.Addrs = nil, func() []string { return nil }
	notReady := testNode(nil)
	notReady.Ready = func() map[string]string {
		return map[string]string{"native": "starting", "dht": "not joined"}
	}

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
		{"alive", native, "/healthz", 200, textType, "ok"},
		{"ready", native, "/readyz", 200, textType, "ok"},
		{"not ready", notReady, "/readyz", 503, jsonType,
			`{"error":{"code":"not_ready","message":"dht: not joined; native: starting"},"modules":{"dht":"not joined","native":"starting"}}`},
		{"alive though not ready", notReady, "/healthz", 200, textType, "ok"},
		{"metrics", native, "/metrics", 200, textType, "metrics"},
		{"status", native, "/api/v1/status", 200, jsonType,
			`{"peerID":"native","addrs":["/ip4/127.0.0.1/tcp/1/p2p/native"],"modules":["native","dht"],"uptimeSeconds":90,"live":3,"known":4}`},
		{"status of no native", other, "/api/v1/status", 200, jsonType,
			`{"peerID":"native","addrs":[],"modules":[],"uptimeSeconds":90,"live":0,"known":0}`},

		{"all indexers", native, "/api/v1/indexers", 200, jsonType, `{"indexers":[` + jsonA + `,` + jsonB + `,` + jsonC + `],"next":""}`},
		{"no indexers", empty, "/api/v1/indexers", 200, jsonType, `{"indexers":[],"next":""}`},
		{"first page", native, "/api/v1/indexers?limit=1", 200, jsonType, `{"indexers":[` + jsonA + `],"next":"a"}`},
		{"next page", native, "/api/v1/indexers?limit=1&after=a", 200, jsonType, `{"indexers":[` + jsonB + `],"next":"b"}`},
		{"page after another spelling", native, "/api/v1/indexers?after=cid-b&limit=1000", 200, jsonType, `{"indexers":[` + jsonC + `],"next":""}`},
		{"empty parameters are the defaults", empty, "/api/v1/indexers?limit=&after=", 200, jsonType, `{"indexers":[],"next":""}`},
		{"limit 0", native, "/api/v1/indexers?limit=0", 400, jsonType, badLimit("0")},
		{"limit over the maximum", native, "/api/v1/indexers?limit=1001", 400, jsonType, badLimit("1001")},
		{"limit of letters", native, "/api/v1/indexers?limit=ten", 400, jsonType, badLimit("ten")},
		{"after no PeerID", native, "/api/v1/indexers?after=a%20b", 400, jsonType,
			`{"error":{"code":"bad_request","message":"after \"a b\": want a PeerID, such as next of the page before: no PeerID"}}`},
		{"query that does not parse", native, "/api/v1/indexers?limit=%zz", 400, jsonType,
			`{"error":{"code":"bad_request","message":"query: invalid URL escape \"%zz\""}}`},
		{"indexers of no native", other, "/api/v1/indexers?limit=0", 404, jsonType, notANative},

		{"indexer", native, "/api/v1/indexers/a", 200, jsonType, jsonA},
		{"indexer by another spelling", native, "/api/v1/indexers/cid-b", 200, jsonType, jsonB},
		{"indexer unknown", native, "/api/v1/indexers/d", 404, jsonType, `{"error":{"code":"not_found","message":"no live indexer d"}}`},
		{"indexer no PeerID", native, "/api/v1/indexers/a%2Fb", 400, jsonType,
			`{"error":{"code":"bad_request","message":"\"a/b\": want a PeerID, such as 12D3KooW…: no PeerID"}}`},
		{"indexer of no native", other, "/api/v1/indexers/a", 404, jsonType, notANative},

		{"unknown path", native, "/api/v2", 404, jsonType,
			`{"error":{"code":"not_found","message":"no such path: \"/api/v2\"; there are /healthz, /readyz, /metrics, /api/v1/status and /api/v1/indexers"}}`},
		{"indexers with a slash behind", native, "/api/v1/indexers/", 404, jsonType,
			`{"error":{"code":"not_found","message":"no such path: \"/api/v1/indexers/\"; there are /healthz, /readyz, /metrics, /api/v1/status and /api/v1/indexers"}}`},
		{"wrong method", native, "POST /api/v1/status", 405, jsonType,
			`{"error":{"code":"method_not_allowed","message":"method \"POST\": only GET and HEAD are allowed"}}`},
		{"wrong method on metrics", native, "DELETE /metrics", 405, jsonType,
			`{"error":{"code":"method_not_allowed","message":"method \"DELETE\": only GET and HEAD are allowed"}}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tc.node.Started = time.Now()
				time.Sleep(90*time.Second + time.Millisecond)
				method, path, found := strings.Cut(tc.request, " ")
				if !found {
					method, path = http.MethodGet, tc.request
				}
				w := httptest.NewRecorder()
				routes(tc.node).ServeHTTP(w, httptest.NewRequest(method, path, nil))

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
	routes(testNode(d)).ServeHTTP(w, httptest.NewRequest(http.MethodGet, indexersPath, nil))
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
	for _, path := range []string{"/healthz", "/readyz", "/metrics", statusPath, indexersPath, indexersPath + "/a", "/none"} {
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
		_, err := New(Config{Listen: listen}, testNode(nil), slog.New(slog.DiscardHandler))
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
	s, err := New(Config{Listen: "192.0.2.1:0"}, testNode(nil), slog.New(slog.DiscardHandler))
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
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestCloseLetsARunningRequestEnd(t *testing.T) {
	n := testNode(nil)
	entered, release := make(chan struct{}), make(chan struct{})
	n.Ready = func() map[string]string {
		close(entered)
		<-release
		return nil
	}
	s := start(t, n)
	conn := dial(t, s)
	if _, err := io.WriteString(conn, "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-entered
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		s.Close(context.Background())
	}()
	for refused := false; !refused; { // until Close has begun
		c, err := net.Dial("tcp", s.Addr())
		if refused = err != nil; !refused {
			c.Close()
		}
	}
	close(release)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("got %v, %v", resp, err)
	}
	<-closed
	s.Close(context.Background()) // once more is harmless
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
	big := make(directory, 0, MaxPage)
	for range MaxPage {
		l := threeIndexers()[0]
		l.Meta = map[string]string{"x": strings.Repeat("x", 16<<10)}
		big = append(big, l)
	}
	s := start(t, testNode(big))
	dial(t, s) // says nothing
	half := dial(t, s)
	if _, err := io.WriteString(half, "GET /healthz HT"); err != nil {
		t.Fatal(err)
	}
	deaf := dial(t, s) // asks for 16 MB and reads a byte
	if _, err := io.WriteString(deaf, "GET /api/v1/indexers?limit=1000 HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := deaf.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}

	begun := time.Now()
	s.Close(context.Background())
	if took := time.Since(begun); took > drainTimeout+3*time.Second {
		t.Errorf("Close took %v", took)
	}
}

func TestSlowAndHugeRequestsAreBounded(t *testing.T) {
	s := start(t, testNode(nil))
	for what, d := range map[string]time.Duration{
		"ReadHeaderTimeout": s.http.ReadHeaderTimeout, "ReadTimeout": s.http.ReadTimeout,
		"WriteTimeout": s.http.WriteTimeout, "IdleTimeout": s.http.IdleTimeout,
	} {
		if d <= 0 {
			t.Errorf("no %s", what)
		}
	}
	conn := dial(t, s)
	request := "GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 2*maxHeaderBytes) + "\r\n\r\n"
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("got %v, %v", resp, err)
	}
}

func TestIdleConnectionsTakeNoMoreThanTheirShare(t *testing.T) {
	s := start(t, testNode(threeIndexers()))
	idle := make([]net.Conn, maxConns)
	for i := range idle { // each is served once, so that the server has taken it
		idle[i] = dial(t, s)
		if got := healthOver(t, idle[i]); got != http.StatusOK {
			t.Fatalf("connection %d: %d", i, got)
		}
	}
	next := dial(t, s)
	if _, err := io.WriteString(next, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := next.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := next.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("one more connection than there may be is served: %v", err)
	}
	idle[0].Close()
	if err := next.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := next.Read(make([]byte, 1)); err != nil {
		t.Errorf("a place has become free, and it is not served: %v", err)
	}
}

// healthOver gets /healthz over conn and leaves it open.
func healthOver(t *testing.T, conn net.Conn) int {
	t.Helper()
	if _, err := io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode
}
