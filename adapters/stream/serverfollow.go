package stream

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/opencloud/ocnode/adapters/internal/wire"
	"github.com/opencloud/ocnode/ports"
)

const (
	// askBurst and askEvery bound the asks of a follower, since an answer takes a walk of the table. To
	// find what differs takes some ten. The others wait on their stream.
	askBurst = 32
	askEvery = time.Second
	// keptNews bounds the News that are kept encoded: followers are told the same within a moment, and
	// a follower that is behind has its own encoded for itself.
	keptNews = 16
)

// follow serves the binary watch.
func (srv *server) follow(ctx context.Context, s network.Stream) error {
	as := &inBinary{srv: srv, stream: s, frames: wire.NewFrames(s, ports.MaxFrameBytes), asks: make(chan []ports.Range), full: make(chan bool)}
	r, err := as.request()
	switch {
	case timedOut(err) && errors.Is(ctx.Err(), context.Canceled):
		err = stopping()
	case timedOut(err):
		err = ports.Refuse(ports.CodeMalformed, "the frame had not ended %s after the stream was opened", srv.transport.timeout-srv.lastShare())
	case err == nil:
		w := r.WatchRequest
		w.Ask, w.Full = as.asks, as.full
		err = srv.admit(ctx, s, w, as)
	}
	refusal, ok := errors.AsType[*ports.Refusal](err)
	if !ok {
		return err
	}
	srv.setWriteDeadline(ctx, s, time.Now().Add(srv.lastShare()))
	return writeAnswer(s, wire.EncodeFollowEnd(refusal), refusal.Code == ports.CodeTooLarge)
}

// inBinary is a watch between natives.
type inBinary struct {
	srv    *server
	stream network.Stream
	frames *wire.Frames
	asks   chan []ports.Range
	full   chan bool
}

// request reads the next message of the follower. An error that is no *ports.Refusal means that no peer
// is left to answer.
func (t *inBinary) request() (*wire.FollowRequest, error) {
	message, err := t.frames.Next()
	var r *wire.FollowRequest
	switch {
	case err == io.ErrUnexpectedEOF:
		err = ports.Refuse(ports.CodeMalformed, "the frame is cut")
	case err == nil:
		r, err = wire.DecodeFollow(message)
	}
	if refusal, ok := errors.AsType[*ports.Refusal](err); ok {
		t.observe(ports.Event{Kind: ports.EventNewsRefused, Code: refusal.Code, Err: refusal})
	}
	return r, err
}

func (t *inBinary) observe(e ports.Event) {
	e.PeerID = t.srv.transport.sender(t.stream.Conn())
	t.srv.transport.observer.Observe(e)
}

// listen implements spoken: it hands the follower's asks to the native, and whether the follower is full. A
// follower that closes its side of the stream asks no more.
func (t *inBinary) listen(ctx context.Context) error {
	left, since := askBurst, time.Now()
	for {
		r, err := t.request()
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case left == 0:
			select {
			case <-time.After(askEvery - time.Since(since)):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if more := int(time.Since(since) / askEvery); more > 0 {
			left, since = min(left+more, askBurst), time.Now()
		}
		left--
		asks, full := t.asks, t.full
		if r.Fill == 0 {
			full = nil
		} else {
			asks = nil
		}
		select {
		case asks <- r.Ranges:
		case full <- r.Fill == wire.Full:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// write implements spoken: a batch takes one or more frames.
func (t *inBinary) write(ctx context.Context, b *ports.Batch) error {
	pieces, err := t.srv.told.of(b, t.srv.transport.id, time.Now())
	if err != nil {
		return err
	}
	buf := batchBuffers.Get().(*[]byte)
	defer batchBuffers.Put(buf)
	e := ports.Event{Kind: ports.EventNewsTold}
	*buf, err = wire.WriteTold(*buf, b, pieces, func(frame []byte) error {
		e.Frames++
		return writeFrame(ctx, t.stream, frame)
	})
	if b.News != nil {
		e.Renewals = len(b.News.Renewals)
	}
	if err == nil {
		t.observe(e)
	}
	return err
}

// encodings keeps the last News encoded: all followers are told the same bytes.
type encodings struct {
	mu   sync.Mutex
	last [keptNews]*encoding
	next int // the oldest of them
}

type encoding struct {
	news   *ports.News
	once   sync.Once
	pieces *wire.Pieces
	err    error
}

// of returns the News of b, encoded.
func (e *encodings) of(b *ports.Batch, teller ports.PeerID, now time.Time) (*wire.Pieces, error) {
	made := now.Add(-b.Age)
	if b.News == nil || b.Cursor == "" || len(b.Told) > 0 {
		return wire.EncodeNews(b.News, teller, made) // a snapshot, or an answer, is for one follower
	}
	is := e.get(b.News)
	is.once.Do(func() { is.pieces, is.err = wire.EncodeNews(b.News, teller, made) })
	return is.pieces, is.err
}

func (e *encodings) get(n *ports.News) *encoding {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, is := range e.last {
		if is != nil && is.news == n {
			return is
		}
	}
	is := &encoding{news: n}
	e.last[e.next] = is
	e.next = (e.next + 1) % keptNews
	return is
}
