// Package modules composes a node: each file is one module with its section of
// the configuration, its defaults, what it checks, and its wiring; module.go is the
// list of them all; node.go starts and stops what they plug in.
//
// Only this package and cmd know fx and the configuration.
package modules
