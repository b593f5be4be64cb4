package wire

import (
	"io"

	"github.com/opencloud/ocnode/ports"
)

// lengthBytes is the longest length of a binary frame: 64 KiB takes three bytes.
const lengthBytes = 3

// Frames reads frames of the binary protocols: a length as a varint, and a message of so many bytes. It holds little
// while it is idle, and says which frames have come together.
type Frames struct {
	r        io.Reader
	most     int
	buf      []byte
	from, to int // what is read and not handed out
}

// idleBytes is the buffer of a stream that is idle: room for sixteen heartbeats.
const idleBytes = 1 << 10

// NewFrames returns the frames of r, of messages of at most so many bytes each.
func NewFrames(r io.Reader, most int) *Frames {
	return &Frames{r: r, most: most, buf: make([]byte, idleBytes)}
}

// errLength refuses a length that no frame may have.
var errLength = ports.Refuse(ports.CodeMalformed, "a frame begins with its length as a varint of %d bytes at most", lengthBytes)

func tooLongFrame(most int) *ports.Refusal {
	return ports.Refuse(ports.CodeTooLarge, "a frame has at most %d bytes behind its length", most)
}

// Ready returns the next message that has been read already, valid until the next call of Next; ok is
// false if there is none. The error is a *ports.Refusal.
func (f *Frames) Ready() (message []byte, ok bool, err error) {
	length, n, err := f.length()
	if err != nil || n == 0 || f.to-f.from-n < length {
		return nil, false, err
	}
	begin := f.from + n
	f.from = begin + length
	return f.buf[begin:f.from:f.from], true, nil
}

// length returns the length of the next message, and how many bytes say it; 0 while they have not come.
func (f *Frames) length() (length, n int, err error) {
	for i, c := range f.buf[f.from:f.to] {
		switch length |= int(c&0x7f) << (7 * i); {
		case length > f.most:
			return 0, 0, tooLongFrame(f.most)
		case c < 0x80:
			return length, i + 1, nil
		case i+1 == lengthBytes:
			return 0, 0, errLength
		}
	}
	return 0, 0, nil
}

// Next returns the next message, and waits for it. io.EOF is the end between two frames, and
// io.ErrUnexpectedEOF the end within one. Other errors are the reader's, or a *ports.Refusal of a length.
func (f *Frames) Next() ([]byte, error) {
	for {
		message, ok, err := f.Ready()
		if ok || err != nil {
			return message, err
		}
		f.makeRoom()
		n, err := f.r.Read(f.buf[f.to:])
		f.to += n
		switch {
		case n > 0: // an error comes again
		case err == io.EOF && f.to > f.from:
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		}
	}
}

// makeRoom moves what is left to the front, of a buffer that has room for the next frame.
func (f *Frames) makeRoom() {
	rest := f.buf[f.from:f.to]
	length, n, _ := f.length() // Ready has refused what is too long
	want := max(idleBytes, n+length)
	to := f.buf
	if want > len(f.buf) || want == idleBytes && len(f.buf) > idleBytes {
		to = make([]byte, want)
	}
	f.from, f.to, f.buf = 0, copy(to, rest), to
}
