package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/opencloud/ocnode/ports"
)

const (
	// commentEvery is how often a watch without news says that it lives: more often than
	// proxies cut what is silent.
	commentEvery = 15 * time.Second
	// watchWriteTimeout bounds writing one batch to a reader of a watch, and what is
	// behind it in the connection's buffers.
	watchWriteTimeout = 10 * time.Second
	// watchBufferBytes is written to the connection at a time.
	watchBufferBytes = ports.MaxBatchBytes

	eventStream = "text/event-stream"
	// lastEventID is what a browser goes on with by itself.
	lastEventID = "Last-Event-ID"
)

// watch serves server-sent events, until closing is closed, to maxWatches at once.
func (n Node) watch(closing <-chan struct{}) http.HandlerFunc {
	watches := places{most: maxWatches, leaves: func([]*conn) *conn { return nil }}
	var mu sync.Mutex
	return func(w http.ResponseWriter, r *http.Request) {
		request, err := watchRequest(r)
		if err != nil {
			fail(w, http.StatusBadRequest, CodeBadRequest, "%v", err)
			return
		}
		if r.Method == http.MethodHead {
			w.Header().Set("Content-Type", eventStream)
			return
		}
		c := connOf(r)
		mu.Lock()
		taken := watches.take(c)
		mu.Unlock()
		if !taken {
			busy(w, "%d watches run already, or %d of your address, the most there may be over HTTP; end one, or watch another native",
				maxWatches, maxWatches/siteShare)
			return
		}
		defer func() { mu.Lock(); watches.leave(c); mu.Unlock() }()
		w.Header().Set("Content-Type", eventStream)
		w.Header().Set("X-Accel-Buffering", "no") // nginx would keep the news to itself
		n.tell(w, r, request, closing)
	}
}

func watchRequest(r *http.Request) (request ports.WatchRequest, err error) {
	if r.ContentLength != 0 { // as long as it comes, nobody sees the reader go
		return request, errors.New("a watch takes no body")
	}
	values, err := parameters(r.URL.RawQuery, "", "renewed", "cursor")
	if err != nil {
		return request, err
	}
	if s := values.Get("renewed"); s != "" {
		if request.Renewed, err = strconv.ParseBool(s); err != nil {
			return request, fmt.Errorf("renewed %q: want 1 or 0", s)
		}
	}
	// Whoever connects again says both, the header and the cursor that it once began with.
	if request.Cursor = r.Header.Get(lastEventID); request.Cursor == "" {
		request.Cursor = values.Get("cursor")
	}
	return request, nil
}

// tell writes a watch to w until either side ends it. Only the goroutine that asks the
// native waits for it, so that comments come in time.
func (n Node) tell(w http.ResponseWriter, r *http.Request, request ports.WatchRequest, closing <-chan struct{}) {
	out := newEventWriter(w)
	if out.flush() != nil {
		return
	}
	type news struct {
		ports.Batch
		err error
	}
	heard := make(chan news)
	var watching sync.WaitGroup
	defer watching.Wait()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	watching.Go(func() {
		defer close(heard)
		for b, err := range n.Directory.Watch(ctx, n.PeerID, request) {
			select {
			case heard <- news{b, err}:
			case <-ctx.Done():
				return
			}
		}
	})

	comments := time.NewTicker(commentEvery)
	defer comments.Stop()
	for err := error(nil); err == nil; {
		select {
		case <-ctx.Done():
			return
		case <-closing:
			_ = out.fail(ports.Refuse(ports.CodeBusy, "this node shuts down")) // all ends anyway
			return
		case <-comments.C:
			err = out.comment()
		case b, ok := <-heard:
			if !ok {
				return
			}
			if b.err != nil {
				_ = out.fail(b.err)
				return
			}
			err = out.batch(b.Batch)
		}
	}
}

// eventWriter writes the events of a watch. Its errors are those of the connection.
type eventWriter struct {
	w        *bufio.Writer
	conn     *http.ResponseController
	narrator Narrator
}

func newEventWriter(w http.ResponseWriter) *eventWriter {
	out := &eventWriter{w: bufio.NewWriterSize(w, watchBufferBytes), conn: http.NewResponseController(w)}
	// The server's own deadlines are for requests that end. A connection that has none to
	// set is a test's, and one that has gone shows when it is written to.
	_ = out.conn.SetReadDeadline(time.Time{})
	out.begin()
	return out
}

// begin gives the connection time for what is written next.
func (out *eventWriter) begin() {
	_ = out.conn.SetWriteDeadline(time.Now().Add(watchWriteTimeout))
}

func (out *eventWriter) flush() error {
	if err := out.w.Flush(); err != nil {
		return err
	}
	return out.conn.Flush()
}

func (out *eventWriter) comment() error {
	out.begin()
	out.w.WriteString(":\n\n") // a bufio.Writer keeps its error for Flush
	return out.flush()
}

func (out *eventWriter) batch(b ports.Batch) error {
	out.begin()
	for _, e := range out.narrator.Events(b) {
		if err := out.event(e); err != nil {
			return errors.Join(err, out.fail(err))
		}
	}
	return out.flush()
}

func (out *eventWriter) fail(err error) error {
	out.begin()
	data := errorText{CodeInternal, err.Error()}
	if refusal, ok := errors.AsType[*ports.Refusal](err); ok {
		data = errorText{Code(refusal.Code), refusal.Message}
	}
	if err := out.event(Event{Kind: eventError, Data: data}); err != nil {
		return err
	}
	return out.flush()
}

// event writes e as lines, of which JSON has none within.
func (out *eventWriter) event(e Event) error {
	if e.Data != nil {
		data, err := json.Marshal(e.Data)
		if err != nil {
			return err
		}
		fmt.Fprintf(out.w, "event: %s\ndata: %s\n", e.Kind, data)
	}
	if e.Cursor != "" {
		fmt.Fprintf(out.w, "id: %s\n", e.Cursor)
	}
	out.w.WriteByte('\n')
	return nil
}
