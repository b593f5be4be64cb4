// Package admission is the door of a native: it decides whom the native hears at all, by
// who it is and where it comes from, and which addresses it may be registered with.
//
// # How often, and how many
//
// An identity may register so many times in a heartbeat, all of them at once if it
// likes: an indexer needs one, and a few more for retries and changed addresses. An
// IPv4 address or IPv6 /56 may have so many identities that hold a lease here, and an
// IPv4 /24 or IPv6 /48 twice as many. Who holds a lease renews it, whatever its site has
// become; it is newcomers that are turned away. A leave counts as a registration does, and its
// seat is not free before the native has forgotten it, a TTL later: else whoever comes and
// goes under ever new names fills the native's table.
//
// Identities are free, and so are the addresses of an IPv6 site; what costs is a site.
// That is why there is no limit on strangers as such: the connections of a site are
// bounded, and how fast it makes them, by the host.
//
// Loopback is exempt from what bounds a site: whoever is there is on this machine.
//
// # Which addresses
//
// Whoever registers an address of somebody else's has all who read it dial there. So an
// address has to be the sender's. Where Policy asks for that to be shown, it is one of
//
//   - its IP is the one that the registration came from;
//   - it is a name that stands for that IP;
//   - this native has dialled it, and the sender's key was there.
//
// What was shown holds for an hour. The one address that a registration needs, Addr, is
// waited for, 2 s at most; the others are left out of the entry until they have been
// shown, and the next heartbeat brings them in. An address that could not be shown is
// tried again a minute later. Dials are bounded: so many at once, and so many to one site in
// a minute, so that a native cannot be made to dial a victim either.
package admission
