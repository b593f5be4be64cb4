package modules

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/opencloud/ocnode/adapters/libp2phost"
	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/modules/config"
	"github.com/opencloud/ocnode/ports"
	"go.uber.org/fx"
)

type dataSection struct {
	Dir string `koanf:"dir" help:"the folder of what outlives the process: identity.key, this node's identity"`
}

// dataComments are the comments on dataSection in a configuration file.
var dataComments = map[string]Comment{
	"dir": {Text: "The folder of identity.key, which is who this node is: keep it, and keep it secret. It is made if " +
		"it is missing, and locked: each node on a machine needs its own."},
}

var dataModule = Module{
	Name:     "data",
	Summary:  "the node's identity, and the lock on its folder",
	Always:   true,
	Section:  dataSection{Dir: "data"},
	Comments: dataComments,
	Check: func(p *Plan) {
		if Settings[dataSection](p, "data").Dir == "" {
			p.Mistake("data.dir", "must not be empty; the default is data")
		}
	},
	Wire: func(p *Plan) fx.Option {
		return fx.Options(
			fx.Supply(fx.Private, Settings[dataSection](p, "data")),
			fx.Provide(newDataDir, newFirstStart, newIdentity, libp2phost.PeerIDOf, newSigner),
		)
	},
}

// DataDir is the node's folder, locked until the node is closed.
type DataDir string

func newDataDir(s dataSection, closers *Closers) (DataDir, error) {
	unlock, err := libp2phost.LockDir(s.Dir)
	if err != nil {
		return "", aboutDir(s.Dir, err)
	}
	closers.Add(unlock)
	return DataDir(s.Dir), nil
}

// firstStart marks a node whose identity was made just now: nobody can know of it yet.
type firstStart bool

func newFirstStart(dir DataDir) firstStart { return firstStart(!libp2phost.HasIdentity(string(dir))) }

// newIdentity comes after newFirstStart, which looks whether it has to make one. The key is
// this process's until the node is closed.
func newIdentity(dir DataDir, _ firstStart, closers *Closers) (crypto.PrivKey, error) {
	key, err := libp2phost.LoadIdentity(string(dir))
	if err != nil {
		return nil, aboutDir(string(dir), err)
	}
	unlock, err := libp2phost.LockIdentity(string(dir))
	if err != nil {
		return nil, aboutDir(string(dir), err)
	}
	closers.Add(unlock)
	return key, nil
}

// newSigner signs with the node's key; the numbers of its records are kept beside that.
func newSigner(dir DataDir, key crypto.PrivKey, log *slog.Logger) (ports.Signer, error) {
	signer, err := proof.NewSigner(key, string(dir))
	if err != nil {
		return nil, aboutDir(string(dir), err)
	}
	if torn := signer.Torn(); torn != "" {
		log.Warn("the number of the last record is lost; the next one is numbered by the clock, and by what natives know", "setAside", torn)
	}
	return signer, nil
}

// aboutDir says of an error of a system call which key names the folder. The others say
// what to do by themselves.
func aboutDir(dir string, err error) error {
	var call *fs.PathError
	if !errors.As(err, &call) {
		return err
	}
	return fmt.Errorf("data.dir %q: %w; name a folder that this user may write to", dir, err)
}

// ParsePeerID reads any spelling of a PeerID.
func ParsePeerID(text string) (ports.PeerID, error) {
	id, err := peer.Decode(text)
	if err != nil {
		return "", fmt.Errorf("%.80q is not a PeerID, such as 12D3KooW…: %w", text, err)
	}
	return ports.PeerID(id.String()), nil
}

// Identity returns the PeerID of the node that cfg describes, and makes its key if
// there is none yet. It may be called while that node runs. The error is a *config.Error
// if the section of the folder is wrong; the rest of cfg may be.
func Identity(cfg *config.Config) (ports.PeerID, error) {
	s, err := config.Get[dataSection](cfg, "data")
	if err != nil {
		return "", err
	}
	p := &Plan{config: cfg}
	dataModule.Check(p)
	if err := config.NewError(p.mistakes); err != nil {
		return "", err
	}
	key, err := libp2phost.LoadIdentity(s.Dir)
	if err != nil {
		return "", aboutDir(s.Dir, err)
	}
	return libp2phost.PeerIDOf(key)
}

// Misconfigured reports whether err is about the configuration, the identity's key
// file included, rather than about what happened when it was put to use.
func Misconfigured(err error) bool {
	var form *config.Error
	var key *libp2phost.IdentityError
	return errors.As(err, &form) || errors.As(err, &key)
}
