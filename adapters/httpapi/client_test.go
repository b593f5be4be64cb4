package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

func newClient(t *testing.T, base string) *Client {
	t.Helper()
	c, err := NewClient(base, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestClientReadsWhatTheServerWrites(t *testing.T) {
	d := threeIndexers()
	s := start(t, testNode(d))
	c := newClient(t, s.Addr())

	status, err := c.Status(t.Context())
	status.UptimeSeconds = 0
	want := Status{
		PeerID: "native", Addrs: []string{"/ip4/127.0.0.1/tcp/1/p2p/native"}, Modules: []string{"native", "dht"},
		Live: 3, Known: 4,
	}
	if diff := cmp.Diff(want, status); diff != "" || err != nil {
		t.Errorf("status: %v (-want +got):\n%s", err, diff)
	}

	page, err := c.Indexers(t.Context(), ports.Query{After: "a", Limit: 1})
	if diff := cmp.Diff(Indexers{Indexers: []Indexer{NewIndexer(d[1])}, Next: "b"}, page); diff != "" || err != nil {
		t.Errorf("page: %v (-want +got):\n%s", err, diff)
	}

	x, err := c.Indexer(t.Context(), "cid-a")
	if diff := cmp.Diff(NewAnswer(ports.Answer{Listed: d[0]}), x); diff != "" || err != nil {
		t.Errorf("indexer: %v (-want +got):\n%s", err, diff)
	}
}

func TestErrorsOfANode(t *testing.T) {
	native := newClient(t, start(t, testNode(threeIndexers())).Addr())
	other := newClient(t, start(t, testNode(nil)).Addr())
	ctx := t.Context()
	_, unknown := native.Indexer(ctx, "d")
	_, badID := native.Indexer(ctx, "a?b/../c")
	_, badLimit := native.Indexers(ctx, ports.Query{Limit: ports.MaxPage + 1})
	_, noTable := other.Indexers(ctx, ports.Query{})
	_, noPath := newClient(t, start(t, testNode(threeIndexers())).Addr()+"/nowhere").Indexer(ctx, "a")
	for _, tc := range []struct {
		name     string
		err      error
		status   int
		code     Code
		notFound bool
	}{
		{"unknown indexer", unknown, 404, CodeNotFound, true},
		{"no PeerID, escaped whole", badID, 400, CodeBadRequest, false},
		{"bad limit", badLimit, 400, CodeBadRequest, false},
		{"a path that is not there is not not found", noPath, 404, CodeNoSuchPath, false},
		{"not a native is not not found", noTable, 404, CodeNotANative, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var e *APIError
			if !errors.As(tc.err, &e) || e.Status != tc.status || e.Code != tc.code || e.Error() == "" {
				t.Fatalf("got %#v", tc.err)
			}
			if errors.Is(tc.err, ErrNotFound) != tc.notFound || errors.Is(tc.err, ErrUnreachable) {
				t.Errorf("is not found: %t, unreachable: %t", errors.Is(tc.err, ErrNotFound), errors.Is(tc.err, ErrUnreachable))
			}
		})
	}
	for _, id := range []string{"", ".", ".."} {
		if x, err := native.Indexer(ctx, id); err == nil {
			t.Errorf("%q found %v", id, x)
		}
	}
}

// silence accepts connections and says nothing.
func silence(t *testing.T) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

func TestANodeThatDoesNotAnswerIsUnreachable(t *testing.T) {
	s := start(t, testNode(nil))
	s.Close(t.Context())
	_, err := newClient(t, s.Addr()).Status(t.Context())
	if !errors.Is(err, ErrUnreachable) || !strings.HasPrefix(err.Error(), "node unreachable at http://"+s.Addr()+": dial") {
		t.Errorf("nobody listens: %v", err)
	}

	quiet := newClient(t, silence(t))
	quiet.http.Timeout = 50 * time.Millisecond
	if _, err := quiet.Status(t.Context()); !errors.Is(err, ErrUnreachable) {
		t.Errorf("silence: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := newClient(t, silence(t)).Status(ctx); !errors.Is(err, ErrUnreachable) {
		t.Errorf("the caller's deadline: %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if _, err := quiet.Status(ctx); !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnreachable) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestOtherServersAreToldFromANode(t *testing.T) {
	for name, tc := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"a web page":     {text(200, "<!doctype html>"), `not the answer of a node: 200 OK, text/html; charset=utf-8, "<!doctype html>"`},
		"an error page":  {text(502, "<h1>Bad Gateway</h1>"), "not the answer of a node: 502 Bad Gateway"},
		"a redirect":     {http.RedirectHandler("/login", http.StatusFound).ServeHTTP, "not the answer of a node: 302 Found"},
		"other JSON":     {text(200, `{"status":"green"}`), "not the answer of a node"},
		"JSON null":      {text(200, `null`), "not the answer of a node"},
		"half an answer": {text(200, `{"peerID":"a","indexers":[{"pee`), "not the answer of a node"},
		"wrong types":    {text(200, `{"peerID":7,"indexers":{}}`), "not the answer of a node"},
		"bytes":          {text(200, "\x00\x1b[2J\xff"), `"\x00\x1b[2J\xff"`},
		"an endless body": {func(w http.ResponseWriter, _ *http.Request) {
			chunk := []byte(strings.Repeat(" ", 1<<20))
			for err := error(nil); err == nil; {
				_, err = w.Write(chunk)
			}
		}, "the answer is over"},
		"a body cut short": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, `{"peerID":`)
		}, "unexpected EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			web := httptest.NewServer(tc.answer)
			defer web.Close()
			c := newClient(t, web.URL)
			_, status := c.Status(t.Context())
			_, page := c.Indexers(t.Context(), ports.Query{Limit: 1})
			_, one := c.Indexer(t.Context(), "a")
			_, natives := c.Natives(t.Context())
			for _, err := range []error{status, page, one, natives} {
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("got %v, want %s", err, tc.want)
				}
			}
		})
	}
}

func text(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func TestBaseAddresses(t *testing.T) {
	for base, want := range map[string]string{
		"127.0.0.1:4180":             "http://127.0.0.1:4180",
		":4180":                      "http://127.0.0.1:4180",
		"[::1]:4180":                 "http://[::1]:4180",
		"https://natives.example/oc": "https://natives.example/oc",
		"":                           "", "http://": "", "ftp://x": "", "http://x?y": "", "http://x#y": "", "a b": "", "1:2:3": "",
		"127.0.0.1:0": "", "127.0.0.1:65536": "", "https://x:999999999999999999999": "",
	} {
		c, err := NewClient(base, "")
		switch {
		case want == "" && err == nil:
			t.Errorf("%q was taken", base)
		case want == "" && !strings.Contains(err.Error(), fmt.Sprintf("%q", base)):
			t.Errorf("%q: error without the value: %v", base, err)
		case want != "" && (err != nil || c.base.String() != want):
			t.Errorf("%q: got %v, %v", base, c, err)
		}
	}
	s := start(t, testNode(nil))
	web := httptest.NewServer(http.StripPrefix("/oc", routes(testNode(nil), nil)))
	defer web.Close()
	for _, base := range []string{"http://" + s.Addr() + "/", web.URL + "/oc"} {
		if _, err := newClient(t, base).Status(t.Context()); err != nil {
			t.Errorf("%s: %v", base, err)
		}
	}
}

func TestTheClientWaitsForABusyNode(t *testing.T) {
	for name, tt := range map[string]struct {
		busy  int // times
		after string
		asked int
		code  Code
	}{
		"once":                {1, "1", 2, ""},
		"always":              {9, "1", maxAsks, CodeBusy},
		"it does not say":     {1, "", 1, CodeBusy},
		"as long as may be":   {1, "5", 2, ""},
		"longer than may be":  {1, "6", 1, CodeBusy},
		"it says nonsense":    {1, "Sun, 06 Nov 1994 08:49:37 GMT", 1, CodeBusy},
		"it is none at first": {0, "1", 1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) {
				asked := 0
				p := newPipes()
				server := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if asked++; asked > tt.busy {
						routes(testNode(threeIndexers()), nil).ServeHTTP(w, r)
						return
					}
					if tt.after != "" {
						w.Header().Set("Retry-After", tt.after)
					}
					fail(w, http.StatusServiceUnavailable, CodeBusy, "busy")
				})}
				go server.Serve(p)
				defer server.Close()
				c := newClient(t, "127.0.0.1:1")
				c.http.Transport.(*http.Transport).DialContext = p.dial
				defer c.Close()
				began := time.Now()
				_, err := c.Indexers(t.Context(), ports.Query{})
				e, _ := errors.AsType[*APIError](err)
				if asked != tt.asked || (err == nil) != (tt.code == "") || e != nil && e.Code != tt.code {
					t.Errorf("asked %d times, got %v", asked, err)
				}
				seconds, _ := time.ParseDuration(tt.after + "s")
				if took, wait := time.Since(began), seconds*time.Duration(tt.asked-1); took < wait || took > wait*3/2 {
					t.Errorf("it waited for %v, want some %v", took, wait)
				}
			})
		})
	}
}
