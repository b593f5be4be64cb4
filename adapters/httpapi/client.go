package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/opencloud/ocnode/ports"
)

const (
	// requestTimeout bounds one request, from the dial to the last byte of the answer.
	requestTimeout = 10 * time.Second
	// maxBodyBytes bounds an answer: a full page of entries as large as their frames,
	// twice that since JSON writes a control character in six bytes.
	maxBodyBytes = ports.MaxPage * 2 * ports.MaxFrameBytes
	// maxAsks bounds how often a busy node is asked, and maxRetryAfter the wait that it may ask
	// for: a command waits some seconds rather than fail. A longer wait is the caller's to choose.
	maxAsks, maxRetryAfter = 3, 5 * time.Second
	// excerptBytes is how much of an answer that is no node's is shown.
	excerptBytes = 80
)

var (
	// ErrUnreachable is matched by the error of a request that got no whole answer:
	// nobody listens, or not in time.
	ErrUnreachable = errors.New("node unreachable")
	// ErrNotFound is matched by the *APIError of a node that has no such indexer.
	ErrNotFound = errors.New("not found")
)

// APIError is a node's answer that is not 200.
type APIError struct {
	Status  int
	Code    Code
	Message string
	// Condition and Missing are the native's, if it said CodeNotFound.
	Condition ports.Condition
	Missing   []ports.PeerID
	// RetryAfter is how long the node wants to be left alone, 0 if it did not say.
	RetryAfter time.Duration
}

func (e *APIError) Error() string { return e.Message }

// Is matches ErrNotFound by the code: a node that is not a native
// answers 404 too, and so does one for a path that it does not have.
func (e *APIError) Is(target error) bool {
	return target == ErrNotFound && e.Code == CodeNotFound
}

// Client asks one node, a busy one up to three times: it waits as long as the node asks for in
// Retry-After. Its methods may be called concurrently; each request has
// a deadline of its own, and a watch one for each silence. Their errors match ErrUnreachable or ErrNotFound, are an
// *APIError, or say that something else than a node answered.
type Client struct {
	base  *url.URL
	token string
	http  http.Client
	// idle is how long a watch may be silent.
	idle time.Duration
}

// NewClient returns a client of the node at base, which is host:port as in
// http.listen or an http or https URL. token is the node's, "" if it has none. It does
// no I/O.
func NewClient(base, token string) (*Client, error) {
	raw := base
	if !strings.Contains(raw, "://") {
		raw = "http://" + raw
	}
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, fmt.Errorf("api address %q: want host:port, such as %s, or an http or https URL",
			base, DefaultConfig().Listen)
	}
	if u.Port() == "0" {
		return nil, fmt.Errorf("api address %q: port 0 was for the node to choose; take the address of its ready line", base)
	}
	if port := u.Port(); port != "" {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return nil, fmt.Errorf("api address %q: port %s is over 65535", base, port) // url.Parse saw to its digits
		}
	}
	if u.Hostname() == "" {
		u.Host = net.JoinHostPort("127.0.0.1", u.Port()) // ":4180" listens everywhere, here too
	}
	return &Client{base: u, token: token, idle: watchIdleTimeout, http: http.Client{
		Timeout: requestTimeout,
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			MaxResponseHeaderBytes: maxHeaderBytes,
			IdleConnTimeout:        idleTimeout,
		},
		// A node never redirects a path of ours: what does is no node.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status returns the node's status.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return ask(ctx, c, c.base.JoinPath(statusPath), func(s Status) bool { return s.PeerID != "" })
}

// Indexers returns the page that q asks for.
func (c *Client) Indexers(ctx context.Context, q ports.Query) (Indexers, error) {
	values := url.Values{"after": {string(q.After)}}
	if q.Limit != 0 {
		values.Set("limit", strconv.Itoa(q.Limit))
	}
	for name, value := range q.Meta {
		values.Set(metaPrefix+name, value)
	}
	u := c.base.JoinPath(indexersPath)
	u.RawQuery = values.Encode()
	return ask(ctx, c, u, func(p Indexers) bool { return p.Indexers != nil })
}

// Indexer returns the live indexer id, which may be any spelling of its PeerID.
func (c *Client) Indexer(ctx context.Context, id string) (Answer, error) {
	if strings.Trim(id, ".") == "" { // would lead to another path
		return Answer{}, fmt.Errorf("%q: want a PeerID, such as 12D3KooW…", id)
	}
	u := c.base.JoinPath(indexersPath, url.PathEscape(id))
	return ask(ctx, c, u, func(x Answer) bool { return x.PeerID != "" })
}

// Natives returns what the node knows of the natives that it is connected to.
func (c *Client) Natives(ctx context.Context) ([]Native, error) {
	body, err := ask(ctx, c, c.base.JoinPath(nativesPath), func(n Natives) bool { return n.Natives != nil })
	return body.Natives, err
}

// ask asks for u until the node is not busy.
func ask[T any](ctx context.Context, c *Client, u *url.URL, whole func(T) bool) (answer T, err error) {
	for asked := 1; ; asked++ {
		answer, err = askOnce(ctx, c, u, whole)
		e, ok := errors.AsType[*APIError](err)
		if !ok || e.RetryAfter == 0 || e.RetryAfter > maxRetryAfter || asked == maxAsks {
			return answer, err
		}
		select {
		case <-ctx.Done():
			return answer, err
		case <-time.After(e.RetryAfter + rand.N(e.RetryAfter/2)): // not all callers at once
		}
	}
}

// askOnce gets u and decodes the answer, which is a node's only if whole says so.
func askOnce[T any](ctx context.Context, c *Client, u *url.URL, whole func(T) bool) (T, error) {
	var answer T
	req, err := c.request(ctx, u)
	if err != nil {
		return answer, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return answer, c.unreachable(ctx, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBodyBytes+1))
	if err != nil {
		return answer, c.unreachable(ctx, err)
	}
	if len(body) > maxBodyBytes {
		return answer, fmt.Errorf("%s: the answer is over %d bytes; is there a node at this address?", u, maxBodyBytes)
	}
	if resp.StatusCode == http.StatusOK && json.Unmarshal(body, &answer) == nil && whole(answer) {
		return answer, nil
	}
	return *new(T), refusal(u, resp, body)
}

// request makes a GET of u that brings the token.
func (c *Client) request(ctx context.Context, u *url.URL) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err == nil && c.token != "" {
		req.Header.Set("Authorization", bearer+" "+c.token)
	}
	return req, err
}

// refusal makes the error of an answer that is not the one that was asked for.
func refusal(u *url.URL, resp *http.Response, body []byte) error {
	var e errorBody
	if resp.StatusCode != http.StatusOK && json.Unmarshal(body, &e) == nil && e.Error.Code != "" {
		seconds, _ := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 16) // a node's is no date
		return &APIError{
			Status: resp.StatusCode, Code: e.Error.Code, Message: e.Error.Message, Condition: e.Condition, Missing: e.Missing,
			RetryAfter: time.Duration(seconds) * time.Second,
		}
	}
	return fmt.Errorf("%s: not the answer of a node: %s, %s, %q; give the node's http.listen",
		u, resp.Status, resp.Header.Get("Content-Type"), body[:min(len(body), excerptBytes)])
}

// unreachable makes the error of a request without an answer; one that the caller
// gave up says nothing about the node.
func (c *Client) unreachable(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err // without the URL, which stands before it already
	}
	return fmt.Errorf("%w at %s: %w; start the node, or give its http.listen", ErrUnreachable, c.base, err)
}
