package modules

import (
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/opencloud/ocnode/adapters/libp2phost"
	"github.com/opencloud/ocnode/modules/config"
	"github.com/opencloud/ocnode/ports"
	"go.uber.org/fx"
)

type dataSection struct {
	Dir string `koanf:"dir" help:"the folder of what outlives the process: identity.key, this node's identity"`
}

var dataModule = Module{
	Name:    "data",
	Summary: "the node's identity, and the lock on its folder",
	Always:  true,
	Section: dataSection{Dir: "data"},
	Check: func(p *Plan) {
		if settings[dataSection](p, "data").Dir == "" {
			p.Mistake("data.dir", "must not be empty; the default is data")
		}
	},
	Wire: func(p *Plan) fx.Option {
		return fx.Options(
			fx.Supply(fx.Private, settings[dataSection](p, "data")),
			fx.Provide(newIdentity, libp2phost.PeerIDOf),
		)
	},
}

// newIdentity locks the data folder until the node is closed, and reads the key.
func newIdentity(s dataSection, closers *closers) (crypto.PrivKey, error) {
	unlock, err := libp2phost.LockDir(s.Dir)
	if err != nil {
		return nil, err
	}
	closers.add(unlock)
	return libp2phost.LoadIdentity(s.Dir)
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
// there is none yet. It may be called while that node runs.
func Identity(cfg *config.Config) (ports.PeerID, error) {
	s, err := config.Get[dataSection](cfg, "data")
	if err != nil {
		return "", err
	}
	key, err := libp2phost.LoadIdentity(s.Dir)
	if err != nil {
		return "", err
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
