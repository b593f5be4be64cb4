package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencloud/ocnode/adapters/internal/blame"
	"github.com/opencloud/ocnode/adapters/internal/turns"
	"github.com/opencloud/ocnode/ports"
)

const (
	healthPath     = "/healthz"
	readyPath      = "/readyz"
	metricsPath    = "/metrics"
	statusPath     = "/api/v1/status"
	indexersPath   = "/api/v1/indexers"
	nativesPath    = "/api/v1/natives"
	watchPath      = "/api/v1/watch"
	prometheusPath = "/sd/prometheus"

	// leaseParameter has readyPath answer for the leases of this node's indexer too, and
	// indexerName is the module that keeps them.
	leaseParameter = "lease"
	indexerName    = "indexer"

	// metaPrefix begins the parameters that filter by metadata.
	metaPrefix = "meta."
)

const (
	// lookUpTimeout bounds a look-up, which may go to the store: less than the client waits.
	lookUpTimeout = 8 * time.Second
	// retryAfter is when to ask a busy node again.
	retryAfter = time.Second
	// nativesTimeout bounds asking all natives how they are: the port says 2 s at most.
	nativesTimeout = 3 * time.Second
)

// routes returns the handler of all paths. Watches end when closing is closed.
func routes(n Node, closing <-chan struct{}) http.Handler {
	n.turns = turns.New()
	mux := http.NewServeMux()
	mux.Handle(healthPath, get(ok))
	mux.Handle(readyPath, get(n.readyz))
	mux.Handle(metricsPath, get(n.Metrics.ServeHTTP))
	mux.Handle(statusPath, get(bare(n.status)))
	mux.Handle(indexersPath, get(n.native(n.indexers)))
	mux.Handle(indexersPath+"/{peerID}", get(bare(n.indexer)))
	mux.Handle(nativesPath, get(bare(n.native(n.natives))))
	mux.Handle(watchPath, get(n.native(n.watch(closing))))
	mux.Handle(prometheusPath, get(n.native(n.prometheus)))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, http.StatusNotFound, CodeNoSuchPath, "no such path: %q; there are /healthz, /readyz, /metrics, %s", r.URL.Path,
			strings.Join([]string{statusPath, indexersPath, nativesPath, watchPath}, ", ")+" and "+prometheusPath)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		stamp(w)
		mux.ServeHTTP(w, r)
	})
}

// stamp sets what every answer has.
func stamp(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", "no-store") // a lease is old news in a minute
	w.Header().Set("X-Content-Type-Options", "nosniff")
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

// bare lets pass what has no parameters.
func bare(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if _, err := parameters(r.URL.RawQuery, ""); err != nil {
			fail(w, http.StatusBadRequest, CodeBadRequest, "%v", err)
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
	return notANative
}

func notANative(w http.ResponseWriter, _ *http.Request) {
	fail(w, http.StatusNotFound, CodeNotANative,
		"this node runs without the native module and keeps no table; ask a native, or turn native on here")
}

func ok(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, "ok\n")
}

func (n Node) readyz(w http.ResponseWriter, r *http.Request) {
	reasons := n.Ready()
	if r.URL.Query().Has(leaseParameter) {
		if why := n.unlisted(); why != "" && reasons[indexerName] == "" {
			with := map[string]string{indexerName: why}
			maps.Copy(with, reasons)
			reasons = with
		}
	}
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

// unlisted returns why this node may be listed nowhere.
func (n Node) unlisted() string {
	if n.Unlisted == nil {
		return "this node runs without the indexer module, and registers nowhere"
	}
	return n.Unlisted()
}

func (n Node) status(w http.ResponseWriter, r *http.Request) {
	s := Status{
		PeerID:        n.PeerID,
		Addrs:         append([]string{}, n.Addrs()...),
		Modules:       append([]string{}, n.Modules...),
		UptimeSeconds: int64(time.Since(n.Started) / time.Second),
	}
	if n.Directory != nil {
		s.Live, s.Known = n.Directory.Counts()
		if page, err := n.Directory.List(r.Context(), n.PeerID, ports.Query{Limit: 1}); err == nil {
			s.Condition, s.Missing = page.Condition, page.Missing
		}
	}
	write(w, http.StatusOK, s)
}

func (n Node) indexers(w http.ResponseWriter, r *http.Request) {
	q, err := n.query(r.URL.RawQuery)
	if err != nil {
		fail(w, http.StatusBadRequest, CodeBadRequest, "%v", err)
		return
	}
	var text []byte
	if !n.turns.Try(r.Context(), func() {
		var page ports.Page
		if page, err = n.Directory.List(r.Context(), n.PeerID, q); err == nil {
			text, err = encode(NewPage(page))
		}
	}) {
		noTurn(w)
		return
	}
	if err != nil {
		failWith(w, err)
		return
	}
	send(w, http.StatusOK, text)
}

// noTurn refuses a page. The page waited for its turn already.
func noTurn(w http.ResponseWriter) {
	busy(w, "this native writes as many pages as it can beside its registrations; try again in %v, or ask another native", retryAfter)
}

// query reads the parameters of a list.
func (n Node) query(raw string) (q ports.Query, err error) {
	values, err := parameters(raw, metaPrefix, "limit", "after")
	if err != nil {
		return q, err
	}
	q.Limit = ports.DefaultPage
	if s := values.Get("limit"); s != "" {
		if q.Limit, err = strconv.Atoi(s); err != nil || q.Limit < 1 || q.Limit > ports.MaxPage {
			return q, fmt.Errorf("limit %q: want a number from 1 to %d", s, ports.MaxPage)
		}
	}
	if s := values.Get("after"); s != "" {
		if q.After, err = n.ParsePeerID(s); err != nil {
			return q, fmt.Errorf("after: %w; give next of the page before", err)
		}
	}
	q.Meta, err = filter(values)
	return q, err
}

// parameters parses a query that has nothing but parameters of these names, each once,
// and any that begin with prefix, unless that is "": what is misspelt would otherwise
// change nothing, and the answer would look like one to the question that was meant.
func parameters(raw, prefix string, names ...string) (url.Values, error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return nil, fmt.Errorf("query: %w", err)
	}
	for _, key := range slices.Sorted(maps.Keys(values)) { // of several mistakes, always the same one
		switch {
		case prefix != "" && strings.HasPrefix(key, prefix):
		case !slices.Contains(names, key):
			if prefix != "" {
				names = append(names, prefix+"<name>")
			}
			if len(names) == 0 {
				names = []string{"none"}
			}
			return nil, fmt.Errorf("unknown parameter %q; there are %s", key, strings.Join(names, ", "))
		case len(values[key]) > 1:
			return nil, fmt.Errorf("%s is given %d times; give it once", key, len(values[key]))
		}
	}
	return values, nil
}

// filter reads the parameters meta.<name>=<value>, nil if there are none.
func filter(values url.Values) (map[string]string, error) {
	var meta map[string]string
	for _, key := range slices.Sorted(maps.Keys(values)) { // of several mistakes, always the same one
		name, ok := strings.CutPrefix(key, metaPrefix)
		if !ok {
			continue
		}
		if name == "" {
			return nil, fmt.Errorf("%q: want %s<name>=<value>, such as %szone=eu-1", key, metaPrefix, metaPrefix)
		}
		wanted := values[key]
		for _, value := range wanted[1:] {
			if value != wanted[0] {
				return nil, fmt.Errorf("%s is %q and %q: nobody has both", key, wanted[0], value)
			}
		}
		if meta == nil {
			meta = make(map[string]string)
		}
		meta[name] = wanted[0]
	}
	return meta, nil
}

// indexer answers from the native's table and the store, or without native as others
// and the store do.
func (n Node) indexer(w http.ResponseWriter, r *http.Request) {
	if n.Directory == nil && n.Finder == nil {
		notANative(w, r)
		return
	}
	s := r.PathValue("peerID")
	id, err := n.ParsePeerID(s)
	if err != nil {
		fail(w, http.StatusBadRequest, CodeBadRequest, "%v", err)
		return
	}
	// The deadline of reading a request, which has been read, would end the look-up. One
	// that cannot be set is that of a connection which has gone, or of a test.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(writeTimeout))
	ctx, cancel := context.WithTimeout(r.Context(), lookUpTimeout)
	defer cancel()
	var answer ports.Answer
	if n.Directory != nil {
		answer, err = n.Directory.LookUp(ctx, n.PeerID, id)
	} else {
		answer, err = n.Finder.LookUp(ctx, id)
		if _, refused := errors.AsType[*ports.Refusal](err); err != nil && !refused && !errors.Is(err, ports.ErrNotFound) {
			fail(w, http.StatusServiceUnavailable, CodeNoAnswer, "%v", err)
			return
		}
	}
	switch {
	case errors.Is(err, ports.ErrNotFound):
		body := newError(CodeNotFound, fmt.Sprintf("no live indexer %s", id))
		body.Condition, body.Missing = answer.Condition, answer.Missing
		write(w, http.StatusNotFound, body)
	case err != nil:
		failWith(w, err)
	default:
		write(w, http.StatusOK, NewAnswer(answer))
	}
}

func (n Node) natives(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), nativesTimeout)
	defer cancel()
	natives, err := n.Directory.Natives(ctx, n.PeerID)
	if err != nil {
		failWith(w, err)
		return
	}
	write(w, http.StatusOK, NewNatives(natives))
}

// failWith answers with the error of a native.
func failWith(w http.ResponseWriter, err error) {
	refusal, refused := errors.AsType[*ports.Refusal](err)
	switch {
	case refused && refusal.Code == ports.CodeBusy:
		busy(w, "%s", refusal.Message)
	case refused:
		fail(w, http.StatusBadRequest, CodeBadRequest, "%s", refusal.Message)
	case blame.IsTimeout(err):
		fail(w, http.StatusServiceUnavailable, CodeNoAnswer, "no answer in time; try again later")
	default:
		fail(w, http.StatusInternalServerError, CodeInternal, "%v", err)
	}
}

// busy says that too much is asked of this node, and when to ask again.
func busy(w http.ResponseWriter, format string, args ...any) {
	w.Header().Set("Retry-After", strconv.Itoa(int(retryAfter/time.Second)))
	fail(w, http.StatusServiceUnavailable, CodeBusy, format, args...)
}

func fail(w http.ResponseWriter, status int, code Code, format string, args ...any) {
	write(w, status, newError(code, fmt.Sprintf(format, args...)))
}

func newError(code Code, message string) errorBody {
	return errorBody{Error: errorText{code, message}}
}

// write encodes the whole body before the first byte leaves, so that an answer
// is either whole or an error.
func write(w http.ResponseWriter, status int, body any) {
	text, err := encode(body)
	if err != nil {
		fail(w, http.StatusInternalServerError, CodeInternal, "%v", err)
		return
	}
	send(w, status, text)
}

func encode(body any) ([]byte, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encoding the answer: %w", err)
	}
	return append(text, '\n'), nil
}

func send(w http.ResponseWriter, status int, text []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	_, _ = w.Write(text) // an error says that the reader has gone
}
