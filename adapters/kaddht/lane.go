package kaddht

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	record "github.com/libp2p/go-libp2p-record"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-msgio"
	"google.golang.org/protobuf/proto"
)

const (
	// maxPipelined and maxPipelinedBytes bound the puts that are sent before the first answer. A server
	// answers with as many bytes, and reads on only while this node takes them: the window of a stream
	// has 256 KiB.
	maxPipelined      = 64
	maxPipelinedBytes = 64 << 10
	// maxWaiting bounds the puts that wait for a server, at some 1 KiB each.
	maxWaiting = 1024
	// maxRefused is how many refusals in a row say that a server refuses whatever it gets. No put waits
	// for its answer then.
	maxRefused = 16
	// patience is how long a server may take to answer the puts of one moment. Of a slower server no put waits
	// for the answer: the outbox has few workers, and a server could hold them all.
	patience = 500 * time.Millisecond
	// linger is how long a stream waits for the next put. A new stream costs as much as several puts, and
	// a server ends a stream that is idle for a minute.
	linger = 10 * time.Second
)

// result is what became of a put to a server.
type result int

const (
	taken result = iota
	refused
	unanswered
)

func (r result) String() string { return [...]string{"taken", "refused", "unanswered"}[r] }

// put is a record on its way to a server.
type put struct {
	request []byte    // with its length before it
	until   time.Time // when it is given up
	// answered is called once. It does not block.
	answered func(result)
}

// lane is the way of the puts to a server, in order. Those of one moment are sent together, on one
// stream: the server reads them one after another. It resets the stream at a record that it refuses, so
// the others go on a new stream.
type lane struct {
	mu      sync.Mutex
	waiting []*put
	runs    bool          // a goroutine sends what waits
	more    chan struct{} // has a value after something was queued; of that goroutine

	// These are that goroutine's.
	stream  network.Stream // nil without one
	answers msgio.ReadCloser
}

// requestOf returns the request to store value under key.
func requestOf(key string, value []byte) ([]byte, error) {
	message, err := proto.Marshal(&pb.Message{Type: pb.Message_PUT_VALUE, Key: []byte(key), Record: record.MakePutRecord(key, value)})
	return append(binary.AppendUvarint(nil, uint64(len(message))), message...), err
}

// send queues p for the server to. The caller has begun an operation.
func (s *Store) send(to *server, p *put) {
	l := &to.lane
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) >= maxWaiting {
		p.answered(unanswered)
		return
	}
	l.waiting = append(l.waiting, p)
	if !l.runs {
		l.runs, l.more = true, make(chan struct{}, 1)
		s.running.Go(func() { s.drive(to) })
		return
	}
	select {
	case l.more <- struct{}{}:
	default:
	}
}

// drive sends what waits for the server to, until nothing comes for a while.
func (s *Store) drive(to *server) {
	l := &to.lane
	window, inARow := maxPipelined, 0
	for {
		batch := l.next(s.closing, window)
		if len(batch) == 0 {
			return
		}
		kept := l.stream != nil
		began := time.Now()
		took, err := s.exchange(to.id, l, batch)
		if l.answer(took, taken); took > 0 {
			inARow = 0
			to.unawaited.Store(time.Since(began) > patience)
			s.servers.took(to)
		}
		switch {
		case err == nil:
			window = min(2*window, maxPipelined)
			continue
		case took > 0, kept && isReset(err): // it may have closed an idle stream
		case !isReset(err):
			s.log.Debug("a server does not answer puts", "server", to.id, "error", err)
			l.answer(maxWaiting, unanswered)
			s.rests(to)
		case len(batch) == 1:
			inARow++
			to.unawaited.Store(inARow >= maxRefused)
			l.answer(1, refused)
		}
		// The server refuses a record of the batch, and answers before that may be lost with the stream.
		// So each record without an answer is put again: a server takes the same record twice.
		window = max(1, min(window, len(batch))/2)
	}
}

// rests has no more put to a server until it answers. A Store without a view asks no servers.
func (s *Store) rests(to *server) {
	if s.data.view.Load() != nil {
		s.servers.failed(to)
	}
}

// next waits for puts, and returns at most n of them. No put ends the goroutine.
func (l *lane) next(closing context.Context, n int) []*put {
	for {
		if batch := l.batch(n); len(batch) > 0 {
			return batch
		}
		select {
		case <-l.more:
			continue
		case <-closing.Done():
			l.answer(maxWaiting, unanswered)
		case <-time.After(linger):
		}
		if l.end() {
			return nil
		}
	}
}

// end closes the stream for the end of the goroutine, unless puts wait.
func (l *lane) end() bool {
	l.mu.Lock()
	if len(l.waiting) > 0 {
		l.mu.Unlock()
		return false
	}
	stream := l.stream
	l.runs, l.stream, l.answers = false, nil, nil
	l.mu.Unlock()
	if stream != nil {
		_ = stream.Close()
	}
	return true
}

// batch returns at most n puts that are sent together. It drops those that are given up.
func (l *lane) batch(n int) []*put {
	l.mu.Lock()
	defer l.mu.Unlock()
	for now := time.Now(); len(l.waiting) > 0 && !now.Before(l.waiting[0].until); {
		l.drop(1, unanswered)
	}
	size, ready := 0, l.waiting[:min(n, len(l.waiting))]
	for i, p := range ready {
		if size += len(p.request); i > 0 && size > maxPipelinedBytes {
			return ready[:i:i]
		}
	}
	return slices.Clip(ready)
}

// answer answers the first n puts that wait.
func (l *lane) answer(n int, r result) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop(n, r)
}

// drop is answer for a caller that holds the lock.
func (l *lane) drop(n int, r result) {
	n = min(n, len(l.waiting))
	for _, p := range l.waiting[:n] {
		p.answered(r)
	}
	clear(l.waiting[:n])
	if l.waiting = l.waiting[n:]; len(l.waiting) == 0 {
		l.waiting = nil
	}
}

// exchange sends batch to p, and returns how many puts p took. With an error the stream is gone.
func (s *Store) exchange(p peer.ID, l *lane, batch []*put) (took int, err error) {
	if !s.gate.native(p) { // the lists may have changed
		return 0, errUntrusted
	}
	until, requests := batch[0].until, []byte(nil)
	for _, one := range batch {
		requests = append(requests, one.request...)
		if one.until.After(until) {
			until = one.until
		}
	}
	ctx, cancel := context.WithDeadline(s.closing, until)
	defer cancel()
	if l.stream == nil {
		stream, err := s.host.NewStream(ctx, p, s.protocol)
		if err != nil {
			return 0, err
		}
		l.stream, l.answers = stream, msgio.NewVarintReaderSize(stream, maxAnswerBytes)
	}
	stream := l.stream
	defer func() {
		if err != nil {
			_ = stream.Reset()
			l.stream = nil
		}
	}()
	defer context.AfterFunc(s.closing, func() { _ = stream.Reset() })()
	_ = stream.SetDeadline(until)
	if _, err := stream.Write(requests); err != nil {
		return 0, err
	}
	for took, one := range batch {
		if err := readAnswer(l.answers, one.request); err != nil {
			return took, err
		}
	}
	return len(batch), nil
}

// readAnswer reads the answer to a put. The library echoes the request, mostly in the same bytes.
func readAnswer(answers msgio.Reader, request []byte) error {
	answer, err := answers.ReadMsg()
	if err != nil {
		return err
	}
	defer answers.ReleaseMsg(answer)
	_, n := binary.Uvarint(request)
	if bytes.Equal(answer, request[n:]) {
		return nil
	}
	var sent, got pb.Message
	if err := errors.Join(proto.Unmarshal(answer, &got), proto.Unmarshal(request[n:], &sent)); err != nil {
		return err
	}
	if got.GetRecord() == nil || !bytes.Equal(got.GetRecord().GetValue(), sent.GetRecord().GetValue()) {
		return errNoRecord
	}
	return nil
}

// isReset reports whether the server ended the stream, as it does at a record that it refuses.
func isReset(err error) bool {
	return errors.Is(err, network.ErrReset) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}
