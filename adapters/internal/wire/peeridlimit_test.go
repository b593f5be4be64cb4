package wire

import (
	"bytes"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/opencloud/ocnode/ports"
)

// A native has PeerIDs from the DHT that stand for no key: of a leave, and of the native that took it. It tells them to
// its followers, and a frame that they do not read ends their watch.
func TestAPeerIDThatIsReadAsTextIsReadInBinary(t *testing.T) {
	longest := 0
	for _, code := range []string{"\x00", "\x01", "\x12", "\x16", "\x7f", "\x80\x01"} {
		for size := range 128 {
			for _, digest := range [][]byte{bytes.Repeat([]byte{0}, size), bytes.Repeat([]byte{255}, size)} {
				id, err := peer.IDFromBytes(append([]byte(code+string(rune(size))), digest...))
				if err != nil {
					continue
				}
				text, err := canonical(id.String())
				if err != nil {
					continue
				}
				longest = max(longest, len(text))
				for name, c := range map[string]ports.Change{
					"an indexer": {Kind: ports.ChangeLeft, Listed: ports.Listed{Entry: ports.Entry{PeerID: text, Native: "", Leave: true}}},
					"a native":   {Kind: ports.ChangeLeft, Listed: ports.Listed{Entry: ports.Entry{PeerID: pageNative, Native: text, Leave: true}}},
				} {
					p, err := EncodeNews(&ports.News{Changes: []ports.Change{c}}, "", time.Now())
					if err != nil {
						t.Errorf("%s of %d bytes: %v", name, len(id), err)
						continue
					}
					b, err := NewTeller("").Decode(p.all[0].bytes, time.Now())
					if err != nil || b.News.Changes[0].PeerID != c.PeerID || b.News.Changes[0].Native != c.Native {
						t.Errorf("%s of %d bytes, whose text has %d: %v", name, len(id), len(text), err)
					}
				}
			}
		}
	}
	if longest != maxPeerIDBytes {
		t.Errorf("the longest has %d bytes of text, want %d", longest, maxPeerIDBytes)
	}
}
