// Package memory has all three ports without a network: Store, Announcer and
// Transport between the nodes of one process. They are real adapters, for a node
// whose modules plug in no other and for tests, and pass the suites that the
// networked ones pass; limits of the wire hold here too.
//
// What nodes share is a value of its own, which each node joins: a Space of
// entries, a Topic of announcements, a Network of natives.
package memory
