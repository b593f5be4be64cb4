// Package libp2phost makes the libp2p host that everything else runs on: its identity,
// what it listens on, how much it takes of the machine, and how it stays connected.
// It also holds the rule for addresses, which are libp2p's affair.
//
// # What the host is made of
//
// Two transports: TCP, secured by TLS 1.3 or Noise and multiplexed by yamux (libp2p's
// defaults, agreed on in the handshake), and QUIC v1. WebSocket, WebTransport and
// WebRTC are not added to it. TCP is dialled first: an idle TCP connection holds 39 KB
// where QUIC holds 67, and when a process is killed its kernel closes TCP connections at
// once, where QUIC takes 30 s to notice; so a death is seen in time.
//
// TCP ports are bound without SO_REUSEPORT. With it a second process on the same port
// starts without an error and takes half of the connections.
//
// What is not used is off: relaying and hole punching (they come later), AutoNAT, NAT
// port mapping, the black-hole filters, which after a network's outage would refuse
// QUIC and IPv6 for minutes, and the discovery of addresses from what strangers claim
// to have seen: a node tells others the addresses that it has or that its operator
// announces, and nothing else.
//
// # Where others reach it
//
// libp2p tells all addresses of all interfaces, in the order of their bytes, as they were up to a
// minute ago. Addresses reads the interfaces itself, and Order ranks: the address of a bridge is of
// no use to others, and they would dial it first. Addresses closes the connections of an address
// that is gone. The list that is registered is the same at all natives, so it has the local addresses
// of all connections to natives at its head, and not of each native its own: natives that were
// told different lists would tell each other the one and then the other.
//
// # A private network
//
// With a key (host.psk) each TCP connection is encrypted by it before anything else, and
// QUIC, which has no place for that, is not added to the host. libp2p does not check that
// both sides have one key: to the other, what one writes is noise, and its first bytes
// decide whether that ends in an error, a closed connection or silence. Package blame names
// the key as a likely cause of all three.
//
// # How much it takes
//
// libp2p's default limits stop a native at 252 inbound connections, and at 8 of one
// IPv4 address. Limits derives its own from the machine's memory and the open-file
// limit; limits.go names each share with its reason. When there are more connections
// than the high-water mark, the connection manager closes those that hold no lease, then
// the idlest, which costs their indexers a dial at the next heartbeat; at the hard limits
// newcomers are refused.
//
// # How it stays connected
//
// libp2p reconnects some 15 to 32 s after a cut, a peer whose addresses have lapsed from
// the peerstore (15 min) never, and a failed dial puts the peer under a back-off of up
// to 5 min. Joiner is a loop of our own that knows none of these limits: it keeps the
// configured peers connected, and the natives that it met since, so that natives which
// found each other through the DHT find each other again without it.
package libp2phost
