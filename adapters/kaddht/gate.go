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
		Help: "What was turned away of the DHT: a stream of a peer that is in neither trust.natives nor trust.indexers, or a request to store of one that is no native.",
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
	if len(s.unread) == 0 {
		request, err := s.requests.ReadMsg()
		if err != nil {
			return 0, err
		}
		defer s.requests.ReleaseMsg(request)
		if !s.gate.natives(s.from) && !(s.gate.readers(s.from) && isReadOnly(request)) {
			s.gate.requests.Inc()
			return 0, fmt.Errorf("a request of %s: %w", s.from, errUntrusted)
		}
		s.unread = append(binary.AppendUvarint(nil, uint64(len(request))), request...)
	}
	n := copy(b, s.unread)
	s.unread = s.unread[n:]
	return n, nil
}

// isReadOnly reports whether a request stores nothing. The library takes the type from the last
// field with it, and from its lower 32 bits. Without that field the request is a PUT_VALUE.
func isReadOnly(request []byte) bool {
	kind := pb.Message_PUT_VALUE
	for len(request) > 0 {
		number, wire, tag := protowire.ConsumeTag(request)
		if tag < 0 {
			return false
		}
		length := protowire.ConsumeFieldValue(number, wire, request[tag:])
		if length < 0 {
			return false
		}
		if number == typeField && wire == protowire.VarintType {
			value, _ := protowire.ConsumeVarint(request[tag:])
			kind = pb.Message_MessageType(value)
		}
		request = request[tag+length:]
	}
	switch kind {
	case pb.Message_GET_VALUE, pb.Message_GET_PROVIDERS, pb.Message_FIND_NODE, pb.Message_PING:
		return true
	}
	return false
}
