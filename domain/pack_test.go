package domain

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unique"

	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/ports"
	"pgregory.net/rapid"
)

// said are the proofs of one indexer: two records with a chain, of which one has many steps, one without, and a
// leave.
type said struct {
	id      ports.PeerID
	records []prooftest.Word
	leave   *ports.Proof
}

func newSaid(t testing.TB) said {
	x := prooftest.NewSigner(t)
	claim := func(n int, interval time.Duration) ports.Claim {
		c := ports.Claim{PeerID: x.PeerID, Seq: noon.wall.UnixMilli() + int64(n), Start: 7, Interval: interval, TTL: 66 * sec, Addrs: []string{"/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.2/tcp/1"}}
		if n == 1 {
			c.Addrs, c.Meta = c.Addrs[:1], map[string]string{"region": "eu", "empty": ""}
		}
		return c
	}
	s := said{id: x.PeerID}
	for n, interval := range []time.Duration{57 * sec, sec, 0} {
		c := claim(n, interval)
		var chain []ports.Link
		if interval > 0 {
			chain = x.Chain(100)
			c.Anchor = chain[0]
		} else {
			chain = make([]ports.Link, 1)
		}
		s.records = append(s.records, x.Word(t, c, chain))
	}
	s.leave = &ports.Proof{Record: x.Leaves(t, noon.wall, 7)}
	c, err := proof.NewVerifier().Read(s.leave.Record)
	if err != nil {
		t.Fatal(err)
	}
	s.leave.Claim, s.leave.Tick = c, ports.Tick{Seq: c.Seq, Link: c.Anchor}
	return s
}

// proof returns a record and one of its ticks.
func (s said) proof(t *rapid.T) *ports.Proof {
	w := rapid.SampledFrom(s.records).Draw(t, "record")
	p := w.Entry(rapid.Uint32Range(0, uint32(len(w.Chain)-1)).Draw(t, "step")).Proof
	claim := w.Claim
	p.Claim = &claim
	return p
}

// word returns a word of any kind.
func (s said) word(t *rapid.T, from source, leave bool) word {
	instant := func(name string) Instant { return Instant{time.Duration(rapid.Int64().Draw(t, name))} }
	w := word{
		overdue: rapid.Bool().Draw(t, "overdue"), source: from, leave: leave, native: unique.Make(ports.PeerID(rapid.SampledFrom([]string{"", "me", "n1", "n2", "n3"}).Draw(t, "native"))),
		deadline: instant("deadline"), expiresAt: rapid.Int64().Draw(t, "expires"),
	}
	if w.deadline == (Instant{}) {
		w.deadline = Instant{1}
	}
	switch rapid.IntRange(0, 2).Draw(t, "seen") {
	case 0:
		w.seenAt = w.expiresAt - int64(DefaultTTLPolicy().TTL)
	case 1:
		w.seenAt = rapid.Int64().Draw(t, "seen at")
	}
	switch signed := rapid.Bool().Draw(t, "signed"); {
	case signed && leave:
		w.proof, w.expiresAt = s.leave, s.leave.Claim.ExpiresAt(0).UnixNano()
	case signed:
		w.proof = s.proof(t)
		w.addr, w.details = claimedText(w.proof.Claim)
		if rapid.Bool().Draw(t, "in time") {
			w.expiresAt = w.proof.Claim.ExpiresAt(w.proof.Tick.Step).UnixNano()
		}
	default:
		addrs := make([]string, rapid.IntRange(0, 3).Draw(t, "addresses"))
		for i := range addrs {
			addrs[i] = fmt.Sprintf("/dns4/host%d.example/tcp/%d", rapid.IntRange(0, 3).Draw(t, "host"), i)
		}
		var meta map[string]string
		for i := range rapid.IntRange(0, 3).Draw(t, "labels") {
			if meta == nil {
				meta = make(map[string]string)
			}
			meta[fmt.Sprint("label", i)] = strings.Repeat("v", rapid.IntRange(0, 200).Draw(t, "value"))
		}
		if w.addr = "/ip4/10.1.2.3/tcp/4001"; len(addrs) > 0 {
			w.addr = addrs[0]
		} else if leave {
			w.addr = ""
		}
		w.details = detailsOf(addrs, meta)
		w.unproven = !leave && rapid.Bool().Draw(t, "unproven")
	}
	return w
}

// holding returns a holding of any kind.
func (s said) holding(t *rapid.T) holding {
	var h holding
	var leases []word
	for range rapid.IntRange(0, maxLeases).Draw(t, "leases") {
		leases = append(leases, s.word(t, rapid.SampledFrom([]source{stored, told, granted}).Draw(t, "source"), false))
	}
	var v leaves
	if rapid.Bool().Draw(t, "left") {
		w := s.word(t, rapid.SampledFrom([]source{told, granted}).Draw(t, "leave of"), true)
		v.said = &w
	}
	if rapid.Bool().Draw(t, "left in store") {
		w := s.word(t, stored, true)
		v.stored = &w
	}
	if len(leases) > 0 {
		h.first = leases[0]
	}
	remembered := rapid.Bool().Draw(t, "remembered")
	if len(leases) > 1 || v != (leaves{}) || remembered {
		h.rest = newRest(leases[min(1, len(leases)):], v)
	}
	if remembered {
		h.rest.proof, h.rest.until = s.proof(t), Instant{time.Duration(rapid.Int64().Draw(t, "until"))}
	}
	return h
}

// plainly is a holding with everything behind its pointers.
func plainly(h *holding) string {
	var b strings.Builder
	say := func(what string, w *word) {
		c := *w
		c.proof, c.early, c.details = nil, nil, nil
		fmt.Fprintf(&b, "%s %s %+v", what, w.native.Value(), c)
		if w.details != nil {
			fmt.Fprintf(&b, " %+v", *w.details)
		}
		if p := w.proof; p != nil {
			fmt.Fprintf(&b, " %x %+v %+v", p.Record, p.Tick, *p.Claim)
		}
		fmt.Fprintln(&b)
	}
	if h.first.deadline != (Instant{}) {
		say("first", &h.first)
	}
	if r := h.rest; r != nil {
		fmt.Fprintf(&b, "rest %t %v\n", r.store, r.until)
		for i := range r.leases {
			say("lease", &r.leases[i])
		}
		if r.leaves.said != nil {
			say("said", r.leaves.said)
		}
		if r.leaves.stored != nil {
			say("stored", r.leaves.stored)
		}
		if p := r.proof; p != nil {
			fmt.Fprintf(&b, "remembered %x %+v %+v\n", p.Record, p.Tick, *p.Claim)
		}
	}
	return b.String()
}

// A holding is the same after it was packed and unpacked, whatever its words are. All that natives say
// packs, but for the largest.
func TestAHoldingIsUnpackedAsItWasPacked(t *testing.T) {
	s := newSaid(t)
	table := newTable(DefaultTTLPolicy(), Bounds{})
	table.proofs = proof.NewVerifier()
	table.names.fix(selfName, "me")
	rapid.Check(t, func(t *rapid.T) {
		h := s.holding(t)
		want := plainly(&h)
		packed, ok := table.pack(&h, nil)
		if !ok {
			if len(want) < maxPacked {
				t.Fatalf("it does not pack: %s", want)
			}
			return
		}
		if got := plainly(table.unpack(s.id, packed, true)); got != want {
			t.Fatalf("unpacked:\n%s\npacked:\n%s", got, want)
		}
		table.unname(packed)
	})
	if len(table.names.byID) != 2 {
		t.Errorf("natives that no word names are kept: %v", table.names.byID)
	}
}

// eachPacked calls check with holdings of any kind, each with its packed form in a table.
func (s said) eachPacked(t *testing.T, proofs *proof.Verifier, check func(t *rapid.T, table *table, h *holding, packed []byte)) {
	table := newTable(DefaultTTLPolicy(), Bounds{})
	table.proofs = proofs
	table.names.fix(selfName, "me")
	rapid.Check(t, func(t *rapid.T) {
		h := s.holding(t)
		if packed, ok := table.pack(&h, nil); ok {
			defer table.unname(packed)
			check(t, table, &h, packed)
		}
	})
}

// A follower is told of a holding with a lease of the native that tells, a lease of its own, or a leave.
func TestAPackedHoldingTellsWhomItConcerns(t *testing.T) {
	seen := make(map[bool]int)
	newSaid(t).eachPacked(t, proof.NewVerifier(), func(t *rapid.T, table *table, h *holding, packed []byte) {
		for _, follower := range []ports.PeerID{"n1", "n2", "nobody"} {
			v := h.rest
			want := v != nil && (v.leaves.said != nil || v.leaves.stored != nil)
			h.leases(func(w *word) bool {
				want = want || w.source == granted || w.native.Value() == follower
				return !want
			})
			if got := concerns(packed, table.names.number(follower)); got != want {
				t.Fatalf("concerns %s: %v, want %v\n%s", follower, got, want, plainly(h))
			}
			seen[want]++
		}
	})
	if seen[true] == 0 || seen[false] == 0 {
		t.Errorf("holdings: %v, want some of both", seen)
	}
}

// A word has no field that pack does not know.
func TestPackKnowsAllFieldsOfAWord(t *testing.T) {
	var fields []string
	for f := range reflect.TypeFor[word]().Fields() {
		fields = append(fields, f.Name)
	}
	if want := []string{"addr", "details", "native", "deadline", "expiresAt", "seenAt", "source", "leave", "overdue", "unproven", "proof", "early"}; !slices.Equal(fields, want) {
		t.Errorf("a word has %v: pack, unpack and this list are to have them all", fields)
	}
}

// What does not pack is held all the same.
func TestWhatDoesNotPackIsHeldAsItIs(t *testing.T) {
	b := newShelf(t)
	large := lease(granted, "me", 66*sec)
	large.details = detailsOf(nil, map[string]string{"large": strings.Repeat("x", maxPacked)})
	b.hears(large, noon)
	r := b.s.record("x")
	if got := r.holding().first; r.block != 0 || !got.same(&large) {
		t.Errorf("it is %+v", got)
	}
	b.hears(lease(granted, "me", 67*sec), later(sec))
	if r := b.s.record("x"); r.block == 0 || len(b.s.odd) != 0 || r.holding().first.details != nil {
		t.Errorf("it is small now, and is %+v", r.holding())
	}
}

// The arena gives back what it needs no more, whatever sizes come and go, and no block is lost or mixed
// with another.
func TestTheArenaIsThatOfAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var slots slab
		slots.chunks.Store(&[]*chunk{})
		a := arena{slots: &slots}
		model := map[uint32][]byte{}
		for round := range 3 {
			for i, size := range rapid.SliceOfN(rapid.OneOf(rapid.IntRange(0, 300), rapid.IntRange(0, maxPacked)), 0, 300).Draw(t, "sizes") {
				n := uint32(i)
				if _, ok := model[n]; !ok {
					n = slots.take()
				}
				is := slots.at(n)
				if size%5 == 4 {
					a.free(is.block)
					slots.drop(n)
					delete(model, n)
					continue
				}
				content := []byte(strings.Repeat(string(rune('a'+(i+round)%26)), size))
				is.block = a.put(n, is.block, content)
				model[n] = content
			}
			bytes := 0
			for n, content := range model {
				_, large := sizeOf(len(content))
				bytes += large
				if got := a.at(slots.at(n).block); string(got[:len(content)]) != string(content) {
					t.Fatalf("slot %d has %q, want %q", n, got, content)
				}
			}
			held, sizes := 0, 0
			for size, b := range a.sizes {
				for _, c := range b.chunks {
					held += len(c)
				}
				if b.used > 0 {
					sizes += 2 * int(blocksAChunk(size)) * blockBytes(size)
				}
			}
			if held > bytes+sizes {
				t.Fatalf("%d bytes are held for %d", held, bytes)
			}
		}
	})
}

// counted is a Verifier that counts the records that it makes anew.
type counted struct {
	ports.Verifier
	records int
}

func (c *counted) Record(claim *ports.Claim, signature [ports.SignatureBytes]byte) ([]byte, error) {
	c.records++
	return c.Verifier.Record(claim, signature)
}

// A page and a snapshot without proofs make no record anew, and say the same as those with proofs.
func TestAnAnswerWithoutProofsMakesNoRecordAnew(t *testing.T) {
	verifier := &counted{Verifier: proof.NewVerifier()}
	r, _ := bareRegistry(t, "me", func(rules *Rules, _ *Settings) { rules.Proofs = verifier })
	for range 3 {
		x := prooftest.NewSigner(t)
		chain := x.Chain(10)
		w := x.Word(t, ports.Claim{
			PeerID: x.PeerID, Seq: time.Now().Add(-3 * 57 * sec).UnixMilli(), Start: 7, Interval: 57 * sec, TTL: 66 * sec, Anchor: chain[0],
			Addrs: []string{"/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.2/tcp/1"}, Meta: map[string]string{"region": "eu"},
		}, chain)
		if _, err := r.Register(t.Context(), x.PeerID, w.Registration(3)); err != nil {
			t.Fatal(err)
		}
		e := w.Entry(2)
		e.Native = "other"
		r.takeChanges("other", []ports.Change{{Kind: ports.ChangeJoined, Listed: ports.Listed{Entry: e, Remaining: 66 * sec}}})
	}
	snapshot := func(proofs bool) (all []ports.Listed) {
		for b, err := range r.Watch(t.Context(), "reader", ports.WatchRequest{Proofs: proofs}) {
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range b.Changes {
				all = append(all, c.Listed)
			}
			if b.Cursor != "" {
				break
			}
		}
		return all
	}
	list := func(proofs bool) []ports.Listed {
		page, err := r.List(t.Context(), "reader", ports.Query{Proofs: proofs})
		if err != nil {
			t.Fatal(err)
		}
		return page.Entries
	}
	for name, ask := range map[string]func(bool) []ports.Listed{"page": list, "snapshot": snapshot} {
		for i := range r.table.shards {
			r.table.shards[i].unpacked.holding = nil
		}
		verifier.records = 0
		without := ask(false)
		if verifier.records > 0 {
			t.Errorf("a %s without proofs makes %d records anew", name, verifier.records)
		}
		with := ask(true)
		if len(with) != 3 || len(without) != 3 || verifier.records == 0 {
			t.Fatalf("a %s has %d entries with proofs, and %d without", name, len(with), len(without))
		}
		for i := range with {
			if p := with[i].Proof; p == nil || len(p.Record) == 0 {
				t.Errorf("a %s with proofs has none", name)
			}
			with[i].Proof, with[i].Remaining, without[i].Remaining = nil, 0, 0
			if !reflect.DeepEqual(with[i], without[i]) {
				t.Errorf("a %s without proofs says %+v, and with them %+v", name, without[i], with[i])
			}
		}
	}
}
