package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"
	"time"

	"github.com/opencloud/ocnode/adapters/internal/blame"
	"github.com/opencloud/ocnode/adapters/internal/wire"
	"github.com/opencloud/ocnode/ports"
)

// Watch implements ports.Native. A batch may be a part of a native's batch, without a Cursor: to
// resume from the Cursor before repeats the part and misses nothing.
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
		frame, err := wire.EncodeWatch(w)
		if err == nil {
			err = n.watch(ctx, frame, func(b ports.Batch) bool { return yield(b, nil) })
		}
		if !errors.Is(err, errGone) { // also if ctx has ended since
			yield(ports.Batch{}, n.fault(ctx, "watch", err))
		}
	}
}

// watch returns errGone if yield stops it.
func (n *remote) watch(ctx context.Context, frame []byte, yield func(ports.Batch) bool) error {
	s, err := n.open(ctx, ports.WatchProtocol)
	if err != nil {
		return err
	}
	conn := s.Conn()
	n.watched.Store(&conn)
	// The native notices a reset at once, whatever it does.
	defer s.Reset()
	defer context.AfterFunc(ctx, func() { _ = s.Reset() })()

	_ = s.SetWriteDeadline(time.Now().Add(n.t.timeout))
	_, writeErr := s.Write(frame) // this side stays open: closing it would hide the end of the stream
	lines := wire.NewLines(s, ports.MaxBatchBytes)
	for silence := n.t.timeout; ; silence = ports.WatchTimeout {
		_ = s.SetReadDeadline(time.Now().Add(silence))
		line, err := lines.Next()
		switch {
		case err != nil && writeErr != nil:
			return fmt.Errorf("write: %w", blame.Explain(writeErr))
		case err == io.EOF:
			return errors.New("it ended the watch without a reason")
		case timedOut(err):
			return fmt.Errorf("%w for %s: %w", ports.ErrSilent, silence, err)
		case err != nil:
			return fmt.Errorf("read: %w", blame.Explain(err))
		}
		batch, err := wire.DecodeBatch(line, time.Now())
		if err != nil {
			return err
		}
		if !yield(batch) {
			return errGone
		}
	}
}
