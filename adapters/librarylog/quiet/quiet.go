// Package quiet ends what go-libp2p's canonicallog writes to standard error past every
// handler that it could be given, in a format of its own: that logger is made as its
// package is initialized, at the level that GOLOG_LOG_LEVEL asks for, and never again.
//
// So the level has to be set before. Go initializes packages in the order of their
// import paths, each after what it imports. This one imports the standard library alone,
// and canonicallog needs google.golang.org/protobuf, whose path comes after this one's.
package quiet

import "os"

func init() {
	// Above all that canonicallog writes. Libraries whose lines can be had otherwise get
	// their levels from a librarylog.Claim.
	_ = os.Setenv("GOLOG_LOG_LEVEL", "error")
}
