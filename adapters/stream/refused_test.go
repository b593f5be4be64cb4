package stream_test

import (
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"

	"github.com/opencloud/ocnode/adapters/stream"
)

// An indexer refused by a limit learns whose limit it is.
func TestARegistrationThatALimitRefusesSaysWhoseLimit(t *testing.T) {
	noConns := rcmgr.PartialLimitConfig{System: rcmgr.ResourceLimits{Conns: rcmgr.BlockAllLimit, ConnsInbound: rcmgr.BlockAllLimit, ConnsOutbound: rcmgr.BlockAllLimit}}
	noStreams := rcmgr.PartialLimitConfig{Protocol: map[protocol.ID]rcmgr.ResourceLimits{
		stream.Protocol: {Streams: rcmgr.BlockAllLimit, StreamsInbound: rcmgr.BlockAllLimit, StreamsOutbound: rcmgr.BlockAllLimit},
	}}
	const theirs, ours = "the other side", "this node refused it itself: a limit of its own is reached"
	for name, test := range map[string]struct {
		native, indexer *rcmgr.PartialLimitConfig
		want            []string
	}{
		"the native has no room for the connection":   {native: &noConns, want: []string{"connect: " + theirs, "a limit of its own is reached"}},
		"the native has no room for the registration": {native: &noStreams, want: []string{theirs + " refused the stream: a limit of its own is reached"}},
		"the indexer has no room for the connection":  {indexer: &noConns, want: []string{"connect: " + ours}},
		"the indexer has no room for the stream":      {indexer: &noStreams, want: []string{"open a stream: " + ours}},
	} {
		t.Run(name, func(t *testing.T) {
			overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
				native, indexer := newHost(limitedBy(t, test.native)), newHost(limitedBy(t, test.indexer))
				serve(t, newTransport(t, native), grant)
				_, err := register(t.Context(), indexer, remote(t, newTransport(t, indexer), native))
				for _, want := range append(test.want, "register with native "+native.ID().String()) {
					if err == nil || !strings.Contains(err.Error(), want) {
						t.Errorf("got %v, want %q", err, want)
					}
				}
				if err != nil && strings.Contains(err.Error(), "\n") {
					t.Errorf("the error has several lines: %q", err)
				}
			})
		})
	}
}

func limitedBy(t *testing.T, limits *rcmgr.PartialLimitConfig) libp2p.Option {
	t.Helper()
	if limits == nil {
		return libp2p.ResourceManager(&network.NullResourceManager{})
	}
	m, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(limits.Build(rcmgr.InfiniteLimits)), rcmgr.WithMetricsDisabled())
	if err != nil {
		t.Fatal(err)
	}
	return libp2p.ResourceManager(m)
}
