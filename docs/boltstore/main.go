// Command boltstore is ocnode with one more module: docs/adapters.md walks through it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/opencloud/ocnode/cmd"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/modules"
	"github.com/opencloud/ocnode/ports"
	"go.etcd.io/bbolt"
)

func main() { cmd.Main(append(modules.Builtin(), module)) }

type section struct {
	File string `koanf:"file" help:"name of the file of the entries, in data.dir; it ends in .db"`
}

var module = modules.Module{
	Name:    "boltstore",
	Summary: "stores entries in a file of this node; without it, in memory",
	Fills:   modules.Store,
	Section: section{File: "entries.db"},
	Check: func(p *modules.Plan) {
		if file := modules.Settings[section](p, "boltstore").File; filepath.Base(file) != file || filepath.Ext(file) != ".db" {
			p.Mistake("boltstore.file", "%q must be a name without a folder that ends in .db, as entries.db; the file lies in data.dir", file)
		}
	},
	Wire: modules.Provide(newStore),
}

func newStore(p *modules.Plan, dir modules.DataDir, rules domain.Rules, closers *modules.Closers) (ports.Store, error) {
	store, err := Open(filepath.Join(string(dir), modules.Settings[section](p, "boltstore").File), rules.Acceptable)
	if err != nil {
		return nil, err
	}
	closers.Add(store.Close)
	return store, nil
}

// Store keeps what its own node puts, in a file. It has no network.
type Store struct {
	db     *bbolt.DB
	accept func(*ports.Entry) error // nil, or why an entry may be neither stored nor returned
	next   string                   // where to look for expired ones; bbolt has one writer at a time
}

var bucket = []byte("entries") // JSON by PeerID

// Open opens the file at path, or makes it. accept is the rule of ports.Store.
func Open(path string, accept func(*ports.Entry) error) (*Store, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w; stop what else has it open, or delete it if it is damaged: heartbeats fill it again", path, err)
	}
	err = db.Update(func(tx *bbolt.Tx) error { _, err := tx.CreateBucketIfNotExists(bucket); return err })
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &Store{db: db, accept: accept}, nil
}

// Put implements ports.Store. Puts at the same time are flushed to the disk together.
func (s *Store) Put(_ context.Context, e ports.Entry) (int, error) {
	value, err := json.Marshal(e)
	if id, bad := peer.Decode(string(e.PeerID)); bad != nil || id.String() != string(e.PeerID) {
		err = errors.New("not a PeerID in its canonical form")
	}
	if err := errors.Join(err, s.accept(&e)); err != nil {
		return 0, fmt.Errorf("put %.80q: %w", e.PeerID, err)
	}
	return 0, s.db.Batch(func(tx *bbolt.Tx) (err error) {
		b, key := tx.Bucket(bucket), []byte(e.PeerID)
		if _, err := s.entry(key, b.Get(key), e.Version()); err == nil {
			return nil // the newer one stays
		}
		for range 2 { // expired ones go, two a put, so that there is never much more than twice what is alive
			old, value := b.Cursor().Seek([]byte(s.next))
			if _, dead := s.entry(old, value, ports.Version{}); dead != nil && old != nil {
				err = errors.Join(err, b.Delete(old))
			}
			s.next = string(old) + "\x00" // right behind old; after the last one, the first
		}
		return errors.Join(err, b.Put(key, value))
	})
}

// entry returns the entry in value if it is the key's, acceptable and newer.
func (s *Store) entry(key, value []byte, than ports.Version) (e ports.Entry, err error) {
	if json.Unmarshal(value, &e) != nil || string(e.PeerID) != string(key) || s.accept(&e) != nil || !e.NewerThan(than) {
		return ports.Entry{}, ports.ErrNotFound
	}
	return e, nil
}

// Get implements ports.Store: all that there is is here.
func (s *Store) Get(_ context.Context, id ports.PeerID, newerThan ports.Version) (ports.Entry, error) {
	return s.Local(id, newerThan)
}

// Local implements ports.Store.
func (s *Store) Local(id ports.PeerID, newerThan ports.Version) (e ports.Entry, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		e, err = s.entry([]byte(id), tx.Bucket(bucket).Get([]byte(id)), newerThan)
		return err
	})
	return e, err
}

// Joined implements ports.Store: there is no network to join. A closed Store returns errors.
func (s *Store) Joined() <-chan struct{} { return nil }
func (s *Store) Close() error            { return s.db.Close() }
