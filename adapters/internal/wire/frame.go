package wire

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/opencloud/ocnode/ports"
)

// buffers holds what frames are read into: one byte more than a frame may have,
// so that a full buffer means too large, or room for the newline behind the
// largest frame.
var buffers = sync.Pool{New: func() any { return new([ports.MaxFrameBytes + 1]byte) }}

// ReadFrame reads up to the first newline or the end of r, whichever comes first,
// and returns what stands before it, which the caller owns. Bytes behind the
// newline that came with it are dropped; it never waits for them. It never holds
// more than ports.MaxFrameBytes and one byte.
//
// A frame over that is ErrFrameTooLarge; other errors are r's.
func ReadFrame(r io.Reader) ([]byte, error) {
	buf := buffers.Get().(*[ports.MaxFrameBytes + 1]byte)
	defer buffers.Put(buf)
	for n := 0; n < len(buf); {
		read, err := r.Read(buf[n:])
		if i := bytes.IndexByte(buf[n:n+read], '\n'); i >= 0 {
			return bytes.Clone(buf[:n+i]), nil
		}
		n += read
		switch {
		case err == io.EOF && n <= ports.MaxFrameBytes:
			return bytes.Clone(buf[:n]), nil
		case err != nil && err != io.EOF:
			return nil, err
		}
	}
	return nil, ErrFrameTooLarge
}

// ErrFrameTooLarge is the *ports.Refusal of a text over ports.MaxFrameBytes.
var ErrFrameTooLarge = tooLarge(ports.MaxFrameBytes)

func tooLarge(most int) error {
	return ports.Refuse(ports.CodeTooLarge,
		"a frame has at most %d bytes before its newline; send fewer or shorter fields", most)
}

// Lines reads an answer of several frames.
type Lines struct {
	r    *bufio.Reader
	most int
}

// NewLines returns the frames of r, of at most so many bytes each.
func NewLines(r io.Reader, most int) *Lines {
	// One byte more, for the newline behind the largest frame.
	return &Lines{bufio.NewReaderSize(r, most+1), most}
}

// Reset has l read the frames of r, as if it were new.
func (l *Lines) Reset(r io.Reader) { l.r.Reset(r) }

// Next returns the next frame without its newline, valid until Next is called again. It
// never holds more than one frame and one byte. io.EOF is the end of the answer, and also
// what a frame that was not whole then ends in; other errors are the reader's, or that
// the frame is too large, which is no *ports.Refusal: the other side is at fault.
func (l *Lines) Next() ([]byte, error) {
	frame, err := l.r.ReadSlice('\n')
	switch {
	case err == nil:
		return frame[:len(frame)-1], nil
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, fmt.Errorf("a frame has more than %d bytes", l.most)
	}
	return nil, err
}
