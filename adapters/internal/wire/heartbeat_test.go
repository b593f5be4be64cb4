package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/opencloud/ocnode/ports"
)

// hexBlock is a frame of an open stream on the protocol's page.
var hexBlock = regexp.MustCompile("<!-- frame in hexadecimal: (.+) -->\n```text\n([0-9a-f]+)\n```\n")

func TestTheHeartbeatFramesOfTheProtocolsPage(t *testing.T) {
	page, err := os.ReadFile(protocolPage)
	if err != nil {
		t.Fatal(err)
	}
	last := ports.Lease{TTL: 3 * time.Second, Heartbeat: 2 * time.Second}
	beat := func(frame []byte) ([]byte, error) {
		var h Heartbeat
		err := DecodeHeartbeat(frame, &h)
		return AppendHeartbeat(nil, &h), err
	}
	answer := func(frame []byte) ([]byte, error) {
		lease, ended, err := DecodeBeaten(frame, last)
		if refusal, ok := errors.AsType[*ports.Refusal](err); ok && ended {
			line, err := EncodeRefusal(refusal)
			return AppendEnded(nil, line), err
		}
		if err == nil && Usual(&lease, &last) && bytes.IndexByte(frame, '{') < 0 {
			return AppendGranted(nil, lease.Now, lease.Clocks), nil
		}
		return AppendAnswered(nil, EncodeLease(lease)), err
	}
	codecs := map[string]func([]byte) ([]byte, error){
		"heartbeat with a registration": beat, "heartbeat with a tick": beat, "plain heartbeat": beat,
		"heartbeat answered with a lease": answer, "heartbeat answered": answer, "heartbeat answered by the time of three clocks": answer,
		"end of an open stream": answer,
	}
	for _, block := range hexBlock.FindAllSubmatch(page, -1) {
		name := string(block[1])
		codec := codecs[name]
		if codec == nil {
			continue // of another protocol
		}
		delete(codecs, name)
		whole, err := hex.DecodeString(string(block[2]))
		if err != nil {
			t.Fatal(err)
		}
		frame, err := NewFrames(bytes.NewReader(whole), MaxHeartbeatBytes).Next()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if again, err := codec(frame); err != nil || !bytes.Equal(again, whole) {
			t.Errorf("%s: read and written again it is\n%x\nand on the page\n%x\n%v", name, again, whole, err)
		}
	}
	for name := range codecs {
		t.Errorf("the page has no frame %q", name)
	}
	for name, value := range map[string]int{"MaxHeartbeatBytes": MaxHeartbeatBytes, "MaxHeartbeats": ports.MaxHeartbeats} {
		if !regexp.MustCompile(fmt.Sprintf(`(?m)^\| %s \| .* \| %d \|$`, name, value)).Match(page) {
			t.Errorf("the page's table has not %d for %s", value, name)
		}
	}
	if !strings.Contains(string(page), "`"+ports.HeartbeatProtocol+"`") {
		t.Errorf("the page does not name %s", ports.HeartbeatProtocol)
	}
}

func TestAHeartbeatAndItsAnswerAreSmall(t *testing.T) {
	h := Heartbeat{Ticks: true, Step: ports.MaxSteps}
	if n := len(AppendHeartbeat(nil, &h)); n > 40 {
		t.Errorf("a heartbeat has %d bytes", n)
	}
	if n := len(AppendGranted(nil, time.Now(), 3)); n > 12 {
		t.Errorf("its answer has %d bytes", n)
	}
}

// hostileBeats are messages that no indexer sends, in hexadecimal.
var hostileBeats = map[string]string{
	"a cut tag":                         "80",
	"a cut text":                        "0a05",
	"a cut number":                      "1080",
	"the number 0":                      "0000",
	"a registration as a number":        "0801",
	"a step as a text":                  "120101",
	"a step of 33 bits":                 "108080808020" + "1a20" + strings.Repeat("00", 32),
	"a step without its link":           "1001",
	"a link of 31 bytes":                "1a1f" + strings.Repeat("00", 31),
	"a link of 33 bytes":                "1a21" + strings.Repeat("00", 33),
	"a registration and a link":         "0a00" + "1a20" + strings.Repeat("00", 32),
	"a group that is not ended":         "7b",
	"a length beyond all that is there": "0affffffffffffffff7f",
}

func TestAFrameThatIsNoHeartbeatIsMalformed(t *testing.T) {
	for name, text := range hostileBeats {
		message, _ := hex.DecodeString(text)
		var h Heartbeat
		err := DecodeHeartbeat(message, &h)
		if refusal, ok := errors.AsType[*ports.Refusal](err); !ok || refusal.Code != ports.CodeMalformed {
			t.Errorf("%s: %v", name, err)
		}
	}
	var h Heartbeat
	later, _ := hex.DecodeString("2203616263" + "280a" + "1a20" + strings.Repeat("07", 32) + "1007")
	if err := DecodeHeartbeat(later, &h); err != nil || !h.Ticks || h.Step != 7 || h.Link[31] != 7 {
		t.Errorf("with fields of a later version, in another order: %+v, %v", h, err)
	}
}

func TestAnAnswerThatIsNoneIsNoRefusal(t *testing.T) {
	last := ports.Lease{TTL: time.Second}
	for name, tt := range map[string]struct {
		message []byte
		last    ports.Lease
	}{
		"nothing":                         {nil, last},
		"a lease before there was one":    {AppendGranted(nil, time.Now(), 0)[1:], ports.Lease{}},
		"an answer that is no JSON":       {AppendAnswered(nil, []byte("lease"))[1:], last},
		"an end without a reason":         {AppendEnded(nil, EncodeLease(last))[2:], last},
		"an end that is cut":              {[]byte{0x22, 9}, last},
		"the time as a text":              {[]byte{0x12, 0}, last},
		"an answer, and clocks as a text": {[]byte{0x0a, 0, 0x1a, 0}, last},
	} {
		_, _, err := DecodeBeaten(tt.message, tt.last)
		if _, refused := errors.AsType[*ports.Refusal](err); err == nil || refused {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHeartbeatsAreReadWhateverPiecesTheyComeIn(t *testing.T) {
	var all []byte
	var want [][]byte
	for _, size := range []int{0, 1, 38, 127, 128, 1023, 1024, 1025, 2, MaxHeartbeatBytes, 0, 5} {
		message := bytes.Repeat([]byte{byte(size)}, size)
		want = append(want, message)
		all = append(lengthOf(all, size), message...)
	}
	for name, r := range map[string]io.Reader{
		"at once": bytes.NewReader(all), "byte by byte": iotest.OneByteReader(bytes.NewReader(all)), "by halves": iotest.HalfReader(bytes.NewReader(all)),
		"with the end": iotest.DataErrReader(bytes.NewReader(all)),
	} {
		f := NewFrames(r, MaxHeartbeatBytes)
		for i, message := range want {
			if got, err := f.Next(); err != nil || !bytes.Equal(got, message) {
				t.Fatalf("%s: frame %d has %d bytes, want %d: %v", name, i, len(got), len(message), err)
			}
		}
		if _, err := f.Next(); err != io.EOF {
			t.Errorf("%s: at the end %v", name, err)
		}
		if len(f.buf) > idleBytes {
			t.Errorf("%s: it holds %d bytes when it is idle", name, len(f.buf))
		}
	}
	for name, tt := range map[string]struct {
		bytes []byte
		want  error
	}{
		"cut in its length": {[]byte{0x80}, io.ErrUnexpectedEOF},
		"cut behind it":     {[]byte{3, 1, 2}, io.ErrUnexpectedEOF},
		"a byte too long":   {lengthOf(nil, MaxHeartbeatBytes+1), tooLongFrame(MaxHeartbeatBytes)},
		"a length too long": {bytes.Repeat([]byte{0x80}, 11), errLength},
		"no length":         {bytes.Repeat([]byte{0xff}, 5), tooLongFrame(MaxHeartbeatBytes)},
	} {
		_, err := NewFrames(bytes.NewReader(tt.bytes), MaxHeartbeatBytes).Next()
		if err == nil || err.Error() != tt.want.Error() {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
}

func lengthOf(b []byte, n int) []byte {
	for ; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

func FuzzHeartbeats(f *testing.F) {
	for _, text := range hostileBeats {
		message, _ := hex.DecodeString(text)
		f.Add(append(lengthOf(nil, len(message)), message...))
	}
	h := Heartbeat{Ticks: true, Step: 3}
	f.Add(AppendHeartbeat(AppendHeartbeat(nil, &Heartbeat{Registration: []byte("{}")}), &h))
	f.Add(AppendGranted(AppendAnswered(nil, EncodeLease(ports.Lease{TTL: time.Second})), time.Unix(1, 1), 2))
	f.Fuzz(func(t *testing.T, stream []byte) {
		frames, whole := NewFrames(bytes.NewReader(stream), MaxHeartbeatBytes), NewFrames(iotest.OneByteReader(bytes.NewReader(stream)), MaxHeartbeatBytes)
		for {
			frame, err := frames.Next()
			again, errAgain := whole.Next()
			if !bytes.Equal(frame, again) || (err == nil) != (errAgain == nil) {
				t.Fatalf("%x, %v at once and %x, %v byte by byte", frame, err, again, errAgain)
			}
			if err != nil {
				return
			}
			var h, same Heartbeat
			if DecodeHeartbeat(frame, &h) == nil {
				written, err := NewFrames(bytes.NewReader(AppendHeartbeat(nil, &h)), MaxHeartbeatBytes).Next()
				if err != nil || DecodeHeartbeat(written, &same) != nil || !bytes.Equal(same.Registration, h.Registration) || same.Ticks != h.Ticks || same.Step != h.Step || same.Link != h.Link {
					t.Fatalf("%+v is written and read again as %+v: %v", h, same, err)
				}
			}
			_, _, _ = DecodeBeaten(frame, ports.Lease{TTL: time.Second})
		}
	})
}
