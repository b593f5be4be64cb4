package wire

import (
	"bytes"
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
var ErrFrameTooLarge error = ports.Refuse(ports.CodeTooLarge,
	"a frame has at most %d bytes before its newline; send fewer or shorter fields", ports.MaxFrameBytes)
