package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/opencloud/ocnode/ports"
)

// The frames of the page are those of this native and these indexers.
const (
	pageNative = ports.PeerID("12D3KooWAcB6uoHuAPyfsYcwnYTqGNt2biPmSmvbBam9cwmawgzK")
	pageSigned = ports.PeerID("12D3KooWA4Xop1JaT3MHxwYMkCepYsv4iPVopMXwCz5iHYdBfeSB")
	pagePlain  = ports.PeerID("12D3KooWEqwTBN3GE4vT6DWZiKpq24UtSBmhhwM73vg7SfTjYWaF")
	pageLeft   = ports.PeerID("12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA")
)

// vectorOf returns a vector of the page.
func vectorOf(t *testing.T, page []byte, name string) string {
	t.Helper()
	block := regexp.MustCompile("<!-- vector: " + name + " -->\n```[a-z]+\n(.*)\n```\n").FindSubmatch(page)
	if block == nil {
		t.Fatalf("the page has no vector %q", name)
	}
	return string(block[1])
}

func TestTheFollowFramesOfTheProtocolsPage(t *testing.T) {
	page, err := os.ReadFile(protocolPage)
	if err != nil {
		t.Fatal(err)
	}
	record, err := base64.StdEncoding.DecodeString(vectorOf(t, page, "record"))
	if err != nil {
		t.Fatal(err)
	}
	link := func(i int) (l ports.Link) {
		text := regexp.MustCompile(`"Link":"(.*)"`).FindStringSubmatch(vectorOf(t, page, fmt.Sprint("tick ", i)))[1]
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		return ports.Link(b)
	}
	at := func(text string) time.Time {
		is, err := time.Parse(time.RFC3339Nano, "2026-03-01T"+text+"Z")
		if err != nil {
			t.Fatal(err)
		}
		return is
	}
	now := at("10:01:55")
	plain := ports.Change{Kind: ports.ChangeSnapshot, Number: 2, Listed: ports.Listed{
		Entry: ports.Entry{
			PeerID: pagePlain, Addr: "/ip4/203.0.113.7/tcp/4001", Meta: map[string]string{"zone": "eu-1"}, Native: pageNative,
			ExpiresAt: at("10:01:58.5"), SeenAt: now.Add(-62500 * time.Millisecond),
		},
		State: ports.StateLate, Remaining: 3500 * time.Millisecond,
	}}
	signed := ports.Change{Kind: ports.ChangeSnapshot, Number: 1, Listed: ports.Listed{
		Entry: ports.Entry{
			PeerID: pageSigned, Addr: "/ip4/203.0.113.7/tcp/4001", Native: pageNative, ExpiresAt: at("10:03:00.5"), SeenAt: now.Add(-500 * time.Millisecond),
			Proof: &ports.Proof{Record: record, Tick: ports.Tick{Seq: 1772359200500, Step: 2, Link: link(2)}},
		},
		State: ports.StateLive, Remaining: 65500 * time.Millisecond,
	}}
	joined := plain
	joined.Kind, joined.Number, joined.State, joined.PeerID = ports.ChangeJoined, 3, ports.StateLive, pageLeft
	joined.Meta, joined.SeenAt, joined.ExpiresAt, joined.Remaining = nil, now, at("10:03:01"), 66*time.Second
	gone := func(kind ports.ChangeKind, number uint32, id ports.PeerID) ports.Change {
		return ports.Change{Kind: kind, Number: number, Listed: ports.Listed{Entry: ports.Entry{PeerID: id, Native: pageNative}}}
	}
	left := gone(ports.ChangeLeft, 3, pageLeft)
	left.Leave, left.ExpiresAt, left.Remaining = true, at("10:03:01"), 65996*time.Millisecond

	batches := map[string]ports.Batch{
		"snapshot of a follow begins": {
			Reset: ports.ResetNew, Beat: 1667 * time.Millisecond, Start: "M5XG64TTMV", Condition: ports.ConditionPartial, Missing: []ports.PeerID{pageLeft}, Live: 2, Now: now,
			News: &ports.News{Changes: []ports.Change{signed, plain}},
		},
		"snapshot of a follow is whole": {Live: 2, Now: now, Audience: 0x0123456789abcdef, Cursor: "M5XG64TTMVn.117"},
		"changes of a follow": {Live: 2, Now: now, Cursor: "M5XG64TTMVn.118", News: &ports.News{Changes: []ports.Change{
			joined, gone(ports.ChangeExpired, 2, pagePlain), left,
		}}},
		"renewals": {Live: 3, Now: at("10:02:52"), Cursor: "M5XG64TTMVn.119", Age: 1300 * time.Millisecond, News: &ports.News{Renewals: []ports.Renewal{
			{Number: 1, Step: 3, Link: link(3), Remaining: 65750 * time.Millisecond},
			{Number: 7, ExpiresAt: 1772359437250000000, Remaining: 66 * time.Second},
			{Number: 300, ExpiresAt: 1772359436500000000, Remaining: 65250 * time.Millisecond},
		}}},
		"sums":            {Live: 3, Now: at("10:02:53"), Cursor: "M5XG64TTMVn.119", Sums: []ports.Range{{Count: 3, Sum: 4242424242}, {From: 1, Until: 17, Count: 2, Sum: 2121212121}}},
		"told again":      {Live: 1, Now: at("10:02:53"), Cursor: "M5XG64TTMVn.119", Told: []ports.Range{{From: 2, Until: 3, Whole: true}}, News: &ports.News{Changes: []ports.Change{plain}}},
		"only a beat":     {Live: 3, Now: at("10:02:54"), Cursor: "M5XG64TTMVn.120"},
		"end of a follow": {},
	}
	follow := map[string]FollowRequest{
		"follow": {WatchRequest: ports.WatchRequest{Own: true, Numbers: true, Cursor: "M5XG64TTMVn.117", Beat: 1667 * time.Millisecond, Mine: true}},
		"ask":    {WatchRequest: ports.WatchRequest{Own: true, Numbers: true}, Ranges: []ports.Range{{From: 1, Until: 17}, {From: 17, Until: 18, Whole: true}, {From: 33}}},
		"full":   {WatchRequest: ports.WatchRequest{Own: true, Numbers: true}, Fill: Full},
	}
	found := 0
	for _, block := range hexBlock.FindAllSubmatch(page, -1) {
		name := string(block[1])
		want, is := batches[name]
		request, asks := follow[name]
		if !is && !asks {
			continue // of another protocol
		}
		found++
		whole, err := hex.DecodeString(string(block[2]))
		if err != nil {
			t.Fatal(err)
		}
		message, err := NewFrames(bytes.NewReader(whole), ports.MaxBatchBytes).Next()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var again []byte
		var diff string
		switch refusal := ports.Refuse(ports.CodeTooSlow, "watch again from the last cursor, and read faster"); {
		case asks:
			got, err := DecodeFollow(message)
			if diff = cmp.Diff(&request, got); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			again, _ = AppendFollow(nil, &request)
		case name == "end of a follow":
			_, err := NewTeller(pageNative).Decode(message, now)
			diff, again = cmp.Diff(error(refusal), err), EncodeFollowEnd(refusal)
		default:
			got, err := NewTeller(pageNative).Decode(message, now)
			if diff = cmp.Diff(want, got); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			pieces, err := EncodeNews(want.News, pageNative, now.Add(-want.Age))
			if err == nil {
				_, err = WriteTold(nil, &want, pieces, func(frame []byte) error { again = append(again, frame...); return nil })
			}
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if diff != "" || !bytes.Equal(again, whole) {
			t.Errorf("%s: it is\n%x\nand on the page\n%x\n%s", name, again, whole, diff)
		}
	}
	if all := len(batches) + len(follow); found != all {
		t.Errorf("the page has %d frames of %d", found, all)
	}
	for name, value := range map[string]any{"MaxRanges": ports.MaxRanges} {
		if !regexp.MustCompile(fmt.Sprintf(`(?m)^\| %s \| .* \| %v \|$`, name, value)).Match(page) {
			t.Errorf("the page's table has not %v for %s", value, name)
		}
	}
	if !strings.Contains(string(page), "`"+ports.FollowProtocol+"`") {
		t.Errorf("the page does not name %s", ports.FollowProtocol)
	}
}
