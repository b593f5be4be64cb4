package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/opencloud/ocnode/adapters/internal/blame"
	"github.com/opencloud/ocnode/adapters/internal/wire"
	"github.com/opencloud/ocnode/ports"
)

// Watch implements ports.Native. A batch may be a part of a native's batch, without a Cursor: to
// resume from the Cursor before repeats the part and misses nothing. With Own and Numbers it is the
// binary watch, if the native offers it.
func (n *remote) Watch(ctx context.Context, sender ports.PeerID, w ports.WatchRequest) iter.Seq2[ports.Batch, error] {
	return func(yield func(ports.Batch, error) bool) {
		if err := n.mayAskAs(sender, "watch"); err != nil {
			yield(ports.Batch{}, err)
			return
		}
		if w.Own {
			twins, stop := context.WithCancel(ctx)
			var looking sync.WaitGroup
			defer looking.Wait()
			defer stop()
			looking.Go(func() { n.lookForTwins(twins) })
		}
		of := []protocol.ID{ports.WatchProtocol}
		if w.Own && w.Numbers {
			of = []protocol.ID{ports.FollowProtocol, ports.WatchProtocol}
		}
		err := n.watch(ctx, w, of, func(b ports.Batch) bool { return yield(b, nil) })
		if len(of) > 1 && notOffered(err) {
			// The native offered it before, and runs an earlier version now.
			err = n.watch(ctx, w, of[1:], func(b ports.Batch) bool { return yield(b, nil) })
		}
		if !errors.Is(err, errGone) { // also if ctx has ended since
			yield(ports.Batch{}, n.fault(ctx, "watch", err))
		}
	}
}

// reading is the form in which a watch comes from a native.
type reading interface {
	// next reads the next frame, whose times count from its arrival. The error is the reader's, or that
	// the frame is no frame of a watch, or the *ports.Refusal that ends it.
	next() (ports.Batch, error)
}

// watch watches by the first of the protocols that the native offers. It returns errGone if yield
// stops it.
func (n *remote) watch(ctx context.Context, w ports.WatchRequest, of []protocol.ID, yield func(ports.Batch) bool) error {
	if _, err := wire.EncodeWatch(w); err != nil {
		return err // before a native is bothered with it
	}
	s, err := n.open(ctx, of...)
	if err != nil {
		return err
	}
	conn := s.Conn()
	n.watched.Store(&conn)
	// The native notices a reset at once, whatever it does.
	defer s.Reset()
	defer context.AfterFunc(ctx, func() { _ = s.Reset() })()

	_ = s.SetWriteDeadline(time.Now().Add(n.t.timeout))
	from, writeErr := n.request(s, w) // this side stays open: closing it would hide the end of the stream
	if writeErr == nil && s.Protocol() == ports.FollowProtocol && (w.Ask != nil || w.Full != nil) {
		var asking sync.WaitGroup
		asks, stop := context.WithCancel(ctx)
		defer func() {
			stop()
			_ = s.Reset() // a write ends at once
			asking.Wait()
		}()
		asking.Go(func() { n.sendAsks(asks, s, &w) })
	}
	silence := n.t.timeout
	next := func() (ports.Batch, error) {
		_ = s.SetReadDeadline(time.Now().Add(silence))
		batch, err := from.next()
		if err == nil {
			silence = ports.WatchTimeout
		}
		return batch, err
	}
	for {
		batch, err := next()
		if err == nil && isPart(&batch) {
			batch, err = n.t.readAhead(batch, next, func() { _ = s.Reset() }, yield)
		}
		_, refused := errors.AsType[*ports.Refusal](err)
		switch {
		case err == nil:
		case refused, err == errGone:
			return err
		case writeErr != nil:
			return fmt.Errorf("write: %w", blame.Explain(writeErr))
		case err == io.EOF:
			return errors.New("it ended the watch without a reason")
		case timedOut(err):
			return fmt.Errorf("%w for %s: %w", ports.ErrSilent, silence, err)
		default:
			return err
		}
		if !yield(batch) {
			return errGone
		}
	}
}

// request asks for w over s, in the form of its protocol.
func (n *remote) request(s network.Stream, w ports.WatchRequest) (reading, error) {
	if s.Protocol() == ports.FollowProtocol {
		err := writeAsk(s, &wire.FollowRequest{WatchRequest: w})
		return &readFrames{n, wire.NewFrames(s, ports.MaxBatchBytes), wire.NewTeller(ports.PeerID(n.info.ID.String()))}, err
	}
	frame, err := wire.EncodeWatch(w)
	if err == nil {
		_, err = s.Write(frame)
	}
	return readLines{wire.NewLines(s, ports.MaxBatchBytes)}, err
}

// readErr explains an error of the stream.
func readErr(err error) error {
	if err == io.EOF || timedOut(err) {
		return err
	}
	return fmt.Errorf("read: %w", blame.Explain(err))
}

// readLines reads a watch in JSON.
type readLines struct{ lines *wire.Lines }

func (r readLines) next() (ports.Batch, error) {
	line, err := r.lines.Next()
	if err != nil {
		return ports.Batch{}, readErr(err)
	}
	return wire.DecodeBatch(line, time.Now())
}

// readFrames reads a watch in binary.
type readFrames struct {
	native *remote
	frames *wire.Frames
	teller wire.Teller
}

func (r *readFrames) next() (b ports.Batch, err error) {
	message, err := r.frames.Next()
	e := ports.Event{Kind: ports.EventNewsRead, Via: r.teller.PeerID(), Frames: 1}
	switch length, wrong := errors.AsType[*ports.Refusal](err); {
	case wrong: // the teller refuses nothing by it
		e.Code, err = length.Code, errors.New(length.Message)
	case err == io.ErrUnexpectedEOF:
		e.Code, err = ports.CodeMalformed, errors.New("a frame is cut")
	case err != nil:
		return ports.Batch{}, readErr(err)
	default:
		if b, err = r.teller.Decode(message, time.Now()); err != nil {
			if _, refused := errors.AsType[*ports.Refusal](err); refused {
				return b, err
			}
			e.Code = ports.CodeMalformed
		}
	}
	if err != nil {
		e.Kind, e.Frames, e.Err = ports.EventNewsRefused, 0, err
	} else if b.News != nil {
		e.Renewals = len(b.News.Renewals)
	}
	r.native.t.observer.Observe(e)
	return b, err
}

// sendAsks writes the asks of a follower, and whether it is full, until ctx ends. Without them the watch has no use,
// so it ends the stream if it fails.
func (n *remote) sendAsks(ctx context.Context, s network.Stream, w *ports.WatchRequest) {
	for {
		var r wire.FollowRequest
		select {
		case ranges, more := <-w.Ask:
			if !more {
				return
			}
			r.Ranges = ranges
		case full := <-w.Full:
			if r.Fill = wire.Room; full {
				r.Fill = wire.Full
			}
		case <-ctx.Done():
			return
		}
		_ = s.SetWriteDeadline(time.Now().Add(frameTime))
		if err := writeAsk(s, &r); err != nil {
			n.t.log.Debug("ask not sent", "peerID", n.info.ID, "error", err)
			_ = s.Reset()
			return
		}
	}
}

func writeAsk(s network.Stream, r *wire.FollowRequest) error {
	frame, err := wire.AppendFollow(nil, r)
	if err == nil {
		_, err = s.Write(frame)
	}
	return err
}
