package kaddht

import (
	"encoding/binary"
	"errors"
	"fmt"

	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-msgio"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/opencloud/ocnode/ports"
)

// maxRequestBytes bounds a request: eight times the largest value, enough for a native's many
// addresses too. The library would allocate up to 4 MiB for any announced length.
const maxRequestBytes = 64 << 10

var errUntrusted = errors.New("it is not a native that this node trusts")

// gate decides which peers may do what in the DHT.
type gate struct {
	natives, readers func(ports.PeerID) bool
	// streams and requests count refusals.
	streams, requests prometheus.Counter
	counts            *prometheus.CounterVec
}

func newGate(natives, readers func(ports.PeerID) bool) *gate {
	everybody := func(ports.PeerID) bool { return true }
	g := &gate{natives: natives, readers: readers}
	if g.natives == nil {
		g.natives = everybody
	}
	if g.readers == nil {
		g.readers = everybody
	}
	g.counts = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "ocnode_dht_untrusted_total",
		Help: "What was turned away of the DHT: a stream of a peer that is in neither trust.natives nor trust.indexers, or a request to store of one that is no native. A put of a listed indexer is answered and not stored.",
	}, []string{"what"})
	g.streams, g.requests = g.counts.WithLabelValues("stream"), g.counts.WithLabelValues("request")
	return g
}

func (g *gate) native(p peer.ID) bool { return g.natives(ports.PeerID(p.String())) }

// serve returns a handler that passes streams to handle, with only those requests that their
// sender may make.
func (g *gate) serve(handle network.StreamHandler) network.StreamHandler {
	return func(s network.Stream) {
		from := ports.PeerID(s.Conn().RemotePeer().String())
		if !g.natives(from) && !g.readers(from) {
			g.streams.Inc()
			_ = s.ResetWithError(network.StreamGated)
			return
		}
		handle(&gatedStream{Stream: s, gate: g, from: from, requests: msgio.NewVarintReaderSize(s, maxRequestBytes)})
	}
}

// gatedStream is a stream of requests. It checks each whole request before the library sees any
// of it, and by the current lists: the stream may be older than the lists.
type gatedStream struct {
	network.Stream
	gate     *gate
	from     ports.PeerID
	requests msgio.ReadCloser
	unread   []byte // of the last request
}

// Read implements network.Stream.
func (s *gatedStream) Read(b []byte) (int, error) {
	for len(s.unread) == 0 {
		if err := s.next(); err != nil {
			return 0, err
		}
	}
	n := copy(b, s.unread)
	s.unread = s.unread[n:]
	return n, nil
}

// next reads a request, and has the library read it if its sender may make it. It answers a
// reader's put itself, as the library would, and the put goes no further: a client that searches
// puts the best value to each server that gave it another, and some clients take the refusal of
// that put for the failure of their search.
func (s *gatedStream) next() error {
	request, err := s.requests.ReadMsg()
	if err != nil {
		return err
	}
	defer s.requests.ReleaseMsg(request)
	framed := append(binary.AppendUvarint(nil, uint64(len(request))), request...)
	kind, whole := requestType(request)
	switch {
	case s.gate.natives(s.from), s.gate.readers(s.from) && whole && isReadOnly(kind):
		s.unread = framed
		return nil
	case s.gate.readers(s.from) && whole && kind == pb.Message_PUT_VALUE && hasRecord(request):
		s.gate.requests.Inc()
		_, err := s.Stream.Write(framed) // the library echoes a put, too
		return err
	}
	s.gate.requests.Inc()
	return fmt.Errorf("a request of %s: %w", s.from, errUntrusted)
}

// requestType returns the type of a request, and whether the request is a whole message. The
// library takes the type from the last field with it, and from its lower 32 bits. Without that field
// the request is a PUT_VALUE.
func requestType(request []byte) (kind pb.Message_MessageType, whole bool) {
	kind = pb.Message_PUT_VALUE
	for len(request) > 0 {
		number, wire, tag := protowire.ConsumeTag(request)
		if tag < 0 {
			return kind, false
		}
		length := protowire.ConsumeFieldValue(number, wire, request[tag:])
		if length < 0 {
			return kind, false
		}
		if number == typeField && wire == protowire.VarintType {
			value, _ := protowire.ConsumeVarint(request[tag:])
			kind = pb.Message_MessageType(value)
		}
		request = request[tag+length:]
	}
	return kind, true
}

// isReadOnly reports whether requests of that type store nothing.
func isReadOnly(kind pb.Message_MessageType) bool {
	switch kind {
	case pb.Message_GET_VALUE, pb.Message_GET_PROVIDERS, pb.Message_FIND_NODE, pb.Message_PING:
		return true
	}
	return false
}
