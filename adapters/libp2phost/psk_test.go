package libp2phost

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/pnet"

	"github.com/opencloud/ocnode/adapters/internal/blame"
	"github.com/opencloud/ocnode/adapters/internal/redial"
	"github.com/opencloud/ocnode/ports/porttest"
)

const digits = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF"

func TestReadPSKTakesASwarmKeyAndNothingElse(t *testing.T) {
	const begin = "/key/swarm/psk/1.0.0/\n/base16/\n"
	for name, tt := range map[string]struct {
		text string
		mode os.FileMode
		want string // "" for accepted
	}{
		"whole":                {begin + digits + "\n", 0o600, ""},
		"without a line's end": {begin + digits, 0o400, ""},
		"a group may read":     {begin + digits + "\n", 0o640, ""},
		"everyone may read":    {begin + digits + "\n", 0o644, "has mode 0644, so that others than its owner can use or replace it: chmod 600 "},
		"a group may write":    {begin + digits + "\n", 0o660, "has mode 0660"},
		"empty":                {"", 0o600, "is empty: `ocnode key psk FILE` makes one"},
		"too large":            {strings.Repeat("x", maxPSKFileBytes+1), 0o600, "has more than 1024 bytes"},
		"another file":         {"-----BEGIN PRIVATE KEY-----\n", 0o600, "must begin with the lines /key/swarm/psk/1.0.0/ and /base16/"},
		"another version":      {"/key/swarm/psk/2.0.0/\n/base16/\n" + digits + "\n", 0o600, "must begin with the lines"},
		"another encoding":     {"/key/swarm/psk/1.0.0/\n/base64/\n" + digits + "\n", 0o600, "must begin with the lines"},
		"Windows' line ends":   {"/key/swarm/psk/1.0.0/\r\n/base16/\r\n" + digits + "\r\n", 0o600, "must begin with the lines"},
		"no key":               {begin, 0o600, "a key of 0 characters, want 64 hexadecimal digits"},
		"a digit short":        {begin + digits[1:] + "\n", 0o600, "a key of 63 characters, want 64"},
		"a digit too many":     {begin + digits + "0\n", 0o600, "a key of 65 characters, want 64"},
		"something after it":   {begin + digits + "\n\n", 0o600, "nothing after them"},
		"no hexadecimal":       {begin + "g" + digits[1:], 0o600, "is not hexadecimal"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "swarm.key")
			if err := errors.Join(os.WriteFile(path, []byte(tt.text), 0o600), os.Chmod(path, tt.mode)); err != nil {
				t.Fatal(err)
			}
			psk, err := ReadPSK(path)
			if tt.want == "" {
				if err != nil || len(psk) != pskBytes || psk[1] != 0x11 {
					t.Errorf("it is %x, %v", psk, err)
				}
				return
			}
			if psk != nil || err == nil || !strings.HasPrefix(err.Error(), strconv.Quote(path)+" ") || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("it is %x, %v; want an error with %q", psk, err, tt.want)
			}
			if strings.Contains(err.Error(), digits[2:40]) {
				t.Errorf("the error tells the key: %v", err)
			}
		})
	}
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "missing"):            "is not there: `ocnode key psk FILE` makes one",
		filepath.Join(dir, "pipe", "below"):      "cannot be read: not a directory",
		dir:                                      "is not a regular file",
		pipe:                                     "is not a regular file",
		filepath.Join(dir, "no\x00name of file"): "cannot be read",
	} {
		if psk, err := ReadPSK(path); psk != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", path, err, want)
		}
	}
	if psk, err := ReadPSK(""); psk != nil || err != nil {
		t.Errorf("without a file: %x, %v", psk, err)
	}
}

func TestANewPSKIsAnotherEachTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "swarm.key")
	if err := CreatePSK(path); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("it is %v, %v", info.Mode(), err)
	}
	first, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := CreatePSK(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("where a key is already: %v", err)
	}
	if now, err := os.ReadFile(path); !bytes.Equal(now, first) || err != nil {
		t.Errorf("the key that was there was changed: %v", err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); len(left) != 1 || err != nil {
		t.Errorf("it leaves %v, %v", left, err)
	}
	if bytes.Equal(NewPSK(), NewPSK()) {
		t.Error("two keys are one")
	}
}

func TestCheckPrivate(t *testing.T) {
	for addr, fine := range map[string]bool{
		"/ip4/192.0.2.1/tcp/4101":                         true,
		"/dnsaddr/natives.example":                        true,
		"nowhere":                                         true, // others say so
		"/ip4/192.0.2.1/udp/4101/quic-v1":                 false,
		"/dns4/a.example/udp/4101/quic-v1/p2p/" + otherID: false,
		"/ip4/192.0.2.1/udp/1/quic-v1/webtransport":       false,
	} {
		if err := CheckPrivate(addr); (err == nil) != fine || err != nil && !strings.Contains(err.Error(), addr) {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

// private makes a host with a private network key, nil for none.
func private(t *testing.T, psk pnet.PSK, addrs ...string) host.Host {
	t.Helper()
	h, err := New(Config{Key: newKey(t), Limits: testLimits, PSK: psk})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	if _, err := Listen(h, addrs, false); err != nil {
		t.Fatal(err)
	}
	return h
}

func newPSK(t *testing.T) pnet.PSK {
	t.Helper()
	psk, err := pnet.DecodeV1PSK(bytes.NewReader(NewPSK()))
	if err != nil {
		t.Fatal(err)
	}
	return psk
}

func TestAPrivateHostSpeaksWithItsOwnAndOverTCPAlone(t *testing.T) {
	psk := newPSK(t)
	a, b := private(t, psk, loopbackTCP), private(t, psk)
	if err := b.Connect(t.Context(), infoOf(a)); err != nil {
		t.Error(err)
	}
	if _, err := Listen(b, []string{loopbackQUIC}, false); err == nil {
		t.Error("it listens on QUIC, past the key")
	}
}

// What the two sides make of each other's bytes is chance: an answer of nonsense, a closed
// connection, or silence. So each pair is tried often.
func TestWhoHasAnotherKeyIsToldThatThisMayBeSo(t *testing.T) {
	t.Parallel()
	const often = 16
	ours, theirs := newPSK(t), newPSK(t)
	for name, keys := range map[string][2]pnet.PSK{
		"another key":            {ours, theirs},
		"private meets public":   {ours, nil},
		"public meets a private": {nil, ours},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			native, log := private(t, keys[1], loopbackTCP), new(logged)
			says := make(map[string]int)
			var mu sync.Mutex
			var dialling sync.WaitGroup
			dialler := private(t, keys[0])
			for range often {
				h := private(t, keys[0])
				dialling.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), porttest.Patience)
					defer cancel()
					err := redial.Connect(ctx, h, infoOf(native))
					mu.Lock()
					defer mu.Unlock()
					by := blame.Of(err)
					if err == nil || !strings.HasSuffix(by, "; if the addresses are right, the two may have different private network keys (host.psk), or only one of them has one") {
						t.Errorf("%q is blamed for %v", by, err)
					}
					first, _, _ := strings.Cut(by, ";")
					says[first]++
				})
			}
			dialling.Wait()
			t.Log(says)
			join(t, dialler, JoinerConfig{Bootstrap: fullAddrs(native), Log: log.logger()})
			// An attempt that the machine held up may end without a reason, and the first one warns.
			porttest.Eventually(t, "the joiner says so", func() bool {
				return log.count("native cannot be reached", "different private network keys (host.psk)") > 0
			})
			if n := log.count("level=WARN", "native cannot be reached"); n != 1 {
				t.Errorf("it warns %d times", n)
			}
		})
	}
}

// Neither is that the case of who is somebody else, or nobody.
func TestWhoIsNotThereIsNotSaidToHaveAnotherKey(t *testing.T) {
	native, h := private(t, nil, loopbackTCP), private(t, nil)
	other := infoOf(native)
	other.ID = infoOf(private(t, nil)).ID
	for name, err := range map[string]error{
		"another identity": h.Connect(t.Context(), other),
		"a silent address": func() error {
			gone := private(t, nil, ownTCP)
			info := infoOf(gone)
			gone.Close()
			return h.Connect(t.Context(), info)
		}(),
	} {
		if by := blame.Of(err); err == nil || by != "" {
			t.Errorf("%s: %q is blamed for %v", name, by, err)
		}
	}
}
