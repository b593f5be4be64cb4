package kaddht

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	ds "github.com/ipfs/go-datastore"
	record "github.com/libp2p/go-libp2p-record"
	recpb "github.com/libp2p/go-libp2p-record/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/multiformats/go-base32"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/opencloud/ocnode/adapters/internal/hosttest"
	"github.com/opencloud/ocnode/adapters/internal/metricstest"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// native is a Store with a view of a table that the test writes, and the natives that follow it.
type native struct {
	*Store
	mu        sync.Mutex
	table     map[ports.PeerID]ports.Entry
	followers map[ports.PeerID]bool
}

func newNative(t testing.TB, h host.Host) *native {
	t.Helper()
	h.SetStreamHandler(ports.FollowProtocol, func(s network.Stream) { _ = s.Reset() })
	n := &native{table: make(map[ports.PeerID]ports.Entry), followers: make(map[ports.PeerID]bool)}
	n.Store = newStoreOf(t, h, Config{Server: true, Accept: rule, TTL: porttest.TTL, Follows: func(id ports.PeerID) bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.followers[id]
	}})
	n.Show(func(id ports.PeerID) (ports.Entry, bool) {
		n.mu.Lock()
		defer n.mu.Unlock()
		e, ok := n.table[id]
		return e, ok
	})
	return n
}

func (n *native) lists(entries ...ports.Entry) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range entries {
		n.table[e.PeerID] = e
	}
}

func (n *native) forgets(id ports.PeerID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.table, id)
}

// follow has other natives follow n, or follow it no more.
func (n *native) follow(follows bool, others ...host.Host) {
	n.mu.Lock()
	for _, h := range others {
		n.followers[ports.PeerID(h.ID().String())] = follows
	}
	n.mu.Unlock()
	n.Refollow()
}

// strangers returns how many servers n would put to.
func (n *native) strangers() int { return int(n.servers.strangers.Load()) }

// servesOne returns a native that a reader asks, and the reader.
func servesOne(t *testing.T) (n *native, reader *Store) {
	t.Helper()
	hosts := hosttest.Simulate(t, 2)
	n = newNative(t, hosts[0])
	return n, clientOn(t, hosts[1], hosts[0])
}

func TestANativeAnswersFromItsTable(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		n, reader := servesOne(t)
		e := entryFor(t)
		found := func() bool {
			t.Helper()
			got, err := reader.Get(t.Context(), e.PeerID, ports.Version{})
			if err != nil && !errors.Is(err, ports.ErrNotFound) || err == nil && (got.Addr != e.Addr || !got.ExpiresAt.Equal(e.ExpiresAt)) {
				t.Errorf("got %+v, %v", got, err)
			}
			return err == nil
		}
		if found() {
			t.Error("found what the table does not have")
		}
		n.lists(e)
		if !found() {
			t.Error("not found what the table has")
		}
		time.Sleep(time.Hour) // longer than the DHT keeps a record
		e.ExpiresAt = time.Now().Add(porttest.TTL).UTC().Round(0)
		n.lists(e)
		if !found() {
			t.Error("not found what is renewed in the table for long")
		}
		n.forgets(e.PeerID)
		if found() {
			t.Error("found what the table has no more")
		}
		if n.Records() != 0 {
			t.Errorf("%d copies are held", n.Records())
		}
	})
}

func TestOfTheTableAndAPutTheBetterIsTheAnswer(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		n, reader := servesOne(t)
		for _, c := range []struct {
			name          string
			table, put    time.Duration // until the entry's end; 0 for none
			taken, stored bool
			answer        time.Duration
		}{
			{"the table alone", time.Minute, 0, false, false, time.Minute},
			{"a put alone", 0, time.Minute, true, true, time.Minute},
			{"a put that is older", time.Minute, time.Minute - 1, false, false, time.Minute},
			{"a put of the table's own value", time.Minute, time.Minute, true, false, time.Minute},
			{"a put that is newer", time.Minute, time.Minute + 1, true, true, time.Minute + 1},
			{"a put that is too new", time.Minute, 2 * time.Minute, false, false, time.Minute},
		} {
			e := entryFor(t)
			began := time.Now().UTC().Round(0)
			if c.table > 0 {
				e.ExpiresAt = began.Add(c.table)
				n.lists(e)
			}
			before := n.Records()
			if c.put > 0 {
				p := e
				p.ExpiresAt = began.Add(c.put)
				err := reader.messenger.PutValue(t.Context(), n.host.ID(), record.MakePutRecord(keyOf(e.PeerID), valueOf(t, p)))
				if (err == nil) != c.taken {
					t.Errorf("%s: taken: %v", c.name, err)
				}
			}
			if stored := n.Records() > before; stored != c.stored {
				t.Errorf("%s: stored: %v", c.name, stored)
			}
			if got, err := reader.Get(t.Context(), e.PeerID, ports.Version{}); err != nil || got.ExpiresAt.Sub(began) != c.answer {
				t.Errorf("%s: got %+v, %v", c.name, got, err)
			}
		}
	})
}

// A put of a stranger may be a lie, as ever. It is the answer until it ends, and the table's word is
// again from then on.
func TestALieGoesAndTheTableIsTheAnswerAgain(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		n, reader := servesOne(t)
		e := entryFor(t)
		lie := e
		lie.Addr, lie.ExpiresAt = "/ip4/6.6.6.6/tcp/6", e.ExpiresAt.Add(29*time.Second)
		n.lists(e)
		if err := reader.messenger.PutValue(t.Context(), n.host.ID(), record.MakePutRecord(keyOf(e.PeerID), valueOf(t, lie))); err != nil {
			t.Fatal(err)
		}
		if got, err := n.Local(e.PeerID, ports.Version{}); err != nil || got.Addr != lie.Addr {
			t.Errorf("what this native looks up is %+v, %v, want what others put", got, err)
		}
		time.Sleep(time.Until(lie.ExpiresAt) - time.Second)
		answer := func() string {
			got, err := reader.Get(t.Context(), e.PeerID, ports.Version{})
			if err != nil {
				return err.Error()
			}
			return got.Addr
		}
		if got := answer(); got != lie.Addr {
			t.Errorf("before its end the answer is %s", got)
		}
		time.Sleep(time.Until(lie.ExpiresAt))
		e.ExpiresAt = time.Now().Add(porttest.TTL).UTC().Round(0)
		n.lists(e)
		if got := answer(); got != e.Addr {
			t.Errorf("after its end the answer is %s", got)
		}
	})
}

// A record that is old goes, although the view has a new one under its key.
func TestARecordBehindTheViewIsForgotten(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		n, reader := servesOne(t)
		e := entryFor(t)
		if err := reader.messenger.PutValue(t.Context(), n.host.ID(), record.MakePutRecord(keyOf(e.PeerID), valueOf(t, e))); err != nil {
			t.Fatal(err)
		}
		for range 2 * int((ports.RecordLife+ports.ClockAllowance)/porttest.TTL) {
			time.Sleep(porttest.TTL)
			e.ExpiresAt = time.Now().Add(porttest.TTL).UTC().Round(0)
			n.lists(e)
		}
		if n.Records() != 0 {
			t.Errorf("%d records are still held", n.Records())
		}
	})
}

// A search puts its result to each of the near servers that had other bytes.
func TestASearchRepairsNothingWhereNativesHaveTheSameNews(t *testing.T) {
	reg := prometheus.NewRegistry()
	newStoreOf(t, hosttest.New(t), Config{Accept: rule, TTL: porttest.TTL, Metrics: reg}) // its library's metrics are all Stores'
	puts := func() float64 {
		return metricstest.Gather(t, reg)[`kad_dht_rpc_outbound_requests_total{message_type="PUT_VALUE"}`]
	}
	natives := []*native{newNative(t, hosttest.New(t)), newNative(t, hosttest.New(t)), newNative(t, hosttest.New(t))}
	reader := clientOn(t, hosttest.New(t), natives[0].host, natives[1].host, natives[2].host)
	search := func(e ports.Entry) float64 {
		t.Helper()
		before := puts()
		values, err := reader.dht.SearchValue(t.Context(), keyOf(e.PeerID))
		if err != nil {
			t.Fatal(err)
		}
		answers := 0
		for range values {
			answers++
		}
		if answers == 0 {
			t.Error("the search found nothing")
		}
		return puts() - before
	}
	same := entryFor(t)
	for _, n := range natives {
		n.lists(same)
	}
	if n := search(same); n != 0 {
		t.Errorf("a search of the same entry put %v values", n)
	}
	other := entryFor(t)
	natives[0].lists(other)
	before := puts()
	search(other) // its repairs come behind its end
	porttest.Eventually(t, "a search repairs the natives that have no entry", func() bool {
		return natives[1].Records() == 1 && natives[2].Records() == 1 && puts() == before+2
	})
}

func TestKeysOfTheDatastore(t *testing.T) {
	id := hosttest.PeerID(t)
	encode := func(key string) string { return base32.RawStdEncoding.EncodeToString([]byte(key)) }
	for key, want := range map[string]ports.PeerID{
		"/indexer/" + encode(keyOf(id)):            id,
		"/indexer/" + encode(keyOf("x")):           "x",
		"/indexer/" + encode("/other/"+string(id)): "",
		"/indexer/" + encode(string(id)):           "",
		"/indexer/0189":                            "",
		"/indexer":                                 "",
		"/indexer/a/" + encode(keyOf(id)):          "",
		"/indexer/" + encode(keyOf(ports.PeerID(bytes.Repeat([]byte("1"), maxPeerIDBytes+1)))): "",
	} {
		if got, ok := peerIn(ds.NewKey(key)); ok != (want != "") || ok && got != want {
			t.Errorf("%s is of %q, %v; want %q", key, got, ok, want)
		}
	}
}

// The record of a view is received now, whatever the DHT's limit of age is.
func TestTheViewIsNeverOld(t *testing.T) {
	v := &viewed{datastore: newDatastore(1000, never), validator: validator{accept: rule, read: unread}}
	e := entryFor(t)
	show := View(func(ports.PeerID) (ports.Entry, bool) { return e, true })
	v.view.Store(&show)
	key := ds.NewKey("/indexer/" + base32.RawStdEncoding.EncodeToString([]byte(keyOf(e.PeerID))))
	b, err := v.Get(context.Background(), key)
	var rec recpb.Record
	if err := errors.Join(err, proto.Unmarshal(b, &rec)); err != nil {
		t.Fatal(err)
	}
	received, err := time.Parse(time.RFC3339Nano, rec.GetTimeReceived())
	if ago := time.Since(received); err != nil || ago < 0 || ago > porttest.Patience || string(rec.GetKey()) != keyOf(e.PeerID) {
		t.Errorf("record of %s is received %v ago (%v)", rec.GetKey(), ago, err)
	}
	if has, err := v.Has(t.Context(), key); !has || err != nil {
		t.Errorf("has: %v, %v", has, err)
	}
	if n, err := v.GetSize(t.Context(), key); n == 0 || err != nil {
		t.Errorf("size: %d, %v", n, err)
	}
}
