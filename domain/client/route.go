package client

import (
	"context"
	"errors"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/opencloud/ocnode/ports"
)

const (
	// maxProven bounds the addresses of a native that are remembered because they worked: both
	// families over both transports.
	maxProven = 4
	// maxTold bounds the addresses of one attempt, beside those that worked and those that the
	// operator gave: all that one teller names. A native that lies causes no more dials than that.
	maxTold = ports.MaxAddrs
	// maxTellers bounds the tellers whose word of a native is remembered: the natives that are
	// asked at a time, the native itself, and two discoveries.
	maxTellers = maxNativesAsked + 3
	// seekTimeout bounds how long an attempt waits for news of the native: the answer of another
	// native, which itself waits for others. What comes later serves the next attempt.
	seekTimeout = 2 * time.Second
)

// route is the way to a native that was found. Each request goes to the addresses of now: those
// that worked, and those that others tell. All methods may be called concurrently.
type route struct {
	id        ports.PeerID
	transport ports.Transport
	seek      func(context.Context) // asks others for the addresses of now

	mu     sync.Mutex
	proven []string           // the address that worked last is the first
	given  []string           // by the operator
	told   []news             // the latest first, one of each teller
	turn   int                // of told: whose addresses are the first
	met    string             // the public address of a connection, at the last meet; "" without one
	site   *string            // of the first address that tells; nil if it is not known yet
	failed bool               // the last registration failed
	last   ports.RemoteNative // of the last registration that it took
}

// news are the addresses of a native by one teller.
type news struct {
	by    teller
	addrs []string
}

// teller tells of natives. It is a native, which may tell of itself, or a discovery by its number.
type teller struct {
	native    ports.PeerID
	discovery int
}

var _ ports.RemoteNative = (*route)(nil)

// hear takes in the addresses that a teller names now, in place of those that it named before.
// Addresses that worked stay. An error says that the transport cannot dial them.
func (r *route) hear(by teller, addrs []string) error {
	addrs = slices.Clone(addrs[:min(len(addrs), ports.MaxAddrs)])
	if _, err := r.transport.Native(r.id, addrs); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told = slices.DeleteFunc(r.told, func(n news) bool { return n.by == by })
	r.told = slices.Insert(r.told, 0, news{by, addrs})
	r.told = r.told[:min(len(r.told), maxTellers)]
	r.site = nil
	return nil
}

// give takes in the addresses that the operator gave. They are tried like those that worked. An error
// says that the transport cannot dial them.
func (r *route) give(addrs []string) error {
	if _, err := r.transport.Native(r.id, addrs); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.given, r.site = addrs, nil
	return nil
}

// meets takes in the public address at which the native is connected, "" if it is not.
func (r *route) meets(at string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.met != at {
		r.met, r.site = at, nil
	}
}

// siteBy returns the site of the connection, since a native can name any addresses. Without a
// connection it is the site of the first address that has one, "" without such an address.
func (r *route) siteBy(of func(addr string) string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.site == nil {
		r.site = new(string)
		for _, addr := range append([]string{r.met}, r.ranked()...) {
			if *r.site = of(addr); *r.site != "" {
				break
			}
		}
	}
	return *r.site
}

// addrs returns the addresses of now, those that worked first. Tellers take turns, so none of them
// keeps out another.
func (r *route) addrs() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ranked()
}

// ranked is addrs for a caller that holds the lock.
func (r *route) ranked() (addrs []string) {
	add := func(more []string, most int) {
		for _, addr := range more {
			if len(addrs) < most && !slices.Contains(addrs, addr) {
				addrs = append(addrs, addr)
			}
		}
	}
	add(r.proven, maxProven)
	add(r.given, maxProven+len(r.given))
	most := len(addrs) + maxTold
	for i := range r.told {
		add(r.told[(r.turn+i)%len(r.told)].addrs, most)
	}
	return addrs
}

// native returns the native at the addresses of now.
func (r *route) native() (ports.RemoteNative, error) { return r.transport.Native(r.id, r.addrs()) }

// failing reports whether the last registration failed.
func (r *route) failing() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

// Register implements ports.Native. After a failure of a native that has granted a lease, or that the
// operator gave, it asks others first where the native is now.
func (r *route) Register(ctx context.Context, sender ports.PeerID, reg ports.Registration) (ports.Lease, error) {
	r.mu.Lock()
	seeks := r.failed && (r.last != nil || len(r.given) > 0)
	r.mu.Unlock()
	if seeks {
		seeking, cancel := context.WithTimeout(ctx, seekTimeout)
		r.seek(seeking)
		cancel()
	}
	native, err := r.native()
	if err != nil {
		return ports.Lease{}, err
	}
	lease, err := native.Register(ctx, sender, reg)
	_, refused := errors.AsType[*ports.Refusal](err)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed = err != nil && !refused; r.failed {
		r.turn++
	}
	if err == nil {
		r.last = native
		r.prove(native.Reached())
	}
	return lease, err
}

// prove remembers that addr worked; "" is no address. The caller holds the lock.
func (r *route) prove(addr string) {
	if addr == "" {
		return
	}
	r.proven = slices.DeleteFunc(r.proven, func(a string) bool { return a == addr })
	r.proven = slices.Insert(r.proven, 0, addr)
	r.proven = r.proven[:min(len(r.proven), maxProven)]
	r.site = nil
}

// Disconnected implements ports.RemoteNative.
func (r *route) Disconnected() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == nil {
		return nil
	}
	return r.last.Disconnected()
}

// Reached implements ports.RemoteNative.
func (r *route) Reached() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == nil {
		return ""
	}
	return r.last.Reached()
}

// Leave implements ports.Native.
func (r *route) Leave(ctx context.Context, sender ports.PeerID, record []byte) error {
	native, err := r.native()
	if err != nil {
		return err
	}
	return native.Leave(ctx, sender, record)
}

// LookUp implements ports.Native.
func (r *route) LookUp(ctx context.Context, sender, id ports.PeerID) (ports.Answer, error) {
	native, err := r.native()
	if err != nil {
		return ports.Answer{}, err
	}
	return native.LookUp(ctx, sender, id)
}

// List implements ports.Native.
func (r *route) List(ctx context.Context, sender ports.PeerID, q ports.Query) (ports.Page, error) {
	native, err := r.native()
	if err != nil {
		return ports.Page{}, err
	}
	return native.List(ctx, sender, q)
}

// Natives implements ports.Native.
func (r *route) Natives(ctx context.Context, sender ports.PeerID) ([]ports.NativeStatus, error) {
	native, err := r.native()
	if err != nil {
		return nil, err
	}
	return native.Natives(ctx, sender)
}

// Watch implements ports.Native.
func (r *route) Watch(ctx context.Context, sender ports.PeerID, w ports.WatchRequest) iter.Seq2[ports.Batch, error] {
	native, err := r.native()
	if err != nil {
		return func(yield func(ports.Batch, error) bool) { yield(ports.Batch{}, err) }
	}
	return native.Watch(ctx, sender, w)
}
