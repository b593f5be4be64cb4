// Package modules composes a node: each file is one module with its section of
// the configuration, its defaults, what it checks, and its wiring; module.go is the
// list of them all; node.go starts and stops what they plug in.
//
// A module may come from outside, in a program that hands a longer list to cmd.Main:
// docs/adapters.md walks through one. What it needs is Module, Provide and Observe here,
// and what their constructors can ask for by type.
//
// Only this package and cmd know fx and the configuration.
package modules
