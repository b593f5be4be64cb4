package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery/targetgroup"

	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

func TestWhatIsATarget(t *testing.T) {
	for name, tc := range map[string]struct {
		addrs []string
		said  string // "-" for nothing
		want  string // "" if it is none
	}{
		"ip4":                       {[]string{"/ip4/10.0.0.1/tcp/4001"}, "-", "10.0.0.1:4001"},
		"ip6":                       {[]string{"/ip6/2001:db8::1/tcp/4001"}, "-", "[2001:db8::1]:4001"},
		"quic":                      {[]string{"/ip4/10.0.0.1/udp/4001/quic-v1"}, "-", "10.0.0.1:4001"},
		"dns":                       {[]string{"/dns4/a.example/tcp/443/wss"}, "-", "a.example:443"},
		"the first that has a port": {[]string{"/dnsaddr/a.example", "/ip4/10.0.0.1", "/dns/b.example/tcp/1"}, "-", "b.example:1"},
		"with its own identity":     {[]string{"/ip4/10.0.0.1/tcp/4001/p2p/12D3"}, "-", "10.0.0.1:4001"},
		"a relay is another":        {[]string{"/ip4/10.0.0.1/tcp/4001/p2p/12D3/p2p-circuit"}, "-", ""},
		"a zone is this machine's":  {[]string{"/ip6zone/eth0/ip6/fe80::1/tcp/1", "/ip6/fe80::1%eth0/tcp/1"}, "-", ""},
		"nonsense": {[]string{"", "/", "10.0.0.1:4001", "x/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0/tcp/1", "/ip4/::1/tcp/1", "/ip6/10.0.0.1/tcp/1",
			"/ip4/10.0.0.1/tcp/0", "/ip4/10.0.0.1/tcp/65536", "/ip4/10.0.0.1/tcp/http", "/ip4/10.0.0.1/sctp/1", "/dns4/a b/tcp/1", "/dns4//tcp/1",
			"/dns4/../tcp/1", "/dns4/é.example/tcp/1", "/dns4/a@b/tcp/1", "/unix/a/tcp/1"}, "-", ""},

		"a port":                 {[]string{"/ip6/2001:db8::1/tcp/4001"}, "9100", "[2001:db8::1]:9100"},
		"a port with a colon":    {[]string{"/dns/a.example/tcp/1"}, ":9100", "a.example:9100"},
		"host and port":          {[]string{"/ip4/10.0.0.1/tcp/4001"}, "m.example:9100", "m.example:9100"},
		"host and port alone":    {[]string{"/dnsaddr/a.example"}, "[2001:db8::1]:9100", "[2001:db8::1]:9100"},
		"a port alone":           {[]string{"/dnsaddr/a.example"}, "9100", ""},
		"empty":                  {[]string{"/ip4/10.0.0.1/tcp/4001"}, "", "10.0.0.1:4001"},
		"a URL is not said":      {[]string{"/ip4/10.0.0.1/tcp/4001"}, "http://m.example:9100/x", "10.0.0.1:4001"},
		"port 0 is not said":     {[]string{"/ip4/10.0.0.1/tcp/4001"}, "m.example:0", "10.0.0.1:4001"},
		"a path is not said":     {[]string{"/ip4/10.0.0.1/tcp/4001"}, "m.example/x:80", "10.0.0.1:4001"},
		"a zone is not said":     {[]string{"/ip4/10.0.0.1/tcp/4001"}, "[fe80::1%eth0]:80", "10.0.0.1:4001"},
		"what nobody can scrape": {nil, "x", ""},
	} {
		t.Run(name, func(t *testing.T) {
			l := ports.Listed{Entry: ports.Entry{PeerID: "a", Addrs: tc.addrs}}
			if len(tc.addrs) > 0 {
				l.Addr = tc.addrs[0]
			}
			if tc.said != "-" {
				l.Meta = map[string]string{"prometheus": tc.said}
			}
			group, ok := targetOf(l)
			if ok != (tc.want != "") || ok && !slices.Equal(group.Targets, []string{tc.want}) {
				t.Errorf("%v %t, want %q", group.Targets, ok, tc.want)
			}
			_, labelled := group.Labels["__meta_ocnode_meta_prometheus"]
			if want := ok && tc.said != "-" && tc.want != "10.0.0.1:4001"; labelled != want { // not where libp2p listens
				t.Errorf("it is labelled to say so: %t, want %t", labelled, want)
			}
			if l.Addrs = nil; len(tc.addrs) == 1 {
				if group, ok := targetOf(l); ok != (tc.want != "") {
					t.Errorf("of addr alone %v %t, want %q", group.Targets, ok, tc.want)
				}
			}
		})
	}
}

func TestMetadataBecomesLabels(t *testing.T) {
	l := threeIndexers()[0]
	l.Meta = map[string]string{
		"zone": "eu-1", "rack.name": "7", "rack-name": "8", "rack_ name": "9", // two of them come to the same
		"a.b": "first", "a_b": "exact", "a-b": "other",
		"é": "letter", "\xff": "byte", "": "empty", "UPPER": "\"quoted\"\n\xff",
		"state": "dead", // must not hide the real one
	}
	group, ok := targetOf(l)
	if !ok {
		t.Fatal("no target")
	}
	want := map[string]string{
		"__meta_ocnode_peer_id": "a", "__meta_ocnode_state": "live", "__meta_ocnode_source": "own",
		"__meta_ocnode_native": "native", "__meta_ocnode_addr": "/ip4/10.0.0.1/tcp/4001",
		"__meta_ocnode_meta_zone": "eu-1", "__meta_ocnode_meta_rack_name": "8", "__meta_ocnode_meta_rack__name": "9",
		"__meta_ocnode_meta_a_b": "exact", "__meta_ocnode_meta__": "letter", "__meta_ocnode_meta_": "empty",
		"__meta_ocnode_meta_UPPER": "\"quoted\"\n\xff", "__meta_ocnode_meta_state": "dead",
	}
	if diff := cmp.Diff(want, group.Labels); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// manyTargets is a table of n entries, made page by page and never held whole. Every third
// page is empty.
type manyTargets struct {
	directory
	n     int
	page  func(i int)
	fails int // the page that cannot be had, 0 for none
}

func (m manyTargets) List(_ context.Context, _ ports.PeerID, q ports.Query) (page ports.Page, _ error) {
	var begin int
	_, _ = fmt.Sscanf(string(q.After), "p%d", &begin)
	i := begin / q.Limit
	if m.fails > 0 && i == m.fails {
		return page, errors.New("gone")
	}
	if m.page != nil {
		m.page(i)
	}
	end := min(begin+q.Limit, m.n)
	if i%3 != 1 {
		for j := begin; j < end; j++ {
			l := threeIndexers()[0]
			l.PeerID = ports.PeerID(fmt.Sprintf("p%07d", j))
			page.Entries = append(page.Entries, l)
		}
	}
	if end < m.n {
		page.Next = ports.PeerID(fmt.Sprintf("p%07d", end))
	}
	return page, nil
}

// TestPrometheusReadsTheTargets has Prometheus' own types decode the list.
func TestPrometheusReadsTheTargets(t *testing.T) {
	const n = 2*ports.MaxPage + 7
	d := manyTargets{n: n}
	s := start(t, testNode(d))
	defer http.DefaultClient.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.Addr()+prometheusPath, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status, err)
	}
	var groups []*targetgroup.Group
	if err := json.Unmarshal(body, &groups); err != nil {
		t.Fatal(err)
	}
	if len(groups) != n-ports.MaxPage {
		t.Fatalf("%d groups, want %d", len(groups), n-ports.MaxPage)
	}
	for _, g := range groups {
		for _, labels := range append(g.Targets, g.Labels) {
			if err := labels.Validate(); err != nil {
				t.Fatal(err)
			}
			for name := range labels {
				if !model.LegacyValidation.IsValidLabelName(string(name)) {
					t.Fatalf("the label %q", name)
				}
			}
		}
	}
	var strict []struct {
		Targets []string
		Labels  map[string]string
	}
	if err := json.Unmarshal(body, &strict); err != nil {
		t.Error(err)
	}
}

func TestHalfAListOfTargetsIsCut(t *testing.T) {
	s := start(t, testNode(manyTargets{n: 10 * ports.MaxPage, fails: 5}))
	defer http.DefaultClient.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.Addr()+prometheusPath, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("%d bytes come as a whole list", len(body))
	}
}

// discard is a ResponseWriter for what nobody reads.
type discard struct{ header http.Header }

func (d discard) Header() http.Header       { return d.header }
func (discard) WriteHeader(int)             {}
func (discard) Write(b []byte) (int, error) { return len(b), nil }

func TestManyTargetsTakeTheMemoryOfAPage(t *testing.T) {
	const n = 100_000
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	var least, most int64
	d := manyTargets{n: n, page: func(i int) {
		if i%25 != 0 {
			return
		}
		if now := heap(); i == 0 {
			least, most = now, now
		} else {
			most = max(most, now)
		}
	}}
	routes(testNode(d), nil).ServeHTTP(discard{http.Header{}}, httptest.NewRequest(http.MethodGet, prometheusPath, nil))
	if grown := most - least; grown > 8<<20 {
		t.Errorf("the list takes %d bytes of memory", grown)
	}
}

// TestALookUpMayTakeLongerThanReadingARequest has the store answer after readTimeout.
func TestALookUpMayTakeLongerThanReadingARequest(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		n := testNode(nil)
		n.Finder = slowFinder{}
		c, _, stop := startInFakeTime(t, n)
		defer stop()
		begun := time.Now()
		if x, err := c.Indexer(t.Context(), "a"); err != nil || x.PeerID != "a" || time.Since(begun) < readTimeout {
			t.Errorf("%+v, %v after %v", x, err, time.Since(begun))
		}
		begun = time.Now()
		_, err := c.Indexer(t.Context(), "never")
		if e, ok := errors.AsType[*APIError](err); !ok || e.Code != CodeNoAnswer || time.Since(begun) != lookUpTimeout {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
	})
}

type slowFinder struct{}

func (slowFinder) LookUp(ctx context.Context, id ports.PeerID) (ports.Answer, error) {
	answer := time.After(readTimeout + time.Second)
	if id == "never" {
		answer = nil
	}
	select {
	case <-answer:
		return ports.Answer{Listed: ports.Listed{Entry: ports.Entry{PeerID: id}}}, nil
	case <-ctx.Done():
		return ports.Answer{}, ctx.Err()
	}
}
