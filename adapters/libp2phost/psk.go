package libp2phost

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/libp2p/go-libp2p/core/pnet"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/opencloud/ocnode/adapters/internal/secret"
)

const (
	// pskHeader begins a swarm key, as IPFS and others have it too. libp2p knows other
	// encodings; one is enough, and a file that was cut is known by its length.
	pskHeader = "/key/swarm/psk/1.0.0/\n/base16/\n"
	// pskBytes is the length of the key that libp2p wants.
	pskBytes = 32
	// maxPSKFileBytes is more than any swarm key has, and enough to tell what is wrong.
	maxPSKFileBytes = 1 << 10

	makePSK = "`ocnode key psk FILE` makes one for a new network; one that there is has its own, to be copied"
)

// NewPSK returns the text of a file with a new private network key.
func NewPSK() []byte {
	key := make([]byte, pskBytes)
	_, _ = rand.Read(key) // it never fails
	return []byte(pskHeader + hex.EncodeToString(key) + "\n")
}

// CreatePSK writes a new private network key to a file, 0600. A file that is there stays
// as it is; the error then matches fs.ErrExist.
func CreatePSK(path string) error { return secret.Create(path, NewPSK()) }

// ReadPSK reads the private network key at path (host.psk), nil if path is "". The error
// says what is wrong with the file and what to do, and shows nothing of its content.
func ReadPSK(path string) (pnet.PSK, error) {
	if path == "" {
		return nil, nil
	}
	text, err := secret.Read(path, maxPSKFileBytes, makePSK)
	unreadable := new(fs.PathError)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%q is not there: %s", path, makePSK)
	case errors.As(err, &unreadable):
		return nil, fmt.Errorf("%q cannot be read: %w: this user must be allowed to read it", path, unreadable.Err)
	case err != nil:
		return nil, fmt.Errorf("%q %w", path, err)
	}
	digits, ok := strings.CutPrefix(string(text), pskHeader)
	if !ok {
		return nil, fmt.Errorf("%q is no private network key: it must begin with the lines /key/swarm/psk/1.0.0/ and /base16/: %s", path, makePSK)
	}
	digits = strings.TrimSuffix(digits, "\n")
	if len(digits) != 2*pskBytes {
		return nil, fmt.Errorf("%q has a key of %d characters, want %d hexadecimal digits in its third line, and nothing after them: %s", path, len(digits), 2*pskBytes, makePSK)
	}
	if _, err := hex.DecodeString(digits); err != nil {
		return nil, fmt.Errorf("%q has a key that is not hexadecimal, want %d digits from 0 to 9 and a to f: %s", path, 2*pskBytes, makePSK)
	}
	return pnet.DecodeV1PSK(bytes.NewReader(text))
}

// CheckPrivate returns why an address is of no use in a private network. What is no
// multiaddr is for others to refuse.
func CheckPrivate(addr string) error {
	if m, err := ma.NewMultiaddr(addr); err != nil || !hasProtocol(m, ma.P_UDP) {
		return nil
	}
	return fmt.Errorf("%q is over UDP, and a private network (host.psk) carries TCP only: take it out, or name the /tcp/<port> there", addr)
}
