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
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// pipes is a listener in memory, which fake time knows.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	close  func()
}

func newPipes() *pipes {
	p := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	p.close = sync.OnceFunc(func() { close(p.closed) })
	return p
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.close(); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.conns <- there:
		return here, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// startInFakeTime serves n in memory until stop is called, and returns a client of it.
func startInFakeTime(t *testing.T, n Node) (c *Client, p *pipes, stop func()) {
	t.Helper()
	s, err := New(Config{Listen: "127.0.0.1:0"}, n, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	p = newPipes()
	s.serve(p)
	if c, err = NewClient("127.0.0.1:1", ""); err != nil {
		t.Fatal(err)
	}
	c.http.Transport.(*http.Transport).DialContext = p.dial
	return c, p, func() {
		s.Close(context.Background())
		c.Close()
	}
}

// batches is a watch that yields these and then waits, unless it is to end.
func batches(last error, all ...ports.Batch) func(context.Context, ports.WatchRequest) iter.Seq2[ports.Batch, error] {
	return func(ctx context.Context, _ ports.WatchRequest) iter.Seq2[ports.Batch, error] {
		return func(yield func(ports.Batch, error) bool) {
			for _, b := range all {
				if !yield(b, nil) {
					return
				}
			}
			if last != nil {
				yield(ports.Batch{}, last)
				return
			}
			<-ctx.Done()
		}
	}
}

// story is a watch in which everything happens.
func story() []ports.Batch {
	l := threeIndexers()
	gone := ports.Listed{Entry: ports.Entry{PeerID: "b", Native: "n2"}}
	left := ports.Listed{Entry: ports.Entry{PeerID: "c", Native: "n2", ExpiresAt: time.Date(2026, 1, 2, 3, 5, 11, 0, time.UTC)}, Remaining: 66 * time.Second}
	return []ports.Batch{
		{Reset: ports.ResetTooOld, Changes: []ports.Change{{Kind: ports.ChangeSnapshot, Listed: l[0]}}, Condition: ports.ConditionWarming},
		{Changes: []ports.Change{{Kind: ports.ChangeSnapshot, Listed: l[1]}}, Cursor: "c1", Live: 2, Condition: ports.ConditionWarming},
		{Changes: []ports.Change{{Kind: ports.ChangeJoined, Listed: l[2]}, {Kind: ports.ChangeLate, Listed: l[1]}}, Cursor: "c2", Live: 3, Condition: ports.ConditionWarming},
		{Cursor: "c3", Live: 3, Condition: ports.ConditionWarming},
		{Changes: []ports.Change{{Kind: ports.ChangeUpdated, Listed: l[0]}, {Kind: ports.ChangeRenewed, Listed: l[0]}}, Cursor: "c4", Live: 3},
		{Changes: []ports.Change{{Kind: ports.ChangeExpired, Listed: gone}, {Kind: ports.ChangeLeft, Listed: left}}, Cursor: "c5", Live: 1},
		{Cursor: "c6", Live: 1, Condition: ports.ConditionPartial, Missing: []ports.PeerID{"n2"}},
		{Cursor: "c7", Live: 1, Condition: ports.ConditionPartial, Missing: []ports.PeerID{"n2", "n3"}},
	}
}

func TestAWatchIsExactlyAsDocumented(t *testing.T) {
	w := httptest.NewRecorder()
	node := testNode(native{watch: batches(ports.Refuse(ports.CodeTooSlow, "read faster"), story()...)})
	routes(node, nil).ServeHTTP(w, httptest.NewRequest(http.MethodGet, watchPath, nil))
	of := func(kind, indexer, cursor string) string {
		data := `{"kind":"` + kind + `",` + indexer[1:]
		id := ""
		if cursor != "" {
			data, id = data[:len(data)-1]+`,"cursor":"`+cursor+`"}`, "id: "+cursor+"\n"
		}
		return "event: " + kind + "\ndata: " + data + "\n" + id + "\n"
	}
	want := of("reset", `{"reason":"cursor_too_old"}`, "") +
		of("snapshot", jsonA, "") +
		of("snapshot", jsonB, "") +
		of("synced", `{"live":2,"condition":"warming"}`, "c1") +
		of("joined", jsonC, "") +
		of("late", jsonB, "c2") +
		"id: c3\n\n" +
		of("updated", jsonA, "") +
		of("renewed", jsonA, "") +
		of("synced", `{"live":3}`, "c4") +
		of("expired", `{"peerID":"b","via":"n2"}`, "") +
		of("left", `{"peerID":"c","via":"n2","expiresAt":"2026-01-02T03:05:11Z","leftSeconds":66}`, "c5") +
		of("synced", `{"live":1,"condition":"partial","missing":["n2"]}`, "c6") +
		of("synced", `{"live":1,"condition":"partial","missing":["n2","n3"]}`, "c7") +
		"event: error\ndata: {\"code\":\"too_slow\",\"message\":\"read faster\"}\n\n"
	if diff := cmp.Diff(want, w.Body.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for name, want := range map[string]string{"Content-Type": "text/event-stream", "Cache-Control": "no-store", "Content-Length": ""} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s %q, want %q", name, got, want)
		}
	}
}

func TestTheClientOfAWatchReadsWhatTheServerWrites(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		end := ports.Refuse(ports.CodeTooSlow, "read faster")
		c, _, stop := startInFakeTime(t, testNode(native{watch: batches(end, story()...)}))
		defer stop()
		var got []ports.Batch
		var last error
		for b, err := range c.Watch(t.Context(), ports.WatchRequest{}) {
			if last = err; err == nil {
				got = append(got, b)
			}
		}
		if refusal, ok := errors.AsType[*ports.Refusal](last); !ok || !reflect.DeepEqual(refusal, end) {
			t.Errorf("it ends with %v, want %v", last, end)
		}
		// The first two are of one snapshot, which comes as a whole. Live is as last said.
		sent := story()
		want := append([]ports.Batch{sent[1]}, sent[2:]...)
		want[0].Reset, want[0].Changes = sent[0].Reset, append(sent[0].Changes, sent[1].Changes...)
		for i, live := range []int{2, 2, 2, 3, 3} {
			want[i].Live = live
		}
		for i, b := range want {
			for j, c := range b.Changes {
				if !c.Kind.Gone() {
					want[i].Changes[j].Listed = NewIndexer(c.Listed).listed()
				}
			}
		}
		for i, b := range got {
			for j, c := range b.Changes {
				if c.Kind.Gone() { // of which there is no more than that
					b.Changes[j].Addrs, b.Changes[j].Meta = nil, nil
				}
			}
			got[i] = b
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestALongSnapshotComesInParts(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		d := make(directory, 10*maxTogether+1)
		for i := range d {
			d[i] = threeIndexers()[0]
			d[i].PeerID = ports.PeerID(fmt.Sprintf("p%05d", i))
		}
		c, _, stop := startInFakeTime(t, testNode(d))
		defer stop()
		seen, parts := 0, 0
		for b, err := range c.Watch(t.Context(), ports.WatchRequest{}) {
			if err != nil {
				t.Fatal(err)
			}
			if (b.Reset != "") != (parts == 0) || len(b.Changes) > maxTogether {
				t.Errorf("part %d begins with %q and has %d changes", parts, b.Reset, len(b.Changes))
			}
			parts++
			for _, x := range b.Changes {
				if x.PeerID != d[seen].PeerID {
					t.Fatalf("change %d is of %s", seen, x.PeerID)
				}
				seen++
			}
			if b.Cursor != "" {
				break // must be allowed
			}
		}
		if seen != len(d) || parts < 10 {
			t.Errorf("%d entries in %d parts, want %d", seen, parts, len(d))
		}
	})
}

func TestWhereAWatchGoesOn(t *testing.T) {
	for name, tc := range map[string]struct {
		path, header string
		want         ports.WatchRequest
	}{
		"from the beginning":      {watchPath, "", ports.WatchRequest{}},
		"empty parameters":        {watchPath + "?cursor=&renewed=", "", ports.WatchRequest{}},
		"cursor":                  {watchPath + "?cursor=a-7", "", ports.WatchRequest{Cursor: "a-7"}},
		"header":                  {watchPath, "a-9", ports.WatchRequest{Cursor: "a-9"}},
		"a browser says both":     {watchPath + "?cursor=a-7&renewed=1", "a-9", ports.WatchRequest{Cursor: "a-9", Renewed: true}},
		"nonsense is the natives": {watchPath + "?cursor=%22%0a", "", ports.WatchRequest{Cursor: "\"\n"}},
		"not renewed":             {watchPath + "?renewed=0&own=1", "", ports.WatchRequest{}},
	} {
		t.Run(name, func(t *testing.T) {
			var got ports.WatchRequest
			n := native{watch: func(_ context.Context, w ports.WatchRequest) iter.Seq2[ports.Batch, error] {
				got = w
				return func(func(ports.Batch, error) bool) {}
			}}
			r := httptest.NewRequest(http.MethodGet, tc.path, nil)
			r.Header.Set("last-event-id", tc.header)
			routes(testNode(n), nil).ServeHTTP(httptest.NewRecorder(), r)
			if got != tc.want {
				t.Errorf("it asks for %+v, want %+v", got, tc.want)
			}
		})
	}
}

// TestAResumedWatchHearsWhatItMissed goes on from the cursor after every batch.
func TestAResumedWatchHearsWhatItMissed(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		const changes = 20
		change := func(i int) ports.Batch {
			l := threeIndexers()[0]
			l.PeerID = ports.PeerID(fmt.Sprint("p", i))
			return ports.Batch{Changes: []ports.Change{{Kind: ports.ChangeJoined, Listed: l}}, Cursor: fmt.Sprint(i), Live: i}
		}
		n := native{watch: func(ctx context.Context, w ports.WatchRequest) iter.Seq2[ports.Batch, error] {
			from := 0
			if _, err := fmt.Sscan(w.Cursor, &from); err != nil && w.Cursor != "" {
				t.Errorf("cursor %q", w.Cursor)
			}
			var all []ports.Batch
			for i := from + 1; i <= changes; i++ {
				all = append(all, change(i))
			}
			return batches(nil, all...)(ctx, w)
		}}
		c, _, stop := startInFakeTime(t, testNode(n))
		defer stop()
		cursor := ""
		var got []ports.PeerID
		for len(got) < changes {
			for b, err := range c.Watch(t.Context(), ports.WatchRequest{Cursor: cursor, Renewed: true}) {
				if err != nil {
					t.Fatal(err)
				}
				for _, change := range b.Changes {
					got = append(got, change.PeerID)
				}
				cursor = b.Cursor
				break
			}
		}
		for i, id := range got {
			if id != ports.PeerID(fmt.Sprint("p", i+1)) {
				t.Fatalf("it heard %v", got)
			}
		}
	})
}

func TestASilentWatchSaysThatItLives(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		n := native{watch: batches(nil, ports.Batch{Reset: ports.ResetNew, Cursor: "1"})}
		_, p, stop := startInFakeTime(t, testNode(n))
		defer stop()
		conn, err := p.dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "GET "+watchPath+" HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(conn)
		begun := time.Now()
		var comments []time.Duration
		for len(comments) < 20 && lines.Scan() { // long after every deadline of a request
			if strings.HasPrefix(lines.Text(), ":") {
				comments = append(comments, time.Since(begun))
			}
		}
		for i, at := range comments {
			if want := time.Duration(i+1) * commentEvery; at != want {
				t.Fatalf("comment %d came after %v, want %v", i, at, want)
			}
		}
		if len(comments) < 20 {
			t.Errorf("it ended after %v: %v", time.Since(begun), lines.Err())
		}
	})
}

func TestASlowReaderOfAWatchIsDroppedAndLeavesNothing(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		ended := make(chan struct{})
		n := native{watch: func(ctx context.Context, w ports.WatchRequest) iter.Seq2[ports.Batch, error] {
			return func(yield func(ports.Batch, error) bool) {
				defer close(ended)
				for yield(story()[4], nil) {
				}
			}
		}}
		_, p, stop := startInFakeTime(t, testNode(n))
		defer stop()
		conn, err := p.dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "GET "+watchPath+" HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, make([]byte, 200)); err != nil { // the header and something more
			t.Fatal(err)
		}
		begun := time.Now()
		<-ended // it reads no more
		if took := time.Since(begun); took > watchWriteTimeout {
			t.Errorf("it was dropped after %v", took)
		}
	})
}

func TestAReaderThatGoesEndsItsWatch(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		ended := false
		n := native{watch: func(ctx context.Context, w ports.WatchRequest) iter.Seq2[ports.Batch, error] {
			return func(yield func(ports.Batch, error) bool) {
				yield(ports.Batch{Reset: ports.ResetNew, Cursor: "1"}, nil)
				<-ctx.Done()
				ended = true
			}
		}}
		c, _, stop := startInFakeTime(t, testNode(n))
		defer stop()
		for range c.Watch(t.Context(), ports.WatchRequest{}) {
			break
		}
		synctest.Wait()
		if !ended {
			t.Error("its watch goes on")
		}
	})
}

func TestCloseEndsWatchesAtOnceAndSaysWhy(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		n := native{watch: batches(nil, ports.Batch{Reset: ports.ResetNew, Cursor: "1"})}
		c, _, stop := startInFakeTime(t, testNode(n))
		var watching sync.WaitGroup
		var began sync.WaitGroup
		for range 10 {
			began.Add(1)
			watching.Go(func() {
				var last error
				for _, err := range c.Watch(t.Context(), ports.WatchRequest{}) {
					if last = err; err == nil {
						began.Done()
					}
				}
				if refusal, ok := errors.AsType[*ports.Refusal](last); !ok || refusal.Code != ports.CodeBusy {
					t.Errorf("it ends with %v", last)
				}
			})
		}
		began.Wait()
		begun := time.Now()
		stop()
		if took := time.Since(begun); took >= drainTimeout {
			t.Errorf("Close took %v", took)
		}
		watching.Wait()
	})
}

func TestWatchesAreBounded(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		c, _, stop := startInFakeTime(t, testNode(threeIndexers()))
		defer stop()
		ctx, end := context.WithCancel(t.Context())
		defer end()
		var watching, began sync.WaitGroup
		for range maxWatches {
			began.Add(1)
			watching.Go(func() {
				for _, err := range c.Watch(ctx, ports.WatchRequest{}) {
					if err == nil {
						began.Done()
					}
				}
			})
		}
		began.Wait()
		var last error
		for _, last = range c.Watch(t.Context(), ports.WatchRequest{}) {
		}
		if e, ok := errors.AsType[*APIError](last); !ok || e.Code != CodeBusy || e.Status != http.StatusServiceUnavailable {
			t.Errorf("one more: %v", last)
		}
		if _, err := c.Status(t.Context()); err != nil {
			t.Errorf("what is no watch finds no place: %v", err)
		}
		end()
		watching.Wait()
		synctest.Wait()
		for _, last = range c.Watch(t.Context(), ports.WatchRequest{}) {
			break
		}
		if last != nil {
			t.Errorf("a place has become free: %v", last)
		}
	})
}

func TestHEADOfAWatchDoesNotWatch(t *testing.T) {
	s := start(t, testNode(native{watch: func(context.Context, ports.WatchRequest) iter.Seq2[ports.Batch, error] {
		t.Error("it watches")
		return batches(nil)(t.Context(), ports.WatchRequest{})
	}}))
	defer http.DefaultClient.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodHead, "http://"+s.Addr()+watchPath, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != eventStream {
		t.Errorf("got %v", resp)
	}
}

func TestAWatchTakesNoBody(t *testing.T) {
	w := httptest.NewRecorder()
	routes(testNode(directory{}), nil).ServeHTTP(w, httptest.NewRequest(http.MethodGet, watchPath, strings.NewReader("x")))
	if w.Code != http.StatusBadRequest {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

func TestAnEventThatDoesNotEncodeEndsTheWatch(t *testing.T) {
	b := story()[4]
	b.Changes[0].ExpiresAt = time.Date(12345, 1, 1, 0, 0, 0, 0, time.UTC)
	w := httptest.NewRecorder()
	routes(testNode(native{watch: batches(nil, b)}), nil).ServeHTTP(w, httptest.NewRequest(http.MethodGet, watchPath, nil))
	if !strings.HasPrefix(w.Body.String(), "event: error\ndata: {\"code\":\"internal\"") {
		t.Errorf("got %s", w.Body)
	}
}

// events answers with a stream of this text.
func events(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "Text/Event-Stream; charset=utf-8")
		_, _ = io.WriteString(w, text)
	}
}

func TestWhatAnotherServerTellsOfAWatch(t *testing.T) {
	const joined = "event: joined\ndata: " + `{"kind":"joined","peerID":"a"}` + "\n"
	for name, tc := range map[string]struct {
		answer      http.HandlerFunc
		changes     int
		cursor      string
		want        string
		unreachable bool
	}{
		"a web page":         {text(200, "<!doctype html>"), 0, "", "not the answer of a node: 200 OK, text/html", false},
		"no native":          {text(404, `{"error":{"code":"not_a_native","message":"no native"}}`), 0, "", "no native", false},
		"nothing":            {events(""), 0, "", "unexpected EOF", true},
		"a stream that ends": {events(joined + "id: 7\n\n"), 1, "7", "unexpected EOF", true},
		"half an event":      {events(joined + "id: 7\n"), 0, "", "unexpected EOF", true},
		"carriage returns":   {events(strings.ReplaceAll(joined+"id: 7\n\n", "\n", "\r\n")), 1, "7", "unexpected EOF", true},
		"no blanks":          {events("event:joined\ndata:{\"peerID\":\ndata:\"a\"}\nid:7\n\n"), 1, "7", "unexpected EOF", true},
		"unknown events":     {events("retry: 10\n\nevent: moved\ndata: x\nid: 6\n\n" + joined + "nonsense\nid: 7\n\n"), 1, "7", "unexpected EOF", true},
		"an id alone":        {events(joined + "id: 6\n\nid: 7\n\n"), 1, "7", "unexpected EOF", true},
		"a reset forgets":    {events("event: reset\ndata: {}\n\n" + joined + "\nevent: reset\ndata: {}\n\n" + joined + "id: 7\n\n"), 1, "7", "unexpected EOF", true},
		"an error":           {events("event: error\ndata: {\"code\":\"internal\",\"message\":\"a bug\"}\n\n"), 0, "", "a bug", false},
		"no JSON":            {events("event: joined\ndata: {\n\n"), 0, "", `the event "joined" has "{"`, false},
		"wrong types":        {events("event: late\ndata: {\"peerID\":7}\n\n"), 0, "", `the event "late" has`, false},
		"nobody":             {events("event: expired\ndata: {}\n\n"), 0, "", `the event "expired" has no peerID`, false},
		"an endless line":    {events("data: " + strings.Repeat("x", maxLineBytes)), 0, "", "a line is over", false},
		"endless data":       {events(strings.Repeat("data: "+strings.Repeat("x", maxLineBytes/2)+"\n", 3)), 0, "", "an event is over", false},
		"endless lines":      {events(strings.Repeat("x\n", maxBlock+2)), 0, "", "lines", false},
		"an endless id":      {events("id: " + strings.Repeat("x", ports.MaxCursorBytes+1) + "\n\n"), 0, "", "an id is over", false},
		"no ids": {events(strings.Repeat("event: more\ndata: "+strings.Repeat("x", 32<<10)+"\n\n", maxBodyBytes/(32<<10)+1)),
			0, "", "have no id behind them", false},
		"a long batch": {events(strings.Repeat(joined+"\n", 3*maxTogether) + joined + "id: 7\n\n"), 3*maxTogether + 1, "7", "unexpected EOF", true},
	} {
		t.Run(name, func(t *testing.T) {
			web := httptest.NewServer(tc.answer)
			defer web.Close()
			changes, cursor := 0, ""
			var last error
			for b, err := range newClient(t, web.URL).Watch(t.Context(), ports.WatchRequest{}) {
				if last = err; err == nil {
					changes += len(b.Changes)
					cursor = b.Cursor
				}
			}
			if changes != tc.changes || cursor != tc.cursor {
				t.Errorf("%d changes until %q, want %d until %q", changes, cursor, tc.changes, tc.cursor)
			}
			if last == nil || !strings.Contains(last.Error(), tc.want) || errors.Is(last, ErrUnreachable) != tc.unreachable {
				t.Errorf("it ends with %v, want %s", last, tc.want)
			}
		})
	}
}

func TestAWatchEndsWithWhoAskedForIt(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		c, _, stop := startInFakeTime(t, testNode(threeIndexers()))
		defer stop()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var last error
		for _, last = range c.Watch(ctx, ports.WatchRequest{}) {
			cancel()
		}
		if !errors.Is(last, context.Canceled) || errors.Is(last, ErrUnreachable) {
			t.Errorf("it ends with %v", last)
		}
		for _, last = range c.Watch(t.Context(), ports.WatchRequest{Own: true}) {
		}
		if !errors.Is(last, ports.ErrNotOffered) {
			t.Errorf("a native's watch ends with %v", last)
		}
	})
}

func TestAWatchThatHearsNothingIsGivenUp(t *testing.T) {
	for name, tc := range map[string]struct {
		says string
		want time.Duration
	}{
		"no answer":   {"", requestTimeout},
		"no comments": {"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nid: 7\n\n", watchIdleTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) {
				p := newPipes()
				c, err := NewClient("127.0.0.1:1", "")
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				c.http.Transport.(*http.Transport).DialContext = p.dial
				go func() {
					conn, err := p.Accept()
					if err != nil {
						return
					}
					if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
						t.Error(err)
					}
					_, _ = io.WriteString(conn, tc.says)
					_, _ = io.Copy(io.Discard, conn) // until the client closes it
					conn.Close()
				}()
				begun := time.Now()
				var last error
				for _, last = range c.Watch(t.Context(), ports.WatchRequest{}) {
				}
				if took := time.Since(begun); took != tc.want || !errors.Is(last, ErrUnreachable) {
					t.Errorf("it ends after %v with %v, want %v", took, last, tc.want)
				}
			})
		})
	}
}
