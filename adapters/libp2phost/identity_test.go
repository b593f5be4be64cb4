package libp2phost

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
)

func TestLoadIdentityMakesAKeyAndKeepsIt(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "data")
	made, err := LoadIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, keyFile): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v; want %v", path, info.Mode(), err, want)
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
	loaded, err := LoadIdentity(dir)
	if err != nil || !loaded.Equals(made) {
		t.Errorf("loaded another key than was made: %v", err)
	}
	if id, err := PeerIDOf(made); err != nil || !strings.HasPrefix(string(id), "12D3Koo") {
		t.Errorf("PeerIDOf: %q, %v", id, err)
	}
}

func TestLoadIdentityByManyAtOnceIsOneIdentity(t *testing.T) {
	dir := t.TempDir()
	keys := make([]crypto.PrivKey, 16)
	var group sync.WaitGroup
	for i := range keys {
		group.Go(func() { keys[i], _ = LoadIdentity(dir) })
	}
	group.Wait()
	for i, key := range keys {
		if key == nil || !key.Equals(keys[0]) {
			t.Errorf("caller %d got another key, or none", i)
		}
	}
}

func TestLoadIdentityRefusesAndNeverOverwrites(t *testing.T) {
	good, err := crypto.MarshalPrivateKey(newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	rsa, _, err := crypto.GenerateKeyPairWithReader(crypto.RSA, 2048, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := crypto.MarshalPrivateKey(rsa)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		content []byte
		mode    os.FileMode
		want    string // "" for accepted
	}{
		"own":                 {good, 0o600, ""},
		"read-only":           {good, 0o400, ""},
		"group may read":      {good, 0o640, ""},
		"others may execute":  {good, 0o601, ""},
		"others may read":     {good, 0o604, "has mode 0604"},
		"others may write":    {good, 0o602, "has mode 0602"},
		"group may write":     {good, 0o620, "has mode 0620"},
		"usual mode of files": {good, 0o644, "chmod 600 "},
		"empty":               {nil, 0o600, "is empty"},
		"garbage":             {[]byte("not a key"), 0o600, "does not hold a libp2p private key"},
		"half written":        {good[:len(good)/2], 0o600, "does not hold a libp2p private key"},
		"RSA":                 {other, 0o600, "type RSA"},
		"too large":           {make([]byte, maxKeyBytes+1), 0o600, "has more than 4096 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, keyFile)
			if err := errors.Join(os.WriteFile(path, test.content, 0o600), os.Chmod(path, test.mode)); err != nil {
				t.Fatal(err)
			}
			key, err := LoadIdentity(dir)
			checkIdentityError(t, path, key, err, test.want)
			if after, err := os.ReadFile(path); err != nil || string(after) != string(test.content) {
				t.Errorf("the file was changed: %v", err)
			}
		})
	}
}

func TestLoadIdentityDoesNotHangOnWhatIsNoFile(t *testing.T) {
	for name, make := range map[string]func(string) error{
		"folder": func(path string) error { return os.Mkdir(path, 0o700) },
		"pipe":   func(path string) error { return syscall.Mkfifo(path, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, keyFile)
			if err := make(path); err != nil {
				t.Fatal(err)
			}
			key, err := LoadIdentity(dir)
			checkIdentityError(t, path, key, err, "is not a regular file")
		})
	}
}

func checkIdentityError(t *testing.T, path string, key crypto.PrivKey, err error, want string) {
	t.Helper()
	if want == "" {
		if err != nil || key == nil {
			t.Errorf("refused: %v", err)
		}
		return
	}
	var wrong *IdentityError
	if !errors.As(err, &wrong) || wrong.Path != path || !strings.Contains(err.Error(), want) || key != nil {
		t.Errorf("got %v, want an IdentityError about %s with %q", err, path, want)
	}
}

func TestLoadIdentitySaysWhenTheFolderCannotBeMade(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var wrong *IdentityError
	if _, err := LoadIdentity(filepath.Join(file, "data")); err == nil || errors.As(err, &wrong) {
		t.Errorf("got %v, want an error that is not about the key", err)
	}
}

func TestLockDirRefusesALockThatIsNoFile(t *testing.T) {
	for name, plant := range map[string]func(path string) error{
		"a pipe, which nobody may ever open": func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"a link, which leads elsewhere":      func(path string) error { return os.Symlink(path+"-elsewhere", path) },
		"a folder":                           func(path string) error { return os.Mkdir(path, 0o700) },
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, lockFile)
		if err := plant(path); err != nil {
			t.Fatal(err)
		}
		if _, err := LockDir(dir); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "remove it") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(path + "-elsewhere"); err == nil {
			t.Error("the link was followed")
		}
	}
}

func TestLockDirIsForOne(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	unlock, err := LockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = LockDir(dir)
	if !errors.Is(err, ErrDataInUse) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "data.dir") {
		t.Errorf("second lock: %v", err)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	again, err := LockDir(dir)
	if err != nil {
		t.Fatalf("after unlock: %v", err)
	}
	if err := again(); err != nil {
		t.Error(err)
	}
}

// Linked into another folder it is the same key, and each has one process.
func TestAKeyHasOneProcess(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	if _, err := LoadIdentity(dir); err != nil {
		t.Fatal(err)
	}
	unlock, err := LockIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(dir, keyFile), filepath.Join(other, keyFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := LockIdentity(other); !errors.Is(err, ErrKeyInUse) {
		t.Errorf("linked into another folder: %v, want ErrKeyInUse", err)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	again, err := LockIdentity(other)
	if err != nil {
		t.Fatalf("after the first has let go: %v", err)
	}
	if err := again(); err != nil {
		t.Error(err)
	}
}
