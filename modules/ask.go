package modules

import (
	"crypto/rand"
	"fmt"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/opencloud/ocnode/adapters/libp2phost"
	"github.com/opencloud/ocnode/adapters/librarylog"
	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/adapters/stream"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/modules/config"
	"github.com/opencloud/ocnode/ports"
)

// CheckNative reports what is wrong with the address of a native, which ends in
// /p2p/<PeerID>, for those who ask as the node of cfg would.
func CheckNative(cfg *config.Config, addr string) error {
	_, err := groupNatives([]string{addr})
	if err == nil && cfg.Value("host.psk") != "" {
		err = libp2phost.CheckPrivate(addr)
	}
	return err
}

// Ask returns the native at addr, to be asked by somebody who is no node: a host that
// listens nowhere, with an identity that is thrown away. Nothing is dialled yet. self is
// that identity, in whose name alone native can be asked; stop ends the host and all that
// is asked, and waits for it. Of cfg it takes host.psk and host.timeout, whose error
// is a *config.Error; the rest of cfg may be wrong. Who calls this gives up what libraries
// log in this process.
func Ask(cfg *config.Config, addr, version string) (native ports.RemoteNative, self ports.PeerID, stop func(), err error) {
	grouped, err := groupNatives([]string{addr})
	if err != nil {
		return nil, "", nil, err
	}
	s, err := config.Get[hostSection](cfg, "host")
	if err != nil {
		return nil, "", nil, err
	}
	psk, err := libp2phost.ReadPSK(s.PSK)
	p := &Plan{config: cfg}
	p.Check("host.psk", err)
	p.Check("host.timeout", libp2phost.CheckTimeout(s.Timeout))
	if err := config.NewError(p.mistakes); err != nil {
		return nil, "", nil, err
	}
	librarylog.Silence()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, "", nil, err
	}
	if self, err = libp2phost.PeerIDOf(key); err != nil {
		return nil, "", nil, err
	}
	h, err := libp2phost.New(libp2phost.Config{Key: key, PSK: psk, Timeout: s.Timeout, UserAgent: "ocnode/" + version})
	if err != nil {
		return nil, "", nil, err
	}
	t, err := stream.New(h, nil, nil)
	if err != nil {
		_ = h.Close()
		return nil, "", nil, err
	}
	t.SetTimeout(s.Timeout)
	stop = func() {
		t.Close()
		_ = h.Close() // there is nothing to be done about what does not close
	}
	for id, addrs := range grouped {
		if native, err = t.Native(id, addrs); err != nil {
			stop()
			return nil, "", nil, fmt.Errorf("%q: %w", addr, err)
		}
	}
	return native, self, stop, nil
}

// EntryChecker returns what holds an entry that somebody handed over against its proof, if
// it has one, by this machine's clock. It may be called concurrently.
func EntryChecker() func(*ports.Entry) error {
	rules := domain.Rules{Policy: domain.TTLPolicy{TTL: ports.MaxInterval}, CheckAddr: libp2phost.CheckAddr, Proofs: proof.NewVerifier()}
	return func(e *ports.Entry) error {
		if e.Proof == nil {
			return nil
		}
		return rules.Acceptable(e)
	}
}
