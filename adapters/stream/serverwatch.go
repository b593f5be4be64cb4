package stream

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/opencloud/ocnode/adapters/internal/sites"
	"github.com/opencloud/ocnode/adapters/internal/wire"
	"github.com/opencloud/ocnode/ports"
)

const (
	// maxWatchersOfPeer bounds the watches of a peer: a native that follows, its operator's
	// terminal or two, and their dead watches after a cut.
	maxWatchersOfPeer = 8
	// watchersShare bounds the watches of an IPv4 address or IPv6 /56: one in watchersShare of
	// all. Identities are free, and other natives must be able to follow this native.
	watchersShare = 2
	// frameTime bounds a watcher's time to make room for a frame, before it counts as too slow.
	// At 64 KiB a frame, that is a line of 50 kbit/s.
	frameTime = 10 * time.Second
)

// watchers counts the watches.
type watchers struct {
	max int
	all int
	of  map[ports.PeerID]int
	// sites counts them by site, except loopback.
	sites map[netip.Prefix]int
}

// admitWatcher counts another watcher, or refuses it.
func (srv *server) admitWatcher(sender ports.PeerID, from netip.Addr) error {
	site := sites.Counted(from)
	srv.mu.Lock()
	defer srv.mu.Unlock()
	w := &srv.watchers
	switch {
	case w.of[sender] >= maxWatchersOfPeer:
		return ports.Busy(ports.LimitPeerWatchers, "%s has %d watches here already, more are not allowed; end one", sender, maxWatchersOfPeer)
	case site.IsValid() && w.sites[site] >= max(1, w.max/watchersShare):
		return ports.Busy(ports.LimitWatchers, "%d watches here are from %s already, more are not allowed; end one", w.sites[site], site)
	case w.all >= w.max:
		return ports.Busy(ports.LimitWatchers, "this native serves %d watches already; watch another", w.max)
	}
	w.all++
	w.of[sender]++
	if site.IsValid() {
		w.sites[site]++
	}
	return nil
}

func (srv *server) dismissWatcher(sender ports.PeerID, from netip.Addr) {
	site := sites.Counted(from)
	srv.mu.Lock()
	defer srv.mu.Unlock()
	w := &srv.watchers
	w.all--
	if w.of[sender]--; w.of[sender] == 0 {
		delete(w.of, sender)
	}
	if w.sites[site]--; w.sites[site] <= 0 {
		delete(w.sites, site)
	}
}

// watch serves a watch.
func (srv *server) watch(ctx context.Context, s network.Stream) error {
	frame, err := srv.readFrame(ctx, s)
	tooLarge := err == wire.ErrFrameTooLarge
	var w ports.WatchRequest
	if err == nil {
		w, err = wire.DecodeWatch(frame)
	}
	if err == nil {
		err = srv.admit(ctx, s, w, &inJSON{s})
	}
	refusal, ok := errors.AsType[*ports.Refusal](err)
	if !ok {
		return err
	}
	last, err := wire.EncodeWatchEnd(refusal)
	if err != nil {
		return err
	}
	srv.setWriteDeadline(ctx, s, time.Now().Add(srv.lastShare()))
	return writeAnswer(s, last, tooLarge)
}

// admit relays a watch if it keeps the limits. The error is as for relay.
func (srv *server) admit(ctx context.Context, s network.Stream, w ports.WatchRequest, as spoken) error {
	sender, from := srv.transport.sender(s.Conn()), comesFrom(s.Conn())
	if err := srv.admitWatcher(sender, from); err != nil {
		srv.transport.observer.Observe(ports.Event{Kind: ports.EventLimited, PeerID: sender, Err: err})
		return err
	}
	srv.transport.observer.Observe(ports.Event{Kind: ports.EventWatching, PeerID: sender})
	dropped, err := srv.relay(ctx, s, sender, w, as)
	srv.dismissWatcher(sender, from)
	srv.transport.observer.Observe(ports.Event{Kind: ports.EventWatched, PeerID: sender, Err: dropped})
	return err
}

// spoken is the form in which a watch goes on the wire.
type spoken interface {
	// listen reads what the watcher sends after its request, until that ends or ctx does. An error
	// ends the watch: it is the reason that the watcher is told if it is a *ports.Refusal.
	listen(ctx context.Context) error
	// write writes a batch.
	write(ctx context.Context, b *ports.Batch) error
}

// errGone is a watcher's normal end.
var errGone = errors.New("the watcher has gone")

// delivery is a pair from a native's Watch.
type delivery struct {
	batch ports.Batch
	err   error
}

// relay writes the native's batches to sender until either side ends the watch. dropped is the
// reason, unless the watcher left or this native stops. err is the last answer if it is a
// *ports.Refusal; any other err means that no peer is left to answer.
func (srv *server) relay(ctx context.Context, s network.Stream, sender ports.PeerID, w ports.WatchRequest, as spoken) (dropped, err error) {
	watching, stopWatching := context.WithCancelCause(ctx)
	var running sync.WaitGroup
	defer func() {
		stopWatching(nil)
		_ = s.SetReadDeadline(time.Now())
		running.Wait()
	}()
	_ = s.SetReadDeadline(time.Time{})
	running.Go(func() {
		if err := as.listen(watching); err != nil {
			stopWatching(err)
		}
	})
	batches := make(chan delivery)
	running.Go(func() {
		defer close(batches)
		for batch, err := range srv.native.Watch(watching, sender, w) {
			select {
			case batches <- delivery{batch, err}:
			case <-watching.Done():
				return
			}
			if err != nil {
				return
			}
		}
	})

	idle := time.NewTimer(ports.WatchIdle)
	defer idle.Stop()
	var last ports.Batch
	for {
		var next delivery
		var more bool
		select {
		case <-watching.Done():
		case next, more = <-batches:
		case <-idle.C:
			next.batch = ports.Batch{Cursor: last.Cursor, Live: last.Live, Condition: last.Condition, Missing: last.Missing}
			more = true
		}
		switch {
		case ctx.Err() != nil:
			return nil, stopping()
		case watching.Err() != nil:
			if refusal, ok := errors.AsType[*ports.Refusal](context.Cause(watching)); ok {
				return refusal, refusal
			}
			return nil, errGone
		case !more:
			next.err = errors.New("the native ended the watch without a reason")
		}
		if next.err != nil {
			return next.err, srv.refusal(s, next.err)
		}
		last = next.batch
		err := as.write(ctx, &next.batch)
		switch refusal, unfit := errors.AsType[*ports.Refusal](err); {
		case err == nil:
		case ctx.Err() != nil && !timedOut(err):
			return nil, stopping()
		case unfit: // the native's fault, not the watcher's
			return refusal, srv.refusal(s, errors.New(refusal.Error()))
		case timedOut(err) && ctx.Err() == nil:
			return ports.Refuse(ports.CodeTooSlow, "a frame was not taken in %s", frameTime), err
		default:
			return nil, err
		}
		idle.Reset(ports.WatchIdle)
	}
}

var batchBuffers = sync.Pool{New: func() any {
	buf := make([]byte, 0, ports.MaxBatchBytes+wire.MaxLineBytes)
	return &buf
}}

// inJSON is a watch in JSON.
type inJSON struct{ stream network.Stream }

// listen implements spoken. A watcher that closes its side of the stream still reads: the next write
// shows its end. Input beyond drainBytes ends the watch.
func (l *inJSON) listen(context.Context) error {
	if _, err := io.CopyN(io.Discard, l.stream, drainBytes); err != io.EOF {
		return err
	}
	return nil
}

// write implements spoken: a batch takes one or more frames.
func (l *inJSON) write(ctx context.Context, b *ports.Batch) (err error) {
	buf := batchBuffers.Get().(*[]byte)
	defer batchBuffers.Put(buf)
	*buf, err = wire.WriteBatch(*buf, b, time.Now(), func(frame []byte) error { return writeFrame(ctx, l.stream, frame) })
	return err
}

// writeFrame writes a frame of a watch.
func writeFrame(ctx context.Context, s network.Stream, frame []byte) error {
	_ = s.SetWriteDeadline(time.Now().Add(frameTime))
	if err := ctx.Err(); err != nil { // stop may have set its deadline in between
		return err
	}
	_, err := s.Write(frame)
	return err
}
