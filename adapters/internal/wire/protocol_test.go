package wire

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/opencloud/ocnode/ports"
)

// protocolPage is where other implementations have the protocol from.
const protocolPage = "../../../docs/protocol.md"

// frameBlock is a frame on that page that is to be taken at its word.
var frameBlock = regexp.MustCompile("<!-- frame: (.+) -->\n```json\n(.*)\n```\n")

func TestTheFramesOfTheProtocolsPage(t *testing.T) {
	page, err := os.ReadFile(protocolPage)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 3, 1, 10, 0, 25, 0, time.UTC)
	registration := func(frame []byte) ([]byte, error) {
		r, err := DecodeRegistration(frame, "")
		return encoded(r, err, EncodeRegistration)
	}
	leave := func(frame []byte) ([]byte, error) {
		id, record, err := DecodeLeave(frame, "")
		return encoded(id, err, func(id ports.PeerID) ([]byte, error) { return EncodeLeave(id, record) })
	}
	answer := func(frame []byte) ([]byte, error) {
		l, err := DecodeAnswer(frame)
		if refusal, ok := errors.AsType[*ports.Refusal](err); ok {
			return EncodeRefusal(refusal)
		}
		return EncodeLease(l), err
	}
	question := func(frame []byte) ([]byte, error) {
		q, err := DecodeQuestion(frame)
		return encoded(q, err, EncodeQuestion)
	}
	end := func(frame []byte) ([]byte, error) {
		_, e, err := DecodeListed(frame, now)
		if err != nil || e == nil {
			return nil, fmt.Errorf("the end is %v, %v", e, err)
		}
		return EncodeEnd(*e)
	}
	batch := func(frame []byte) (again []byte, err error) {
		b, err := DecodeBatch(frame, now)
		if refusal, ok := errors.AsType[*ports.Refusal](err); ok {
			return EncodeWatchEnd(refusal)
		}
		if err == nil {
			_, err = WriteBatch(nil, &b, now, func(frame []byte) error { again = append(again, frame...); return nil })
		}
		return again, err
	}
	value := func(value []byte) ([]byte, error) {
		e, err := DecodeEntry(value)
		return encoded(e, err, EncodeEntry)
	}
	// Each frame is read, and written again from what was read.
	codecs := map[string]func(frame []byte) ([]byte, error){
		"registration": registration, "registration with all it can say": registration, "malformed registration": registration,
		"registration with its record": registration, "heartbeat with its tick": registration,
		"lease": answer, "lease of a record": answer, "lease of a late tick": answer, "the record is needed": answer, "refusal": answer,
		"leave": leave, "leave with its record": leave,
		"leave taken":      func([]byte) ([]byte, error) { return EncodeOK(), nil },
		"question for one": question, "question for a page": question, "question for the natives": question, "question out of range": question,
		"entry": func(frame []byte) ([]byte, error) {
			l, end, err := DecodeListed(frame, now)
			if end != nil || err != nil {
				return nil, fmt.Errorf("the entry is the end %v, %v", end, err)
			}
			return AppendListed(nil, &l, now)
		},
		"end of a page": end, "end without an entry": end,
		"native": func(frame []byte) ([]byte, error) {
			s, _, err := DecodeNative(frame)
			return encoded(s, err, func(s ports.NativeStatus) ([]byte, error) { return AppendNative(nil, s) })
		},
		"watch of a native":                 func(frame []byte) ([]byte, error) { w, err := DecodeWatch(frame); return encoded(w, err, EncodeWatch) },
		"end of a page of a partial native": end, "snapshot of a native that beats": batch,
		"watch":           func(frame []byte) ([]byte, error) { w, err := DecodeWatch(frame); return encoded(w, err, EncodeWatch) },
		"snapshot begins": batch, "snapshot is whole": batch, "changes": batch, "renewal with its tick": batch, "end of a watch": batch,
		"value": value, "value with all it can say": value, "leave as a value": value,
		"value with its proof": value, "leave with its proof as a value": value,
	}
	refused := map[string]ports.Code{"malformed registration": ports.CodeMalformed, "question out of range": ports.CodeOutOfRange}

	for _, block := range frameBlock.FindAllSubmatch(page, -1) {
		name, frame := string(block[1]), block[2]
		codec := codecs[name]
		if codec == nil {
			t.Errorf("%q is no frame that is known here, or stands twice", name)
			continue
		}
		delete(codecs, name)
		again, err := codec(frame)
		if want := refused[name]; want != "" {
			if refusal, ok := errors.AsType[*ports.Refusal](err); !ok || refusal.Code != want {
				t.Errorf("%s: %v, want %s", name, err, want)
			}
			continue
		}
		if again = bytes.TrimSuffix(again, []byte("\n")); err != nil || !bytes.Equal(again, frame) {
			t.Errorf("%s: read and written again it is\n%s\nand on the page\n%s\n%v", name, again, frame, err)
		}
	}
	for name := range codecs {
		t.Errorf("the page has no frame %q", name)
	}
}

// encoded encodes what was decoded without an error.
func encoded[T any](v T, err error, encode func(T) ([]byte, error)) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	return encode(v)
}

func TestTheNumbersOfTheProtocolsPage(t *testing.T) {
	page, err := os.ReadFile(protocolPage)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]any{
		"MaxFrameBytes": ports.MaxFrameBytes, "MaxLineBytes": MaxLineBytes, "MaxBatchBytes": ports.MaxBatchBytes,
		"MaxAddrs": ports.MaxAddrs, "MaxAddrBytes": ports.MaxAddrBytes, "MaxMetaBytes": ports.MaxMetaBytes,
		"MaxMetaNames": ports.MaxMetaNames, "MaxNesting": ports.MaxNesting, "MaxCursorBytes": ports.MaxCursorBytes,
		"DefaultPage": ports.DefaultPage, "MaxPage": ports.MaxPage, "ExchangeTimeout": ports.ExchangeTimeout,
		"WatchIdle": ports.WatchIdle, "WatchTimeout": ports.WatchTimeout, "ClockAllowance": ports.ClockAllowance,
		"RecordLife": ports.RecordLife, "MaxMissing": ports.MaxMissing, "MaxFollowed": ports.MaxFollowed, "MaxSteps": ports.MaxSteps, "MaxInterval": ports.MaxInterval,
	} {
		row := regexp.MustCompile(`(?m)^\| ` + name + ` \| .* \| (\S+) \|$`).FindSubmatch(page)
		if row == nil || string(row[1]) != fmt.Sprint(value) {
			t.Errorf("the page's table has %q for %s, want %v", row, name, value)
		}
	}
	for _, id := range []string{ports.SubscribeProtocol, ports.LeaveProtocol, ports.LookupProtocol, ports.WatchProtocol} {
		if !strings.Contains(string(page), "`"+id+"`") {
			t.Errorf("the page does not name %s", id)
		}
	}
	for _, code := range []ports.Code{
		ports.CodeMalformed, ports.CodeTooLarge, ports.CodePeerMismatch, ports.CodeAddrInvalid, ports.CodeProofInvalid, ports.CodeSuperseded, ports.CodeRefused, ports.CodeBusy,
		ports.CodeNotFound, ports.CodeOutOfRange, ports.CodeTooSlow,
	} {
		if !regexp.MustCompile(`(?m)^` + string(code) + ` `).Match(page) {
			t.Errorf("no table of the page has the code %s", code)
		}
	}
}
