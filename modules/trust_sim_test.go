package modules_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/fx"

	"github.com/opencloud/ocnode/modules"
	"github.com/opencloud/ocnode/modules/config"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// id is who the member is, before it has started too.
func (m *member) id() ports.PeerID {
	m.t.Helper()
	flags := flags(m.t, "--data.dir="+m.all()["data.dir"])
	cfg, err := modules.Schema(modules.Builtin()).Load(config.Sources{Flags: flags})
	if err != nil {
		m.t.Fatal(err)
	}
	id, err := modules.Identity(cfg)
	if err != nil {
		m.t.Fatal(err)
	}
	return id
}

// list is what a setting has of these members.
func list(members ...*member) string {
	ids := make([]string, len(members))
	for i, m := range members {
		ids[i] = string(m.id())
	}
	return strings.Join(ids, ",")
}

// reload has the node take over a setting, as it does at SIGHUP.
func (m *member) reload(key, value string) {
	m.t.Helper()
	m.settings[key] = value
	plan, err := planOf(m.t, m.all(), m.more...)
	if err != nil {
		m.t.Fatal(err)
	}
	m.node.Reload(plan)
}

// closedNetwork makes three natives, which are on the list of each, and four indexers, which
// are too unless indexers are not listed, and starts them.
func (s *simulation) closedNetwork(listed bool) (natives, indexers []*member, told map[*member]*porttest.Recorder) {
	s.t.Helper()
	for _, name := range []string{"closed-0", "closed-1", "closed-2"} {
		natives = append(natives, s.member(name, map[string]string{"modules": "native,dht,gossip"}))
	}
	for _, name := range []string{"friend-0", "friend-1", "friend-2", "friend-3"} {
		indexers = append(indexers, s.member(name, map[string]string{"modules": "indexer"}))
	}
	told = make(map[*member]*porttest.Recorder)
	for i, n := range natives {
		n.settings["trust.natives"] = list(natives...)
		if listed {
			n.settings["trust.indexers"] = list(indexers...)
		}
		if i > 0 {
			n.settings["host.bootstrap"] = natives[0].addr()
		}
		n.more = []modules.Module{{Name: "probe", Summary: "of the tests", Always: true, Wire: func(*modules.Plan) fx.Option {
			return fx.Invoke(func(s ports.Store) { n.servers = s.(interface{ Peers() int }).Peers })
		}}}
		told[n] = &porttest.Recorder{}
		n.observers = append(n.observers, told[n])
		n.start()
	}
	time.Sleep(3 * time.Second)
	for i, x := range indexers {
		x.settings["indexer.natives"] = natives[i%len(natives)].addr()
		x.settings["trust.natives"] = list(natives...)
		x.start()
	}
	s.settle(natives, indexers)
	return natives, indexers, told
}

// TestSimOutsidersOfAClosedNetwork has an open native with an indexer of its own, which knows
// all of the closed ones, an indexer that is on no list, and a bare peer that gossips.
func TestSimOutsidersOfAClosedNetwork(t *testing.T) {
	t.Run("natives and indexers are listed", func(t *testing.T) { outsidersOfAClosedNetwork(t, true) })
	t.Run("natives are listed", func(t *testing.T) { outsidersOfAClosedNetwork(t, false) })
}

func outsidersOfAClosedNetwork(t *testing.T, listed bool) {
	const minutes = 3
	flood := porttest.Scale(5000, 500)
	simulate(t, func(t *testing.T, s *simulation) {
		natives, indexers, told := s.closedNetwork(listed)
		var everybody []string
		for _, n := range natives {
			everybody = append(everybody, n.addr())
		}
		outsider := s.member("outsider", map[string]string{"modules": "native,dht,gossip", "host.bootstrap": strings.Join(everybody, ",")})
		outsider.start()
		ours := s.member("ours", map[string]string{"modules": "indexer", "indexer.natives": outsider.addr()})
		ours.start()
		refused := s.member("refused", map[string]string{"modules": "indexer", "indexer.natives": natives[0].addr()})
		attempts := &porttest.Recorder{}
		refused.observers = append(refused.observers, attempts)
		refused.start()
		bare := s.bare("1.201.0.1")
		defer bare.Close()
		gossip, err := pubsub.NewGossipSub(t.Context(), bare)
		if err != nil {
			t.Fatal(err)
		}
		topic, err := gossip.Join("oc-indexer-registry")
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range append(slices.Clone(natives), outsider) {
			info, err := peer.AddrInfoFromString(n.addr())
			if err != nil {
				t.Fatal(err)
			}
			if err := bare.Connect(t.Context(), *info); err != nil {
				t.Fatal(err)
			}
		}
		made := strangers(t, flood/50)
		time.Sleep(2 * time.Second)

		outsiders := append([]ports.PeerID{ours.id(), outsider.id()}, made...)
		if listed {
			outsiders = append(outsiders, refused.id())
		}
		published, samples := 0, 0
		for began := time.Now(); time.Since(began) < minutes*time.Minute; time.Sleep(100 * time.Millisecond) {
			for ; published < flood && published < int(time.Since(began)/(20*time.Millisecond)); published++ {
				if err := topic.Publish(t.Context(), []byte(made[published%len(made)])); err != nil {
					t.Fatal(err)
				}
			}
			if !everyone(natives, indexers)() {
				t.Fatal("an indexer of the network is missing somewhere")
			}
			for _, n := range natives {
				for _, id := range outsiders {
					samples++
					if _, listed := n.node.Registry().Get(id); listed {
						t.Fatalf("%s lists the outsider %s", n.name, id)
					}
				}
			}
		}

		lookedUp, announced, watches := 0, 0, 0
		for _, n := range natives {
			for _, e := range told[n].Of(ports.EventLookedUp) {
				if slices.Contains(outsiders, e.PeerID) {
					lookedUp++
				}
			}
			for _, e := range told[n].Of(ports.EventHeard) {
				if slices.Contains(outsiders, e.PeerID) || e.Via == outsider.id() {
					announced++
				}
			}
			for _, e := range told[n].Of(ports.EventUntrusted) {
				if e.What == ports.UntrustedWatch && e.PeerID == outsider.id() {
					watches++
				}
			}
			// It would be found in the DHT's records here, if the outsider could put them.
			if _, err := n.node.Registry().LookUp(t.Context(), "", ours.id()); !errors.Is(err, ports.ErrNotFound) {
				t.Errorf("%s says of the outsider's indexer %v", n.name, err)
			}
			if got := n.node.Registry().Following(); got != len(natives)-1 {
				t.Errorf("%s follows %d natives, want the %d others on its list", n.name, got, len(natives)-1)
			}
		}
		t.Logf("%d announcements of outsiders, of %d PeerIDs, and an open native with an indexer: of %d samples none listed, %d looked up, %d heard, %d watches refused",
			published, len(made), samples, lookedUp, announced, watches)
		if lookedUp != 0 || announced != 0 || watches == 0 || published != flood {
			t.Errorf("%d were looked up and %d heard; %d watches were refused", lookedUp, announced, watches)
		}
		granted := attempts.Count(ports.EventLeaseGranted) > 0
		if failed := attempts.Of(ports.EventLeaseFailed); granted == listed || listed && (len(failed) == 0 || failed[0].Code != ports.CodeRefused) {
			t.Errorf("the indexer on no list has a lease: %t, and was told %+v", granted, failed)
		}
		if _, ok := outsider.node.Registry().Get(ours.id()); !ok {
			t.Error("the open native does not list its own indexer: it shows nothing that the others do not")
		}
		// Reading is for everyone.
		remote, err := outsider.node.Registry().Natives(t.Context(), "")
		if err != nil || len(remote) != len(natives) {
			t.Errorf("the outsider is connected to %d natives, %v", len(remote), err)
		}
		stopAll([]*member{refused, ours, outsider}, indexers, natives)
	})
}

// TestSimANativeTakenOffTheListIsAnOutsiderWithinSeconds takes one of three natives off the
// lists of the others while all run, and puts it there again.
// TestSimAnOpenNativeIsClosedAndOpenedAgain has the first list of natives come at SIGHUP.
func TestSimAnOpenNativeIsClosedAndOpenedAgain(t *testing.T) {
	simulate(t, func(t *testing.T, s *simulation) {
		m := s.member("native", map[string]string{"modules": "native,dht,gossip"})
		var store ports.Store
		m.more = []modules.Module{{Name: "probe", Summary: "of the tests", Always: true, Wire: func(*modules.Plan) fx.Option {
			return fx.Invoke(func(s ports.Store) { store = s })
		}}}
		out := m.quiet()
		m.start()
		// puts registers a plain indexer, and sees its entry put if that is granted.
		puts := func() error {
			t.Helper()
			id := strangers(t, 1)[0]
			if _, err := m.node.Registry().Register(t.Context(), id, ports.Registration{PeerID: id, Addr: "/ip4/192.0.2.1/tcp/4001"}); err != nil {
				return err
			}
			e, ok := m.node.Registry().Published(id) // the view of the store, which keeps no copy
			if !ok || e.Proof != nil {
				t.Errorf("a plain entry is shown in the store as %+v, %v", e, ok)
			}
			if _, err := store.Put(t.Context(), e); err != nil {
				t.Errorf("the store takes no plain entry: %v", err)
			}
			return nil
		}
		opened := 1
		for _, c := range []struct {
			key, value string
			refused    bool
			opens      int
		}{
			{key: "log.level", value: "info"},
			{key: "trust.natives", value: list(m)},
			{key: "trust.plain", value: "refuse", refused: true},
			{key: "trust.plain", value: "accept"},
			{key: "trust.natives", value: "", opens: 1},
		} {
			m.reload(c.key, c.value)
			err := puts()
			if refusal, refused := errors.AsType[*ports.Refusal](err); refused != c.refused || refused && refusal.Code != ports.CodeRefused {
				t.Errorf("%s %q: a plain registration: %v, want it refused: %t", c.key, c.value, err, c.refused)
			}
			opened += c.opens
			if n := len(out.lines("this network is open")); n != opened {
				t.Errorf("%s %q: told %d times that it is open, want %d", c.key, c.value, n, opened)
			}
		}
		m.stop()
	})
}

func TestSimANativeTakenOffTheListIsAnOutsiderWithinSeconds(t *testing.T) {
	simulate(t, func(t *testing.T, s *simulation) {
		natives, indexers, told := s.closedNetwork(true)
		gone, rest := natives[2], natives[:2]
		for _, n := range rest {
			if got := n.servers(); got != 2 {
				t.Errorf("%s has %d servers of the DHT, want the 2 others", n.name, got)
			}
		}
		late := s.member("late", map[string]string{"modules": "indexer", "indexer.natives": gone.addr()})
		for _, n := range natives {
			n.reload("trust.indexers", list(append(slices.Clone(indexers), late)...))
		}
		for _, n := range rest {
			n.reload("trust.natives", list(rest...))
			if got := n.servers(); got > 1 {
				t.Errorf("%s has %d servers of the DHT, want the one that is still on its list", n.name, got)
			}
		}
		follow := func(count int) func() bool {
			return func() bool {
				return !slices.ContainsFunc(rest, func(n *member) bool { return n.node.Registry().Following() != count })
			}
		}
		took, ok := until(5*time.Second, func() bool { return follow(1)() && gone.node.Registry().Following() == 0 })
		if !ok {
			t.Errorf("%v after it was taken off the list it is followed or follows", took)
		}
		t.Logf("taken off the list it neither followed nor was followed after %v", took)

		time.Sleep(5 * time.Second) // whatever was under way
		for _, n := range rest {
			told[n].Take()
		}
		late.start()
		own := []*member{indexers[0], indexers[1], indexers[3]} // with leases at the others
		for range 1200 {
			time.Sleep(100 * time.Millisecond)
			for _, n := range rest {
				if n.lists(late) {
					t.Fatalf("%s lists what only the one taken off the list can tell of", n.name)
				}
			}
			if !everyone(rest, own)() {
				t.Fatal("an indexer of the others is missing")
			}
		}
		if !gone.lists(late) {
			t.Fatal("the one taken off the list does not list its own indexer")
		}
		for _, n := range rest {
			for _, kind := range []ports.EventKind{ports.EventHeard, ports.EventTold} {
				for _, e := range told[n].Of(kind) {
					if e.Via == gone.id() {
						t.Errorf("%s: %+v", n.name, e)
					}
				}
			}
		}

		for _, n := range rest {
			n.reload("trust.natives", list(natives...))
		}
		took, ok = until(10*time.Second, func() bool { return follow(2)() && everyone(natives, append(slices.Clone(indexers), late))() })
		if !ok {
			t.Errorf("%v after it was put on the list again not everyone is listed by all", took)
		}
		t.Logf("on the list again everyone was listed by all after %v", took)
		late.stop() // a native announces a leave and a join also to natives that follow it
		late.start()
		for _, n := range rest {
			heard := func() bool {
				return slices.ContainsFunc(told[n].Of(ports.EventHeard), func(e ports.Event) bool { return e.Via == gone.id() })
			}
			if _, ok := until(2*time.Minute, heard); !ok {
				t.Errorf("%s does not hear its gossip", n.name)
			}
		}

		// An indexer that is taken off is gone from all at once.
		for _, n := range natives {
			n.reload("trust.indexers", list(indexers...))
			if n.lists(late) {
				t.Errorf("%s lists an indexer that it was told not to trust", n.name)
			}
		}
		time.Sleep(2 * time.Minute)
		for _, n := range natives {
			if n.lists(late) {
				t.Errorf("%s lists it again", n.name)
			}
			if _, err := n.node.Registry().LookUp(t.Context(), "", late.id()); !errors.Is(err, ports.ErrNotFound) {
				t.Errorf("%s says of it %v", n.name, err)
			}
		}
		if !everyone(natives, indexers)() {
			t.Error("an indexer on the list is missing")
		}
		stopAll([]*member{late}, indexers, natives)
	})
}

// A list that is the wrong file may be a key, which ends up in a log.
func TestWhatStandsInAListIsNotToldWhole(t *testing.T) {
	const key = "d8d5dd95c1f0a1c2d8d5dd95c1f0a1c2d8d5dd95c1f0a1c2d8d5dd95c1f085be"
	file := filepath.Join(t.TempDir(), "network.psk")
	if err := os.WriteFile(file, []byte("/key/swarm/psk/1.0.0/\n/base16/\n"+key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	settings := leastSettings(t)
	settings["trust.natives"] = "file:" + file
	_, err := planOf(t, settings)
	if err == nil || strings.Contains(err.Error(), key[8:]) || !strings.Contains(err.Error(), file+`:3: "d8d5dd95…" is not a PeerID`) {
		t.Errorf("it says %v", err)
	}
}
