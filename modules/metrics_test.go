package modules_test

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multibase"
	"github.com/opencloud/ocnode/adapters/kaddht"
	"github.com/opencloud/ocnode/modules"
	"github.com/opencloud/ocnode/ports"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// scrape returns what a node answers at /metrics.
func scrape(t testing.TB, node *modules.Node) string {
	t.Helper()
	resp, err := http.Get("http://" + node.HTTP() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("/metrics answers %d: %v", resp.StatusCode, err)
	}
	return string(text)
}

// samples returns the value of every series in a scrape, by its name with its labels.
func samples(t testing.TB, scraped string) map[string]float64 {
	t.Helper()
	series := make(map[string]float64)
	for line := range strings.Lines(scraped) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		space := strings.LastIndexByte(line, ' ')
		value, err := strconv.ParseFloat(line[space+1:], 64)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		series[line[:space]] = value
	}
	return series
}

// calm are settings under which nothing happens by itself in the time of a test: what
// has been put and announced is not again.
func calm(t testing.TB, on string) map[string]string {
	settings := leastSettings(t)
	maps.Copy(settings, map[string]string{
		"modules": on, "registry.heartbeat": "27m", "registry.ttl": "30m", "registry.refresh": "14m",
	})
	return settings
}

func start(t testing.TB, settings map[string]string) *modules.Node {
	t.Helper()
	node := newNode(t, settings, modules.Environment{})
	if err := node.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, node) })
	return node
}

// stranger is a bare host that is connected to node, over TCP if i is even, else QUIC.
// What it tells of itself is nobody else's.
func stranger(t testing.TB, node *modules.Node, i int) host.Host {
	t.Helper()
	h, err := libp2p.New(
		libp2p.NoListenAddrs, libp2p.DisableMetrics(), libp2p.ResourceManager(&network.NullResourceManager{}),
		libp2p.UserAgent(fmt.Sprint("agent-", i)),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	h.SetStreamHandler(protocol.ID(fmt.Sprint("/protocol-", i)), func(s network.Stream) { _ = s.Reset() })
	info, err := peer.AddrInfoFromString(node.Addrs()[i%2])
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Connect(t.Context(), *info); err != nil {
		t.Fatal(err)
	}
	return h
}

// register sends node a registration of claimed over h's connection, and returns the
// answer.
func register(t testing.TB, h host.Host, node *modules.Node, claimed peer.ID) string {
	t.Helper()
	to, err := peer.Decode(string(node.PeerID()))
	if err != nil {
		t.Fatal(err)
	}
	s, err := h.NewStream(t.Context(), to, ports.SubscribeProtocol)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	// The newline ends the frame: the native does not wait for the end of the stream.
	if _, err := fmt.Fprintf(s, `{"PeerID":"%s","Addr":"/ip4/127.0.0.1/tcp/4001"}`+"\n", claimed); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

// differences returns by how much each of ocnode's own series differs, without the
// buckets and sums of histograms, whose counts tell enough.
func differences(before, after map[string]float64) map[string]float64 {
	moved := make(map[string]float64)
	for series, value := range after {
		name, _, _ := strings.Cut(series, "{")
		if strings.HasPrefix(name, "ocnode_") && !strings.HasSuffix(name, "_bucket") && !strings.HasSuffix(name, "_seconds_sum") && value != before[series] {
			moved[series] = value - before[series]
		}
	}
	return moved
}

func TestRegistrationsMoveTheirCountersAndNoOthers(t *testing.T) {
	const good, spoofed, indexers, spoofers = 137, 23, 17, 5
	node := start(t, calm(t, "native,dht,gossip"))
	bystander := start(t, calm(t, "native,dht,gossip")) // in the same process, and in no touch
	var hosts []host.Host
	before, beforeThere := samples(t, scrape(t, node)), samples(t, scrape(t, bystander))
	for i := range indexers + spoofers {
		hosts = append(hosts, stranger(t, node, i))
	}

	var asking sync.WaitGroup
	for i, h := range hosts {
		asking.Go(func() {
			if i < indexers {
				for range share(good, indexers, i) {
					if answer := register(t, h, node, h.ID()); !strings.Contains(answer, `"OK":true`) {
						t.Errorf("the answer is %s", answer)
					}
				}
				return
			}
			for n := range share(spoofed, spoofers, i-indexers) {
				// For one that is live, and for one that never was.
				claimed := hosts[n%indexers].ID()
				if n%2 == 1 {
					claimed = newPeerID(t)
				}
				if answer := register(t, h, node, claimed); !strings.Contains(answer, `"peer_mismatch"`) {
					t.Errorf("the answer is %s", answer)
				}
			}
		})
	}
	asking.Wait()

	want := map[string]float64{
		`ocnode_registrations_total{result="accepted"}`:      good,
		`ocnode_registrations_total{result="peer_mismatch"}`: spoofed,
		`ocnode_live_indexers`:                               indexers,
		`ocnode_known_peers`:                                 indexers,
		`ocnode_joins_total{via="registration"}`:             indexers,
		`ocnode_heartbeat_left_seconds_count`:                good - indexers,
		// Each is put and announced once: the rest are heartbeats that say nothing new, to nobody.
		`ocnode_store_puts_total{result="alone"}`:        indexers,
		`ocnode_store_put_duration_seconds_count`:        indexers,
		`ocnode_announcements_sent_total{result="sent"}`: indexers,
		`ocnode_connections{direction="inbound"}`:        indexers + spoofers,
	}
	var got map[string]float64
	defer func() {
		if t.Failed() {
			t.Logf("moved have %v, want %v", got, want)
		}
	}()
	// The answers do not wait for the puts, nor the streams' ends for them.
	eventually(t, "what had to move has moved, and nothing else", func() bool {
		got = differences(before, samples(t, scrape(t, node)))
		// A heartbeat that comes while its join is put is not counted: it flies with that.
		for _, what := range []string{"put", "announcement"} {
			avoided := fmt.Sprintf("ocnode_renewals_avoided_total{what=%q}", what)
			if got[avoided] > good-indexers {
				return false
			}
			delete(got, avoided)
		}
		return maps.Equal(got, want)
	})
	if moved := differences(beforeThere, samples(t, scrape(t, bystander))); len(moved) > 0 {
		t.Errorf("the other node's metrics moved: %v", moved)
	}
}

// share is how many of n things the i-th of so many gets.
func share(n, among, i int) int {
	if i < n%among {
		return n/among + 1
	}
	return n / among
}

func newPeerID(t testing.TB) peer.ID {
	t.Helper()
	_, public, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestThereAreAsManySeriesAtTenAsAtAThousandIndexers(t *testing.T) {
	node := start(t, calm(t, "native,dht,gossip"))
	settings := calm(t, "native,dht,gossip")
	settings["host.bootstrap"] = node.Addrs()[0]
	other := start(t, settings)
	for _, n := range []*modules.Node{node, other} {
		eventually(t, "the natives have found each other", func() bool {
			s := samples(t, scrape(t, n))
			return s["ocnode_dht_peers"] == 1 && s["ocnode_gossip_mesh_peers"] == 1
		})
	}

	// crowd adds so many strangers that register, each of which also asks the DHT what
	// nobody else does, and as many again that exist in name only.
	strangers, live := 0, 0
	listed := func() {
		t.Helper()
		for _, n := range []*modules.Node{node, other} {
			eventually(t, "both natives list all, and have told all", func() bool {
				held, _ := n.Registry().Counts()
				return held == live && n.Registry().Waiting() == 0
			})
		}
	}
	crowd := func(real, named int) map[string]float64 {
		t.Helper()
		for range real {
			h := stranger(t, node, strangers)
			strangers++
			live++
			if answer := register(t, h, node, h.ID()); !strings.Contains(answer, `"OK":true`) {
				t.Fatalf("the answer is %s", answer)
			}
			askDHT(t, h, node, 1_000_000+strangers)
		}
		for i := range named {
			id := ports.PeerID(newPeerID(t).String())
			live++
			if _, err := node.Registry().Register(t.Context(), id, ports.Registration{PeerID: id, Addr: "/ip4/127.0.0.1/tcp/4001"}); err != nil {
				t.Fatal(err)
			}
			if i%100 == 0 {
				listed()
			}
		}
		listed()
		eventually(t, "all strange messages are counted", func() bool {
			return samples(t, scrape(t, node))["kad_dht_rpc_inbound_message_errors_total"] >= float64(strangers)
		})
		return samples(t, scrape(t, node))
	}
	// What happens only now and then, happens once before: a type of message has its
	// series from its first use on.
	eventually(t, "the natives have advertised themselves to each other", func() bool {
		s := samples(t, scrape(t, node))
		return s[`kad_dht_rpc_outbound_messages_total{message_type="ADD_PROVIDER"}`] > 0 && s[`kad_dht_rpc_inbound_bytes_count{message_type="ADD_PROVIDER"}`] > 0
	})
	eventually(t, "the natives have looked for natives", func() bool {
		s := samples(t, scrape(t, node))
		return s[`kad_dht_rpc_outbound_request_latency_milliseconds_count{message_type="GET_PROVIDERS"}`] > 0 && s[`kad_dht_rpc_inbound_request_latency_milliseconds_count{message_type="GET_PROVIDERS"}`] > 0
	})
	first := stranger(t, node, 0)
	useDHT(t, first)
	first.SetStreamHandler("/news", func(s network.Stream) { _ = s.Reset() })
	eventually(t, "a change is told to those connected", func() bool {
		return samples(t, scrape(t, node))[`libp2p_identify_identify_push_total{dir="inbound"}`] > 0
	})
	few := crowd(8, 2)
	many := crowd(50, 940)
	if got := many["ocnode_live_indexers"]; few["ocnode_live_indexers"] != 10 || got != 1000 {
		t.Fatalf("%v indexers are live, and then %v", few["ocnode_live_indexers"], got)
	}
	// A request fails at any time, whoever is there: one series for each type of message.
	failed := regexp.MustCompile(`^kad_dht_rpc_(inbound_message|outbound_request)_errors_total{message_type="[A-Z_]+"}$`)
	for _, s := range []map[string]float64{few, many} {
		maps.DeleteFunc(s, func(series string, _ float64) bool { return failed.MatchString(series) })
	}
	for series := range many {
		if _, ok := few[series]; !ok {
			t.Errorf("more indexers have brought %s", series)
		}
	}
	if len(few) != len(many) {
		t.Errorf("%d series at 10 indexers, %d at 1,000", len(few), len(many))
	}
	t.Logf("%d series", len(few))
	for series := range many {
		if regexp.MustCompile(`="/?(agent-|protocol-|1000\d{3}")`).MatchString(series) {
			t.Errorf("a stranger has written %s", series)
		}
	}
}

// askDHT sends a message of a type that there is not, and waits for its stream's end.
func askDHT(t testing.TB, h host.Host, node *modules.Node, kind int) {
	t.Helper()
	to, err := peer.Decode(string(node.PeerID()))
	if err != nil {
		t.Fatal(err)
	}
	s, err := h.NewStream(t.Context(), to, kaddht.Protocol(""))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	message := binary.AppendUvarint([]byte{1 << 3}, uint64(kind)) // field 1, a varint
	// The native resets the stream, perhaps before the write returns; that the message came
	// is seen from what is counted.
	_, _ = s.Write(append([]byte{byte(len(message))}, message...))
	_, _ = io.Copy(io.Discard, s)
}

// useDHT puts an entry and asks for one that there is not, as a client of the DHT.
func useDHT(t testing.TB, h host.Host) {
	t.Helper()
	store, err := kaddht.New(h, kaddht.Config{Accept: func(*ports.Entry) error { return nil }, Read: func(*ports.Entry) error { return nil }, TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	eventually(t, "the client knows a server", func() bool { return store.Peers() > 0 })
	e := ports.Entry{PeerID: ports.PeerID(h.ID().String()), Addr: "/ip4/127.0.0.1/tcp/4001", ExpiresAt: time.Now().Add(time.Minute)}
	if n, err := store.Put(t.Context(), e); n == 0 || err != nil {
		t.Fatalf("%d nodes took an entry: %v", n, err)
	}
	e.Addr = strings.Repeat("a", 5000) // which no server takes
	if n, err := store.Put(t.Context(), e); n != 0 || err != nil {
		t.Fatalf("%d nodes took an entry that is none: %v", n, err)
	}
	if _, err := store.Get(t.Context(), ports.PeerID(newPeerID(t).String()), ports.Version{}); !errors.Is(err, ports.ErrNotFound) {
		t.Fatalf("got %v", err)
	}
}

// TestMetricsOfANetwork holds what natives and indexers at work show against all that is
// said of it.
func TestMetricsOfANetwork(t *testing.T) {
	const heartbeat = "6s" // the first announcements may come before the mesh, and nobody hears them
	var nodes []*modules.Node
	var natives []string
	for i := range 3 {
		settings := leastSettings(t)
		settings["modules"], settings["registry.heartbeat"] = "native,dht,gossip", heartbeat
		// Nobody is at the last of them, so that there is a dial that fails.
		settings["host.bootstrap"] = strings.Join(append(natives[:len(natives):len(natives)], "/ip4/127.0.0.1/tcp/1/p2p/"+newPeerID(t).String()), ",")
		nodes = append(nodes, start(t, settings))
		natives = append(natives, nodes[i].Addrs()[0])
	}
	for range 2 {
		settings := leastSettings(t)
		settings["modules"], settings["registry.heartbeat"], settings["indexer.natives"] = "indexer", heartbeat, strings.Join(natives, ",")
		nodes = append(nodes, start(t, settings))
	}
	for _, native := range nodes[:3] {
		eventually(t, "every native holds all and has heard the others", func() bool {
			s := samples(t, scrape(t, native))
			return s["ocnode_live_indexers"] == 2 && s["ocnode_announcements_heard_total"] > 0 && s["ocnode_gossip_mesh_peers"] == 2
		})
	}
	// And what else there is to be counted: a connection that ends, and messages that are
	// refused at either end.
	passing := stranger(t, nodes[0], 0)
	passing.SetStreamHandler("/opencloud/kad/1.0.0", func(s network.Stream) { _ = s.Reset() })
	eventually(t, "a server has refused a request", func() bool {
		return strings.Contains(scrape(t, nodes[0]), "kad_dht_rpc_outbound_request_errors_total{")
	})
	passing.RemoveStreamHandler("/opencloud/kad/1.0.0")
	useDHT(t, passing)
	askDHT(t, passing, nodes[0], 1_000_000)
	if err := passing.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all that there is has been counted", func() bool {
		s := scrape(t, nodes[0])
		return strings.Contains(s, "libp2p_swarm_dial_errors_total{") && strings.Contains(s, "libp2p_swarm_connections_closed_total{") &&
			strings.Contains(s, "kad_dht_rpc_outbound_request_errors_total{")
	})
	var all bytes.Buffer
	scrapes := make(map[*modules.Node]string)
	for _, node := range nodes {
		scrapes[node] = scrape(t, node)
		all.WriteString(scrapes[node])
	}

	t.Run("no PeerID is in any label", func(t *testing.T) {
		for _, node := range nodes {
			for name, spelling := range spellings(t, node.PeerID()) {
				if strings.Contains(strings.ToLower(all.String()), strings.ToLower(spelling)) {
					t.Errorf("%s, as %s", spelling, name)
				}
			}
		}
		for line := range strings.Lines(all.String()) {
			if foreign.MatchString(line) {
				t.Errorf("%s", line)
			}
		}
	})

	t.Run("names and units are as Prometheus asks", func(t *testing.T) {
		var theirs []string
		for _, node := range []*modules.Node{nodes[0], nodes[4]} {
			problems, err := promlint.New(strings.NewReader(scrapes[node])).Lint()
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range problems {
				if strings.HasPrefix(p.Metric, "ocnode_") {
					t.Errorf("%s: %s", p.Metric, p.Text)
				} else {
					theirs = append(theirs, p.Metric+": "+p.Text)
				}
			}
		}
		slices.Sort(theirs)
		theirs = slices.Compact(theirs)
		for _, problem := range theirs { // which we cannot mend, so this fails nothing
			if !slices.Contains(knownProblems, problem) {
				t.Logf("a library has a problem that is not in the list: %s", problem)
			}
		}
	})

	v := make(vocabulary)
	for _, node := range nodes {
		v.add(t, scrapes[node])
	}
	asked := make(map[string]bool)
	t.Run("the dashboard asks for what there is", func(t *testing.T) { maps.Copy(asked, checkDashboard(t, v)) })
	t.Run("the alerts ask for what there is", func(t *testing.T) { maps.Copy(asked, checkAlerts(t, v)) })
	native, indexer := families(t, scrapes[nodes[0]]), families(t, scrapes[nodes[4]])
	t.Run("the page tells of every metric", func(t *testing.T) { checkPage(t, metricsTable(native, indexer)) })
	t.Run("the dashboard or an alert asks for every metric", func(t *testing.T) {
		for name := range native {
			if strings.HasPrefix(name, "ocnode_") && !asked[name] && !asked[name+"_bucket"] {
				t.Errorf("nobody asks for %s", name)
			}
		}
	})
}

// foreign matches what none of a metric's labels may hold: a PeerID in base58, a CID in
// base36 or base32, an address, a pointer.
var foreign = regexp.MustCompile(`12D3Koo|Qm[1-9A-HJ-NP-Za-km-z]{20}|k[25][0-9a-z]{40}|baf[0-9a-z]{20}|/p2p/|/ip[46]/|\d+\.\d+\.\d+\.\d+|0x[0-9a-f]`)

// knownProblems are those of the libraries' names; ours have none.
var knownProblems = []string{
	`kad_dht_rpc_inbound_request_latency_milliseconds: use base unit "seconds" instead of "milliseconds"`,
	`kad_dht_rpc_outbound_request_latency_milliseconds: use base unit "seconds" instead of "milliseconds"`,
	`libp2p_identify_addrs_count: non-histogram and non-summary metrics should not have "_count" suffix`,
	`libp2p_identify_protocols_count: non-histogram and non-summary metrics should not have "_count" suffix`,
}

// spellings returns the forms of a PeerID that some library may write.
func spellings(t testing.TB, id ports.PeerID) map[string]string {
	t.Helper()
	decoded, err := peer.Decode(string(id))
	if err != nil {
		t.Fatal(err)
	}
	cid := peer.ToCid(decoded)
	forms := map[string]string{
		"base58": decoded.String(), "CID": cid.String(), "hex": hex.EncodeToString([]byte(decoded)),
		"the log's short form": decoded.String()[len(decoded.String())-6:],
	}
	for name, base := range map[string]multibase.Encoding{"base36": multibase.Base36, "base32": multibase.Base32} {
		if forms[name], err = cid.StringOfBase(base); err != nil {
			t.Fatal(err)
		}
	}
	return forms
}

// What one native tells another, what others ask, and who watches.
func TestFollowingLeavingAskingAndWatchingMoveTheirCounters(t *testing.T) {
	const joined, left, asked, watchers = 7, 3, 4, 2
	a := start(t, calm(t, "native,dht,gossip"))
	settings := calm(t, "native,dht,gossip")
	settings["host.bootstrap"] = a.Addrs()[0]
	b := start(t, settings)
	for _, n := range []*modules.Node{a, b} {
		eventually(t, "both follow each other", func() bool { return n.Registry().Following() == 1 })
	}
	say := func(h host.Host, node *modules.Node, to protocol.ID, frame string) network.Stream {
		t.Helper()
		id, err := peer.Decode(string(node.PeerID()))
		if err != nil {
			t.Fatal(err)
		}
		s, err := h.NewStream(t.Context(), id, to)
		if err == nil {
			_, err = io.WriteString(s, frame+"\n")
		}
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	answer := func(s network.Stream) string {
		t.Helper()
		text, err := io.ReadAll(s)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	before, beforeThere := samples(t, scrape(t, b)), samples(t, scrape(t, a))

	var indexers []host.Host
	for i := range joined {
		h := stranger(t, a, i)
		indexers = append(indexers, h)
		if got := register(t, h, a, h.ID()); !strings.Contains(got, `"OK":true`) {
			t.Fatal(got)
		}
	}
	lists := func(n int) func() bool {
		return func() bool { live, _ := b.Registry().Counts(); return live == n }
	}
	eventually(t, "the other native lists them", lists(joined))
	for _, h := range indexers[:left] {
		if got := answer(say(h, a, ports.LeaveProtocol, fmt.Sprintf(`{"PeerID":"%s"}`, h.ID()))); got != `{"OK":true}`+"\n" {
			t.Fatal(got)
		}
	}
	eventually(t, "the other native has heard of the leaves", lists(joined-left))
	reader := stranger(t, b, 0)
	for range asked {
		if got := answer(say(reader, b, ports.LookupProtocol, fmt.Sprintf(`{"PeerID":"%s"}`, newPeerID(t)))); !strings.Contains(got, "not_found") {
			t.Error(got)
		}
	}
	if got := answer(say(reader, b, ports.LookupProtocol, fmt.Sprintf(`{"PeerID":"%s"}`, indexers[left].ID()))); !strings.Contains(got, `"Source":"native"`) {
		t.Error(got)
	}
	for range watchers {
		s := say(reader, b, ports.WatchProtocol, `{}`)
		defer s.Reset()
		if _, err := s.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}

	want := map[string]float64{
		`ocnode_joins_total{via="native"}`:       joined,
		`ocnode_leaves_total{via="native"}`:      left,
		`ocnode_live_indexers`:                   joined - left,
		`ocnode_changes_told_total`:              joined + left,
		`ocnode_asked_total{result="not_found"}`: asked,
		`ocnode_watchers`:                        watchers,
	}
	wantThere := map[string]float64{
		`ocnode_registrations_total{result="accepted"}`: joined,
		`ocnode_joins_total{via="registration"}`:        joined,
		`ocnode_leaves_total{via="indexer"}`:            left,
		`ocnode_live_indexers`:                          joined - left,
	}
	counted := func(node *modules.Node, before map[string]float64) map[string]float64 {
		moved := differences(before, samples(t, scrape(t, node)))
		maps.DeleteFunc(moved, func(series string, _ float64) bool {
			for _, name := range []string{"registrations", "joins", "leaves", "live", "changes", "asked", "watchers", "follows", "natives", "condition", "expirations"} {
				if strings.HasPrefix(series, "ocnode_"+name) {
					return false
				}
			}
			return true
		})
		return moved
	}
	// What is listed, and answered, may not be counted yet.
	var got, gotThere map[string]float64
	defer func() {
		if t.Failed() {
			t.Logf("the follower moved %v, want %v; the one followed %v, want %v", got, want, gotThere, wantThere)
		}
	}()
	eventually(t, "what had to move has moved, and nothing else", func() bool {
		got, gotThere = counted(b, before), counted(a, beforeThere)
		return maps.Equal(got, want) && maps.Equal(gotThere, wantThere)
	})
}
