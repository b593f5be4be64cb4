package httpapi

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencloud/ocnode/ports"
)

const (
	// DefaultPage and MaxPage bound the indexers of one answer: a screen or two for
	// people, and some megabytes at the very most for machines.
	DefaultPage = 100
	MaxPage     = 1000
)

const (
	statusPath   = "/api/v1/status"
	indexersPath = "/api/v1/indexers"
)

// routes returns the handler of all paths.
func routes(n Node) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/healthz", get(ok))
	mux.Handle("/readyz", get(n.readyz))
	mux.Handle("/metrics", get(n.Metrics.ServeHTTP))
	mux.Handle(statusPath, get(n.status))
	mux.Handle(indexersPath, get(n.native(n.indexers)))
	mux.Handle(indexersPath+"/{peerID}", get(n.native(n.indexer)))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, http.StatusNotFound, CodeNotFound,
			"no such path: %q; there are /healthz, /readyz, /metrics, %s and %s", r.URL.Path, statusPath, indexersPath)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store") // a lease is old news in a minute
		w.Header().Set("X-Content-Type-Options", "nosniff")
		mux.ServeHTTP(w, r)
	})
}

// get lets GET and HEAD pass; net/http leaves out the body of a HEAD.
func get(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			fail(w, http.StatusMethodNotAllowed, CodeMethodNotAllowed, "method %q: only GET and HEAD are allowed", r.Method)
			return
		}
		h(w, r)
	}
}

// native answers for h on a node that is not one.
func (n Node) native(h http.HandlerFunc) http.HandlerFunc {
	if n.Directory != nil {
		return h
	}
	return func(w http.ResponseWriter, _ *http.Request) {
		fail(w, http.StatusNotFound, CodeNotANative,
			"this node runs without the native module and keeps no table; ask a native, or turn native on here")
	}
}

func ok(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, "ok\n")
}

func (n Node) readyz(w http.ResponseWriter, r *http.Request) {
	reasons := n.Ready()
	if len(reasons) == 0 {
		ok(w, r)
		return
	}
	var all []string
	for _, module := range slices.Sorted(maps.Keys(reasons)) {
		all = append(all, module+": "+reasons[module])
	}
	body := newError(CodeNotReady, strings.Join(all, "; "))
	body.Modules = reasons
	write(w, http.StatusServiceUnavailable, body)
}

func (n Node) status(w http.ResponseWriter, _ *http.Request) {
	s := Status{
		PeerID:        n.PeerID,
		Addrs:         append([]string{}, n.Addrs()...),
		Modules:       append([]string{}, n.Modules...),
		UptimeSeconds: int64(time.Since(n.Started) / time.Second),
	}
	if n.Directory != nil {
		s.Live, s.Known = n.Directory.Counts()
	}
	write(w, http.StatusOK, s)
}

func (n Node) indexers(w http.ResponseWriter, r *http.Request) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		fail(w, http.StatusBadRequest, CodeBadRequest, "query: %v", err)
		return
	}
	limit := DefaultPage
	if s := query.Get("limit"); s != "" {
		if limit, err = strconv.Atoi(s); err != nil || limit < 1 || limit > MaxPage {
			fail(w, http.StatusBadRequest, CodeBadRequest, "limit %q: want a number from 1 to %d", s, MaxPage)
			return
		}
	}
	var after ports.PeerID
	if s := query.Get("after"); s != "" {
		if after, err = n.ParsePeerID(s); err != nil {
			fail(w, http.StatusBadRequest, CodeBadRequest, "after %q: want a PeerID, such as next of the page before: %v", s, err)
			return
		}
	}
	page, next := n.Directory.Page(after, limit)
	body := Indexers{Indexers: make([]Indexer, len(page)), Next: next}
	for i, l := range page {
		body.Indexers[i] = toIndexer(l)
	}
	write(w, http.StatusOK, body)
}

func (n Node) indexer(w http.ResponseWriter, r *http.Request) {
	s := r.PathValue("peerID")
	id, err := n.ParsePeerID(s)
	if err != nil {
		fail(w, http.StatusBadRequest, CodeBadRequest, "%q: want a PeerID, such as 12D3KooW…: %v", s, err)
		return
	}
	l, found := n.Directory.Get(id)
	if !found {
		fail(w, http.StatusNotFound, CodeNotFound, "no live indexer %s", id)
		return
	}
	write(w, http.StatusOK, toIndexer(l))
}

func fail(w http.ResponseWriter, status int, code Code, format string, args ...any) {
	write(w, status, newError(code, fmt.Sprintf(format, args...)))
}

func newError(code Code, message string) (body errorBody) {
	body.Error.Code, body.Error.Message = code, message
	return body
}

// write encodes the whole body before the first byte leaves, so that an answer
// is either whole or an error.
func write(w http.ResponseWriter, status int, body any) {
	b, err := json.Marshal(body)
	if err != nil {
		fail(w, http.StatusInternalServerError, CodeInternal, "encoding the answer: %v", err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)+1))
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // an error is the reader's, who has gone
}
