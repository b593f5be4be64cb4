package main_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/opencloud/ocnode/cmd/ocnodetest"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// answer is what a native says to a registration.
type answer struct {
	OK                           bool
	TTLSeconds, HeartbeatSeconds float64
	Now, ExpiresAt               time.Time
	Error                        struct{ Code, Message string }
}

// hear reads the answer, which ends with the stream, and closes that.
func hear(t *testing.T, s network.Stream) (a answer) {
	t.Helper()
	defer s.Close()
	text, err := io.ReadAll(s)
	if err != nil || !strings.HasSuffix(string(text), "\n") || json.Unmarshal(text, &a) != nil {
		t.Fatalf("the answer is %q, %v", text, err)
	}
	return a
}

func TestEveryFrameOfTheContractGetsItsAnswer(t *testing.T) {
	t.Parallel()
	native := start(t, t.TempDir())
	other := newSeed(t)
	for _, addr := range native.Addrs {
		transport := regexp.MustCompile(`tcp|quic`).FindString(addr)
		t.Run("over "+transport, func(t *testing.T) {
			h := newSeed(t)
			id := h.ID().String()
			path := "/api/v1/indexers/" + id
			var before entry
			for _, f := range porttest.Frames(t, ports.PeerID(id), ports.PeerID(other.ID().String()), peer.ToCid(h.ID()).String()) {
				s := open(t, h, addr)
				// Over QUIC both may fail, as the native may have answered already.
				_, _ = s.Write(f.Bytes)
				_ = s.CloseWrite()
				a := hear(t, s)
				if a.OK != (f.Want == "") || a.Error.Code != string(f.Want) || a.OK == (a.Error.Message != "") {
					t.Errorf("%s: the answer is %+v, want %q", f.Name, a, f.Want)
				}
				if a.OK && (a.TTLSeconds != 66 || a.HeartbeatSeconds != 60 || a.ExpiresAt.Sub(a.Now) != 66*time.Second) {
					t.Errorf("%s: the lease is %+v", f.Name, a)
				}
				var now entry
				if status, err := native.get(path, &now); status != http.StatusOK || err != nil {
					t.Fatalf("%s: then it is not listed: status %d, %v", f.Name, status, err)
				}
				switch {
				case a.OK && !now.SeenAt.After(before.SeenAt):
					t.Errorf("%s: a lease was granted, and it is listed as %+v", f.Name, now)
				case !a.OK && fmt.Sprint(now) != fmt.Sprint(before):
					t.Errorf("%s: it was refused, and what was %+v is %+v", f.Name, before, now)
				}
				before = now
			}
			listed, err := native.list()
			if _, ok := listed[other.ID().String()]; ok || err != nil {
				t.Errorf("another identity is listed: %v, %v", listed, err)
			}
		})
	}
}

// Peers that take their time, or write and never read, are cut off after the time of one
// exchange, and leave nothing behind; meanwhile the native serves the others.
func TestDawdlersAreCutOffAndTheOthersServed(t *testing.T) {
	t.Parallel()
	const cut = ports.ExchangeTimeout + stall
	const each = 16
	native := start(t, t.TempDir())
	h, honest := newSeed(t), newSeed(t)
	register(t, h, native.Addrs[0])
	register(t, honest, native.Addrs[0])
	native.lists(h.ID().String())
	native.lists(honest.ID().String())
	calm := native.goroutines()
	waits := func() bool { return native.goroutines() > calm+each/2 }
	began := time.Now()

	slow := open(t, h, native.Addrs[0])
	go func() {
		for _, b := range []byte(frameOf(h)) {
			if _, err := slow.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(time.Second)
		}
	}()
	for range each {
		sendAll(t, open(t, h, native.Addrs[0]), []byte(frameOf(h))) // reads no answer
		sendAll(t, open(t, h, native.Addrs[0]), []byte("{"))        // and no more
	}
	endless, deaf := open(t, h, native.Addrs[0]), open(t, h, native.Addrs[0])
	go flood(endless)
	go flood(deaf)
	ocnodetest.Eventually(t, "the native waits for those who do not end their frames", waits)

	if a := hear(t, endless); a.Error.Code != "too_large" {
		t.Errorf("who writes without end hears %+v, want too_large", a)
	}
	if !waits() {
		t.Error("who writes without end was answered no sooner than the others were cut off")
	}
	served := 0
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		s := open(t, honest, native.Addrs[0])
		sendAll(t, s, []byte(frameOf(honest)))
		if a := hear(t, s); !a.OK {
			t.Fatalf("an honest peer is answered %+v", a)
		}
		if waits() {
			served++
		}
		time.Sleep(20 * time.Millisecond) // this is no benchmark
	}
	if served == 0 {
		t.Error("no honest peer was served before the others were cut off")
	}
	if a := hear(t, slow); a.Error.Code != "malformed" {
		t.Errorf("a byte a second is answered %+v, want malformed", a)
	}
	ocnodetest.Eventually(t, "their goroutines are gone", func() bool { return native.goroutines() < calm+each/2 })
	if took := time.Since(began); took > cut {
		t.Errorf("the last of them was cut off after %v", took)
	}
	t.Logf("an honest peer was served %d times meanwhile; all were cut off after %v", served, time.Since(began))
}

func frameOf(h host.Host) string {
	return fmt.Sprintf(`{"PeerID":%q,"Addr":%q}`+"\n", h.ID(), seedAddr)
}

// flood writes until it is stopped.
func flood(w io.Writer) {
	chunk := []byte(strings.Repeat("a", 4<<10))
	for {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

var goroutines = regexp.MustCompile(`(?m)^go_goroutines (\d+)$`)

// goroutines returns how many goroutines the node runs.
func (n *node) goroutines() int {
	n.t.Helper()
	resp, err := client.Get("http://" + n.HTTP + "/metrics")
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	m := goroutines.FindSubmatch(text)
	if m == nil {
		n.t.Fatal("/metrics has no go_goroutines")
	}
	count, _ := strconv.Atoi(string(m[1]))
	return count
}
