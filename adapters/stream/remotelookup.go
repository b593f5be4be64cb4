package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/opencloud/ocnode/adapters/internal/blame"
	"github.com/opencloud/ocnode/adapters/internal/wire"
	"github.com/opencloud/ocnode/ports"
)

// LookUp implements ports.Native.
func (n *remote) LookUp(ctx context.Context, sender, id ports.PeerID) (ports.Answer, error) {
	if err := n.mayAskAs(sender, "look up"); err != nil {
		return ports.Answer{}, err
	}
	if id == "" {
		return ports.Answer{}, ports.Refuse(ports.CodeMalformed, "PeerID is empty; name the indexer to look up")
	}
	var found []ports.Listed
	end, err := n.ask(ctx, wire.Question{PeerID: id}, 1, func(frame []byte) (*wire.End, error) {
		l, end, err := wire.DecodeListed(frame, time.Now())
		if end == nil && err == nil && l.PeerID != id {
			err = fmt.Errorf("it answered with %s", l.PeerID)
		}
		found = append(found, l)
		return end, err
	})
	a := ports.Answer{Condition: end.Condition, Missing: end.Missing}
	if refusal, ok := errors.AsType[*ports.Refusal](err); ok && refusal.Code == ports.CodeNotFound {
		return a, fmt.Errorf("look up %s with native %s: %w", id, n.info.ID, ports.ErrNotFound)
	}
	if err == nil && len(found) < 2 { // the end counts as one
		err = errors.New("its answer has no entry")
	}
	if err != nil {
		return a, n.fault(ctx, "look up with", err)
	}
	a.Listed = found[0]
	return a, nil
}

// List implements ports.Native.
func (n *remote) List(ctx context.Context, sender ports.PeerID, q ports.Query) (ports.Page, error) {
	if err := n.mayAskAs(sender, "list"); err != nil {
		return ports.Page{}, err
	}
	var page ports.Page
	limit := q.Limit
	if limit == 0 {
		limit = ports.DefaultPage
	}
	end, err := n.ask(ctx, wire.Question{Query: q}, limit, func(frame []byte) (*wire.End, error) {
		l, end, err := wire.DecodeListed(frame, time.Now())
		if end == nil && err == nil {
			page.Entries = append(page.Entries, l)
		}
		return end, err
	})
	if err != nil {
		return ports.Page{Condition: end.Condition}, n.fault(ctx, "list with", err)
	}
	page.Next, page.Condition, page.Missing = end.Next, end.Condition, end.Missing
	return page, nil
}

// Natives implements ports.Native.
func (n *remote) Natives(ctx context.Context, sender ports.PeerID) ([]ports.NativeStatus, error) {
	if err := n.mayAskAs(sender, "ask for natives"); err != nil {
		return nil, err
	}
	var natives []ports.NativeStatus
	_, err := n.ask(ctx, wire.Question{Natives: true}, ports.MaxPage, func(frame []byte) (*wire.End, error) {
		s, end, err := wire.DecodeNative(frame)
		if end == nil && err == nil {
			natives = append(natives, s)
		}
		return end, err
	})
	if err != nil {
		return nil, n.fault(ctx, "ask for the natives of", err)
	}
	return natives, nil
}

// answers pools the readers of answers.
var answers = sync.Pool{New: func() any { return wire.NewLines(nil, wire.MaxLineBytes) }}

// ask sends q and passes each line of the answer to decode, until decode returns the end. More
// than maxLines before the end are an error. A refusal comes as an error beside the end.
func (n *remote) ask(ctx context.Context, q wire.Question, maxLines int, decode func(frame []byte) (*wire.End, error)) (end wire.End, err error) {
	frame, err := wire.EncodeQuestion(q)
	if err != nil {
		return wire.End{}, err
	}
	err = n.exchange(ctx, ports.LookupProtocol, frame, func(s network.Stream, writeErr error) error {
		lines := answers.Get().(*wire.Lines)
		lines.Reset(&patient{s: s, each: n.t.timeout, until: time.Now().Add(pageTime + n.t.timeout)})
		defer func() {
			lines.Reset(nil)
			answers.Put(lines)
		}()
		for range maxLines + 1 {
			line, err := lines.Next()
			switch {
			case err != nil && writeErr != nil:
				return fmt.Errorf("write: %w", blame.Explain(writeErr))
			case err == io.EOF:
				return errors.New("it closed the stream before its answer was whole")
			case err != nil:
				return fmt.Errorf("read the answer: %w", blame.Explain(err))
			}
			e, err := decode(line)
			if err != nil {
				return err
			}
			if e != nil {
				end = *e
				if e.Refusal != nil {
					return e.Refusal
				}
				return nil
			}
		}
		return fmt.Errorf("it answered with more than the %d asked for", maxLines)
	})
	return end, err
}

// patient reads from a slow stream: each read has a deadline, and so has the whole.
type patient struct {
	s     network.Stream
	each  time.Duration
	until time.Time
}

func (p *patient) Read(b []byte) (int, error) {
	deadline := time.Now().Add(p.each)
	if deadline.After(p.until) {
		deadline = p.until
	}
	_ = p.s.SetReadDeadline(deadline)
	return p.s.Read(b)
}
