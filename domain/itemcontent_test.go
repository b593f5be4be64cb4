package domain

import (
	"fmt"
	"hash/fnv"
	"maps"
	"os"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// A change of what a plain lease says is lost, and its next renewal comes before the next sum.
func TestALostChangeOfAPlainLeaseIsMendedThoughARenewalFollows(t *testing.T) {
	was := ports.Registration{PeerID: "x", Addr: "/a", Addrs: []string{"/a", "/b"}, Meta: map[string]string{"zone": "1", "rack": "2"}}
	for _, c := range []struct {
		name   string
		change func(*ports.Registration)
	}{
		{"the address", func(r *ports.Registration) { r.Addr, r.Addrs = "/c", []string{"/c", "/b"} }},
		{"an address behind it", func(r *ports.Registration) { r.Addrs = []string{"/a", "/c"} }},
		{"one address less", func(r *ports.Registration) { r.Addrs = nil }},
		{"the order of addresses", func(r *ports.Registration) { r.Addr, r.Addrs = "/b", []string{"/b", "/a"} }},
		{"a label", func(r *ports.Registration) { r.Meta = map[string]string{"zone": "1", "rack": "3"} }},
		{"the values of labels", func(r *ports.Registration) { r.Meta = map[string]string{"zone": "2", "rack": "1"} }},
		{"no labels", func(r *ports.Registration) { r.Meta = nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) {
				p := newPair(t, nil)
				defer func() { p.reader.stop() }()
				now := was
				beat := func() {
					if _, err := p.teller.Register(t.Context(), "x", now); err != nil {
						t.Fatal(err)
					}
				}
				beat()
				p.pass(12) // to behind a sum
				lost := 0
				p.spoiled(func(b ports.Batch) []ports.Batch {
					if b.News != nil && len(b.News.Changes) > 0 {
						b.News = nil
						lost++
					}
					return []ports.Batch{b}
				})
				c.change(&now)
				beat()
				p.pass(2)
				p.spoiled(nil)
				beat() // no more than a renewal
				p.pass(2)
				if is, _ := p.hearer.Get("x"); lost != 1 || is.Remaining < p.hearer.rules.Policy.TTL-5*time.Second {
					t.Fatalf("%d changes are lost, and %v are left: this shows nothing", lost, is.Remaining)
				}
				p.pass(25)
				theirs, _ := p.teller.Get("x")
				if mine, _ := p.hearer.Get("x"); mine.Addr != theirs.Addr || !slices.Equal(mine.Addrs, theirs.Addrs) || !maps.Equal(mine.Meta, theirs.Meta) {
					t.Errorf("it has %v %v, want %v %v", mine.Addrs, mine.Meta, theirs.Addrs, theirs.Meta)
				}
				if !p.equal() || len(p.events.Of(ports.EventReconciled)) != 1 {
					t.Errorf("equal %t, after %v", p.equal(), p.events.Of(ports.EventReconciled))
				}
				beat()
				p.pass(12)
				if !p.equal() {
					t.Error("after another renewal the sums differ")
				}
			})
		})
	}
}

// A client makes the item as docs/protocol.md says.
func TestTheItemOfAPlainLeaseIsThatOfThePage(t *testing.T) {
	const id, addr = "12D3KooWEqwTBN3GE4vT6DWZiKpq24UtSBmhhwM73vg7SfTjYWaF", "/ip4/203.0.113.7/tcp/4001"
	expiresAt := time.Date(2026, 3, 1, 10, 1, 58, 500_000_000, time.UTC)
	nanoseconds := string(order8.AppendUint64(nil, uint64(expiresAt.UnixNano())))
	hash := func(text string) uint32 {
		h := fnv.New32a()
		_, _ = h.Write([]byte(text))
		return h.Sum32()
	}
	for _, c := range []struct {
		entry ports.Entry
		bytes string
	}{
		{ports.Entry{Addr: addr}, id + "\xff" + addr + "\xff\xff"},
		{ports.Entry{Addr: addr, Addrs: []string{addr}}, id + "\xff" + addr + "\xff\xff"},
		{ports.Entry{Addr: addr, Addrs: []string{addr, "/b"}, Meta: map[string]string{"b": "", "a": "2", "B": "1"}}, id + "\xff" + addr + "\xff/b\xff\xffB\xff1\xffa\xff2\xffb\xff\xff"},
		{ports.Entry{Addr: addr, Meta: map[string]string{"zone": "eu-1"}}, id + "\xff" + addr + "\xff\xffzone\xffeu-1\xff"},
	} {
		c.entry.PeerID, c.entry.ExpiresAt = id, expiresAt
		if is, want := summedOf(&c.entry, nil).item, hash(c.bytes+nanoseconds); is != want {
			t.Errorf("the item of %+v is %08x, want %08x", c.entry, is, want)
		}
	}
	text, err := os.ReadFile("../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	said := regexp.MustCompile("has the item `([0-9a-f]+)`").FindSubmatch(text)
	if want := fmt.Sprintf("%08x", hash(id+"\xff"+addr+"\xff\xffzone\xffeu-1\xff"+nanoseconds)); said == nil || string(said[1]) != want {
		t.Errorf("the page says %q, want %s", said, want)
	}
}
