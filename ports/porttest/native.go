package porttest

import (
	"context"
	"iter"

	"github.com/opencloud/ocnode/ports"
)

// Native is a ports.Native made of functions. It refuses requests without a function.
type Native struct {
	OnRegister func(ctx context.Context, sender ports.PeerID, r ports.Registration) (ports.Lease, error)
	OnLeave    func(ctx context.Context, sender ports.PeerID, record []byte) error
	OnLookUp   func(ctx context.Context, sender, id ports.PeerID) (ports.Answer, error)
	OnList     func(ctx context.Context, sender ports.PeerID, q ports.Query) (ports.Page, error)
	OnNatives  func(ctx context.Context, sender ports.PeerID) ([]ports.NativeStatus, error)
	OnWatch    func(ctx context.Context, sender ports.PeerID, w ports.WatchRequest) iter.Seq2[ports.Batch, error]
}

var _ ports.Native = Native{}

// Register implements ports.Native.
func (n Native) Register(ctx context.Context, sender ports.PeerID, r ports.Registration) (ports.Lease, error) {
	if n.OnRegister == nil {
		return ports.Lease{}, notMade("register")
	}
	return n.OnRegister(ctx, sender, r)
}

// Leave implements ports.Native.
func (n Native) Leave(ctx context.Context, sender ports.PeerID, record []byte) error {
	if n.OnLeave == nil {
		return notMade("leave")
	}
	return n.OnLeave(ctx, sender, record)
}

// LookUp implements ports.Native.
func (n Native) LookUp(ctx context.Context, sender, id ports.PeerID) (ports.Answer, error) {
	if n.OnLookUp == nil {
		return ports.Answer{}, notMade("look up")
	}
	return n.OnLookUp(ctx, sender, id)
}

// List implements ports.Native.
func (n Native) List(ctx context.Context, sender ports.PeerID, q ports.Query) (ports.Page, error) {
	if n.OnList == nil {
		return ports.Page{}, notMade("list")
	}
	return n.OnList(ctx, sender, q)
}

// Natives implements ports.Native.
func (n Native) Natives(ctx context.Context, sender ports.PeerID) ([]ports.NativeStatus, error) {
	if n.OnNatives == nil {
		return nil, notMade("ask for natives")
	}
	return n.OnNatives(ctx, sender)
}

// Watch implements ports.Native.
func (n Native) Watch(ctx context.Context, sender ports.PeerID, w ports.WatchRequest) iter.Seq2[ports.Batch, error] {
	if n.OnWatch == nil {
		return func(yield func(ports.Batch, error) bool) { yield(ports.Batch{}, notMade("watch")) }
	}
	return n.OnWatch(ctx, sender, w)
}

func notMade(what string) error {
	return ports.Refuse(ports.CodeRefused, "no peer may %s here", what)
}
