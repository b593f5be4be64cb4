package stream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/opencloud/ocnode/adapters/internal/turns"
	"github.com/opencloud/ocnode/adapters/internal/wire"
	"github.com/opencloud/ocnode/ports"
)

const (
	// chunkBytes is the size of a write of a page: several packets, so that the write itself
	// costs little. A slow reader holds no more memory than that.
	chunkBytes = 32 << 10
	// pageTime bounds the writing of a page in all; each chunk has ports.ExchangeTimeout. That
	// suffices for 1,000 usual entries over a line of 100 kbit/s, and for the largest possible
	// page over 3 Mbit/s.
	pageTime = 30 * time.Second
)

var chunks = sync.Pool{New: func() any {
	chunk := make([]byte, 0, chunkBytes+wire.MaxLineBytes+1)
	return &chunk
}}

// lookUp serves a look-up of a PeerID, of a page, or of the natives. The native has as long to
// answer as for a registration, counted from the whole frame.
func (srv *server) lookUp(ctx context.Context, s network.Stream) error {
	frame, err := srv.readFrame(ctx, s)
	var q wire.Question
	if err == nil {
		q, err = wire.DecodeQuestion(frame)
	}
	tooLarge := err == wire.ErrFrameTooLarge
	chunk := chunks.Get().(*[]byte)
	defer chunks.Put(chunk)
	p := &page{srv: srv, ctx: ctx, s: s, chunk: (*chunk)[:0]}
	defer func() { *chunk = p.chunk }()
	var end wire.End
	if err == nil {
		end, err = srv.answerQuestion(ctx, s, q, p)
	}
	if refusal, ok := errors.AsType[*ports.Refusal](err); ok {
		end.Refusal = refusal
	} else if err != nil {
		return err
	}
	line, err := wire.EncodeEnd(end)
	if err != nil {
		return err
	}
	p.chunk = append(p.chunk, line...)
	p.setDeadline()
	return writeAnswer(s, p.chunk, tooLarge)
}

// answerQuestion asks the native and writes all lines of the answer but the last. An error that
// is no *ports.Refusal is the stream's.
func (srv *server) answerQuestion(ctx context.Context, s network.Stream, q wire.Question, p *page) (wire.End, error) {
	nativeCtx, cancel := context.WithTimeout(ctx, srv.transport.timeout-srv.lastShare())
	defer cancel()
	sender := srv.transport.sender(s.Conn())
	switch {
	case q.PeerID != "":
		a, err := srv.native.LookUp(nativeCtx, sender, q.PeerID)
		end := wire.End{Condition: a.Condition, Missing: a.Missing}
		if errors.Is(err, ports.ErrNotFound) {
			return end, ports.Refuse(ports.CodeNotFound, "%s is not alive, as far as this native can tell", q.PeerID)
		}
		if err != nil {
			return end, srv.refusal(s, err)
		}
		return end, p.addListed(&a.Listed)
	case q.Natives:
		natives, err := srv.native.Natives(nativeCtx, sender)
		if err != nil {
			return wire.End{}, srv.refusal(s, err)
		}
		for _, n := range natives[:min(len(natives), ports.MaxPage)] {
			if err := p.addNative(n); err != nil {
				return wire.End{}, err
			}
		}
		return wire.End{}, nil
	default:
		return srv.answerPage(nativeCtx, s, sender, q.Query, p)
	}
}

// answerPage answers with a page. To list and to encode needs a turn; to write does not, since a
// slow reader would keep it.
func (srv *server) answerPage(nativeCtx context.Context, s network.Stream, sender ports.PeerID, q ports.Query, p *page) (wire.End, error) {
	var page ports.Page
	var left []ports.Listed
	var err error
	listed := srv.turns.Try(nativeCtx, func() {
		if page, err = srv.native.List(nativeCtx, sender, q); err != nil {
			err = srv.refusal(s, err)
			return
		}
		left, err = p.fill(page.Entries)
	})
	if !listed && p.ctx.Err() != nil {
		return wire.End{}, stopping()
	}
	if !listed {
		return wire.End{}, ports.Refuse(ports.CodeBusy, "this native writes as many pages as it can beside its registrations; try again in %v, or ask another native", turns.Patience)
	}
	for err == nil && len(left) > 0 {
		if err = p.write(); err != nil {
			break
		}
		if !srv.turns.Do(p.ctx, func() { left, err = p.fill(left) }) {
			err = stopping()
		}
	}
	return wire.End{Next: page.Next, Condition: page.Condition, Missing: page.Missing}, err
}

// page is the answer to a look-up while it is written.
type page struct {
	srv   *server
	ctx   context.Context
	s     network.Stream
	chunk []byte
	until time.Time // zero before the first chunk
}

func (p *page) addListed(l *ports.Listed) (err error) {
	p.chunk, err = wire.AppendListed(p.chunk, l, time.Now())
	return p.encoded(err)
}

// addNative writes the chunk if it is full.
func (p *page) addNative(n ports.NativeStatus) (err error) {
	p.chunk, err = wire.AppendNative(p.chunk, n)
	if err = p.encoded(err); err != nil || len(p.chunk) < chunkBytes {
		return err
	}
	return p.write()
}

// fill adds entries until the chunk is full, and returns the rest.
func (p *page) fill(entries []ports.Listed) (rest []ports.Listed, err error) {
	for ; len(entries) > 0 && len(p.chunk) < chunkBytes && err == nil; entries = entries[1:] {
		err = p.addListed(&entries[0])
	}
	return entries, err
}

// encoded returns the error of an encoding: an entry too large for a line is the native's fault,
// not the sender's.
func (p *page) encoded(err error) error {
	if err != nil {
		return p.srv.refusal(p.s, fmt.Errorf("encode: %s", err.Error()))
	}
	return nil
}

func (p *page) write() error {
	p.setDeadline()
	if _, err := p.s.Write(p.chunk); err != nil {
		return err
	}
	p.chunk = p.chunk[:0]
	return nil
}

// setDeadline sets the deadline of the next chunk.
func (p *page) setDeadline() {
	now := time.Now()
	if p.until.IsZero() {
		p.until = now.Add(pageTime)
	}
	deadline := now.Add(p.srv.transport.timeout)
	if deadline.After(p.until) {
		deadline = p.until
	}
	p.srv.setWriteDeadline(p.ctx, p.s, deadline)
}

// setWriteDeadline moves the write deadline of s, unless stop has hastened it.
func (srv *server) setWriteDeadline(ctx context.Context, s network.Stream, deadline time.Time) {
	_ = s.SetWriteDeadline(deadline)
	if ctx.Err() != nil { // stop may have set its deadline in between
		_ = s.SetWriteDeadline(time.Now().Add(srv.lastShare()))
	}
}
