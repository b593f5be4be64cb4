package kaddht

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-msgio"
	"google.golang.org/protobuf/encoding/protowire"
)

// Of the fields of a Kademlia message.
const (
	typeField   = 1
	recordField = 3
)

// maxAnswerBytes bounds an answer: a record, and 20 peers of many addresses each. Room for all
// of it is made as soon as a server says how long it is, for many servers at a time. What lists
// providers may be as long as the library takes.
const maxAnswerBytes = 256 << 10

var errNoRecord = errors.New("the answer to a put has no record")

// guardedHost is the host that the library serves and dials by, as far as the gate lets it.
//
// go-libp2p-kad-dht v0.42.1 reads the
// record in the answer to a PUT_VALUE without looking whether there is one
// (ProtocolMessenger.PutValue), so any server could end this process by leaving it out;
// and it puts by itself, to whoever answered a look-up with an older record. Such an answer
// is an error here before the library sees it.
type guardedHost struct {
	host.Host
	gate *gate
}

// SetStreamHandler implements host.Host.
func (h guardedHost) SetStreamHandler(p protocol.ID, handle network.StreamHandler) {
	h.Host.SetStreamHandler(p, h.gate.serve(handle))
}

// NewStream implements host.Host.
func (h guardedHost) NewStream(ctx context.Context, p peer.ID, protocols ...protocol.ID) (network.Stream, error) {
	s, err := h.Host.NewStream(ctx, p, protocols...)
	if err != nil {
		return nil, err
	}
	return &guardedStream{Stream: s, gate: h.gate, answers: msgio.NewVarintReaderSize(s, network.MessageSizeMax)}, nil
}

// guardedStream is a stream of requests, each written whole before its answer is read.
type guardedStream struct {
	network.Stream
	gate        *gate
	unwritten   int                    // bytes of the last request that have not been written yet
	requestType pb.Message_MessageType // what it is
	answers     msgio.ReadCloser
	unread      []byte // of the last answer
}

// Write implements network.Stream. A request begins with its length and, unless that is
// 0, its type.
func (s *guardedStream) Write(b []byte) (int, error) {
	if !s.gate.native(s.Conn().RemotePeer()) { // not any more, or never was
		return 0, fmt.Errorf("ask %s: %w", s.Conn().RemotePeer(), errUntrusted)
	}
	for rest := b; len(rest) > 0; {
		if s.unwritten == 0 {
			length, n := protowire.ConsumeVarint(rest)
			if n < 0 {
				return 0, protowire.ParseError(n)
			}
			s.unwritten = n + int(length)
			s.requestType = typeOf(rest[n:])
		}
		n := min(s.unwritten, len(rest))
		s.unwritten -= n
		rest = rest[n:]
	}
	return s.Stream.Write(b)
}

// typeOf returns of which type a message is that begins with b.
func typeOf(b []byte) pb.Message_MessageType {
	number, kind, n := protowire.ConsumeTag(b)
	if n < 0 || number != typeField || kind != protowire.VarintType {
		return pb.Message_PUT_VALUE // which is 0 and left out
	}
	value, _ := protowire.ConsumeVarint(b[n:])
	return pb.Message_MessageType(value)
}

// Read implements network.Stream.
func (s *guardedStream) Read(b []byte) (int, error) {
	if len(s.unread) == 0 {
		length, err := s.answers.NextMsgLen()
		if err != nil {
			return 0, err
		}
		if length > maxAnswerBytes && s.requestType != pb.Message_GET_PROVIDERS {
			return 0, fmt.Errorf("an answer of %d bytes, at most %d are allowed", length, maxAnswerBytes)
		}
		answer, err := s.answers.ReadMsg()
		if err != nil {
			return 0, err
		}
		defer s.answers.ReleaseMsg(answer)
		if s.requestType == pb.Message_PUT_VALUE && !hasRecord(answer) {
			return 0, errNoRecord
		}
		s.unread = append(binary.AppendUvarint(nil, uint64(len(answer))), answer...)
	}
	n := copy(b, s.unread)
	s.unread = s.unread[n:]
	return n, nil
}

// hasRecord reports whether message has a record, be it a good one or not.
func hasRecord(message []byte) bool {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeField(message)
		if n < 0 {
			return false
		}
		if number == recordField && kind == protowire.BytesType {
			return true
		}
		message = message[n:]
	}
	return false
}
