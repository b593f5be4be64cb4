// Package memory implements three ports without a network: Store, Announcer and Transport
// between the nodes of a process. They are real adapters: for a node without networked modules,
// and for tests. They pass the suites of the networked adapters, with the limits of the wire.
//
// Nodes join a shared value: a Space of entries, a Topic of announcements, a Network of natives.
package memory
