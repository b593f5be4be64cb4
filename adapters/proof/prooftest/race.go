//go:build race

package prooftest

// Race tells that the race detector is on, under which a test in fake time takes ten times as
// long as without.
const Race = true
