package libp2phost

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gofrs/flock"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/opencloud/ocnode/adapters/internal/secret"
	"github.com/opencloud/ocnode/ports"
)

const (
	keyFile  = "identity.key"
	lockFile = "lock"

	// maxKeyBytes bounds what is read of a key file. An Ed25519 key has 68 bytes; the
	// rest is room to recognise, and name, a key of another kind.
	maxKeyBytes = 4 << 10
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

// ErrKeyInUse is returned by LockIdentity if another process has the key.
var ErrKeyInUse = errors.New("identity key is in use by another process")

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
	raw, err := secret.Read(path, maxKeyBytes, "restore it, or delete it to get a new identity")
	if unfit, ok := errors.AsType[secret.Unfit](err); ok {
		return nil, wrong("%s", unfit)
	}
	if err != nil {
		return nil, err
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

// HasIdentity reports whether dir has an identity, sound or not.
func HasIdentity(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, keyFile))
	return err == nil
}

// createKey writes a new key, unless one has appeared meanwhile.
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
	if err := secret.Create(path, raw); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
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

// LockIdentity takes the key in dir for this process until unlock is called or the process
// ends. Unlike the folder's lock it goes with the key itself, so another folder that the key
// was linked into has no use of it: ErrKeyInUse. A file system that knows no locks is no
// error, since there the folder's lock has failed before.
func LockIdentity(dir string) (unlock func() error, err error) {
	path := filepath.Join(dir, keyFile)
	lock := flock.New(path, flock.SetFlag(os.O_RDONLY))
	switch ok, err := lock.TryLock(); {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		return nil, err
	case err != nil: // a secret that is mounted from where there are no locks
		return lock.Close, nil
	case !ok:
		return nil, fmt.Errorf("%w: %s: two nodes with one identity take each other's place; stop that process, or give this one a data.dir and a key of its own", ErrKeyInUse, path)
	}
	return lock.Close, nil
}
