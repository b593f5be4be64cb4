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

// Field numbers of a Kademlia message.
const (
	typeField   = 1
	recordField = 3
)

// maxAnswerBytes bounds an answer: a record, and 20 peers with many addresses each. A server's
// announced length allocates all of it at once, with many servers at a time. The library's own
// bound holds for lists of providers.
const maxAnswerBytes = 256 << 10

var errNoRecord = errors.New("the answer to a put has no record")

// guardedHost is the library's host, behind the gate.
//
// go-libp2p-kad-dht v0.42.1 reads the record in the answer to a PUT_VALUE without a check that
// there is a record (ProtocolMessenger.PutValue), so a server that leaves it out could end this
// process. The library also puts on its own, to peers that answered a look-up with an older
// record. guardedHost turns an answer without a record into an error before the library sees it.
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

// guardedStream is a stream of requests. The library writes each whole before it reads the
// answer.
type guardedStream struct {
	network.Stream
	gate        *gate
	unwritten   int                    // bytes of the last request still to come
	requestType pb.Message_MessageType // its type
	answers     msgio.ReadCloser
	unread      []byte // of the last answer
}

// Write implements network.Stream. A request begins with its length and, unless that is
// 0, its type.
func (s *guardedStream) Write(b []byte) (int, error) {
	if !s.gate.native(s.Conn().RemotePeer()) { // the lists may have changed
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

// typeOf returns the type of the message that begins with b.
func typeOf(b []byte) pb.Message_MessageType {
	number, kind, n := protowire.ConsumeTag(b)
	if n < 0 || number != typeField || kind != protowire.VarintType {
		return pb.Message_PUT_VALUE // 0, which protobuf leaves out
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

// hasRecord reports whether message has a record, valid or not.
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
