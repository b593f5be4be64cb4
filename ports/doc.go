// Package ports holds the nouns that cross the boundary of the domain and the
// interfaces that the domain asks for: where entries are stored (Store), how
// natives tell each other who is alive (Announcer), how what a native offers
// travels between nodes (Transport), and how natives are found (Discovery).
//
// It imports the standard library alone. Everything here is plain data or a
// promise: each interface states who blocks, who owns what, and what is not an
// error; package porttest turns those promises into one suite per port.
package ports
