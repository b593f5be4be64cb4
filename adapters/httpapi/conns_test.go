package httpapi

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// dialled returns a new connection in fake time.
func dialled(t *testing.T, p *pipes) net.Conn {
	t.Helper()
	conn, err := p.dial(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// closed reports whether the server has closed conn.
func closed(conn net.Conn) bool {
	synctest.Wait()
	_ = conn.SetReadDeadline(time.Now().Add(1))
	_, err := conn.Read(make([]byte, 1))
	_ = conn.SetReadDeadline(time.Time{})
	return errors.Is(err, io.EOF)
}

func TestTheIdlestConnectionMakesWay(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		_, p, stop := startInFakeTime(t, testNode(threeIndexers()))
		defer stop()
		kept := make([]net.Conn, maxConns)
		for i := range kept {
			kept[i] = dialled(t, p)
			healthOver(t, kept[i])
			time.Sleep(time.Millisecond)
		}
		healthOver(t, kept[0])
		if i := slices.IndexFunc(kept, closed); i >= 0 {
			t.Fatalf("connection %d of %d is closed", i, maxConns)
		}
		if got := healthOver(t, dialled(t, p)); got != http.StatusOK {
			t.Errorf("one more is answered with %d", got)
		}
		if closed(kept[0]) || !closed(kept[1]) || closed(kept[2]) {
			t.Errorf("closed: the last used %v, the idlest %v, the next %v", closed(kept[0]), closed(kept[1]), closed(kept[2]))
		}
		silent := dialled(t, p) // in place of the third
		time.Sleep(time.Millisecond)
		for _, conn := range kept[3:] {
			healthOver(t, conn)
		}
		healthOver(t, kept[0])
		time.Sleep(time.Millisecond)
		for range 2 { // another one was idle for longer
			healthOver(t, dialled(t, p))
		}
		if !closed(silent) {
			t.Error("a connection without a request keeps its place")
		}
	})
}

// healthOver gets /healthz over conn and leaves it open.
func healthOver(t *testing.T, conn net.Conn) int {
	t.Helper()
	return getOver(t, conn, "/healthz").StatusCode
}

// getOver asks over conn and returns the answer without its body.
func getOver(t *testing.T, conn net.Conn, path string) *http.Response {
	t.Helper()
	if _, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp
}

func TestProbesAlwaysAnswer(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		n := testNode(nil)
		release := make(chan struct{})
		n.Finder = finder(func(ports.PeerID) (ports.Answer, error) {
			<-release
			return ports.Answer{}, ports.ErrNotFound
		})
		_, p, stop := startInFakeTime(t, n)
		defer stop()
		defer close(release)
		for range maxConns { // a request runs on each
			if _, err := io.WriteString(dialled(t, p), "GET "+indexersPath+"/a HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		var silent []net.Conn
		for range maxProbes {
			silent = append(silent, dialled(t, p))
		}
		began := time.Now()
		for path, want := range map[string]int{
			healthPath: http.StatusOK, readyPath: http.StatusOK, metricsPath: http.StatusOK,
			statusPath: http.StatusServiceUnavailable, indexersPath + "/b": http.StatusServiceUnavailable,
		} {
			resp := getOver(t, dialled(t, p), path)
			if resp.StatusCode != want || !resp.Close {
				t.Errorf("%s answers %s, and closes the connection: %v", path, resp.Status, resp.Close)
			}
			if after := resp.Header.Get("Retry-After"); (after == "1") != (want != http.StatusOK) {
				t.Errorf("%s says Retry-After: %q", path, after)
			}
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("they waited for %v", took)
		}
		if !closed(silent[0]) || closed(silent[maxProbes-1]) {
			t.Error("not the oldest of the silent connections made way")
		}
	})
}

func TestASiteHasAShareOfTheConnections(t *testing.T) {
	busy := func([]*conn) *conn { return nil }
	for name, tt := range map[string]struct {
		from   []string
		leaves func([]*conn) *conn
		want   []int // how many of 10 each of from has in the end, of 8 places
	}{
		"one address":                      {[]string{"192.0.2.1"}, busy, []int{4}},
		"one address that is idle":         {[]string{"192.0.2.1"}, oldest, []int{4}},
		"two addresses":                    {[]string{"192.0.2.1", "192.0.2.2"}, busy, []int{4, 4}},
		"one IPv6 site":                    {[]string{"2001:db8::1", "2001:db8:0:ff::1"}, busy, []int{4, 0}},
		"loopback":                         {[]string{"127.0.0.1"}, busy, []int{8}},
		"idle ones make way for others":    {[]string{"192.0.2.1", "192.0.2.2", "192.0.2.3"}, oldest, []int{0, 4, 4}},
		"busy ones make way for none":      {[]string{"192.0.2.1", "192.0.2.2", "192.0.2.3"}, busy, []int{4, 4, 0}},
		"loopback beside an address":       {[]string{"127.0.0.1", "192.0.2.1"}, oldest, []int{4, 4}},
		"an address first, then all other": {[]string{"192.0.2.1", "127.0.0.1"}, busy, []int{4, 4}},
	} {
		t.Run(name, func(t *testing.T) {
			p := places{most: 8, leaves: tt.leaves}
			of := make(map[*conn]int)
			for i, from := range tt.from {
				for range 10 {
					here, there := net.Pipe()
					defer there.Close()
					c := &conn{Conn: here, site: Config{}.siteOf(netip.MustParseAddr(from))}
					of[c] = i
					p.take(c)
				}
			}
			got := make([]int, len(tt.want))
			for _, c := range p.held {
				got[of[c]]++
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("they have %v places, want %v", got, tt.want)
			}
		})
	}
	if site := (Config{CountLoopback: true}).siteOf(netip.MustParseAddr("127.0.0.1")); !site.IsValid() {
		t.Error("loopback is not counted where it should be")
	}
}

func TestTheAddressOfAConnectionCounts(t *testing.T) {
	here, there := net.Pipe()
	defer there.Close()
	all := newConns(once{addressed{here}}, Config{CountLoopback: true}.siteOf)
	c, err := all.Accept()
	if err != nil || c.(*conn).site.String() != "127.0.0.1/32" {
		t.Errorf("it counts for %v, %v", c.(*conn).site, err)
	}
	if err := c.Close(); err != nil || len(all.open.held) > 0 {
		t.Errorf("closed, it has a place: %v, %v", all.open.held, err)
	}
}

type once struct{ net.Conn }

func (o once) Accept() (net.Conn, error) { return o.Conn, nil }
func (o once) Addr() net.Addr            { return o.LocalAddr() }

type addressed struct{ net.Conn }

func (addressed) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort("[::ffff:127.0.0.1]:1"))
}

// slow is a directory whose pages take a while.
type slow struct {
	directory
	takes time.Duration
}

func (s slow) List(ctx context.Context, sender ports.PeerID, q ports.Query) (ports.Page, error) {
	time.Sleep(s.takes)
	return s.directory.List(ctx, sender, q)
}

func TestAPageWaitsForItsTurn(t *testing.T) {
	for _, path := range []string{indexersPath, prometheusPath} {
		t.Run(strings.TrimPrefix(path, "/"), func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) { // with one processor: a page at a time
				_, p, stop := startInFakeTime(t, testNode(slow{threeIndexers(), 600 * time.Millisecond}))
				defer stop()
				answers := make(chan *http.Response)
				for range 3 {
					conn := dialled(t, p)
					go func() { answers <- getOver(t, conn, path) }()
				}
				got := map[int]int{}
				for range 3 {
					resp := <-answers
					got[resp.StatusCode]++
					if resp.StatusCode != http.StatusOK && resp.Header.Get("Retry-After") != "1" {
						t.Errorf("%s without Retry-After", resp.Status)
					}
				}
				if got[http.StatusOK] != 2 || got[http.StatusServiceUnavailable] != 1 {
					t.Errorf("of three pages that take 0.6 s each: %v", got)
				}
			})
		})
	}
}
