package httpapi

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/opencloud/ocnode/ports"
)

// FuzzEvents feeds a client what any server may say. Whatever it is: all ends, no cursor
// is longer than a cursor may be, and every change is of somebody.
func FuzzEvents(f *testing.F) {
	w := httptest.NewRecorder()
	node := testNode(native{watch: batches(ports.Refuse(ports.CodeTooSlow, "read faster"), story()...)})
	routes(node, nil).ServeHTTP(w, httptest.NewRequest("GET", watchPath, nil))
	for _, text := range []string{
		w.Body.String(), strings.ReplaceAll(w.Body.String(), "\n", "\r\n"), "", ":\n\n", "id: 7\n\n", "id\n\ndata\n\n",
		"event: joined\ndata: {\"peerID\":\ndata: \"a\"}\nid: 7\n\n", "event: joined\ndata: null\n\n", "event: reset\ndata: {}\n\n",
		"event: late\ndata: {\"peerID\":\"a\",\"leftSeconds\":1e300,\"expiresAt\":\"9999-12-31T23:59:59Z\"}\nid: \x00\n\n",
		"event: error\ndata: {\"code\":\"\"}\n\n", "data: " + strings.Repeat("[", 1000) + "\n\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		stream := eventReader{r: bufio.NewReaderSize(bytes.NewReader(text), maxLineBytes), heard: func() {}}
		var b batcher
		for {
			e, err := stream.next()
			if err != nil {
				return
			}
			whole, err := b.add(e)
			if err != nil {
				return
			}
			if !whole {
				continue
			}
			batch := b.take()
			if len(batch.Cursor) > ports.MaxCursorBytes || strings.ContainsAny(batch.Cursor, "\n\x00") {
				t.Errorf("the cursor %q", batch.Cursor)
			}
			for _, c := range batch.Changes {
				if c.PeerID == "" || !known(c.Kind) || c.Remaining < 0 {
					t.Errorf("the change %+v", c)
				}
				// It is printed again, as it is or not at all.
				if _, err := json.Marshal(dataOf(c, batch.Cursor)); err != nil && c.ExpiresAt.Year() < 10000 {
					t.Errorf("%+v does not encode: %v", c, err)
				}
			}
		}
	})
}

// FuzzTarget makes a target of what any indexer may say of itself.
func FuzzTarget(f *testing.F) {
	for _, addr := range []string{"/ip4/10.0.0.1/tcp/4001", "/ip6/::1/udp/1/quic-v1", "/dns/a.example/tcp/1", "/ip4/1/tcp/x", "//", ""} {
		for _, said := range []string{"", "9100", "m.example:9100", "[::1]:80", "[]:1", "a:b:c", ":"} {
			f.Add(addr, said, "na.me")
		}
	}
	f.Fuzz(func(t *testing.T, addr, said, name string) {
		l := ports.Listed{Entry: ports.Entry{PeerID: "a", Addr: addr, Meta: map[string]string{name: "x", scrapeKey: said}}}
		group, ok := targetOf(l)
		if !ok {
			return
		}
		host, port, err := net.SplitHostPort(group.Targets[0])
		if err != nil || host == "" || !isPort(port) || strings.ContainsAny(group.Targets[0], "/?#@% \t\r\n") {
			t.Errorf("the target %q: %v", group.Targets, err)
		}
		for label := range group.Labels {
			if !strings.HasPrefix(label, labelPrefix) || sanitized(label) != label {
				t.Errorf("the label %q", label)
			}
		}
	})
}
