package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"mime"
	"net/http"
	"net/url"
	"time"

	"github.com/opencloud/ocnode/ports"
)

const (
	// watchIdleTimeout is how long a watch may be silent: it says something every
	// commentEvery.
	watchIdleTimeout = 3 * commentEvery
	// maxLineBytes bounds a line of a watch: an entry as large as its frame, and as much
	// for each byte as JSON may need for it, six.
	maxLineBytes = 6 * ports.MaxFrameBytes
	// maxTogether is how many changes make a batch, or the part of a longer one.
	maxTogether = 256
	// maxBlock bounds the lines of an event: what is said in none of them ends it.
	maxBlock = 64
)

// Watch is that of ports.Native, over HTTP: it yields what changes until ctx ends, the
// caller stops, or it fails; the last pair then has the error. A native that ends it with
// a reason is a *ports.Refusal, one that does not take it an *APIError; of what remains
// ErrUnreachable is matched, and going on from the last Cursor may help. Live is as of
// the last time that the native said it, and Own cannot be asked for.
func (c *Client) Watch(ctx context.Context, w ports.WatchRequest) iter.Seq2[ports.Batch, error] {
	return func(yield func(ports.Batch, error) bool) {
		if err := c.watch(ctx, w, func(b ports.Batch) bool { return yield(b, nil) }); err != nil {
			yield(ports.Batch{}, err)
		}
	}
}

// watch calls yield with each batch, and returns nil once that is not wanted any more.
func (c *Client) watch(caller context.Context, w ports.WatchRequest, yield func(ports.Batch) bool) error {
	if w.Own {
		return fmt.Errorf("%w over HTTP: natives watch each other over libp2p", ports.ErrNotOffered)
	}
	ctx, cancel := context.WithCancelCause(caller)
	defer cancel(nil)
	silence := time.AfterFunc(requestTimeout, func() { cancel(fmt.Errorf("nothing was heard for too long: %w", context.DeadlineExceeded)) })
	defer silence.Stop()

	u := c.base.JoinPath(watchPath)
	if w.Renewed {
		u.RawQuery = url.Values{"renewed": {"1"}}.Encode()
	}
	req, err := c.request(ctx, u)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", eventStream)
	if w.Cursor != "" {
		req.Header.Set(lastEventID, w.Cursor)
	}
	endless := c.http
	endless.Timeout = 0
	resp, err := endless.Do(req)
	if err != nil {
		return c.unreachable(caller, causeOf(ctx, err))
	}
	defer resp.Body.Close()
	if kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); resp.StatusCode != http.StatusOK || err != nil || kind != eventStream {
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxLineBytes))
		if err != nil {
			return c.unreachable(caller, causeOf(ctx, err))
		}
		return refusal(u, resp, body)
	}

	silence.Reset(c.idle)
	stream := eventReader{r: bufio.NewReaderSize(resp.Body, maxLineBytes), heard: func() { silence.Reset(c.idle) }}
	var b batcher
	for {
		e, err := stream.next()
		switch {
		case errors.Is(err, errNoEvents):
			return fmt.Errorf("%s: not the answer of a node: %w", u, err)
		case err == io.EOF:
			err = io.ErrUnexpectedEOF
			fallthrough
		case err != nil:
			return c.unreachable(caller, causeOf(ctx, err))
		}
		whole, err := b.add(e)
		if err != nil {
			if _, ok := errors.AsType[*ports.Refusal](err); ok {
				return err
			}
			return fmt.Errorf("%s: %w", u, err)
		}
		if !whole {
			continue
		}
		silence.Stop() // how long the caller takes is not the node's silence
		if !yield(b.take()) {
			return nil
		}
		silence.Reset(c.idle)
	}
}

// causeOf returns why ctx was cancelled, if it was, and else err.
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// batcher makes batches of events.
type batcher struct {
	batch     ports.Batch
	bytes     int
	live      int
	condition ports.Condition
	missing   []ports.PeerID
}

// add takes one event and reports whether there is something to be yielded. An error is
// the native's own, or what is no event of ours.
func (b *batcher) add(e event) (whole bool, err error) {
	if b.bytes += len(e.data); b.bytes > maxBodyBytes {
		return false, fmt.Errorf("over %d bytes have no id behind them", maxBodyBytes)
	}
	var data told
	kind := ports.ChangeKind(e.name)
	mine := known(kind) || e.name == EventReset || e.name == EventSynced || e.name == eventError
	if mine && json.Unmarshal(e.data, &data) != nil {
		return false, fmt.Errorf("the event %q has %q, which is not what a node says", e.name, e.data[:min(len(e.data), excerptBytes)])
	}
	switch {
	case e.name == EventReset:
		// What came before belongs to a snapshot that was never whole, and is forgotten.
		b.batch = ports.Batch{Reset: data.Reason}
		if data.Reason == "" {
			b.batch.Reset = ports.ResetNew
		}
	case e.name == EventSynced:
		b.live, b.condition, b.missing = data.Live, data.Condition, data.Missing
	case e.name == eventError && data.Code == CodeInternal:
		return false, errors.New(data.Message)
	case e.name == eventError:
		return false, &ports.Refusal{Code: ports.Code(data.Code), Message: data.Message}
	case mine && data.PeerID == "":
		return false, fmt.Errorf("the event %q has no peerID", e.name)
	case mine:
		b.batch.Changes = append(b.batch.Changes, ports.Change{Kind: kind, Listed: data.listed()})
	}
	if e.id != "" {
		b.batch.Cursor = e.id
	}
	return b.batch.Cursor != "" || len(b.batch.Changes) >= maxTogether, nil
}

func (b *batcher) take() ports.Batch {
	batch := b.batch
	batch.Live, batch.Condition, batch.Missing = b.live, b.condition, b.missing
	b.batch, b.bytes = ports.Batch{}, 0
	return batch
}

// event is one of a stream.
type event struct {
	name string
	data []byte
	id   string // "" if it came without
}

// errNoEvents is a stream that is none of events, or not within our bounds.
var errNoEvents = errors.New("no stream of events")

// eventReader reads server-sent events, as HTML defines them, of at most maxBlock lines of
// maxLineBytes each; of their line ends \n and \r\n.
type eventReader struct {
	r     *bufio.Reader
	heard func() // is called for every line
}

// next blocks for the next event that has data or an id.
func (s *eventReader) next() (e event, err error) {
	for lines := 0; ; lines++ {
		line, err := s.r.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return event{}, fmt.Errorf("%w: a line is over %d bytes", errNoEvents, maxLineBytes)
		case err != nil:
			return event{}, err
		}
		s.heard()
		line = bytes.TrimSuffix(line[:len(line)-1], []byte("\r"))
		if len(line) == 0 {
			if e.data != nil || e.id != "" {
				return e, nil
			}
			e, lines = event{}, 0
			continue
		}
		if lines > maxBlock {
			return event{}, fmt.Errorf("%w: an event has over %d lines", errNoEvents, maxBlock)
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "event":
			e.name = string(value)
		case "data":
			if e.data != nil {
				e.data = append(e.data, '\n')
			}
			if len(e.data)+len(value) > maxLineBytes {
				return event{}, fmt.Errorf("%w: an event is over %d bytes", errNoEvents, maxLineBytes)
			}
			e.data = append(e.data, value...)
		case "id":
			if len(value) > ports.MaxCursorBytes {
				return event{}, fmt.Errorf("%w: an id is over %d bytes", errNoEvents, ports.MaxCursorBytes)
			}
			if !bytes.ContainsRune(value, 0) {
				e.id = string(value)
			}
		}
	}
}
