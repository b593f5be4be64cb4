package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	peertest "github.com/libp2p/go-libp2p/core/test"
	"github.com/opencloud/ocnode/modules"
	"github.com/opencloud/ocnode/modules/config"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
	"go.etcd.io/bbolt"
)

func TestStore(t *testing.T) {
	porttest.LocalStore(t, func(t *testing.T, accept func(*ports.Entry) error) porttest.ClosableStore {
		return open(t, filepath.Join(t.TempDir(), "entries.db"), accept)
	})
}

// open opens a Store until the test ends.
func open(t *testing.T, path string, accept func(*ports.Entry) error) *Store {
	t.Helper()
	store, err := Open(path, accept)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

func notExpired(e *ports.Entry) error {
	if !time.Now().Before(e.ExpiresAt) {
		return errors.New("expired")
	}
	return nil
}

// newEntry returns an entry of somebody new that ends then.
func newEntry(t *testing.T, ends time.Time) ports.Entry {
	return ports.Entry{PeerID: ports.PeerID(peertest.RandPeerIDFatal(t).String()), Addr: "/ip4/192.0.2.1/tcp/4101", ExpiresAt: ends}
}

func TestWhatWasPutIsThereAfterTheFileWasClosed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "entries.db")
	e := newEntry(t, time.Now().Add(time.Hour))
	store := open(t, path, notExpired)
	if _, err := store.Put(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := open(t, path, notExpired).Get(t.Context(), e.PeerID, ports.Version{})
	if err != nil || got.Addr != e.Addr || !got.ExpiresAt.Equal(e.ExpiresAt) {
		t.Errorf("got %+v, %v; want %+v", got, err, e)
	}
}

// TestWhatHasExpiredDoesNotPileUp puts generation after generation, each when the one
// before has expired.
func TestWhatHasExpiredDoesNotPileUp(t *testing.T) {
	const generations, size = 8, 200
	var now atomic.Int64
	store := open(t, filepath.Join(t.TempDir(), "entries.db"), func(e *ports.Entry) error {
		if e.ExpiresAt.Unix() <= now.Load() {
			return errors.New("expired")
		}
		return nil
	})
	for g := range generations {
		now.Store(int64(g))
		var putting sync.WaitGroup
		for range size {
			e := newEntry(t, time.Unix(int64(g+1), 0))
			putting.Go(func() {
				if _, err := store.Put(t.Context(), e); err != nil {
					t.Error(err)
				}
			})
		}
		putting.Wait()
		if n := held(t, store); n > 2*size {
			t.Errorf("after generation %d there are %d entries, of which %d are alive", g, n, size)
		}
	}
}

// held returns how many entries are in the file, expired ones included.
func held(t *testing.T, store *Store) (n int) {
	t.Helper()
	if err := store.db.View(func(tx *bbolt.Tx) error {
		n = tx.Bucket(bucket).Stats().KeyN
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestWhatIsWrongInTheFileIsNotReturned holds for whatever wrote it there.
func TestWhatIsWrongInTheFileIsNotReturned(t *testing.T) {
	store := open(t, filepath.Join(t.TempDir(), "entries.db"), notExpired)
	mine, other := newEntry(t, time.Now().Add(time.Hour)), newEntry(t, time.Now().Add(time.Hour))
	for name, value := range map[string]string{
		"not JSON":    "{",
		"another's":   `{"PeerID":"` + string(other.PeerID) + `","ExpiresAt":"` + other.ExpiresAt.Format(time.RFC3339) + `"}`,
		"expired":     `{"PeerID":"` + string(mine.PeerID) + `","ExpiresAt":"2001-01-01T00:00:00Z"}`,
		"no deadline": `{"PeerID":"` + string(mine.PeerID) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			if err := store.db.Update(func(tx *bbolt.Tx) error {
				return tx.Bucket(bucket).Put([]byte(mine.PeerID), []byte(value))
			}); err != nil {
				t.Fatal(err)
			}
			if got, err := store.Local(mine.PeerID, ports.Version{}); !errors.Is(err, ports.ErrNotFound) {
				t.Errorf("got %+v, %v; want ErrNotFound", got, err)
			}
			if _, err := store.Put(t.Context(), mine); err != nil {
				t.Errorf("put over it: %v", err)
			}
			if got, err := store.Local(mine.PeerID, ports.Version{}); err != nil || got.Addr != mine.Addr {
				t.Errorf("after a put: %+v, %v", got, err)
			}
		})
	}
}

func TestAFileThatCannotBeOpenedIsNamed(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "entries.db")
	open(t, path, notExpired)
	damaged := filepath.Join(dir, "damaged.db")
	if err := os.WriteFile(damaged, []byte("not bbolt's"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{path, damaged, dir} {
		store, err := Open(path, notExpired)
		if err == nil {
			t.Fatalf("%s was opened: %v", path, store.Close())
		}
		if text := err.Error(); !strings.Contains(text, path) || !strings.Contains(text, "stop what else has it open") {
			t.Errorf("the error is %v", err)
		}
	}
}

func TestTheFileIsClosedWithItsNodeAlsoIfThatNeverStarted(t *testing.T) {
	dir, list := t.TempDir(), append(modules.Builtin(), module)
	cfg, err := modules.Schema(list).Load(config.Sources{Environ: []string{
		"OCNODE_MODULES=native,boltstore", "OCNODE_DATA__DIR=" + dir, "OCNODE_HOST__LISTEN=/ip4/127.0.0.1/tcp/0", "OCNODE_HTTP__LISTEN=",
	}})
	if err != nil {
		t.Fatal(err)
	}
	plan, err := modules.NewPlan(list, cfg)
	if err != nil {
		t.Fatal(err)
	}
	node, err := modules.New(plan, modules.Environment{})
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Stop(); err != nil {
		t.Error(err)
	}
	open(t, filepath.Join(dir, "entries.db"), notExpired)
}
