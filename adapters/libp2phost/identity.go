package libp2phost

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/gofrs/flock"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/opencloud/ocnode/ports"
)

const (
	keyFile  = "identity.key"
	lockFile = "lock"

	// maxKeyBytes bounds what is read of a key file. An Ed25519 key has 68 bytes; the
	// rest is room to recognise, and name, a key of another kind.
	maxKeyBytes = 4 << 10
	// keyMayNot are the permissions that a key file must not grant: all of others', and
	// the group's to write. The group may read, since orchestrators mount secrets so.
	keyMayNot fs.FileMode = 0o026
)

// ErrDataInUse is returned by LockDir if another process has the folder.
var ErrDataInUse = errors.New("data folder is in use by another process")

// IdentityError is a key file that exists and must not or cannot be used. It is for
// the operator to mend: a node never overwrites a key.
type IdentityError struct {
	Path string
	// Reason says what is wrong and what to do.
	Reason string
}

func (e *IdentityError) Error() string { return fmt.Sprintf("identity key %s %s", e.Path, e.Reason) }

// LoadIdentity returns the Ed25519 key in dir/identity.key (libp2p's protobuf form).
// It makes the folder (0700) and the key (0600) if they are missing: the key appears
// whole or not at all, and of several callers at once one makes it and all get it. A
// key file that is there and not fit for use is an *IdentityError.
func LoadIdentity(dir string) (crypto.PrivKey, error) {
	path := filepath.Join(dir, keyFile)
	key, err := readKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := createKey(dir, path); err != nil {
		return nil, fmt.Errorf("create identity key: %w", err)
	}
	return readKey(path)
}

// PeerIDOf returns the PeerID that key stands for.
func PeerIDOf(key crypto.PrivKey) (ports.PeerID, error) {
	id, err := peer.IDFromPrivateKey(key)
	return ports.PeerID(id.String()), err
}

func readKey(path string) (crypto.PrivKey, error) {
	wrong := func(format string, args ...any) error {
		return &IdentityError{Path: path, Reason: fmt.Sprintf(format, args...)}
	}
	// Stat comes first, since opening a pipe would wait for its writer.
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	mode := info.Mode().Perm()
	switch {
	case !info.Mode().IsRegular():
		return nil, wrong("is not a regular file: move it away, or choose another data.dir")
	case mode&keyMayNot != 0 && runtime.GOOS != "windows": // which has no such modes
		return nil, wrong("has mode %#o, so that others than its owner can use or replace it: chmod 600 %s", mode, path)
	case info.Size() == 0:
		return nil, wrong("is empty: restore it, or delete it to get a new identity")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxKeyBytes+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > maxKeyBytes {
		return nil, wrong("has more than %d bytes, which no key has: restore it, or delete it to get a new identity", maxKeyBytes)
	}
	key, err := crypto.UnmarshalPrivateKey(raw)
	if err != nil {
		return nil, wrong("does not hold a libp2p private key (%v): restore it, or delete it to get a new identity", err)
	}
	if key.Type() != crypto.Ed25519 {
		return nil, wrong("holds a key of type %s, and only Ed25519 is used: choose another data.dir", key.Type())
	}
	return key, nil
}

// createKey writes a new key beside path and links it there: unlike a rename, a link
// never replaces what has appeared meanwhile.
func createKey(dir, path string) error {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return err
	}
	raw, err := crypto.MarshalPrivateKey(key)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, keyFile+".new-*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(raw)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(dir)
}

// syncDir makes the names in dir durable: without it a crash may forget the key that
// others have already met.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" { // where folders cannot be synced
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// LockDir takes dir for this process, making it (0700) if it is missing, until unlock
// is called or the process ends. ErrDataInUse means that another process has it: two
// nodes with one identity would take each other's place everywhere.
func LockDir(dir string) (unlock func() error, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("lock data folder: %w", err)
	}
	path := filepath.Join(dir, lockFile)
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("lock data folder: %s is no regular file: remove it", path)
	}
	lock := flock.New(path, flock.SetPermissions(0o600))
	switch ok, err := lock.TryLock(); {
	case err != nil:
		return nil, fmt.Errorf("lock data folder: %w", err)
	case !ok:
		return nil, fmt.Errorf("%w: %s: stop that process, or choose another data.dir", ErrDataInUse, dir)
	}
	return lock.Close, nil
}
