// Package mdns finds natives on the local network, by multicast DNS as libp2p specifies
// it (go-libp2p's p2p/discovery/mdns): no address of anybody has to be known.
//
// A native answers for the DNS-SD service "_ocnode-XXXXXXXX._udp" in the domain "local",
// XXXXXXXX being the first 4 bytes, in hexadecimal, of the SHA-256 of the network's
// prefix ("/opencloud"), so that different networks stay apart. Its instance has a random
// name and a TXT record of strings "dnsaddr=<multiaddr>/p2p/<PeerID>", one for each
// address that it listens on, at most eight, the best first. Nodes that are no natives only ask.
//
// A node takes any answer that has TXT records of such an instance, one record or several: js-libp2p
// sends one for each address, and neither SRV nor A records.
//
// Anybody on the link can answer, for any PeerID: what is found is a hint, and whoever
// dials it learns who is there.
package mdns
